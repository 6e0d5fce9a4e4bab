"""Files that come in twos: whatever happens, never is the old one of two beside the new other."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.crafted import FIXTURES
from support.jail import ROOT, Fault, Jail
from test_faults import LAYOUTS, OLD, SUFFIXES, UNLIKE, check_message, spread

import lstmconvert
from lstmconvert.containers import table
from lstmconvert.errors import DestinationError
from lstmconvert.files import writing
from lstmconvert.targets import target_of

pytestmark = pytest.mark.slow

SOURCE = FIXTURES / "seed95.keras"
POINTS = 10
_STARTED = 5
#: Beside it, ONNX keeps what one protocol buffer does not hold. Here that is everything.
_SMALL = "import lstmconvert.onnx.write\nlstmconvert.onnx.write.PROTOBUF_BYTES = 1000\n"


@dataclass(frozen=True)
class Pair:
    """Two files: `first`, the destination; `second`, beside it; `options` of the command."""

    first: str
    second: str
    options: tuple[str, ...] = ()

    def write(self, folder: Path, data: tuple[bytes, bytes]) -> Path:
        (folder / self.first).write_bytes(data[0])
        (folder / self.second).write_bytes(data[1])
        return folder / self.first

    def found(self, folder: Path) -> tuple[bytes | None, bytes | None]:
        paths = folder / self.first, folder / self.second
        one, two = (path.read_bytes() if path.exists() else None for path in paths)
        return one, two


PAIRS = {
    "ncnn": Pair("lstm.param", "lstm.bin"),
    "tfjs": Pair("lstm.json", "lstm.bin", ("--to", "tfjs")),
    "onnx": Pair("lstm.onnx", "lstm.onnx.data"),
}
OLDS = (OLD, OLD + b" beside it")


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(f"import onnx.inliner\n{_SMALL}")
    with Jail(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)])) as one:
        yield one


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Pair:
    return PAIRS[request.param]


@pytest.fixture
def news(pair: Pair, jail: Jail, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """What the conversion gives: the same bytes, always."""
    folder = tmp_path_factory.mktemp("new")
    assert jail.run("convert", SOURCE, folder / pair.first, *pair.options).code == 0
    first, second = pair.found(folder)
    assert first is not None
    assert second is not None
    return first, second


def check(folder: Path, pair: Pair, news: tuple[bytes, bytes], *, killed: bool = False) -> None:
    """Both are old or both are new. After a kill the first may be gone, until who is next puts the
    old ones back."""
    if killed and pair.found(folder) not in (OLDS, news):
        assert pair.found(folder)[0] is None
        assert len(os.listdir(folder)) <= 5  # a temporary file of each, and a folder
        writing.remove_stale(folder / pair.first)
        assert pair.found(folder) == OLDS
    first, second = pair.found(folder)
    assert (first, second) in (OLDS, news, (None, None))
    others = set(os.listdir(folder)) - {pair.first, pair.second}
    assert len(others) <= (3 if killed else 0), others


def counted(jail: Jail, pair: Pair, folder: Path) -> dict[str, int]:
    """How many calls and reads a conversion takes that replaces another."""
    destination = pair.write(folder, OLDS)
    args = ["convert", SOURCE, destination, "--force", *pair.options]
    run = jail.run(*args, fault=Fault("call", 0, "kill"))
    assert run.code == 0, run
    return run.counts


def test_every_container_is_among_them() -> None:
    kinds = {f"x{suffix}": LAYOUTS.get(suffix) for suffix in SUFFIXES}
    kinds |= {pair.first: pair.options[1] if pair.options else None for pair in PAIRS.values()}
    tried = {target_of(Path(name), layout).name for name, layout in kinds.items()}
    tried.add("mlpackage")  # a folder: tests/containers/test_mlprogram.py
    assert tried == {row.name for row in table.written()}


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
@pytest.mark.parametrize("what", ["kill", "interrupt"])
def test_stopped(
    what: str, pair: Pair, news: tuple[bytes, bytes], jail: Jail, tmp_path: Path
) -> None:
    counts, stopped = counted(jail, pair, tmp_path), 0
    last = range(counts["call"] - 24, counts["call"] + 1)  # where the names are taken
    for at in sorted({*spread(counts, POINTS), *last}):
        destination = pair.write(tmp_path, OLDS)
        fault = Fault("call", at + _STARTED, what)
        run = jail.run("convert", SOURCE, destination, "--force", *pair.options, fault=fault)
        stopped += run.code in (-9, 130)
        check(tmp_path, pair, news, killed=what == "kill")
    assert stopped > POINTS
    run = jail.run("convert", SOURCE, destination, "--force", *pair.options)
    assert run.code == 0
    assert pair.found(tmp_path) == news
    check(tmp_path, pair, news)


@pytest.mark.parametrize("exists", [True, False], ids=["replacing", "new"])
@pytest.mark.parametrize("call", ["replace", "rename", "link", "mkdir", "chmod"])
def test_a_name_that_cannot_be_taken(
    call: str, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call fails once, and each time the old pair is there, or none."""
    pair, real, failures = PAIRS["ncnn"], getattr(os, call), 0
    for at in range(1, 9):
        destination = pair.write(tmp_path, OLDS) if exists else tmp_path / pair.first
        count = 0

        def failing(*args: object, **options: object) -> None:
            nonlocal count
            count += 1
            if count == at:  # noqa: B023  # called before the next turn
                raise OSError(errno.EIO, "no")
            real(*args, **options)

        monkeypatch.setattr(os, call, failing)
        try:
            lstmconvert.convert(SOURCE, destination, force=exists)
        except DestinationError:
            failures += 1
            assert pair.found(tmp_path) == (OLDS if exists else (None, None))
            assert len(os.listdir(tmp_path)) == (2 if exists else 0)
        monkeypatch.undo()
        for path in tmp_path.iterdir():
            path.unlink()
    if exists:
        assert failures or call in ("link", "rename")
    else:  # where there are no links, names are taken another way
        assert failures or call != "mkdir"


def test_what_appeared_meanwhile_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, real = PAIRS["ncnn"], os.mkdir

    def appearing(*args: object, **options: object) -> None:
        real(*args, **options)
        (tmp_path / pair.first).write_bytes(b"somebody else's")

    monkeypatch.setattr(os, "mkdir", appearing)
    with pytest.raises(DestinationError, match="appeared meanwhile"):
        lstmconvert.convert(SOURCE, tmp_path / pair.first)
    assert pair.found(tmp_path) == (b"somebody else's", None)
    assert os.listdir(tmp_path) == [pair.first]


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
@pytest.mark.parametrize("exists", [True, False], ids=["replacing", "new"])
def test_no_file_can_grow(
    exists: bool, pair: Pair, news: tuple[bytes, bytes], jail: Jail, tmp_path: Path
) -> None:
    olds = OLDS if exists else (None, None)
    options = [*pair.options, "--force"] if exists else pair.options
    destination = pair.write(tmp_path, OLDS) if exists else tmp_path / pair.first
    for most in {1024, *(len(data) - 1 for data in news if len(data) > 1025)}:
        run = jail.run("convert", SOURCE, destination, *options, file_bytes=most)
        assert run.code == 2, most
        check_message(run, os.strerror(errno.EFBIG))
        assert pair.found(tmp_path) == olds
        check(tmp_path, pair, news)


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_one_of_them_exists(
    pair: Pair, news: tuple[bytes, bytes], jail: Jail, tmp_path: Path
) -> None:
    for name in (pair.first, pair.second):
        (tmp_path / name).write_bytes(OLD)
        run = jail.run("convert", SOURCE, tmp_path / pair.first, *pair.options)
        check_message(run, f"{tmp_path / name}: the destination exists")
        assert run.code == 2
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_processes_at_once(
    pair: Pair, news: tuple[bytes, bytes], jail: Jail, tmp_path: Path
) -> None:
    whole, out = [news], tmp_path / "out"
    assert jail.run("convert", UNLIKE, tmp_path / pair.first, *pair.options).code == 0
    whole.append(pair.found(tmp_path))  # type: ignore[arg-type]  # both are there
    assert whole[0] != whole[1]
    out.mkdir()
    commands = [["convert", x, out / pair.first, *pair.options] for x in (SOURCE, UNLIKE) * 2]
    for _ in range(3):
        runs = jail.run_at_once(*commands)
        assert sorted(run.code for run in runs) == [0, 2, 2, 2], runs
        assert pair.found(out) in whole
        runs = jail.run_at_once(*([*command, "--force"] for command in commands))
        assert [run.code for run in runs] == [0, 0, 0, 0], runs
        assert pair.found(out) in whole
        assert set(os.listdir(out)) == {pair.first, pair.second}
        for name in (pair.first, pair.second):
            (out / name).unlink()


def test_the_second_goes_when_the_first_cannot_come(tmp_path: Path) -> None:
    from lstmconvert.errors import DestinationError
    from lstmconvert.files import writing

    first, second = tmp_path / "a", tmp_path / "b"

    def write() -> None:
        with writing.replacing_all([first, second]) as temporaries:
            for path in temporaries:
                path.write_bytes(b"new")
            first.write_bytes(OLD)

    with pytest.raises(DestinationError, match="meanwhile"):
        write()
    assert os.listdir(tmp_path) == ["a"]
    assert first.read_bytes() == OLD


def test_two_sources_at_once_do_not_mix(tmp_path: Path) -> None:
    both = [SOURCE, FIXTURES.parent / "keras-3.15.1" / "both_concat.keras"]
    pair, whole = PAIRS["ncnn"], []
    for number, source in enumerate(both):
        (tmp_path / str(number)).mkdir()
        lstmconvert.convert(source, tmp_path / str(number) / pair.first)
        whole.append(pair.found(tmp_path / str(number)))
    (tmp_path / "out").mkdir()
    for _ in range(12):
        threads = [
            threading.Thread(
                target=lstmconvert.convert, args=(source, tmp_path / "out" / pair.first),
                kwargs={"force": True},
            )
            for source in both * 2
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pair.found(tmp_path / "out") in whole


def test_a_pair_is_read_back(tmp_path: Path) -> None:
    lstmconvert.convert(SOURCE, tmp_path / "lstm.param")
    assert lstmconvert.diff(SOURCE, tmp_path / "lstm.param", weights_only=True)

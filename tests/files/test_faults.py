"""Whatever happens to a conversion, the destination is whole, old or new, and nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.crafted import FIXTURES, members
from support.jail import ROOT, Fault, Jail, Run
from support.thinned import ALL, turns

import lstmconvert
from lstmconvert.errors import DestinationError
from lstmconvert.files import writing

pytestmark = pytest.mark.slow

SOURCE = FIXTURES / "seed95.keras"
TF = FIXTURES.parent / "tf-2.12.1"
#: Another model that goes to each of them.
UNLIKE = FIXTURES.parent / "keras-3.15.1" / "square.keras"
#: Every kind of file that is written, and its layout, where the suffix does not say it.
SUFFIXES = (
    ".safetensors", ".keras", ".weights.h5", ".h5", ".npz", ".onnx", ".json", ".h",
    ".tflite", ".mat", ".params", ".msgpack", ".eqx", ".mlmodel", ".rtneural.json", ".fdeep.json",
    ".lwtnn.json", ".aidax", ".nam",
)  # fmt: skip
#: Fewer points of time for these, which are written whole, as others of them are.
FEW = frozenset(SUFFIXES[7:])
LAYOUTS = {
    ".json": "torch", ".params": "mxnet", ".msgpack": "flax", ".eqx": "equinox",
    ".rtneural.json": "rtneural", ".fdeep.json": "frugally-deep", ".lwtnn.json": "lwtnn",
}  # fmt: skip
BARE = (".msgpack", ".eqx")
OLD = b"what was there before"
POINTS = 12 if ALL else 8
#: By this call the command line is inside its handler of interrupts.
_STARTED = 5


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    """A jail whose server has imported the writers already, so that the faults hit our own code."""
    folder = tmp_path_factory.mktemp("warm")
    modules = "lstmconvert.onnx.write, onnx.inliner, scipy.io, msgpack, flatbuffers"
    (folder / "sitecustomize.py").write_text(
        f"import {modules}, ai_edge_litert.schema_py_generated\n"
    )
    with Jail(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)])) as one:
        yield one


def to(suffix: str) -> list[str]:
    """The options that a destination of this kind needs."""
    options = ["--to", LAYOUTS[suffix]] if suffix in LAYOUTS else []
    return [*options, "--bare"] if suffix in BARE else options


def convert(destination: Path) -> None:
    """What the command does with the options of `to`."""
    suffix = destination.name.removeprefix(destination.name.partition(".")[0])
    layout, bare = LAYOUTS.get(suffix), suffix in BARE
    lstmconvert.convert(SOURCE, destination, layout=layout, bare=bare, force=True)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What each conversion gives: the same bytes, always."""
    folder = tmp_path_factory.mktemp("new")
    for suffix in SUFFIXES:
        convert(folder / f"new{suffix}")
    return {suffix: (folder / f"new{suffix}").read_bytes() for suffix in SUFFIXES}


def counted(jail: Jail, source: Path, folder: Path, suffix: str) -> dict[str, int]:
    """How many calls and reads a conversion takes."""
    destination = folder / f"count{suffix}"
    run = jail.run("convert", source, destination, *to(suffix), fault=Fault("call", 0, "kill"))
    assert run.code == 0, run
    destination.unlink()
    assert run.counts["call"] > 100
    assert run.counts["read"] > 1  # of the source, which is small, and of what was written
    return run.counts


def points(suffix: str) -> int:
    """How many points of time to try."""
    return POINTS // 2 if suffix in FEW else POINTS


def spread(counts: dict[str, int], points: int = POINTS) -> list[int]:
    """Calls, from the first to the last: half of them where it writes."""
    count, begin, end = counts["call"], counts["begin"] + 2, counts["end"]
    assert 0 < begin < end <= count
    early = range(1, count, max(1, 2 * count // points))
    late = range(begin, end, max(1, 2 * (end - begin) // points))
    return sorted({*early, *late, end, *range(max(1, count - 3), count + 1)})


def check_destination(destination: Path, new: bytes, *, debris: int = 0) -> None:
    """The destination is old or new, and no more than `debris` files lie beside it."""
    found = destination.read_bytes() if destination.exists() else OLD
    assert found in (OLD, new), f"{len(found)} bytes, neither old nor new"
    others = [name for name in os.listdir(destination.parent) if name != destination.name]
    assert len(others) <= debris, others


def check_message(run: Run, words: str = "") -> None:
    """Exit 2, one line, one hint; or it was done before the fault."""
    assert "Traceback" not in run.stderr, run.stderr
    assert "a fault of lstmconvert itself" not in run.stderr, run.stderr
    if run.code != 0:
        assert run.code == 2, run
        assert len(run.stderr.splitlines()) == 2
        assert words in run.stderr, run.stderr


@pytest.mark.parametrize(("suffix", "exists"), turns(SUFFIXES, [True, False]))
def test_killed(
    suffix: str, exists: bool, jail: Jail, new: dict[str, bytes], tmp_path: Path
) -> None:
    destination = tmp_path / f"lstm{suffix}"
    force = ["--force", *to(suffix)] if exists else to(suffix)
    killed = left = 0
    for at in spread(counted(jail, SOURCE, tmp_path, suffix), points(suffix)):
        if exists:
            destination.write_bytes(OLD)
        run = jail.run("convert", SOURCE, destination, *force, fault=Fault("call", at, "kill"))
        killed += run.code == -9
        check_destination(destination, new[suffix], debris=1)
        left += len(os.listdir(tmp_path)) > destination.exists()
        destination.unlink(missing_ok=True)
    assert killed > points(suffix) // 4
    assert left > 0  # it was killed while it wrote
    run = jail.run("convert", SOURCE, destination, *to(suffix))
    assert run.code == 0
    check_destination(destination, new[suffix])
    assert destination.read_bytes() == new[suffix]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_interrupted(suffix: str, jail: Jail, new: dict[str, bytes], tmp_path: Path) -> None:
    destination = tmp_path / f"lstm{suffix}"
    interrupted = 0
    for at in spread(counted(jail, SOURCE, tmp_path, suffix), points(suffix)):
        destination.write_bytes(OLD)
        fault = Fault("call", at + _STARTED, "interrupt")
        run = jail.run("convert", SOURCE, destination, "--force", *to(suffix), fault=fault)
        assert run.code in (0, 130), run
        interrupted += run.code == 130
        # Python itself reports an interrupt that lands in a generator's finalizer, and goes on.
        swallowed = run.code == 0 and run.stderr.startswith("Exception ignored in")
        assert swallowed or "Traceback" not in run.stderr, run.stderr
        check_destination(destination, new[suffix])
    assert interrupted > points(suffix) // 4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file_can_grow(suffix: str, jail: Jail, new: dict[str, bytes], tmp_path: Path) -> None:
    destination = tmp_path / f"lstm{suffix}"
    size = len(new[suffix])
    sizes = {1024, 2048, 4096, size // 2, size - 1}
    for most in sorted(most for most in sizes if most < size):
        destination.write_bytes(OLD)
        run = jail.run("convert", SOURCE, destination, "--force", *to(suffix), file_bytes=most)
        assert run.code == 2, (most, size)
        check_message(run, os.strerror(errno.EFBIG))
        check_destination(destination, OLD)
    run = jail.run("convert", SOURCE, destination, "--force", *to(suffix), file_bytes=10 * size)
    assert run.code == 0
    assert destination.read_bytes() == new[suffix]


_FULL = """
import sys, pathlib, subprocess
mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[3]}", "none", sys.argv[2]])
if mounted.returncode:
    sys.exit(77)
folder = pathlib.Path(sys.argv[2])
destination = folder / f"lstm{sys.argv[4]}"
destination.write_bytes(b"old")
options = ["--force", *sys.argv[5:]]
command = [sys.executable, "-m", "lstmconvert", "convert", sys.argv[1], destination, *options]
code = subprocess.run(command).returncode
assert destination.read_bytes() == b"old"
assert [path.name for path in folder.iterdir()] == [destination.name]
sys.exit(code)
"""


# What is smaller than a page finds its place on any disk.
@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix not in BARE])
def test_full_disk(suffix: str, new: dict[str, bytes], tmp_path: Path) -> None:
    # A file system of a few pages, in a mount namespace of its own.
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    (tmp_path / "disk").mkdir()
    size = str(max(8192, len(new[suffix]) // 8192 * 4096))
    args = [SOURCE, tmp_path / "disk", size, suffix, *to(suffix)]
    run = subprocess.run(
        [unshare, "--map-root-user", "--mount", sys.executable, "-c", _FULL, *args],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    if run.returncode in (1, 77) and "AssertionError" not in run.stderr:
        pytest.skip(f"no mount namespace here: {run.stderr[:200]}")
    assert run.returncode == 2, run.stderr
    assert os.strerror(errno.ENOSPC) in run.stderr
    assert len(run.stderr.splitlines()) == 2


@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".onnx"])
def test_read_error(suffix: str, jail: Jail, new: dict[str, bytes], tmp_path: Path) -> None:
    destination = tmp_path / f"lstm{suffix}"
    failed = 0
    reads = counted(jail, SOURCE, tmp_path, suffix)["read"]
    for at in sorted({*range(1, reads, max(1, reads // POINTS)), reads}):
        destination.write_bytes(OLD)
        run = jail.run("convert", SOURCE, destination, "--force", fault=Fault("read", at, "error"))
        check_message(run, os.strerror(errno.EIO))
        failed += run.code == 2
        check_destination(destination, new[suffix])
    assert failed > 1  # of the source, and of what was written


def _many(kind: str, folder: Path) -> tuple[Path, Path]:
    """Make a source of several files; return its path, and the file with its numbers."""
    folder.mkdir()
    if kind == "savedmodel":
        shutil.copytree(TF / "seed95.savedmodel", folder, dirs_exist_ok=True)
        return folder, folder / "variables" / "variables.data-00000-of-00001"
    if kind == "checkpoint":
        shutil.copytree(TF / "seed95.tf_weights", folder, dirs_exist_ok=True)
        return folder / "ckpt", folder / "ckpt.data-00000-of-00001"
    for name, data in members().items():
        (folder / name).write_bytes(data)
    return folder, folder / "model.weights.h5"


MANY = ("directory", "savedmodel", "checkpoint")


@pytest.mark.parametrize("what", ["truncate", "touch", "rewrite", "replace"])
@pytest.mark.parametrize("kind", ["keras", "weights.h5", "safetensors", *MANY])
def test_source_changes(
    kind: str, what: str, jail: Jail, new: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / f"source.{kind}"
    (tmp_path / "out").mkdir()
    destination = tmp_path / "out" / "lstm.safetensors"

    def renew() -> tuple[Path, Path]:
        """The source, and the file of it that is changed."""
        shutil.rmtree(folder, ignore_errors=True)
        if kind in MANY:
            return _many(kind, folder)
        data = new[".safetensors"] if kind == "safetensors" else None
        folder.write_bytes(data or (FIXTURES / f"seed95.{kind}").read_bytes())
        return folder, folder

    def result() -> bytes:
        """What the source is converted to as it is now."""
        lstmconvert.convert(source, tmp_path / "now.safetensors", force=True)
        return (tmp_path / "now.safetensors").read_bytes()

    source, _ = renew()
    whole = result()
    reads = counted(jail, source, tmp_path / "out", ".safetensors")["read"]
    failed = 0
    for at in range(2, reads, max(1, reads // 8)):
        destination.unlink(missing_ok=True)
        _, changed = renew()
        run = jail.run("convert", source, destination, fault=Fault("read", at, what, changed))
        check_message(run)
        assert os.listdir(tmp_path / "out") == ([destination.name] if run.code == 0 else [])
        if run.code == 0 and destination.read_bytes() != whole:
            assert destination.read_bytes() == result()  # it changed before it was opened
        failed += run.code == 2
    # Another file that takes its name does not change the one that was opened. Of several files
    # each is opened anew to be hashed: their hash must be of what was read.
    assert failed > 1 if kind in MANY or what != "replace" else failed == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_destination_directory_removed(suffix: str, jail: Jail, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    counts = counted(jail, SOURCE, tmp_path, suffix)
    failed = 0
    for at in spread(counts, points(suffix)):
        folder.mkdir(exist_ok=True)
        fault = Fault("call", at, "remove", folder)
        run = jail.run("convert", SOURCE, folder / f"lstm{suffix}", *to(suffix), fault=fault)
        check_message(run)
        failed += run.code == 2
        shutil.rmtree(folder, ignore_errors=True)
    assert failed > points(suffix) // 4


# --- permissions --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_directory_that_may_not_be_written(suffix: str, jail: Jail, tmp_path: Path) -> None:
    destination = tmp_path / "out" / f"lstm{suffix}"
    destination.parent.mkdir()
    destination.write_bytes(OLD)
    destination.parent.chmod(0o500)
    try:
        run = jail.run("convert", SOURCE, destination, "--force", *to(suffix), powerless=True)
        check_message(run, f"{destination}: cannot write: {os.strerror(errno.EACCES)}")
        assert run.code == 2
        check_destination(destination, OLD)
    finally:
        destination.parent.chmod(0o700)


@pytest.mark.parametrize("kind", ["keras", "weights.h5", "h5"])
def test_a_source_that_may_not_be_read(kind: str, jail: Jail, tmp_path: Path) -> None:
    source = Path(shutil.copy(FIXTURES / f"seed95.{kind}", tmp_path))
    source.chmod(0)
    for args in (["inspect", source], ["convert", source, tmp_path / "out" / "a.npz"]):
        (tmp_path / "out").mkdir(exist_ok=True)
        run = jail.run(*args, powerless=True)
        check_message(run, os.strerror(errno.EACCES))
        assert run.code == 2
        assert str(source) in run.stderr
        assert not os.listdir(tmp_path / "out")
    source.chmod(0o600)
    assert jail.run("inspect", source, powerless=True).code == 0


# --- at once --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix",
    [suffix for suffix in SUFFIXES if suffix != ".nam"],  # which needs a head: `UNLIKE` has none
)
def test_processes_at_once(suffix: str, jail: Jail, new: dict[str, bytes], tmp_path: Path) -> None:
    destination, whole = tmp_path / "out" / f"lstm{suffix}", [new[suffix]]
    destination.parent.mkdir()
    other = tmp_path / f"other{suffix}"
    assert jail.run("convert", UNLIKE, other, *to(suffix)).code == 0
    whole.append(other.read_bytes())
    assert whole[0] != whole[1]
    commands = [["convert", source, destination, *to(suffix)] for source in (SOURCE, UNLIKE) * 2]
    runs = jail.run_at_once(*commands)
    assert sorted(run.code for run in runs) == [0, 2, 2, 2], runs
    for run in runs:
        check_message(run, "the destination")  # exists, or appeared meanwhile
    assert destination.read_bytes() in whole
    runs = jail.run_at_once(*([*command, "--force"] for command in commands))
    assert [run.code for run in runs] == [0, 0, 0, 0], runs
    assert destination.read_bytes() in whole
    assert os.listdir(destination.parent) == [destination.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_threads_at_once(suffix: str, new: dict[str, bytes], tmp_path: Path) -> None:
    destination = tmp_path / f"lstm{suffix}"
    errors: list[BaseException] = []

    def run() -> None:
        try:
            convert(destination)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert destination.read_bytes() == new[suffix]
    check_destination(destination, new[suffix])


def test_destination_appears_meanwhile(tmp_path: Path) -> None:
    destination = tmp_path / "lstm.safetensors"

    def convert() -> None:
        with writing.replacing(destination) as path:
            path.write_bytes(b"new")
            destination.write_bytes(OLD)

    with pytest.raises(DestinationError, match="meanwhile"):
        convert()
    check_destination(destination, OLD)

"""Commands whose source or destination is a URL: what `batch` reads and writes, one by one.

A source is copied to a temporary folder first, within limits. Errors and answers name the URL.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import FIXTURES, KERAS, failure, run
from support.site import DATA, Server, serving

import lstmconvert as lc
from lstmconvert import limits

fsspec = pytest.importorskip("fsspec")

M = "memory://in/m.keras"


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, with a model and its weights by other means."""
    system = fsspec.filesystem("memory")
    system.pipe("/in/m.keras", DATA)
    yield system
    system.store.clear()


@pytest.fixture
def site() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A temporary folder of this test alone: nothing is left in it."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def test_inspect_says_what_it_says_of_a_file(memory: Any) -> None:
    expected = run("inspect", KERAS / "seed95.keras", "--json").json
    expected["source"]["name"] = "m.keras"
    assert run("inspect", M, "--json").json == expected
    assert run("inspect", M, "--values").out.startswith("m.keras")


def test_convert_reads_and_writes_there(memory: Any, tmp_path: Path) -> None:
    here = tmp_path / "here.safetensors"
    assert run("convert", M, here).code == 0
    done = run("convert", M, "memory://out/made.safetensors")
    assert (done.code, done.err) == (
        0, "wrote memory://out/made.safetensors: 14 tensors, 1 LSTM layer\n",
    )
    assert memory.cat("/out/made.safetensors") == here.read_bytes()
    error, hint = failure("convert", M, "memory://out/made.safetensors")
    assert error == "memory://out/made.safetensors: the destination exists"
    assert hint == "--force replaces it"
    again = run("convert", M, "memory://out/made.safetensors", "--force", "--json")
    assert again.json["destination"] == "memory://out/made.safetensors"
    dry = run("convert", M, "memory://out/dry.npz", "--dry-run")
    assert "would write memory://out/dry.npz" in dry.err
    assert memory.find("/out") == ["/out/made.safetensors"]


def test_a_file_of_this_machine_goes_there_with_what_belongs_to_it(memory: Any) -> None:
    source = KERAS / "seed95.keras"
    assert run("convert", source, "memory://out/m.param", "--allow-lossy").code == 0
    assert memory.find("/out") == ["/out/m.bin", "/out/m.param"]


def test_source_and_destination_are_never_one(memory: Any) -> None:
    assert "the same file" in failure("convert", M, M, "--force")[0]
    assert memory.cat("/in/m.keras") == DATA


def test_each_of_two_sources_has_its_own_files_beside_it(memory: Any, tmp_path: Path) -> None:
    lc.convert(KERAS / "seed95.keras", tmp_path / "m.param", allow_lossy=True, warn=False)
    text, numbers = ((tmp_path / f"m.{end}").read_bytes() for end in ("param", "bin"))
    changed = bytearray(numbers)
    changed[60] ^= 1
    for folder, data in (("one", numbers), ("two", bytes(changed))):
        memory.pipe(f"/{folder}/m.param", text)
        memory.pipe(f"/{folder}/m.bin", data)
    assert run("diff", "memory://one/m.param", tmp_path / "m.param").code == 0
    done = run("diff", "memory://one/m.param", "memory://two/m.param", "--json")
    assert done.code == 1
    assert run("diff", "memory://two/m.param", "memory://two/m.param").code == 0


def test_a_data_file_that_is_not_there_is_named_by_its_url(memory: Any, tmp_path: Path) -> None:
    lc.convert(KERAS / "seed95.keras", tmp_path / "m.param", allow_lossy=True, warn=False)
    memory.put(str(tmp_path / "m.param"), "/in/m.param")
    error, _ = failure("inspect", "memory://in/m.param")
    assert error.startswith("memory://in/m.param: ")
    assert "m.bin" in error


def test_verify_compares_what_lies_there(memory: Any) -> None:
    source = KERAS / "seed95.keras"
    done = run("verify", M, source, "--engine", "numpy", "--json")
    assert done.code == 0, done.err
    assert done.json


@pytest.mark.parametrize(
    ("folder", "url"),
    [
        ("seed95.savedmodel", "memory://model"),
        ("seed95.tf_weights", "memory://model"),
        ("seed95.tf_weights", "memory://model/ckpt"),
        ("seed95.tf_weights", "memory://model/ckpt.index"),
    ],
)
def test_folders_and_checkpoints_are_models(folder: str, url: str, memory: Any) -> None:
    memory.put(f"{FIXTURES / 'tf-2.15.1' / folder}/", "/model/", recursive=True)
    assert run("inspect", url, "--json").json["parameters"]["lstm"] == 80


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("memory://in/none.keras", "no such object"),
        ("memory://in", "a folder of several models; found m.keras, n.keras; expected one model"),
        ("memory://cut/m.keras", "not a readable zip archive"),
        ("nothing://in/m.keras", "no such kind of URL"),
    ],
)
def test_errors_name_the_url(url: str, error: str, memory: Any) -> None:
    memory.pipe("/in/n.keras", DATA)
    memory.pipe("/cut/m.keras", DATA[:300])
    for arguments in (["inspect", url], ["convert", url, "memory://out/x.npz"], ["diff", M, url]):
        text, _ = failure(*arguments)
        assert text.startswith(f"{url}: {error}")
        assert tempfile.gettempdir() not in text


def test_what_no_suffix_fits_is_refused_there_too(memory: Any) -> None:
    error, hint = failure("convert", M, "memory://out/x.safetensor")
    assert error.startswith("memory://out/x.safetensor")
    assert "did you mean .safetensors?" in hint
    assert "named as a directory" in failure("convert", M, "memory://out/")[0]


def test_a_page(site: str, tmp_path: Path) -> None:
    assert run("inspect", f"{site}/moved.keras?download=true").out.startswith("moved.keras")
    assert run("convert", f"{site}/m.keras", tmp_path / "m.npz").code == 0
    assert lc.diff(tmp_path / "m.npz", KERAS / "seed95.keras")
    assert run("inspect", f"{site}/download/17").out.startswith("17")  # its bytes say what it is
    error, _ = failure("inspect", f"{site}/none.keras")
    assert error.startswith(f"{site}/none.keras: ")
    assert any(text == "GET /m.keras" for text in Server.requests)


@pytest.mark.parametrize("limit", [limits.DOWNLOAD_BYTES, limits.TEMPORARY_BYTES])
def test_what_is_copied_has_limits(
    limit: limits.Limit, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limit.variable, "10")
    monkeypatch.setattr("lstmconvert.bulk.scratch._used", lambda: 100)
    _, hint = failure("inspect", f"{site}/m.keras")
    assert limit.variable in hint


def test_nothing_is_fetched_because_a_file_says_so(memory: Any, site: str, tmp_path: Path) -> None:
    """An external-data file is a plain name beside the model, never an address."""
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "m.onnx"
    lc.convert(KERAS / "seed95.keras", path, warn=False)
    model = onnx.load(str(path))
    tensor = model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", f"{site}/m.keras"), ("offset", "0"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    memory.pipe("/in/m.onnx", model.SerializeToString())
    Server.requests = []
    assert "never opened" in failure("inspect", "memory://in/m.onnx", "--stats")[0]
    assert Server.requests == []


def test_a_page_of_two_files(memory: Any, tmp_path: Path) -> None:
    shutil.copy(KERAS / "seed95.keras", tmp_path / "m.keras")
    assert run("view", M, tmp_path / "m.keras", "-o", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_isolated_it_is_the_same(memory: Any, site: str, tmp_path: Path) -> None:
    from support.cli import spawn

    done = spawn("inspect", f"{site}/m.keras", "--isolate", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"]["lstm"] == 80


def test_what_would_be_done_is_explained(memory: Any, tmp_path: Path) -> None:
    done = run("convert", M, "memory://out/x.npz", "--explain")
    assert done.code == 0, done.err
    assert done.out.startswith("memory://out/x.npz: nothing is written yet")
    assert run("convert", M, f"{tmp_path}/", "--to", "torch").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]

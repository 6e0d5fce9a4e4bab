"""Converting twice is converting once: a destination is done if it is what would be written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.cli import KERAS, run

import lstmconvert as lc
from lstmconvert.bulk.report import NAME

#: Every kind of file that is written, with the layout that it needs.
KINDS: dict[str, dict[str, Any]] = {
    ".safetensors": {},
    ".npz": {},
    ".onnx": {},
    ".keras": {},
    ".weights.h5": {},
    ".h5": {},
    ".json": {"layout": "torch"},
    ".h": {},
    ".param": {"allow_lossy": True},
    ".tflite": {},
    ".mat": {},
    ".params": {"layout": "mxnet"},
    ".msgpack": {"bare": True},
    ".eqx": {"bare": True},
    ".mlmodel": {},
}
OPTIONS: list[dict[str, Any]] = [
    {"dtype": "float16"},
    {"lstm_only": True},
    {"layers": ["lstm"]},
    {"layout": "torch", "bare": True},
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copy(KERAS / "seed95.keras", tmp_path / "m.keras"))


def statuses(source: Path, out: Path, **options: Any) -> list[str]:
    return [outcome.status for outcome in lc.convert_many([source], out, **options)]


def forget(out: Path) -> None:
    """Leave what a run leaves that was killed before its report had a line."""
    (out / NAME).unlink()


@pytest.mark.parametrize("suffix", KINDS)
def test_what_no_report_lists_is_done_if_it_is_the_same(suffix: str, source: Path) -> None:
    if suffix == ".mat":
        pytest.importorskip("scipy")
    out, options = source.parent / "out", {"suffix": suffix, **KINDS[suffix]}
    assert statuses(source, out, **options) == ["written"]
    forget(out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert statuses(source, out, **options) == ["skipped"]
    assert {n: (out / n).read_bytes() for n in before} == before
    for name in before:  # each file of it counts
        forget(out)
        (out / name).write_bytes(before[name][:-1] + bytes([before[name][-1] ^ 1]))
        assert statuses(source, out, **options) == ["failed"]
        (out / name).write_bytes(before[name])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("has_report", [True, False])
def test_options_are_part_of_what_is_done(
    options: dict[str, Any], has_report: bool, source: Path
) -> None:
    out = source.parent / "out"
    assert statuses(source, out, **options) == ["written"]
    if not has_report:
        forget(out)
    assert statuses(source, out, **options) == ["skipped"]
    if not has_report:
        forget(out)
    outcomes = lc.convert_many([source], out)
    if options == {"layers": ["lstm"]}:  # there is one layer, but the others' tensors are left out
        assert outcomes[0].kind == "DestinationError"
    assert [outcome.status for outcome in outcomes] == ["failed"]
    assert "is not what would be written" in str(outcomes[0].error)
    assert "other options" in str(outcomes[0].error)  # the file itself says so, too
    assert outcomes[0].hint == "--force replaces it"
    assert statuses(source, out, **options, force=True) == ["written"]


def test_our_own_files_are_sources_too(source: Path) -> None:
    out = source.parent / "out"
    lc.convert(source, source.parent / "m.safetensors")
    for suffix in (".keras", ".npz"):
        assert statuses(source.parent / "m.safetensors", out, suffix=suffix) == ["written"]
        forget(out)
        assert statuses(source.parent / "m.safetensors", out, suffix=suffix) == ["skipped"]


@pytest.mark.parametrize("content", [b"", b"x", None])
@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_a_destination_that_was_changed_is_not_done(
    content: bytes | None, suffix: str, source: Path
) -> None:
    out = source.parent / "out"
    statuses(source, out, suffix=suffix)
    made = out / f"m{suffix}"
    whole = made.read_bytes()
    made.write_bytes(whole[:-10] if content is None else content)
    (outcome,) = lc.convert_many([source], out, suffix=suffix)
    assert outcome.status == "failed"
    assert "not the file that the report says was written" in str(outcome.error)
    # The failure does not make the report forget what was written.
    made.write_bytes(whole)
    assert statuses(source, out, suffix=suffix) == ["skipped"]


def test_an_overwritten_destination_of_one_size_is_not_done(source: Path) -> None:
    out = source.parent / "out"
    statuses(source, out)
    made = out / "m.safetensors"
    status, data = made.stat(), bytearray(made.read_bytes())
    data[-1] ^= 1
    made.write_bytes(data)
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert statuses(source, out) == ["failed"]


def test_another_source_is_not_done(source: Path) -> None:
    out = source.parent / "out"
    statuses(source, out)
    shutil.copy(KERAS / "square.keras", source)
    (outcome,) = lc.convert_many([source], out)
    assert "the report says that it was made from other bytes of the source" in str(outcome.error)
    forget(out)
    (outcome,) = lc.convert_many([source], out)
    assert "it says itself that it was made from other bytes of the source" in str(outcome.error)


def test_a_file_beside_the_source_counts(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    lc.convert(KERAS / "seed95.keras", folder / "m.param", allow_lossy=True)
    assert statuses(folder / "m.param", out) == ["written"]
    assert statuses(folder / "m.param", out) == ["skipped"]
    numbers = bytearray((folder / "m.bin").read_bytes())
    numbers[-1] ^= 1
    (folder / "m.bin").write_bytes(numbers)
    assert statuses(folder / "m.param", out) == ["failed"]


def test_a_model_of_several_files(tmp_path: Path) -> None:
    folder, out = tmp_path / "m.savedmodel", tmp_path / "out"
    shutil.copytree("fixtures/tf-2.15.1/seed95.savedmodel", folder)
    assert statuses(folder, out) == ["written"]
    assert statuses(folder, out) == ["skipped"]
    with open(next(folder.rglob("*.data-*")), "ab") as file:
        file.write(b"\0")
    assert statuses(folder, out) == ["failed"]


def test_another_version_is_not_believed_but_compared(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = source.parent / "out"
    statuses(source, out)
    monkeypatch.setattr("lstmconvert.bulk.work.__version__", "0.2")
    assert statuses(source, out) == ["skipped"]  # the same bytes
    monkeypatch.setattr("lstmconvert.bulk.outcome.__version__", "0.2")
    statuses(source, out)
    assert json.loads((out / NAME).read_text())["tool"] == "0.2"


def test_a_report_of_another_schema_is_carried_and_not_believed(source: Path) -> None:
    out = source.parent / "out"
    statuses(source, out)
    row = json.loads((out / NAME).read_text())
    other = {"source": "a", "destination": "/elsewhere/a.npz", "status": "written"}
    old = {"source": row["source"], "destination": row["destination"], "status": "written"}
    (out / NAME).write_text("".join(f"{json.dumps(each)}\n" for each in (other, old)))
    assert statuses(source, out) == ["skipped"]
    lines = [json.loads(line) for line in (out / NAME).read_text().splitlines()]
    assert [line.get("schema") for line in lines] == [2, None]
    assert lines[1] == other


def test_warnings_and_the_time_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = KERAS / "both_gru.keras"
    statuses(source, out)
    first = json.loads((out / NAME).read_text())
    assert first["warnings"]
    assert statuses(source, out) == ["skipped"]
    assert json.loads((out / NAME).read_text()) == first
    (again,) = lc.convert_many([source], out)
    assert list(again.warnings) == first["warnings"]


@pytest.mark.usefixtures("here")
def test_a_dry_run_says_what_is_done(source: Path) -> None:
    out = source.parent / "out"
    statuses(source, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert statuses(source, out, dry_run=True) == ["skipped"]
    done = run("batch", source, "--out-dir", out, "--dry-run", "--dtype", "float16", "-j", 1)
    assert done.code == 1
    assert "other options" in done.err
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}

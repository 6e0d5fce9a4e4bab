"""Lists, shards and reports: what a night run is started with, and what it leaves."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from support.cli import KERAS, run

import lstmconvert as lc
from lstmconvert.bulk.report import NAME


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    for number in range(12):
        (root / f"run{number}").mkdir(parents=True)
        shutil.copy(KERAS / "seed95.keras", root / f"run{number}" / "m.keras")
    return root


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("here")
def test_a_list_of_sources(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    lines = [str(folder / f"run{number}" / "m.keras") for number in range(3)]
    listed.write_text("\n".join([*lines, "", str(folder / "none.keras"), ""]))
    out = tmp_path / "out"
    done = run("batch", "--from-file", listed, "--root", folder, "--out-dir", out, "-j", 1)
    assert done.code == 1
    assert "4 files: 3 written, 1 failed (1 SourceError)" in done.err
    assert (out / "run2" / "m.safetensors").is_file()
    failed = [row for row in rows(out / NAME) if row["status"] == "failed"]
    assert [Path(row["source"]).name for row in failed] == ["none.keras"]
    assert run("batch", "--out-dir", out).code == 2


@pytest.mark.usefixtures("here")
def test_shards_have_reports_of_their_own_that_are_joined(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in (1, 2, 3):
        run("batch", folder, "--out-dir", out, "--shard", f"{number}/3", "-j", 1)
    reports = sorted(out.glob("lstmconvert-batch.*-of-3.jsonl"))
    assert len(reports) == 3
    assert sum(len(rows(path)) for path in reports) == 12
    done = run("batch", "report", "merge", tmp_path / "all.jsonl", *reports)
    assert (done.code, done.err) == (0, f"wrote {tmp_path / 'all.jsonl'}: 12 rows of 3 reports\n")
    again = run("batch", folder, "--out-dir", out, "--report", tmp_path / "all.jsonl", "-j", 1)
    assert "12 files: 12 done before" in again.err
    facts = run("batch", "report", "summary", tmp_path / "all.jsonl", "--json").json
    assert facts["status"] == {"written": 12}
    assert facts["destination_bytes"] == sum(p.stat().st_size for p in out.rglob("*.safetensors"))
    assert "written" in run("batch", "report", "summary", tmp_path / "all.jsonl").out
    assert run("batch", "report", "summary", tmp_path / "none").code == 2
    assert "REPORT" in run("batch", "report", "merge", "--help").out


def test_of_two_rows_the_later_one_is_joined(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    old = {"destination": "/a", "status": "failed", "time": "2026-01-01T00:00:00.000Z"}
    new = {"destination": "/a", "status": "written", "time": "2026-01-02T00:00:00.000Z"}
    first.write_text(json.dumps(new) + "\n")
    second.write_text(json.dumps(old) + "\n")
    run("batch", "report", "merge", tmp_path / "all", first, second)
    assert rows(tmp_path / "all") == [new]


def test_the_columns(folder: Path, tmp_path: Path) -> None:
    source, out = folder / "run0" / "m.keras", tmp_path / "out"
    lc.convert_many([source], out, dtype="float16")
    (row,) = rows(out / NAME)
    assert (row["schema"], row["tool"]) == (2, lc.__version__)
    assert row["source_size"] == source.stat().st_size
    assert row["options"] == {"dtype": "float16", "layout": "gates"}
    assert row["losses"]
    assert set(row["losses"]) <= set(row["warnings"])
    assert row["time"].endswith("Z")
    assert len(row["destination_sha256"]) == 64


@pytest.mark.usefixtures("here")
def test_a_report_that_cannot_be_written_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lstmconvert.bulk import report

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_append", full)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = run("batch", folder, "--out-dir", tmp_path / "out", "-j", 1)
    assert done.code == 2
    assert "12 files: 12 written" in done.err
    assert "No space left on device" in done.err
    (rescued,) = tmp_path.glob("lstmconvert-batch-*.jsonl")
    assert str(rescued) in done.err
    assert len(rows(rescued)) == 12
    assert len(list((tmp_path / "out").rglob("*.safetensors"))) == 12


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed as on POSIX")
def test_what_a_killed_worker_left_in_temporary_folders_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lstmconvert.bulk import scratch

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch.folder() as mine:
        abandoned = tmp_path / mine.parent.name.replace("batch-", "batch-", 1)
        left = tmp_path / f"{mine.parent.name}x"
        shutil.copytree(abandoned, left)
        (left / "files" / "m.keras").write_bytes(b"left")
        scratch.sweep()
        assert mine.is_dir()
        assert not left.exists()
    assert not list(tmp_path.iterdir())

"""Whoever watches a long piece of work hears how much there is, and all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import KERAS, run

import lstmconvert as lc
from lstmconvert.cli import output
from lstmconvert.tensors import progress

SOURCE = KERAS / "both_concat.keras"


class Recorder:
    def __init__(self) -> None:
        self.total = self.done = 0

    def expect(self, size: int) -> None:
        self.total += size

    def advance(self, size: int) -> None:
        self.done += size


def test_a_conversion_writes_and_reads_back_all(tmp_path: Path) -> None:
    seen = Recorder()
    with progress.watched(seen):
        lc.convert(SOURCE, tmp_path / "a.safetensors")
    assert seen.total == 2 * lc.load(SOURCE).nbytes
    assert seen.done == seen.total


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".npz", ".onnx", ".weights.h5"])
def test_every_kind_of_file_moves_the_bar(suffix: str, tmp_path: Path) -> None:
    seen = Recorder()
    with progress.watched(seen):
        lc.convert(SOURCE, tmp_path / f"a{suffix}", warn=False)
    assert seen.total
    assert seen.done


def test_diff_verify_and_stats(tmp_path: Path) -> None:
    lc.convert(SOURCE, tmp_path / "a.npz")
    seen = Recorder()
    with progress.watched(seen):
        assert lc.diff(SOURCE, tmp_path / "a.npz")
    assert seen.total == seen.done == lc.load(SOURCE).nbytes
    seen = Recorder()
    with progress.watched(seen):
        lc.verify(SOURCE, tmp_path / "a.npz", engines=["numpy"])
    assert seen.total == seen.done == 2
    seen = Recorder()
    with progress.watched(seen):
        report = lc.inspect(SOURCE, stats=True)
        report.read()
    assert seen.total == seen.done > 0


def test_no_one_watches_when_it_is_over(tmp_path: Path) -> None:
    with pytest.raises(lc.SourceError), progress.watched(Recorder()):
        lc.load(tmp_path / "absent.keras")
    assert not progress.is_watched()


def test_a_bar_is_drawn_on_a_terminal_and_not_when_quiet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[tuple[int, int]] = []
    monkeypatch.setattr(output, "_is_terminal", lambda _: True)
    monkeypatch.setattr(output._Bar, "_draw", lambda bar: drawn.append((bar._total, bar._done)))
    assert run("convert", SOURCE, tmp_path / "a.npz", NO_COLOR="1").code == 0
    assert drawn[-1][0] == drawn[-1][1] > 0
    drawn.clear()
    assert run("convert", SOURCE, tmp_path / "b.npz", "-q").code == 0
    assert drawn == []


def test_the_real_bar_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "_is_terminal", lambda _: True)
    monkeypatch.setattr(output._Bar, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    output.speak(output.Level.NORMAL)
    with output.progress():
        progress.expect(10)
        progress.advance(5)
        bar = progress._watchers[0]
        assert isinstance(bar, output._Bar)
        assert bar._bar.tasks[0].percentage == 50
    assert "50%" in capsys.readouterr().err

"""Many files: every one converted, reported, skipped when it is done; none stops the others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.cli import KERAS, run

import lstmconvert as lc
from lstmconvert.bulk import work
from lstmconvert.bulk.outcome import Outcome
from lstmconvert.bulk.plan import Job
from lstmconvert.bulk.report import NAME, ReportFile
from lstmconvert.bulk.runners import Pool
from lstmconvert.bulk.work import Task
from lstmconvert.errors import CorruptFile, SourceError, UsageError

ROOT = Path(__file__).parents[2]

GOOD = ("both_unlike.keras", "rnn_stack.keras", "seed95.keras")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three models, one of them in a sub-folder, a broken one, and what is not a model."""
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    for name in GOOD[:2]:
        shutil.copy(KERAS / name, root / name)
    shutil.copy(KERAS / GOOD[2], root / "sub" / GOOD[2])
    (root / "broken.keras").write_bytes((KERAS / GOOD[0]).read_bytes()[:2000])
    (root / "notes.txt").write_text("no model")
    return root


def rows(folder: Path) -> dict[str, Any]:
    """The report: name of the source -> its line."""
    lines = (folder / NAME).read_text().splitlines()
    return {Path(json.loads(line)["source"]).name: json.loads(line) for line in lines}


def summary(done: Any) -> str:
    """The line that says how many files did what."""
    (line,) = [x for x in done.err.splitlines() if re.match(r"[\d,]+ files?[: ]", x)]
    return line


def others(folder: Path) -> list[str]:
    """What lies in a folder that is neither a result nor the report."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [p.name for p in found if p.suffix != ".safetensors" and p.name != NAME]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_folder(processes: int, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("batch", folder, "--out-dir", out, "-j", processes)
    assert done.code == 1
    assert done.out == ""
    assert summary(done) == "4 files: 3 written, 1 failed (1 CorruptFile); passed over: 1 .txt"
    assert f"\nreport: {out / NAME}\nhint: the same command" in done.err
    assert f"{folder}/broken.keras" in done.err
    for name in GOOD:
        single = tmp_path / "single.safetensors"
        lc.convert(KERAS / name, single, force=True)
        (made,) = out.rglob(f"{Path(name).stem}.safetensors")
        assert made.read_bytes() == single.read_bytes()
    assert (out / "sub" / "seed95.safetensors").is_file()
    assert others(out) == []
    report = rows(out)
    assert list(report) == ["both_unlike.keras", "broken.keras", "rnn_stack.keras", "seed95.keras"]
    assert report["seed95.keras"]["layers"] == ["lstm"]
    assert report["seed95.keras"]["seconds"] > 0
    assert report["broken.keras"]["status"] == "failed"
    assert report["broken.keras"]["kind"] == "CorruptFile"
    assert not (out / "broken.safetensors").exists()


@pytest.mark.usefixtures("here")
def test_what_is_done_is_skipped(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (folder / "broken.keras").unlink()
    assert run("batch", folder, "--out-dir", out, "-j", 1).code == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    again = run("batch", folder, "--out-dir", out, "-j", 1, "--json")
    assert again.code == 0
    assert summary(again) == "3 files: 3 done before; passed over: 1 .txt"
    assert [json.loads(line)["status"] for line in again.out.splitlines()] == ["skipped"] * 3
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    # Another source, or other options, are not what was done.
    shutil.copy(KERAS / "rnn_stack.keras", folder / "both_unlike.keras")
    changed = run("batch", folder, "--out-dir", out, "-j", 1)
    assert changed.code == 1
    assert "--force" in rows(out)["both_unlike.keras"]["hint"]
    assert run("batch", folder, "--out-dir", out, "--dtype", "float16", "-j", 1).code == 1
    # That run's failures do not make anyone forget what was done.
    after = run("batch", folder, "--out-dir", out, "-j", 1)
    assert summary(after).startswith("3 files: 2 done before, 1 failed")
    assert rows(out)["rnn_stack.keras"]["layers"] == ["stack"]
    assert run("batch", folder, "--out-dir", out, "-j", 1, "--force").code == 0
    assert bool(lc.diff(folder / "both_unlike.keras", out / "both_unlike.safetensors"))


@pytest.mark.usefixtures("here")
def test_spelling_is_no_matter(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = folder / "rnn_stack.keras"
    arguments = [one, "in/rnn_stack.keras", "./in/rnn_stack.keras", "--suffix", ".h5", "-j", 1]
    assert summary(run("batch", *arguments, "--out-dir", "out")) == "1 file: 1 written"
    again = run("batch", *arguments, "--out-dir", tmp_path / "out")
    assert summary(again) == "1 file: 1 done before"


@pytest.mark.usefixtures("here")
def test_another_config_is_not_what_was_done(tmp_path: Path) -> None:
    weights, config = KERAS / "seed95.weights.h5", tmp_path / "config.json"
    shutil.copy("fixtures/keras-2.3.1/seed95.config.json", config)
    arguments = [weights, "--out-dir", tmp_path / "out", "--config", config, "-j", 1]
    assert run("batch", *arguments).code == 0
    assert "1 done before" in run("batch", *arguments).err
    config.write_text(config.read_text() + " ")
    assert "1 failed" in run("batch", *arguments).err


@pytest.mark.usefixtures("here")
def test_globs_are_expanded(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("batch", f"{folder}/**/s*.keras", "--out-dir", out, "-j", 1)
    assert summary(done) == "1 file: 1 written"
    assert (out / "sub" / "seed95.safetensors").is_file()


@pytest.mark.usefixtures("here")
def test_a_folder_inside_the_sources_is_no_source(folder: Path) -> None:
    out = folder / "out"
    for text in ("3 written, 1 failed", "3 done before, 1 failed"):
        assert text in run("batch", folder, "--out-dir", out, "-j", 1).err


@pytest.mark.usefixtures("here")
def test_loops_of_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
    assert "4 files" in run("batch", folder, "--out-dir", tmp_path / "out", "-j", 1).err


@pytest.mark.usefixtures("here")
def test_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    done = run("batch", folder, "--out-dir", tmp_path / "out", "--dry-run", "-j", 1)
    assert summary(done) == (
        "4 files: 3 would be written, 1 failed (1 CorruptFile); passed over: 1 .txt"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "No such file"),
        (["nowhere/*.keras"], "no model there"),
        (["fixtures/keras-3.15.1/seed95.keras", "--suffix", ".txt"], "suffix"),
        (["fixtures/keras-3.15.1/seed95.keras", "--suffix", ".keras", "--fused"], "--fused"),
        (["fixtures/keras-3.15.1/seed95.keras", "-j", "0"], "--jobs"),
        (["fixtures/keras-3.15.1/seed95.keras", "--report", "none/x"], "report's directory"),
        (["odd://place/x.keras"], "no such kind of URL"),
    ],
)
def test_what_is_refused_before_anything_is_done(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run("batch", *arguments, "--out-dir", tmp_path / "out")
    assert done.code == 2
    assert len(done.err.splitlines()) == 2
    assert message in done.err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_file_that_is_no_report(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("a\nb\n")
    with pytest.raises(CorruptFile, match="not a report"):
        lc.convert_many([KERAS / "seed95.keras"], tmp_path)


def test_runs_at_once_keep_each_others_lines(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sources = [KERAS / name for name in ("seed95.keras", "both_sum.keras", "square.keras")]
    copies = []
    for run_number in range(3):
        (tmp_path / str(run_number)).mkdir()
        for number, source in enumerate(sources * 4):
            name = f"{run_number}-{number}.keras"
            copies.append(shutil.copy(source, tmp_path / str(run_number) / name))
    threads = [
        threading.Thread(target=lc.convert_many, args=([tmp_path / str(number)], out))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(out)) == len(copies) == 36
    again = lc.convert_many([tmp_path / "0", tmp_path / "1", tmp_path / "2"], out)
    assert {outcome.status for outcome in again} == {"skipped"}


def test_a_line_that_a_killed_run_cut_is_taken_away(tmp_path: Path) -> None:
    lc.convert_many([KERAS / "seed95.keras"], tmp_path)
    whole = (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text(whole + whole[:50])
    with ReportFile(tmp_path / NAME) as report:
        report.add(Outcome(source="b.keras", destination="b.npz", status="written"))
    assert list(rows(tmp_path)) == ["seed95.keras", "b.keras"]


@pytest.mark.parametrize("text", ["hello", "my notes\n\n", '{"source": "a"}\n{"x'])
def test_a_strangers_file_is_left_as_it_is(text: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(text)
    with pytest.raises(CorruptFile, match="not a report"):
        lc.convert_many([KERAS / "square.keras"], tmp_path, report=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == text


class TestConvertMany:
    def test_order_and_events(self, folder: Path, tmp_path: Path) -> None:
        seen: list[Any] = []
        with ThreadPoolExecutor(2) as executor:
            outcomes = lc.convert_many(
                [folder], tmp_path / "out", executor=executor, on_event=seen.append
            )
        assert [Path(o.source).name for o in outcomes] == sorted([*GOOD, "broken.keras"])
        assert [bool(o) for o in outcomes] == [True, False, True, True]
        assert sorted(seen, key=lambda o: o.source) == outcomes

    def test_no_further_file_is_begun_after_an_event_that_fails(
        self, folder: Path, tmp_path: Path
    ) -> None:
        def stop(outcome: Any) -> None:
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            lc.convert_many([folder], tmp_path / "out", on_event=stop)
        assert len(list((tmp_path / "out").glob("*.safetensors"))) == 1
        assert list(rows(tmp_path / "out")) == ["both_unlike.keras"]

    def test_paths_and_errors_are_checked_first(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError):
            lc.convert_many([KERAS / "seed95.keras", tmp_path / "none"], tmp_path / "out")
        with pytest.raises(UsageError):
            lc.convert_many([KERAS / "seed95.keras"], tmp_path / "out", suffix=".xyz")
        with pytest.raises(UsageError, match="processes of this machine"):
            lc.convert_many([KERAS / "seed95.keras"], tmp_path / "out", isolate=True)
        assert not (tmp_path / "out").exists()

    def test_an_unforeseen_error_is_a_failure_of_its_file(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr("lstmconvert.api.converted", broken)
        outcomes = lc.convert_many([folder], tmp_path / "out")
        assert {outcome.kind for outcome in outcomes} == {"ZeroDivisionError"}


def test_a_script_needs_no_guard(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, lstmconvert as lc\n"
        "found = lc.convert_many([sys.argv[1]], sys.argv[2], workers=2)\n"
        "print(*(outcome.status for outcome in found))\n"
    )
    command = [sys.executable, script, folder.absolute(), tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["written", "failed", "written", "written"], done.stderr
    assert not done.stderr


#: A batch in which one file kills the process that converts it.
DEADLY = """
import os, signal, sys
from lstmconvert import blas
blas.single()
from lstmconvert.bulk import work, server
convert = work.convert
def deadly(task, *rest):
    # A copy of a process with threads could wait for ever for a lock that one of them held.
    assert len(os.listdir(f"/proc/{os.getppid()}/task")) == 1
    if "broken" in task.job.source:
        os.kill(os.getpid(), signal.SIGKILL)
    return convert(task, *rest)
work.convert = deadly
server.begin()
assert server._begun, "this process is not single"
import lstmconvert as lc
outcomes = lc.convert_many([sys.argv[1]], sys.argv[2], workers=int(sys.argv[3]))
print(*(f"{outcome.status}:{outcome.kind}" for outcome in outcomes))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed as on POSIX")
@pytest.mark.parametrize("workers", [1, 9])
def test_a_file_that_kills_its_worker_fails_alone(
    workers: int, folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", DEADLY, folder.absolute(), tmp_path / "out", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written, dead = "written:None", "failed:BrokenProcessPool"
    assert done.stdout.split() == [written, dead, written, written], done.stderr
    assert len(list((tmp_path / "out").rglob("*.safetensors"))) == 3


def test_a_server_that_was_killed_is_replaced(tmp_path: Path) -> None:
    tasks = [
        Task(number, Job(str(KERAS / "seed95.keras"), str(tmp_path / f"{number}.npz")))
        for number in range(2)
    ]
    with Pool(1, work.order({})) as pool:
        pool._starter.close()
        assert [bool(outcome) for _, outcome in pool.outcomes(tasks)] == [True, True]


#: Run by each worker at its start: file 100 waits until it may go on, so that no run is over before
#: it is stopped.
WAITING = """
import os, time
from lstmconvert.bulk import work
convert = work.convert
def waiting(task, *rest):
    while task.job.source.endswith("100.keras") and not os.path.exists("go-on"):
        time.sleep(0.01)
    return convert(task, *rest)
work.convert = waiting
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed as on POSIX")
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (9, -9)])
def test_a_run_that_is_stopped_goes_on_where_it_was(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(300):
        shutil.copy(KERAS / "seed95.keras", source / f"{index:03}.keras")
    (tmp_path / "sitecustomize.py").write_text(WAITING)
    command = [sys.executable, "-m", "lstmconvert", "batch", source, "--out-dir", out, "-j", "2"]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts this in the background has interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        start_new_session=True,
    )
    while process.poll() is None and not (out / NAME).exists():
        time.sleep(0.005)
    os.kill(process.pid, number)
    (tmp_path / "go-on").touch()
    _, err = process.communicate()
    assert process.returncode == code, err
    assert "Traceback" not in err
    # The workers of a killed process end by themselves, each after the file that it has.
    with contextlib.suppress(ProcessLookupError):
        for _ in range(1000):
            os.killpg(process.pid, 0)
            time.sleep(0.02)
    done = len(list(out.glob("*.safetensors")))
    assert done < 300
    if number == signal.SIGINT:
        assert others(out) == []
        assert done == len(rows(out))
        assert f"{done} written, {300 - done} not begun" in err
        assert err.endswith("goes on where this one stopped\nlstmconvert: interrupted\n")
    again = run("batch", source, "--out-dir", out, "-j", 1)
    assert again.code == 0, again.err
    assert len(list(out.glob("*.safetensors"))) == len(rows(out)) == 300
    assert others(out) == []
    assert not list(out.glob(".*-tmp"))


@pytest.mark.slow
def test_a_cluster_of_dask(folder: Path, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        executor: Executor = client.get_executor()
        outcomes = lc.convert_many([folder.absolute()], tmp_path / "out", executor=executor)
        executor.shutdown()
    assert [bool(outcome) for outcome in outcomes] == [True, False, True, True]
    assert bool(lc.diff(KERAS / "seed95.keras", tmp_path / "out" / "sub" / "seed95.safetensors"))


#: The command line, interrupted while it is imported.
EARLY = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
sys.argv = ["lstmconvert", "batch", "in", "--out-dir", "out"]
from lstmconvert.__main__ import main
main()
"""


def test_an_interrupt_may_come_before_the_command_line_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "lstmconvert: interrupted\n"

"""Real Dask and real Ray: a worker that is killed, a file that kills, workers that lack a thing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from support.cli import KERAS, run

import lstmconvert as lc
from lstmconvert.bulk import engines
from lstmconvert.bulk.report import NAME
from lstmconvert.errors import DestinationError, SourceError, UsageError

COUNT = 40
#: So many more than are done before a scheduler is seen to be gone.
MORE = 200
ROOT = Path(__file__).parents[2]
POISON = "poison.keras"

#: What workers run before all: a file of this name kills them.
_DEADLY = f"""
import os, signal
from lstmconvert.bulk import work
convert = work.convert
def deadly(task, *rest):
    if task.job.source.endswith({POISON!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    return convert(task, *rest)
work.convert = deadly
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    root.mkdir()
    for number in range(COUNT - 1):
        shutil.copy(KERAS / "seed95.keras", root / f"{number:02}.keras")
    shutil.copy(KERAS / "seed95.keras", root / POISON)
    return root


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What workers that die of a file have in their environment."""
    custom = tmp_path / "custom"
    custom.mkdir()
    (custom / "sitecustomize.py").write_text(_DEADLY)
    path = os.pathsep.join([str(custom), str(ROOT)])
    # A task that killed two workers is given up, not four: each new worker takes seconds to start.
    few = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    return {**os.environ, **few, "PYTHONPATH": path}


def free_port() -> int:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return int(end.getsockname()[1])


@pytest.fixture
def dask(environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[str, list[int]]]:
    """A scheduler and two workers, each a program, over TCP: address, and the numbers of all."""
    address = f"tcp://127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    python = [sys.executable, "-m", "distributed.cli"]
    scheduler = [*python[:2], "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    worker = [*python[:2], "distributed.cli.dask_worker", address, "--nthreads", "1"]
    started: list[subprocess.Popen[bytes]] = []
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet["start_new_session"] = True  # so that what it starts can be ended with it
    try:
        started.append(
            subprocess.Popen(
                [*scheduler, "--port", port, "--no-dashboard"], env=environment, **quiet
            )
        )
        for number in range(2):
            place = tmp_path / f"worker{number}"
            place.mkdir()  # another folder than the caller's: paths must be whole
            local = ["--no-dashboard", "--local-directory", str(place)]
            started.append(
                subprocess.Popen([*worker, *local], env=environment, cwd=place, **quiet)
            )
        yield address, [process.pid for process in started]
    finally:
        for process in reversed(started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def check(out: Path) -> None:
    """Every file is accounted for, none twice, and the one that kills is lost alone."""
    rows = [json.loads(line) for line in (out / NAME).read_text().splitlines()]
    names = [Path(row["source"]).name for row in rows]
    assert sorted(names) == sorted({*names})
    assert len(names) == COUNT
    status = {Path(row["source"]).name: row["status"] for row in rows}
    assert status.pop(POISON) == "lost"
    assert set(status.values()) == {"written"}
    assert len(list(out.glob("*.safetensors"))) == COUNT - 1
    assert not list(out.glob(".*"))


def working(nannies: list[int]) -> Iterator[int]:
    """Yield the processes that work, whichever of the nannies' children are there just now."""
    for nanny in nannies:
        # Each thread has the children that it started.
        for listed in Path(f"/proc/{nanny}/task").glob("*/children"):
            for child in listed.read_text().split():
                # The other child of a nanny keeps track of what its children share.
                with contextlib.suppress(OSError):
                    if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                        yield int(child)


@pytest.mark.slow
def test_dask(dask: tuple[str, list[int]], folder: Path, tmp_path: Path) -> None:
    address, (_, *workers) = dask
    out = tmp_path / "out"
    killed: list[int] = []

    def kill(outcome: Any) -> None:
        for worker in [] if killed else working(workers):
            # It may have died meanwhile, of the file that kills.
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)  # its nanny starts another
                return

    with engines.Dask(address) as executor:
        wait_for(executor, 2)
        outcomes = lc.convert_many([folder], out, executor=executor, on_event=kill)
    assert killed
    check(out)
    assert outcomes[-1].kind == "KilledWorker"
    assert "Attempted to run task" in str(outcomes[-1].error)
    done = run("batch", folder, "--out-dir", out, "--dask", address)
    assert done.code == 1
    assert f"{COUNT - 1} done before, 1 lost" in done.err
    check(out)


@pytest.mark.slow
def test_a_scheduler_that_goes_away(
    dask: tuple[str, list[int]], folder: Path, tmp_path: Path
) -> None:
    (folder / POISON).unlink()
    for number in range(MORE):
        shutil.copy(KERAS / "seed95.keras", folder / f"more{number}.keras")
    killed = []

    def kill(outcome: Any) -> None:
        if not killed:
            killed.append(dask[1][0])
            os.kill(dask[1][0], signal.SIGKILL)

    with engines.Dask(dask[0]) as executor:
        wait_for(executor, 2)
        outcomes = lc.convert_many(
            [folder], tmp_path / "out", executor=executor, stall=5, on_event=kill
        )
    assert len(outcomes) == COUNT - 1 + MORE
    assert {outcome.status for outcome in outcomes} == {"written", "lost"}
    again = lc.convert_many([folder], tmp_path / "out", workers=2)
    assert all(again)


def wait_for(executor: engines.Dask, workers: int) -> None:
    until = time.monotonic() + 240  # on a busy machine a worker takes a minute to start
    while executor.workers() < workers and time.monotonic() < until:
        time.sleep(0.1)
    assert executor.workers() == workers


@pytest.mark.slow
def test_ray(environment: dict[str, str], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["batch", str(folder), "--out-dir", str(out), "--ray", "local"]
    for text in (f"{COUNT - 1} written, 1 lost", f"{COUNT - 1} done before, 1 lost"):
        done = subprocess.run(
            [sys.executable, "-m", "lstmconvert", *command],
            env={**environment, "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert text in done.stderr
        assert "Traceback" not in done.stderr
        check(out)


class Answering:
    """An executor whose workers see what they are told to."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def submit(self, *_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if isinstance(self._answer, Exception):
            future.set_exception(self._answer)
        elif self._answer is not None:
            future.set_result(self._answer)
        return future


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((None, None, None), UsageError, "have no package lstmconvert"),
        (("0.0.1", None, None), UsageError, "another version of lstmconvert; found 0.0.1"),
        ((lc.__version__, "it is not there", None), SourceError, "a worker does not see it"),
        ((lc.__version__, None, "no"), DestinationError, "a worker does not see it"),
        (ModuleNotFoundError("No module"), UsageError, "a worker cannot be asked"),
        (None, UsageError, "no worker has answered"),
    ],
)
def test_what_workers_lack_is_one_line(
    answer: Any, error: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "CONNECT_SECONDS", 0.1)
    executor: Any = Answering(answer)
    with pytest.raises(error, match=words) as caught:
        lc.convert_many([KERAS / "seed95.keras"], tmp_path / "out", executor=executor)
    assert caught.value.hint
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_workers_that_can() -> None:
    class Here:
        def submit(self, function: Any, text: str) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(function(text))
            return future

    executor: Any = Here()
    engines.probe(executor, str(KERAS / "seed95.keras"), str(KERAS))
    with pytest.raises(SourceError, match="does not see"):
        engines.probe(executor, "nowhere.keras", None)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Dask needs what is taken away")
def test_an_address_where_nobody_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "CONNECT_SECONDS", 0.5)
    command = ["batch", KERAS / "seed95.keras", "--out-dir", tmp_path / "out"]
    done = run(*command, "--dask", f"tcp://127.0.0.1:{free_port()}")
    assert done.code == 2
    assert "no scheduler of Dask answers" in done.err
    done = run(*command, "--dask", "a", "--ray", "b")
    assert done.code == 2
    assert "one engine at a time" in done.err

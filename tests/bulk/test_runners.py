"""Whatever becomes of a task, its file has an outcome: on executors that lose, stall and break."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from pathlib import Path
from typing import Any

import pytest
from support.cli import KERAS, run

import lstmconvert as lc
from lstmconvert.bulk import runners, work
from lstmconvert.bulk.plan import Job
from lstmconvert.bulk.report import NAME
from lstmconvert.bulk.runners import Ways, runner

COUNT = 24
POISON = "poison.keras"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copies of one model, one of which a worker is to die of."""
    root = tmp_path / "in"
    root.mkdir()
    for number in range(COUNT - 1):
        shutil.copy(KERAS / "seed95.keras", root / f"{number:02}.keras")
    shutil.copy(KERAS / "seed95.keras", root / POISON)
    return root


def rows(out: Path) -> dict[str, dict[str, Any]]:
    lines = map(json.loads, (out / NAME).read_text().splitlines())
    return {Path(line["source"]).name: line for line in lines}


class KilledWorker(Exception):
    """As Dask names it; the words are its own."""


class Engine(Executor):
    """An engine of others, in threads: what it does with a task is a function's."""

    def __init__(self, does: Callable[[Future[Any], Callable[[], Any], list[str]], None]) -> None:
        self._does, self._threads = does, ThreadPoolExecutor(4)
        self.sent: list[list[str]] = []

    def submit(self, function: Any, /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if function is eval:  # whether the workers can do it
            future.set_result(function(*args))
            return future
        names = [Path(task.job.source).name for task in args[0]]
        self.sent.append(names)
        self._threads.submit(self._does, future, lambda: function(*args), names)
        return future

    def finish(self) -> None:
        """Wait until it has done what it does with all that it was sent."""
        self._threads.shutdown()


def losing(error: BaseException, *, of: str = POISON, after: bool = False) -> Engine:
    """An engine that loses what a file is sent with; `after` it was converted."""

    def does(future: Future[Any], work: Callable[[], Any], names: list[str]) -> None:
        if of in names:
            if after:
                work()
            future.set_exception(error)
        else:
            future.set_result(work())

    return Engine(does)


LOSSES = [
    KilledWorker("Attempted to run task on 4 different workers"),
    RuntimeError("the actor died"),
    TimeoutError(),
    ConnectionError("gone"),
    CancelledError(),
    KeyboardInterrupt(),
    MemoryError(),
]


@pytest.mark.parametrize("error", LOSSES, ids=lambda error: type(error).__name__)
def test_what_an_engine_loses_is_lost_alone(
    error: BaseException, folder: Path, tmp_path: Path
) -> None:
    engine = losing(error)
    outcomes = lc.convert_many([folder], tmp_path / "out", executor=engine)
    assert len(outcomes) == COUNT
    assert [o.status for o in outcomes] == ["written"] * (COUNT - 1) + ["lost"]
    assert outcomes[-1].kind == type(error).__name__
    assert str(error) in str(outcomes[-1].error)
    assert not outcomes[-1]
    found = rows(tmp_path / "out")
    assert found[POISON]["status"] == "lost"
    assert len(found) == COUNT
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == COUNT - 1
    # The same again: nothing is done twice, and the file is lost again, alone.
    again = lc.convert_many([folder], tmp_path / "out", executor=losing(error))
    assert [o.status for o in again] == ["skipped"] * (COUNT - 1) + ["lost"]


@pytest.mark.parametrize("store", ["", "memory://twice"])
def test_what_an_engine_runs_twice_without_telling_was_written_once(
    store: str, folder: Path, tmp_path: Path
) -> None:
    """As Dask does with a task that had ended on a worker that died."""

    def does(future: Future[Any], work: Callable[[], Any], names: list[str]) -> None:
        work()
        future.set_result(work())

    out = store or tmp_path / "out"
    outcomes = lc.convert_many([folder], out, executor=Engine(does))
    assert [(o.status, o.error) for o in outcomes] == [("written", None)] * COUNT
    again = lc.convert_many([folder], out, executor=Engine(does))
    assert [o.status for o in again] == ["skipped"] * COUNT


def test_what_was_done_before_it_was_lost_is_found_done(folder: Path, tmp_path: Path) -> None:
    lost = threading.Event()

    def does(future: Future[Any], work: Callable[[], Any], names: list[str]) -> None:
        result = work()
        if POISON in names and not lost.is_set():
            lost.set()
            future.set_exception(KilledWorker("late"))
        else:
            future.set_result(result)

    outcomes = lc.convert_many([folder], tmp_path / "out", executor=Engine(does))
    assert {o.status for o in outcomes} == {"written"}


@pytest.mark.parametrize(("retries", "status"), [(0, "lost"), (2, "lost"), (3, "written")])
def test_what_may_pass_is_tried_again(
    retries: int, status: str, folder: Path, tmp_path: Path
) -> None:
    tries: list[str] = []

    def does(future: Future[Any], work: Callable[[], Any], names: list[str]) -> None:
        if POISON in names:
            tries.append(POISON)
            if len(tries) < 5:  # the first time with others and alone, then alone each time
                future.set_exception(KilledWorker("busy"))
                return
        future.set_result(work())

    outcomes = lc.convert_many([folder], tmp_path / "out", executor=Engine(does), retries=retries)
    assert outcomes[-1].status == status
    assert outcomes[-1].attempts == retries + 1


def test_an_engine_that_loses_everything_is_given_up(folder: Path, tmp_path: Path) -> None:
    def does(future: Future[Any], work: Callable[[], Any], names: list[str]) -> None:
        future.set_exception(ConnectionError("the scheduler is gone"))

    engine = Engine(does)
    outcomes = lc.convert_many([folder], tmp_path / "out", executor=engine)
    assert {o.status for o in outcomes} == {"lost"}
    assert len(rows(tmp_path / "out")) == COUNT
    assert "the scheduler is gone" in str(outcomes[-1].error)
    assert len(engine.sent) < 2 * COUNT


def test_an_engine_that_does_not_answer_is_given_up(folder: Path, tmp_path: Path) -> None:
    def does(future: Future[Any], work: Callable[[], Any], names: list[str]) -> None:
        if "05.keras" not in names:
            future.set_result(work())

    outcomes = lc.convert_many([folder], tmp_path / "out", executor=Engine(does), stall=1.0)
    lost = [Path(o.source).name for o in outcomes if not o]
    assert lost == ["05.keras"]
    assert "answered nothing for 1 seconds" in str(outcomes[5].error)
    assert "the same command" in str(outcomes[5].hint)


def test_an_engine_that_takes_nothing_more(folder: Path, tmp_path: Path) -> None:
    engine = ThreadPoolExecutor(1)
    engine.shutdown()
    outcomes = lc.convert_many([folder], tmp_path / "out", executor=engine)
    assert {o.status for o in outcomes} == {"lost"}
    assert "cannot schedule new futures" in str(outcomes[0].error)


def test_a_broken_engine_of_threads(folder: Path, tmp_path: Path) -> None:
    outcomes = lc.convert_many([folder], tmp_path / "out", executor=losing(BrokenExecutor("bad")))
    assert outcomes[-1].status == "lost"
    assert len(rows(tmp_path / "out")) == COUNT


def deadly(tasks: Any, given: Any) -> Any:
    """What a worker does: it dies of one file."""
    if any(task.job.source.endswith(POISON) for task in tasks):
        os.kill(os.getpid(), signal.SIGKILL)
    return [work.convert(task, given) for task in tasks]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed as on POSIX")
def test_a_file_that_kills_its_worker_fails_alone_in_a_pool_of_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "convert_several", deadly)
    script = tmp_path / "poison.py"
    script.write_text(_POISONED)
    command = [sys.executable, script, folder, tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    statuses = done.stdout.split()
    assert statuses[:-1] == ["written"] * (COUNT - 1), done.stderr
    assert statuses[-1] == "failed"
    assert len(rows(tmp_path / "out")) == COUNT


_POISONED = f"""
import os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from lstmconvert import blas
blas.single()
from lstmconvert.bulk import work, server
convert = work.convert
def deadly(task, *rest):
    if task.job.source.endswith({POISON!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    return convert(task, *rest)
work.convert = deadly
server.begin()  # its copies have the function above
import lstmconvert as lc
import multiprocessing
context = multiprocessing.get_context("fork")
with ProcessPoolExecutor(2, mp_context=context) as executor:
    outcomes = lc.convert_many([sys.argv[1]], sys.argv[2], executor=executor)
print(*(outcome.status for outcome in outcomes))
"""


def tasks(folder: Path, out: Path) -> list[work.Task]:
    out.mkdir()
    return [
        work.Task(number, Job(str(path), str(out / f"{path.stem}.safetensors")))
        for number, path in enumerate(sorted(folder.iterdir()))
    ]


def test_an_interrupt_waits_for_what_had_begun(folder: Path, tmp_path: Path) -> None:
    """Dask's futures can always be cancelled, and what they stand for runs on."""

    def does(future: Future[Any], work: Callable[[], Any], names: list[str]) -> None:
        time.sleep(0.02)
        result = work()
        if not future.cancelled():
            future.set_result(result)

    todo, given = tasks(folder, tmp_path / "out"), work.order({"layout": "gates"})
    done = []
    with runner(Ways(Engine(does), size=COUNT), given) as running:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # it comes in the midst
            for task, outcome in running.outcomes(todo):
                done.append((task, outcome))
                if len(done) == 3:
                    running.interrupt()  # type: ignore[attr-defined]  # as the handler does
        done += list(running.begun())
    assert {outcome.status for _, outcome in done} == {"written"}
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {Path(task.job.destination).name for task, _ in done}


def test_what_does_not_end_after_an_interrupt_is_lost(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "PATIENCE", 1.0)

    def does(future: Future[Any], work: Callable[[], Any], names: list[str]) -> None:
        if "05.keras" not in names:
            future.set_result(work())

    todo, given = tasks(folder, tmp_path / "out"), work.order({"layout": "gates"})
    engine = Engine(does)
    with runner(Ways(engine, size=COUNT), given) as running:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # it comes in the midst
            for number, _ in enumerate(running.outcomes(todo)):
                if not number:
                    running.interrupt()  # type: ignore[attr-defined]  # as the handler does
        engine.finish()  # however slow the machine is
        lost = [outcome for _, outcome in running.begun() if outcome.status == "lost"]
    assert [Path(outcome.source).name for outcome in lost] == ["05.keras"]
    assert lost[0].kind == "Interrupted"


def test_a_future_that_was_never_begun_has_no_row(folder: Path, tmp_path: Path) -> None:
    todo, given = tasks(folder, tmp_path / "out"), work.order({"layout": "gates"})
    with (
        ThreadPoolExecutor(1) as executor,
        runner(Ways(executor, size=COUNT), given) as running,
    ):
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # it comes in the midst
            for number, _ in enumerate(running.outcomes(todo)):
                if not number:
                    running.interrupt()  # type: ignore[attr-defined]  # as the handler does
        begun = list(running.begun())
    assert len(begun) < COUNT // 2
    assert {outcome.status for _, outcome in begun} <= {"written"}


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_executors_of_the_standard_library(kind: Any, folder: Path, tmp_path: Path) -> None:
    with kind(2) as executor:
        outcomes = lc.convert_many([folder], tmp_path / "out", executor=executor)
    assert {o.status for o in outcomes} == {"written"}


#: What Windows does not have.
_WITHOUT_FORK = """
import os, select, signal, socket, sys
for module, names in (
    (os, ["fork", "forkpty", "register_at_fork"]),
    (select, ["poll", "epoll"]),
    (signal, ["SIGCHLD", "pthread_sigmask"]),
    (socket, ["send_fds", "recv_fds"]),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.modules["fcntl"] = None
sys.modules["resource"] = None
from lstmconvert.__main__ import main
sys.argv[0] = "lstmconvert"
main()
"""


@pytest.mark.slow
def test_without_fork(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.keras").write_bytes(b"PK\x03\x04")
    arguments = ["batch", str(folder), "--out-dir", str(tmp_path / "out"), "-j", "2"]
    for text in (f"{COUNT} written, 1 failed", f"{COUNT} done before, 1 failed"):
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT_FORK, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 1, done.stderr
        assert text in done.stderr
        assert "Traceback" not in done.stderr
    isolated = [sys.executable, "-c", _WITHOUT_FORK, *arguments, "--isolate"]
    done = subprocess.run(isolated, capture_output=True, text=True)
    assert done.returncode == 2
    assert "setrlimit" in done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed as on POSIX")
def test_programs_that_die_are_replaced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lstmconvert.bulk import server

    pids: list[int] = []

    class Watched(server.Programs):
        def start(self) -> server.Pipe:
            pipe = super().start()
            pids.append(pipe.process)
            return pipe

    monkeypatch.setattr(server, "take", Watched)
    killed = []

    def kill(outcome: Any) -> None:
        if not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    outcomes = lc.convert_many([folder], tmp_path / "out", workers=2, on_event=kill)
    assert len(outcomes) == COUNT
    failed = [outcome for outcome in outcomes if not outcome]
    assert [outcome.kind for outcome in failed] in (["BrokenProcessPool"], [])
    assert len(pids) == 3


@pytest.mark.usefixtures("here")
def test_the_end_says_how_it_was(folder: Path, tmp_path: Path) -> None:
    shutil.copy(KERAS / "gru_only.keras", folder)
    (folder / "broken.keras").write_bytes(b"PK\x03\x04")
    (folder / "notes.txt").write_text("no model")
    done = run("batch", folder, "--out-dir", tmp_path / "out", "-j", 1)
    found = f"{COUNT + 2} files: {COUNT} written, 2 failed (1 CorruptFile, 1 NoLSTM)"
    assert done.err.splitlines()[-3:] == [
        f"{found}; passed over: 1 .txt",
        f"report: {tmp_path / 'out' / NAME}",
        "hint: the same command tries again what failed, and leaves alone what is done",
    ]
    skipping = ["batch", folder, "--out-dir", tmp_path / "out", "-j", 1, "--skip-without-lstm"]
    done = run(*skipping)
    assert done.err.splitlines()[-3] == (
        f"{COUNT + 1} files: {COUNT} done before, 1 failed (1 CorruptFile); "
        "passed over: 1 .txt, 1 without an LSTM"
    )
    (folder / "broken.keras").unlink()
    done = run(*skipping)
    assert done.code == 0
    assert run(*skipping, "-q").err == ""
    quiet = run("batch", folder, "--out-dir", tmp_path / "out", "-j", 1, "-q")
    assert (quiet.code, len(quiet.err.splitlines())) == (1, 1)

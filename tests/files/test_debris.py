"""What a killed process left is removed; names at their limit; readers that go away; interrupts."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import spawn
from support.crafted import FIXTURES
from support.jail import ROOT, Fault, Jail
from support.thinned import turns

import lstmconvert
from lstmconvert.errors import DestinationError
from lstmconvert.files import locking, writing

SOURCE = FIXTURES / "seed95.keras"
OTHER = FIXTURES.parent / "keras-3.15.1" / "square.keras"


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    """A jail whose server has imported what draws tables."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text("import rich.console, rich.table\n")
    with Jail(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)])) as one:
        yield one


_LOCKS = pytest.mark.skipif(not locking.has_locks(), reason="files are not locked here")
#: Begins to write, says the temporary file's name, and waits for ever, or dies.
_WRITER = """
import os, sys, time
from pathlib import Path
from lstmconvert.files import locking, writing
with writing.replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    time.sleep(600) if sys.argv[2] == "lives" else os._exit(9)
"""


def _writer(destination: Path, how: str, *before: str) -> tuple[subprocess.Popen[str], Path]:
    command = [*before, sys.executable, "-c", _WRITER, destination, how]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    return process, destination.with_name(process.stdout.readline().strip())


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@_LOCKS
def test_what_a_dead_process_left_is_removed(
    ended: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    destination = tmp_path / "lstm.safetensors"
    living, of_living = _writer(destination, "lives")
    dead, of_dead = _writer(destination, "dies")
    # Its parent, this process, does not ask for its end before ours.
    another, of_another = _writer(tmp_path / "other.safetensors", "dies")
    ended += [living, dead, another]
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    os.waitid(os.P_PID, another.pid, os.WEXITED | os.WNOWAIT)
    assert of_dead.exists()
    lstmconvert.convert(SOURCE, destination)
    assert not of_dead.exists()
    assert of_living.read_bytes() == b"half"
    assert of_another.exists()
    writing.sweep(tmp_path)
    assert not of_another.exists()
    assert of_living.exists()


@_LOCKS
def test_another_process_of_our_number(
    ended: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    """In two containers on one folder, all have the number 1."""
    own = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*own, "true"]).returncode:
        pytest.skip("no namespaces of processes here")
    destination = tmp_path / "lstm.safetensors"
    living, of_living = _writer(destination, "lives", *own)
    ended.append(living)
    text = "import sys, lstmconvert; lstmconvert.convert(*sys.argv[1:])"
    command = [*own, sys.executable, "-c", text, SOURCE, destination]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert destination.exists()
    assert of_living.exists()


@pytest.mark.parametrize("locks", [pytest.param(True, marks=_LOCKS), False])
def test_what_another_host_left_is_removed_after_a_day(
    locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks may not be seen from here; without locks, our own are left for ten minutes."""
    if not locks:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    now = time.time()
    theirs = tmp_path / ".x.npz.00000000.0123abcd.lstmconvert-tmp"
    ours = tmp_path / f".x.npz.{locking.host()}.0123abcd.lstmconvert-tmp"
    old_style = tmp_path / ".x.npz.4711.0123abcd.lstmconvert-tmp"
    for age, left in ((60, 3 - locks), (3600, 2), (25 * 3600, 0)):
        for path in (theirs, ours, old_style):
            path.touch()
            os.utime(path, (now - age, now - age))
        writing.remove_stale(tmp_path / "x.npz")
        assert len(os.listdir(tmp_path)) == left, age


def test_a_sweep_leaves_what_is_being_created(tmp_path: Path) -> None:
    """A file has no lock in the moment in which it is created; a sweep may come just then."""
    destination = tmp_path / "lstm.npz"
    errors: list[BaseException] = []
    is_over = threading.Event()

    def sweep() -> None:
        while not is_over.is_set():
            writing.remove_stale(destination)

    def create() -> None:
        try:
            for _ in range(40):
                with writing.replacing(destination, force=True) as temporary:
                    assert temporary.exists()
                    time.sleep(0)
                    assert temporary.exists()
        except BaseException as error:
            errors.append(error)
        finally:
            is_over.set()

    threads = [threading.Thread(target=run) for run in (sweep, sweep, create, create)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


@_LOCKS
@pytest.mark.parametrize("step", ["before the look", "before the removal"])
def test_a_sweep_between_creation_and_lock(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with the two brought together on purpose: the file is made anew, and is there."""
    import fcntl

    destination = tmp_path / "lstm.npz"
    real_lock, real_unlink = fcntl.flock, os.unlink
    has_created, may_remove = threading.Event(), threading.Event()
    sweeper = threading.Thread(target=writing.remove_stale, args=[destination])

    def lock(descriptor: int, how: int) -> None:
        if threading.current_thread() is sweeper:
            real_lock(descriptor, how)
        elif not has_created.is_set():  # the first file: the sweep goes first
            has_created.set()
            sweeper.start()
            if step == "before the look":
                may_remove.set()
                sweeper.join()
            else:
                threading.Timer(0.1, may_remove.set).start()
                time.sleep(0.05)  # the sweep has the file by now, and not removed it
            real_lock(descriptor, how)
        else:
            real_lock(descriptor, how)

    def unlink(path: Path) -> None:
        if threading.current_thread() is sweeper:
            may_remove.wait(10)
        real_unlink(path)

    monkeypatch.setattr(fcntl, "flock", lock)
    monkeypatch.setattr(os, "unlink", unlink)
    with writing.replacing(destination) as temporary:
        sweeper.join()
        assert temporary.exists()
        temporary.write_bytes(b"new")
    assert destination.read_bytes() == b"new"


@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".onnx", ".param"])
def test_a_destination_keeps_its_permissions(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = tmp_path / f"lstm{suffix}"
    lstmconvert.convert(SOURCE, destination)
    assert stat.S_IMODE(destination.stat().st_mode) == 0o666 & ~_umask()
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    seen = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    lstmconvert.convert(SOURCE, destination, force=True)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert set(seen) == {0o600}  # nobody reads over its shoulder
    for path in tmp_path.iterdir():
        path.chmod(0o444)
    lstmconvert.convert(SOURCE, destination, force=True)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o444}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_long_names(tmp_path: Path) -> None:
    destination = tmp_path / ("ü" * 121 + ".safetensors")  # 254 bytes; 255 are allowed
    lstmconvert.convert(SOURCE, destination)
    assert os.listdir(tmp_path) == [destination.name]
    with pytest.raises(DestinationError, match="too long"):
        lstmconvert.convert(SOURCE, tmp_path / ("ü" * 130 + ".safetensors"))


# --- pipes ----------------------------------------------------------------------------------------


def test_closed_pipe() -> None:
    command = [sys.executable, "-m", "lstmconvert", "inspect", FIXTURES / "zoo.keras", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 141, -13)
    assert not stderr


_PRINTING = {
    "inspect": ["inspect", SOURCE],
    "stats": ["inspect", SOURCE, "--stats", "--json"],
    "convert": ["convert", SOURCE, "OUT/lstm.npz", "--json"],
    "batch": ["batch", SOURCE, "--out-dir", "OUT", "-j", "1", "--json"],
    "diff": ["diff", SOURCE, OTHER],
    "verify": ["verify", SOURCE, "--engine", "numpy"],
    "formats": ["formats"],
    "help": ["convert", "--help"],
}


@pytest.mark.parametrize(("name", "is_full"), turns(_PRINTING, (False, True)))
def test_nobody_reads(name: str, is_full: bool, tmp_path: Path) -> None:
    """Data for a pipe that is closed already, or for a disk that is full."""
    command = [str(x).replace("OUT", str(tmp_path)) for x in _PRINTING[name]]
    if is_full:
        with open("/dev/full", "w") as full:
            run = spawn(*command, stdout=full, stderr=subprocess.PIPE)
        assert run.returncode == 2
        assert len(run.stderr.splitlines()) == 2, run.stderr
    else:
        read, write = os.pipe()
        os.close(read)
        with open(write, "w") as pipe:
            run = spawn(*command, stdout=pipe, stderr=subprocess.PIPE)
        assert (run.returncode, run.stderr) == (141, "")
    made = {"convert": {"lstm.npz"}, "batch": {"seed95.safetensors", "lstmconvert-batch.jsonl"}}
    assert set(os.listdir(tmp_path)) == made.get(name, set())


@pytest.mark.parametrize("name", sorted({*_PRINTING} - {"batch", "help"}))
def test_interrupts(name: str, jail: Jail, tmp_path: Path) -> None:
    command = [x if isinstance(x, Path) else x.replace("OUT", str(tmp_path))
               for x in _PRINTING[name]]  # fmt: skip
    count = jail.run(*command, fault=Fault("call", 0, "kill")).counts["call"]
    assert count > 100
    for at in range(5, count, count // 5):  # from when the command line hears of it
        run = jail.run(*command, fault=Fault("call", at, "interrupt"))
        if run.code == 130:
            # Before click 8.4.2 an empty line comes first, where no command has begun yet.
            *notes, last = run.stderr.lstrip("\n").splitlines()
            assert last == "lstmconvert: interrupted"
            assert all(line.startswith("note: ") for line in notes)
        # Python itself reports one that lands in a generator's finalizer, and goes on.
        assert run.code == 130 or "Exception ignored" in run.stderr, run
        assert not [left for left in os.listdir(tmp_path) if left.startswith(".")]
        for left in tmp_path.iterdir():
            left.unlink()

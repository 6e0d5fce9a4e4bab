"""`--isolate`: a child that really crashes, overruns its memory or its time is one typed error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import SEED95, environment, spawn

_FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="a child is not a fork here")
OLD = b"what was there before"
#: What becomes of the process, in place of the function that comes first in the code.
CRASHES = {
    "segfault": "ctypes.string_at(0)",
    "abort": "os.abort()",
    "glibc": "ctypes.CDLL(None).free(ctypes.create_string_buffer(64))",
    "killed": "os.kill(os.getpid(), 9)",
    "memory": "bytearray(1 << 45)",
    "time": "[0 for _ in iter(int, 1)]",
}


def broken(folder: Path, crash: str, place: str = "api.opened") -> dict[str, str]:
    """An environment in which a function of ours crashes the process that calls it."""
    module, _, name = place.rpartition(".")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(
        f"import ctypes, os\nimport lstmconvert.{module} as module\n"
        f"module.{name} = lambda *args, **more: {CRASHES[crash]}\n"
    )
    path = os.pathsep.join([str(folder / "site"), os.getcwd()])
    seconds = "1" if crash == "time" else "60"  # a slow machine takes long to come to a crash
    return environment(PYTHONPATH=path, LSTMCONVERT_MAX_ISOLATED_SECONDS=seconds)


def check(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"lstmconvert: error: {SEED95}")
    assert words in error
    assert hint.startswith("hint: ")
    assert ("expected at most" in error) == ("LSTMCONVERT_MAX_ISOLATED_" in hint)


@_FORKS
@pytest.mark.slow
@pytest.mark.parametrize(
    ("crash", "command", "words"),
    [
        ("segfault", ["inspect", SEED95], "crashed; found SIGSEGV"),
        ("abort", ["inspect", SEED95, "--json"], "crashed; found SIGABRT"),
        ("glibc", ["inspect", SEED95], "crashed; found SIG"),
        ("killed", ["inspect", SEED95], "found killed, perhaps because memory ran out"),
        ("memory", ["inspect", SEED95], "found not enough memory; expected at most 8,"),
        ("time", ["inspect", SEED95], "found out of processor time; expected at most 1 "),
        ("segfault", ["convert", SEED95, "{out}"], "crashed; found SIGSEGV"),
    ],
)
def test_a_child_that_dies(crash: str, command: list[object], words: str, tmp_path: Path) -> None:
    args = [tmp_path / "a.npz" if arg == "{out}" else arg for arg in command]
    check(spawn(*args, "--isolate", env=broken(tmp_path, crash)), words)
    assert os.listdir(tmp_path) == ["site"]


@_FORKS
@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.parametrize("command", ["diff", "verify"])
def test_comparing_commands(command: str, tmp_path: Path) -> None:
    module = {"diff": "checks.compare.diff", "verify": "checks.verification.verify"}[command]
    done = spawn(command, SEED95, SEED95, "--isolate", env=broken(tmp_path, "segfault", module))
    check(done, f"{SEED95} and {SEED95}: the process that read it crashed; found SIGSEGV")


@pytest.mark.slow
@pytest.mark.parametrize(("crash", "words"), [("time", "died: "), ("memory", "not enough memory")])
def test_files_of_a_batch(crash: str, words: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = [SEED95, SEED95.with_suffix(".weights.h5"), "--out-dir", out, "-j", 2]
    args += ["--isolate", "--keep-suffix"]
    done = spawn("batch", *args, env=broken(tmp_path, crash, "api.converted"))
    assert done.returncode == 1, done
    *errors, summary, _, _ = done.stderr.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("lstmconvert: error: ") and words in line for line in errors)
    assert summary.startswith("2 files: 2 failed (2 ")
    assert os.listdir(out) == ["lstmconvert-batch.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crash", "seconds", "words"),
    [
        ("segfault", 60, "crashed; found SIGSEGV"),
        ("time", 1, "found not done after 1 seconds; expected at most 1 "),
    ],
)
def test_without_fork_the_command_is_run_again(
    crash: str, seconds: int, words: str, tmp_path: Path
) -> None:
    destination = tmp_path / "a.npz"
    variables = broken(tmp_path, crash)
    site = tmp_path / "site" / "sitecustomize.py"
    site.write_text("import os\ndel os.fork\nimport multiprocessing\n" + site.read_text())
    variables["LSTMCONVERT_MAX_ISOLATED_SECONDS"] = str(seconds)
    done = spawn("convert", SEED95, destination, "--isolate", env=variables)
    warning, _, done.stderr = done.stderr.partition("\n")
    assert "this system does not limit the memory of a process" in warning
    check(done, words)
    assert os.listdir(tmp_path) == ["site"]
    site.write_text("import os\ndel os.fork\n")
    variables["LSTMCONVERT_MAX_ISOLATED_SECONDS"] = "60"
    done = spawn("convert", SEED95, destination, "--isolate", env=variables)
    assert done.returncode == 0
    plain = spawn("inspect", destination)
    isolated = spawn("inspect", destination, "--isolate", env=variables)
    assert isolated.stdout == plain.stdout


def test_without_it_the_program_itself_dies(tmp_path: Path) -> None:
    done = spawn("inspect", SEED95, env=broken(tmp_path, "segfault"))
    assert done.returncode == -signal.SIGSEGV


@_FORKS
def test_a_child_that_dies_while_it_writes_leaves_nothing(tmp_path: Path) -> None:
    destination = tmp_path / "lstm.safetensors"
    destination.write_bytes(OLD)
    variables = broken(tmp_path, "segfault", "files.writing._take_name")
    done = spawn("convert", SEED95, destination, "--force", "--isolate", env=variables)
    check(done, "crashed; found SIGSEGV")
    assert destination.read_bytes() == OLD
    assert sorted(os.listdir(tmp_path)) == [destination.name, "site"]


@_FORKS
@pytest.mark.slow
def test_nothing_else_is_different(tmp_path: Path) -> None:
    one, two = tmp_path / "1" / "a.keras", tmp_path / "2" / "a.keras"
    weights = SEED95.with_suffix(".weights.h5")
    for path, options in ((one, []), (two, ["--isolate"])):
        path.parent.mkdir()
        done = spawn("convert", SEED95, path, *options)
        assert (done.returncode, done.stdout) == (0, "")
        note, end = done.stderr.splitlines()
        assert note.startswith("note: opens in Keras")
        assert end == f"wrote {path}: 5 tensors, 1 LSTM layer, the whole model"
    assert one.read_bytes() == two.read_bytes()
    for args in (["inspect", SEED95], ["diff", SEED95, weights], ["inspect", "nowhere"]):
        plain, isolated = spawn(*args), spawn(*args, "--isolate")
        assert plain.stdout == isolated.stdout
        assert plain.stderr == isolated.stderr
        assert plain.returncode == isolated.returncode


@pytest.mark.slow
@_FORKS
def test_an_interrupt_reaches_the_child(tmp_path: Path) -> None:
    variables = broken(tmp_path, "time")
    variables["LSTMCONVERT_MAX_ISOLATED_SECONDS"] = "60"
    site = tmp_path / "site" / "sitecustomize.py"
    site.write_text(site.read_text().replace("[0", "print('on', flush=True) or [0"))
    command = [sys.executable, "-m", "lstmconvert", "inspect", SEED95, "--isolate"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "lstmconvert: interrupted\n")

"""Runs the command line under guard: one server process, and a fork of it for each run.

A fork has bounded memory and processor time, and an audit hook that records every file that is
opened but the allowed ones, every socket, every process and every import of a foreign module.
What C code opens passes by the audit hook: `Watch` sees that, through inotify.

    with Jail() as jail:
        run = jail.run("convert", source, destination)
        assert run.code == 2 and not run.events
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from support.cli import spawn
from support.pace import usual

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
SECONDS = 5.0  # the promise
RESIDENT = 300 * MIB  # the promise


@dataclass(frozen=True)
class Run:
    """What one run did: exit code (or -signal), output, processor time, peak memory, bad events.

    `seconds` are those of the usual machine (`support.pace`).
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    resident: int
    events: tuple[str, ...]
    counts: dict[str, int]


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a run, and when.

    Fields: `on`: `call` (a Python function of ours is entered) or `read` (of the source); `at`: at
    which of these, from 1 on; `what`: `kill`, `interrupt`, `error` (EIO), or what becomes of
    `path`: `truncate`, `touch`, `rewrite`, `replace`, `remove` (a directory).
    """

    on: str
    at: int
    what: str
    path: Path | None = None


class Jail:
    """The server. Where there is no fork (`posixless`), each run is a process without a guard."""

    def __init__(self, **variables: str) -> None:
        self._server: subprocess.Popen[str] | None = None
        if not hasattr(os, "fork"):
            return
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "OPENBLAS_NUM_THREADS": "1",
            **variables,
        }
        self._server = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "support" / "jailed.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._ask([])

    def _ask(self, requests: list[dict[str, Any]]) -> list[Run]:
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(requests), file=self._server.stdin, flush=True)
        answers = json.loads(self._server.stdout.readline())
        return [
            Run(**{
                **answer,
                "events": tuple(answer["events"]),
                "seconds": usual(answer["seconds"]),
            })
            for answer in answers
        ]

    def run(
        self,
        *args: str | Path,
        allow: Sequence[Path] = (),
        fault: Fault | None = None,
        file_bytes: int | None = None,
        powerless: bool = False,
    ) -> Run:
        """Run the command line. Paths among `args` may be opened, and what lies below them.

        `fault` happens meanwhile; no file can grow beyond `file_bytes`;
        `powerless`: permissions bind, even if the tests run as root.
        """
        if self._server is None:
            if fault or file_bytes or powerless:
                pytest.skip("needs fork and the limits of POSIX")
            return _bare(args)
        request = _request(args, allow)
        request |= {
            "fault": fault and [fault.on, fault.at, fault.what, str(fault.path)],
            "file_bytes": file_bytes,
            "powerless": powerless,
        }
        (run,) = self._ask([request])
        return run

    def run_at_once(self, *commands: Sequence[str | Path]) -> list[Run]:
        """Run command lines in as many processes, which all begin at the same moment."""
        if self._server is None:
            with ThreadPoolExecutor(len(commands)) as pool:
                return [*pool.map(_bare, commands)]
        return self._ask([_request(args, ()) for args in commands])

    def __enter__(self) -> Jail:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is None:
            return
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()


def _bare(args: Sequence[str | Path]) -> Run:
    done = spawn(*args)
    return Run(done.returncode, done.stdout, done.stderr, 0.0, 0, (), {})


def _request(args: Sequence[str | Path], allow: Sequence[Path]) -> dict[str, Any]:
    paths = [str(arg) for arg in args if isinstance(arg, Path)]
    return {
        "args": [str(arg) for arg in args],
        "allow": [*paths, *map(str, allow)],
        "fault": None,
        "file_bytes": None,
        "powerless": False,
    }


class Watch:
    """Sees whether anyone opens a file, in Python or in C (inotify: Linux only)."""

    _OPENED = 0x20  # IN_OPEN, linux/inotify.h

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), self._OPENED)
        if self._descriptor < 0 or watch < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def opened(self) -> bool:
        """Whether it was opened since the last call."""
        if not select.select([self._descriptor], [], [], 0)[0]:
            return False
        return bool(os.read(self._descriptor, 1 << 16))

    def close(self) -> None:
        os.close(self._descriptor)

"""The server of `jail`: forks for a run with a fault, keeps a fork for those without, guards both.

A fork costs ten times what it runs: its pages are copied one by one. So one fork takes what has no
fault and no limit of its own, one after another, until one of them ends it or makes it large.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import errno
import gc
import io
import json
import math
import os
import re
import resource
import shutil
import signal
import struct
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
#: What the fork may map beyond what the server has mapped already.
ROOM = 768 * MIB
_HARD_SECONDS = 60  # after this the fork is killed
#: A kept fork that has grown by this is ended: what it maps would be counted again.
_GROWN = 32 * MIB
#: Where code lies. Asked once: the first answer takes longer than half a conversion.
_CODE = {os.path.realpath(path) for path in sysconfig.get_paths().values()}


def _serve() -> None:
    sys.path.insert(0, str(ROOT))
    os.fsync = lambda _descriptor: None  # as in conftest
    _warm_up()
    # What is there stays: a look for garbage in a fork would copy every page of it.
    gc.collect()
    gc.freeze()
    base = _mapped()
    kept = _Kept(base)
    for line in sys.stdin:
        requests = json.loads(line)
        plain = len(requests) == 1 and not any(requests[0][key] for key in _OWN_FORK)
        answers = [kept.run(requests[0])] if plain else _forked(requests, base)
        print(json.dumps(answers), flush=True)
    kept.end()


#: What of a request needs a fork of its own: it stays behind in the process.
_OWN_FORK = ("fault", "file_bytes", "powerless")


def _warm_up() -> None:
    """Import what honest files need, so that a fork imports nothing."""
    with tempfile.TemporaryDirectory() as folder:
        fixtures = ROOT / "fixtures"
        for name in ("keras-3.6.0/seed95.keras", "keras-3.6.0/seed95.h5", "tf-2.15.1/seed95.h5"):
            _command(["convert", str(fixtures / name), f"{folder}/a.safetensors"])
            for suffix in ("keras", "h5", "weights.h5"):
                _command(["convert", f"{folder}/a.safetensors", f"{folder}/a.{suffix}"])
            _command(["convert", str(fixtures / name), folder])  # the ways of an error
            for left in os.listdir(folder):
                os.unlink(f"{folder}/{left}")


def _command(args: list[str]) -> int:
    from lstmconvert.cli.main import program

    with open(os.devnull, "w") as sink:
        quiet = contextlib.redirect_stderr(sink), contextlib.redirect_stdout(sink)
        with quiet[0], quiet[1]:
            try:
                program.main(args)
            except SystemExit as end:
                return int(end.code or 0)


def _mapped() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _forked(requests: list[dict[str, Any]], base: int) -> list[dict[str, Any]]:
    """Run each request in a fork of its own; all of them begin at once."""
    waiting, begin = os.pipe()
    with contextlib.ExitStack() as stack:
        started = []
        for request in requests:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            child = os.fork()
            if not child:
                os.close(begin)
                _child(request, base, waiting, *(file.fileno() for file in files))
            started.append((child, files))
        os.close(waiting)
        os.close(begin)
        return [_ended(child, files) for child, files in started]


class _Kept:
    """A fork that takes one request after another. One that dies, or has grown, is replaced."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._child = 0

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        if not self._child:
            self._begin()
        for file in self._files:  # their places are the fork's places too
            file.seek(0)
            file.truncate()
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        line = self._answers.readline()
        if not line:
            child, self._child = self._child, 0
            self._close()
            return _ended(child, self._files)
        answer = {**_texts(self._files), **json.loads(line)}
        if answer.pop("grown"):
            self.end()
        return answer

    def end(self) -> None:
        if self._child:
            self._close()
            os.wait4(self._child, 0)
            self._child = 0

    def _close(self) -> None:
        self._requests.close()
        self._answers.close()

    def _begin(self) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115  # until the end
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(ours_out)
            os.close(ours_in)
            self._serve(theirs_in, theirs_out)
        os.close(theirs_in)
        os.close(theirs_out)
        self._requests = os.fdopen(ours_out, "w")
        self._answers = os.fdopen(ours_in)

    def _serve(self, requests: int, answers: int) -> None:
        try:
            files = [file.fileno() for file in self._files]
            main = _enter(self._base, *files[:2])
            allow = _guard(files[2])
            start = resource.getrusage(resource.RUSAGE_SELF)
            base, grown = start.ru_maxrss, False
            for line in os.fdopen(requests):
                request = json.loads(line)
                before = _spent()
                _limit_seconds(before)
                allow(request["allow"])
                code = _exit_code(main, request["args"])
                allow([])
                signal.alarm(0)
                resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                grown = resident - base > _GROWN // 1024
                answer = {
                    "counts": dict(_COUNTS),
                    "code": code,
                    "seconds": _spent() - before,
                    "resident": resident * 1024,
                    "grown": grown,
                }
                os.write(answers, (json.dumps(answer) + "\n").encode())
        finally:
            os._exit(99)


def _ended(child: int, files: list[IO[bytes]]) -> dict[str, Any]:
    _, status, usage = os.wait4(child, 0)
    texts = _texts(files)
    counts = [json.loads(line[1:]) for line in texts["events"] if line.startswith("#")]
    return {
        **texts,
        "counts": counts[0] if counts else {},
        "code": os.waitstatus_to_exitcode(status),
        "seconds": usage.ru_utime + usage.ru_stime,  # the clock's depend on who else computes
        "resident": usage.ru_maxrss * 1024,
        "events": [line for line in texts["events"] if not line.startswith("#")],
    }


def _texts(files: list[IO[bytes]]) -> dict[str, Any]:
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read().decode("utf-8", "backslashreplace"))
    return {"stdout": texts[0], "stderr": texts[1], "events": texts[2].splitlines()}


def _child(
    request: dict[str, Any], base: int, waiting: int, out: int, err: int, seen: int
) -> None:
    code = 99
    try:
        main = _enter(base, out, err)
        _limit_seconds(0.0)
        if request["powerless"]:
            _drop_powers()
        if request["file_bytes"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
        if request["fault"] is None:
            _guard(seen)(request["allow"])
        faults = _Faults(request["fault"])
        os.read(waiting, 1)  # it ends when the last has been forked
        code = _exit_code(main, request["args"])
        os.write(seen, f"#{json.dumps(faults.counts)}\n".encode())
    finally:
        os._exit(code)


def _enter(base: int, out: int, err: int) -> Callable[[list[str]], object]:
    """Bound this fork, let it write to these files, and return the command line's program."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    # What a shell starts in the background inherits an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_AS, (base + ROOM, base + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from lstmconvert.cli.main import program

    return program.main


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _limit_seconds(spent: float) -> None:
    signal.alarm(_HARD_SECONDS)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(spent) + _HARD_SECONDS, hard))


def _exit_code(main: Callable[[list[str]], object], args: list[str]) -> int:
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # until exit
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # until exit
    code = 99
    try:
        main(args)
    except SystemExit as end:
        code = int(end.code or 0)
    sys.setprofile(None)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _drop_powers() -> None:
    """Give up root's power over permissions, if it is there (capabilities(7): none is left)."""
    header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    if ctypes.CDLL(None, use_errno=True).capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


class _Unbuffered(io.FileIO):
    """A file that says before each of its reads that it comes."""

    before: Callable[[], None]

    def read(self, size: int = -1) -> bytes:
        self.before()
        return super().read(size)


#: `begin` and `end`: the calls with which the first temporary is made, and the last takes its name.
_COUNTS = {"call": 0, "read": 0, "begin": 0, "end": 0}
_MARKS = {"create_held": "begin", "create_held_folder": "begin", "_take_names": "end"}


class _Faults:
    """Counts calls and reads, and makes the fault happen when its time has come."""

    def __init__(self, fault: tuple[str, int, str, str] | None) -> None:
        self.counts = dict(_COUNTS)
        self.fault = fault
        if fault is None:
            return
        for name in ("preadv", "pread"):
            setattr(os, name, self.counting(getattr(os, name)))
        self._open = builtins.open
        builtins.open = self.opened
        sys.setprofile(self.call)

    def call(self, frame: Any, event: str, _: object) -> None:
        if event == "call" and "/lstmconvert/" in frame.f_code.co_filename:
            mark = _MARKS.get(frame.f_code.co_name)
            if mark == "end" or (mark and not self.counts[mark]):
                self.counts[mark] = self.counts["call"] + 1
            self._count("call")

    def counting(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self._count("read")
            return read(*args)

        return counted

    def opened(self, path: Any, mode: str = "r", buffering: int = -1, **more: Any) -> IO[Any]:
        """Do what `open` does: what is written is read back by a file without a buffer."""
        if buffering or not isinstance(path, (str, os.PathLike)):
            return self._open(path, mode, buffering, **more)
        file = _Unbuffered(path, mode.replace("b", ""))
        file.before = lambda: self._count("read")
        return file

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1
        assert self.fault is not None
        on, at, what, path = self.fault
        if kind == on and self.counts[kind] == at:
            _HAPPEN[what](path)


def _read_error(path: str) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _rewrite(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[-1] ^= 255
    with open(path, "rb+") as file:
        file.write(data)


def _replace(path: str) -> None:
    Path(f"{path}.new").write_bytes(b"another file")
    os.replace(f"{path}.new", path)


_HAPPEN: dict[str, Callable[[str], object]] = {
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "interrupt": lambda _: os.kill(os.getpid(), signal.SIGINT),
    "error": _read_error,
    "truncate": lambda path: os.truncate(path, 100),
    "touch": lambda path: os.utime(path, (1, 1)),
    "rewrite": _rewrite,
    "replace": _replace,
    "remove": shutil.rmtree,
}


def _guard(seen: int) -> Callable[[list[str]], None]:
    """Record what a conversion has no business doing. A hook cannot be taken off again.

    Return how to say which paths may be opened from now on.
    """
    known = {name.partition(".")[0] for name in sys.modules}
    folders = _CODE | {str(ROOT / "lstmconvert")}
    allowed: set[str] = set()
    temporary = os.path.realpath(tempfile.gettempdir())
    inside = [False]

    def forbidden(event: str, args: tuple[Any, ...]) -> bool:
        if event == "open":
            return not isinstance(args[0], int) and not may_open(os.fsdecode(args[0]), args[2])
        if event == "import":
            return args[0].partition(".")[0] not in known
        return event.startswith(
            ("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.system")
        )

    def may_open(name: str, flags: int) -> bool:
        path = os.path.realpath(name)
        if flags & getattr(os, "O_TMPFILE", 0) == getattr(os, "O_TMPFILE", -1):
            return path == temporary  # nameless
        # A module that is imported for the first time is compiled: x.pyc.140655534285360.
        is_code = re.search(r"\.(py|so|pyc(\.\d+)?)$", path) is not None
        if is_code and any(path.startswith(folder + os.sep) for folder in folders):
            return True
        if path in ("/dev/null", "/dev/urandom", temporary):  # the last for a nameless file in it
            return True
        return any(path == one or path.startswith((one + os.sep, _debris(one))) for one in allowed)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if inside[0]:
            return
        inside[0] = True
        try:
            if forbidden(event, args):
                os.write(seen, f"{event} {args!r}\n".encode("utf-8", "backslashreplace"))
        finally:
            inside[0] = False

    def allow(paths: list[str]) -> None:
        inside[0] = True
        allowed.clear()
        allowed.update(os.path.realpath(path) for path in paths)
        inside[0] = False

    sys.addaudithook(hook)
    return allow


def _debris(destination: str) -> str:
    folder, name = os.path.split(destination)
    return f"{folder}/.{name}."


if __name__ == "__main__":
    _serve()

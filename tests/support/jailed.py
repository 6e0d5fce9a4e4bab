"""The server of `jail`: forks for each run, and guards the fork."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
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
#: Where code lies. Asked once: the first answer takes longer than half a conversion.
_CODE = {os.path.realpath(path) for path in sysconfig.get_paths().values()}


def _serve() -> None:
    sys.path.insert(0, str(ROOT))
    _warm_up()
    base = _mapped()
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line), base)), flush=True)


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


def _ended(child: int, files: list[IO[bytes]]) -> dict[str, Any]:
    _, status, usage = os.wait4(child, 0)
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read().decode("utf-8", "backslashreplace"))
    events = texts[2].splitlines()
    counts = [json.loads(line[1:]) for line in events if line.startswith("#")]
    return {
        "counts": counts[0] if counts else {},
        "code": os.waitstatus_to_exitcode(status),
        "stdout": texts[0],
        "stderr": texts[1],
        "seconds": usage.ru_utime + usage.ru_stime,  # the clock's depend on who else computes
        "resident": usage.ru_maxrss * 1024,
        "events": [line for line in events if not line.startswith("#")],
    }


def _child(
    request: dict[str, Any], base: int, waiting: int, out: int, err: int, seen: int
) -> None:
    code = 99
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # until exit
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # until exit
        signal.alarm(_HARD_SECONDS)
        # What a shell starts in the background inherits an ignored SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CPU, (_HARD_SECONDS, _HARD_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (base + ROOM, base + ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from lstmconvert.cli.main import program

        if request["powerless"]:
            _drop_powers()
        if request["file_bytes"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
        if request["fault"] is None:
            _guard(request["allow"], seen)
        faults = _Faults(request["fault"])
        os.read(waiting, 1)  # it ends when the last has been forked
        try:
            program.main(request["args"])
        except SystemExit as end:
            code = int(end.code or 0)
        sys.setprofile(None)
        os.write(seen, f"#{json.dumps(faults.counts)}\n".encode())
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _drop_powers() -> None:
    """Give up root's power over permissions, if it is there (capabilities(7): none is left)."""
    header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    if ctypes.CDLL(None, use_errno=True).capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


class _Faults:
    """Counts calls and reads, and makes the fault happen when its time has come."""

    def __init__(self, fault: tuple[str, int, str, str] | None) -> None:
        self.counts = {"call": 0, "read": 0}
        self.fault = fault
        if fault is None:
            return
        self._preadv = os.preadv
        os.preadv = self.read
        sys.setprofile(self.call)

    def call(self, frame: Any, event: str, _: object) -> None:
        if event == "call" and "/lstmconvert/" in frame.f_code.co_filename:
            self._count("call")

    def read(self, *args: Any) -> int:
        self._count("read")
        return self._preadv(*args)

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


def _guard(allow: list[str], seen: int) -> None:
    """Record what a conversion has no business doing. A hook cannot be taken off again."""
    known = {name.partition(".")[0] for name in sys.modules}
    folders = _CODE | {str(ROOT / "lstmconvert")}
    allowed = {os.path.realpath(path) for path in allow}
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

    sys.addaudithook(hook)


def _debris(destination: str) -> str:
    folder, name = os.path.split(destination)
    return f"{folder}/.{name}."


if __name__ == "__main__":
    _serve()

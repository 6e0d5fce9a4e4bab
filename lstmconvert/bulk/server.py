"""Workers of a fork server that leave the caller's script alone."""

from __future__ import annotations

import sys
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any


class _Process(ForkServerProcess):
    """A worker that does not import the caller's script, as others do before all else.

    It has nothing of it to run: and a script without `if __name__ == "__main__"` would start all
    over in each worker.
    """

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802  # multiprocessing's name
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return ForkServerProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = script


class Context(ForkServerContext):
    """A fork server's context whose processes are such workers."""

    Process = _Process

"""The command `lstmconvert`. A command's module is imported when the command is called."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from lstmconvert import __version__
from lstmconvert.cli import COMPLETE, failures, output

#: Command -> one line of help, so that the list of commands imports none of them.
COMMANDS = {
    "inspect": "Show the layers, tensors and gates of a file, and why they have their shapes.",
    "convert": "Write a model's LSTM weights to another kind of file.",
    "batch": "Convert many files: folders and globs, resumable, in parallel.",
    "diff": "Tell whether two files hold the same layers, bit for bit.",
    "verify": "Run two files, or two engines, on the same input, and compare the outputs.",
    "view": "Make a page to look at: gates, units, two files, an input over time.",
    "formats": "List the frameworks' layouts: what each keeps, changes and cannot express.",
    "guide": "Show a page of the guide.",
    "completion": "Print what makes bash, zsh or fish complete names and values.",
}

_EPILOG = """\b
Examples:
  lstmconvert inspect model.keras
  lstmconvert convert model.keras lstm.safetensors"""


class Program(click.Group):
    """The group of commands, whose errors are one line, one hint and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"lstmconvert.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if ctx.resilient_parsing and args[0] not in COMMANDS:
            return None, None, args  # the shell asks for completions: it is not a mistake yet
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise failures.NoSuchCommand(args[0], COMMANDS, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except KeyboardInterrupt:
            raise click.Abort from None  # as in `invoke`

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None  # click itself would print an empty line first

    def main(  # type: ignore[override]  # it never returns
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,  # noqa: ARG002  # always the same, under python -m too
        **extra: Any,
    ) -> NoReturn:
        sys.exit(self._run(args, extra))

    def _run(self, args: Sequence[str] | None, extra: dict[str, Any]) -> int:
        failures.quiet()
        output.speak(output.Level.NORMAL)
        started = time.perf_counter()
        given = list(sys.argv[1:] if args is None else args)  # as `--isolate` may need them again
        try:
            code = super().main(
                given,
                "lstmconvert",
                complete_var=COMPLETE,
                **(extra | {"standalone_mode": False, "obj": given}),
            )
            sys.stdout.flush()
            output.detail(_costs(started))
        except (BrokenPipeError, SystemExit) as end:
            if isinstance(end, SystemExit) and COMPLETE in os.environ:
                return int(end.code or 0)
            # The reader wants no more. Outside its standalone mode click exits for this alone.
            _drop_output()
            return failures.PIPE_CLOSED
        except (Exception, KeyboardInterrupt) as failure:
            code = failures.report(failure)
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                return code
            _drop_output()
            return code
        return code if isinstance(code, int) else failures.DONE


def _costs(started: float) -> str:
    """Say what a run took, and of which version it was.

    Args:
        started: the clock `time.perf_counter` when it began.
    """
    text = f"lstmconvert {__version__}: {time.perf_counter() - started:.2f} s"
    with contextlib.suppress(ImportError):  # Windows lacks the module
        import resource

        # Bytes on macOS, kilobytes elsewhere (getrusage(2)).
        unit = 1 if sys.platform == "darwin" else 1024
        text += f", {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6:.0f} MB"
    return text


def _drop_output() -> None:
    """Send what is left in the buffer of stdout nowhere, so that it does not raise at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=Program, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="lstmconvert %(version)s")
def program() -> None:
    """LSTM weights of Keras files as named gates: look, convert, compare. Bit for bit."""


#: Start-up makes some hundred thousand objects that all live on: collecting in between is wasted.
_COLLECT_AFTER = 200_000


def main() -> NoReturn:
    """Run the command line."""
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open until exit
    try:
        program.main()
    except SystemExit as end:
        if isinstance(end.code, int) and _is_all_done():
            _leave(end.code)
        raise


def _is_all_done() -> bool:
    """Whether nothing is left to do at exit: no other thread, no profiler."""
    is_watched = sys.getprofile() is not None or sys.gettrace() is not None
    return threading.active_count() == 1 and not is_watched


def _leave(code: int) -> NoReturn:
    """End at once. Python's orderly end would take a tenth of a small conversion's time."""
    if "lstmconvert.bulk.server" in sys.modules:
        from lstmconvert.bulk import server

        server.end()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)

"""What the user sees when something fails: one line, one hint, an exit code; never a traceback.

`LSTMCONVERT_DEBUG=1` shows the traceback as well.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import click

from lstmconvert import errors
from lstmconvert.cli import INTERRUPTED, output

#: Exit codes: what was asked is done, or the things are equal; a finding; trouble.
DONE, FINDING, TROUBLE = 0, 1, 2
#: The exit code that shells report of a process that SIGPIPE ended.
PIPE_CLOSED = 141

DEBUG = "LSTMCONVERT_DEBUG"

_ASK_HELP = "--help shows how the command is used"
#: The next step, for errors that name none themselves; the first that fits.
_HINTS: tuple[tuple[type[BaseException], str], ...] = (
    (errors.UnknownLayer, "lstmconvert inspect lists the layers of a file"),
    (errors.UsageError, _ASK_HELP),
    (
        errors.NoLSTM,
        "is it the right file? A whole Keras model without an LSTM goes to .keras, .h5 and .onnx",
    ),
    (errors.NotAModel, "lstmconvert formats lists the kinds of files that are read"),
    (errors.CorruptFile, "save, copy or download the file again"),
    (errors.DestinationError, "choose another destination"),
    (errors.UnknownOption, "supply it with --config FILE or --set [LAYER.]OPTION=VALUE"),
    (errors.UnsupportedByTarget, "choose another target"),
    (errors.MissingPackage, "install it"),
    (errors.LSTMConvertError, "check what the file is, and its permissions"),
)


class NoSuchCommand(click.UsageError):
    """The first word is none of the commands. Before version 8.4 click has no such error.

    Fields beside those of click: `possibilities`, the commands that are spelled much like it.
    """

    def __init__(self, name: str, known: Iterable[str], context: click.Context) -> None:
        from difflib import get_close_matches  # only for the hint

        super().__init__(f"No such command {name!r}.", context)
        self.possibilities = get_close_matches(name, list(known))


def report(failure: BaseException) -> int:
    """Say what went wrong in one line and what to do next in another; return the exit code."""
    if isinstance(failure, (KeyboardInterrupt, click.Abort)):
        output.trace("lstmconvert: interrupted")
        return INTERRUPTED
    if isinstance(failure, click.UsageError):
        _usage(failure)
        return TROUBLE
    if os.environ.get(DEBUG):
        lines = "".join(traceback.format_exception(failure)).splitlines()
        for line in lines:
            output.trace(line)
    text, hint = _explained(failure)
    output.error(text, hint)
    return TROUBLE


def quiet() -> None:
    """Let h5py keep to itself that it cannot close what is left of a damaged file."""
    excepthook, unraisablehook = sys.excepthook, sys.unraisablehook

    def on_error(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if not _is_h5pys(trace):
            excepthook(kind, error, trace)

    def on_unraisable(unraisable: Any) -> None:
        if not _is_h5pys(unraisable.exc_traceback):
            unraisablehook(unraisable)

    sys.excepthook, sys.unraisablehook = on_error, on_unraisable


def _is_h5pys(trace: TracebackType | None) -> bool:
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith("h5py/")


def _explained(failure: BaseException) -> tuple[str, str]:
    match failure:
        case errors.LSTMConvertError():
            hint = failure.hint or next(text for kind, text in _HINTS if isinstance(failure, kind))
            return str(failure), hint
        case ModuleNotFoundError(name=str(package)):
            return f"the package {package} is not installed", f"pip install {package}"
        case MemoryError():
            return "not enough memory", "close other programs, or convert on a larger machine"
        case RecursionError():
            return "the file is nested too deeply", "is it a file that Keras saved?"
        case OSError():
            where = f"{failure.filename}: " if failure.filename else ""
            return (
                f"{where}{failure.strerror or failure}",
                "check the path, the disk and the permissions",
            )
        case click.ClickException():
            return failure.format_message(), _ASK_HELP
    return (
        f"a fault of lstmconvert itself: {type(failure).__name__}: {failure}",
        f"{DEBUG}=1 shows where; please report it together with the file",
    )


def _usage(failure: click.UsageError) -> None:
    command = failure.ctx.command_path if failure.ctx else "lstmconvert"
    if isinstance(failure, click.exceptions.NoArgsIsHelpError):
        click.echo(failure.ctx.get_help() if failure.ctx else "", err=True)
        return
    hint = f"{command} --help shows how it is used"
    close = getattr(failure, "possibilities", None)
    if isinstance(failure, click.NoSuchOption) and close:
        hint = f"did you mean {' or '.join(close)}?"
    elif isinstance(failure, click.NoSuchOption) and command == "lstmconvert":
        hint = f"options stand behind the command: lstmconvert inspect FILE {failure.option_name}"
    elif isinstance(failure, NoSuchCommand):
        hint = f"did you mean {' or '.join(close)}?" if close else hint
    kind = failure.param.type if isinstance(failure, click.BadParameter) and failure.param else None
    if isinstance(kind, click.Choice):
        hint = _close_choice(failure.message, kind) or hint
    message = getattr(failure, "message", str(failure)) if close else failure.format_message()
    if isinstance(failure, click.NoSuchOption):
        message = f"no such option {failure.option_name!r}"  # click's own differs by its version
    output.error(_lowered(message), hint)


def _close_choice(message: str, kind: click.Choice[str]) -> str | None:
    """Return the hint that names the choice which is spelled much like the value in a message."""
    quoted = re.match(r"'(.*?)' is not", message)
    return errors.close_to(quoted[1], map(str, kind.choices)) if quoted else None


def _lowered(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")

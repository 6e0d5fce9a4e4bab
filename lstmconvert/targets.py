"""Which kind of file a destination's name asks for."""

from __future__ import annotations

import functools
import operator
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from lstmconvert.containers import table
from lstmconvert.containers.table import Container
from lstmconvert.conversion import Options
from lstmconvert.errors import DestinationError, UsageError, close_to
from lstmconvert.model.model import PER_GATE

#: Options that may be given more than once: their flag names one of many.
_SINGULAR = frozenset({"layers", "stacks"})


def file_path(path: str | Path) -> Path:
    """Return a destination as a `Path`, which would forget a `/` at the end.

    Raises:
        DestinationError: it ends like a directory.
    """
    if isinstance(path, str) and path.endswith(("/", os.sep)) and not _is_folder_kind(path):
        raise DestinationError(
            "the destination is named as a directory, and a file is written",
            where=path,
            hint=f"leave out the {path[-1]} at its end",
        )
    return Path(path)


def _is_folder_kind(path: str | Path) -> bool:
    """Whether a name is that of a kind of model that is written as a folder."""
    rows = [row for row in table.written() if row.as_folder]
    return table.suffix_of(Path(path).name, rows) is not None


def in_folder(
    destination: str | Path, source: Path, layout: str | None, given: Mapping[str, object]
) -> Path:
    """Return the file that a destination names: of a folder, one in it that is named as the source.

    Its kind is the one that the layout and the options are for, as in `target_of`.

    Args:
        destination: a file, or a folder that is there.
        source: the file that is converted; its name counts.
        layout: how the gates are to be arranged, where the user says so.
        given: the options, by name.

    Raises:
        DestinationError: the folder does not exist, or is itself a model.
    """
    is_named_so = isinstance(destination, str) and destination.endswith(("/", os.sep))
    is_named_so = is_named_so and not _is_folder_kind(destination)
    path = destination if isinstance(destination, Path) else Path(destination)
    is_file = _written_suffix(_tail(path.name)) is not None and not is_named_so
    if is_file or not (is_named_so or path.is_dir()):
        return path
    if not path.is_dir():
        raise DestinationError(
            "the destination is named as a folder, and none is there",
            where=destination,
            hint=f"mkdir -p {shlex.quote(str(path))}, or leave out the / at its end",
        )
    from lstmconvert.containers.modules import Opened  # rarely needed: start-up is faster without

    model = table.recognised(Opened(path))
    if model is not None:
        raise DestinationError(
            f"the folder is {model.title}, and nothing is written into it",
            where=destination,
            hint="name a file, or a folder beside it",
        )
    name = source.resolve().name
    return path / renamed(name, _usual(layout, given).suffixes[0])


def _usual(layout: str | None, given: Mapping[str, object]) -> Container:
    """Return the kind of file that a layout and some options are for, the first in the table."""
    rows = table.written() if layout is None else table.holders(layout)
    rows = [row for row in rows if row.default is not None or layout is not None]
    asked = [name for name, value in given.items() if value and name in table.OPTIONS]
    return next((row for row in rows if all(map(row.takes, asked))), rows[0])


def renamed(place: str, suffix: str, *, keep_suffix: bool = False) -> str:
    """Return the place of what is made of a source.

    A suffix that says what kind of file the source is gives way to the new one. One that many
    other files have too (`.json`, `.npz`) stays, since `m.json` is often a note beside `m.h5`.

    Args:
        place: of the source, with `/`.
        suffix: of the destination.
        keep_suffix: let every source keep its suffix: `m.keras` becomes `m.keras.safetensors`.
    """
    folder, slash, name = place.rpartition("/")
    replaced = None if keep_suffix else _own_suffix(name)
    stem = name[: len(name) - len(replaced)] if replaced else name
    return f"{folder}{slash}{stem or name}{suffix}"


def _own_suffix(name: str) -> str | None:
    return _suffix_of(_tail(name))


def _tail(name: str) -> str:
    """Return what a name ends with, as far as a suffix goes: none has more than two points."""
    return "".join([f".{part}" for part in name.lower().split(".")[1:][-2:]])


@functools.lru_cache(4096)
def _suffix_of(tail: str) -> str | None:
    """Return what a suffix that gives way is, of a name that ends so."""
    rows = table.read()
    suffix = table.suffix_of(tail, rows)
    if suffix is None or all(row.ambiguous for row in rows if suffix in row.suffixes):
        return None
    return suffix


@functools.lru_cache(4096)
def _written_suffix(tail: str) -> str | None:
    """Return the suffix of a file that is written here, of a name that ends so."""
    return table.suffix_of(tail, table.written())


def target_of(path: Path, layout: str | None) -> Container:
    """Return the container that a destination's suffix and a layout, where it is given, name.

    Raises:
        UsageError: no container has that suffix, or not that layout.
    """
    suffix = _written_suffix(_tail(path.name))
    if suffix is None:
        raise _no_container(path)
    fitting = [row for row in table.written() if suffix in row.suffixes]
    if layout is None:
        for row in fitting:
            if row.default is not None:
                return row
        raise UsageError(
            f"{path.suffix} holds several layouts: name one with --to",
            where=path,
            expected=_layouts(fitting),
        )
    holders = _holders(layout)
    for row in holders:
        if row in fitting:
            return row
    known = ", ".join(" ".join(row.suffixes) for row in holders)
    raise UsageError(
        f"{fitting[0].name} does not hold the layout {layout}",
        where=path,
        expected=_layouts(fitting),
        hint=f"{layout} goes to {known}" if known else _unknown(layout),
    )


def check_options(how: Options, target: Container, destination: Path) -> None:
    """Raise `UsageError` for an option that means nothing for a target, or contradicts another."""
    layout = how.layout or target.default
    is_framework = not target.is_keras and layout != PER_GATE
    for (option, purpose), value in zip(table.OPTIONS.items(), _values(how), strict=True):
        if value and not target.takes(option):
            rows = [row for row in table.written() if row.takes(option)]
            suffixes = ", ".join(table.main_suffixes(rows))
            raise UsageError(f"{_flag(option)} is for {purpose} ({suffixes})", found=destination)
    for option in ("bare", "stacks"):
        if getattr(how, option) and not is_framework:
            raise UsageError(
                f"{_flag(option)} is for framework layouts (--to torch, flax, …)", found=destination
            )
    for option, others in _CONTRADICTIONS.items():
        for other in others if getattr(how, option, None) else ():
            if getattr(how, other, None):
                raise UsageError(f"{_flag(option)} and {_flag(other)} contradict each other")


#: Takes the values of the options of `table.OPTIONS`.
_values = operator.attrgetter(*table.OPTIONS)
#: Options that contradict each other.
_CONTRADICTIONS = {
    "with_other": ("lstm_only", "layers"),
    "with_optimizer": ("lstm_only", "layers", "no_compile"),
    "fold_batchnorm": ("lstm_only", "with_other"),
    "into": (
        *("lstm_only", "layers", "config", "dtype", "stacks", "bare", "whole"),
        *("with_other", "rescale_hard_sigmoid", "for_keras", "no_compile"),
    ),
    "keep_custom": ("lstm_only", "layers", "into"),
    "replace": ("lstm_only", "layers", "into"),
    "whole": ("lstm_only", "layers", "chain", "state_inputs", "length_input", "with_other"),
}


def _flag(option: str) -> str:
    """Return what the command line calls an option of `Request`."""
    text = option.replace("_", "-")
    return f"--{text.removesuffix('s') if option in _SINGULAR else text}"


def _no_container(path: Path) -> UsageError:
    name = path.name.lower()
    unwritten = [row for row in table.CONTAINERS if not row.written and row.suffixes]
    hints = [row.instead for row in unwritten if name.endswith(row.suffixes)]
    known = table.suffixes(table.written())
    suffix = path.suffix.lower()
    if not hints and suffix in table.ROADS:
        hints = [table.ROADS[suffix]]
    if not hints and not suffix:
        hints = [f"name one: {path.name}{known[0]}; or a folder that is there"]
    return UsageError(
        "the destination's suffix names no kind of file",
        where=path,
        found=path.suffix or "no suffix",
        expected=" ".join(known),
        hint=hints[0] if hints else close_to(suffix, known),
    )


def _holders(layout: str) -> list[Container]:
    from lstmconvert.layouts.rows import ROWS  # imported late to keep start-up fast

    is_known = layout in ROWS
    return [row for row in table.holders(layout) if is_known or layout in row.layouts]


def _layouts(rows: list[Container]) -> str:
    from lstmconvert.layouts.rows import ROWS  # imported late to keep start-up fast

    return ", ".join(dict.fromkeys(name for row in rows for name in table.layouts_of(row, ROWS)))


def _unknown(layout: str) -> str:
    from lstmconvert.layouts.rows import hint_for

    return hint_for(layout)

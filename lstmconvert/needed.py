"""Options without which a target would be written on a guess: they are known, or asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lstmconvert.errors import UnknownOption
from lstmconvert.layer import LSTMLayer
from lstmconvert.options import UNKNOWN


def check(
    layer: LSTMLayer, target: str, *, cell: Iterable[str], direction: Iterable[str]
) -> None:
    """Raise `UnknownOption` for options that no file said, or a merge mode.

    Args:
        layer: the layer.
        target: what needs them, for the message.
        cell, direction: names of the options.
    """
    missing: dict[str, None] = {}
    for _, one in layer.directions:
        missing.update(dict.fromkeys(_unknown(one.options, direction)))
        for part in one.lstm_cells:
            missing.update(dict.fromkeys(_unknown(part.options, cell)))
    if layer.backward is not None and layer.options.merge_mode is UNKNOWN:
        missing["merge_mode"] = None
    if missing:
        raise UnknownOption(
            f"the file does not say what {target} needs",
            where=layer.name,
            found=f"unknown: {', '.join(missing)}",
            hint="give the model's config with --config FILE, or each option with "
            f"--set {next(iter(missing))}=VALUE",
        )


def _unknown(options: object, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if getattr(options, name) is UNKNOWN)

"""`lstmconvert completion`: what a shell needs to complete our commands, options and values.

The values offered at the TAB key are read from the tables, and from the file named. Each function
takes click's context, and returns every value; `options.completed` leaves those that begin as the
word does. A file that cannot be read offers no names: completion never complains.
"""

from __future__ import annotations

from pathlib import Path

import click

from lstmconvert.cli import COMPLETE, options, output

SHELLS = ("bash", "zsh", "fish")


@options.command(
    "Print what makes the shell complete commands, options and values (layouts, dtypes, engines, "
    "the layers of the file on the line) at the TAB key. In ~/.bashrc: "
    'eval "$(lstmconvert completion bash)". In ~/.zshrc, after compinit: '
    'eval "$(lstmconvert completion zsh)". For fish: lstmconvert completion fish > '
    "~/.config/fish/completions/lstmconvert.fish",
    "completion bash",
    "completion fish > ~/.config/fish/completions/lstmconvert.fish",
)
@click.argument("shell", metavar="|".join(SHELLS), type=click.Choice(SHELLS))
def command(shell: str) -> None:
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    from lstmconvert.cli.main import program

    kind = dict(zip(SHELLS, (BashComplete, ZshComplete, FishComplete), strict=True))[shell]
    output.plain(kind(program, {}, "lstmconvert", COMPLETE).source())


def topics(context: click.Context) -> list[str]:
    """Return the topics of the guide."""
    del context
    from lstmconvert import guide

    return guide.topics()


def layouts(context: click.Context) -> list[str]:
    """Return the layouts that `--to` and `--from` take."""
    del context
    from lstmconvert.layouts.rows import ROWS
    from lstmconvert.model.model import PER_GATE

    return [PER_GATE, *ROWS]


def dtypes(context: click.Context) -> list[str]:
    """Return the dtypes that weights are cast to."""
    del context
    from lstmconvert.tensors.dtypes import FLOATS

    return list(FLOATS)


def integers(context: click.Context) -> list[str]:
    """Return the integers that C takes weights as."""
    del context
    from lstmconvert.tensors.quantized import LARGEST

    return list(LARGEST)


def engines(context: click.Context) -> list[str]:
    """Return the engines of `verify` that are installed here."""
    del context
    from lstmconvert.live.engines import ENGINES

    return [name for name, engine in ENGINES.items() if engine.installed]


def suffixes(context: click.Context) -> list[str]:
    """Return the suffixes of the files that are written."""
    del context
    from lstmconvert.containers import table

    return table.suffixes(table.written())


def layers(context: click.Context) -> list[str]:
    """Return the names of the LSTM layers of the file that is on the line."""
    from lstmconvert import api
    from lstmconvert.errors import LSTMConvertError

    named = [context.params.get(name) for name in ("source", "a")]
    # While an option lacks its value, click does not look at arguments: they are left over.
    paths = [Path(value) for value in (*named, *context.args) if value is not None]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return []
    try:
        return list(api.load(path))
    except (LSTMConvertError, OSError):
        return []


def settings(context: click.Context) -> list[str]:
    """Return the options that `--set` takes, each with its `=`."""
    del context
    from lstmconvert.model.settings import NAMES

    return [f"{name}=" for name in NAMES]

"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


def command(doc: str, *examples: str) -> Callable[[F], click.Command]:
    """Make a function a command whose help is `doc` and ends with examples."""
    lines = "\n".join(f"  lstmconvert {example}" for example in examples)
    return click.command(
        help=doc,
        epilog=f"\b\nExamples:\n{lines}",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

"""What the user puts in a layer's place: `--replace`.

`LAYER=FILE.json` names the config of a layer of Keras. `LAYER=EXPRESSION` says what a Lambda
computes, since its code is in the file as bytes of one Python version, and is never run.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from lstmconvert.errors import UsageError, close_to
from lstmconvert.files.jsontext import JsonObject, parse_object
from lstmconvert.files.opening import whole_text
from lstmconvert.tensors.tensor import SourceFile

_FORMS = "LAYER=FILE.json, or LAYER=EXPRESSION for a Lambda"
#: No expression that a person writes is longer.
_LONGEST = 2000


class Expression(NamedTuple):
    """What a Lambda computes: its text, and that text as Python's grammar parses it."""

    text: str
    tree: ast.expr


class Replacements(NamedTuple):
    """What takes the place of layers.

    Fields: `by_name`: the layer's name -> an expression, or the serialized layer that is put in
    its place; `taken`: the names that were asked for.
    """

    by_name: dict[str, Expression | JsonObject]
    taken: set[str]

    def of(self, name: str) -> Expression | JsonObject | None:
        """Return what takes the place of a layer, if anything does."""
        if name in self.by_name:
            self.taken.add(name)
        return self.by_name.get(name)

    def check(self, names: Collection[str]) -> None:
        """Check that every layer that has something in its place is there.

        Args:
            names: of the model's layers.

        Raises:
            UsageError: one is not.
        """
        for name in self.by_name:
            if name not in names:
                raise UsageError(
                    "--replace: the model has no such layer",
                    found=name,
                    expected=", ".join(list(names)[:20]),
                    hint=close_to(name, names),
                )


def read(texts: Iterable[str]) -> Replacements | None:
    """Read `--replace`; None where nothing is to be replaced.

    Raises:
        UsageError: a text has another form, or names a file that is not a layer's config.
    """
    by_name: dict[str, Expression | JsonObject] = {}
    for text in texts:
        name, equals, new = (part.strip() for part in text.partition("="))
        if not name or not equals or not new:
            raise UsageError("--replace: not a layer and what replaces it", found=text,
                             expected=_FORMS)
        if name in by_name:
            raise UsageError("--replace: the same layer twice", found=name)
        by_name[name] = _file(Path(new)) if new.lower().endswith(".json") else expression(new)
    return Replacements(by_name, set()) if by_name else None


def _file(path: Path) -> JsonObject:
    try:
        source = SourceFile(path)
    except OSError as error:
        raise UsageError("--replace: the file cannot be read", where=path,
                         found=error.strerror or str(error)) from None
    value = parse_object(whole_text(source), path)
    if not isinstance(value.get("class_name"), str) or not isinstance(value.get("config"), dict):
        raise UsageError(
            "--replace: not the config of a layer",
            where=path,
            found=f"keys {', '.join(list(value)[:6]) or 'none'}",
            expected='{"class_name": …, "config": {…}}, as keras.layers.serialize gives it',
        )
    return value


def expression(text: str) -> Expression:
    """Parse an expression. Its names and values are looked at when it is written.

    Raises:
        UsageError: it is not one of Python's grammar.
    """
    if len(text) > _LONGEST:
        raise UsageError("--replace: the expression is too long", found=f"{len(text)} characters",
                         expected=f"at most {_LONGEST}")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(
            "--replace: not an expression",
            found=text,
            expected=_FORMS,
            hint=f"{getattr(error, 'msg', None) or error}; a file's name ends with .json",
        ) from None
    return Expression(text, tree.body)

"""What a comparison found, as plain records that print as one JSON object.

{"version": 1, "equal", "a", "b", "weights_only",
 "layers": [{"equal", "a", "b", "paired_by", "compared",
             "tensors": [{"name", "reason", "a", "b", "first", "count", "size", "max_ulp"}],
             "options": [{"where", "option", "a", "b", "unknown_in"}],
             "unknown": [likewise]}],
 "only_in_a": […], "only_in_b": […],
 "other": {"equal", "compared", "tensors": […], "renamed": [[a, b]], "only_in_a", "only_in_b"}}
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lstmconvert.bitdiff import TensorDiff
from lstmconvert.jsontext import JsonObject
from lstmconvert.records import dataclass

VERSION = 1
BY_NAME, BY_SHAPE = "name", "order and shape"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionDiff:
    """An option that the two sides say differently, or that one does not say.

    Fields: `where`: the layer, with direction and cell (`both.backward`); `option`; `a` and `b`, as
    JSON values (unknown is None); `unknown_in`: `a` or `b`, if one of them does not say it.
    """

    where: str
    option: str
    a: Any
    b: Any
    unknown_in: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDiff:
    """Two paired layers.

    Fields: `a` and `b`, their names; `paired_by`: `name`, or `order and shape`; `compared`: how
    many tensors were; `tensors` and `options`, those that differ; `unknown`: options that only one
    side says.
    """

    a: str
    b: str
    paired_by: str
    compared: int
    tensors: tuple[TensorDiff, ...]
    options: tuple[OptionDiff, ...]
    unknown: tuple[OptionDiff, ...]

    def __bool__(self) -> bool:
        """Whether the layers are equal."""
        return not self.tensors and not self.options


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherDiff:
    """The tensors that belong to no LSTM layer, and asset files.

    Fields: `compared`; `tensors`, those that differ; `renamed`: pairs that have different names in
    the two files, and were paired by layer, order and shape; `only_in_a`, `only_in_b`: names.
    """

    compared: int = 0
    tensors: tuple[TensorDiff, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    only_in_a: tuple[str, ...] = ()
    only_in_b: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether they are equal."""
        return not self.tensors and not self.only_in_a and not self.only_in_b


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `diff` found. True when the two are equal.

    Fields: `a` and `b`, the names of the two; `weights_only`; `layers`, the pairs; `only_in_a` and
    `only_in_b`: layers without a counterpart; `other`: None if `weights_only`.
    """

    a: str
    b: str
    weights_only: bool
    layers: tuple[LayerDiff, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    other: OtherDiff | None

    def __bool__(self) -> bool:
        """Whether the two are equal."""
        is_complete = not self.only_in_a and not self.only_in_b
        return is_complete and all(self.layers) and (self.other is None or bool(self.other))

    def to_json(self) -> JsonObject:
        """Return the report as one JSON object: its fields by name, and `equal` for each part."""
        return {
            "version": VERSION,
            "equal": bool(self),
            "a": self.a,
            "b": self.b,
            "weights_only": self.weights_only,
            "layers": [{"equal": bool(layer), **_json(layer)} for layer in self.layers],
            "only_in_a": list(self.only_in_a),
            "only_in_b": list(self.only_in_b),
            "other": (
                None if self.other is None else {"equal": bool(self.other), **_json(self.other)}
            ),
        }


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _json(getattr(value, field.name)) for field in fields(value)}
    return value

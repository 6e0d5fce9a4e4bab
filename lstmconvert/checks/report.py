"""The result of a comparison: plain records that print as text, or as one JSON object.

{"version": 1, "equal", "a", "b", "weights_only",
 "layers": [{"equal", "a", "b", "paired_by", "compared",
             "tensors": [{"name", "reason", "a", "b", "first", "count", "size", "max_ulp",
                          "max_abs"}],
             "options": [{"where", "option", "a", "b", "unknown_in"}],
             "unknown": [likewise]}],
 "only_in_a": […], "only_in_b": […],
 "other": {"equal", "compared", "tensors": […], "renamed": [[a, b]], "only_in_a", "only_in_b"}}

`rtol` and `atol` are there too, where they were given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lstmconvert.checks import words
from lstmconvert.checks.bitdiff import TensorDiff, Within
from lstmconvert.checks.page import Page, Printed
from lstmconvert.errors import counted
from lstmconvert.files.jsontext import JsonObject

VERSION = 1
BY_NAME, BY_SHAPE = "name", "order and shape"
#: How many tensors and names are printed of each kind.
_ROWS = 20


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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Report(Printed):
    """What `diff` found. True when the two are equal. It prints as `lstmconvert diff` does.

    Fields: `a` and `b`, the names of the two; `weights_only`; `within`: how much numbers were
    allowed to be, None: not in a bit; `layers`, the pairs; `only_in_a` and `only_in_b`: layers
    without a counterpart; `other`: None if `weights_only`.
    """

    a: str
    b: str
    weights_only: bool
    layers: tuple[LayerDiff, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    other: OtherDiff | None
    within: Within | None = None

    def __repr__(self) -> str:
        return f"Report({self.a}, {self.b}: {'equal' if self else 'different'})"

    def __bool__(self) -> bool:
        """Whether the two are equal."""
        is_complete = not self.only_in_a and not self.only_in_b
        return is_complete and all(self.layers) and (self.other is None or bool(self.other))

    def show(self, page: Page) -> None:
        """Write the report to a page: every difference, and a last line that sums it up."""
        for layer in self.layers:
            if layer.paired_by == BY_SHAPE:
                page.note(f"{layer.a} is compared with {layer.b}: paired by order and shape")
            if not layer:
                _layer(page, layer)
        for side, names in (("A", self.only_in_a), ("B", self.only_in_b)):
            for name in names:
                page.line(f"layer {name}: only in {side}")
        if self.other is not None:
            _other(page, self.other)
        _unknown(page, self.layers)
        page.line(_summary(self), bold=True)

    def to_json(self) -> JsonObject:
        """Return the report as one JSON object: its fields by name, and `equal` for each part."""
        return {
            "version": VERSION,
            "equal": bool(self),
            "a": self.a,
            "b": self.b,
            "weights_only": self.weights_only,
            **(self.within._asdict() if self.within else {}),
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


def _layer(page: Page, layer: LayerDiff) -> None:
    counts = []
    if layer.tensors:
        counts.append(f"{len(layer.tensors):,} of {counted(layer.compared, 'tensor')}")
    if layer.options:
        counts.append(counted(len(layer.options), "option"))
    page.line(f"layer {layer.a} differs: {', '.join(counts)}", bold=True)
    _tensors(page, layer.tensors, f"{layer.a}.")
    if layer.options:
        rows = [
            (f"{o.where}.{o.option}".removeprefix(f"{layer.a}."), _option(o.a), _option(o.b))
            for o in layer.options
        ]
        page.table(rows, header=("option", "A", "B"))
    page.line()


def _tensors(page: Page, diffs: Sequence[TensorDiff], prefix: str = "") -> None:
    if not diffs:
        return
    rows = [_row(diff, diff.name.removeprefix(prefix)) for diff in diffs[:_ROWS]]
    page.table(rows, header=("tensor", "differ", "first at", "A", "B", "max abs", "max ULP"))
    if len(diffs) > _ROWS:
        page.line(f"… and {len(diffs) - _ROWS:,} more: --json lists them all", indent=2)


def _row(diff: TensorDiff, name: str) -> tuple[str, ...]:
    if diff.reason == "values":
        ulp = "" if diff.max_ulp is None else _short(diff.max_ulp)
        first = f"[{', '.join(map(str, diff.first or ()))}]"
        distance = "" if diff.max_abs is None else f"{diff.max_abs:.2g}"
        return name, f"{diff.count}/{diff.size}", first, str(diff.a), str(diff.b), distance, ulp
    if diff.reason in ("shape", "missing"):
        sides = ["none" if x is None else words.shape(tuple(x)) for x in (diff.a, diff.b)]
        return name, diff.reason, "", *sides, "", ""
    return name, diff.reason, "", str(diff.a), str(diff.b), "", ""


def _short(distance: int) -> str:
    """Past some hundred thousand only the size counts."""
    return f"{distance:,}" if distance < 1_000_000 else f"{distance:.1e}"


def _option(value: Any) -> str:
    match value:
        case {"class_name": str(name), "config": dict() as config}:
            return f"{name}({_constants(config)})"
        case {"name": str(name), **constants}:
            return f"{name}({_constants(constants)})" if constants else name
    return str(value)


def _constants(values: Mapping[Any, Any]) -> str:
    return ", ".join(
        f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()
    )


def _other(page: Page, other: OtherDiff) -> None:
    if other.renamed:
        page.note(
            f"{counted(len(other.renamed), 'other tensor')} named otherwise in B: paired by layer, "
            "order and shape"
        )
    if other:
        return
    page.line("other tensors", bold=True)
    _tensors(page, other.tensors)
    for side, names in (("A", other.only_in_a), ("B", other.only_in_b)):
        for name in names[:_ROWS]:
            page.line(f"{name}: only in {side}", indent=2)
        if len(names) > _ROWS:
            page.line(f"… and {len(names) - _ROWS:,} more only in {side}", indent=2)
    page.line()


def _unknown(page: Page, layers: Sequence[LayerDiff]) -> None:
    for side in ("a", "b"):
        unknown = [o.option for layer in layers for o in layer.unknown if o.unknown_in == side]
        names = list(dict.fromkeys(unknown))
        if names:
            more = f" and {counted(len(names) - 4, 'other option')}" if len(names) > 5 else ""
            shown = ", ".join(names[:4] if more else names)
            page.note(f"not compared, because {side.upper()} does not say it: {shown}{more}")


def _summary(report: Report) -> str:
    layers = counted(len(report.layers), "layer")
    if not report:
        return f"different: {', '.join(_findings(report))}"
    tensors = counted(sum(layer.compared for layer in report.layers), "tensor")
    how = "bit for bit"
    if report.within is not None:
        how = f"within {report.within.atol:g} + {report.within.rtol:g}·|B|"
    equal = f"equal: {tensors} of {layers}, {how}"
    if report.other is None:
        return f"{equal} (options and other tensors not compared)"
    others = counted(report.other.compared, "other tensor")
    return f"{equal}; every option that both say; {others}"


def _findings(report: Report) -> Iterator[str]:
    weights = sum(bool(layer.tensors) for layer in report.layers)
    options = sum(bool(layer.options) for layer in report.layers)
    alone = len(report.only_in_a) + len(report.only_in_b)
    if weights:
        yield f"weights of {counted(weights, 'layer')}"
    if options:
        yield f"options of {counted(options, 'layer')}"
    if alone:
        yield f"{counted(alone, 'layer')} on one side only"
    if report.other is not None and not report.other:
        yield "other tensors"

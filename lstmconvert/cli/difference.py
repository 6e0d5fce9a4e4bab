"""A comparison's report for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lstmconvert.bitdiff import TensorDiff
from lstmconvert.cli import output, shapes
from lstmconvert.cli.shapes import counted
from lstmconvert.report import BY_SHAPE, LayerDiff, OtherDiff, Report

_ROWS = 20


def show(report: Report) -> None:
    """Print a report: every difference, and a last line that sums it up."""
    for layer in report.layers:
        if layer.paired_by == BY_SHAPE:
            output.note(f"{layer.a} is compared with {layer.b}: paired by order and shape")
        if not layer:
            _layer(layer)
    for side, names in (("A", report.only_in_a), ("B", report.only_in_b)):
        for name in names:
            output.line(f"layer {name}: only in {side}")
    if report.other is not None:
        _other(report.other)
    _unknown(report.layers)
    output.line(_summary(report), bold=True)


def _layer(layer: LayerDiff) -> None:
    counts = []
    if layer.tensors:
        counts.append(f"{len(layer.tensors):,} of {counted(layer.compared, 'tensor')}")
    if layer.options:
        counts.append(counted(len(layer.options), "option"))
    output.line(f"layer {layer.a} differs: {', '.join(counts)}", bold=True)
    _tensors(layer.tensors, f"{layer.a}.")
    if layer.options:
        rows = [
            (f"{o.where}.{o.option}".removeprefix(f"{layer.a}."), _option(o.a), _option(o.b))
            for o in layer.options
        ]
        output.table(rows, header=("option", "A", "B"))
    output.line()


def _tensors(found: Sequence[TensorDiff], prefix: str = "") -> None:
    if not found:
        return
    rows = [_row(diff, diff.name.removeprefix(prefix)) for diff in found[:_ROWS]]
    output.table(rows, header=("tensor", "differ", "first at", "A", "B", "max ULP"))
    if len(found) > _ROWS:
        output.line(f"… and {len(found) - _ROWS:,} more: --json lists them all", indent=2)


def _row(diff: TensorDiff, name: str) -> tuple[str, ...]:
    if diff.reason == "values":
        ulp = "" if diff.max_ulp is None else _short(diff.max_ulp)
        first = f"[{', '.join(map(str, diff.first or ()))}]"
        return name, f"{diff.count}/{diff.size}", first, str(diff.a), str(diff.b), ulp
    if diff.reason in ("shape", "missing"):
        sides = ["none" if x is None else shapes.shape(tuple(x)) for x in (diff.a, diff.b)]
        return name, diff.reason, "", *sides, ""
    return name, diff.reason, "", str(diff.a), str(diff.b), ""


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


def _other(other: OtherDiff) -> None:
    if other.renamed:
        output.note(
            f"{counted(len(other.renamed), 'other tensor')} named otherwise in B: paired by layer, "
            "order and shape"
        )
    if other:
        return
    output.line("other tensors", bold=True)
    _tensors(other.tensors)
    for side, names in (("A", other.only_in_a), ("B", other.only_in_b)):
        for name in names[:_ROWS]:
            output.line(f"{name}: only in {side}", indent=2)
        if len(names) > _ROWS:
            output.line(f"… and {len(names) - _ROWS:,} more only in {side}", indent=2)
    output.line()


def _unknown(layers: Sequence[LayerDiff]) -> None:
    for side in ("a", "b"):
        found = [o.option for layer in layers for o in layer.unknown if o.unknown_in == side]
        names = list(dict.fromkeys(found))
        if names:
            more = f" and {counted(len(names) - 4, 'other option')}" if len(names) > 5 else ""
            shown = ", ".join(names[:4] if more else names)
            output.note(f"not compared, because {side.upper()} does not say it: {shown}{more}")


def _summary(report: Report) -> str:
    layers = counted(len(report.layers), "layer")
    if not report:
        return f"different: {', '.join(_findings(report))}"
    tensors = counted(sum(layer.compared for layer in report.layers), "tensor")
    equal = f"equal: {tensors} of {layers}, bit for bit"
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

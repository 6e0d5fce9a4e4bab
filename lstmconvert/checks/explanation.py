"""`convert --explain`: what a conversion would do, as a table, before anything is written.

Where a target cannot express a model, `point_out` names those that take it as it is. Each is tried
as `convert --dry-run` tries it: by the rows of the tables, and on the layers as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from lstmconvert import api
from lstmconvert.checks.page import Printed, ReportPage
from lstmconvert.containers import table
from lstmconvert.conversion import ASSUMED, DEFAULTED, ConvertOptions, Result
from lstmconvert.errors import LSTMConvertError, UnsupportedByTarget, counted
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model import edit
from lstmconvert.model.model import PER_GATE, Model
from lstmconvert.model.neighbours import weights_by_layer

VERSION = 1
WRITTEN, KEPT, CHANGED, LEFT_OUT, ASSUMPTION, NOTE = (
    "written",
    "kept",
    "changed",
    "left out",
    "assumed",
    "note",
)
#: The most other layers that are named one by one.
_NAMED = 12


class ExplainedLine(NamedTuple):
    """One row: what would become of what.

    Fields: `fate`: one of the constants above; `what`: a file, a layer, or all of something;
    `how`: in words.
    """

    fate: str
    what: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Printed):
    """What a conversion would do. It prints as `convert --explain` does.

    Fields: `lines`; `result`: what the conversion would return.
    """

    lines: tuple[ExplainedLine, ...]
    result: Result

    def to_json(self) -> JsonObject:
        """Return all lines, and the result, as one JSON object."""
        return {
            "version": VERSION,
            "lines": [line._asdict() for line in self.lines],
            "result": self.result.to_json(),
        }

    def show(self, page: ReportPage) -> None:
        """Write the table to a page."""
        page.line(f"{self.result.place}: nothing is written yet", bold=True)
        page.line()
        page.table(self.lines)


def explain(
    source: str | Path, destination: str | Path, **options: Unpack[ConvertOptions]
) -> Explanation:
    """Tell what `convert` would do. Its errors are those of `convert`.

    Args:
        source, destination, options: those of `lstmconvert.convert`. A destination that exists is
            named in a note.
    """
    is_replaced = not options.get("force") and Path(destination).is_file()
    options |= {"force": True, "dry_run": True}
    model, result = api.converted(Path(source), destination, **options)
    lines = list(_lines(model, result))
    if is_replaced:
        lines.append(ExplainedLine(NOTE, result.destination.name, "is there: --force replaces it"))
    return Explanation(lines=tuple(lines), result=result)


def _lines(model: Model, result: Result) -> Iterator[ExplainedLine]:
    title = table.title_of(result.container)
    tensors = counted(result.tensors, "tensor")
    extent = f"layout {result.layout}, {tensors}{result.extent}"
    yield ExplainedLine(WRITTEN, result.destination.name, f"{title}, {extent}")
    for name in result.layers:
        yield _kept(model, name, result)
    yield from _options(model, result)
    yield from _others(model, result)
    for text in result.losses:
        yield ExplainedLine(CHANGED, *_parted(text))
    for layer in result.left_out:
        yield ExplainedLine(LEFT_OUT, layer.name, counted(layer.parameters, "parameter"))
    for text in result.warnings:
        if text not in result.losses:
            is_assumed = ASSUMED in text or text.startswith(DEFAULTED)
            yield ExplainedLine(ASSUMPTION if is_assumed else NOTE, *_parted(text))
    if result.compiled is not None and result.compiled.text:
        yield ExplainedLine(KEPT, "compile state", ", ".join(result.compiled.carried))
    if result.opens is not None:
        yield ExplainedLine(NOTE, result.destination.name, result.opens.text)
    if result.custom_objects:
        yield ExplainedLine(NOTE, result.destination.name, result.to_be_given)


def _kept(model: Model, name: str, result: Result) -> ExplainedLine:
    layer = model.get(name)
    if layer is None:  # several layers became one, which has a name of its own
        return ExplainedLine(KEPT, name, "the weights of the layers that it is made of")
    is_changed = any(text.startswith(f"{name}: ") for text in result.losses)
    how = "except for what is changed below" if is_changed else "bit for bit"
    return ExplainedLine(KEPT, name, f"{counted(layer.parameters, 'parameter')}, {how}")


def _options(model: Model, result: Result) -> Iterator[ExplainedLine]:
    row = table.container(result.container)
    if row is None:
        return
    if not row.is_keras and row.metadata:
        yield ExplainedLine(
            KEPT, "options", "every one that the source says, in the file's metadata"
        )
    elif row.document or (row.is_keras and (result.whole_model or row.name == "keras")):
        yield ExplainedLine(KEPT, "options", "those that the target has, in the file's config")
    else:
        yield ExplainedLine(LEFT_OUT, "options", "the file holds weights alone")
    if model.optimizer:
        yield ExplainedLine(
            LEFT_OUT, "optimizer", f"{counted(len(model.optimizer), 'tensor')}: --with-optimizer"
        )


def _others(model: Model, result: Result) -> Iterator[ExplainedLine]:
    gone = {layer.name for layer in result.left_out}
    others = weights_by_layer(model.other, model.source.structure)
    kept = [(name, size) for name, size in others.items() if name not in gone]
    for name, size in kept[:_NAMED]:
        yield ExplainedLine(KEPT, name, f"{counted(size, 'parameter')}, bit for bit")
    rest = kept[_NAMED:]
    if rest:
        total = sum(size for _, size in rest)
        yield ExplainedLine(KEPT, f"{len(rest):,} more layers", counted(total, "parameter"))


def _parted(text: str) -> tuple[str, str]:
    """Split `lstm: a sentence` into the layer and the sentence."""
    name, colon, rest = text.partition(": ")
    return (name, rest) if colon and " " not in name else ("", text)


#: The most that a hint names.
_ROADS_NAMED = 8
#: Options of `convert` that say what is read, and not how it is written.
_READING = ("from_layout", "config", "settings", "layers")


def roads(model: Model) -> list[str]:
    """Return the layouts that take every LSTM layer of a model without a loss, and `.onnx`."""
    names = [name for name in (PER_GATE, *ROWS) if _is_road(model, name)]
    return [*names, *([".onnx"] if _is_road(model, None, ".onnx") else [])]


def _is_road(model: Model, layout: str | None, suffix: str | None = None) -> bool:
    holders = [] if layout is None else table.holders(layout)
    # A general container has no wishes of its own: what remains is what the framework can hold.
    holders.sort(key=lambda row: not row.general)
    path = Path(f"x{suffix or holders[0].suffixes[0]}")
    try:
        result = api.save(model, path, warn=False, layout=layout, lstm_only=True, dry_run=True)
    except LSTMConvertError:
        return False
    return not result.losses


def point_out(error: UnsupportedByTarget, source: Path, **options: Any) -> None:
    """Add to the hint of a refusal which roads there are.

    Args:
        error: the refusal, whose hint is changed.
        source: the file that was to be converted.
        options: those of `convert`.
    """
    reading = {name: options.get(name) for name in _READING}
    try:
        model = api.load(
            source,
            layout=reading["from_layout"],
            config=reading["config"],
            settings=reading["settings"] or (),
        )
        chosen = edit.only_layers(model, reading["layers"]) if reading["layers"] else model
        names = roads(chosen)
    except LSTMConvertError:
        return
    if not names:
        return
    rest = len(names) - _ROADS_NAMED
    listed = ", ".join(names[:_ROADS_NAMED]) + (f" and {rest} more" if rest > 0 else "")
    hint = f"; {error.hint}" if error.hint else ""
    error.hint = f"these take it as it is: {listed}{hint}"

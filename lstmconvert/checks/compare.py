"""Whether two models are the same: weights bit for bit, options, other tensors.

Layers are paired by name, and those left over by order and shape, which the report says. Weights
are streamed, so that files of any size are compared in a few megabytes. An option that one side
does not say is listed, and is not a difference. Optimizer slots are not compared.

The result is plain records that print as text, or as one JSON object:

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

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain, tee, zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

from lstmconvert import api
from lstmconvert.checks import words
from lstmconvert.checks.bitdiff import Compared, TensorDiff, Within, compare_all
from lstmconvert.checks.page import Printed, ReportPage
from lstmconvert.errors import counted
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.keras.configs.spelling import of_object
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.model.layer import (
    CELL_PARTS,
    GATE_PARTS,
    Cell,
    FusedGates,
    LSTMLayer,
    OpaqueCell,
)
from lstmconvert.model.model import Model
from lstmconvert.model.naming import prefix
from lstmconvert.model.options import (
    UNKNOWN,
    CellOptions,
    DirectionOptions,
    LayerOptions,
    value_to_json,
)
from lstmconvert.tensors import progress
from lstmconvert.tensors.tensor import SideBySide, Tensor
from lstmconvert.tensors.views import whole

# -- the result ----------------------------------------------------------------------------------


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
class DiffReport(Printed):
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

    def show(self, page: ReportPage) -> None:
        """Write the report to a page: every difference, and a last line that sums it up."""
        for layer in self.layers:
            if layer.paired_by == BY_SHAPE:
                page.note(f"{layer.a} is compared with {layer.b}: paired by order and shape")
            if not layer:
                _show_layer(page, layer)
        for side, names in (("A", self.only_in_a), ("B", self.only_in_b)):
            for name in names:
                page.line(f"layer {name}: only in {side}")
        if self.other is not None:
            _show_other(page, self.other)
        _unknown(page, self.layers)
        page.line(_summary(self), bold=True)

    def to_json(self) -> JsonObject:
        """Return the report as one JSON object: its fields by name, and `equal` for each part."""
        facts = self.streamed()
        return {**facts, "layers": list(facts["layers"])}

    def streamed(self) -> JsonObject:
        """Return what `to_json` does, with an iterator for the layers, of which there may be
        thousands."""
        return {
            "version": VERSION,
            "equal": bool(self),
            "a": self.a,
            "b": self.b,
            "weights_only": self.weights_only,
            **(self.within._asdict() if self.within else {}),
            "layers": ({"equal": bool(layer), **_json(layer)} for layer in self.layers),
            "only_in_a": list(self.only_in_a),
            "only_in_b": list(self.only_in_b),
            "other": (
                None if self.other is None else {"equal": bool(self.other), **_json(self.other)}
            ),
        }


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    names = _FIELDS.get(type(value))
    if names is None:
        return value
    return {name: _json(getattr(value, name)) for name in names}


#: The names of the fields of the records that reports of thousands of layers are made of.
_FIELDS = {
    kind: tuple([field.name for field in fields(kind)])
    for kind in (TensorDiff, OptionDiff, LayerDiff, OtherDiff)
}


def _show_layer(page: ReportPage, layer: LayerDiff) -> None:
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


def _tensors(page: ReportPage, diffs: Sequence[TensorDiff], prefix: str = "") -> None:
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


def _show_other(page: ReportPage, other: OtherDiff) -> None:
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


def _unknown(page: ReportPage, layers: Sequence[LayerDiff]) -> None:
    for side in ("a", "b"):
        unknown = [o.option for layer in layers for o in layer.unknown if o.unknown_in == side]
        names = list(dict.fromkeys(unknown))
        if names:
            more = f" and {counted(len(names) - 4, 'other option')}" if len(names) > 5 else ""
            shown = ", ".join(names[:4] if more else names)
            page.note(f"not compared, because {side.upper()} does not say it: {shown}{more}")


def _summary(report: DiffReport) -> str:
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


def _findings(report: DiffReport) -> Iterator[str]:
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


# -- the comparison ------------------------------------------------------------------------------


T = TypeVar("T")


def diff(
    a: str | Path | Model,
    b: str | Path | Model,
    *,
    weights_only: bool = False,
    rtol: float | None = None,
    atol: float | None = None,
) -> DiffReport:
    """Compare two models: weights bit for bit, options by what they mean.

    Args:
        a, b: paths, or models.
        weights_only: compare the weights of the LSTM layers alone: no options, no other tensors.
        rtol, atol: numbers count as equal where |x - y| <= atol + rtol * |y|, whatever their
            dtypes; one alone makes the other zero. By default every bit counts.

    Returns:
        a report, which is true when the two are equal.

    Raises:
        SourceError: a file cannot be read.

    >>> bool(diff("fixtures/keras-3.15.1/seed95.keras", "fixtures/keras-3.15.1/seed95.h5"))
    True
    """
    model_a, model_b = _model(a), _model(b)
    within = None if rtol is None and atol is None else Within(rtol or 0.0, atol or 0.0)
    pairs, only_a, only_b = paired(model_a.layers, model_b.layers)
    if progress.is_watched():
        progress.expect(model_a.nbytes)
    report = DiffReport(
        a=_name(a),
        b=_name(b),
        weights_only=weights_only,
        layers=tuple(_layers(pairs, weights_only, within)),
        within=within,
        only_in_a=tuple(layer.name for layer in only_a),
        only_in_b=tuple(layer.name for layer in only_b),
        other=None if weights_only else _other(model_a, model_b, within),
    )
    model_a.source.check()
    model_b.source.check()
    return report


def _model(value: str | Path | Model) -> Model:
    """Return a model; of one that is opened here, without its texts, of which nothing is compared:
    those of the first would take memory while the second is opened."""
    return value if isinstance(value, Model) else replace(api.load(value), texts={})


def _name(value: str | Path | Model) -> str:
    return value.source.container if isinstance(value, Model) else Path(value).resolve().name


Pair = tuple[LSTMLayer, LSTMLayer, str]


def paired(
    a: Sequence[LSTMLayer], b: Sequence[LSTMLayer]
) -> tuple[list[Pair], list[LSTMLayer], list[LSTMLayer]]:
    """Return the pairs in the order of `a`, and the layers that only `a` and only `b` have."""
    by_name = {layer.name: layer for layer in b}
    pairs = [(x, by_name[x.name], BY_NAME) for x in a if x.name in by_name]
    taken = {x.name for x, _, _ in pairs}
    rest = _Waiting((_signature(y), y) for y in b if y.name not in taken)
    only_a = []
    for layer in (x for x in a if x.name not in taken):
        partner = rest.take(_signature(layer))
        if partner is None:
            only_a.append(layer)
        else:
            pairs.append((layer, partner, BY_SHAPE))
    place = {layer.name: index for index, layer in enumerate(a)}
    return sorted(pairs, key=lambda pair: place[pair[0].name]), only_a, rest.left()


class _Waiting(Generic[T]):
    """Things in their order, taken one by one by their signature."""

    def __init__(self, items: Iterable[tuple[Hashable, T]]) -> None:
        self._by_kind: dict[Hashable, dict[int, T]] = {}
        for place, (kind, item) in enumerate(items):
            self._by_kind.setdefault(kind, {})[place] = item

    def take(self, kind: Hashable) -> T | None:
        """Take out the first of a kind, or None."""
        same = self._by_kind.get(kind)
        return same.pop(next(iter(same))) if same else None

    def left(self) -> list[T]:
        """Return what nobody took, in order."""
        return [item for _, item in sorted(self._all(), key=itemgetter(0))]

    def _all(self) -> Iterator[tuple[int, T]]:
        for same in self._by_kind.values():
            yield from same.items()


#: Biases are not a mark of a layer: two may have been summed.
_KERNELS = ("kernel", "recurrent_kernel")


def _signature(layer: LSTMLayer) -> Hashable:
    return tuple(
        (side, index, tuple((p, cell.fused_shape(p)) for p in _KERNELS if p in cell.gate_parts))
        for side, index, cell in layer.cells()
    )


def _layers(
    pairs: Sequence[Pair], weights_only: bool, within: Within | None
) -> Iterator[LayerDiff]:
    """Yield what each pair differs in. The tensors of many layers are compared at once: what comes
    before the layer that is yielded waits for it."""
    ahead, behind = tee((pair, places, _items(pair[0], places)) for pair, places in _placed(pairs))
    asked = (item for *_, items in ahead for item in items if isinstance(item, Compared))
    differences = compare_all(asked, within)
    for (a, b, how), places, items in behind:
        tensors: list[TensorDiff] = []
        for item in items:
            if isinstance(item, Compared):
                tensors += next(differences)
            else:
                tensors.append(item)
        options = [] if weights_only else _option_diffs(a, b, places)
        yield LayerDiff(
            a=a.name,
            b=b.name,
            paired_by=how,
            compared=sum([cell.count for _, _, cell, _ in places if isinstance(cell, Cell)]),
            tensors=tuple(tensors),
            options=tuple([option for option in options if option.unknown_in is None]),
            unknown=tuple([option for option in options if option.unknown_in is not None]),
        )


def _placed(pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Places]]:
    return ((pair, _same_places(pair[0], pair[1])) for pair in pairs)


def option_diffs(a: LSTMLayer, b: LSTMLayer) -> list[OptionDiff]:
    """Return the options that two layers say differently, and those that one does not say.

    A layer, its direction and its cell may each hold an option (trainable, policy): it is listed
    once.
    """
    return _option_diffs(a, b, _same_places(a, b))


def _option_diffs(a: LSTMLayer, b: LSTMLayer, places: Places) -> list[OptionDiff]:
    diffs = [*_options(a, b, places)]
    return list({(o.where, o.option, str(o.a), str(o.b)): o for o in diffs}.values())


AnyCell = Cell | OpaqueCell | None
#: Direction, index, and the cells of both layers there; None where there is none.
Places = Sequence[tuple[str, int, AnyCell, AnyCell]]


def _same_places(a: LSTMLayer, b: LSTMLayer) -> Places:
    result: list[tuple[str, int, AnyCell, AnyCell]] = []
    halves = ("forward", a.forward, b.forward), ("backward", a.backward, b.backward)
    for direction, half_a, half_b in halves:
        if half_a or half_b:
            cells = zip_longest(half_a.cells if half_a else (), half_b.cells if half_b else ())
            result += [(direction, index, x, y) for index, (x, y) in enumerate(cells)]
    return result


def _name_of(layer: LSTMLayer, direction: str, index: int) -> str:
    """Return what comes before the names of a cell's tensors, or would where there is none."""
    is_missing = direction == "backward" and layer.backward is None
    return layer.name if is_missing else prefix(layer, direction, index)


#: What is to be compared, and what differs at first sight.
Items = Sequence[Compared | TensorDiff]


def _items(layer: LSTMLayer, places: Places) -> Items:
    return [item for place in places for item in _cells(layer, *place)]


def _cells(
    layer: LSTMLayer, direction: str, index: int, a: AnyCell, b: AnyCell
) -> Iterator[Compared | TensorDiff]:
    if not isinstance(a, Cell) or not isinstance(b, Cell):
        if isinstance(a, OpaqueCell) and isinstance(b, OpaqueCell):
            return  # their tensors are among the others
        name = _name_of(layer, direction, index)
        yield TensorDiff(name=name, reason="cell", a=_cell_name(a), b=_cell_name(b))
        return
    place = layer, direction, index
    fused_a, fused_b = _fused(a), _fused(b)
    for part in GATE_PARTS:
        if part in fused_a or part in fused_b:
            of_a, of_b = fused_a.get(part), fused_b.get(part)
            if of_a and of_b and of_a[0] == of_b[0] and of_a[1].shape == of_b[1].shape:
                # All gates in one pass over the fused arrays, each byte read once.
                yield Compared(partial(_labels, place, part, *of_a), of_a[1], of_b[1])
            else:
                yield from _part(place, part, a, b)
    for part in CELL_PARTS if a.parts or b.parts else ():
        yield Compared(partial(_label, place, part), a.parts.get(part), b.parts.get(part))


#: A layer, and the direction and the index of a cell in it.
CellPlace = tuple[LSTMLayer, str, int]


def _label(place: CellPlace, part: str) -> dict[str, int | None]:
    return {f"{_name_of(*place)}.{part}": None}


def _labels(
    place: CellPlace, part: str, gates: Sequence[Gate], fused: Tensor
) -> dict[str, int | None]:
    name, width = _name_of(*place), fused.shape[-1] // len(gates)
    return {f"{name}.{gate}_gate.{part}": width for gate in gates}


def _fused(cell: Cell) -> dict[str, tuple[tuple[Gate, ...], Tensor]]:
    """Return part -> the gates that have it, and their tensors side by side."""
    gates = cell.gates
    if isinstance(gates, FusedGates):
        return {part: (GATES, array) for part, array in zip(gates.parts, gates.arrays, strict=True)}
    parts: dict[str, dict[Gate, Tensor]] = {}
    for gate in GATES:
        for part, tensor in gates[gate].tensors.items() if gate in gates else ():
            parts.setdefault(part, {})[gate] = tensor
    return {part: (tuple(of), whole(SideBySide(tuple(of.values())))) for part, of in parts.items()}


def _cell_name(cell: AnyCell) -> str:
    return "none" if cell is None else "LSTM" if isinstance(cell, Cell) else cell.class_name


def _part(place: CellPlace, part: str, a: Cell, b: Cell) -> Iterator[Compared]:
    """Yield a part of each gate, of which not all are in both cells, or not in one shape."""
    of_a, of_b = (
        {g: w.tensors[part] for g, w in cell.gates.items() if part in w.tensors} for cell in (a, b)
    )
    both = tuple(gate for gate in GATES if gate in of_a and gate in of_b)
    for gate in GATES:
        if (gate in of_a) != (gate in of_b):
            label = partial(_label, place, f"{gate}_gate.{part}")
            yield Compared(label, of_a.get(gate), of_b.get(gate))
    if not both:
        return
    fused: list[Tensor] = [
        whole(SideBySide(tuple([of[gate] for gate in both]))) for of in (of_a, of_b)
    ]
    if fused[0].shape == fused[1].shape:
        yield Compared(partial(_labels, place, part, both, fused[0]), fused[0], fused[1])
        return
    for gate in both:
        label = partial(_label, place, f"{gate}_gate.{part}")
        yield Compared(label, of_a[gate], of_b[gate])


def _options(a: LSTMLayer, b: LSTMLayer, places: Places) -> Iterator[OptionDiff]:
    """Yield every option that the two say differently, or that one of them does not say."""
    if a.config is not None and b.config is not None and a.class_name != b.class_name:
        yield OptionDiff(where=a.name, option="class", a=a.class_name, b=b.class_name)
    skipped = set() if a.backward is not None else {"merge_mode"}
    yield from _fields(a.name, a.options, b.options, skipped)
    halves = ("forward", a.forward, b.forward), ("backward", a.backward, b.backward)
    for direction, half_a, half_b in halves:
        if half_a is not None and half_b is not None:
            where = a.name if a.backward is None else f"{a.name}.{direction}"
            yield from _fields(where, half_a.options, half_b.options, set())
    for direction, index, cell_a, cell_b in places:
        if isinstance(cell_a, Cell) and isinstance(cell_b, Cell):
            where = _name_of(a, direction, index)
            yield from _fields(where, cell_a.options, cell_b.options, set())


#: Options that are objects, which Keras's versions spell in several ways.
_OBJECTS = ("_initializer", "_regularizer", "_constraint")
AnyOptions = CellOptions | DirectionOptions | LayerOptions


def _fields(where: str, a: AnyOptions, b: AnyOptions, skipped: set[str]) -> Iterator[OptionDiff]:
    if a is b:  # as of most layers: options of one content are one object
        return
    for each in _differences(a, b):
        if each.option not in skipped:
            yield replace(each, where=where)


#: What two objects of options differ in, by their `id`: the layers of a file have few of them.
_known: dict[tuple[int, int], tuple[AnyOptions, AnyOptions, tuple[OptionDiff, ...]]] = {}
_MOST_KNOWN = 64


def _differences(a: AnyOptions, b: AnyOptions) -> tuple[OptionDiff, ...]:
    """Return what two objects of options differ in, without a place."""
    key = id(a), id(b)
    known = _known.get(key)
    if known is None or known[0] is not a or known[1] is not b:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        known = _known[key] = a, b, tuple(_compared(a, b))
    return known[2]


def _compared(a: AnyOptions, b: AnyOptions) -> Iterator[OptionDiff]:
    for field in fields(a):
        value_a, value_b = getattr(a, field.name), getattr(b, field.name)
        if field.name == "convolution":
            # None: no convolution, or weights alone. The kernels' shapes tell which.
            value_a, value_b = value_a or UNKNOWN, value_b or UNKNOWN
        if value_a is value_b is UNKNOWN:
            continue
        if field.name == "output_activation" and value_a != value_b:
            value_a, value_b = _output_activation(a), _output_activation(b)
        if field.name.endswith(_OBJECTS):
            meaning_a, meaning_b = of_object(value_a), of_object(value_b)
        else:
            meaning_a, meaning_b = value_a, value_b
        unknown_in = "a" if value_a is UNKNOWN else "b" if value_b is UNKNOWN else None
        if unknown_in or _differ(meaning_a, meaning_b):
            yield OptionDiff(
                where="",
                option=field.name,
                a=value_to_json(value_a),
                b=value_to_json(value_b),
                unknown_in=unknown_in,
            )


def _output_activation(options: Any) -> Any:
    """What is applied to the state on its way out, also where it is not a choice of its own."""
    return options.output_activation or options.activation


def _differ(a: Any, b: Any) -> bool:
    if isinstance(a, Activation) or isinstance(b, Activation):
        return bool(a != b)
    return bool(_plain(a) != _plain(b))


def _plain(value: Any) -> Any:
    """Return a config's tuples as lists; True is not taken for 1."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return ("flag", value) if isinstance(value, bool) else value


def _other(a: Model, b: Model, within: Within | None) -> OtherDiff:
    tensors_a, tensors_b = _others(a), _others(b)
    pairs = [(name, name) for name in tensors_a if name in tensors_b]
    left = {name: tensors_a[name] for name in tensors_a if name not in tensors_b}
    rest = {name: tensors_b[name] for name in tensors_b if name not in tensors_a}
    renamed = _matched(left, rest, _places(a), _places(b))
    left, rest = _without(left, renamed), _without(rest, set(renamed.values()))
    by_order = _matched(left, rest, dict.fromkeys(left), dict.fromkeys(rest))
    renamed |= by_order
    asked = (
        Compared(partial(dict.fromkeys, (x,)), tensors_a[x], tensors_b[y])
        for x, y in chain(pairs, renamed.items())
    )
    return OtherDiff(
        compared=len(pairs) + len(renamed),
        tensors=tuple(chain.from_iterable(compare_all(asked, within))),
        renamed=tuple(renamed.items()),
        only_in_a=tuple(_without(left, by_order)),
        only_in_b=tuple(_without(rest, set(by_order.values()))),
    )


def _others(model: Model) -> dict[str, Tensor]:
    """Return the tensors and assets to compare: not what metrics have counted in training.

    Keras 3's stores keep that under `metrics` (keras/src/saving/saving_lib.py, `_save_state` of the
    model's `metrics`); files of other kinds have no place for it.
    """
    kept = {name: t for name, t in model.other.items() if not name.startswith("metrics/")}
    return {**kept, **model.assets}


def _without(tensors: Mapping[str, Tensor], names: Container[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def _matched(
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    keys_a: Mapping[str, Hashable],
    keys_b: Mapping[str, Hashable],
) -> dict[str, str]:
    """Return name -> name of those that have a key, which is the same, and one shape and dtype."""
    waiting = _Waiting(((keys_b[name], _kind(b[name])), name) for name in b if name in keys_b)
    partners = {
        name: waiting.take((keys_a[name], _kind(tensor)))
        for name, tensor in a.items()
        if name in keys_a
    }
    return {name: other for name, other in partners.items() if other is not None}


def _places(model: Model) -> dict[str, Hashable]:
    """Return what is one and the same of a tensor in a legacy file and in one of Keras 3: the name
    of its own layer, and which of the layer's weights it is.

    Keras 3 numbers a layer's weights; a legacy file lists their names, beside which HDF5 sorts them
    by name: `beta` before `gamma`.
    """
    structure = model.source.structure
    if structure is None or structure.kind not in ("v3", "legacy"):
        return {}
    if structure.kind == "v3":
        parts = [(name, *name.partition("/vars/")) for name in model.other]
        return {
            name: (structure.names.get(group) or group.rpartition("/")[2], int(index))
            for name, group, _, index in parts
            if index.isdecimal()
        }
    result: dict[str, Hashable] = {}
    count: dict[str, int] = {}
    for layer, weights in structure.weights.items():
        for weight in weights:
            path = "/".join(filter(None, (structure.root, layer, weight)))
            group = path.rpartition("/")[0]
            result[path] = group.rpartition("/")[2], count.get(group, 0)
            count[group] = count.get(group, 0) + 1
    return result


def _kind(tensor: Tensor) -> Hashable:
    return tensor.shape, tensor.dtype.name

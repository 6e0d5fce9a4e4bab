"""Whether two models are the same: weights bit for bit, options, other tensors.

Layers are paired by name, and those left over by order and shape, which the report says. Weights
are streamed, so that files of any size are compared in a few megabytes. An option that one side
does not say is listed, and is not a difference. Optimizer slots are not compared.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

from lstmconvert import api
from lstmconvert.checks.bitdiff import TensorDiff, Within, compare_tensors, is_same
from lstmconvert.checks.report import BY_NAME, BY_SHAPE, LayerDiff, OptionDiff, OtherDiff, Report
from lstmconvert.keras.configs.spelling import of_object
from lstmconvert.model.activations import Activation
from lstmconvert.model.gates import GATES
from lstmconvert.model.layer import CELL_PARTS, GATE_PARTS, Cell, LSTMLayer, OpaqueCell
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

T = TypeVar("T")


def diff(
    a: str | Path | Model,
    b: str | Path | Model,
    *,
    weights_only: bool = False,
    rtol: float | None = None,
    atol: float | None = None,
) -> Report:
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
    report = Report(
        a=_name(a),
        b=_name(b),
        weights_only=weights_only,
        layers=tuple(_layer(x, y, how, weights_only, within) for x, y, how in pairs),
        within=within,
        only_in_a=tuple(layer.name for layer in only_a),
        only_in_b=tuple(layer.name for layer in only_b),
        other=None if weights_only else _other(model_a, model_b, within),
    )
    model_a.source.check()
    model_b.source.check()
    return report


def _model(value: str | Path | Model) -> Model:
    return value if isinstance(value, Model) else api.load(value)


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


def _layer(
    a: LSTMLayer, b: LSTMLayer, how: str, weights_only: bool, within: Within | None
) -> LayerDiff:
    tensors = [
        difference
        for (name, cell_a), (_, cell_b) in _same_places(a, b)
        for difference in _cells(name, cell_a, cell_b, within)
    ]
    compared = sum(len(list(cell.tensors())) for _, _, cell in a.cells())
    options = [] if weights_only else option_diffs(a, b)
    return LayerDiff(
        a=a.name,
        b=b.name,
        paired_by=how,
        compared=compared,
        tensors=tuple(tensors),
        options=tuple(option for option in options if option.unknown_in is None),
        unknown=tuple(option for option in options if option.unknown_in is not None),
    )


def option_diffs(a: LSTMLayer, b: LSTMLayer) -> list[OptionDiff]:
    """Return the options that two layers say differently, and those that one does not say.

    A layer, its direction and its cell may each hold an option (trainable, policy): it is listed
    once.
    """
    return list({(o.where, o.option, str(o.a), str(o.b)): o for o in _options(a, b)}.values())


AnyCell = Cell | OpaqueCell | None


def _same_places(
    a: LSTMLayer, b: LSTMLayer
) -> Iterator[tuple[tuple[str, AnyCell], tuple[str, AnyCell]]]:
    """Yield `(tensor prefix, cell)` of both layers, direction by direction; None where none is."""
    for direction in ("forward", "backward"):
        sides = [dict(layer.directions).get(direction) for layer in (a, b)]
        cells = [side.cells if side else () for side in sides]
        for index in range(max(map(len, cells))):
            names = [
                prefix(x, direction, index) if s else x.name
                for x, s in zip((a, b), sides, strict=True)
            ]
            at_index = [side[index] if index < len(side) else None for side in cells]
            yield (names[0], at_index[0]), (names[1], at_index[1])


def _cells(name: str, a: AnyCell, b: AnyCell, within: Within | None) -> Iterator[TensorDiff]:
    if not isinstance(a, Cell) or not isinstance(b, Cell):
        if isinstance(a, OpaqueCell) and isinstance(b, OpaqueCell):
            return  # their tensors are among the others
        yield TensorDiff(name=name, reason="cell", a=_cell_name(a), b=_cell_name(b))
        return
    there = {p for cell in (a, b) for weights in cell.gates.values() for p in weights.tensors}
    for part in GATE_PARTS:
        if part in there:
            yield from _part(name, part, a, b, within)
    for part in CELL_PARTS if a.parts or b.parts else ():
        sides = a.parts.get(part), b.parts.get(part)
        yield from compare_tensors({f"{name}.{part}": None}, *sides, within)


def _cell_name(cell: AnyCell) -> str:
    return "none" if cell is None else "LSTM" if isinstance(cell, Cell) else cell.class_name


def _part(name: str, part: str, a: Cell, b: Cell, within: Within | None) -> Iterator[TensorDiff]:
    of_a, of_b = (
        {g: w.tensors[part] for g, w in cell.gates.items() if part in w.tensors} for cell in (a, b)
    )
    both = [gate for gate in GATES if gate in of_a and gate in of_b]
    for gate in GATES if of_a.keys() != of_b.keys() else ():
        if (gate in of_a) != (gate in of_b):
            label = f"{name}.{gate}_gate.{part}"
            yield from compare_tensors({label: None}, of_a.get(gate), of_b.get(gate), within)
    if not both:
        return
    # All gates in one pass over the fused arrays, each byte read once.
    fused: list[Tensor] = [
        whole(SideBySide(tuple([of[gate] for gate in both]))) for of in (of_a, of_b)
    ]
    if is_same(fused[0], fused[1]):
        return
    if fused[0].shape == fused[1].shape:
        labels = {f"{name}.{gate}_gate.{part}": a.units for gate in both}
        yield from compare_tensors(labels, fused[0], fused[1], within)
        return
    for gate in both:
        label = f"{name}.{gate}_gate.{part}"
        yield from compare_tensors({label: None}, of_a[gate], of_b[gate], within)


def _options(a: LSTMLayer, b: LSTMLayer) -> Iterator[OptionDiff]:
    """Yield every option that the two say differently, or that one of them does not say."""
    if a.config is not None and b.config is not None and a.class_name != b.class_name:
        yield OptionDiff(where=a.name, option="class", a=a.class_name, b=b.class_name)
    skipped = set() if a.backward is not None else {"merge_mode"}
    yield from _fields(a.name, a.options, b.options, skipped)
    for direction, side in a.directions:
        other = dict(b.directions).get(direction)
        if other is not None:
            where = a.name if a.backward is None else f"{a.name}.{direction}"
            yield from _fields(where, side.options, other.options, set())
    for (name, cell_a), (_, cell_b) in _same_places(a, b):
        if isinstance(cell_a, Cell) and isinstance(cell_b, Cell):
            yield from _fields(name, cell_a.options, cell_b.options, set())


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
    return OtherDiff(
        compared=len(pairs) + len(renamed),
        tensors=tuple(
            difference
            for x, y in (*pairs, *renamed.items())
            for difference in compare_tensors({x: None}, tensors_a[x], tensors_b[y], within)
        ),
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

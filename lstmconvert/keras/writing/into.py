"""The weights of one model into the file of another, of which all else stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from lstmconvert.errors import UsageError
from lstmconvert.keras.stores import stored
from lstmconvert.keras.writing import emit
from lstmconvert.keras.writing.emit import KerasFitter
from lstmconvert.model import edit
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.model.neighbours import Neighbour
from lstmconvert.tensors.tensor import Tensor
from lstmconvert.tensors.views import Zeros, is_zero

_BIASES = ("bias", "recurrent_bias")


def filled(target: Model, source: Model, where: str) -> Model:
    """Return a model with the weights of another.

    Layers are matched by name, else by their order (LSTMs) or by their class and shapes (others),
    which is said. A layer that the other model does not have stays as it is.

    Args:
        target: the model whose config, other layers, optimizer and assets stay.
        source: the model whose weights go in.
        where: the file of `target`, for errors.

    Raises:
        UsageError: the source has what the target lacks, or has in another shape or dtype.
    """
    fitter = KerasFitter(emit.TARGET, for_file=True)
    notes: list[str] = []
    layers = dict(target)
    for name, layer in _paired(target, source, where, notes):
        needed = all(stored.holds(cell) for _, _, cell in layer.cells())
        done = layer if needed else fitter.fit_weights(layer)
        layers[name] = _merged(layers[name], done, where)
    other, names = _others(target, source, where, notes)
    written = [*(name for name in layers if layers[name] is not target[name]), *names]
    weighted = [*target, *(x.name for x in target.neighbours.values() if x.parameters)]
    kept = [name for name in weighted if name not in written]
    notes.insert(0, f"written into {where}: {', '.join(written)}")
    if kept:
        notes.append(f"as they were: {', '.join(kept)}")

    def check() -> None:
        target.source.check()
        source.source.check()

    return replace(
        target,
        layers=tuple(layers.values()),
        other={**target.other, **other},
        source=replace(target.source, check=check),
        notes=(*target.notes, *notes),
        losses=(*target.losses, *fitter.losses),
    )


# -- LSTM layers -------------------------------------------------------------------------------


def _paired(
    target: Model, source: Model, where: str, notes: list[str]
) -> Iterator[tuple[str, LSTMLayer]]:
    """Yield (name in the target, layer of the source)."""
    if all(name in target for name in source):
        yield from source.items()
        return
    if len(source) != len(target):
        odd = next(name for name in source if name not in target)
        raise UsageError(
            "the source has an LSTM layer that the file does not have",
            where=where,
            found=odd,
            expected=", ".join(target),
        )
    for name, layer in zip(target, source.layers, strict=True):
        if name != layer.name:
            notes.append(f"{layer.name} is taken for {name}, by order")
        yield name, layer


def _merged(old: LSTMLayer, new: LSTMLayer, where: str) -> LSTMLayer:
    """Return a layer with the weights of another, in the form in which its file keeps them."""
    sides = dict(new.directions)
    form = [(side, len(half.cells)) for side, half in old.directions]
    if form != [(side, len(half.cells)) for side, half in new.directions]:
        raise UsageError(
            "a layer of other directions or cells",
            where=f"{where}: {old.name}",
            found=", ".join(f"{side} of {len(h.cells)}" for side, h in new.directions),
            expected=", ".join(f"{side} of {count}" for side, count in form),
        )

    def cell(side: str, index: int, known: Cell) -> Cell:
        other = sides[side].cells[index]
        if not isinstance(other, Cell):
            raise UsageError(
                "a cell that is not an LSTM", where=f"{where}: {old.name}", found=other.class_name
            )
        return _cell(known, other, f"{where}: {old.name}")

    return edit.map_cells(old, cell)


def _cell(old: Cell, new: Cell, where: str) -> Cell:
    def gate(name: Gate, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if name not in new.gates:
            raise UsageError("a gate is not in the source", where=where, found=str(name))
        given = dict(new.gates[name].tensors)
        result: dict[str, Tensor] = {}
        for part, tensor in tensors.items():
            value = given.pop(part, None)
            if value is None and part in _BIASES:
                value = Zeros(tensor.shape, tensor.dtype)
            _check(value, tensor, f"{where}/{name}_gate.{part}")
            result[part] = value or tensor
        for part, tensor in given.items():
            if part not in _BIASES or not is_zero(tensor):
                raise UsageError(
                    "the source has a weight that the file has no place for",
                    where=where,
                    found=f"{name}_gate.{part}",
                    expected=", ".join(tensors),
                )
        return result

    if new.parts.keys() != old.parts.keys():
        raise UsageError(
            "the cells have other parts",
            where=where,
            found=", ".join(new.parts) or "none",
            expected=", ".join(old.parts) or "none",
        )
    for part, tensor in new.parts.items():
        _check(tensor, old.parts[part], f"{where}/{part}")
    return replace(edit.map_gates(old, gate), parts=new.parts)


def _check(new: Tensor | None, old: Tensor, where: str) -> None:
    if new is not None and (new.shape, new.dtype) == (old.shape, old.dtype):
        return
    raise UsageError(
        "the weights are not of the shape and dtype that the file has",
        where=where,
        found="none" if new is None else _form(new),
        expected=_form(old),
    )


def _form(tensor: Tensor) -> str:
    return f"{'×'.join(map(str, tensor.shape)) or '()'} {tensor.dtype.name}"


# -- other layers ------------------------------------------------------------------------------


def _others(
    target: Model, source: Model, where: str, notes: list[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return path in the target -> tensor of the source, and the names of their layers."""
    result: dict[str, Tensor] = {}
    names: list[str] = []
    left = set(source.other)
    for layer in source.neighbours.values():
        if not layer.parameters:
            continue
        known = _known(layer, target, names, where)
        if known.name != layer.name:
            notes.append(f"{layer.name} is taken for {known.name}, by its class and shapes")
        for role, tensor in layer.tensors.items():
            path = known.paths[role][0]
            if target.other.get(path) is not known.tensors[role]:
                raise UsageError(
                    "the file keeps the weights of this layer in a form of its own",
                    where=f"{where}: {known.name}",
                    found=", ".join(known.paths[role]),
                    expected="arrays as Keras 3 has them",
                )
            _check(tensor, known.tensors[role], f"{where}: {known.name}/{role}")
            result[path] = tensor
            left -= set(layer.paths[role])
        names.append(known.name)
    if left:
        raise UsageError(
            "the source has weights of no layer that the file has",
            where=where,
            found=", ".join(sorted(left)[:6]),
            expected=", ".join(map(repr, target.neighbours.values())) or "no other layers",
            hint="--config says which layers they are of; --lstm-only leaves them out",
        )
    return result, names


def _is_like(known: Neighbour, layer: Neighbour) -> bool:
    same_class = known.class_name == layer.class_name
    return same_class and known.tensors.keys() == layer.tensors.keys()


def _known(layer: Neighbour, target: Model, taken: list[str], where: str) -> Neighbour:
    """Return the layer of the target that a layer of the source is."""
    by_name = target.neighbours.get(layer.name)
    if by_name is not None and layer.is_named and _is_like(by_name, layer):
        return by_name
    shapes = {role: tensor.shape for role, tensor in layer.tensors.items()}
    fitting = [
        other
        for other in target.neighbours.values()
        if other.class_name == layer.class_name
        and other.name not in taken
        and {role: tensor.shape for role, tensor in other.tensors.items()} == shapes
    ]
    if by_name is None and len(fitting) == 1 and layer.is_named:
        return fitting[0]
    raise UsageError(
        "no layer of the file is this one",
        where=where,
        found=f"{layer.name}: {layer.class_name}, {', '.join(layer.tensors) or 'unnamed weights'}",
        expected=", ".join(f"{x.name}: {x.class_name}" for x in target.neighbours.values())
        or "no other layers",
    )

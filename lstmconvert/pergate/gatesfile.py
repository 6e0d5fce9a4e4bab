"""The per-gate layout: a model as named tensors and one metadata text, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lstmconvert.errors import CorruptFile, NoLSTM, UsageError
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.model import naming, wellformed
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import CELL_PARTS, Cell, Direction, LSTMLayer, weights_of
from lstmconvert.model.model import PER_GATE, Model, Source
from lstmconvert.model.options import CellOptions, DirectionOptions
from lstmconvert.pergate import metadata
from lstmconvert.tensors.tensor import Tensor


def tensors(
    model: Model, *, lstm_only: bool = False, with_optimizer: bool = False
) -> dict[str, Tensor]:
    """Return every tensor of a per-gate file by name.

    Args:
        model: the model.
        lstm_only: leave out all that belongs to no LSTM.
        with_optimizer: carry the optimizer's slots too.

    Raises:
        UsageError: two layers have one name.
        UnsupportedByTarget: another tensor's path could not be read back.
    """
    result: dict[str, Tensor] = {}
    for layer in model.layers:
        pairs = naming.tensors(layer)
        count = len(result) + len(pairs)
        result.update(pairs)
        if len(result) < count:
            raise UsageError("two layers of one name", where=layer.name)
    if not lstm_only:
        rest = {**model.other, **model.assets, **(model.optimizer if with_optimizer else {})}
        result.update(
            {naming.other(path): tensor for path, tensor in rest.items()}
        )
    return result


def is_per_gate(names: Iterable[str]) -> bool:
    """Whether arrays are in the per-gate layout, by their names."""
    return any(naming.parse(name) for name in names)


def read(
    named_tensors: Mapping[str, Tensor], value: JsonObject | None, container: str, where: object
) -> Model:
    """Build the model of a per-gate file.

    Args:
        named_tensors: the tensors of the file, by name.
        value: the metadata object, where the file has one.
        container: what kind of file it is.
        where: the file, for errors.

    Raises:
        CorruptFile: the metadata and the tensors do not fit each other.
        NoLSTM: there is no metadata, and no tensor has a per-gate name.
    """
    if value is not None:
        return metadata.Reader(named_tensors, where).model(value, container)
    layers = tuple(_by_name(named_tensors, where))
    if not layers:
        raise NoLSTM(
            "no per-gate tensors",
            where=where,
            found=", ".join(list(named_tensors)[:5]) or "no tensors",
            expected="names such as lstm.forget_gate.kernel",
        )
    other = {
        name.removeprefix(naming.OTHER): tensor
        for name, tensor in named_tensors.items()
        if naming.parse(name) is None
    }
    return Model(
        layers=layers,
        source=Source(container=container),
        container=container,
        layout=PER_GATE,
        other=other,
    )


def _by_name(named_tensors: Mapping[str, Tensor], where: object) -> Iterator[LSTMLayer]:
    layers: dict[str, dict[str, dict[int, dict[str, Tensor]]]] = {}
    for name, tensor in named_tensors.items():
        parsed = naming.parse(name)
        if parsed is not None:
            directions = layers.setdefault(parsed.layer, {})
            cells = directions.setdefault(parsed.direction or "forward", {})
            cell = cells.setdefault(parsed.cell or 0, {})
            if parsed.tensor in cell:
                raise CorruptFile("two tensors of one place", where=where, found=name)
            cell[parsed.tensor] = tensor
    for name, directions in layers.items():
        yield _layer(name, directions, f"{where}: {name}")


def _layer(
    name: str, directions: Mapping[str, Mapping[int, Mapping[str, Tensor]]], where: str
) -> LSTMLayer:
    for cells in directions.values():
        if set(cells) != set(range(len(cells))):
            raise CorruptFile(
                "a stack without one of its cells: one that is not an LSTM is in metadata alone",
                where=where,
                found=", ".join(f"cells.{index}" for index in sorted(cells)),
            )
    halves = {
        key: Direction(
            cells=tuple(_cell(cells[index], where) for index in sorted(cells)),
            options=DirectionOptions(),
        )
        for key, cells in directions.items()
    }
    if "forward" not in halves:
        raise CorruptFile("a layer without a forward half", where=where)
    layer = LSTMLayer(
        name=name,
        path=name,
        class_name=_class_name(halves),
        forward=halves["forward"],
        backward=halves.get("backward"),
    )
    wellformed.check_layer(layer, where)
    return layer


def _class_name(halves: Mapping[str, Direction]) -> str:
    if len(halves) > 1:
        return "Bidirectional"
    return "RNN" if len(halves["forward"].cells) > 1 else "LSTM"


def _cell(named: Mapping[str, Tensor], where: str) -> Cell:
    gates: dict[Gate, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        if name not in CELL_PARTS:
            gate, _, part = name.partition("_gate.")
            gates.setdefault(Gate(gate), {})[part] = tensor
    cell = Cell(
        gates=weights_of(gates),
        options=CellOptions(input_forget=Gate.INPUT not in gates),
        parts={name: tensor for name, tensor in named.items() if name in CELL_PARTS},
    )
    wellformed.check_cell(cell, where)
    return cell

"""The per-gate layout: a model as named tensors and one metadata text, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lstmconvert import metadata, metadataread, naming, wellformed
from lstmconvert.errors import CorruptFile, NoLSTM, UsageError
from lstmconvert.gates import Gate
from lstmconvert.layer import CELL_PARTS, Cell, Direction, GateWeights, LSTMLayer
from lstmconvert.model import Model, Source
from lstmconvert.options import CellOptions, DirectionOptions
from lstmconvert.tensors import Tensor


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
        named = dict(naming.tensors(layer))
        if not result.keys().isdisjoint(named):
            raise UsageError("two layers of one name", where=layer.name)
        result.update(named)
    if not lstm_only:
        rest = {**model.other, **model.assets, **(model.optimizer if with_optimizer else {})}
        result.update(
            {naming.other(path, asset=path in model.assets): one for path, one in rest.items()}
        )
    return result


def is_per_gate(names: Mapping[str, object], texts: Mapping[str, str]) -> bool:
    """Whether a file is in the per-gate layout: by its metadata, or by its tensors' names."""
    return metadata.KEY in texts or any(naming.parse(name) for name in names)


def read(
    found: Mapping[str, Tensor], texts: Mapping[str, str], container: str, where: object
) -> Model:
    """Build the model of a per-gate file.

    Raises:
        CorruptFile: the metadata and the tensors do not fit each other.
        NoLSTM: there is no metadata, and no tensor has a per-gate name.
    """
    if metadata.KEY in texts:
        return metadataread.Reader(found, where).model(texts[metadata.KEY], container)
    layers = tuple(_by_name(found, where))
    if not layers:
        raise NoLSTM(
            "no per-gate tensors",
            where=where,
            found=", ".join(list(found)[:5]) or "no tensors",
            expected="names such as lstm.forget_gate.kernel",
        )
    other = {
        name.removeprefix(naming.OTHER): tensor
        for name, tensor in found.items()
        if naming.parse(name) is None
    }
    return Model(
        layers=layers, source=Source(container=container), container=container, other=other
    )


def _by_name(found: Mapping[str, Tensor], where: object) -> Iterator[LSTMLayer]:
    layers: dict[str, dict[str, dict[int, dict[str, Tensor]]]] = {}
    for name, tensor in found.items():
        parsed = naming.parse(name)
        if parsed is not None:
            directions = layers.setdefault(parsed.layer, {})
            cells = directions.setdefault(parsed.direction or "forward", {})
            cell = cells.setdefault(parsed.index or 0, {})
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
                "a stack without one of its cells: one that is no LSTM is known by metadata alone",
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
    if fault := wellformed.layer_fault(layer):
        raise CorruptFile(fault, where=where)
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
        gates={gate: GateWeights(gate, gates[gate]) for gate in Gate if gate in gates},
        options=CellOptions(input_forget=Gate.INPUT not in gates),
        parts={name: tensor for name, tensor in named.items() if name in CELL_PARTS},
    )
    if fault := wellformed.cell_fault(cell, whole=True):
        raise CorruptFile(fault, where=where, found=", ".join(sorted(named)))
    return cell

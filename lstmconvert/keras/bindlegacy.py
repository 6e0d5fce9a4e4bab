"""Filling sketches from a legacy store: by layer name, and within a layer by order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

from lstmconvert.errors import CorruptFile
from lstmconvert.gates import GATES
from lstmconvert.keras.blocks import Block, blocks
from lstmconvert.keras.cells import FORM, disagree, listed
from lstmconvert.keras.legacy import LegacyStore
from lstmconvert.keras.sketch import CellSketch, DirectionSketch, LayerSketch, Plan
from lstmconvert.keras.stored import FLIPPED, TRANSPOSED, CellArrays, Stored

_CELL_SCOPE = re.compile(r"(stacked_rnn_cells|(lstm|lstm_v1|gru|simple_rnn)_cell|cell)(_\d+)?$")
#: What Keras itself calls an LSTM.
_LSTM = re.compile(r"lstm(_\d+)?")
_KINDS = {4: "LSTMCell", 3: "GRUCell", 1: "SimpleRNNCell"}


class LegacyArrays:
    """Gives each cell of a plan its arrays.

    Raises:
        CorruptFile: the config and the stored layers cannot be matched.
    """

    def __init__(self, store: LegacyStore, plan: Plan, where: object) -> None:
        self._found: dict[int, CellArrays] = {}
        self._where = where
        self._theano = store.attributes.get("backend") == "theano"
        by_top: dict[str, list[CellSketch]] = {}
        for sketch in plan.layers:
            by_top.setdefault(sketch.top, []).extend(sketch.cells)
        groups = _groups(store, list(by_top), where)
        for top, cells in by_top.items():
            names, weights = store.names[groups[top]], store.weights[groups[top]]
            self._match(cells, blocks(names, weights), top, dict(zip(names, weights, strict=True)))

    def __call__(self, cell: CellSketch) -> CellArrays:
        return self._found[id(cell)]

    def _match(
        self, cells: list[CellSketch], found: list[Block], top: str, stored: Mapping[str, Stored]
    ) -> None:
        # Weights are listed trainable first, then the rest (`_legacy_weights`).
        ordered = sorted(cells, key=lambda cell: not cell.trainable)
        if len(ordered) != len(found):
            raise CorruptFile(
                "the config and the stored weights disagree",
                where=f"{self._where}: {top}",
                found=f"{len(found)} recurrent cells in {listed(dict(islice(stored.items(), 9)))}",
                expected=f"{len(ordered)}: {FORM}",
            )
        for cell, block in zip(ordered, found, strict=True):
            self._found[id(cell)] = CellArrays(block.arrays, self._turns(cell, block, top))

    def _turns(self, cell: CellSketch, block: Block, top: str) -> tuple[str, ...]:
        """How a convolution's kernels are turned. Theano flips them; Keras 1's `th` ordering has
        the filters first, which the shapes tell where no config does."""
        recurrent = block.arrays.get("input_gate.recurrent_kernel")
        turns = (FLIPPED,) if self._theano or block.theano else ()
        if recurrent is None or len(recurrent.tensor.shape) < 3:
            return turns
        shape = recurrent.tensor.shape
        ordering = cell.node.config.get("dim_ordering") if cell.node else None
        first, last = shape[0] == shape[1], shape[-1] == shape[-2]
        if ordering not in ("th", "tf") and first == last:
            raise CorruptFile(
                "the shapes do not tell the order of a convolution kernel's axes",
                where=f"{self._where}: {top}",
                found=str(shape),
                hint="give the model's config with --config",
            )
        is_th = ordering == "th" if ordering in ("th", "tf") else first
        return (TRANSPOSED, *turns) if is_th else turns


def _groups(store: LegacyStore, tops: list[str], where: object) -> dict[str, str]:
    """Map each layer of the config to a stored one: by name, or else by order among those that
    hold recurrent cells, as Keras does when it loads weights into a model built anew."""
    if all(top in store.weights for top in tops):
        return {top: top for top in tops}
    stored = [name for name in store.names if blocks(store.names[name], store.weights[name])]
    if len(stored) != len(tops):
        raise CorruptFile(
            "the config and the weights file are of different models",
            where=where,
            found=f"recurrent layers {', '.join(stored) or 'none'}",
            expected=", ".join(tops),
        )
    return dict(zip(tops, stored, strict=True))


def infer(store: LegacyStore, where: object) -> Plan:
    """Sketch the recurrent layers of a weights-only file by its names and shapes alone.

    Raises:
        CorruptFile: what Keras calls an LSTM has not the arrays of one.
    """
    result = Plan()
    for layer, names in store.names.items():
        found = blocks(names, store.weights[layer])
        if not found and _LSTM.fullmatch(layer) and len(names) in (2, 3):
            arrays = dict(zip(names, store.weights[layer], strict=True))
            raise disagree(f"{where}: {layer}", listed(arrays))
        result.classes.append(("", layer))
        for sketch in _sketches(layer, found):
            result.layers.append(sketch)
    return result


def inside(store: LegacyStore, described: Plan) -> Plan:
    """Sketch the recurrent layers inside layers of a user's own class, which a config says nothing
    of. A class that is itself recurrent computes what only its code says: it is `custom`."""
    known = {sketch.top for sketch in described.layers} | {name for _, name, _ in described.custom}
    result = Plan()
    for class_name, layer in described.classes:
        if layer in known or layer not in store.names:
            continue
        found = blocks(store.names[layer], store.weights[layer])
        if all(_path(layer, block.scope) for block in found):
            result.layers.extend(_sketches(layer, found))
        else:
            result.classes.append((class_name, layer))
    return result


def _sketches(layer: str, found: list[Block]) -> list[LayerSketch]:
    by_path: dict[tuple[str, ...], dict[str, list[Block]]] = {}
    for block in found:
        path = _path(layer, block.scope)
        half = _half(path[-1]) if path else ""
        outer = path[:-1] if half else path
        by_path.setdefault(outer, {}).setdefault(half, []).append(block)
    if len(by_path) == 1:
        # One layer in the group: its inner scope may have drifted from its name.
        path, halves = next(iter(by_path.items()))
        by_path = {path if _is_another(layer, path) else (): halves}
    return [_sketch(layer, path, list(halves.values())) for path, halves in by_path.items()]


def _path(layer: str, scope: tuple[str, ...]) -> tuple[str, ...]:
    parts = [part for part in scope if not _CELL_SCOPE.match(part)]
    if layer in parts:  # a subclassed model has its own name before its layers'
        parts = parts[len(parts) - parts[::-1].index(layer) :]
    return tuple(parts)


def _is_another(layer: str, path: tuple[str, ...]) -> bool:
    return bool(path) and re.sub(r"(_\d+)+$", "", path[0]) != re.sub(r"(_\d+)+$", "", layer)


def _half(name: str) -> str:
    return next((half for half in ("forward_", "backward_") if name.startswith(half)), "")


def _sketch(layer: str, path: tuple[str, ...], halves: list[list[Block]]) -> LayerSketch:
    is_stack = len(halves[0]) > 1
    class_name = "Bidirectional" if len(halves) > 1 else "RNN" if is_stack else "LSTM"
    directions = tuple(
        DirectionSketch(
            layer,
            None,
            tuple(
                CellSketch(layer, _KINDS[block.gates], block.gates == len(GATES), None, is_stack)
                for block in blocks
            ),
        )
        for blocks in halves
    )
    return LayerSketch("/".join([layer, *path]), "", layer, class_name, None, directions)

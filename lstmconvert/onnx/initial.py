"""Initial states that a graph gives an LSTM itself: constants, also spread over the batch."""

from __future__ import annotations

import numpy as np

from lstmconvert.dtypes import Array, bits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.onnx.constants import Constants, NotConstantError
from lstmconvert.onnx.scopes import Scope, attributes

#: Nodes that add or take axes of length 1, or nothing.
_SAME = frozenset({"Identity", "Squeeze", "Unsqueeze"})
_STEPS = 8


def initial_states(
    place: tuple[Scope, str, str], constants: Constants, shape: tuple[int, int, bool]
) -> Array | None:
    """Return an initial state, (directions, units); None if it is the caller's, or computed.

    Args:
        place: the graph, the value, and where it is, for messages.
        constants: of the model.
        shape: directions, units, and whether the batch comes first.

    Raises:
        SourceError: it differs from row to row of the batch.
        CorruptFile: it has the wrong shape.
    """
    scope, name, where = place
    try:
        array = constants.tensor(scope, name).read()
    except NotConstantError:
        return _spread(scope, name, constants, shape)
    directions, units, batch_first = shape
    if array.ndim == 3 and batch_first:
        array = np.swapaxes(array, 0, 1)
    if array.ndim != 3 or array.shape[::2] != (directions, units) or not array.shape[1]:
        raise CorruptFile(
            "the LSTM's initial state has the wrong shape", where=where, found=str(array.shape)
        )
    if not np.array_equal(bits(array), bits(np.broadcast_to(array[:, :1], array.shape))):
        raise SourceError(
            "the LSTM's initial state differs from row to row of the batch: no layer keeps that",
            where=where,
        )
    return array[:, 0]


def _spread(
    scope: Scope, name: str, constants: Constants, shape: tuple[int, int, bool]
) -> Array | None:
    """Return what is spread over the batch by Expand; None if it is something else."""
    directions, units, _ = shape
    for _ in range(_STEPS):
        holder = scope.holder(name)
        node = holder.producers.get(name) if holder else None
        if holder is None or node is None or not node.input:
            return None
        scope = holder
        if node.op_type == "Concat" and directions == 2 and len(node.input) == 2:
            found = attributes(node).get("axis")
            halves = [_spread(scope, each, constants, (1, units, False)) for each in node.input]
            if found is None or found.i != 0 or halves[0] is None or halves[1] is None:
                return None
            return np.concatenate([halves[0], halves[1]])
        name = node.input[0]
        if node.op_type == "Expand":
            try:
                array = constants.tensor(scope, name).read()
            except NotConstantError:
                return None
            is_vector = directions == 1 and array.size == units and array.shape[-1:] == (units,)
            return array.reshape(1, units) if is_vector else None
        if node.op_type not in _SAME:
            return None
    return None

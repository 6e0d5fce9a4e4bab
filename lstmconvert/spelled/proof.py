"""A step of a graph computed by its own operations: the other side of every proof.

Values are (batch, features) in float64. What only moves leading axes hands on what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from lstmconvert.reference.maths import apply
from lstmconvert.spelled.flow import Flow, Node, Ref
from lstmconvert.tensors.dtypes import Array

#: How many nodes a step may have: an LSTM's has 20 to 80.
_MOST = 600


class UnprovenError(Exception):
    """A step that cannot be computed here: `args` say why."""


_UNARY: Mapping[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "neg": np.negative,
    "reciprocal": lambda x: 1 / x,
    "abs": np.abs,
    "sqrt": np.sqrt,
}
_BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
}


@np.errstate(all="ignore")
def computed(node: Node, parts: list[Array]) -> Array:
    """Return what a node that works element by element makes of its inputs.

    Raises:
        UnprovenError: it is of another kind.
    """
    if node.kind in _UNARY:
        return _UNARY[node.kind](parts[0])
    if node.kind in _BINARY and len(parts) == 2:
        return _BINARY[node.kind](*parts)
    if node.kind == "function":
        return apply(node.get("activation"), parts[0])
    if node.kind == "clip":
        return np.clip(parts[0], node.get("low", -np.inf), node.get("high", np.inf))
    raise UnprovenError(f"an operation that is not computed here: {node.get('what', node.kind)}")


@np.errstate(all="ignore")
def evaluate(flow: Flow, wanted: Iterable[Ref], given: Mapping[Ref, Array]) -> dict[Ref, Array]:
    """Compute values of a step from others.

    Args:
        flow: the graph.
        wanted: the values.
        given: values that are known: (batch, features), float64.

    Raises:
        UnprovenError: a value depends on something else, or on an operation that is not known.
    """
    known = dict(given)
    waiting = list(wanted)
    count = 0
    while waiting:
        ref = waiting[-1]
        if ref in known:
            waiting.pop()
            continue
        count += 1
        if count > 2 * _MOST:
            raise UnprovenError("a step of too many operations")
        tensor = flow.constant(ref)
        if tensor is not None:
            known[ref] = tensor.read().astype(np.float64)
            continue
        node = flow.nodes.get(ref)
        if node is None:
            raise UnprovenError("the step depends on a value that it is not given")
        sources = node.inputs[:1] if flow.passes(ref) else node.inputs
        # A mask that is not given is another layer's: either value has its features.
        if node.kind == "masked" and node.inputs[2] in known:
            is_new = bool(known[node.inputs[2]].all()) is node.get("when")
            sources = node.inputs[:1] if is_new else node.inputs[1:2]
        missing = [source for source in sources if source not in known]
        if missing:
            waiting += missing
            continue
        try:
            known[ref] = _value(flow, ref, node, [known[source] for source in sources])
        except (ValueError, TypeError) as error:  # shapes that do not fit, as NumPy says
            raise UnprovenError(f"a step that cannot be computed: {str(error)[:80]}") from None
    return known


def _value(flow: Flow, ref: Ref, node: Node, parts: list[Array]) -> Array:
    if flow.passes(ref):
        return parts[0]
    match node.kind:
        case "matmul":
            right = parts[1].T if node.get("turned") else parts[1]
            if parts[0].shape[-1] != right.shape[0]:
                raise UnprovenError("a product of sizes that do not fit")
            return parts[0] @ right
        case "fill":
            return np.full(1, node.get("value"), np.float64)
        case "slice" if flow.is_last(ref):
            return parts[0][..., node.get("start") : node.get("stop")]
        case "concat" if flow.is_last(ref):
            batch = max(part.shape[0] if part.ndim > 1 else 1 for part in parts)
            wide = [np.broadcast_to(part, (batch, part.shape[-1])) for part in parts]
            return np.concatenate(wide, axis=-1)
    return computed(node, parts)

"""A graph of plain operations, as data: what several formats have in common.

A value is named by a `Ref`, a node makes one value. Leading axes (batch, time) mean nothing here:
what counts is the last axis, the features. So a node that only moves leading axes about hands on
what it is given, and the kinds are few:

    matmul                    a · b; attribute `turned`: b is stored (units, inputs)
    add sub mul div max min pow
    exp sigmoid tanh …        functions of one variable: `UNARY`, and `function` with an Activation
    clip                      attributes `low`, `high`
    slice                     columns `start` to `stop` of the axis `axis`; `stop` None: to its end
    concat                    along the axis `axis`
    transpose                 attribute `order`, None: all axes turned round
    reshape                   attribute `shape`
    identity                  hands on its value
    expand                    an axis of length 1 more, or less
    take                      one entry of a leading axis: attributes `axis`, `index`
    move                      any other node that keeps the features of its first input; attribute
                              `time`: `scan` where a loop takes one step of it after the other,
                              `scan_back` from its end, `reverse` where it turns the steps round;
                              `counter`: the value that says which step it takes; `axes`, also of
                              `take`: how many axes more its value has than its input
    stack                     steps joined along a new leading axis
    where                     one of two values, as a condition says: condition, if so, if not
    masked                    a `where` that leaves out steps of a loop: the new value, the one that
                              the loop carries, the condition; attribute `when` it takes the new
    fill                      one number everywhere: attribute `value`
    other                     anything else: attribute `what`

A slice of a leading axis hands on its features, too.

`evaluate` computes a step of a graph by its own operations: the other side of every proof. Values
are (batch, features) in float64. What only moves leading axes hands on what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations, product
from typing import Any, NamedTuple

import numpy as np

from lstmconvert.reference.maths import apply
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import ArrayTensor, Tensor
from lstmconvert.tensors.views import (
    Reshaped,
    columns,
    concatenated,
    rows,
    side_by_side,
    transposed,
)

Ref = Hashable

#: Kinds that hand on the features of their first input.
PASSING = frozenset({"identity", "expand", "take", "move", "masked"})
BINARY = frozenset({"add", "sub", "mul", "div", "max", "min", "pow"})
UNARY = frozenset(
    {"exp", "sigmoid", "tanh", "neg", "reciprocal", "abs", "sqrt", "function", "clip", "log"}
)
#: The most numbers of a list of axes, sizes or places.
_MOST_INTEGERS = 64
#: How many nodes are followed from a value back to where it comes from.
_LONGEST = 64
#: How many values are asked for one size, at most.
_MOST_ASKED = 2000
#: What turns true and false round, in each format.
_NOT = frozenset({"Not", "LogicalNot", "LOGICAL_NOT"})
#: How many nodes deep two values are compared that are written twice.
_DEEPEST_COPY = 12
#: How many sums an index is made of, at most: the number of steps, less one, less the counter.
_DEEPEST_INDEX = 4


@dataclass(frozen=True, slots=True)
class FlowNode:
    """An operation that makes one value: its `kind`, its `inputs`, its `attributes`."""

    kind: str
    inputs: tuple[Ref, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)


class Carried(NamedTuple):
    """A value that a loop carries: what it is in the next step, and at the start."""

    following: Ref
    start: Ref | None


@dataclass(slots=True)
class _Caches:
    constants: dict[Ref, Tensor | None] = field(default_factory=dict)
    widths: dict[Ref, int | None] = field(default_factory=dict)
    ranks: dict[Ref, int | None] = field(default_factory=dict)
    open: set[Ref] = field(default_factory=set)
    asked: int = 0
    is_open_met: bool = False


@dataclass
class Flow:
    """A graph with its loops.

    Fields: `nodes`: value -> the node that makes it; `constants`: value -> its tensor; `carried`:
    a value in the body of a loop -> how it goes on; `stacked`: a value in the body of a loop -> the
    values outside that hold it for each step; `finals`: the value that a loop hands on last, in its
    body -> the same outside; `names`: what the file calls the node of a value; `outputs` of the
    graph; `open_ends`: what nothing takes, where a graph does not say whether its user does;
    `known_ranks`, `known_widths`: of values, where the file says them.
    """

    nodes: dict[Ref, FlowNode] = field(default_factory=dict)
    constants: dict[Ref, Tensor] = field(default_factory=dict)
    carried: dict[Ref, Carried] = field(default_factory=dict)
    stacked: dict[Ref, list[Ref]] = field(default_factory=dict)
    finals: dict[Ref, list[Ref]] = field(default_factory=dict)
    names: dict[Ref, str] = field(default_factory=dict)
    outputs: set[Ref] = field(default_factory=set)
    open_ends: set[Ref] = field(default_factory=set)
    known_ranks: dict[Ref, int] = field(default_factory=dict)
    known_widths: dict[Ref, int] = field(default_factory=dict)
    _caches: _Caches = field(default_factory=_Caches)

    def forget(self) -> None:
        """Forget what was not known of values while the graph was not whole."""
        self._caches = _Caches()

    @cached_property
    def consumers(self) -> Mapping[Ref, list[Ref]]:
        """Value -> the values that are made of it."""
        takers: dict[Ref, list[Ref]] = {}
        for ref, node in self.nodes.items():
            for source in dict.fromkeys(node.inputs):
                takers.setdefault(source, []).append(ref)
        return takers

    def join_steps(self) -> None:
        """Now that the graph is whole, join the steps that loops make.

        Where a loop carries many steps and adds one to them (a node of kind `other` whose `what`
        is `append`), the steps outside are that one, of every step; `at_one_place`: of the last.
        """
        self.forget()
        self._find_masks()
        for ref, (following, _) in list(self.carried.items()):
            node = self.nodes.get(self.origin(following))
            if node is None or node.get("what") != "append" or len(node.inputs) != 2:
                continue
            if self.origin(node.inputs[0]) == ref:
                outers = self.finals.pop(following, [])
                if not node.get("at_one_place"):
                    self.stacked.setdefault(node.inputs[1], []).extend(outers)
                for outer in outers:
                    self.nodes[outer] = FlowNode("move", (node.inputs[1],), {"axes": 1})

    def _find_choices(self) -> None:
        """Find choices that are written as sums: condition * one + not condition * other."""
        for ref, node in list(self.nodes.items()):
            products = [self.nodes.get(self.origin(source)) for source in node.inputs]
            if node.kind != "add" or any(each is None or each.kind != "mul" for each in products):
                continue
            factors = [each.inputs for each in products if each is not None]
            for yes, no in (factors, factors[::-1]):
                for (condition, chosen), (rest, left) in product(
                    permutations(yes), permutations(no)
                ):
                    negated = self.nodes.get(self.origin(rest))
                    if negated is None or negated.get("what") not in _NOT:
                        continue
                    if self.is_alike(self._uncast(condition), self._uncast(negated.inputs[0])):
                        inputs = self._uncast(condition), chosen, left
                        self.nodes[ref] = FlowNode("where", inputs)

    def _uncast(self, ref: Ref) -> Ref:
        """Return what a value is a copy of, in another dtype or not."""
        for _ in range(_LONGEST):
            node = self.nodes.get(ref)
            if node is None or node.kind != "identity":
                break
            ref = node.inputs[0]
        return ref

    def _find_masks(self) -> None:
        """Find where a loop chooses between a new value and the one that it carries."""
        self._find_choices()
        for ref, (following, _) in self.carried.items():
            at = self.origin(following)
            node = self.nodes.get(at)
            if node is None or node.kind != "where" or len(node.inputs) != 3:
                continue
            condition, *branches = node.inputs
            is_kept = [self.origin(branch) == ref for branch in branches]
            if is_kept[0] is not is_kept[1]:
                new, old = branches[is_kept[0]], branches[is_kept[1]]
                self.nodes[at] = FlowNode("masked", (new, old, condition), {"when": is_kept[1]})
        self.forget()

    def is_alike(self, ref: Ref, other: Ref, deep: int = 0) -> bool:
        """Whether two values are the same, or made of the same by the same operations."""
        if ref == other:
            return True
        first, second = self.nodes.get(ref), self.nodes.get(other)
        if first is None or second is None:
            tensors = self.constant(ref), self.constant(other)
            return None not in tensors and _is_equal(*tensors)
        if deep > _DEEPEST_COPY or first.kind != second.kind:
            return False
        if len(first.inputs) != len(second.inputs):
            return False
        pairs = list(zip(first.inputs, second.inputs, strict=True))
        for name in {*first.attributes, *second.attributes}:
            if name == "counter" and first.get(name) and second.get(name):
                pairs.append((first.get(name), second.get(name)))
            elif first.get(name) != second.get(name):
                return False
        return all(self.is_alike(a, b, deep + 1) for a, b in pairs)

    @cached_property
    def _live(self) -> set[Ref]:
        return self.before(self.outputs)

    def uses(self, ref: Ref) -> list[Ref]:
        """Return the values that are made of a value, and that an output depends on."""
        return [after for after in self.consumers.get(ref, []) if after in self._live]

    def is_used(self, ref: Ref) -> bool:
        """Whether an output is a value, or depends on it."""
        return ref in self.outputs or bool(self.uses(ref))

    def behind(self, refs: Iterable[Ref]) -> set[Ref]:
        """Return what depends on values, in this step or another; themselves, too."""
        takers: dict[Ref, list[Ref]] = {}
        for ref, (following, start) in self.carried.items():
            takers.setdefault(following, []).append(ref)
            takers.setdefault(start, []).append(ref)
        waiting = list(refs)
        seen = set(waiting)
        while waiting:
            ref = waiting.pop()
            new = {*self.consumers.get(ref, []), *takers.get(ref, [])} - seen
            seen |= new
            waiting += new
        return seen

    def before(self, refs: Iterable[Ref]) -> set[Ref]:
        """Return what values depend on, in this step or another; themselves, too."""
        waiting = list(refs)
        seen = set(waiting)
        while waiting:
            ref = waiting.pop()
            node, carried = self.nodes.get(ref), self.carried.get(ref)
            sources = list(node.inputs) if node is not None else []
            if carried is not None:
                sources += [carried.following, *([carried.start] if carried.start else [])]
            new = set(sources) - seen
            seen |= new
            waiting += new
        return seen

    # -- where a value comes from ------------------------------------------------------------------

    def passes(self, ref: Ref) -> bool:
        """Whether the node of a value hands on the features of its first input."""
        node = self.nodes.get(ref)
        if node is None or not node.inputs:
            return False
        if node.kind in PASSING:
            return True
        if node.kind == "slice":
            rank = self.rank(ref)
            return rank is not None and not self.is_last(ref)
        if node.kind == "reshape":
            shape = node.get("shape")
            return bool(shape) and shape[-1] == self.width(node.inputs[0])
        if node.kind == "transpose":
            order = node.get("order")
            return bool(order) and order[-1] == len(order) - 1
        return False

    def path(self, ref: Ref) -> list[Ref]:
        """Return the values from a value back to where its features come from, that one last."""
        values = [ref]
        while self.passes(values[-1]) and len(values) < _LONGEST:
            values.append(self.nodes[values[-1]].inputs[0])
        return values

    def origin(self, ref: Ref) -> Ref:
        """Return where the features of a value come from."""
        return self.path(ref)[-1]

    # -- constants ---------------------------------------------------------------------------------

    def constant(self, ref: Ref) -> Tensor | None:
        """Return the tensor of a value that depends on constants alone; None of any other.

        Values are arranged, cut and joined, and nothing is computed: the bits stay.
        """
        known = self._caches.constants
        waiting = [ref]
        while waiting:
            at = waiting[-1]
            if at in known:
                waiting.pop()
                continue
            node = self.nodes.get(at)
            if at in self.constants or node is None or node.kind not in _ARRANGED:
                known[at] = self.constants.get(at)
                continue
            missing = [source for source in node.inputs if source not in known]
            if missing and len(waiting) < _LONGEST:
                waiting += missing
                continue
            parts = [known.get(source) for source in node.inputs]
            tensors = [part for part in parts if part is not None]
            is_whole = bool(tensors) and len(tensors) == len(parts)
            known[at] = _arranged(node, tensors) if is_whole else None
        return known[ref]

    def leaves(self, ref: Ref) -> set[Ref]:
        """Return the constants of the file that a constant is arranged of."""
        waiting, seen = [ref], {ref}
        while waiting:
            node = self.nodes.get(waiting.pop())
            new = set(node.inputs if node is not None else ()) - seen
            seen |= new
            waiting += new
        return seen & self.constants.keys()

    def scalar(self, ref: Ref) -> float | None:
        """Return the value of a constant that is one number."""
        tensor = self.constant(ref)
        if tensor is None or tensor.size != 1 or tensor.dtype.kind not in "fiuV":
            return None
        return float(tensor.read().reshape(()))

    def integers(self, ref: Ref) -> list[int] | None:
        """Return the numbers of a constant that is a short list of integers, such as axes."""
        tensor = self.constant(ref)
        if tensor is None or tensor.dtype.kind not in "iu" or tensor.size > _MOST_INTEGERS:
            return None
        return [int(number) for number in tensor.read().ravel()]

    # -- sizes -------------------------------------------------------------------------------------

    def width(self, ref: Ref, deep: int = 0) -> int | None:
        """Return the length of a value's last axis, where the graph tells it."""
        return self._cached(self._caches.widths, self.known_widths, self._width, ref, deep)

    def _cached(
        self,
        cache: dict[Ref, int | None],
        stated: Mapping[Ref, int],
        compute: Callable[[Ref, int], int | None],
        ref: Ref,
        deep: int,
    ) -> int | None:
        """Return a size of a value: stated, known from before, or computed from its inputs.

        In a loop a value may depend on itself. What is not known only because of that is asked
        again, a limited number of times.
        """
        if ref in stated:
            return stated[ref]
        if not self._caches.open:
            self._caches.asked = 0
        if ref in cache:
            if ref in self._caches.open:
                self._caches.is_open_met = True
            return cache[ref]
        self._caches.asked += 1
        if deep >= _LONGEST or self._caches.asked > _MOST_ASKED:
            return None
        before, self._caches.is_open_met = self._caches.is_open_met, False
        cache[ref] = None
        self._caches.open.add(ref)
        result = compute(ref, deep + 1)
        self._caches.open.discard(ref)
        if result is None and self._caches.is_open_met:
            del cache[ref]
        else:
            cache[ref] = result
        self._caches.is_open_met = self._caches.is_open_met or before
        return result

    def _width(self, ref: Ref, deep: int) -> int | None:
        tensor = self.constant(ref)
        if tensor is not None:
            return tensor.shape[-1] if tensor.shape else None
        node = self.nodes.get(ref)
        if node is None:
            carried = self.carried.get(ref)
            return self.width(carried.following, deep) if carried is not None else None
        match node.kind:
            case "matmul":
                weights = self.constant(node.inputs[1])
                if weights is None or len(weights.shape) != 2:
                    return None
                return weights.shape[0 if node.get("turned") else 1]
            case "slice" if self.rank(ref) is None and node.get("axis") != -1:
                return None
            case "slice" if self.is_last(ref):
                whole = self.width(node.inputs[0], deep)
                stop = node.get("stop")
                start = node.get("start")
                if whole is not None:
                    return len(range(whole)[start:stop])
                return stop - start if stop is not None and 0 <= start < stop else None
            case "concat" if self.is_last(ref):
                parts = [self.width(source, deep) for source in node.inputs]
                return sum(filter(None, parts)) if None not in parts else None
            case "reshape":
                shape = node.get("shape")
                return shape[-1] if shape and shape[-1] > 0 else None
        if node.kind in BINARY or node.kind == "where":
            parts = [self.width(source, deep) for source in node.inputs[-2:]]
            return max((part for part in parts if part is not None), default=None)
        is_same = node.kind in UNARY or self.passes(ref) or node.kind in ("slice", "concat")
        return self.width(node.inputs[0], deep) if is_same and node.inputs else None

    def rank(self, ref: Ref, deep: int = 0) -> int | None:
        """Return the number of a value's axes, where the graph tells it."""
        return self._cached(self._caches.ranks, self.known_ranks, self._rank, ref, deep)

    def _rank(self, ref: Ref, deep: int) -> int | None:
        tensor = self.constant(ref)
        if tensor is not None:
            return len(tensor.shape)
        node = self.nodes.get(ref)
        if node is None:
            carried = self.carried.get(ref)
            return self.rank(carried.following, deep) if carried is not None else None
        if node.kind in ("reshape", "transpose"):
            sizes = node.get("shape" if node.kind == "reshape" else "order")
            return len(sizes) if sizes else None
        if node.kind in BINARY or node.kind in ("where", "masked"):
            both = node.inputs[:2] if node.kind == "masked" else node.inputs[-2:]
            parts = [self.rank(source, deep) for source in both]
            # Beside a value of unknown rank, a number by itself tells nothing.
            known = [part for part in parts if part]
            return max(known) if known else None if None in parts else 0
        if node.kind in ("move", "take"):
            rank = self.rank(node.inputs[0], deep)
            change = node.get("axes")
            return rank + change if rank is not None and change is not None else None
        if node.kind in UNARY or node.kind in ("slice", "concat", "identity", "matmul"):
            parts = [self.rank(source, deep) for source in node.inputs]
            return next((part for part in parts if part is not None), None)
        return None

    def counts(self, ref: Ref, deep: int = 0) -> str | None:
        """Return how a value counts the steps of a loop: `scan` from 0 on, `scan_back` down to 0;
        None if it does not, or it cannot be told.

        Args:
            ref: an index: a value that a loop carries, or a number less it.
            deep: how many sums it is inside of.
        """
        ref = self.origin(ref)
        node = self.nodes.get(ref)
        if deep > _DEEPEST_INDEX:
            return None
        if node is not None and node.kind == "sub":
            return "scan_back" if self.counts(node.inputs[1], deep + 1) == "scan" else None
        if node is not None and node.kind == "add":
            listed = [self.counts(source, deep + 1) for source in node.inputs]
            return "scan_back" if "scan_back" in listed else None
        carried = self.carried.get(ref)
        if carried is None:
            return None
        following = self.nodes.get(self.origin(carried.following))
        if following is None or carried.start is None or following.kind not in ("add", "sub"):
            return None
        first, second = following.inputs
        pairs = [(first, second), (second, first)][: 1 if following.kind == "sub" else 2]
        for counter, amount in pairs:
            step = self.scalar(amount)
            if self.origin(counter) != ref or step is None:
                continue
            step = step if following.kind == "add" else -step
            if step == 1 and self.scalar(carried.start) == 0:
                return "scan"
            if step == -1:
                return "scan_back"
        return None

    def is_last(self, ref: Ref) -> bool:
        """Whether the axis of a slice or of a concat is the last."""
        node = self.nodes[ref]
        axis = node.get("axis")
        if axis == -1:
            return True
        rank = self.rank(ref)
        return bool(axis is not None and rank and axis % rank == rank - 1)

    def is_last_axis(self, ref: Ref, axis: int) -> bool:
        """Whether an axis of a value is its last, as far as the graph tells."""
        rank = self.rank(ref)
        return axis == -1 or not rank or axis % rank == rank - 1


def _is_equal(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether two small constants have the same numbers."""
    if first is None or second is None or first.size > _LONGEST:
        return False
    is_alike = (first.shape, first.dtype) == (second.shape, second.dtype)
    return is_alike and first.read().tobytes() == second.read().tobytes()


_ARRANGED = frozenset({"transpose", "slice", "concat", "reshape", "identity", "expand", "take"})


def _arranged(node: FlowNode, parts: list[Tensor]) -> Tensor | None:
    """Return what a node makes of constants."""
    tensor = parts[0]
    rank = len(tensor.shape)
    axis = node.get("axis")
    if axis is not None and rank:
        axis %= rank
    match node.kind:
        case "identity":
            return tensor
        case "transpose" if rank == 2 and node.get("order") in (None, (1, 0)):
            return transposed(tensor)
        case "transpose" if node.get("order") == tuple(range(rank)) or rank < 2:
            return tensor
        case "slice" if rank in (1, 2) and axis is not None:
            length = tensor.shape[axis]
            chosen = range(length)[node.get("start") : node.get("stop")]
            if not len(chosen):
                return None
            if axis == rank - 1:
                return columns(tensor, chosen.start, chosen.stop)
            return rows(tensor, chosen.start, chosen.stop)
        case "concat" if all(len(part.shape) == rank for part in parts) and rank:
            if axis == rank - 1:
                return side_by_side(parts)
            return concatenated(parts) if rank == 2 else None
        case "expand":
            shape = node.get("shape")
            return Reshaped(tensor, shape) if shape is not None else tensor
        case "reshape":
            shape = _completed(node.get("shape"), tensor.size)
            return Reshaped(tensor, shape) if shape is not None else None
        case "take" if rank and node.get("index") is not None and axis is not None:
            index = node.get("index")
            if not -tensor.shape[axis] <= index < tensor.shape[axis]:
                return None
            return ArrayTensor(np.ascontiguousarray(np.take(tensor.read(), index, axis)))
    return None


def _completed(shape: tuple[int, ...] | None, size: int) -> tuple[int, ...] | None:
    """Return a shape with its one unknown axis filled in."""
    if shape is None or sum(length < 0 for length in shape) > 1:
        return None
    known = 1
    for length in shape:
        known *= length if length >= 0 else 1
    if -1 not in shape:
        return shape if known == size else None
    if known == 0 or size % known:
        return None
    return tuple(length if length >= 0 else size // known for length in shape)


# -- computed by its own operations --------------------------------------------------------------


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
def computed(node: FlowNode, parts: list[Array]) -> Array:
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


def _value(flow: Flow, ref: Ref, node: FlowNode, parts: list[Array]) -> Array:
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

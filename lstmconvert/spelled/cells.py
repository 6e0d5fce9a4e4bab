"""Finding LSTM cells in a graph of plain operations.

    z_g = x·K_g + h·R_g + b_g       a sum of products, cut and joined in any order: `Sum`
    i, f, o = σ(z), g = φ(z)        functions of it, however they are written: `_Gate`
    c' = f * c + i * g              an addition of two products
    h' = o * φ(c')

An addition of two products is looked at, whatever its name and place: the factor that is not a
function of a sum is the state c, and its companion is the forget gate. Products of c' with a
function of a sum are the outputs. A cell is one only where its state comes back: h' and c' are what
a loop carries to the next step, or what the next step of an unrolled graph takes. Then the step is
computed both ways, by the graph's own operations and by the reference, on random numbers; what
differs by more than rounding is not a cell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations
from typing import NamedTuple

import numpy as np

from lstmconvert.errors import LSTMConvertError
from lstmconvert.model.activations import (
    HARD_SIGMOID_KERAS2,
    HARD_SIGMOID_KERAS3,
    KERAS2,
    LINEAR,
    SIGMOID,
    TANH,
    Activation,
)
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, weights_of
from lstmconvert.model.options import CellOptions, DirectionOptions
from lstmconvert.reference import run
from lstmconvert.reference.maths import apply
from lstmconvert.spelled.flow import (
    BINARY,
    UNARY,
    Flow,
    FlowNode,
    Ref,
    UnprovenError,
    computed,
    evaluate,
)
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Tensor
from lstmconvert.tensors.views import (
    Reshaped,
    Zeros,
    columns,
    concatenated,
    rows,
    transposed,
)

#: The functions that a gate may have, however it is written.
_FUNCTIONS: tuple[Activation, ...] = (
    *(SIGMOID, TANH, HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3, LINEAR),
    *(KERAS2[name] for name in ("relu", "softsign", "softplus", "elu", "selu")),
)
#: Where functions are compared, and how close they must be: constants of float32 round.
_GRID = np.linspace(-8, 8, 257)
_CLOSE = 1e-6
#: How many operations a function is written in, at most: 1 / (1 + exp(-x)) takes four.
_LONGEST_FUNCTION = 12
#: A product, its bias, two bounds, and what hands them on.
_LONGEST_PROJECTION = 6
#: How far two ways of computing a step may differ, in float64, relative to the numbers.
_ROUNDING = 1e-6
_BATCH = 3


class Term(NamedTuple):
    """One product of a sum: `source` · `kernel` (features of the source, width).

    `path`: the values from what is multiplied back to the source; `weights`: the value of the graph
    that the kernel is cut out of. `diagonal`: the kernel is a
    vector (width,), multiplied element by element: a peephole.
    """

    source: Ref
    kernel: Tensor
    path: tuple[Ref, ...]
    weights: Ref
    diagonal: bool = False


class Bias(NamedTuple):
    """A constant that is added: a vector, or one number. `joined`: the sources of the products that
    it is added to, before any other; `is_vector`: it has an axis in the graph."""

    tensor: Tensor
    joined: frozenset[Ref]
    weights: Ref
    is_vector: bool


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum of products and constants, `width` wide, in the order of the graph."""

    terms: tuple[Term, ...]
    biases: tuple[Bias, ...]
    width: int

    @property
    def sources(self) -> frozenset[Ref]:
        """What is multiplied."""
        return frozenset(term.source for term in self.terms)

    def cut(self, start: int, stop: int) -> Sum:
        """Return a range of its columns."""
        if (start, stop) == (0, self.width):
            return self
        return Sum(
            tuple(term._replace(kernel=columns(term.kernel, start, stop)) for term in self.terms),
            tuple(
                bias if bias.tensor.size == 1
                else bias._replace(tensor=columns(bias.tensor, start, stop))
                for bias in self.biases
            ),
            stop - start,
        )

    def of(self, source: Ref) -> list[Term]:
        """Return the products of a source, without peepholes."""
        return [term for term in self.terms if term.source == source and not term.diagonal]


class _Pair(NamedTuple):
    """Two functions of one sum, whose results an operation joins: x / (1 + |x|)."""

    first: tuple[_Link, ...]
    second: tuple[_Link, ...]


#: One operation of a function: the node, and its constant operand with its place, or both of its
#: operands, if it has any but the value so far.
_Link = tuple[FlowNode, "tuple[int, float] | _Pair | None"]


class _Gate(NamedTuple):
    links: tuple[_Link, ...]
    sum: Sum


@dataclass(frozen=True, slots=True)
class Match:
    """A cell that was found, and is not proved yet.

    Fields: `gates`: gate -> its sum; the input gate is missing where it is 1 - forget gate; the
    functions; `state`: the value that is the cell state before the step, as it is multiplied;
    `carry`: the state after it; `hidden`: its output; `outputs`: values that are the output:
    itself, clipped, projected; `clip` of the state.
    """

    gates: Mapping[Gate, Sum]
    activation: Activation
    recurrent: Activation
    output_activation: Activation
    state: Ref
    carry: Ref
    hidden: Ref
    clip: float | None
    name: str


class _Projected(NamedTuple):
    value: Ref
    kernel: Tensor | None = None
    bias: Tensor | None = None
    clip: float | None = None
    weights: tuple[Ref, ...] = ()


class Mask(NamedTuple):
    """That a loop leaves out steps: `conditions`: the values that say so, of the output and of the
    state; `when` they are for a step that counts; `ends`: what output and state go on as."""

    conditions: tuple[Ref, ...]
    when: bool
    ends: tuple[Ref, Ref]


@dataclass(frozen=True)
class Spelled:
    """A cell of a graph, proved.

    Fields: `match`; `cell`; `h`: the source that is the output of the step before; `xs`: the
    sources of the input, side by side; `previous`: the carry of the step before, in an unrolled
    graph; `output`: the value that comes back; `paths`: source -> the values from what is
    multiplied back to it; `weights`: the values of the graph that the weights are cut out of;
    `inside`: all values between the output of the step before and what it is multiplied by;
    `mask`: that steps are left out, if they are.
    """

    match: Match
    cell: Cell
    h: Ref
    xs: tuple[Ref, ...]
    output: Ref
    previous: Ref | None = None
    paths: Mapping[Ref, tuple[Ref, ...]] = field(default_factory=dict)
    weights: frozenset[Ref] = frozenset()
    inside: frozenset[Ref] = frozenset()
    mask: Mask | None = None

    @cached_property
    def key(self) -> str:
        """A digest of its weights: steps of one layer have the same."""
        digest = hashlib.sha256()
        for name, tensor in self.cell.tensors():
            digest.update(f"{name} {tensor.shape}".encode())
            digest.update(tensor.read().tobytes())
        return digest.hexdigest()


class Finder:
    """Finds the cells of a graph.

    Args:
        flow: the graph.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._sums: dict[Ref, Sum | None] = {}
        self._gates: dict[Ref, _Gate | None] = {}
        self._refused: dict[Ref, str] = {}
        self._keys: set[str] = set()
        self.matches: dict[Ref, list[Match]] = {}

    def cells(self) -> list[Spelled]:
        """Return the cells that are proved: of an unrolled graph each step that follows another."""
        matches = [match for ref in self._flow.nodes for match in self._matches(ref)]
        if self._find_masks(matches):
            self._sums, self._gates = {}, {}
            self._flow.forget()
            matches = [match for ref in self._flow.nodes for match in self._matches(ref)]
        by_carry = self.matches
        for match in matches:
            by_carry.setdefault(match.carry, []).append(match)
        result: dict[Ref, Spelled] = {}
        for match in matches:
            if match.carry not in result:
                spelled = self._recurrent(match, by_carry)
                if spelled is not None:
                    result[match.carry] = spelled
        for spelled in list(result.values()):
            self._add_earlier(spelled, result)
        for carry in result:
            self._refused.pop(carry, None)
        return list(result.values())

    def _find_masks(self, matches: Sequence[Match]) -> bool:
        """Find where an unrolled graph chooses between what a step makes and what was before it;
        return whether it does."""
        flow = self._flow
        hidden = {match.hidden for match in matches}
        masked: dict[Ref, FlowNode] = {}
        for match in matches:
            state = flow.origin(match.state)
            if state in flow.carried:
                continue
            sources = frozenset.intersection(*(total.sources for total in match.gates.values()))
            for value, kept in ((match.carry, {state}), (match.hidden, sources)):
                for after in self._after(value):
                    node = flow.nodes[after]
                    if node.kind != "where" or len(node.inputs) != 3:
                        continue
                    condition, *branches = node.inputs
                    is_new = [value in flow.path(branch) for branch in branches]
                    if is_new[0] is is_new[1]:
                        continue
                    old = branches[is_new[0]]
                    is_output = value == match.hidden and self._is_output(old, hidden)
                    if flow.origin(old) in kept or is_output:
                        inputs = branches[is_new[1]], old, condition
                        masked[after] = FlowNode("masked", inputs, {"when": is_new[0]})
        flow.nodes.update(masked)
        return bool(masked)

    def _is_output(self, ref: Ref, hidden: set[Ref]) -> bool:
        """Whether a value is what a step gave, or the one before it where that was left out."""
        node = self._flow.nodes.get(self._flow.origin(ref))
        branches = node.inputs[1:] if node is not None and node.kind == "where" else ()
        is_start = node is not None and node.kind == "fill" and node.get("value") == 0
        return is_start or any(hidden & set(self._flow.path(branch)) for branch in branches)

    @property
    def refused(self) -> list[str]:
        """What looked like a cell whose state comes back, and why it is none."""
        return list(self._refused.values())

    # -- sums ------------------------------------------------------------------------------------

    def sum(self, ref: Ref, deep: int = 0) -> Sum | None:
        """Return the sum of products that a value is; None if it is none."""
        if ref not in self._sums:
            self._sums[ref] = None  # a value that depends on itself is none
            if deep < _LONGEST_FUNCTION * 4:
                self._sums[ref] = self._sum(ref, deep + 1)
        return self._sums[ref]

    def _sum(self, ref: Ref, deep: int) -> Sum | None:
        flow = self._flow
        node = flow.nodes.get(ref)
        if node is None:
            return None
        if flow.passes(ref):
            inner = self.sum(node.inputs[0], deep)
            if inner is None:
                return None
            terms = tuple(term._replace(path=(ref, *term.path)) for term in inner.terms)
            return replace(inner, terms=terms)
        match node.kind:
            case "matmul":
                return self._product(node)
            case "add":
                return self._added(node, deep)
            case "slice" if flow.is_last(ref):
                whole = self.sum(node.inputs[0], deep)
                if whole is None:
                    return None
                chosen = range(whole.width)[node.get("start") : node.get("stop")]
                return whole.cut(chosen.start, chosen.stop) if len(chosen) else None
        return None

    def _product(self, node: FlowNode) -> Sum | None:
        weights = self._flow.constant(node.inputs[1])
        if weights is None or len(weights.shape) != 2 or not _is_float(weights):
            return None
        kernel = transposed(weights) if node.get("turned") else weights
        pieces = self._pieces(node.inputs[0], kernel.shape[0])
        if pieces is None:
            return None
        terms, row = [], 0
        for path, width in pieces:
            cut = rows(kernel, row, row + width)
            terms.append(Term(path[-1], cut, tuple(path), node.inputs[1]))
            row += width
        return Sum(tuple(terms), (), kernel.shape[1])

    def _pieces(
        self, ref: Ref, total: int, deep: int = 0
    ) -> list[tuple[list[Ref], int]] | None:
        """Return what stands side by side in a value: the path of each piece, and its width."""
        flow = self._flow
        path = flow.path(ref)
        node = flow.nodes.get(path[-1])
        if node is None or node.kind != "concat" or not flow.is_last(path[-1]):
            return [(path, total)]
        widths = [flow.width(source) for source in node.inputs]
        unknown = [place for place, width in enumerate(widths) if width is None]
        if len(unknown) > 1 or deep > _LONGEST_FUNCTION:
            return None
        rest = total - sum(width for width in widths if width is not None)
        if unknown:
            widths[unknown[0]] = rest
        if min(width or 0 for width in widths) < 1 or sum(width or 0 for width in widths) != total:
            return None
        pieces: list[tuple[list[Ref], int]] = []
        for source, width in zip(node.inputs, widths, strict=True):
            inner = self._pieces(source, width or 0, deep + 1)
            if inner is None:
                return None
            pieces += [([*path, *below], size) for below, size in inner]
        return pieces

    def _added(self, node: FlowNode, deep: int) -> Sum | None:
        parts = [self._summand(source, deep) for source in node.inputs]
        first, second = parts
        if first is None or second is None or not (first.terms or second.terms):
            return None
        width = max(first.width, second.width)
        for part, other in ((first, second), (second, first)):
            if part.width not in (1, width) or (part.terms and part.width != width):
                return None
            if not part.terms and other.terms:  # constants that join the products there are
                joined = tuple(bias._replace(joined=other.sources) for bias in part.biases)
                return Sum(other.terms, (*other.biases, *joined), width)
        return Sum((*first.terms, *second.terms), (*first.biases, *second.biases), width)

    def _summand(self, ref: Ref, deep: int) -> Sum | None:
        flow = self._flow
        tensor = flow.constant(ref)
        if tensor is not None:
            if not _is_float(tensor) or tensor.size != (tensor.shape or (1,))[-1]:
                return None
            vector = tensor if len(tensor.shape) == 1 else Reshaped(tensor, (tensor.size,))
            bias = Bias(vector, frozenset(), ref, bool(tensor.shape))
            return Sum((), (bias,), tensor.size)
        return self.sum(ref, deep) or self._diagonal(ref)

    def _diagonal(self, ref: Ref) -> Sum | None:
        """Return the sum that a peephole is: a state times a vector."""
        flow = self._flow
        path = flow.path(ref)
        node = flow.nodes.get(path[-1])
        if node is None or node.kind != "mul":
            return None
        for state, vector in (node.inputs, node.inputs[::-1]):
            tensor = flow.constant(vector)
            if tensor is None or not _is_float(tensor) or not tensor.shape or not tensor.size:
                continue
            if tensor.size == tensor.shape[-1] and flow.constant(state) is None:
                flat = tensor if len(tensor.shape) == 1 else Reshaped(tensor, (tensor.size,))
                below = flow.path(state)
                term = Term(below[-1], flat, tuple(below), vector, diagonal=True)
                return Sum((term,), (), tensor.size)
        return None

    # -- gates -----------------------------------------------------------------------------------

    def gate(self, ref: Ref, deep: int = 0) -> _Gate | None:
        """Return a value as a function of a sum of products; None if it is none."""
        if ref not in self._gates:
            self._gates[ref] = None
            self._gates[ref] = self._gate(ref, deep)
        return self._gates[ref]

    def _joined(self, node: FlowNode, deep: int) -> tuple[_Pair, Sum] | None:
        """Return two functions of one sum that a node joins."""
        if deep > 2:
            return None
        first, second = (self.gate(source, deep + 1) for source in node.inputs)
        if first is None or second is None or first.sum is not second.sum:
            return None
        return _Pair(first.links, second.links), first.sum

    def _gate(self, ref: Ref, deep: int) -> _Gate | None:
        flow = self._flow
        links: list[_Link] = []
        span: tuple[int, int | None] = (0, None)
        for _ in range(_LONGEST_FUNCTION + 4):
            whole = self.sum(ref)
            if whole is not None and any(not term.diagonal for term in whole.terms):
                stop = whole.width if span[1] is None else span[1]
                if not 0 <= span[0] < stop <= whole.width:
                    return None
                return _with_shift(_Gate(tuple(reversed(links)), whole.cut(span[0], stop)))
            node = flow.nodes.get(ref)
            if node is None:
                return None
            if node.kind in UNARY:
                links.append((node, None))
                ref = node.inputs[0]
            elif node.kind in BINARY and (link := self._scalar_link(node)) is not None:
                ref, (place, number) = link
                links.append((node, (place, number)))
            elif node.kind in BINARY:
                joined = self._joined(node, deep)
                if joined is None or span != (0, None):
                    return None
                links.append((node, joined[0]))
                return _Gate(tuple(reversed(links)), joined[1])
            elif node.kind == "slice" and flow.is_last(ref):
                start, stop_ = node.get("start") or 0, node.get("stop")
                if start < 0 or (stop_ is not None and stop_ < 0):
                    return None
                inner_stop = stop_ if span[1] is None else start + span[1]
                span = (start + span[0], inner_stop)
                ref = node.inputs[0]
            elif node.kind == "concat" and flow.is_last(ref):
                inside = self._piece(node, span)
                if inside is None:
                    return None
                ref, span = inside
            elif flow.passes(ref):
                ref = node.inputs[0]
            else:
                return None
        return None

    def _scalar_link(self, node: FlowNode) -> tuple[Ref, tuple[int, float]] | None:
        for place in (0, 1):
            number = self._flow.scalar(node.inputs[place])
            if number is not None:
                return node.inputs[1 - place], (place, number)
        return None

    def _piece(
        self, node: FlowNode, span: tuple[int, int | None]
    ) -> tuple[Ref, tuple[int, int | None]] | None:
        at = 0
        for source in node.inputs:
            width = self._flow.width(source)
            if width is None:
                return None
            if at <= span[0] < at + width:
                if span[1] is None or span[1] > at + width:
                    return None
                return source, (span[0] - at, span[1] - at)
            at += width
        return None

    # -- cells -----------------------------------------------------------------------------------

    def _matches(self, ref: Ref) -> Iterator[Match]:
        flow = self._flow
        node = flow.nodes[ref]
        if node.kind != "add" or len(node.inputs) != 2:
            return
        products = [flow.nodes.get(flow.origin(source)) for source in node.inputs]
        if any(product is None or product.kind != "mul" for product in products):
            return
        factors = [product.inputs for product in products if product is not None]
        for kept, added in (factors, factors[::-1]):
            for state, forget in (kept, kept[::-1]):
                gates = self.gate(forget), self.gate(added[0]), self.gate(added[1])
                if self.gate(state) is None and None not in gates:
                    yield from self._with_outputs(ref, state, forget, added)

    def _with_outputs(
        self, ref: Ref, state: Ref, forget: Ref, added: Sequence[Ref]
    ) -> Iterator[Match]:
        forget_gate = self.gate(forget)
        if forget_gate is None:
            return
        for carry, clip in self._clipped(ref):
            for hidden, output, links in self._hidden(carry):
                output_gate, function = self.gate(output), _identified(links)
                if output_gate is None or function is None:
                    continue
                recurrent = _identified(forget_gate.links)
                if recurrent is None or _identified(output_gate.links) != recurrent:
                    continue
                for input_ref, cell_ref in permutations(added):
                    gates = self._assigned(forget_gate, output_gate, input_ref, cell_ref, recurrent)
                    if gates is None:
                        continue
                    sums, activation = gates
                    name = self._flow.names.get(ref, "")
                    yield Match(
                        sums, activation, recurrent, function, state, carry, hidden, clip, name
                    )
                    break

    def _assigned(
        self, forget: _Gate, output: _Gate, input_ref: Ref, cell_ref: Ref, recurrent: Activation
    ) -> tuple[dict[Gate, Sum], Activation] | None:
        input_gate, cell = self.gate(input_ref), self.gate(cell_ref)
        if input_gate is None or cell is None:
            return None
        activation = _identified(cell.links)
        sums = {Gate.FORGET: forget.sum, Gate.CELL: cell.sum, Gate.OUTPUT: output.sum}
        if activation is None or len({total.width for total in sums.values()}) != 1:
            return None
        if _identified(input_gate.links) == recurrent:
            sums[Gate.INPUT] = input_gate.sum
        elif not (input_gate.sum == forget.sum and _is_rest(input_gate.links, recurrent)):
            return None
        return sums, activation

    def _clipped(self, ref: Ref) -> Iterator[tuple[Ref, float | None]]:
        """Yield a value, and itself after a clip to a symmetric range."""
        yield ref, None
        for after in self._after(ref):
            clip = self._clip_of(after)
            if clip is not None:
                yield clip

    def _after(self, ref: Ref) -> Iterator[Ref]:
        """Yield the values that are made of a value, or of what hands it on."""
        waiting, seen = [ref], {ref}
        while waiting:
            for after in self._flow.consumers.get(waiting.pop(), []):
                if after in seen:
                    continue
                seen.add(after)
                node = self._flow.nodes[after]
                if node.kind in ("identity", "expand", "reshape") and self._flow.passes(after):
                    waiting.append(after)
                yield after

    def _clip_of(self, ref: Ref) -> tuple[Ref, float | None] | None:
        flow = self._flow
        node = flow.nodes[ref]
        if node.kind == "clip":
            low, high = node.get("low"), node.get("high")
            return (ref, high) if low is not None and high is not None and low == -high else None
        if node.kind not in ("min", "max"):
            return None
        first = self._scalar_link(node)
        for after in flow.consumers.get(ref, []):
            other = flow.nodes[after]
            if first is not None and {node.kind, other.kind} == {"min", "max"}:
                second = self._scalar_link(other)
                if second is not None and second[1][1] == -first[1][1]:
                    return after, abs(first[1][1])
        return None

    def _hidden(self, carry: Ref) -> Iterator[tuple[Ref, Ref, tuple[_Link, ...]]]:
        """Yield products with a function of the state: itself, the other factor, the function."""
        waiting: list[tuple[Ref, tuple[_Link, ...]]] = [(carry, ())]
        joined: set[Ref] = set()
        while waiting:
            ref, links = waiting.pop()
            for after in self._flow.consumers.get(ref, []):
                node = self._flow.nodes[after]
                if self._flow.passes(after) and node.kind not in ("take", "move"):
                    waiting.append((after, links))
                elif node.kind in UNARY and len(links) < _LONGEST_FUNCTION:
                    waiting.append((after, (*links, (node, None))))
                elif node.kind in BINARY and len(links) < _LONGEST_FUNCTION:
                    number = self._scalar_link(node)
                    pair = self._pair_of(node, carry) if number is None else None
                    if number is not None:
                        waiting.append((after, (*links, (node, number[1]))))
                    elif pair is not None:
                        if after not in joined:  # both of its operands lead to it
                            waiting.append((after, ((node, pair),)))
                        joined.add(after)
                    elif node.kind == "mul":
                        first, second = node.inputs
                        yield after, second if first == ref else first, links

    def _pair_of(self, node: FlowNode, carry: Ref) -> _Pair | None:
        """Return the two functions of the state that a node joins: x / (1 + |x|)."""
        first, second = (self._links_from(source, carry) for source in node.inputs)
        return None if first is None or second is None else _Pair(first, second)

    def _links_from(self, ref: Ref, carry: Ref) -> tuple[_Link, ...] | None:
        """Return a value as a function of the state; None if it is none."""
        links: list[_Link] = []
        for _ in range(_LONGEST_FUNCTION):
            node = self._flow.nodes.get(ref)
            if ref == carry:
                return tuple(reversed(links))
            if node is not None and node.kind in UNARY:
                links.append((node, None))
                ref = node.inputs[0]
            elif node is not None and node.kind in BINARY:
                link = self._scalar_link(node)
                if link is None:
                    return None
                ref = link[0]
                links.append((node, link[1]))
            elif self._flow.passes(ref) and node is not None:
                ref = node.inputs[0]
            else:
                return None
        return None

    # -- recurrence ------------------------------------------------------------------------------

    def _recurrent(self, match: Match, by_carry: Mapping[Ref, list[Match]]) -> Spelled | None:
        """Return a cell whose state and output come back, if it can be proved."""
        flow = self._flow
        state = flow.origin(match.state)
        sources = frozenset.intersection(*(total.sources for total in match.gates.values()))
        carried = flow.carried.get(state)
        if carried is not None:
            if not self._is(carried.following, match.carry):
                return None
            for source in sources:
                again = flow.carried.get(source)
                projected = self._output(match, again.following) if again is not None else None
                if again is not None and projected is not None:
                    ends = again.following, carried.following
                    return self._proved(match, source, projected, ends=ends)
            return None
        for before in by_carry.get(state, []):
            for source in sources:
                taken = self._output(before, source)
                projected = self._like(match, taken) if taken is not None else None
                if projected is not None:
                    return self._proved(match, source, projected, previous=state)
        return None

    def _add_earlier(self, later: Spelled, result: dict[Ref, Spelled]) -> None:
        """Add the steps before a step that follow none that was found: the first ones of an
        unrolled graph, with the same weights."""
        while later.previous is not None and later.previous not in result:
            listed = [
                spelled
                for match in self.matches.get(later.previous, [])
                if (projected := self._output(match, later.h)) is not None
                for source in match.gates[Gate.FORGET].sources
                if (
                    spelled := self._proved(
                        match, source, projected, previous=self._flow.origin(match.state)
                    )
                )
                is not None
                and spelled.key == later.key
            ]
            if not listed:
                return
            later = result[later.previous] = listed[0]

    def _like(self, match: Match, before: _Projected) -> _Projected | None:
        """Return the output of a step, made as that of the step before it."""
        if before.kernel is None:
            return _Projected(match.hidden)
        for ref in self._behind(match.hidden):
            projected = self._output(match, ref)
            if projected is None or projected.value != ref:
                continue
            if (projected.weights, projected.clip) == (before.weights, before.clip):
                return projected
        return None

    def _behind(self, ref: Ref) -> Iterator[Ref]:
        """Yield what a projection with its bias and its clip can be made of a value in."""
        waiting, seen = [(ref, 0)], {ref}
        while waiting:
            at, depth = waiting.pop()
            for after in self._flow.consumers.get(at, []):
                if after not in seen and depth < _LONGEST_PROJECTION:
                    seen.add(after)
                    yield after
                    waiting.append((after, depth + 1))

    def _is(self, ref: Ref, wanted: Ref) -> bool:
        return wanted in self._flow.path(ref)

    def _output(self, match: Match, ref: Ref) -> _Projected | None:
        """Return how a value is the output of a step: as it is, projected, clipped."""
        if self._is(ref, match.hidden):
            return _Projected(match.hidden)
        end = self._flow.origin(ref)
        clip = None
        for after in self._flow.path(ref):
            node = self._flow.nodes.get(after)
            if node is not None and node.kind in ("clip", "min", "max"):
                clip = after
        value = end
        bound: float | None = None
        if clip is not None:
            inner = self._unclipped(clip)
            if inner is None:
                return None
            value, bound = inner
        total = self.sum(value)
        if total is None or len(total.terms) != 1 or len(total.biases) > 1:
            return None
        (term,) = total.terms
        if term.diagonal or match.hidden not in term.path:
            return None
        bias = total.biases[0].tensor if total.biases else None
        weights = (term.weights, *(item.weights for item in total.biases))
        return _Projected(end, term.kernel, bias, bound, weights)

    def _unclipped(self, ref: Ref) -> tuple[Ref, float] | None:
        flow = self._flow
        node = flow.nodes[ref]
        if node.kind == "clip":
            high = node.get("high")
            return (node.inputs[0], high) if high is not None else None
        inner = self._scalar_link(node)
        if inner is None:
            return None
        deeper = flow.nodes.get(inner[0])
        below = self._scalar_link(deeper) if deeper is not None else None
        return (below[0], abs(inner[1][1])) if below is not None else None

    # -- proof -----------------------------------------------------------------------------------

    def _mask(self, ends: tuple[Ref, Ref]) -> Mask | None:
        """Return the mask of a step, whose output and state go on as `ends`.

        Raises:
            UnprovenError: the two do not have one mask.
        """
        flow = self._flow
        masks = [
            [node for ref in flow.path(end) if (node := flow.nodes.get(ref)) and
             node.kind == "masked"]
            for end in ends
        ]  # fmt: skip
        if not any(masks):
            return None
        if [len(each) for each in masks] != [1, 1]:
            raise UnprovenError("the state and the output are not masked alike")
        output, state = masks[0][0], masks[1][0]
        conditions = output.inputs[2], state.inputs[2]
        if output.get("when") is not state.get("when") or not flow.is_alike(*conditions):
            raise UnprovenError("the state and the output have different masks")
        return Mask(conditions, output.get("when"), ends)

    def _proved(
        self,
        match: Match,
        h: Ref,
        projected: _Projected,
        previous: Ref | None = None,
        ends: tuple[Ref, Ref] | None = None,
    ) -> Spelled | None:
        try:
            spelled = self._built(match, h, projected, previous)
            if spelled is not None:
                # Of an unrolled graph, that of the step before.
                given = (ref for ref in spelled.paths[h] if self._flow.origin(ref) == h)
                ends = ends or (next(given, h), match.state)
                spelled = replace(spelled, mask=self._mask(ends))
            if spelled is not None:
                self._prove(spelled)
                self._keys.add(spelled.key)
            return spelled
        except (UnprovenError, LSTMConvertError, ValueError) as error:
            text = str(error).splitlines()[0] if str(error) else "no reason"
            self._refused[match.carry] = f"{match.name or 'a cell'}: {text}"
            return None

    def _built(
        self, match: Match, h: Ref, projected: _Projected, previous: Ref | None
    ) -> Spelled | None:
        order = [term.source for term in match.gates[Gate.FORGET].terms if not term.diagonal]
        xs = tuple(dict.fromkeys(source for source in order if source != h))
        if not xs:
            raise UnprovenError("the step takes no input")
        gates: dict[Gate, dict[str, Tensor]] = {}
        added: dict[Gate, float] = {}
        paths: dict[Ref, tuple[Ref, ...]] = {}
        has_bias = any(self._biases(total, h)[0] for total in match.gates.values())
        for gate, total in match.gates.items():
            parts, number = self._parts(match, gate, total, h, xs, has_bias=has_bias)
            gates[gate] = parts
            if number is not None:
                added[gate] = number
            for term in total.terms:
                paths.setdefault(term.source, term.path)
        if any(gate is not Gate.FORGET for gate in added):
            raise UnprovenError("a number is added to a gate that is not the forget gate")
        extra = {"projection": projected.kernel, "projection_bias": projected.bias}
        cell = Cell(
            gates=weights_of(gates),
            options=CellOptions(
                activation=match.activation,
                recurrent_activation=match.recurrent,
                output_activation=(
                    None if match.output_activation == match.activation else match.output_activation
                ),
                use_bias=has_bias,
                forget_bias=added.get(Gate.FORGET, 0.0),
                cell_clip=match.clip,
                projection_clip=projected.clip,
                input_forget=Gate.INPUT not in gates,
            ),
            parts={name: tensor for name, tensor in extra.items() if tensor is not None},
        )
        weights = {item.weights for total in match.gates.values() for item in total.terms}
        weights |= {
            item.weights
            for total in match.gates.values()
            for item in total.biases
            if item.tensor.size == total.width
        }
        weights |= set(projected.weights)
        inside = {
            ref
            for total in match.gates.values()
            for term in total.of(h)
            for ref in term.path
        }
        return Spelled(
            match,
            cell,
            h,
            xs,
            projected.value,
            previous,
            paths,
            frozenset(weights),
            frozenset(inside),
        )

    def _biases(self, total: Sum, h: Ref) -> tuple[dict[str, Tensor], list[float]]:
        """Return the vectors that are added to a gate, and the numbers."""
        vectors: dict[str, Tensor] = {}
        listed = [bias for bias in total.biases if bias.tensor.size == total.width]
        if total.width == 1 and any(bias.is_vector for bias in listed):
            listed = [bias for bias in listed if bias.is_vector]
        numbers = [
            float(bias.tensor.read().reshape(())) for bias in total.biases if bias not in listed
        ]
        for bias in listed:
            is_recurrent = len(listed) > 1 and bias.joined == {h}
            part = "recurrent_bias" if is_recurrent else "bias"
            if part in vectors:
                raise UnprovenError("a gate with more biases than an LSTM has")
            vectors[part] = bias.tensor
        return vectors, numbers

    def _parts(
        self, match: Match, gate: Gate, total: Sum, h: Ref, xs: Sequence[Ref], *, has_bias: bool
    ) -> tuple[dict[str, Tensor], float | None]:
        """Return the tensors of one gate, and the number that is added to it."""
        if {term.source for term in total.terms if not term.diagonal} != {h, *xs}:
            raise UnprovenError("the gates do not take the same inputs")
        parts: dict[str, Tensor] = {}
        kernels: list[Tensor] = []
        for source in (*xs, h):
            terms = total.of(source)
            if len(terms) != 1:
                raise UnprovenError("a gate takes an input twice")
            if source == h:
                parts["recurrent_kernel"] = terms[0].kernel
            else:
                kernels.append(terms[0].kernel)
        parts["kernel"] = concatenated(kernels) if len(kernels) > 1 else kernels[0]
        state = match.carry if gate is Gate.OUTPUT else self._flow.origin(match.state)
        for term in total.terms:
            if term.diagonal:
                if gate is Gate.CELL or "peephole" in parts or state not in term.path:
                    raise UnprovenError("a gate takes something else than input, output and state")
                parts["peephole"] = term.kernel
        vectors, numbers = self._biases(total, h)
        if has_bias and "bias" not in vectors:
            vectors["bias"] = Zeros((total.width,), parts["kernel"].dtype)
        parts.update(vectors)
        return parts, sum(numbers) if numbers else None

    def _prove(self, spelled: Spelled) -> None:
        """Compute a step both ways.

        Raises:
            UnprovenError: they differ, or the graph's cannot be computed.
        """
        flow, cell, match = self._flow, spelled.cell, spelled.match
        widths = self._widths(spelled)
        # Further steps of a layer, whose weights are known to be right, are tried once.
        trials = ((1, 0.4), (2, 1.5), (3, 4.0))[: 1 if spelled.key in self._keys else 3]
        for seed, scale in trials:
            rng = np.random.default_rng(seed)
            values = {
                source: rng.normal(size=(_BATCH, width)) * scale for source, width in widths.items()
            }
            h = rng.uniform(-1, 1, (_BATCH, cell.recurrent_dim)) * scale
            c = rng.normal(size=(_BATCH, cell.units)) * scale
            given: dict[Ref, Array] = {**values, **dict.fromkeys(flow.path(match.state), c)}
            given[spelled.h] = h
            known = evaluate(flow, (match.carry, spelled.output), given)
            layer = step_of(cell)
            x = np.concatenate([values[source] for source in spelled.xs], axis=-1)
            ours = run(layer, x[:, None], initial_state=(h, c), dtype="float64")
            for mine, theirs in zip(ours.states, (known[spelled.output], known[match.carry]),
                                    strict=True):
                theirs = np.broadcast_to(theirs, mine.shape)
                if not np.all(np.abs(mine - theirs) <= _ROUNDING * (1 + np.abs(theirs))):
                    raise UnprovenError("the step computes something else than an LSTM's")
            if spelled.mask is not None and spelled.previous is None:
                new = known[spelled.output], known[match.carry]
                self._prove_mask(spelled.mask, given, new, (h, c))

    def _prove_mask(
        self,
        mask: Mask,
        given: Mapping[Ref, Array],
        new: tuple[Array, Array],
        old: tuple[Array, Array],
    ) -> None:
        """Compute where a step that counts, and one that does not, goes on: the new and the old."""
        for counts, wanted in ((True, new), (False, old)):
            is_so = np.array(mask.when if counts else not mask.when)
            conditions = dict.fromkeys(mask.conditions, is_so)
            known = evaluate(self._flow, mask.ends, {**given, **conditions})
            for end, value in zip(mask.ends, wanted, strict=True):
                if not np.array_equal(known[end], np.broadcast_to(value, known[end].shape)):
                    raise UnprovenError("a step that is left out does not keep the state")

    def _widths(self, spelled: Spelled) -> dict[Ref, int]:
        total = spelled.match.gates[Gate.FORGET]
        return {source: total.of(source)[0].kernel.shape[0] for source in spelled.xs}


def step_of(cell: Cell) -> LSTMLayer:
    """Return a layer of a cell, to run a step."""
    options = DirectionOptions(
        return_sequences=False,
        return_state=True,
        go_backwards=False,
        stateful=False,
        time_major=False,
        zero_output_for_mask=False,
    )
    forward = Direction(cells=(cell,), options=options)
    return LSTMLayer(name="step", path="step", class_name="LSTM", forward=forward)


def _with_shift(gate: _Gate) -> _Gate:
    """Return a gate whose function begins with the addition of a number, where only that makes it
    one that is known: Keras 3's hard_sigmoid is relu6(x + 3) / 6."""
    biases = gate.sum.biases
    if not biases or biases[-1].tensor.size > 1 or _identified(gate.links) is not None:
        return gate
    number = float(biases[-1].tensor.read().reshape(()))
    links: tuple[_Link, ...] = ((FlowNode("add", ()), (1, number)), *gate.links)
    if _identified(links) is None:
        return gate
    return _Gate(links, replace(gate.sum, biases=biases[:-1]))


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype.kind == "f" or "float" in tensor.dtype.name


def _applied(links: Sequence[_Link], x: Array) -> Array:
    for node, constant in links:
        if constant is None:
            x = computed(node, [x])
        elif isinstance(constant, _Pair):
            x = computed(node, [_applied(constant.first, x), _applied(constant.second, x)])
        else:
            place, number = constant
            other = np.array(number, np.float64)
            x = computed(node, [other, x] if place == 0 else [x, other])
    return x


def _identified(links: Sequence[_Link]) -> Activation | None:
    """Return the function that a row of operations is, by what it gives."""
    try:
        values = _applied(links, _GRID)
    except UnprovenError:
        return None
    listed: list[Activation] = [
        node.get("activation") for node, _ in links if node.kind == "function"
    ]
    for function in (*_FUNCTIONS, *listed):
        if np.all(np.abs(values - apply(function, _GRID)) <= _CLOSE * (1 + np.abs(values))):
            return function
    return None


def _is_rest(links: Sequence[_Link], function: Activation) -> bool:
    """Whether a row of operations is 1 - function."""
    try:
        values = _applied(links, _GRID)
    except UnprovenError:
        return False
    return bool(np.all(np.abs(1 - values - apply(function, _GRID)) <= _CLOSE))

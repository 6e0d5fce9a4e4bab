"""From the cells of a graph to layers: how they run over time, and what is taken of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lstmconvert.model import naming, wellformed
from lstmconvert.model.layer import Direction, LSTMLayer
from lstmconvert.model.options import UNKNOWN, DirectionOptions, LayerOptions, Unknown
from lstmconvert.reference import run
from lstmconvert.spelled.cells import Finder, Spelled, step_of
from lstmconvert.spelled.flow import Flow, Ref, UnprovenError, evaluate
from lstmconvert.tensors.dtypes import Array

#: Parts of a name that say how a graph is written, and nothing of the layer.
_SAYS_NOTHING = re.compile(
    r"(_\d+|while(_\d+)?(_body\w*)?|loop\w*|body|scan\w*|node_\w*|(stateful)?partitionedcall(_\d+)?"
    r"|add(_\d+)?|add_?\w{0,3}|output_0|\w*lstm_cell(_\d+)?|\w*lstmcell(_\d+)?|cell(_\d+)?)",
    re.IGNORECASE,
)
_CLOSE = 1e-6


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was recovered of a graph.

    Fields: `layers`; `weights`: of each the constants that its weights are cut out of; `remarks`:
    of each what the user should know, with `{name}` for its name; `unknown`: the names of states
    that are of no cell that is known; `refused`: what looked like a cell, and why it is none;
    `more`: what else the user should know of the file.
    """

    layers: tuple[LSTMLayer, ...]
    weights: tuple[frozenset[Ref], ...]
    remarks: tuple[tuple[str, ...], ...]
    unknown: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    more: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user."""
        if not self.layers:
            return ()
        names = [layer.name for layer in self.layers]
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        proved = (
            "the graph has no LSTM operator: its cells are recovered from plain operations, and a "
            f"step of each was computed both ways: {listed}"
        )
        notes = [proved]
        for name, remarks in zip(names, self.remarks, strict=True):
            notes += remarks_on(remarks, name)
        return (*notes, *self.left_out, *self.more)

    @property
    def left_out(self) -> tuple[str, ...]:
        """A note on the states that are of no cell that is known, if there are any."""
        if not self.unknown:
            return ()
        note = (
            "states that a loop carries and that are sums of two products, as of a GRU, or of an "
            f"LSTM with a function that is not known, are left out: {', '.join(self.unknown[:8])}"
        )
        return (note,)


#: What is recovered of a graph that is not there.
NOTHING = Recovered((), (), ())


def remarks_on(remarks: Iterable[str], name: str) -> list[str]:
    """Return what is remarked of a layer, with its name."""
    return [remark.replace("{name}", name) for remark in remarks]


def recovered(flow: Flow) -> Recovered:
    """Return the LSTM layers of a graph, each proved by computing a step both ways."""
    finder = Finder(flow)
    cells = finder.cells()
    chains: list[list[Spelled]] = []
    single = []
    every = _chains(flow, cells)
    faults = [_Runs(flow, finder, chain).fault_of_mask() for chain in every]
    faulty = {chain[0].key for chain, fault in zip(every, faults, strict=True) if fault}
    for chain, fault in zip(every, faults, strict=True):
        name = chain[0].match.name or "a cell"
        if fault is not None:
            single.append(f"{name}: {fault}")
        elif chain[0].key in faulty:
            continue
        elif chain[0].previous is None or len(chain) > 1 or (
            _Runs(flow, finder, chain).is_second()
        ):
            chains.append(chain)
        else:
            single.append(f"{name}: no other step has its weights")
    chains = _in_order(flow, chains)
    remarks: list[list[str]] = [[] for _ in chains]
    layers = [
        _Runs(flow, finder, chain).layer(notes)
        for chain, notes in zip(chains, remarks, strict=True)
    ]
    unknown = _unknown_states(flow, {cell.match.carry for cell in cells})
    weights = [
        frozenset(leaf for cell in chain for ref in cell.weights for leaf in flow.leaves(ref))
        for chain in chains
    ]
    groups: list[list[int]] = []
    for place, layer in enumerate(layers):
        like = (weights[place], remarks[place], layer.forward.options, layer.options)
        depends_on = flow.before(x for cell in chains[place] for x in cell.xs)
        for group in groups:
            first = group[0]
            options = layers[first].forward.options, layers[first].options
            if (weights[first], remarks[first], *options) != like:
                continue
            if chains[first][0].key != chains[place][0].key:
                continue
            if depends_on.isdisjoint(cell.match.carry for each in group for cell in chains[each]):
                group.append(place)
                break
        else:
            groups.append([place])
    kept = [group[0] for group in groups]
    for group in groups:
        if len(group) > 1:
            remarks[group[0]].append(
                f"{{name}}: the graph runs it {len(group)} times, each time on another input, as a "
                "TimeDistributed that is unrolled does, or a layer that is called often: it is one "
                "layer"
            )
    names = naming.layer_names(_name(chains[place][0]) for place in kept)
    for name, place in zip(names, kept, strict=True):
        layers[place] = replace(layers[place], name=name, path=layers[place].path or name)
        wellformed.check_layer(layers[place], name)
    refused = tuple(dict.fromkeys([*finder.refused, *single]))
    return Recovered(
        tuple(layers[place] for place in kept),
        tuple(weights[place] for place in kept),
        tuple(tuple(remarks[place]) for place in kept),
        tuple(unknown),
        refused,
    )


def _chains(flow: Flow, cells: Sequence[Spelled]) -> list[list[Spelled]]:
    """Return the cells of each layer: of a loop one, of an unrolled graph one a step, in order."""
    by_carry = {cell.match.carry: cell for cell in cells}
    following: dict[Ref, Spelled] = {}
    starts: list[Spelled] = []
    for cell in cells:
        before = by_carry.get(cell.previous) if cell.previous is not None else None
        is_next = before is not None and before.key == cell.key and _keeps(flow, before, cell)
        if before is not None and is_next and before.match.carry not in following:
            following[before.match.carry] = cell
        else:
            starts.append(cell)
    chains = []
    for cell in starts:
        chain = [cell]
        while (later := following.get(chain[-1].match.carry)) is not None:
            chain.append(later)
        chains.append(chain)
    return chains


def _keeps(flow: Flow, before: Spelled, cell: Spelled) -> bool:
    """Whether a step that is left out hands on what it was given."""
    ends = cell.mask.ends if cell.mask is not None else ()
    for end, given in zip(ends, (before.h, before.match.state), strict=False):
        chosen = next(ref for ref in flow.path(end) if flow.nodes[ref].kind == "masked")
        if flow.origin(flow.nodes[chosen].inputs[1]) != flow.origin(given):
            return False
    return True


def _unknown_states(flow: Flow, known: set[Ref]) -> list[str]:
    """Return the names of the states of loops that look like a gated cell's and are not known."""
    names = []
    for carried in flow.carried.values():
        ref = flow.origin(carried.following)
        node = flow.nodes.get(ref)
        if node is None or node.kind != "add" or known & set(flow.path(carried.following)):
            continue
        products = [flow.nodes.get(flow.origin(source)) for source in node.inputs]
        if all(product is not None and product.kind == "mul" for product in products):
            names.append(flow.names.get(ref) or "a state without a name")
    return list(dict.fromkeys(names))


def _in_order(flow: Flow, chains: list[list[Spelled]]) -> list[list[Spelled]]:
    """Return layers, each behind those whose outputs it depends on; else as in the file."""
    carries = [chain[0].match.carry for chain in chains]
    before = [flow.before(chain[0].xs) for chain in chains]
    depths = [sum(carry in refs for carry in carries) for refs in before]
    return [chains[place] for place in sorted(range(len(chains)), key=lambda p: depths[p])]


def _name(cell: Spelled) -> str:
    parts = [part for part in re.split(r"/|::", cell.match.name) if part not in ("", ".", "..")]
    telling = [part for part in parts if not _SAYS_NOTHING.fullmatch(part)]
    half = len(telling) // 2
    if telling[:half] == telling[half:]:  # a function's nodes often repeat where it is called
        telling = telling[:half]
    text = "/".join(telling)
    return text if text and text.isprintable() else "lstm"


class _Runs:
    """How the cells of one layer run.

    Args:
        flow, finder: the graph.
        chain: its cells: of a loop one.
    """

    def __init__(self, flow: Flow, finder: Finder, chain: list[Spelled]) -> None:
        self._flow, self._finder, self._chain = flow, finder, chain
        self._first = chain[0]
        self._is_loop = chain[0].previous is None
        self._mask = next((cell.mask for cell in chain if cell.mask is not None), None)

    def layer(self, notes: list[str]) -> LSTMLayer:
        """Return the layer, without a name; add what the user should know, with `{name}`."""
        sequences = self._returns_sequences()
        cell = self._first.cell
        backwards = self._backwards()
        layer = LSTMLayer(
            name="",
            path=self._first.match.name,
            class_name="LSTM",
            forward=Direction(
                cells=(cell,),
                options=DirectionOptions(
                    return_sequences=sequences,
                    return_state=self._returns_state(),
                    go_backwards=backwards,
                    stateful=False,
                    unroll=not self._is_loop,
                    time_major=False,
                    zero_output_for_mask=self._gives_zeros(),
                    policy=cell.dtype.name,
                ),
                class_name="LSTM",
            ),
            options=LayerOptions(masked=self._mask is not None),
        )
        layer = self._started(layer, notes)
        if self._mask is not None:
            notes.append(
                "{name}: the graph leaves out steps that its mask, or the lengths of the sequences,"
                " name: give them when you call the layer (mask)"
            )
        if len(self._first.xs) > 1:
            notes.append(
                f"{{name}}: its input is {len(self._first.xs)} values of the graph side by side"
            )
        if isinstance(backwards, Unknown):
            notes.append(
                "{name}: the graph does not show whether the steps are taken from the end: "
                "--set {name}.go_backwards=true or false"
            )
        return layer

    # -- in which order ----------------------------------------------------------------------------

    def _backwards(self) -> bool | Unknown:
        """Whether the steps are taken from the end of the sequence."""
        if self._is_loop:
            return self._direction(self._marks(self._first))
        places = [self._place(cell) for cell in self._chain]
        known = [place for place in places if place is not None]
        if len(known) != len(places):
            return UNKNOWN
        if len(known) < 2:
            return self._against_first(known[0])
        steps = {later - earlier for earlier, later in pairwise(known)}
        if steps not in ({1}, {-1}):
            return UNKNOWN
        turned = self._marks(self._first).count("reverse") % 2 == 1
        return (steps == {-1}) != turned

    def _against_first(self, place: int) -> bool | Unknown:
        """Of two steps, the second: the first takes the step before or behind it."""
        return False if place == 1 else True if place in (0, -2) else UNKNOWN

    def _direction(self, marks: list[str]) -> bool | Unknown:
        scans = [mark for mark in marks if mark in ("scan", "scan_back")]
        if len(scans) != 1:
            return UNKNOWN
        if "unknown" in marks:
            return UNKNOWN
        return (scans[0] == "scan_back") != (marks.count("reverse") % 2 == 1)

    def _marks(self, cell: Spelled) -> list[str]:
        """Return what is done to the steps of the input on its way."""
        marks = []
        for ref in cell.paths[cell.xs[0]]:
            node = self._flow.nodes.get(ref)
            if node is not None and node.get("time") is not None:
                marks.append(node.get("time"))
            if node is not None and node.get("counter") is not None:
                marks.append(self._flow.counts(node.get("counter")) or "unknown")
        return marks

    def _place(self, cell: Spelled) -> int | None:
        """Return which step of the input a cell of an unrolled graph takes."""
        return self._step(cell.paths[cell.xs[0]])

    def _step(self, path: Sequence[Ref]) -> int | None:
        """Return which step of all is taken on a path, if that is one."""
        places = []
        for ref in path:
            node = self._flow.nodes.get(ref)
            if node is not None and node.kind == "take":
                places.append(node.get("index"))
            elif node is not None and node.kind == "slice":
                places.append(node.get("start"))
        return places[0] if len(places) == 1 else None

    # -- what is taken of it -----------------------------------------------------------------------

    def _returns_sequences(self) -> bool | Unknown:
        flow = self._flow
        if self._is_loop:
            cell = self._first
            kept = [
                outer
                for inner, outers in flow.stacked.items()
                if {cell.output, cell.match.hidden} & set(self._either(inner))
                for outer in outers
            ]
            if any(self._takes_steps(outer) for outer in kept):
                return True
            if flow.open_ends and not any(map(flow.is_used, [*kept, *self._last()])):
                return self._is_taken_inside() or UNKNOWN
            return False if kept else self._is_taken_inside()
        pairs = [(cell.h, cell) for cell in self._chain]
        if self._is_zero(self._first.h):  # it is before the first step
            pairs = pairs[1:]
        listed = [self._is_taken(output, later) for output, later in pairs]
        return listed[0] if listed and len(set(listed)) == 1 else UNKNOWN

    def _either(self, ref: Ref) -> list[Ref]:
        """Return the path of a value, and of both values that it is one of."""
        path = self._flow.path(ref)
        node = self._flow.nodes.get(path[-1])
        if node is not None and node.kind == "where":
            path += [value for branch in node.inputs[1:] for value in self._flow.path(branch)]
        return path

    def _gives_zeros(self) -> bool:
        """Whether the output of a step that is left out is zero; else it is the last one."""
        flow, cell = self._flow, self._first
        if not self._is_loop and self._mask is not None:
            return self._is_zeroed(self._chain[-1].output, flow.origin(self._mask.conditions[0]))
        for inner in flow.stacked if cell.mask is not None else ():
            node = flow.nodes.get(flow.origin(inner))
            if node is not None and node.kind == "where" and cell.output in self._either(inner):
                return any(self._is_zero(branch) for branch in node.inputs[1:])
        return False

    def _is_zeroed(self, output: Ref, mask: Ref) -> bool:
        """Whether an output is zero in the end where a mask says so."""
        flow = self._flow
        waiting, seen = [output], {output}
        while waiting:
            for after in flow.uses(waiting.pop()):
                node = flow.nodes[after]
                if node.kind == "where" and flow.origin(node.inputs[0]) == mask:
                    return any(self._is_zero(branch) for branch in node.inputs[1:])
                if after not in seen and (node.kind == "stack" or flow.passes(after)):
                    seen.add(after)
                    waiting.append(after)
        return False

    def fault_of_mask(self) -> str | None:
        """Return why the steps of an unrolled graph are not left out as an LSTM's are, if so."""
        flow, chain = self._flow, self._chain
        if self._is_loop or self._mask is None:
            return None
        masks = [cell.mask for cell in chain[1:]]
        if chain[0].mask is not None or None in masks:
            return "some of its steps are left out as an LSTM's are not"
        listed = [(mask.conditions[0], mask.when) for mask in masks if mask is not None]
        ends = [flow.nodes[after] for after in flow.uses(chain[-1].output)]
        if chain[-1].output in flow.outputs or any(node.kind != "masked" for node in ends):
            return "its last step has no mask, and those before it have one"
        listed += [(node.inputs[2], node.get("when")) for node in ends[:1]]
        if len({(flow.origin(condition), when) for condition, when in listed}) != 1:
            return "its steps have different masks"
        places = [self._step(flow.path(condition)) for condition, _ in listed]
        if None in places or places != [self._place(cell) for cell in chain][: len(places)]:
            return "the mask of a step is not that of its input"
        return None

    def _is_taken_inside(self) -> bool | Unknown:
        """Whether the output of a step goes to another layer of the same loop; unknown where it
        goes to something that a loop carries, and what that is is not known."""
        flow, cell = self._flow, self._first
        outside = {outer for outers in flow.finals.values() for outer in outers}
        others = {
            carried.following
            for ref, carried in flow.carried.items()
            # What is the output itself is the last one, when the loop ends; so is a list of one.
            if ref != cell.h
            and cell.output not in flow.path(carried.following)
            and not self._is_list(carried.following)
        } - {cell.match.carry}
        waiting, seen = [cell.output], {cell.output}
        while waiting:
            for after in flow.consumers.get(waiting.pop(), []):
                if after not in seen | outside:
                    seen.add(after)
                    waiting.append(after)
        if seen & self._finder.matches.keys() - {cell.match.carry}:
            return True
        return UNKNOWN if seen & others else False

    def _is_list(self, ref: Ref) -> bool:
        node = self._flow.nodes.get(self._flow.origin(ref))
        return node is not None and node.get("what") == "append"

    def _is_taken(self, output: Ref, later: Spelled) -> bool:
        """Whether the output of a step goes elsewhere than to the next step."""
        flow, inside = self._flow, later.inside
        waiting, seen = [output], {output}
        while waiting:
            at = waiting.pop()
            if at in flow.outputs:
                return True
            for after in flow.uses(at):
                node = flow.nodes[after]
                if node.kind == "masked" and flow.origin(node.inputs[0]) != flow.origin(at):
                    continue  # what a step that is left out hands on
                if after in inside or node.kind == "masked":
                    if after not in seen:
                        seen.add(after)
                        waiting.append(after)
                elif node.kind != "matmul" or at not in inside:
                    return True
        return False

    def _takes_steps(self, ref: Ref) -> bool:
        """Whether more is taken of all steps than the last one."""
        flow = self._flow
        waiting, seen = [ref], {ref}
        while waiting:
            at = waiting.pop()
            if at in flow.outputs:
                return True
            for after in flow.uses(at):
                node = flow.nodes[after]
                is_index = node.kind == "take" and node.get("index") == -1
                is_cut = node.kind == "slice" and node.get("start") == -1
                if (is_index or is_cut) and flow.passes(after):
                    continue
                is_same = node.kind == "move" and node.get("axes") == 0
                is_same = is_same and not (node.get("time") or node.get("counter"))
                if (node.kind in ("transpose", "identity") and flow.passes(after)) or is_same:
                    if after not in seen:
                        seen.add(after)
                        waiting.append(after)
                    continue
                if node.get("what") != "Shape":
                    return True
        return False

    def _last(self) -> list[Ref]:
        """Return the output of the last step, as a loop hands it on."""
        flow, output = self._flow, self._first.output
        return [
            outer
            for inner, outers in flow.finals.items()
            if output in flow.path(inner)
            for outer in outers
        ]

    def _returns_state(self) -> bool | Unknown:
        carry = self._chain[-1].match.carry
        flow = self._flow
        if self._is_loop:
            kept = [
                outer
                for inner, outers in flow.finals.items()
                if carry in flow.path(inner)
                for outer in outers
            ]
            if any(flow.is_used(outer) for outer in kept):
                return True
            # A state that is given at the start may be taken at the end by who runs the graph.
            return UNKNOWN if flow.open_ends and not self._is_zero_at_start() else False
        return carry in flow.outputs or any(
            after in flow.outputs for after in flow.uses(carry)
        )

    # -- where it starts ---------------------------------------------------------------------------

    def _started(self, layer: LSTMLayer, notes: list[str]) -> LSTMLayer:
        """Note what the state is at the start, where it is not zero."""
        if self._is_zero_at_start() if self._is_loop else self._starts_from_zero():
            return layer
        notes.append(
            "{name}: its states do not start from zero, or the graph does not show it: give them "
            "when you call the layer (initial_state)"
        )
        return layer

    def _is_zero_at_start(self) -> bool:
        """Whether a loop begins with states of zero."""
        refs = (self._first.h, self._flow.origin(self._first.match.state))
        starts = [self._flow.carried[ref].start for ref in refs]
        return all(start is not None and self._is_zero(start) for start in starts)

    def _is_zero(self, ref: Ref) -> bool:
        try:
            value = evaluate(self._flow, (ref,), {})[ref]
        except UnprovenError:
            return False
        return not np.any(value)

    def is_second(self) -> bool:
        """Whether the step before the first cell is one with the same weights, from zero."""
        return self._starts_from_zero()

    def _starts_from_zero(self) -> bool:
        """Whether the first step of an unrolled graph, which may be written otherwise, is a step
        from zero."""
        flow, second = self._flow, self._first
        if second.previous is not None and self._is_zero(second.previous):
            return self._is_zero(second.h)
        rng = np.random.default_rng(5)
        given: dict[Ref, Array] = {}
        inputs = []
        for source in second.xs:
            width = second.match.gates[next(iter(second.match.gates))].of(source)[0].kernel.shape[0]
            given[source] = rng.normal(size=(1, width))
            inputs.append(given[source])
        wanted = (second.previous, second.h)
        try:
            known = evaluate(flow, wanted, given)
        except UnprovenError:
            return False
        x = np.concatenate(inputs, axis=-1)[:, None]
        h, c = run(step_of(second.cell), x, dtype="float64").states
        return all(
            np.all(np.abs(known[ref] - mine) <= _CLOSE * (1 + np.abs(mine)))
            for ref, mine in ((second.h, h), (second.previous, c))
        )

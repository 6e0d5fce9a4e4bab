"""Recurrent cells among the weights of a legacy store, by names and shapes, in every spelling.

    lstm_1/lstm_cell/kernel:0, …/recurrent_kernel:0, …/bias:0       Keras 2 and 3
    stack/kernel:0 … stack/kernel_1:0 …                             cells of one stack, Keras 2
    lstm_1_W_i:0, lstm_1_U_i:0, lstm_1_b_i:0, lstm_1_W_c:0, …       Keras 1: gates i c f o
    lstm_1_W:0, lstm_1_U:0, lstm_1_b:0                              Keras 1, consume_less="gpu"
    param_0 … param_11                                              Keras 0.x, in the same order

(keras/engine/topology.py and keras/layers/recurrent.py of Keras 1.2.2.) Theano names have no `:0`.
A sketch of a config is filled by layer name, and within a layer by order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.configs.era import ROLES_BY_LETTER, Era
from lstmconvert.keras.configs.nodes import PEEPHOLE_CELL
from lstmconvert.keras.configs.sketch import (
    CellSketch,
    ConfigSketch,
    DirectionSketch,
    LayerSketch,
    OtherLayer,
)
from lstmconvert.keras.stores.legacy import LegacyStore
from lstmconvert.keras.stores.stored import (
    CLASS_OF_GATES,
    FLIPPED,
    FORM,
    PEEPHOLES,
    ROLES,
    TRANSPOSED,
    CellArrays,
    Stored,
    disagree,
    gate_count,
    is_foreign_name,
    is_named_like_a_class,
    listed,
    not_plain,
    taken_by_arrays,
    taken_by_name,
)
from lstmconvert.model.gates import GATES, by_letters

_KERAS1_ORDER = by_letters("icfo")
_KERAS1_GATE = re.compile(r"(?P<scope>.+)_(?P<role>[WUb])_(?P<gate>[a-z])")
_KERAS1_FUSED = re.compile(r"(?P<scope>.+)_(?P<role>[WUb])")
_PARAM = re.compile(r"param_\d+")
_SUFFIX = re.compile(r":\d+$")
_NUMBERED = re.compile(r"(kernel|recurrent_kernel|bias)_\d+")
PEEPHOLE_ROLES = frozenset(PEEPHOLES.values())
#: The name of the scope of a cell, or of several: by class, as Keras names objects.
CELL_SCOPE = re.compile(r"(stacked_rnn_cells|\w*cell)(_\d+)?")
#: A stateful layer of Keras 3 lists these among its weights (keras/src/layers/rnn/rnn.py).
_STATES = frozenset({"rnn_state", "seed_generator_state"})

#: Gates of a Keras 1 layer by the letters of its weights' names: LSTM, GRU.
_KERAS1_KINDS = {"icfo": 4, "zrh": 3}


@dataclass(frozen=True, slots=True)
class WeightBlock:
    """Neighbouring weights of one layer that are one recurrent cell.

    Fields: `gates`: 4 for an LSTM, 3 GRU, 1 simple RNN; `scope`: the parts of the weights' names
    before `kernel`; `arrays`: by role, or by `input_gate.kernel` and so on; `theano`: whether the
    names are Theano's, without `:0`; `extras`: names of arrays in the same layer's scope that no
    cell of Keras has: then it is a cell of another kind.
    """

    gates: int
    scope: tuple[str, ...]
    arrays: dict[str, Stored]
    theano: bool = False
    extras: tuple[str, ...] = ()

    @property
    def is_lstm(self) -> bool:
        """Whether all its arrays are those of an LSTM cell."""
        return self.gates == len(GATES) and not self.extras

    @property
    def has_peepholes(self) -> bool:
        """Whether it is an LSTM cell with peepholes."""
        return self.is_lstm and not PEEPHOLE_ROLES.isdisjoint(self.arrays)


@dataclass(frozen=True, slots=True)
class _Weight:
    name: str
    scope: tuple[str, ...]
    leaf: str
    stored: Stored


def blocks(names: Sequence[str], weights: Sequence[Stored]) -> list[WeightBlock]:
    """Find the recurrent cells among a layer's weights, in order."""
    listed = [_weight(name, stored) for name, stored in zip(names, weights, strict=True)]
    scanned = list(_scan(listed))
    used = {stored.path for block in scanned for stored in block.arrays.values()}
    loose = [weight for weight in listed if weight.stored.path not in used]
    if not loose:
        return scanned
    return [
        replace(block, extras=tuple(_extras(block, loose))) if block.gates == len(GATES) else block
        for block in scanned
    ]


def _extras(block: WeightBlock, loose: list[_Weight]) -> Iterator[str]:
    """Yield the names of weights that are in the scope of a cell's layer and in no cell."""
    from lstmconvert.keras.modern.classes import ROLES  # a rare road

    scope = block.scope
    if scope and CELL_SCOPE.fullmatch(scope[-1]):
        scope = scope[:-1]
    for weight in loose:
        is_inside = bool(scope) and weight.scope[: len(scope)] == scope
        # Names without a scope are those of all layers of a nested model.
        is_strange = not weight.scope and weight.leaf not in ROLES
        if (is_inside or (not scope and is_strange)) and weight.leaf not in _STATES:
            yield "/".join([*weight.scope[len(scope) :], weight.leaf])


def _weight(name: str, stored: Stored) -> _Weight:
    *scope, leaf = _SUFFIX.sub("", name).split("/")
    # TensorFlow 1 numbers the second variable of one name in a scope.
    match = _NUMBERED.fullmatch(leaf)
    return _Weight(name, tuple(scope), match[1] if match else leaf, stored)


def _scan(weights: list[_Weight]) -> Iterator[WeightBlock]:
    index = 0
    while index < len(weights):
        rest = weights[index : index + 12]
        block = _modern(rest) or _keras1(rest) or _keras1_fused(rest) or _keras0(rest)
        if block is not None:
            yield block
        index += len(block.arrays) if block is not None else 1


def _modern(weights: list[_Weight]) -> WeightBlock | None:
    scope = weights[0].scope
    length = 0
    for weight, role in zip(weights, ROLES, strict=False):
        if weight.scope != scope or weight.leaf != role:
            break
        length += 1
    block = _fused(weights[:length], scope) if length >= 2 else None
    if block is None or block.gates != len(GATES):
        return block
    peepholes = [w for w in weights[length : length + len(PEEPHOLES)] if w.scope == scope]
    if [weight.leaf for weight in peepholes] == list(PEEPHOLES):
        block.arrays.update({PEEPHOLES[weight.leaf]: weight.stored for weight in peepholes})
    return block


def _fused(
    weights: list[_Weight], scope: tuple[str, ...], theano: bool = False
) -> WeightBlock | None:
    arrays = dict(zip(ROLES, (weight.stored for weight in weights), strict=False))
    shapes = [arrays[role].tensor.shape for role in ROLES[:2]]
    count = gate_count(shapes[0], shapes[1])
    return None if count is None else WeightBlock(count, scope, arrays, theano)


def _keras1(weights: list[_Weight]) -> WeightBlock | None:
    for letters, count in _KERAS1_KINDS.items():
        size = count * len(ROLES_BY_LETTER)
        matches = [_KERAS1_GATE.fullmatch(weight.leaf) for weight in weights[:size]]
        scopes = {match["scope"] for match in matches if match}
        if len(matches) < size or None in matches or len(scopes) != 1:
            continue
        named = [(m["gate"], m["role"]) for m in matches if m]
        if named != [(letter, role) for letter in letters for role in ROLES_BY_LETTER]:
            continue
        scope = (*weights[0].scope, scopes.pop())
        theano = not _SUFFIX.search(weights[0].name)
        if count != 4:
            others = {weight.leaf: weight.stored for weight in weights[:size]}
            return WeightBlock(count, scope, others, theano)
        return WeightBlock(count, scope, _separate(weights), theano)
    return None


def _separate(weights: list[_Weight]) -> dict[str, Stored]:
    keys = [f"{gate}_gate.{role}" for gate in _KERAS1_ORDER for role in ROLES_BY_LETTER.values()]
    return {key: weight.stored for key, weight in zip(keys, weights, strict=False)}


def _keras1_fused(weights: list[_Weight]) -> WeightBlock | None:
    matches = [_KERAS1_FUSED.fullmatch(weight.leaf) for weight in weights[:3]]
    if len(matches) < 3 or None in matches or len({m["scope"] for m in matches if m}) != 1:
        return None
    if [m["role"] for m in matches if m] != list(ROLES_BY_LETTER):
        return None
    scope = (*weights[0].scope, next(m["scope"] for m in matches if m))
    return _fused(weights[:3], scope, not _SUFFIX.search(weights[0].name))


def _keras0(weights: list[_Weight]) -> WeightBlock | None:
    """Twelve arrays without roles: W, U, b of each gate; only an LSTM's shapes repeat so."""
    if len(weights) < 12 or not all(_PARAM.fullmatch(weight.leaf) for weight in weights):
        return None
    shapes = [weight.stored.tensor.shape for weight in weights]
    is_lstm = len(shapes[0]) == 2 and shapes[1] == (shapes[0][1],) * 2
    if not is_lstm or shapes != shapes[:3] * 4 or shapes[2] != (shapes[0][1],):
        return None
    return WeightBlock(4, weights[0].scope, _separate(weights))


# -- sketches, and their arrays ----------------------------------------------------------------


#: Keras's name for an LSTM.
_LSTM = re.compile(r"lstm(_\d+)?")
#: Keras's name for the scope of an LSTM's own weights, by class: its cell, or an old Keras's layer.
_OWN_SCOPE = re.compile(r"(\w+_)?(lstm|lstm_v1|cu_dnnlstm|conv_lst_m_?\dd)(_\d+)*")
_OWN_CELL_SCOPE = re.compile(r"(lstm_|lstm_v1_|conv_lst_m_?\dd_)?cell(_\d+)?")
#: Since then the weights of a layer's cell are in a scope of the cell.
_HAS_CELL_SCOPES = (2, 4)


class LegacyArrays:
    """Gives each cell of a plan its arrays.

    Raises:
        CorruptFile: the config and the stored layers cannot be matched.
    """

    def __init__(self, store: LegacyStore, plan: ConfigSketch, where: object) -> None:
        self._arrays_by_cell: dict[int, CellArrays] = {}
        self._where = where
        self._theano = store.attributes.get("backend") == "theano"
        by_top: dict[str, list[CellSketch]] = {}
        for sketch in plan.layers:
            by_top.setdefault(sketch.top, []).extend(sketch.cells)
        groups = _groups(store, list(by_top), where)
        owners = _Owners(plan)
        for top, cells in by_top.items():
            names, weights = store.names[groups[top]], store.weights[groups[top]]
            stored = [b for b in blocks(names, weights) if not owners.are(top, b)]
            self._match(cells, stored, top, dict(zip(names, weights, strict=True)))

    def __call__(self, cell: CellSketch) -> CellArrays:
        return self._arrays_by_cell.get(id(cell), CellArrays({}))

    def _match(
        self,
        cells: list[CellSketch],
        stored_blocks: list[WeightBlock],
        top: str,
        stored: Mapping[str, Stored],
    ) -> None:
        # Weights are listed trainable first, then the rest (`_legacy_weights`).
        ordered = sorted(cells, key=lambda cell: not cell.trainable)
        if len(ordered) != len(stored_blocks) and not any(cell.is_lstm for cell in ordered):
            return  # cells of a user's own class have whatever arrays they have
        if len(ordered) != len(stored_blocks):
            first = listed(dict(islice(stored.items(), 9)))
            raise CorruptFile(
                "the config and the stored weights disagree",
                where=f"{self._where}: {top}",
                found=f"{len(stored_blocks)} recurrent cells in {first}",
                expected=f"{len(ordered)}: {FORM}",
            )
        for cell, block in zip(ordered, stored_blocks, strict=True):
            self._arrays_by_cell[id(cell)] = CellArrays(block.arrays, self._turns(cell, block, top))

    def _turns(self, cell: CellSketch, block: WeightBlock, top: str) -> tuple[str, ...]:
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


def infer(store: LegacyStore, where: object) -> ConfigSketch:
    """Sketch the recurrent layers of a weights-only file by its names and shapes alone.

    Raises:
        CorruptFile: what Keras calls an LSTM does not have the arrays of one.
    """
    result = ConfigSketch()
    for layer, names in store.names.items():
        stored_blocks = blocks(names, store.weights[layer])
        if not stored_blocks and _LSTM.fullmatch(layer) and len(names) in (2, 3):
            arrays = dict(zip(names, store.weights[layer], strict=True))
            raise disagree(f"{where}: {layer}", listed(arrays))
        result.classes.append(("", layer))
        result.layers.extend(_sketches(layer, stored_blocks, result.notes))
    return result


def name_unnamed(store: LegacyStore, described: ConfigSketch) -> None:
    """Give layers that the config has no name of, since a user's own class wrote none, the names
    of the stored layers that the config does not name, in order, if there are as many."""
    listed: list[LayerSketch | OtherLayer] = [
        *described.layers,
        *described.custom,
        *described.others,
    ]
    named = {layer.top for layer in listed}
    stored = [name for name in store.names if store.weights[name] and name not in named]
    unnamed = [layer for layer in (*described.custom, *described.others) if not layer.top]
    if len(stored) != len(unnamed):
        return
    names = dict(zip(map(id, unnamed), stored, strict=True))
    for layers in (described.custom, described.others):
        for index, layer in enumerate(layers):
            if id(layer) in names:
                name = names[id(layer)]
                item = layer.node._replace(name=name)
                layers[index] = layer._replace(node=item, name=name, top=name)


def inside(store: LegacyStore, described: ConfigSketch) -> ConfigSketch:
    """Sketch the recurrent layers inside layers of a user's own class, which a config does not
    describe. Only its code tells what a recurrent class computes: it is noted, and left out.

    A config of Keras 1 and 2 does not say whether a class is a user's own. No layer of Keras's own
    that `plan` does not sketch has the arrays of an LSTM, so what has them is one.
    """
    version = Era("", store.attributes.get("keras_version")).numbers
    owners = _Owners(described)
    scanned = {top: blocks(store.names[top], store.weights[top]) for top in owners.tops(store)}
    is_custom = set(map(id, described.custom))
    result = ConfigSketch()
    for other in (*described.custom, *described.others):
        of_layer = [b for b in scanned.get(other.top, ()) if owners.has(other, b)]
        has_lstm = any(block.gates == len(GATES) for block in of_layer)
        if has_lstm and all(_is_inner_layer(other, block.scope, version) for block in of_layer):
            result.layers.extend(_sketches(other.top, of_layer, result.notes))
        elif has_lstm or id(other) in is_custom:
            names = [name for block in of_layer for name in _names_of(store, other.top, block)]
            result.notes.append(not_plain(other.name, other.node.class_name, names))
    return result


def _names_of(store: LegacyStore, top: str, block: WeightBlock) -> list[str]:
    """Return the names of a block's arrays, without that of the layer that holds them."""
    paths = {stored.path for stored in block.arrays.values()}
    pairs = zip(store.names[top], store.weights[top], strict=True)
    return [name.removeprefix(f"{top}/") for name, stored in pairs if stored.path in paths]


class _Owners:
    """Tells which blocks in the group of a model's own layer are those of layers not sketched."""

    def __init__(self, described: ConfigSketch) -> None:
        others = (*described.custom, *described.others)
        count = Counter(layer.top for layer in others)
        count.update(layer.top for layer in described.layers)
        self._alone = {other.top for other in others if count[other.top] == 1}
        self._names: dict[str, set[str]] = {}
        for other in others:
            self._names.setdefault(other.top, set()).add(other.node.name)

    def tops(self, store: LegacyStore) -> list[str]:
        """Return the groups of a store that may hold such blocks."""
        return [top for top in self._names if top in store.names]

    def has(self, other: OtherLayer, block: WeightBlock) -> bool:
        """Whether a block is one layer's: by the scope of its names, which has the layer's name
        where a model of several layers is the group."""
        return other.top in self._alone or other.node.name in block.scope

    def are(self, top: str, block: WeightBlock) -> bool:
        """Whether a block in the group of `top` is that of any such layer."""
        names = self._names.get(top, set())
        return top in self._alone or not names.isdisjoint(block.scope)


def _is_inner_layer(
    other: OtherLayer, scope: tuple[str, ...], version: tuple[int, ...]
) -> bool:
    """Whether a scope inside a layer of a user's own class is that of an LSTM layer of Keras's, and
    not that of a cell that the class runs itself."""
    parts = set(_path(other.node.name, scope)) & set(_path(other.top, scope))
    if other.is_recurrent or not parts:
        return False
    if _OWN_CELL_SCOPE.fullmatch(scope[-1]) or _OWN_SCOPE.fullmatch(scope[-1]):
        return True
    return version < _HAS_CELL_SCOPES and not CELL_SCOPE.fullmatch(scope[-1])


def peepholes_fit(store: LegacyStore, sketch: LayerSketch) -> bool:
    """Whether cells whose class has peepholes, by its name, have the arrays of such a cell."""
    if all(cell.class_name != PEEPHOLE_CELL for cell in sketch.cells):
        return True
    stored_blocks = blocks(store.names.get(sketch.top, ()), store.weights.get(sketch.top, ()))
    return bool(stored_blocks) and all(block.has_peepholes for block in stored_blocks)


def _sketches(layer: str, stored_blocks: list[WeightBlock], notes: list[str]) -> list[LayerSketch]:
    by_path: dict[tuple[str, ...], dict[str, list[WeightBlock]]] = {}
    for block in stored_blocks:
        name = "/".join([layer, *_path(layer, block.scope)])
        scope = block.scope[-1] if block.scope else ""
        if block.extras:
            notes.append(not_plain(name, "", block.extras))
        elif block.is_lstm and is_foreign_name(scope):
            notes.append(taken_by_arrays(name, f"a cell called {scope}"))
        elif block.is_lstm and is_named_like_a_class(_layer_name(name)):
            notes.append(taken_by_name(_layer_name(name)))
    notes[:] = dict.fromkeys(notes)  # of both halves
    stored_blocks = [block for block in stored_blocks if not block.extras]
    for block in stored_blocks:
        path = _path(layer, block.scope)
        half = _half(path[-1]) if path else ""
        outer = path[:-1] if half else path
        by_path.setdefault(outer, {}).setdefault(half, []).append(block)
    if len(by_path) == 1:
        # One layer in the group: its inner scope may have drifted from its name.
        path, halves = next(iter(by_path.items()))
        by_path = {path if _is_another(layer, path) else (): halves}
    return [_sketch(layer, path, list(halves.values())) for path, halves in by_path.items()]


def _class_of(block: WeightBlock) -> str:
    return PEEPHOLE_CELL if block.has_peepholes else CLASS_OF_GATES[block.gates]


def _path(layer: str, scope: tuple[str, ...]) -> tuple[str, ...]:
    parts = [part for part in scope if not CELL_SCOPE.fullmatch(part)]
    if layer in parts:  # a subclassed model has its own name before its layers'
        parts = parts[len(parts) - parts[::-1].index(layer) :]
    return tuple(parts)


def _is_another(layer: str, path: tuple[str, ...]) -> bool:
    return bool(path) and re.sub(r"(_\d+)+$", "", path[0]) != re.sub(r"(_\d+)+$", "", layer)


def _layer_name(name: str) -> str:
    """Return the name of a layer without that of one half of a Bidirectional."""
    outer, _, leaf = name.rpartition("/")
    return outer if outer and _half(leaf) else name


def _half(name: str) -> str:
    return next((half for half in ("forward_", "backward_") if name.startswith(half)), "")


def _sketch(layer: str, path: tuple[str, ...], halves: list[list[WeightBlock]]) -> LayerSketch:
    is_stack = len(halves[0]) > 1
    is_rnn = is_stack or halves[0][0].has_peepholes
    class_name = "Bidirectional" if len(halves) > 1 else "RNN" if is_rnn else "LSTM"
    directions = tuple(
        DirectionSketch(
            layer,
            None,
            tuple(
                CellSketch(layer, _class_of(block), block.is_lstm, None, is_stack)
                for block in blocks
            ),
        )
        for blocks in halves
    )
    return LayerSketch("/".join([layer, *path]), "", layer, class_name, None, directions)

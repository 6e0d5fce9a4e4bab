"""The arrays of a tree of parts: out of any weight store of the source, into either one of Keras 3.

A v3 store has a group for each part, a checkpoint's graph of objects a name for each weight. A
legacy store has a list for each layer of the model: what is trained first, then the rest, each in
the order in which the sub-layers were made. Which weights count as trained depends on the version
that wrote the file and on what was frozen; the names of the weights decide between the orders that
are possible.

Arrays that an older Keras keeps otherwise are brought to the order of axes of Keras 3, and checked
against the size that their layer's config states.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lstmconvert.errors import CorruptFile, UnsupportedByTarget, UsageError
from lstmconvert.keras.configs.era import ROLES_BY_LETTER, STANDS_FOR
from lstmconvert.keras.configs.nodes import counted
from lstmconvert.keras.configs.sketch import natural
from lstmconvert.keras.modern import custom, emission
from lstmconvert.keras.modern.classes import CONVOLUTIONS, ROLES_OF_ALL_ERAS, SIZES, Weight
from lstmconvert.keras.modern.parts import Part, if_users_class, no_row, unsupported
from lstmconvert.keras.stores.legacy import TOP_LEVEL
from lstmconvert.keras.stores.v3store import CONTAINERS
from lstmconvert.keras.writing import layerstore
from lstmconvert.model.layer import LSTMLayer, OpaqueCell
from lstmconvert.model.model import OBJECTS, Structure
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import Computed, SideBySide, Tensor

_SUFFIX = re.compile(r"(_\d+)?(:\d+)?$")
_ROLES = sorted(ROLES_OF_ALL_ERAS, key=len, reverse=True)
#: Groups of a v3 store that are neither a model's nor its optimizer's: running means of metrics.
_METRICS = ("metrics/", "_metrics/", "compiled_metrics/", "_compile_metrics/", "_loss_tracker/")


class PartVariable(NamedTuple):
    """One variable of a part: its number among the part's weights."""

    part: Part
    number: int

    @property
    def weight(self) -> Weight:
        """What it is."""
        return self.part.weights[self.number]

    @property
    def trainable(self) -> bool:
        """Whether training changes it, unless something around it is frozen."""
        return self.weight.trainable


def lstm_paths(layers: Sequence[LSTMLayer]) -> set[str]:
    """Return the full paths of every array that the neutral layers hold."""
    used: set[str] = set()
    for layer in layers:
        for _, direction in layer.directions:
            for cell in direction.cells:
                used.update(cell.paths if isinstance(cell, OpaqueCell) else cell.places.values())
    return used


class TreeFiller:
    """Fills a tree from a store.

    Args:
        structure: of the source.
        stored: full path -> tensor.
        layers: the neutral layers.
        where: for errors.
        attributes: of classes of the user's own, as `custom.attributes` returns them.
    """

    def __init__(
        self,
        structure: Structure,
        stored: Mapping[str, Tensor],
        layers: Sequence[LSTMLayer],
        where: str,
        attributes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._structure, self._stored, self._where = structure, stored, where
        self._attributes, self._era = attributes or {}, ""
        self._lstms = lstm_paths(layers)
        self._used = set(self._lstms)
        #: Arrays of the file that are not part of the model: what no layer of a legacy store lists.
        self.foreign: list[str] = []

    def fill(self, root: Part, era: str) -> None:
        """Give every part its arrays.

        Raises:
            CorruptFile: config and store contradict each other.
            UnsupportedByTarget: weights that belong to no layer of the config.
        """
        self._era = era
        if self._structure.kind in ("v3", OBJECTS):
            self._fill_tree(root)
        else:
            self._fill_legacy(root, era)
        for part in root.walk():
            if part.replaced:
                check_shapes(part)
            if not part.custom:
                check_size(part, self._where)
        self._check_all_used(root)

    def fill_known(self, root: Part, era: str) -> None:
        """Give every part its arrays that the store has; leave the others without any.

        Nothing is raised: where config and store contradict each other, a part has no arrays.
        """
        if self._structure.kind in ("v3", OBJECTS):
            for part in root.walk():
                self._try(part, lambda part: self._fill_part(part))
            return
        tops = [part for _, part in root.children]
        try:
            groups = self._groups(tops)
        except CorruptFile:
            return
        theano = self._is_theano(era)
        for top in tops:
            if top.name in groups:
                self._try(top, lambda top: self._fill_top(top, groups[top.name], era))
            for below in top.walk():
                self._try(below, lambda below: finish(below, theano=theano))

    def _try(self, part: Part, fill: Callable[[Part], None]) -> None:
        try:
            fill(part)
        except (CorruptFile, UnsupportedByTarget):
            for below in part.walk() if self._structure.kind == "legacy" else [part]:
                below.arrays, below.paths = [], []

    def paths_of(self, part: Part) -> list[str]:
        """Return the full paths of the store's arrays that are below a part, or are listed for it,
        without those of LSTMs."""
        structure = self._structure
        if structure.kind == "legacy":
            names = structure.weights.get(part.node.name, ())
            paths = [_legacy_path(structure.root, part.node.name, name) for name in names]
        elif structure.kind == "v3":
            paths = [path for path in self._stored if path.startswith(f"{part.group}/")]
        else:
            below = f"{part.group}/"
            paths = [path for key, path in structure.names.items() if key.startswith(below)]
        return [path for path in paths if path in self._stored and path not in self._lstms]

    def _check_all_used(self, root: Part) -> None:
        listed = self._listed()
        for path in sorted(self._structure.paths - self._used):
            if path.startswith(_METRICS):
                continue
            if listed is not None and path not in listed:
                self.foreign.append(path)  # Keras does not look at it
                continue
            error = unsupported(
                "weights that no layer of the config holds", root.name, path, found=path
            )
            for _, part in root.children if self._era != "keras3" else ():
                if part.row is not None and path in self.paths_of(part):
                    error.hint = f"{if_users_class(part.class_name)}; {error.hint}"
            raise error

    def _listed(self) -> set[str] | None:
        """Return the paths that a legacy store lists; None of another store."""
        if self._structure.kind != "legacy":
            return None
        return {
            _legacy_path(self._structure.root, layer, name)
            for layer, names in self._structure.weights.items()
            for name in names
        }

    def _fill_tree(self, part: Part) -> None:
        if part.custom:
            self._fill_custom(part)
        elif part.replaced:
            self._fill_replaced(part)
        else:
            self._fill_part(part)
            for _, child in part.children:
                self._fill_tree(child)

    def _below(self, part: Part) -> dict[str, str]:
        """Return the arrays in a part's group of a store other than a legacy one: path there ->
        full path; in the order of the numbers that they have."""
        group = f"{part.group}/"
        is_v3 = self._structure.kind == "v3"
        named = {path: path for path in self._stored} if is_v3 else self._structure.names
        inside = {key.removeprefix(group): path for key, path in named.items()
                  if key.startswith(group) and path in self._stored}
        return {key: inside[key] for key in sorted(inside, key=natural)}

    def _fill_custom(self, part: Part) -> None:
        """Give a layer of the user's own class its arrays, at the places that the store says."""
        inside = self._below(part)
        is_v3 = self._structure.kind == "v3"
        part.places = list(inside)
        if not is_v3:
            part.places = custom.of_objects(
                part, list(inside), self._attributes.get(part.class_name)
            )
        if self._era != "keras3":
            part.places = custom.of_older_store(part.places, CONTAINERS)
        part.is_listed = all(place.startswith("vars/") for place in part.places)
        self._give(part, list(inside), list(inside.values()))

    def _give(self, part: Part, roles: Sequence[str], paths: Sequence[str]) -> None:
        """Give a layer of the user's own class arrays of these roles and full paths."""
        part.weights = tuple(map(Weight, roles))
        part.arrays = [self._stored[path] for path in paths]
        part.paths = [(path,) for path in paths]
        self._used.update(paths)

    def _fill_replaced(self, part: Part) -> None:
        """Give what the user put in a layer's place that layer's arrays, in their order."""
        inside = self._below(part)
        groups = {key.rpartition("vars/")[0] for key in inside}
        if len(groups) > 1 or (self._structure.kind != "v3" and len(inside) > 1):
            raise unsupported(
                "--replace: the file does not say in which order the layer's weights were made",
                part.name, part.class_name, ", ".join(inside)[:300],
            )
        self._put(part, list(inside.items()))

    def _put(self, part: Part, listed: Sequence[tuple[str, str]]) -> None:
        """Put arrays into a replaced layer, in order.

        Args:
            part: the layer.
            listed: name -> full path.

        Raises:
            UsageError: the layer has another number of weights.
        """
        slots = keras3_order(part)
        if len(slots) != len(listed):
            shapes = [f"{name} {_shape_text(self._stored[path])}" for name, path in listed]
            raise UsageError(
                "--replace: the layer that is put there has another number of weights",
                where=part.name,
                found=", ".join(shapes)[:300] or "no weights",
                expected=", ".join(map(_described, slots))[:300] or "no weights",
            )
        paths = {slot: path for slot, (_, path) in zip(slots, listed, strict=True)}
        for below in part.walk():
            given = [paths[PartVariable(below, index)] for index in range(len(below.weights))]
            below.arrays = [self._stored[path] for path in given]
            below.paths = [(path,) for path in given]
            self._used.update(given)

    def _fill_part(self, part: Part) -> None:
        below = self._stored if self._structure.kind == "v3" else self._structure.names
        if part.opaque and any(path.startswith(f"{part.group}/") for path in below):
            raise no_row(part.name, part.class_name)
        for index, weight in enumerate(part.weights):
            path = self._path(part.group, index, weight)
            if path not in self._stored:
                raise CorruptFile(
                    f"the {weight.role} of a layer is not stored", where=f"{self._where}: {path}"
                )
            self._used.add(path)
            part.arrays.append(self._stored[path])
            part.paths.append((path,))
        finish(part, theano=False)

    def _path(self, group: str, index: int, weight: Weight) -> str:
        if self._structure.kind == "v3":
            return f"{group}/vars/{index}".strip("/")
        names = [f"{group}/{role}" for role in (weight.role, *weight.also)]
        return next((path for n in names if (path := self._structure.names.get(n))), names[0])

    def expected(self, part: Part, index: int) -> tuple[str, ...]:
        """Return the path at which a part's weight would lie; none in a legacy store, where the
        names of the weights are not known before they are there."""
        if self._structure.kind != "v3":
            return ()
        return (self._path(part.group, index, part.weights[index]),)

    def _fill_legacy(self, root: Part, era: str) -> None:
        if self._structure.weights.get(TOP_LEVEL):
            raise unsupported("weights of the model itself", root.name, TOP_LEVEL)
        tops = [part for _, part in root.children]
        groups = self._groups(tops)
        theano = self._is_theano(era)
        for part in tops:
            if part.name in groups:
                self._fill_top(part, groups[part.name], era)
            for below in part.walk():
                finish(below, theano=theano)
                if theano:
                    pad_as_theano(below)

    def _groups(self, tops: list[Part]) -> dict[str, str]:
        holding = [part for part in tops if _holds(part)]
        listed = self._structure.weights
        if all(part.node.name in listed for part in holding):
            return {part.name: part.node.name for part in holding}
        stored = [name for name, weights in listed.items() if weights]
        if len(stored) != len(holding):
            raise CorruptFile(
                "the config and the weights file are of different models",
                where=self._where,
                found=f"{len(stored)} layers with weights",
                expected=f"{len(holding)}",
            )
        return {part.name: name for part, name in zip(holding, stored, strict=True)}

    def _is_theano(self, era: str) -> bool:
        backend = self._structure.attributes.get("backend")
        if backend is not None or era != "keras1":
            return backend == "theano"
        # Keras 1 does not say; TensorFlow's variables have a number behind a colon.
        names = [name for weights in self._structure.weights.values() for name in weights]
        return bool(names) and not any(":" in name for name in names)

    def _fill_top(self, part: Part, group: str, era: str) -> None:
        every = [
            (name, _legacy_path(self._structure.root, group, name))
            for name in self._structure.weights[group]
        ]
        if part.replaced:
            self._put(part, every)
            return
        kept = self._fill_customs(part, group, every)
        listed: list[tuple[str, Tensor]] = []
        places: dict[int, str] = {}
        for name, path in every:
            if path in self._used:
                continue
            if path not in self._stored:
                raise CorruptFile("a listed weight is missing", where=f"{self._where}: {path}")
            self._used.add(path)
            listed.append((name, self._stored[path]))
            places[id(listed[-1][1])] = path
        unknown = (below for below in part.walk() if below.opaque)
        opaque = next((below for below in unknown if not emission.is_operation(below)), None)
        if opaque is not None and listed:
            raise no_row(opaque.name, opaque.class_name)
        listed = _joined(listed, era)
        slots = _best(part, [name for name, _ in listed], era, kept)
        if slots is None:
            raise CorruptFile(
                "the config and the stored weights disagree",
                where=f"{self._where}: {group}",
                found=", ".join(name for name, _ in listed)[:300] or "no weights",
                expected=", ".join(_described(slot) for slot in keras3_order(part))[:300],
                hint=if_users_class(part.class_name) if part.row and era != "keras3" else None,
            )
        arrays = {slot: tensor for slot, (_, tensor) in zip(slots, listed, strict=True)}
        for below in part.walk():
            if below in kept:
                continue
            below.arrays = [arrays[PartVariable(below, i)] for i in range(len(below.weights))]
            below.paths = [_places(tensor, places) for tensor in below.arrays]


    def _fill_customs(
        self, top: Part, group: str, every: Sequence[tuple[str, str]]
    ) -> frozenset[Part]:
        """Give the layers of the user's own classes at or below a layer what is listed for them,
        and return them: all, where there is nothing else, or what has most of their names in it.

        Raises:
            CorruptFile: a listed weight is missing.
            UnsupportedByTarget: names fit two such layers alike.
        """
        scopes = {part: names for part, names in _named_scopes(top, frozenset()) if part.custom}
        others = any(part.weights or part.layer is not None for part in top.walk())
        given: dict[Part, list[tuple[str, str]]] = {part: [] for part in scopes}
        for name, path in every if scopes else ():
            steps = set(name.strip("/").split("/")[:-1])
            fitting = [
                part for part in scopes
                if not others or part is top or not steps.isdisjoint((part.name, part.node.name))
            ]
            best = max((len(steps & scopes[part]) for part in fitting), default=0)
            fitting = [part for part in fitting if len(steps & scopes[part]) == best]
            if len(fitting) > 1:
                what = "names that fit two layers of classes of your own"
                raise unsupported(what, top.name, fitting[0].class_name, name)
            if path not in self._stored and fitting:
                raise CorruptFile("a listed weight is missing", where=f"{self._where}: {path}")
            for part in fitting:
                given[part].append((name, path))
        for part, listed in given.items():
            names = custom.inside([name for name, _ in listed], {group, *scopes[part]})
            part.places = custom.places(part, names, self._attributes.get(part.class_name))
            self._give(part, names, [path for _, path in listed])
        return frozenset(scopes)


def _named_scopes(part: Part, outer: frozenset[str]) -> Iterator[tuple[Part, frozenset[str]]]:
    """Yield a layer and those inside it, each with the names that stand before its weights' own:
    its name, and those of what it is in."""
    names = outer | {part.name, part.node.name}
    yield part, names
    for attribute, child in part.children:
        # The forward half has the name of the layer that it was made of in a config alone
        # (tf_keras/src/layers/rnn/bidirectional.py).
        is_forward = attribute == "forward_layer"
        more = {f"forward_{child.name}"} if is_forward else set()
        yield from _named_scopes(child, names | more)


def _shape_text(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _places(tensor: Tensor, places: Mapping[int, str]) -> tuple[str, ...]:
    """Return the paths of the arrays that a weight is, or is joined of."""
    if id(tensor) in places:
        return (places[id(tensor)],)
    parts = tensor.parts if isinstance(tensor, SideBySide) else ()
    return tuple(places[id(part)] for part in parts)


def _legacy_path(root: str, layer: str, name: str) -> str:
    leaf = name.replace("//", "/").strip("/")
    return "/".join(part for part in (root, layer, leaf) if part)


def _holds(part: Part) -> bool:
    return any(
        below.weights or below.layer is not None or below.custom for below in part.walk()
    )


def _described(slot: PartVariable) -> str:
    return f"{slot.part.name}/{slot.weight.role}"


def _joined(stored: list[tuple[str, Tensor]], era: str) -> list[tuple[str, Tensor]]:
    """Join the arrays of a Keras 1 recurrent cell, which has them gate by gate."""
    if era != "keras1":
        return stored
    result: list[tuple[str, Tensor]] = []
    index = 0
    while index < len(stored):
        joined, taken = keras1_cell(stored[index:])
        result.extend(joined)
        index += taken
    return result


def _best(
    part: Part, names: list[str], era: str, kept: frozenset[Part] = frozenset()
) -> list[PartVariable] | None:
    """Return the order of a layer's weights that their names allow, and fit best; without those of
    parts that have theirs already."""
    orders = [keras3_order, keras2_order, frozen_order]
    if era != "keras3":
        orders = [keras2_order, keras3_order]
    scored = []
    for order in orders:
        slots = [slot for slot in order(part) if slot.part not in kept]
        if len(slots) == len(names) and all(map(_allows, names, slots)):
            scored.append((sum(map(_names_layer, names, slots)), slots))
    return max(scored, key=lambda item: item[0])[1] if scored else None


def _allows(name: str, slot: PartVariable) -> bool:
    leaf = _SUFFIX.sub("", name.rpartition("/")[2])
    weight = slot.weight
    if slot.part.replaced:
        return True
    role = next((r for r in _ROLES if leaf == r or leaf.endswith(f"_{r}")), None)
    return role is None or role == weight.role or role in weight.also


def _names_layer(name: str, slot: PartVariable) -> bool:
    return slot.part.name in _SUFFIX.sub("", name).split("/")[:-1]


# -- the orders of a legacy layer's weights ---------------------------------------------------


def keras2_order(part: Part) -> list[PartVariable]:
    """Keras 1, Keras 2 and tf_keras: `trainable_weights + non_trainable_weights`
    (tf_keras/src/engine/base_layer.py, and training.py for models)."""
    return _trained(part) + _untrained(part)


def _slots(part: Part, trainable: bool) -> list[PartVariable]:
    slots = [PartVariable(part, index) for index in range(len(part.weights))]
    return [slot for slot in slots if slot.trainable is trainable]


def _trained(part: Part) -> list[PartVariable]:
    if not part.trainable:
        return []
    below = [slot for _, child in part.children for slot in _trained(child)]
    return _slots(part, True) + _as_made(part, below)


def _as_made(part: Part, slots: list[PartVariable]) -> list[PartVariable]:
    """Return the weights of a layer of Keras 1 for which a model stands in that layer's order: its
    kernels, then its biases."""
    return sorted(slots, key=lambda slot: slot.number) if STANDS_FOR in part.node.whole else slots


def _untrained(part: Part) -> list[PartVariable]:
    below = [child for _, child in part.children]
    if part.trainable:
        return _slots(part, False) + [slot for child in below for slot in _untrained(child)]
    if part.is_model:
        first = _as_made(part, [slot for child in below for slot in _trained(child)])
        return first + [slot for child in below for slot in _untrained(child)]
    return _slots(part, True) + _slots(part, False) + [s for c in below for s in keras2_order(c)]


def keras3_order(part: Part) -> list[PartVariable]:
    """Keras 3: trained are a layer's variables unless that layer itself is frozen; of a top-level
    layer that is frozen, all are listed as they were made (keras/src/layers/layer.py,
    `_track_variable` and `trainable_weights`)."""
    slots = list(_made(part))
    return slots if is_frozen(part) else _split(slots, lambda slot: not slot.part.trainable)


def frozen_order(part: Part) -> list[PartVariable]:
    """Keras 3 when it saves a model of which parts were frozen after they were built."""
    slots = list(_made(part))
    frozen = set(_frozen(part, False))
    return slots if is_frozen(part) else _split(slots, frozen.__contains__)


def is_frozen(top: Part) -> bool:
    """Whether Keras 3 takes a layer of the model as frozen: a Sequential's config cannot say so."""
    return not top.trainable and not (top.is_model and top.class_name == "Sequential")


def _split(
    slots: list[PartVariable], is_fixed: Callable[[PartVariable], bool]
) -> list[PartVariable]:
    trained = [slot.trainable and not is_fixed(slot) for slot in slots]
    pairs = list(zip(slots, trained, strict=True))
    return [slot for slot, first in pairs if first] + [slot for slot, first in pairs if not first]


def _made(part: Part) -> Iterator[PartVariable]:
    yield from _slots(part, True) + _slots(part, False)
    for _, child in part.children:
        yield from _made(child)


def _frozen(part: Part, outer: bool) -> Iterator[PartVariable]:
    outer = outer or not part.trainable
    if outer:
        yield from _slots(part, True)
    for _, child in part.children:
        yield from _frozen(child, outer)


# -- arrays of older Keras in today's order of axes --------------------------------------------


def finish(part: Part, *, theano: bool) -> None:
    """Turn a part's arrays into the order of axes that Keras 3 has."""
    if part.custom:  # it may have the name of one of Keras's classes
        return
    class_name = part.node.class_name
    stands_for = part.node.whole.get(STANDS_FOR)
    if stands_for == "Deconvolution2D" and part.arrays:
        part.arrays[0] = _deconvolution_of_keras1(part, theano=theano)
        return
    if stands_for is not None and part.is_model:
        _size_composed(part)
    if class_name == "CuDNNGRU" and part.arrays:
        part.arrays = gru_of_cudnn(part.arrays)
    if class_name == "Conv1D" and part.arrays and len(part.arrays[0].shape) == 4:
        part.arrays[0] = _conv1d_of_keras1(part)
    elif class_name in ("Conv2D", "Conv3D") and part.arrays:
        part.arrays[0] = _window_first(part)
    if theano and class_name in CONVOLUTIONS and part.arrays:
        part.arrays[0] = _flipped(part.arrays[0])


def _deconvolution_of_keras1(part: Part, *, theano: bool) -> Tensor:
    """(rows, columns, input, filters), or (filters, input, rows, columns) where channels are first
    (tf_keras/src/saving/legacy/hdf5_format.py, `preprocess_weights_for_loading`)."""
    if theano:
        what = "Theano's convolution that is turned round is not a layer of Keras 3"
        raise unsupported(what, part.name, "Deconvolution2D")
    is_first = part.config.get("data_format") == "channels_first"
    order = (2, 3, 0, 1) if is_first else (0, 1, 3, 2)
    return _changed(part.arrays[0], lambda array: np.transpose(array, order))


def _size_composed(model: Part) -> None:
    """Give the layers that stand for one of Keras 1 the sizes that only its weights say, and those
    of a MaxoutDense their arrays: (features, inputs, units) and (features, units) there."""
    dense = [part for _, part in model.children if part.class_name == "Dense" and part.arrays]
    for part in dense:
        kernel, *bias = part.arrays
        if len(kernel.shape) == 3:
            kernel = _changed(kernel, _features_together)
            part.arrays = [kernel, *(_changed(each, np.ravel) for each in bias)]
        if len(kernel.shape) != 2:
            continue
        part.config["units"] = kernel.shape[1]
        part.node.config["units"] = kernel.shape[1]
        start = model.children[0][1].node.config
        start["batch_input_shape"] = [None, kernel.shape[0]]


def _features_together(kernel: Array) -> Array:
    """(features, inputs, units) -> (inputs, features * units)."""
    return np.transpose(kernel, (1, 0, 2)).reshape(kernel.shape[1], -1)


def _conv1d_of_keras1(part: Part) -> Tensor:
    """(steps, 1, input, filters) of Keras 1.1 and 1.2, or (filters, input, steps, 1) before
    (keras/engine/saving.py of Keras 2.2, `preprocess_weights_for_loading`)."""
    kernel = part.arrays[0]
    steps, filters = part.config.get("kernel_size"), part.config.get("filters")
    steps = steps[0] if isinstance(steps, list) else steps
    if kernel.shape[:2] == (steps, 1) and kernel.shape[3] == filters:
        return _changed(kernel, lambda array: array[:, 0])
    return _changed(kernel, lambda array: np.transpose(array, (2, 3, 1, 0))[:, 0])


def _window_first(part: Part) -> Tensor:
    kernel, filters = part.arrays[0], part.config.get("filters")
    is_th = part.config.get("data_format") == "channels_first"
    window = part.config.get("kernel_size")
    old = isinstance(window, list) and list(kernel.shape[2:]) == window and is_th
    if not old or kernel.shape[0] != filters or list(kernel.shape[:-2]) == window:
        return kernel
    rank = len(kernel.shape)
    return _changed(kernel, lambda array: np.transpose(array, (*range(2, rank), 1, 0)))


def _flipped(kernel: Tensor) -> Tensor:
    return _changed(kernel, lambda array: np.flip(array, tuple(range(array.ndim - 2))))


def pad_as_theano(part: Part) -> None:
    """Give a layer that pads as Theano does the form that computes the same in Keras 3.

    `same` is `half` on Theano: a convolution pads half of its kernel on both sides and leaves out
    what is too much at the end, so that an even kernel has its odd zero before, where every other
    backend has it behind. A zero more at the end of such a kernel makes it an odd one that gives
    the same numbers. With strides, what other backends pad depends on the length of the input.
    Pooling pads by its size as well, and more than others do
    (keras/backend/theano_backend.py of Keras 1.2.2 and 2.3.1, `conv2d` and `pool2d`).

    Raises:
        UnsupportedByTarget: nothing in Keras 3 gives the same numbers.
    """
    if part.custom or part.config.get("padding") != "same":
        return
    keyword = "pool_size" if part.class_name in _POOLS else "kernel_size"
    sizes, strides = _each(part.config.get(keyword)), _each(part.config.get("strides"))
    if part.class_name in _POOLS:
        # Without strides they are the size.
        alike = all(size == 1 or (size == 3 and strides == [1] * len(sizes)) for size in sizes)
    elif part.class_name in _PADDED:
        alike = all(size == 1 for size in sizes) or not any(step > 1 for step in strides)
    else:
        return
    if not alike:
        raise unsupported(
            "Theano pads this layer as no Keras of today does", part.name, "padding",
            f"{part.class_name} with {keyword} {sizes}, strides {strides or sizes}, padding same",
        )
    dilated = any(step > 1 for step in _each(part.config.get("dilation_rate")))
    if part.class_name in _POOLS or all(size % 2 for size in sizes) or not part.arrays:
        return
    if dilated or part.class_name not in CONVOLUTIONS - {"Conv2DTranspose"}:
        raise unsupported(
            "Theano pads an even kernel as no Keras of today does", part.name, "padding",
            f"{part.class_name} with kernel_size {sizes}, padding same",
        )
    zeros = [(0, 1 - size % 2) for size in sizes] + [(0, 0)] * 2
    part.arrays[0] = _changed(part.arrays[0], lambda array: np.pad(array, zeros))
    part.config["kernel_size"] = [size + 1 - size % 2 for size in sizes]


def settle_bins(root: Part, era: str) -> None:
    """Give each Discretization that was adapted its boundaries: Keras 2 keeps a summary of what it
    saw in a variable, and computes them from it (tf_keras/src/layers/preprocessing/
    discretization.py, `get_bin_boundaries`); Keras 3 states them.

    Raises:
        UnsupportedByTarget: it was never adapted.
    """
    for part in root.walk() if era != "keras3" else ():
        if part.class_name != "Discretization" or part.config.get("bin_boundaries") is not None:
            continue
        bins = part.config.get("num_bins")
        summary = part.arrays[0].read() if part.arrays else np.zeros((2, 0))
        if not isinstance(bins, int) or bins < 1 or summary.shape[:1] != (2,) or summary.size < 2:
            what = "the boundaries that it was adapted to are not in the file"
            raise unsupported(what, part.name, "bin_boundaries")
        ends, each = summary[0], 1.0 / bins
        if summary.shape[1] * each >= 1:
            total = summary[1].cumsum()
            ends = np.interp(each + np.arange(0.0, 1.0, each), total / total[-1], summary[0])
        part.config["bin_boundaries"] = [float(end) for end in ends.astype(np.float32)[:-1]]
        part.config.pop("num_bins")
        part.arrays, part.paths, part.weights = [], [], ()


#: Layers that pool, and others that pad, by their class in Keras 3.
_POOLS = frozenset(f"{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3))
_PADDED = CONVOLUTIONS | {"DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"}


def _each(value: object) -> list[int]:
    """Return the sizes or steps that a keyword says, one for each axis or one for all."""
    listed = value if isinstance(value, list) else [value]
    return [size for size in listed if isinstance(size, int)]


def _changed(tensor: Tensor, change: Callable[[Array], Array]) -> Tensor:
    shape = change(np.broadcast_to(np.zeros((), tensor.dtype), tensor.shape)).shape
    return Computed(tensor, shape, change)


#: Class -> how many gates a recurrent layer's arrays have side by side.
_GATES = {"LSTMCell": 4, "GRUCell": 3, "SimpleRNNCell": 1}
#: Class -> the rank of its kernel.
_RANKS = {"Dense": 2, "Embedding": 2, "Conv1D": 3, "Conv2D": 4, "Conv3D": 5}


def check_shapes(part: Part) -> None:
    """Check the arrays of what the user put in a layer's place, as far as its class says shapes.

    Raises:
        UsageError: one has another shape than its class has.
    """
    for weight, tensor, expected in zip(part.weights, part.arrays, _shapes(part), strict=False):
        fits = len(tensor.shape) == len(expected) and all(
            wanted in (None, size) for wanted, size in zip(expected, tensor.shape, strict=True)
        )
        if not fits:
            raise UsageError(
                "--replace: a weight does not fit the layer that is put there",
                where=f"{part.name}/{weight.role}",
                found=_shape_text(tensor),
                expected="×".join("any" if size is None else str(size) for size in expected),
            )


def _shapes(part: Part) -> list[tuple[int | None, ...]]:
    """Return the shapes of a layer's weights, as far as its class and config say them."""
    sizes = SIZES.get(part.class_name)
    size = part.config.get(sizes.keyword) if sizes is not None else None
    count = size if isinstance(size, int) else None
    gates = _GATES.get(part.class_name)
    if gates is not None and isinstance(units := part.config.get("units"), int):
        count = units
        wide = gates * count
        rows = gates == 3 and part.config.get("reset_after", True) is not False
        return [(None, wide), (count, wide), (2, wide) if rows else (wide,)]
    if part.class_name in _RANKS:
        return [((None,) * (_RANKS[part.class_name] - 1)) + (count,), (count,)]
    if part.arrays and part.class_name in ("BatchNormalization", "LayerNormalization"):
        return [part.arrays[0].shape[-1:]] * len(part.arrays)
    return []


def check_size(part: Part, where: str) -> None:
    """Raise `CorruptFile` where a layer's weights are of another size than its config says."""
    sizes = SIZES.get(part.class_name)
    stated = None if sizes is None else part.config.get(sizes.keyword)
    if sizes is None or sizes.outputs is None or not isinstance(stated, int):
        return
    for weight, tensor in zip(part.weights, part.arrays, strict=True):
        if weight.role != sizes.role:
            continue
        if len(tensor.shape) < 2 or tensor.shape[sizes.outputs] != stated:
            raise CorruptFile(
                "the config and the stored weights disagree",
                where=f"{where}: {part.name}/{sizes.role}",
                found=f"shape {'×'.join(map(str, tensor.shape))}",
                expected=f"{sizes.keyword} {stated}",
            )


# -- recurrent cells other than an LSTM, from the arrays of Keras 1 and of cuDNN ---------------


_GRU = 3
_LEAF = re.compile(r"(?P<scope>.+)_(?P<role>[WUb])_(?P<gate>[zrh])(?::\d+)?")
#: A Keras 1 GRU lists its arrays gate by gate (keras/layers/recurrent.py of Keras 1.2.2).
_ORDER = tuple((gate, role) for gate in "zrh" for role in "WUb")

Named = tuple[str, Tensor]


def keras1_cell(stored: Sequence[Named]) -> tuple[list[Named], int]:
    """Join the nine arrays of a Keras 1 GRU at the start of a list to three.

    Returns:
        The arrays that replace the first ones, and how many those were: one, unchanged, if they
        are not such a cell.
    """
    matches = [_LEAF.fullmatch(name.rpartition("/")[2]) for name, _ in stored[: len(_ORDER)]]
    keys = tuple((m["gate"], m["role"]) for m in matches if m)
    if keys != _ORDER or len({m["scope"] for m in matches if m}) != 1:
        return [stored[0]], 1
    tensors = [tensor for _, tensor in stored[: len(_ORDER)]]
    joined = [
        (name, SideBySide(tuple(tensors[start :: len(ROLES_BY_LETTER)])))
        for start, name in enumerate(ROLES_BY_LETTER.values())
    ]
    return [(name, tensor) for name, tensor in joined], len(_ORDER)


def gru_of_cudnn(arrays: Sequence[Tensor]) -> list[Tensor]:
    """Unpack a CuDNNGRU as Keras does (tf_keras/src/saving/legacy/hdf5_format.py,
    `_convert_rnn_weights`): each gate's block of the kernel holds cuDNN's own (units, inputs) in
    C order, the recurrent block its transpose, and the two biases become two rows."""
    kernel, recurrent, bias = arrays

    def unpacked(array: Array) -> Array:
        rows, _ = array.shape
        blocks = np.split(array, _GRU, axis=1)
        return np.concatenate([b.reshape(-1).reshape(-1, rows).T for b in blocks], axis=1)

    def transposed(array: Array) -> Array:
        return np.concatenate([b.T for b in np.split(array, _GRU, axis=1)], axis=1)

    return [
        Computed(kernel, kernel.shape, unpacked),
        Computed(recurrent, recurrent.shape, transposed),
        Computed(bias, (2, bias.size // 2), lambda array: array.reshape(2, -1)),
    ]


Fitted = Callable[[LSTMLayer], LSTMLayer]


# -- into either weight store of Keras 3 -------------------------------------------------------


def v3_store(
    root: Part, fitted: Fitted, *, is_keras2: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return full path -> tensor, and group -> `name` attribute, of a v3 store: that of Keras 3, or
    of Keras 2, where the parts of a layer have private names."""
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for group, part in _groups(root, "", "_" if is_keras2 else ""):
        names[group] = part.name
        for index, tensor in enumerate(part.arrays):
            place = part.places[index] if part.custom else f"vars/{index}"
            tensors[f"{group}/{place}".strip("/")] = tensor
        if part.layer is not None:
            for place, name, cell in layerstore.v3_cells(fitted(part.layer), group):
                if name:
                    names[place] = name
                for index, tensor in enumerate(cell):
                    tensors[f"{place}/vars/{index}"] = tensor
    return tensors, names


def _groups(part: Part, group: str, private: str = "") -> Iterator[tuple[str, Part]]:
    yield group, part
    used: dict[str, int] = {}
    for attribute, child in part.children:
        before = private if part.row is not None and part.row.parts else ""
        path = f"{group}/{before}{attribute}".strip("/")
        if attribute in ("layers", "cells"):
            path = f"{path}/{counted(child.class_name, used)}"
        yield from _groups(child, path, private)


def legacy_store(
    root: Part, fitted: Fitted, *, is_keras2: bool = False
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Return full path below the weights' group -> tensor, and layer -> weight names, in the order
    of Keras 3 or of Keras 2."""
    tensors: dict[str, Tensor] = {}
    names: dict[str, tuple[str, ...]] = {}
    ordered = _in_keras2_order if is_keras2 else _in_order
    for _, top in root.children:
        if top.name in names:
            raise unsupported("an .h5 cannot hold two layers of one name", top.name, "name")
        _check_listed(top)
        listed: dict[str, Tensor] = {}
        for name, tensor in ordered(top, fitted):
            weight_name, count = name, 0
            while weight_name in listed:
                count += 1
                weight_name = f"{name}_{count}"
            listed[weight_name] = tensor
        names[top.name] = tuple(listed)
        tensors.update({f"{top.name}/{name}": tensor for name, tensor in listed.items()})
    return tensors, names


def _check_listed(top: Part) -> None:
    """Refuse a layer of an `.h5`, which lists weights in one order, where that of a class of the
    user's own is not known."""
    holding = [part for part in top.walk() if part.arrays or part.layer is not None]
    for part in holding:
        if part.custom and not (part.is_listed and len(holding) == 1):
            raise unsupported(
                "the order in which an .h5 lists the weights of a class of your own is not known; "
                "a .keras says their places",
                part.name, part.class_name,
            )


def _in_order(top: Part, fitted: Fitted) -> Iterator[tuple[str, Tensor]]:
    """Yield a layer's weights in the order in which Keras 3 reads them (`sources.keras3_order`)."""
    trained: list[tuple[str, Tensor]] = []
    rest: list[tuple[str, Tensor]] = []
    whole = is_frozen(top)
    for scope, part in _scopes(top, ""):
        for weight, tensor in zip(part.weights, part.arrays, strict=True):
            is_first = whole or (weight.trainable and part.trainable)
            (trained if is_first else rest).append((f"{scope}/{weight.role}", tensor))
        if part.layer is not None:
            for name, tensor, is_trained in layerstore.legacy_weights(fitted(part.layer), scope):
                (trained if whole or is_trained else rest).append((name, tensor))
    yield from (*trained, *rest)


def _in_keras2_order(top: Part, fitted: Fitted) -> Iterator[tuple[str, Tensor]]:
    """Yield a layer's weights in the order of Keras 2 (`keras2_order`)."""
    scopes = {part: scope for scope, part in _scopes(top, "")}

    def stored(part: Part, wanted: bool | None) -> Iterator[tuple[str, Tensor]]:
        scope = scopes[part]
        for weight, tensor in zip(part.weights, part.arrays, strict=True):
            if wanted in (None, weight.trainable):
                yield f"{scope}/{weight.role}", tensor
        if part.layer is not None:
            listed = list(layerstore.legacy_weights(fitted(part.layer), scope))
            first = [(name, tensor) for name, tensor, is_trained in listed if is_trained]
            rest = [(name, tensor) for name, tensor, is_trained in listed if not is_trained]
            yield from first if wanted is not False else ()
            yield from rest if wanted is not True else ()

    def trained(part: Part) -> Iterator[tuple[str, Tensor]]:
        if part.trainable:
            yield from stored(part, True)
            for _, child in part.children:
                yield from trained(child)

    def untrained(part: Part) -> Iterator[tuple[str, Tensor]]:
        below = [child for _, child in part.children]
        if part.trainable:
            yield from stored(part, False)
            for child in below:
                yield from untrained(child)
            return
        yield from stored(part, None)
        if part.is_model:
            for child in below:
                yield from trained(child)
            for child in below:
                yield from untrained(child)
            return
        for child in below:
            yield from trained(child)
            yield from untrained(child)

    yield from trained(top)
    yield from untrained(top)


def _scopes(part: Part, outer: str) -> Iterator[tuple[str, Part]]:
    scope = f"{outer}/{part.name}".strip("/")
    yield scope, part
    for _, child in part.children:
        yield from _scopes(child, scope)

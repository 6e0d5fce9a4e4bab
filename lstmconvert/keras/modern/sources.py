"""The arrays of a tree of parts, out of either weight store of the source.

A v3 store has a group for each part, a checkpoint's graph of objects a name for each weight. A
legacy store has a list for each layer of the model: what is trained first, then the rest, each in
the order in which the sub-layers were made. Which weights count as trained depends on the version
that wrote the file and on what was frozen; the names of the weights decide between the orders that
are possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.legacy import TOP_LEVEL
from lstmconvert.keras.modern import keras3, kernels
from lstmconvert.keras.modern.classes import CLASSES, Weight
from lstmconvert.keras.modern.parts import Part, no_row, unsupported
from lstmconvert.keras.modern.recurrent import keras1_cell
from lstmconvert.layer import LSTMLayer, OpaqueCell
from lstmconvert.model import OBJECTS, Structure
from lstmconvert.tensors import Tensor

_SUFFIX = re.compile(r"(_\d+)?(:\d+)?$")
_ROLES = sorted(
    {name for row in CLASSES.values() for w in row.weights for name in (w.role, *w.also)},
    key=len,
    reverse=True,
)
#: What a v3 store may hold beside a model's weights and its optimizer's: running means of metrics.
_METRICS = ("metrics/", "_metrics/", "compiled_metrics/", "_compile_metrics/", "_loss_tracker/")


class Slot(NamedTuple):
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


Order = Callable[[Part], list[Slot]]


def lstm_paths(layers: Sequence[LSTMLayer]) -> set[str]:
    """Return the full paths of every array that the neutral layers hold."""
    used: set[str] = set()
    for layer in layers:
        for _, direction in layer.directions:
            for cell in direction.cells:
                used.update(cell.paths if isinstance(cell, OpaqueCell) else cell.places.values())
    return used


class Source:
    """Fills a tree from a store.

    Args:
        structure: of the source.
        stored: full path -> tensor.
        layers: the neutral layers.
        where: for errors.
    """

    def __init__(
        self,
        structure: Structure,
        stored: Mapping[str, Tensor],
        layers: Sequence[LSTMLayer],
        where: str,
    ) -> None:
        self._structure, self._stored, self._where = structure, stored, where
        self._used = lstm_paths(layers)

    def fill(self, root: Part, era: str) -> None:
        """Give every part its arrays.

        Raises:
            CorruptFile: config and store contradict each other.
            UnsupportedByTarget: weights that belong to no layer of the config.
        """
        if self._structure.kind in ("v3", OBJECTS):
            for part in root.walk():
                self._fill_part(part)
        else:
            self._fill_legacy(root, era)
        for part in root.walk():
            kernels.check_size(part, self._where)
        self._check_all_used(root)

    def _check_all_used(self, root: Part) -> None:
        for path in sorted(self._structure.paths - self._used):
            if path.startswith(_METRICS):
                continue
            raise unsupported(
                "weights that no layer of the config holds", root.name, path, found=path
            )

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
        kernels.finish(part, theano=False)

    def _path(self, group: str, index: int, weight: Weight) -> str:
        if self._structure.kind == "v3":
            return f"{group}/vars/{index}".strip("/")
        names = [f"{group}/{role}" for role in (weight.role, *weight.also)]
        return next((found for n in names if (found := self._structure.names.get(n))), names[0])

    def _fill_legacy(self, root: Part, era: str) -> None:
        if self._structure.weights.get(TOP_LEVEL):
            raise unsupported("weights of the model itself", root.name, TOP_LEVEL)
        tops = [part for _, part in root.children]
        groups = self._groups(tops)
        theano = self._is_theano()
        for part in tops:
            if part.name in groups:
                self._fill_top(part, groups[part.name], era)
            for below in part.walk():
                kernels.finish(below, theano=theano)

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

    def _is_theano(self) -> bool:
        backend = self._structure.attributes.get("backend")
        if backend is not None:
            return backend == "theano"
        # Keras 1 does not say; TensorFlow's variables have a number behind a colon.
        names = [name for weights in self._structure.weights.values() for name in weights]
        is_keras1 = "keras_version" not in self._structure.attributes or self._structure.attributes[
            "keras_version"
        ].startswith("1")
        return is_keras1 and bool(names) and not any(":" in name for name in names)

    def _fill_top(self, part: Part, group: str, era: str) -> None:
        found: list[tuple[str, Tensor]] = []
        for name in self._structure.weights[group]:
            leaf = name.replace("//", "/").strip("/")
            path = "/".join(p for p in (self._structure.root, group, leaf) if p)
            if path in self._used:
                continue
            if path not in self._stored:
                raise CorruptFile("a listed weight is missing", where=f"{self._where}: {path}")
            self._used.add(path)
            found.append((name, self._stored[path]))
        unknown = (below for below in part.walk() if below.opaque)
        opaque = next((below for below in unknown if not keras3.is_operation(below)), None)
        if opaque is not None and found:
            raise no_row(opaque.name, opaque.class_name)
        found = _joined(found, era)
        slots = _best(part, [name for name, _ in found], era)
        if slots is None:
            raise CorruptFile(
                "the config and the stored weights disagree",
                where=f"{self._where}: {group}",
                found=", ".join(name for name, _ in found)[:300] or "no weights",
                expected=", ".join(_described(slot) for slot in keras3_order(part))[:300],
            )
        arrays = {slot: tensor for slot, (_, tensor) in zip(slots, found, strict=True)}
        for below in part.walk():
            below.arrays = [arrays[Slot(below, i)] for i in range(len(below.weights))]


def _holds(part: Part) -> bool:
    return any(below.weights or below.layer is not None for below in part.walk())


def _described(slot: Slot) -> str:
    return f"{slot.part.name}/{slot.weight.role}"


def _joined(found: list[tuple[str, Tensor]], era: str) -> list[tuple[str, Tensor]]:
    """Join the arrays of a Keras 1 recurrent cell, which has them gate by gate."""
    if era != "keras1":
        return found
    result: list[tuple[str, Tensor]] = []
    index = 0
    while index < len(found):
        joined, taken = keras1_cell(found[index:])
        result.extend(joined)
        index += taken
    return result


def _best(part: Part, names: list[str], era: str) -> list[Slot] | None:
    """Return the order of a layer's weights that their names allow, and fit best."""
    orders = [keras3_order, keras2_order, frozen_order]
    if era != "keras3":
        orders = [keras2_order, keras3_order]
    scored = []
    for order in orders:
        slots = order(part)
        if len(slots) == len(names) and all(map(_allows, names, slots)):
            scored.append((sum(map(_names_layer, names, slots)), slots))
    return max(scored, key=lambda item: item[0])[1] if scored else None


def _allows(name: str, slot: Slot) -> bool:
    leaf = _SUFFIX.sub("", name.rpartition("/")[2])
    weight = slot.weight
    role = next((r for r in _ROLES if leaf == r or leaf.endswith(f"_{r}")), None)
    return role is None or role == weight.role or role in weight.also


def _names_layer(name: str, slot: Slot) -> bool:
    return slot.part.name in _SUFFIX.sub("", name).split("/")[:-1]


# -- the orders of a legacy layer's weights ---------------------------------------------------


def keras2_order(part: Part) -> list[Slot]:
    """Keras 1, Keras 2 and tf_keras: `trainable_weights + non_trainable_weights`
    (tf_keras/src/engine/base_layer.py, and training.py for models)."""
    return _trained(part) + _untrained(part)


def _own(part: Part, trainable: bool) -> list[Slot]:
    slots = [Slot(part, index) for index in range(len(part.weights))]
    return [slot for slot in slots if slot.trainable is trainable]


def _trained(part: Part) -> list[Slot]:
    if not part.trainable:
        return []
    return _own(part, True) + [s for _, child in part.children for s in _trained(child)]


def _untrained(part: Part) -> list[Slot]:
    below = [child for _, child in part.children]
    if part.trainable:
        return _own(part, False) + [slot for child in below for slot in _untrained(child)]
    if part.is_model:
        first = [slot for child in below for slot in _trained(child)]
        return first + [slot for child in below for slot in _untrained(child)]
    return _own(part, True) + _own(part, False) + [s for c in below for s in keras2_order(c)]


def keras3_order(part: Part) -> list[Slot]:
    """Keras 3: trained are a layer's variables unless that layer itself is frozen; of a top-level
    layer that is frozen, all are listed as they were made (keras/src/layers/layer.py,
    `_track_variable` and `trainable_weights`)."""
    slots = list(_made(part))
    return slots if is_frozen(part) else _split(slots, lambda slot: not slot.part.trainable)


def frozen_order(part: Part) -> list[Slot]:
    """Keras 3 when it saves a model of which parts were frozen after they were built."""
    slots = list(_made(part))
    frozen = set(_frozen(part, False))
    return slots if is_frozen(part) else _split(slots, frozen.__contains__)


def is_frozen(top: Part) -> bool:
    """Whether Keras 3 takes a layer of the model as frozen: a Sequential's config cannot say so."""
    return not top.trainable and not (top.is_model and top.class_name == "Sequential")


def _split(slots: list[Slot], is_fixed: Callable[[Slot], bool]) -> list[Slot]:
    trained = [slot.trainable and not is_fixed(slot) for slot in slots]
    pairs = list(zip(slots, trained, strict=True))
    return [slot for slot, first in pairs if first] + [slot for slot, first in pairs if not first]


def _made(part: Part) -> Iterator[Slot]:
    yield from _own(part, True) + _own(part, False)
    for _, child in part.children:
        yield from _made(child)


def _frozen(part: Part, outer: bool) -> Iterator[Slot]:
    outer = outer or not part.trainable
    if outer:
        yield from _own(part, True)
    for _, child in part.children:
        yield from _frozen(child, outer)

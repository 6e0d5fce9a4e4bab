"""Layers of a checkpoint that are found, each with its options' source and its arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lstmconvert.checkpoints import objects
from lstmconvert.checkpoints.byname import forward_first
from lstmconvert.errors import CorruptFile
from lstmconvert.keras import bindlegacy, legacy
from lstmconvert.keras.era import Era, era_of
from lstmconvert.keras.nodes import Node
from lstmconvert.keras.read import Config
from lstmconvert.keras.sketch import CellSketch, LayerSketch, natural, plan
from lstmconvert.keras.stored import ROLES, CellArrays, Stored
from lstmconvert.tensorflow.bundle import Bundle
from lstmconvert.tensors import Tensor

_NO_STACK = (
    "tf.train.Checkpoint does not save the cells of a stack of Keras 3; its .keras and .weights.h5 "
    "have them"
)


@dataclass(frozen=True, slots=True)
class Bound:
    """A layer that is found, its options' source, and its arrays."""

    sketch: LayerSketch
    arrays: Callable[[CellSketch], CellArrays]
    era: Era | None


def placed(
    sketches: Iterable[LayerSketch],
    era: Era,
    names: Mapping[str, str],
    tensors: Mapping[str, Tensor],
) -> list[Bound]:
    """Bind the layers of a whole model's config.

    Args:
        sketches: the layers.
        era: of the config.
        names: what `placing.place` found.
        tensors: the checkpoint's, by key.

    Raises:
        CorruptFile: a cell has no kernels.
    """
    groups: dict[str, dict[str, Stored]] = {}
    for name, key in names.items():
        group, _, role = name.rpartition("/")
        groups.setdefault(group, {})[role] = Stored(key, tensors[key])
    result = []
    for sketch in sketches:
        found: dict[int, CellArrays] = {}
        for cell in sketch.cells:
            own = groups.get(cell.group, {})
            roles = sorted(own, key=lambda role: ROLES.index(role) if role in ROLES else len(ROLES))
            if cell.is_lstm and not {"kernel", "recurrent_kernel"} <= set(own):
                is_stack = len(sketch.cells) > len(sketch.directions)
                raise CorruptFile(
                    "the weights of an LSTM are not stored",
                    where=sketch.name,
                    hint=_NO_STACK if is_stack else None,
                )
            found[id(cell)] = CellArrays({role: own[role] for role in roles})
        result.append(Bound(sketch, _given(found), era))
    return result


def described(found: objects.Found, nodes: Mapping[str, Node]) -> Bound:
    """Bind a layer of the graph to what Keras 2 wrote of it, if it did."""
    item = nodes.get(found.path)
    sketch = found.sketch
    if item is not None:
        sketches = plan(item).layers
        if len(sketches) == 1 and len(sketches[0].cells) == len(sketch.cells):
            outer = [nodes[p].name for p in _prefixes(found.path) if p in nodes]
            own = sketches[0]
            named = LayerSketch(
                name="/".join([*outer, own.name]),
                group=found.path,
                top=found.path,
                class_name=own.class_name,
                node=own.node,
                directions=own.directions,
            )
            era = era_of(None, item.config)
            return Bound(named, _paired(named, sketch, found.arrays), era)
    return Bound(sketch, lambda cell: CellArrays(found.arrays[id(cell)]), None)


def _prefixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _paired(
    sketch: LayerSketch, other: LayerSketch, arrays: Mapping[int, dict[str, Stored]]
) -> Callable[[CellSketch], CellArrays]:
    """Give the cells of one sketch the arrays of another's, in order."""
    pairs = {
        id(mine): arrays[id(theirs)]
        for mine, theirs in zip(sketch.cells, other.cells, strict=True)
    }
    return _given({key: CellArrays(found) for key, found in pairs.items()})


def by_full_names(bundle: Bundle, path: Path) -> list[Bound]:
    """Variables that hang on nothing but a list (Keras 3's `export`), or of a Keras model that
    TensorFlow 1's Saver wrote: by their own names."""
    weights: dict[str, list[Stored]] = {}
    names: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name, key in _full_names(bundle):
        if name not in seen:
            seen.add(name)
            weights.setdefault(name.split("/")[0], []).append(Stored(key, bundle.tensors[key]))
            names.setdefault(name.split("/")[0], []).append(name)
    store = legacy.LegacyStore(
        "", weights, {layer: tuple(listed) for layer, listed in names.items()}, {}, bundle.tensors
    )
    inferred = bindlegacy.infer(store, path)
    arrays = bindlegacy.LegacyArrays(store, inferred, path)
    return [Bound(sketch, arrays, None) for sketch in inferred.layers if sketch.has_lstm]


def _full_names(bundle: Bundle) -> list[tuple[str, str]]:
    """Return `(name, key)` of the variables, those of a cell in the order of its weights."""
    if bundle.graph is not None:
        return sorted(objects.full_names(bundle), key=lambda pair: _order(pair[1]))
    leaf = "/recurrent_kernel"
    found = [key.removesuffix(leaf) for key in bundle.tensors if key.endswith(leaf)]
    scopes = sorted(found, key=forward_first)
    keys = [f"{scope}/{role}" for scope in scopes for role in ROLES]
    return [(key, key) for key in keys if key in bundle.tensors]


def _order(key: str) -> tuple[bool, tuple[tuple[str, int], ...]]:
    return not key.startswith("variables/"), natural(key)


def with_config(found: list[Bound], config: Config, path: Path) -> list[Bound]:
    """Give the layers of a checkpoint the options of a model's config: by name, else in order.

    Raises:
        CorruptFile: they are of different models.
    """
    sketches = [sketch for sketch in plan(config.root).layers if sketch.has_lstm]
    by_name = {one.sketch.name: one for one in found}
    if len(sketches) != len(found):
        raise CorruptFile(
            "the config and the checkpoint are of different models",
            where=path,
            found=f"{len(found)} LSTM layers: {', '.join(by_name)}",
            expected=f"{len(sketches)}: {', '.join(sketch.name for sketch in sketches)}",
        )
    if all(sketch.name in by_name for sketch in sketches):
        found = [by_name[sketch.name] for sketch in sketches]
    result = []
    for sketch, one in zip(sketches, found, strict=True):
        if len(sketch.cells) != len(one.sketch.cells):
            raise CorruptFile(
                "the config and the checkpoint disagree about a layer",
                where=f"{path}: {sketch.name}",
                found=f"{len(one.sketch.cells)} cells",
                expected=f"{len(sketch.cells)}",
            )
        pairs = {
            id(mine): one.arrays(theirs)
            for mine, theirs in zip(sketch.cells, one.sketch.cells, strict=True)
        }
        result.append(Bound(sketch, _given(pairs), config.era))
    return result


def _given(pairs: Mapping[int, CellArrays]) -> Callable[[CellSketch], CellArrays]:
    return lambda cell: pairs[id(cell)]

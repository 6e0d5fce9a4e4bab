"""Opening TensorFlow checkpoints and SavedModels as models. Nothing in them is executed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from lstmconvert import files
from lstmconvert.checkpoints import objects, tf1
from lstmconvert.errors import CorruptFile, NoLSTM
from lstmconvert.jsontext import parse_object
from lstmconvert.keras import bindlegacy, build, legacy
from lstmconvert.keras.era import Era, era_of
from lstmconvert.keras.load import Given
from lstmconvert.keras.nodes import Node, node
from lstmconvert.keras.read import Config, parse_config
from lstmconvert.keras.sketch import CellSketch, LayerSketch, natural, plan
from lstmconvert.keras.stored import ROLES, CellArrays, Stored
from lstmconvert.layer import LSTMLayer
from lstmconvert.model import Model, Source
from lstmconvert.naming import layer_names
from lstmconvert.tensorflow.bundle import Bundle
from lstmconvert.tensorflow.checkpoint import read_checkpoint
from lstmconvert.tensorflow.savedmodel import SavedModel, read_saved_model

CHECKPOINT, SAVED_MODEL = "checkpoint", "savedmodel"
#: The layout of TensorFlow 1's cells.
TF1 = "tf1"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
#: Variables of TensorFlow 1's optimizers, after the variable that they belong to.
_POWER = re.compile(r"beta[12]_power(_\d+)?")
_SLOT = re.compile(
    rf"(Adam|AdamW|AdaMax|Nadam|LazyAdam|Momentum|RMSProp|Adagrad|Adadelta|Ftrl)(_\d+)?"
    rf"|{_POWER.pattern}"
)


def load_checkpoint(
    path: Path, given: Given | None = None, layout: str | None = None
) -> Model:
    """Load a TensorFlow checkpoint: a prefix, its index, or its directory.

    Args:
        path: of any of them.
        given: a config that the user supplied.
        layout: `tf1`, where the user says that what has the arrays of a cell is one.

    Raises:
        NotAModel, CorruptFile, LimitExceeded: see `read_checkpoint`.
        NoLSTM: no variable belongs to an LSTM cell.
    """
    bundle = read_checkpoint(path)
    root = path if path.is_dir() else path.parent
    takes_open = layout == TF1
    return _model(
        bundle, path, root, bundle.files, CHECKPOINT, _config(given), {}, bundle, takes_open
    )


def load_saved_model(path: Path, given: Given | None = None) -> Model:
    """Load a SavedModel directory.

    Raises:
        NotAModel, CorruptFile, LimitExceeded: see `read_saved_model`.
        NoLSTM: no variable belongs to an LSTM cell.
    """
    saved = read_saved_model(path)
    nodes = _keras_objects(saved)
    config = _config(given)
    return _model(saved.bundle, path, path, saved.files, SAVED_MODEL, config, nodes, saved.bundle)


def _config(given: Given | None) -> Config | None:
    return parse_config(given.text, given.version, given.where) if given else None


def _keras_objects(saved: SavedModel) -> dict[str, Node]:
    """Return path -> the serialized layer that Keras 2 wrote of the object there."""
    result = {}
    for one in saved.keras:
        value = parse_object(one.metadata, f"{saved.path}: {one.path}") if one.metadata else {}
        if isinstance(value.get("class_name"), str) and isinstance(value.get("config"), dict):
            path = one.path.partition(".")[2].replace(".", "/")
            result[path] = node(value, one.path)
    return result


@dataclass(frozen=True, slots=True)
class _Bound:
    """A layer that is found, its options' source, and its arrays."""

    sketch: LayerSketch
    arrays: Callable[[CellSketch], CellArrays]
    era: Era | None


def _model(
    bundle: Bundle,
    path: Path,
    root: Path,
    used_files: Iterable[Path],
    container: str,
    config: Config | None,
    nodes: dict[str, Node],
    checked: Bundle,
    takes_open: bool = False,
) -> Model:
    cells: tf1.Read | None = None
    layers, used = _layers(bundle, path, config, nodes)
    if not layers and bundle.graph is None:
        cells = tf1.read(bundle.tensors, path, takes_open=takes_open)
        layers, used = cells.layers, cells.used
    if not layers:
        names = sorted(key.removesuffix(_VALUE) for key in bundle.tensors)
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise NoLSTM(
            "no variable belongs to an LSTM cell",
            where=path,
            found=shown or "none",
            hint=tf1.open_hint(cells) if cells is not None else None,
        )
    slots = {key for key in bundle.tensors if _is_slot(bundle, key)}
    twice = _listed_twice(bundle)
    listed = tuple(used_files)

    def digest() -> str:
        checked.check_large()
        return files.digest_of_files(root, listed)

    return Model(
        layers=layers,
        source=Source(
            container=container, era=config.era.name if config else None, digest=digest
        ),
        container=container,
        other={k: t for k, t in bundle.tensors.items() if k not in used | slots | twice},
        optimizer={k: t for k, t in bundle.tensors.items() if k in slots - used},
        layout=TF1 if cells is not None else None,
        notes=tf1.notes(cells) if cells is not None else (),
    )


def _listed_twice(bundle: Bundle) -> set[str]:
    """Keras 3's `export` saves each variable twice: under `variables/` and `_all_variables/`."""
    names: dict[str, list[str]] = {}
    for name, key in objects.full_names(bundle):
        names.setdefault(name, []).append(key)
    return {
        key
        for keys in names.values()
        for key in keys
        if key.startswith("_all_variables/") and any(k.startswith("variables/") for k in keys)
    }


def _is_slot(bundle: Bundle, key: str) -> bool:
    if bundle.graph is not None:
        return key in bundle.graph.slots or key.startswith("optimizer/")
    first, _, last = key.rpartition("/")
    if not _SLOT.fullmatch(last):
        return False
    # An optimizer that was made in a scope of its own has that before the variable's name.
    scopes = first.split("/")
    return _POWER.fullmatch(last) is not None or any(
        "/".join(scopes[start:]) in bundle.tensors for start in range(len(scopes))
    )


def _layers(
    bundle: Bundle, path: Path, config: Config | None, nodes: dict[str, Node]
) -> tuple[tuple[LSTMLayer, ...], Set[str]]:
    found = objects.layers(bundle)
    bound = [_bound(one, nodes) for one in found] if found else _by_full_names(bundle, path)
    if not bound and bundle.graph is None:
        return (), frozenset()
    if config is not None:
        bound = _with_config(bound, config, path)
    context = build.Context.of(config.root) if config else None
    names = layer_names(one.sketch.name for one in bound)
    layers = tuple(
        build.layer(one.sketch, one.arrays, one.era, name, context)
        for one, name in zip(bound, names, strict=True)
    )
    cells = [cell for layer in layers for _, _, cell in layer.cells()]
    return layers, {place for cell in cells for place in cell.places.values()}


def _bound(found: objects.Found, nodes: dict[str, Node]) -> _Bound:
    """Bind a layer of the graph to what Keras 2 wrote of it, if it did."""
    item = nodes.get(found.path)
    sketch = found.sketch
    if item is not None:
        sketches = plan(item).layers
        if len(sketches) == 1 and len(sketches[0].cells) == len(sketch.cells):
            outer = [nodes[p].name for p in _prefixes(found.path) if p in nodes]
            described = sketches[0]
            named = LayerSketch(
                name="/".join([*outer, described.name]),
                group=found.path,
                top=found.path,
                class_name=described.class_name,
                node=described.node,
                directions=described.directions,
            )
            era = era_of(None, item.config)
            return _Bound(named, _paired(named, sketch, found.arrays), era)
    return _Bound(sketch, lambda cell: CellArrays(found.arrays[id(cell)]), None)


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


def _by_full_names(bundle: Bundle, path: Path) -> list[_Bound]:
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
    inferred = bindlegacy.infer(store)
    arrays = bindlegacy.LegacyArrays(store, inferred, path)
    return [_Bound(sketch, arrays, None) for sketch in inferred.layers if sketch.has_lstm]


def _full_names(bundle: Bundle) -> list[tuple[str, str]]:
    """Return `(name, key)` of the variables, those of a cell in the order of its weights."""
    if bundle.graph is not None:
        return sorted(objects.full_names(bundle), key=lambda pair: _order(pair[1]))
    leaf = "/recurrent_kernel"
    found = [key.removesuffix(leaf) for key in bundle.tensors if key.endswith(leaf)]
    scopes = sorted(found, key=_forward)
    keys = [f"{scope}/{role}" for scope in scopes for role in ROLES]
    return [(key, key) for key in keys if key in bundle.tensors]


def _forward(scope: str) -> list[tuple[object, bool]]:
    """Order scopes as a model has them: a forward half before the backward one."""
    return [
        (natural(part.removeprefix("forward_").removeprefix("backward_")), part[:9] == "backward_")
        for part in scope.split("/")
    ]


def _order(key: str) -> tuple[bool, tuple[tuple[str, int], ...]]:
    return not key.startswith("variables/"), natural(key)


def _with_config(bound: list[_Bound], config: Config, path: Path) -> list[_Bound]:
    """Give the layers of a checkpoint the options of a model's config: by name, else in order."""
    described = [sketch for sketch in plan(config.root).layers if sketch.has_lstm]
    by_name = {one.sketch.name: one for one in bound}
    if len(described) != len(bound):
        raise CorruptFile(
            "the config and the checkpoint are of different models",
            where=path,
            found=f"{len(bound)} LSTM layers: {', '.join(by_name)}",
            expected=f"{len(described)}: {', '.join(sketch.name for sketch in described)}",
        )
    if all(sketch.name in by_name for sketch in described):
        bound = [by_name[sketch.name] for sketch in described]
    result = []
    for sketch, one in zip(described, bound, strict=True):
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
        result.append(_Bound(sketch, _given(pairs), config.era))
    return result


def _given(pairs: Mapping[int, CellArrays]) -> Callable[[CellSketch], CellArrays]:
    return lambda cell: pairs[id(cell)]

"""A model rebuilt whole: out of one weight store into the other, or on to today's Keras.

The config of a Keras 3 model is kept as it is. One of an older Keras is spelled anew; its loss and
optimizer (`training_config`) are left behind.
"""

from __future__ import annotations

from collections.abc import Mapping

from lstmconvert.dtypes import FLOATS
from lstmconvert.jsontext import canonical, parse_object
from lstmconvert.keras import emit
from lstmconvert.keras.fit import Fitter
from lstmconvert.keras.modern import graph, keras3, objects, sources, stores
from lstmconvert.keras.modern.emission import Emitter
from lstmconvert.keras.modern.parts import Builder, Part, no_row, unsupported
from lstmconvert.keras.nodes import Node
from lstmconvert.keras.read import parse_config
from lstmconvert.keras.v3store import CONTAINERS
from lstmconvert.layer import LSTMLayer
from lstmconvert.model import OBJECTS, Model, Structure
from lstmconvert.records import dataclass
from lstmconvert.tensors import Tensor

ARCHIVE, WEIGHTS, LEGACY = "keras", "weights.h5", "h5"
_V3 = "v3"
_ELLIPSIS = '"__ellipsis__"'
_NO_TRAINING = "the model's loss and optimizer are not carried over; compile it again to train it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A whole model for one store.

    Fields: `tensors`: full path below the weights' group -> tensor; `names`: v3 group -> `name`
    attribute; `weights`: legacy layer -> weight names; `config`: the model's config as a text;
    `losses` and `warnings`, to tell the user.
    """

    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]
    weights: Mapping[str, tuple[str, ...]]
    config: str
    losses: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a model is rebuilt.

    Fields: `store`: `ARCHIVE`, `WEIGHTS` (the same store, no config) or `LEGACY`;
    `rescale_hard_sigmoid`: whether Keras 2's is folded into the weights; `recast`: whether the LSTM
    layers have another dtype than their config says.
    """

    store: str
    rescale_hard_sigmoid: bool = False
    recast: bool = False


def rebuilt(model: Model, stored: Mapping[str, Tensor], how: How) -> Whole | None:
    """Rebuild a model whole.

    Args:
        model: the model.
        stored: every tensor but the optimizer's, at its full path in the source.
        how: for which store, and how.

    Returns:
        None if the source has no config, or its store is of neither kind.

    Raises:
        UnsupportedByTarget: a layer's class, keyword or call has no place in Keras 3.
        UnknownOption: an option that changes numbers is unknown.
        CorruptFile: config and store contradict each other.
    """
    text, structure = model.texts.get("model_config"), model.source.structure
    if text is None or structure is None or structure.kind not in (_V3, "legacy", OBJECTS):
        return None
    config = parse_config(text, model.source.keras_version, "model_config")
    if config.root.custom:
        raise no_row(config.root.name or "model", config.root.class_name)
    if not config.root.is_model:
        return None
    if how.store == LEGACY and model.assets:
        raise unsupported("an .h5 holds no asset files", "model", next(iter(model.assets)))
    era = config.era.name
    fit = _Fit(how.rescale_hard_sigmoid, knows=how.store != WEIGHTS)
    root = _tree(model, structure, era, config.root)
    sources.Source(structure, stored, model.layers, model.source.container).fill(root, era)
    written = ""
    if era != "keras3":
        graphs = graph.arranged(root)
        for part in root.walk():
            _check_halves(part, graphs.get(part))
        if how.store != WEIGHTS:
            written = canonical(Emitter(era, _policy(stored), fit, graphs).root(root))
    elif how.store != WEIGHTS:
        written = keras3.config(root, fit if how.recast or how.rescale_hard_sigmoid else None, text)
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str] = {}
    weights: Mapping[str, tuple[str, ...]] = {}
    if how.store == LEGACY:
        _check_legacy(root)
        tensors, weights = stores.legacy_store(root, fit)
    else:
        tensors, names = stores.v3_store(root, fit)
    return Whole(
        tensors=tensors,
        names=names,
        weights=weights,
        config=written,
        losses=tuple(fit.fitter.losses),
        warnings=_warnings(model, era, how.store),
    )


def _check_legacy(root: Part) -> None:
    """Refuse what Keras 3 does not load again from an `.h5`: it reads the calls of a model twice
    there, and takes no Ellipsis for what it was (keras/src/legacy/saving/legacy_h5_format.py)."""
    for part in root.walk():
        for item in part.node.listed("layers") if part.is_model else ():
            if isinstance(item, dict) and _ELLIPSIS in canonical(item):
                name = str(item.get("name"))
                raise unsupported("Keras does not load an Ellipsis of an .h5", name, "...")


class _Fit:
    """Fits each layer once. A store without a config takes a layer whose options are unknown."""

    def __init__(self, rescale: bool, *, knows: bool) -> None:
        self.fitter = Fitter(emit.TARGET, rescale=rescale)
        self._fit = self.fitter.fit if knows else self.fitter.fit_weights
        self._done: dict[int, LSTMLayer] = {}

    def __call__(self, layer: LSTMLayer) -> LSTMLayer:
        if id(layer) not in self._done:
            self._done[id(layer)] = self._fit(layer)
        return self._done[id(layer)]


def _tree(model: Model, structure: Structure, era: str, root: Node) -> Part:
    layers = {layer.path: layer for layer in model.layers}
    groups = _groups(structure.paths)
    container = CONTAINERS[0]
    if structure.kind == _V3:
        tops = {path.partition("/")[0] for path in structure.paths}
        container = next((name for name in CONTAINERS if name in tops), container)
    return Builder(layers, era, container, groups if structure.kind == _V3 else ()).model(root)


def _check_halves(model: Part, calls: graph.Graph | None) -> None:
    """Refuse halves of unlike width before layers with weights: Keras 3 takes both for as wide as
    the forward one (keras/src/layers/rnn/bidirectional.py, `compute_output_shape`), and builds what
    follows for that."""
    unlike: dict[str, str] = {}
    before = ""
    for _, part in model.children if model.is_model else ():
        refs = (ref for call in calls.calls[part.name] for ref in call.refs()) if calls else ()
        inputs = [ref.layer for ref in refs] if calls else [before]
        wide = next((unlike[name] for name in inputs if name in unlike), None)
        if wide is not None and any(below.weights or below.layer for below in part.walk()):
            raise unsupported(
                "Keras 3 builds the layers after it for halves of equal width",
                wide,
                "backward_layer",
            )
        if wide is not None or (part.class_name == "Bidirectional" and _are_unlike(part.node)):
            unlike[part.name] = wide or part.name
        before = part.name


def _are_unlike(node: Node) -> bool:
    halves = [half for key in ("layer", "backward_layer") if (half := node.child(key))]
    return len({half.config.get("units", half.config.get("filters")) for half in halves}) > 1


def _groups(paths: frozenset[str]) -> frozenset[str]:
    found: set[str] = set()
    for path in paths:
        group = path.rpartition("/vars/")[0]
        while group and group not in found:
            found.add(group)
            group = group.rpartition("/")[0]
    return frozenset(found)


def _policy(stored: Mapping[str, Tensor]) -> str:
    """Return the dtype of layers that say none: the one that all weights have."""
    found = {tensor.dtype.name for tensor in stored.values()} & set(FLOATS)
    return found.pop() if len(found) == 1 else objects.DEFAULT_POLICY


def _warnings(model: Model, era: str, store: str) -> tuple[str, ...]:
    has_training = "training_config" in model.texts
    text = model.texts["model_config"]
    # Keras 3 writes an empty one of a model that was never compiled.
    has_key = '"compile_config"' in text
    is_compiled = has_key and parse_object(text, "model_config").get("compile_config")
    if is_compiled and (era != "keras3" or store == LEGACY):
        has_training = True
    return (_NO_TRAINING,) if has_training and store != WEIGHTS else ()

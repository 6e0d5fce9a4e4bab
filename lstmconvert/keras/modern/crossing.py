"""A model rebuilt whole: out of one weight store into the other, or on to today's Keras.

The config of a Keras 3 model is kept as it is. One of an older Keras is spelled anew, and with it
what the model was compiled with (`compiled`). How many variables Keras counts in each layer is
known here, since Keras checks it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lstmconvert.conversion import Compiled
from lstmconvert.errors import CorruptFile, UnsupportedByTarget, UsageError
from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.keras.configs import spelling
from lstmconvert.keras.configs.nodes import CELL_CLASSES, MERGING, RECURRENT, ConfigNode, node
from lstmconvert.keras.configs.sketch import STACKED, layer_groups
from lstmconvert.keras.modern import custom, emission, graph, masking
from lstmconvert.keras.modern.classes import CLASSES, IN_A_CELL, LOOKUPS, PART_WEIGHTS
from lstmconvert.keras.modern.emission import Emitter
from lstmconvert.keras.modern.parts import (
    Builder,
    Leave,
    Part,
    makes_masks,
    no_row,
    unsupported,
)
from lstmconvert.keras.modern.replacing import Replacements
from lstmconvert.keras.modern.weights import (
    TreeFiller,
    legacy_store,
    lstm_paths,
    settle_bins,
    v3_store,
)
from lstmconvert.keras.reading.read import ParsedConfig, parse_config
from lstmconvert.keras.stores.v3store import CONTAINERS
from lstmconvert.keras.writing import emit
from lstmconvert.keras.writing.emit import KerasFitter
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import OBJECTS, Model, Structure
from lstmconvert.tensors.dtypes import FLOATS
from lstmconvert.tensors.tensor import Tensor

ARCHIVE, WEIGHTS, LEGACY = "keras", "weights.h5", "h5"
_V3 = "v3"
#: Since then, recurrent layers of Keras do not hand a mask on.
_EXPLICIT_SINCE = (3, 16)
#: The most names of arrays in a warning.
_SHOWN = 6
_ELLIPSIS = '"__ellipsis__"'
#: The most dropped parts of a compile state in a warning.
_DROPPED = 8


class WholeModel(NamedTuple):
    """A whole model for one store.

    Fields: `tensors`: full path below the weights' group -> tensor; `names`: v3 group -> `name`
    attribute; `weights`: legacy layer -> weight names; `config`: the model's config as a text;
    `training`: what it was compiled with, as an `.h5` holds that in a text of its own;
    `losses`, `warnings` and `compiled`, to tell the user; `custom_objects`: the registered names of
    classes of the user's own in it.
    """

    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]
    weights: Mapping[str, tuple[str, ...]]
    config: str
    losses: tuple[str, ...]
    warnings: tuple[str, ...]
    custom_objects: tuple[str, ...] = ()
    training: str = ""
    compiled: Compiled | None = None


class How(NamedTuple):
    """How a model is rebuilt.

    Fields: `store`: `ARCHIVE`, `WEIGHTS` (the same store, no config) or `LEGACY`;
    `rescale_hard_sigmoid`: whether Keras 2's is folded into the weights; `recast`: whether the LSTM
    layers have another dtype than their config says; `keep_custom`: whether classes of the user's
    own are kept; `attributes`: of these, as `custom.attributes` returns them; `put`: what takes the
    place of a layer; `no_compile`: what the model was compiled with is left out.
    """

    store: str
    rescale_hard_sigmoid: bool = False
    recast: bool = False
    keep_custom: bool = False
    attributes: Mapping[str, Sequence[str]] = {}
    put: Replacements | None = None
    no_compile: bool = False


class ModelTree(NamedTuple):
    """A whole model as parts with their arrays.

    Fields: `root`; `era` of its config; `graphs`: of each functional model, how its layers are
    called; `policy`: the dtype policy of layers whose config says none; `refusals`: layers that
    cannot cross, if the caller asked for them; arrays and graphs are then missing.
    """

    root: Part
    era: str
    graphs: Mapping[Part, graph.CallGraph]
    policy: str
    refusals: tuple[UnsupportedByTarget, ...] = ()


def tree(model: Model, stored: Mapping[str, Tensor], leave: Leave) -> ModelTree | None:
    """Return a whole model as a tree, for a target that is not a Keras file.

    Args:
        model: the model.
        stored: every tensor but the optimizer's, at its full path in the source.
        leave: what the target takes that Keras 3 does not.

    Returns:
        None if the source has no config, or its store is of neither kind.

    Raises:
        UnsupportedByTarget, CorruptFile: as `rebuilt`.
    """
    known = known_config(model)
    if known is None:
        return None
    structure, config = known
    era = config.era.name
    check_put(leave.put, config.root, era)
    root = parts_of(model, structure, era, config.root, leave)
    graphs: Mapping[Part, graph.CallGraph] = {}
    if not leave.refusals:
        TreeFiller(structure, stored, model.layers, model.source.container).fill(root, era)
        settle_bins(root, era)
        if era == "keras3":
            models = [part for part in root.walk() if part.is_model]
            functional = [part for part in models if part.class_name == "Functional"]
            graphs = {part: graph.read_keras3(part) for part in functional}
        else:
            graphs = graph.read_all(root)
    return ModelTree(
        root=root,
        era=era,
        graphs=graphs,
        policy=_policy(stored),
        refusals=tuple(leave.refusals or ()),
    )


def known_config(model: Model) -> tuple[Structure, ParsedConfig] | None:
    """Return how the weights of a whole model are stored, and its config."""
    text, structure = model.texts.get("model_config"), model.source.structure
    if text is None or structure is None or structure.kind not in (_V3, "legacy", OBJECTS):
        return None
    config = parse_config(text, model.source.keras_version, "model_config")
    if config.root.custom:
        raise no_row(config.root.name or "model", config.root.class_name)
    return (structure, config) if config.root.is_model else None


def rebuilt(model: Model, stored: Mapping[str, Tensor], how: How) -> WholeModel | None:
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
    known = known_config(model)
    if known is None:
        return None
    structure, config = known
    text = model.texts["model_config"]
    era = config.era.name
    fit = _Fit(how.rescale_hard_sigmoid, knows=how.store != WEIGHTS)
    check_put(how.put, config.root, era)
    leave = Leave(keep_custom=how.keep_custom, users_classes=how.attributes.keys(), put=how.put)
    root = parts_of(model, structure, era, config.root, leave)
    vocabularies = _vocabularies(root, model.assets) if era != "keras3" else frozenset()
    others = model.assets.keys() - vocabularies
    if how.store == LEGACY and others:
        raise unsupported("an .h5 holds no asset files", "model", min(others))
    where = model.source.container
    source = TreeFiller(structure, stored, model.layers, where, how.attributes)
    source.fill(root, era)
    settle_bins(root, era)
    notes: dict[str, None] = {}
    customs = [part for part in root.walk() if part.custom]
    _check_customs(customs, model.layers, how)
    written = ""
    if era != "keras3":
        graphs = graph.read_all(root)
        for part in root.walk():
            _check_halves(part, graphs.get(part))
        graphs = masking.settled(root, graphs, how.store == ARCHIVE, how.store == WEIGHTS, notes)
        if how.store != WEIGHTS:
            written = canonical(Emitter(era, _policy(stored), fit, graphs, notes).root(root))
    elif how.store != WEIGHTS:
        anew = how.recast or how.rescale_hard_sigmoid
        written = emission.kept_config(root, fit, text, notes, anew=anew)
        if how.store == ARCHIVE and config.era.numbers < _EXPLICIT_SINCE:
            written = masking.kept(root, written, notes)
    if how.store == LEGACY:
        _check_legacy(root)
    tensors, names, weights = _stored(root, fit, how.store)
    if written and how.store == LEGACY:
        check_legacy(parse_object(written, "model_config"), weights)
    elif written:
        check_v3(parse_object(written, "model_config"), tensors)
    state = _compile_state(model, written, era, how.store, no_compile=how.no_compile)
    return _whole(root, source, fit, notes, state, how.store, (tensors, names, weights))


def _whole(
    root: Part,
    source: TreeFiller,
    fit: _Fit,
    notes: Iterable[str],
    state: _CompileState,
    store: str,
    contents: tuple[Mapping[str, Tensor], Mapping[str, str], Mapping[str, tuple[str, ...]]],
) -> WholeModel:
    """Return what is written, and what is told of it.

    Args:
        contents: what `_stored` returned.
    """
    tensors, names, weights = contents
    customs = [part for part in root.walk() if part.custom]
    registered = dict.fromkeys(part.custom for part in customs) if state.config else ()
    return WholeModel(
        tensors=tensors,
        names=names,
        weights=weights,
        config=state.config,
        training=state.training,
        compiled=state.compiled,
        losses=tuple(fit.fitter.losses),
        warnings=(
            *_foreign(source.foreign),
            *_own_classes(root, store),
            *custom.notes(customs),
            *_put_there(root),
            *(() if store == WEIGHTS else fit.fitter.notes),
            *notes,
            *state.warnings,
        ),
        custom_objects=tuple(registered),
    )


def check_put(put: Replacements | None, root: ConfigNode, era: str) -> None:
    """Raise `UsageError` where something is to take the place of a layer that is not there, or of
    one of Keras 3."""
    if put is None:
        return
    if era == "keras3":
        raise UsageError(
            "--replace is for models of an older Keras: the config of a file of Keras 3 is kept",
            where=root.name,
            hint="change the layer in Keras itself, which opens the file",
        )
    names: dict[str, None] = {}
    waiting: list[Json] = [root.whole]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str) and (name := node(value, "").name):
                names[name] = None
            waiting.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
    put.check(names)


def _check_customs(customs: Sequence[Part], layers: Sequence[LSTMLayer], how: How) -> None:
    """Refuse what the user says of classes of their own that are not there, and a cast of LSTMs
    that are in one."""
    classes = {part.class_name for part in customs}
    for name in how.attributes:
        if name not in classes:
            raise UsageError(
                "--weights-of: no layer that is kept is of this class",
                found=name,
                expected=", ".join(sorted(classes)) or "a class of your own, with --keep-custom",
            )
    inside = lstm_paths(layers)
    for part in customs:
        if how.recast and any(path in inside for paths in part.paths for path in paths):
            what = "an LSTM in a class of your own keeps its dtype"
            raise unsupported(what, part.name, "dtype")


def _put_there(root: Part) -> Iterator[str]:
    """Yield a note on each layer that the user put in another's place."""
    def tops(part: Part) -> Iterator[Part]:
        if part.replaced:
            yield part
        else:
            for _, child in part.children:
                yield from tops(child)

    for part in tops(root):
        yield f"{part.name}: {part.class_name} takes its place, with its weights, as you asked"


class _CompileState(NamedTuple):
    """The config of a whole model with what it was compiled with: fields as in `WholeModel`."""

    config: str
    training: str = ""
    compiled: Compiled | None = None
    warnings: tuple[str, ...] = ()


def _compile_state(
    model: Model, config: str, era: str, store: str, *, target: str = "keras3", no_compile: bool
) -> _CompileState:
    """Return a config with what its model was compiled with, where that has a place.

    Args:
        model: the source.
        config: the model's for the target, empty for a store without one.
        era: of the source; `target`: that which is written.
        store: as in `How`.
        no_compile: whether it is left out.
    """
    from lstmconvert.keras.modern import compiled  # few models that are read are compiled

    arguments = compiled.stated(model.texts) if config else {}
    if not arguments:
        return _CompileState(config)
    written = parse_object(config, "model_config")
    if no_compile:
        written.pop(compiled.COMPILE, None)
        return _CompileState(canonical(written), compiled=compiled.LEFT_OUT)
    if era == target and store == ARCHIVE and written.get(compiled.COMPILE):
        return _CompileState(config)  # as it is
    outputs = compiled.outputs_of(parse_object(model.texts["model_config"], "model_config"))
    version = model.source.keras_version
    made = compiled.carried(arguments, outputs, era, version, target)
    warnings = list(made.warnings)
    if made.compiled.dropped:
        shown, more = made.compiled.dropped[:_DROPPED], len(made.compiled.dropped) - _DROPPED
        listed = [*shown, f"{more} more"] if more > 0 else shown
        warnings.append(f"of what the model was compiled with is dropped: {'; '.join(listed)}")
    if made.config and model.optimizer:
        warnings.append(
            f"the optimizer's state is not carried over ({len(model.optimizer)} tensors): where "
            "training goes on, its steps begin at 0"
        )
    training = ""
    written.pop(compiled.COMPILE, None)
    if made.config and store == ARCHIVE:
        written[compiled.COMPILE] = made.config
    elif made.config:
        training = canonical(made.for_h5())
    return _CompileState(canonical(written), training, made.compiled, tuple(warnings))


def _stored(
    root: Part, fit: _Fit, store: str, *, is_keras2: bool = False
) -> tuple[Mapping[str, Tensor], Mapping[str, str], Mapping[str, tuple[str, ...]]]:
    """Return `tensors`, `names` and `weights` of a `WholeModel` for a store."""
    if store == LEGACY:
        tensors, weights = legacy_store(root, fit, is_keras2=is_keras2)
        return tensors, {}, weights
    tensors, names = v3_store(root, fit, is_keras2=is_keras2)
    return tensors, names, {}


#: Layers at which masks meet, stop or are made otherwise in Keras 2 than in Keras 3, whatever its
#: release (the guide's page on old models has the table).
_MASKED_OTHERWISE = MERGING | {"Rescaling", "Normalization"}
#: Keywords of tf_keras's recurrent layers that those of Keras 3 do not all take.
_KERAS2_TAKES = dict.fromkeys(("GRU", "SimpleRNN"), frozenset({"zero_output_for_mask"}))


def without_compile_state(texts: Mapping[str, str]) -> tuple[dict[str, str], Compiled | None]:
    """Return the texts of a file without what its model was compiled with, and what to say of it:
    None where there was nothing."""
    from lstmconvert.keras.modern import compiled

    if not compiled.stated(texts):
        return dict(texts), None
    left = {key: text for key, text in texts.items() if key != compiled.TRAINING}
    config = parse_object(texts["model_config"], "model_config")
    if config.pop(compiled.COMPILE, None) is not None:
        left["model_config"] = canonical(config)
    return left, compiled.LEFT_OUT


def for_keras2(
    model: Model, stored: Mapping[str, Tensor], store: str, *, no_compile: bool = False
) -> WholeModel | None:
    """Return a whole model for Keras 2 (tf_keras, and tf.keras of TensorFlow 2.13 to 2.15).

    The config of a Keras 2 model is kept as it is; any other is spelled anew.

    Args:
        model: the model.
        stored: every tensor but the optimizer's, at its full path in the source.
        store: `ARCHIVE` or `LEGACY`.
        no_compile: whether what the model was compiled with is left out.

    Returns:
        None if the source has no config, or its store is of neither kind.

    Raises:
        UnsupportedByTarget: Keras 2 has no form for something.
        UnknownOption, CorruptFile: as `rebuilt`.
    """
    try:
        return _for_keras2(model, stored, store, no_compile)
    except UnsupportedByTarget as error:
        error.target = "Keras 2"
        raise


def _for_keras2(
    model: Model, stored: Mapping[str, Tensor], store: str, no_compile: bool
) -> WholeModel | None:
    known = known_config(model)
    if known is None:
        return None
    structure, config = known
    if store == LEGACY and model.assets:
        raise unsupported("an .h5 holds no asset files", "model", next(iter(model.assets)))
    era = config.era.name
    text = model.texts["model_config"]
    is_kept = era == "keras2" and structure.attributes.get("backend") != "theano"
    is_kept = is_kept and '"CuDNN' not in text
    leave = Leave(keywords=_KERAS2_TAKES, anew=True, any_keyword=is_kept)
    root = parts_of(model, structure, era, config.root, leave)
    source = TreeFiller(structure, stored, model.layers, model.source.container)
    source.fill(root, era)
    fit = _Fit(False, knows=True, library="tf_keras")
    notes: dict[str, None] = {}
    if is_kept:
        value = parse_object(text, "model_config")
        if store == ARCHIVE and "module" not in value:
            value = {**emission.keras2_model(root), **value}
            text = canonical(value)
    else:
        graphs = _graphs_for_keras2(root, era)
        emitter = emission.Keras2Emitter(era, _policy(stored), fit, graphs, notes)
        written = emitter.root(root)
        text = canonical(emission.without_modules(written) if store == LEGACY else written)
    tensors, names, weights = _stored(root, fit, store, is_keras2=True)
    state = _compile_state(model, text, era, store, target="keras2", no_compile=no_compile)
    return _whole(root, source, fit, notes, state, store, (tensors, names, weights))


def _graphs_for_keras2(root: Part, era: str) -> Mapping[Part, graph.CallGraph]:
    if era != "keras3":
        graphs = graph.read_all(root)
    else:
        models = [part for part in root.walk() if part.is_model]
        functional = [part for part in models if part.class_name == "Functional"]
        graphs = {part: graph.read_keras3(part) for part in functional}
        if makes_masks(root.node.whole):
            _check_masks(root, graphs)
    graph.arrange(graphs)
    return graphs


def _check_masks(root: Part, graphs: Mapping[Part, graph.CallGraph]) -> None:
    """Refuse layers of a model with masks that would compute something else in Keras 2."""
    calls = {name: made for each in graphs.values() for name, made in each.calls.items()}
    for part in root.walk():
        made = calls.get(part.name, ())
        is_called_on_states = any("initial_state" in call.keywords for call in made)
        is_embedding = part.class_name == "TimeDistributed" and makes_masks(part.node.whole)
        is_zeroed = masking.zeroes(part)
        if part.class_name in _MASKED_OTHERWISE or is_called_on_states or is_embedding or is_zeroed:
            raise unsupported(
                "a mask reaches it, or may: Keras 2 hands masks on otherwise than Keras 3",
                part.name,
                part.class_name,
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

    def __init__(self, rescale: bool, *, knows: bool, library: str = "keras") -> None:
        spelled = emit.Spelling(library)
        self.fitter = KerasFitter(
            spelled.target,
            rescale=rescale,
            for_file=True,
            keeps_time_major=spelled.has_time_major,
        )
        self._fit = self.fitter.fit if knows else self.fitter.fit_weights
        self._done: dict[int, LSTMLayer] = {}

    def __call__(self, layer: LSTMLayer) -> LSTMLayer:
        if id(layer) not in self._done:
            self._done[id(layer)] = self._fit(layer)
        return self._done[id(layer)]


def parts_of(
    model: Model, structure: Structure, era: str, root: ConfigNode, leave: Leave | None = None
) -> Part:
    """Return the parts of a model, without arrays. Raises as `Builder`."""
    layers = {layer.path: layer for layer in model.layers}
    groups = _groups(structure.paths)
    container = CONTAINERS[0]
    if structure.kind == _V3:
        tops = {path.partition("/")[0] for path in structure.paths}
        container = next((name for name in CONTAINERS if name in tops), container)
    known = groups if structure.kind == _V3 else ()
    return Builder(layers, era, container, known, leave).model(root)


def _vocabularies(root: Part, assets: Mapping[str, Tensor]) -> frozenset[str]:
    """Put the vocabularies that a .keras holds as files into the configs of their layers, and
    return the paths of those files.

    Raises:
        UnsupportedByTarget: a layer's vocabulary, or what else it was adapted to, is nowhere.
        CorruptFile: a file is not a list of its kind.
    """
    vocabularies: set[str] = set()
    for part in root.walk():
        config = part.config
        if part.class_name not in LOOKUPS:
            continue
        folder = f"assets/{part.group}/"
        vocabularies.update(path for path in assets if path.startswith(folder))
        if config.get("vocabulary") is None:
            tensor = assets.get(f"{folder}vocabulary.txt")
            if tensor is None:
                raise unsupported(
                    "the file does not have the layer's vocabulary", part.name, "vocabulary"
                )
            config["vocabulary"] = _lines(tensor, part)
        if config.get("output_mode") in ("tf_idf", "tf-idf"):
            what = "each Keras stores the weights of its words (idf_weights) otherwise"
            raise unsupported(what, part.name, "output_mode", config["output_mode"])
    return frozenset(vocabularies)


def _lines(tensor: Tensor, part: Part) -> list[Json]:
    """Return a vocabulary, one word a line (tf_keras/src/layers/preprocessing/index_lookup.py,
    `save_assets`)."""
    try:
        lines: list[Json] = list(tensor.read().tobytes().decode().split("\n"))
        is_words = part.class_name != "IntegerLookup"
        return lines if is_words else [int(str(line)) for line in lines]
    except ValueError as error:
        where = f"assets/{part.group}/vocabulary.txt"
        raise CorruptFile("not a vocabulary", where=where, found=str(error)[:80]) from None


def _check_halves(model: Part, calls: graph.CallGraph | None) -> None:
    """Refuse halves of different widths before layers with weights: Keras 3 takes both for as wide
    as the forward one (keras/src/layers/rnn/bidirectional.py, `compute_output_shape`), and builds
    the next layers for that."""
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


def _are_unlike(node: ConfigNode) -> bool:
    halves = [half for key in ("layer", "backward_layer") if (half := node.child(key))]
    return len({half.config.get("units", half.config.get("filters")) for half in halves}) > 1


def _groups(paths: frozenset[str]) -> frozenset[str]:
    groups: set[str] = set()
    for path in paths:
        group = path.rpartition("/vars/")[0]
        while group and group not in groups:
            groups.add(group)
            group = group.rpartition("/")[0]
    return frozenset(groups)


def _policy(stored: Mapping[str, Tensor]) -> str:
    """Return the dtype of layers that say none: the one that all weights have."""
    dtypes = {tensor.dtype.name for tensor in stored.values()} & set(FLOATS)
    return dtypes.pop() if len(dtypes) == 1 else spelling.DEFAULT_POLICY


def _foreign(paths: Sequence[str]) -> Iterator[str]:
    """Yield a warning of arrays of the file that are not part of the model."""
    if paths:
        shown = ", ".join(paths[:_SHOWN])
        more = f" and {len(paths) - _SHOWN} more" if paths[_SHOWN:] else ""
        yield f"left out, since no layer of the model lists them: {shown}{more}"


def _own_classes(root: Part, store: str) -> Iterator[str]:
    """Yield what is lost of models of a user's own class."""
    for part in root.walk():
        if part.node.own_class and store != WEIGHTS:
            yield (
                f"{part.name}: the user's class {part.node.own_class} is written as Keras's own "
                f"{part.class_name}, without the code of the class (a train_step of its own)"
            )


#: Classes of wrappers -> the keywords that hold the layers inside.
_WRAPPED: Mapping[str, tuple[str, ...]] = {
    "TimeDistributed": ("layer",),
    "Bidirectional": ("layer", "backward_layer"),
    "RNN": ("cell",),
}


def check_legacy(config: JsonObject, weights: Mapping[str, Iterable[str]]) -> None:
    """Check the layers of a legacy store against its config.

    Args:
        config: the serialized model.
        weights: layer -> the names of its weights.

    Raises:
        UnsupportedByTarget: Keras counts other variables in a layer than there are.
    """
    for layer in node(config, "model_config").layers():
        _compare(layer, len(list(weights.get(layer.name, ()))))


def check_v3(config: JsonObject, paths: Iterable[str]) -> None:
    """Check the layers of a v3 store against its config.

    Args:
        config: the serialized model.
        paths: of the arrays.

    Raises:
        UnsupportedByTarget: Keras counts other variables in a layer than there are.
    """
    stored = Counter("/".join(path.split("/")[:2]) for path in paths)
    root = node(config, "model_config")
    for layer, group in layer_groups(root, "", CONTAINERS[0], ()):
        _compare(layer, stored[group])


def _compare(layer: ConfigNode, stored: int) -> None:
    counted = variables(layer)
    if counted is not None and counted != stored:
        raise unsupported(
            f"Keras counts {counted} variables in this layer, and {stored} would be written",
            layer.name,
            layer.class_name,
            stored,
        )


def variables(item: ConfigNode) -> int | None:
    """Return how many variables a layer has by its config; None where its class is not known."""
    name, config = item.class_name, item.config
    if item.custom:
        return None
    if item.is_model:
        return _sum(variables(layer) for layer in item.layers())
    if name in _WRAPPED:
        parts = [item.child(keyword) for keyword in _WRAPPED[name]]
        return _sum(variables(part) for part in parts if part is not None)
    if name == STACKED:
        cells = [node(cell, item.name) for cell in item.listed("cells")]
        return _sum(variables(cell) for cell in cells)
    if name in RECURRENT | CELL_CLASSES | IN_A_CELL.keys():
        return 2 + (config.get("use_bias", True) is not False)
    row = CLASSES.get(name)
    if row is None:
        return 0 if item.is_operation else None
    weights = sum(weight.exists(config) for weight in row.weights)
    inside = sum(weight.exists(config) for _ in row.parts for weight in PART_WEIGHTS)
    return weights + inside


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total

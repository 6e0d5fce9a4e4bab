"""Opening TensorFlow's checkpoints, SavedModels and frozen graphs. Nothing in them is executed.

A layer is found by the config of the whole model where there is one that fits, else by the graph of
objects, else by the variables' names. What Keras 2 wrote of a SavedModel's objects says each
layer's class and config, and the model's own: the root's metadata holds the config of the whole
model, in the spelling of Keras 2, with tuples and shapes as objects of their own
(tf_keras/src/saving/legacy/saved_model/json_utils.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lstmconvert.errors import CorruptFile, NoLSTM, SourceError
from lstmconvert.files import opening
from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.files.wire import MessageSpan
from lstmconvert.keras.configs.era import Era, era_of
from lstmconvert.keras.configs.nodes import PEEPHOLE_CELL, ConfigNode, node
from lstmconvert.keras.configs.sketch import CellSketch, LayerSketch, layer_groups, natural, plan
from lstmconvert.keras.modern.classes import LOOKUPS
from lstmconvert.keras.reading import read as reading
from lstmconvert.keras.reading.load import GivenConfig
from lstmconvert.keras.reading.read import ParsedConfig, opaque_notes, parse_config
from lstmconvert.keras.stores import legacy, legacycells
from lstmconvert.keras.stores.stored import PEEPHOLES, ROLES, CellArrays, Stored, not_plain
from lstmconvert.keras.stores.v3store import CONTAINERS
from lstmconvert.model.layer import Direction, LSTMLayer
from lstmconvert.model.model import KERAS, OBJECTS, PER_GATE, Model, Source, Structure
from lstmconvert.model.naming import layer_names
from lstmconvert.model.options import DirectionOptions, option_names
from lstmconvert.tensorflow import lookups, objects, tf1
from lstmconvert.tensorflow.formats import graphdef
from lstmconvert.tensorflow.formats.checkpoint import Bundle, read_checkpoint
from lstmconvert.tensorflow.formats.graphdef import read_meta_graph
from lstmconvert.tensorflow.formats.objectgraph import ROOT
from lstmconvert.tensorflow.formats.savedmodel import (
    META_GRAPHS,
    PROGRAM_FILE,
    SavedModel,
    read_saved_model,
)
from lstmconvert.tensorflow.objects import forward_first
from lstmconvert.tensors.tensor import SourceFile, Tensor

if TYPE_CHECKING:
    from lstmconvert.spelled.layers import Recovered

CHECKPOINT, SAVED_MODEL, GRAPH = "checkpoint", "savedmodel", "graphdef"
#: The layout of TensorFlow 1's cells.
TF1 = "tf1"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
#: The most layers, and arrays of each, that a message lists.
_SHOWN_LAYERS, _SHOWN_ARRAYS = 20, 6
#: The place of an array of a layer's own cell (`objects`).
_CELL_PLACE = re.compile(
    r"(?P<layer>.+?)/((forward|backward)_layer/)?(cell/(cells/[^/]+/)?)?\w+"
)


def load_checkpoint(
    path: Path, given: GivenConfig | None = None, layout: str | None = None
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
    opened = _Opened(path, root, bundle, bundle.sources, CHECKPOINT, _Described())
    return _model(opened, given, takes_open=layout == TF1)


def load_saved_model(path: Path, given: GivenConfig | None = None) -> Model:
    """Load a SavedModel directory.

    Raises:
        NotAModel, CorruptFile, LimitExceeded: see `read_saved_model`.
        NoLSTM: no variable belongs to an LSTM cell.
    """
    saved = read_saved_model(path)
    keras = _described(saved)
    opened = _Opened(
        path, path, saved.bundle, saved.sources, SAVED_MODEL, keras, is_folder=True, saved=saved
    )
    return _model(opened, given)


def load_graph(source: SourceFile, layout: str | None = None) -> Model:
    """Load a frozen graph: a GraphDef whose weights are constants.

    Args:
        source: the file.
        layout: `tf1`, where the user says that what has the arrays of a cell is one.

    Raises:
        CorruptFile, LimitExceeded: see `read_graph`.
        NoLSTM: no constant belongs to an LSTM cell; it says so where the graph has no weights.
    """
    from lstmconvert.spelled.layers import recovered  # only graphs need it
    from lstmconvert.tensorflow.spelled import flow_of

    where = source.path
    graph = graphdef.read_graph(source)
    constants: dict[str, Tensor] = {}
    for item in graph.nodes.values():
        tensor = graphdef.constant(item, where)
        if tensor is not None and tensor.shape and "float" in tensor.dtype.name:
            constants[f"{item.graph}/{item.name}" if item.graph else item.name] = tensor
    flow = flow_of(graph, where)
    run = recovered(flow)
    cells = tf1.read(constants, where, takes_open=layout == TF1, facts=tf1.facts(graph))
    if run.layers or cells.layers:
        joined = _joined(cells, run)
        kind = TF1 if cells.layers else PER_GATE
        return _of_graph(source, joined.layers, kind, constants, joined.used, joined.notes)
    layers, taken, notes = tf1.of_cudnn(graph, constants, flow)
    if not layers:
        raise _no_cell(graph, cells, where, run.refused)
    return _of_graph(source, layers, PER_GATE, constants, taken, notes)


class _Joined(NamedTuple):
    """The layers of a graph, the keys of their weights, and notes for the user."""

    layers: tuple[LSTMLayer, ...]
    used: Set[str]
    notes: tuple[str, ...]


def _joined(cells: tf1.Read, run: Recovered) -> _Joined:
    """Return the layers that are known by their variables, with what the graph says of how they
    run over time, and behind them those that are known by the graph alone."""
    from lstmconvert.spelled.layers import NOTHING, remarks_on  # only graphs need it

    keys = [
        frozenset(f"{ref[0]}/{ref[1]}".lstrip("/") for ref in refs if isinstance(ref, tuple))
        for refs in run.weights
    ]
    rest = [place for place, mine in enumerate(keys) if mine.isdisjoint(cells.used)]
    used = cells.used.union(*(keys[place] for place in rest))
    if not cells.layers:
        return _Joined(run.layers, used, run.notes)
    notes = [*tf1.notes(replace(cells, open=tuple(p for p in cells.open if not _is_in(p, used))))]
    layers: list[LSTMLayer] = []
    for named in cells.layers:
        layer, remarks = _with_runs(named, cells, run, keys)
        layers.append(layer)
        notes += [note for note in remarks if note not in notes]
        if run is not NOTHING and layer.forward.options == named.forward.options:
            notes.append(
                f"{layer.name}: its steps are written in a way that is not followed, so the graph "
                "does not say how it runs, nor whether it leaves out steps: --set "
                f"{layer.name}.return_sequences=true or false, go_backwards and masked"
            )
    names = layer_names([*(layer.name for layer in layers), *(run.layers[p].name for p in rest)])
    for name, place in zip(names[len(layers) :], rest, strict=True):
        layers.append(replace(run.layers[place], name=name))
        notes.append(f"{name}: recovered from plain operations of the graph, and proved")
        notes += remarks_on(run.remarks[place], name)
    return _Joined(tuple(layers), used, (*notes, *run.left_out, *opaque_notes(tuple(layers))))


def _is_in(scope: str, keys: Set[str]) -> bool:
    return any(key.startswith(f"{scope}/") for key in keys)


def _with_runs(
    layer: LSTMLayer, cells: tf1.Read, run: Recovered, keys: Sequence[frozenset[str]]
) -> tuple[LSTMLayer, list[str]]:
    """Return a layer with what the graph says of how it runs, and notes for the user.

    Args:
        layer: the layer.
        cells: with the kernels of its cells.
        run: what the graph runs.
        keys: of each of these its weights.
    """
    from lstmconvert.spelled.layers import remarks_on  # only graphs need it

    notes: list[str] = []
    places: set[int] = set()

    def runs(direction: Direction) -> Direction:
        kernels = [cells.kernels[id(cell)] for cell in direction.cells]
        of_cells = [
            [place for place, mine in enumerate(keys) if mine & kernel] for kernel in kernels
        ]
        places.update(*of_cells)
        if len(set(kernels)) == 1 and len(kernels) == len(of_cells[0]):
            of_cells = [[place] for place in of_cells[0]]  # layers that share their weights
        elif len(set(kernels)) < len(kernels) or not all(of_cells):
            return direction
        firsts, lasts = (
            [run.layers[place].forward.options for place in listed]
            for listed in (of_cells[0], of_cells[-1])
        )
        for name in option_names(DirectionOptions):
            taken = lasts if name in ("return_sequences", "return_state") else firsts
            values = {getattr(options, name) for options in taken}
            if len(values) == 1:
                direction = replace(
                    direction, options=replace(direction.options, **{name: values.pop()})
                )
            else:
                ways = " and ".join(sorted(map(str, values)))
                notes.append(
                    f"{layer.name}: the graph runs it {len(taken)} times, with {name} {ways}: "
                    f"--set {layer.name}.{name} says which is meant"
                )
        return direction

    changed = replace(
        layer,
        forward=runs(layer.forward),
        backward=None if layer.backward is None else runs(layer.backward),
    )
    masked = {run.layers[place].options.masked for place in places}
    if len(masked) == 1:
        changed = replace(changed, options=replace(changed.options, masked=masked.pop()))
    for place in sorted(places):
        notes += remarks_on(run.remarks[place], layer.name)
    return changed, list(dict.fromkeys(notes))


def _of_graph(
    source: SourceFile,
    layers: tuple[LSTMLayer, ...],
    layout: str,
    constants: Mapping[str, Tensor],
    used: Set[str],
    notes: tuple[str, ...],
) -> Model:
    return Model(
        layers=layers,
        source=Source(
            container=GRAPH,
            digest=lambda: opening.digest_of_file(source),
            check=source.check_unchanged,
        ),
        container=GRAPH,
        layout=layout,
        other={name: tensor for name, tensor in constants.items() if name not in used},
        notes=notes,
    )


def _no_cell(
    graph: graphdef.GraphDef, cells: tf1.Read, where: Path, refused: tuple[str, ...]
) -> NoLSTM:
    kinds = [item.op for item in graph.nodes.values()]
    count = sum(kind in tf1.VARIABLES for kind in kinds)
    if count:
        return NoLSTM(
            "the graph of a model, without its weights",
            where=where,
            found=f"{count} variables",
            hint="its weights are in a checkpoint: give that one (its .index file), or freeze the "
            "graph with tf.compat.v1.graph_util.convert_variables_to_constants",
        )
    if tf1.CUDNN & set(kinds):
        return NoLSTM(
            "the LSTM is cuDNN's, and the graph does not say how its one vector is cut",
            where=where,
            found=", ".join(sorted(tf1.CUDNN & set(kinds))),
            expected="an input and states whose widths the graph says",
            hint="give the checkpoint: it holds the arrays of each gate",
        )
    shown = ", ".join(sorted(set(kinds)))
    return NoLSTM(
        "no constant belongs to an LSTM cell",
        where=where,
        found=f"operations {shown[:120]}" if shown else "no operation",
        hint=(
            f"what looks like a cell of plain operations is none: {refused[0]}"
            if refused
            else tf1.open_hint(cells) or "convert the model that the graph was made of"
        ),
    )


@dataclass(frozen=True, slots=True)
class _Opened:
    """What was opened: where, its variables, the files that they came from, and what it says.

    `is_folder`: whether every file of the folder `root` belongs to it; `saved`: the SavedModel.
    """

    path: Path
    root: Path
    bundle: Bundle
    sources: tuple[SourceFile, ...]
    container: str
    keras: _Described
    is_folder: bool = False
    saved: SavedModel | None = None


def _hashed(opened: _Opened, sources: Iterable[SourceFile]) -> set[Path]:
    """Return the files that the source's SHA-256 is of.

    Of a SavedModel these are all files of its directory, without links to files of others. Of a
    checkpoint they are its own files, the graph beside it where that was read, and the note that
    names the checkpoint where its directory was given.

    Args:
        opened: the model.
        sources: the files that were read.
    """
    read = {source.path for source in sources}
    if opened.is_folder:
        files = {path for path in opened.root.rglob("*") if path.is_file()}
        return {path for path in files if path in read or not path.is_symlink()}
    state = opened.path / "checkpoint"
    return {*read, *([state] if state.is_file() else [])}


@dataclass(frozen=True, slots=True)
class _Layers:
    """The layers, the keys of their arrays, and notes for the user; the config of the whole model
    and its weights' keys by name, where known; what was found of TensorFlow 1's cells; files that
    were read beside those that were opened; the keys of tables of words and of pruning's masks."""

    layers: tuple[LSTMLayer, ...]
    used: Set[str]
    config: GivenConfig | None = None
    names: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    cells: tf1.Read | None = None
    sources: tuple[SourceFile, ...] = ()
    no_weights: Set[str] = frozenset()


def _model(opened: _Opened, given: GivenConfig | None, *, takes_open: bool = False) -> Model:
    bundle, keras = opened.bundle, opened.keras
    stored_config = None
    if keras.model:
        stored_config = GivenConfig(keras.model, keras.version, f"{opened.path}: model_config")
    content = _content(opened, given, stored_config)
    sources = (*opened.sources, *content.sources)
    if not content.layers and bundle.graph is None:
        graph = _graph_file(opened)
        facts, run, remarks = _told_by(opened, graph)
        # What is known of the model comes from the graph, too: it is part of what was read.
        sources = (*sources, *([graph] if graph is not None else []))
        cells = tf1.read(bundle.tensors, opened.path, takes_open=takes_open, facts=facts)
        joined = _joined(cells, run)
        notes = (*joined.notes, *(remarks if joined.layers else ()))
        content = _Layers(joined.layers, joined.used, notes=notes, cells=cells)
    absent = None if content.layers else _no_lstm(opened, content)
    if absent is not None and content.config is None:
        raise absent
    start = (objects.model_of(bundle) if content.names else None) or ROOT
    training = objects.training_keys(bundle, keras.metrics, start) - content.used
    training -= set((content.names or {}).values())
    training |= content.no_weights & bundle.tensors.keys()
    twice = _listed_twice(bundle)
    other = {k: t for k, t in bundle.tensors.items() if k not in content.used | training | twice}
    config = content.config
    parsed = _parsed(config or given or stored_config)

    def digest() -> str:
        return opening.digest_of_files(opened.root, _hashed(opened, sources), sources)

    def check() -> None:
        for source in sources:
            source.check_unchanged()

    return Model(
        layers=content.layers,
        source=Source(
            container=opened.container,
            keras_version=parsed.era.version if parsed else None,
            era=parsed.era.name if parsed else None,
            digest=digest,
            check=check,
            structure=_structure(content, other),
        ),
        container=opened.container,
        layout=KERAS if content.cells is None else TF1,
        other=other,
        optimizer={k: t for k, t in bundle.tensors.items() if k in training},
        texts=_texts(config, keras) if config else {},
        notes=(*content.notes, *opaque_notes(content.layers)),
        absent=absent,
    )


def _graph_file(opened: _Opened) -> SourceFile | None:
    """Open the file that holds the graph of a model of TensorFlow 1, if there is one.

    Raises:
        CorruptFile: it is a symbolic link.
    """
    prefix = opened.bundle.path
    path = prefix.with_name(f"{prefix.name}.meta")
    if opened.is_folder:
        path = opened.path / PROGRAM_FILE
    return opening.open_part(path) if path.is_file() else None


def _told_by(
    opened: _Opened, graph: SourceFile | None
) -> tuple[dict[str, tf1.GraphCellFacts], Recovered, tuple[str, ...]]:
    """Return what the graph of a model of TensorFlow 1 says of its cells, what it runs, and what
    the user should know of it. No number depends on a graph that cannot be read: it is left."""
    from lstmconvert.spelled.layers import NOTHING, recovered  # only graphs need it
    from lstmconvert.tensorflow.spelled import flow_of

    facts: dict[str, tf1.GraphCellFacts] = {}
    if graph is None:
        return facts, NOTHING, ()
    try:
        whole: MessageSpan | None = MessageSpan(graph, 0, graph.size)
        if whole is not None and opened.is_folder:
            whole = next(whole.find(META_GRAPHS), None)
        if whole is None:
            return facts, NOTHING, ()
        read = read_meta_graph(whole)
        facts = tf1.facts(read)
        run = recovered(flow_of(read.forward, graph.path, opened.bundle.tensors))
    except SourceError as error:
        return facts, NOTHING, (f"the graph in {graph.path.name} is not read: {error.message}",)
    return facts, run, ()


def _parsed(given: GivenConfig | None) -> ParsedConfig | None:
    return parse_config(given.text, given.version, given.where) if given else None


def _structure(content: _Layers, other: Mapping[str, object]) -> Structure | None:
    if content.names is None:
        return None
    return Structure(kind=OBJECTS, names=content.names, paths=frozenset({*content.used, *other}))


def _texts(config: GivenConfig, keras: _Described) -> dict[str, str]:
    training = {"training_config": keras.training} if keras.training else {}
    return {"model_config": config.text, **training}


def _no_lstm(opened: _Opened, content: _Layers) -> NoLSTM:
    names = sorted(key.removesuffix(_VALUE) for key in opened.bundle.tensors)
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    open_hint = tf1.open_hint(content.cells) if content.cells is not None else None
    layers = _listed_layers(opened)
    if layers:
        return NoLSTM(
            "the model has no LSTM layer",
            where=opened.path,
            found=f"layers {layers}",
            hint="; ".join(content.notes[:3]) or None,
        )
    return NoLSTM(
        "no variable belongs to an LSTM cell",
        where=opened.path,
        found=shown or "none",
        hint=open_hint or "; ".join(content.notes[:3]) or None,
    )


def _listed_layers(opened: _Opened) -> str:
    """Return what Keras 2 wrote of a SavedModel's layers: name, class and arrays of each."""
    nodes = opened.keras.nodes
    shown = []
    for path, item in nodes.items():
        outer = [nodes[part] for part in _prefixes(path) if part in nodes]
        if path == _ROOT or item.is_model or not all(layer.is_model for layer in outer):
            continue
        arrays = objects.arrays_below(opened.bundle, path)
        inside = f": {', '.join(arrays[:_SHOWN_ARRAYS])}" if arrays else ""
        shown.append(f"{item.name or path} ({item.class_name}{inside})")
    more = f" and {len(shown) - _SHOWN_LAYERS} more" if len(shown) > _SHOWN_LAYERS else ""
    return ", ".join(shown[:_SHOWN_LAYERS]) + more


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


# -- the layers -------------------------------------------------------------------------------


def _content(
    opened: _Opened, given: GivenConfig | None, stored_config: GivenConfig | None
) -> _Layers:
    """Find the layers: by the config of the whole model where it fits, the file's own before the
    one that the user supplied; else by the graph alone."""
    bundle = opened.bundle
    notes: tuple[str, ...] = ()
    for config in (stored_config, given):
        if config is None:
            continue
        try:
            return _whole(opened, config)
        except CorruptFile as error:
            if config is given and objects.model_of(bundle) is not None:
                raise
            notes = (_unplaced(error),)
    if stored_config is None and given is None and opened.keras.custom is not None:
        notes = (_custom(opened.keras.custom),)
    remarks: list[str] = []
    nodes, is_described = opened.keras.nodes, given is not None
    listed = objects.layers(bundle, remarks)
    kept = _known(listed, nodes, remarks, is_described=is_described)
    loose = [_bound_by_graph(layer, nodes) for layer in kept]
    if not loose:
        loose = _bound_by_name(bundle, opened.path, remarks)
    notes += tuple(remarks)
    parsed = _parsed(given)
    if parsed is not None and (loose or bundle.graph is not None):
        loose = _with_config(loose, parsed, opened.path)
    layers = _built(loose, parsed)
    return _Layers(layers, _used(layers), notes=notes)


def _unplaced(error: CorruptFile) -> str:
    return f"only the LSTM layers are read, not the whole model: {str(error).splitlines()[0]}"


def _custom(class_name: str) -> str:
    return (
        "only the LSTM layers are read: the model is of a class of its own, "
        f"{class_name}, which does not tell how its layers are called"
    )


def _whole(opened: _Opened, given: GivenConfig) -> _Layers:
    """Read the whole model that a config describes.

    Raises:
        CorruptFile: the graph is not that model's.
    """
    config = parse_config(given.text, given.version, given.where)
    placed = objects.place(config.root, opened.bundle)
    names, tensors = placed.keys, opened.bundle.tensors
    filled = lookups.FilledConfig()
    if any(f'"{name}"' in given.text for name in LOOKUPS):
        filled = lookups.fill(placed.layers, opened.bundle, opened.saved)
    if filled.changed:
        given = given._replace(text=canonical(config.root.whole))
    counters: set[str] = set()
    notes: list[str] = list(filled.notes)
    if '"PruneLowMagnitude"' in given.text:
        from lstmconvert.keras.reading import pruned  # few models are

        without = pruned.unwrapped(given.text)
        if without is not None:
            given = given._replace(text=without.text)
            config = parse_config(given.text, given.version, given.where)
            names = {new: key for name, key in names.items() if (new := without.moved(name))}
            counters = {key for name, key in objects.full_names(opened.bundle)
                        if without.is_own(name)} - set(names.values())
            notes.append(without.note(len(counters)))
    described = plan(config.root)
    planned = [s for s in described.layers if s.has_lstm and _peepholes_fit(s, names)]
    kept = set(map(id, planned))
    loose = _bound_by_place(planned, config.era, names, tensors)
    layers = _built(loose, config)
    used = _used(layers)
    remarks = [*described.notes, *notes]
    remarks += [
        not_plain(sketch.name, sketch.foreign_cell.class_name, _names_below(names, sketch.group))
        for sketch in described.layers
        if sketch.foreign_cell is not None and id(sketch) not in kept
    ]
    in_graph = objects.layers(opened.bundle, remarks)
    rest = [layer for layer in in_graph if used.isdisjoint(layer.keys)]
    rest = _known(_inner(rest, config, names, remarks), opened.keras.nodes, remarks)
    if rest:  # inside layers of the user's own
        extra = [_bound_by_graph(layer, opened.keras.nodes) for layer in rest]
        layers = _built([*loose, *extra], config)
        used = _used(layers)
    return _Layers(
        layers, used, given, names, notes=tuple(dict.fromkeys(remarks)), sources=filled.sources,
        no_weights=filled.keys | counters,
    )


def _known(
    layers: Iterable[objects.GraphLayer],
    nodes: Mapping[str, ConfigNode],
    notes: list[str],
    *,
    is_described: bool = False,
) -> list[objects.GraphLayer]:
    """Return the layers whose class is not known to be a user's own; note the others.

    Args:
        layers: the layers.
        nodes: path -> what Keras 2 wrote of the object there.
        notes: notes for the user; layers that are left out, or taken as LSTMs, are added.
        is_described: whether a config that the user gave says what the layers are.
    """
    result = []
    for layer in layers:
        item = nodes.get(layer.path)
        sketches = plan(item).layers if item is not None else []
        cell = next((s.foreign_cell for s in sketches if s.foreign_cell is not None), None)
        if item is None or any(sketch.has_lstm for sketch in sketches):
            result.append(layer)
            notes.extend(layer.doubts if item is None and not is_described else ())
        else:
            class_name = cell.class_name if cell is not None else _own_class(item)
            notes.append(not_plain(item.name or layer.path, class_name, layer.names))
    return result


def _inner(
    layers: Iterable[objects.GraphLayer],
    config: ParsedConfig,
    names: Mapping[str, str],
    notes: list[str],
) -> list[objects.GraphLayer]:
    """Return the layers that a config does not describe, without those that are, by the config, a
    layer of a user's own class that runs its cell itself; note those."""
    places = {key: name for name, key in names.items()}
    classes = {group: item for item, group in _groups(config.root, "")}
    result = []
    for layer in layers:
        at = sorted(places[key] for key in layer.keys if key in places)
        match = _CELL_PLACE.fullmatch(at[0]) if at else None
        owner = match["layer"] if match is not None else ""
        item = classes.get(owner)
        if item is None:
            result.append(layer)
        else:
            paths = [place.removeprefix(f"{owner}/") for place in at]
            notes.append(not_plain(item.name, _own_class(item), paths))
    return result


def _own_class(item: ConfigNode) -> str:
    """Return the class of a user's own that a layer is, or that it wraps."""
    inner = plan(item).custom
    return inner[0].node.class_name if inner else item.class_name


def _groups(model: ConfigNode, group: str) -> Iterator[tuple[ConfigNode, str]]:
    for child, below in layer_groups(model, group, CONTAINERS[0], ()):
        if child.is_model:
            yield from _groups(child, below)
        else:
            yield child, below


def _names_below(names: Iterable[str], group: str) -> list[str]:
    """Return the names of the variables in a layer's group, without the group."""
    return sorted(n.removeprefix(f"{group}/") for n in names if n.startswith(f"{group}/"))


def _peepholes_fit(sketch: LayerSketch, names: Collection[str]) -> bool:
    """Whether cells whose class has peepholes, by its name, have the arrays of such a cell."""
    wanted = {"kernel", "recurrent_kernel", *PEEPHOLES}
    for cell in sketch.cells:
        if cell.class_name == PEEPHOLE_CELL:
            below = {n.removeprefix(f"{cell.group}/") for n in names if n.startswith(cell.group)}
            if not wanted <= below <= {*wanted, "bias"}:
                return False
    return True


def _built(loose: list[_Bound], config: ParsedConfig | None) -> tuple[LSTMLayer, ...]:
    context = reading.Context.of(config.root) if config else None
    names = layer_names(bound.sketch.name for bound in loose)
    return tuple(
        reading.build_layer(bound.sketch, bound.arrays, bound.era, name, context)
        for bound, name in zip(loose, names, strict=True)
    )


def _used(layers: tuple[LSTMLayer, ...]) -> frozenset[str]:
    cells = [cell for layer in layers for _, _, cell in layer.cells()]
    return frozenset(place for cell in cells for place in cell.places.values())


# -- layers with the source of their options and their arrays ----------------------------------


_NO_STACK = (
    "tf.train.Checkpoint does not save the cells of a stack of Keras 3; its .keras and .weights.h5 "
    "have them"
)


@dataclass(frozen=True, slots=True)
class _Bound:
    """A layer that is found, its options' source, and its arrays."""

    sketch: LayerSketch
    arrays: Callable[[CellSketch], CellArrays]
    era: Era | None


def _bound_by_place(
    sketches: Iterable[LayerSketch],
    era: Era,
    names: Mapping[str, str],
    tensors: Mapping[str, Tensor],
) -> list[_Bound]:
    """Bind the layers of a whole model's config.

    Args:
        sketches: the layers.
        era: of the config.
        names: name -> key, as `placing.place` returns them.
        tensors: the checkpoint's, by key.

    Raises:
        CorruptFile: a cell has no kernels.
    """
    groups: dict[str, dict[str, Stored]] = {}
    for name, key in names.items():
        group, _, role = name.rpartition("/")
        groups.setdefault(group, {})[PEEPHOLES.get(role, role)] = Stored(key, tensors[key])
    result = []
    for sketch in sketches:
        arrays_by_cell: dict[int, CellArrays] = {}
        for cell in sketch.cells:
            arrays = groups.get(cell.group, {})
            roles = [role for role in ROLES if role in arrays]
            roles += [role for role in arrays if role not in ROLES]
            if cell.is_lstm and not {"kernel", "recurrent_kernel"} <= set(arrays):
                is_stack = len(sketch.cells) > len(sketch.directions)
                raise CorruptFile(
                    "the weights of an LSTM are not stored",
                    where=sketch.name,
                    hint=_NO_STACK if is_stack else None,
                )
            arrays_by_cell[id(cell)] = CellArrays({role: arrays[role] for role in roles})
        result.append(_Bound(sketch, _given(arrays_by_cell), era))
    return result


def _bound_by_graph(layer: objects.GraphLayer, nodes: Mapping[str, ConfigNode]) -> _Bound:
    """Bind a layer of the graph to what Keras 2 wrote of it, if it did."""
    item = nodes.get(layer.path)
    sketch = layer.sketch
    if item is not None:
        sketches = [described for described in plan(item).layers if described.has_lstm]
        if len(sketches) == 1 and len(sketches[0].cells) == len(sketch.cells):
            outer = [nodes[p].name for p in _prefixes(layer.path) if p in nodes]
            planned = sketches[0]
            named = LayerSketch(
                name="/".join([*outer, planned.name]),
                group=layer.path,
                top=layer.path,
                class_name=planned.class_name,
                node=planned.node,
                directions=planned.directions,
            )
            era = era_of(None, item.config)
            return _Bound(named, _paired(named, sketch, layer.arrays), era)
    return _Bound(sketch, lambda cell: CellArrays(layer.arrays[id(cell)]), None)


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
    return _given({key: CellArrays(stored) for key, stored in pairs.items()})


def _bound_by_name(bundle: Bundle, path: Path, notes: list[str]) -> list[_Bound]:
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
    inferred = legacycells.infer(store, path)
    notes.extend(inferred.notes)
    arrays = legacycells.LegacyArrays(store, inferred, path)
    return [_Bound(sketch, arrays, None) for sketch in inferred.layers if sketch.has_lstm]


def _full_names(bundle: Bundle) -> list[tuple[str, str]]:
    """Return `(name, key)` of the variables, those of a cell in the order of its weights."""
    if bundle.graph is not None:
        return sorted(objects.full_names(bundle), key=lambda pair: _order(pair[1]))
    leaf = "/recurrent_kernel"
    kernels = [key.removesuffix(leaf) for key in bundle.tensors if key.endswith(leaf)]
    scopes = sorted(kernels, key=forward_first)
    keys = [f"{scope}/{role}" for scope in scopes for role in (*ROLES, *PEEPHOLES)]
    first = [key for key in keys if key in bundle.tensors]
    rest = sorted(bundle.tensors.keys() - objects.training_keys(bundle) - set(first))
    return [(key, key) for key in (*first, *rest)]


def _order(key: str) -> tuple[bool, tuple[tuple[str, int], ...]]:
    return not key.startswith("variables/"), natural(key)


def _with_config(bound_layers: list[_Bound], config: ParsedConfig, path: Path) -> list[_Bound]:
    """Give the layers of a checkpoint the options of a model's config: by name, else in order.

    Raises:
        CorruptFile: they are of different models.
    """
    sketches = [sketch for sketch in plan(config.root).layers if sketch.has_lstm]
    by_name = {bound.sketch.name: bound for bound in bound_layers}
    if len(sketches) != len(bound_layers):
        raise CorruptFile(
            "the config and the checkpoint are of different models",
            where=path,
            found=f"{len(bound_layers)} LSTM layers: {', '.join(by_name)}",
            expected=f"{len(sketches)}: {', '.join(sketch.name for sketch in sketches)}",
        )
    if all(sketch.name in by_name for sketch in sketches):
        bound_layers = [by_name[sketch.name] for sketch in sketches]
    result = []
    for sketch, bound in zip(sketches, bound_layers, strict=True):
        if len(sketch.cells) != len(bound.sketch.cells):
            raise CorruptFile(
                "the config and the checkpoint disagree about a layer",
                where=f"{path}: {sketch.name}",
                found=f"{len(bound.sketch.cells)} cells",
                expected=f"{len(sketch.cells)}",
            )
        pairs = {
            id(mine): bound.arrays(theirs)
            for mine, theirs in zip(sketch.cells, bound.sketch.cells, strict=True)
        }
        result.append(_Bound(sketch, _given(pairs), config.era))
    return result


def _given(pairs: Mapping[int, CellArrays]) -> Callable[[CellSketch], CellArrays]:
    return lambda cell: pairs[id(cell)]


# -- what Keras 2 wrote of a SavedModel's objects ----------------------------------------------


#: How json_utils.py and TensorFlow's own wrappers spell a sequence.
_SEQUENCES = frozenset({"__tuple__", "TensorShape", "TupleWrapper", "ListWrapper"})
_METRIC = "_tf_keras_metric"
_ROOT = ""


@dataclass(frozen=True, slots=True)
class _Described:
    """What a SavedModel says about its objects.

    Fields: `nodes`: path -> the serialized layer there; `metrics`: the paths of metrics; `model`:
    the text of the whole model's config, if the root is a model of Keras's own; `version`: the
    Keras that wrote it; `training`: the text of what `compile` was given; `custom`: the root's
    class, if it is one of the user's own.
    """

    nodes: Mapping[str, ConfigNode] = field(default_factory=dict)
    metrics: frozenset[str] = frozenset()
    model: str | None = None
    version: str | None = None
    training: str | None = None
    custom: str | None = None


def _described(saved: SavedModel) -> _Described:
    """Read what Keras 2 wrote of a SavedModel; nothing, where another library wrote it.

    Raises:
        CorruptFile: a text is not a JSON object.
    """
    nodes: dict[str, ConfigNode] = {}
    metrics: set[str] = set()
    root: JsonObject = {}
    for item in saved.keras:
        value = parse_object(item.metadata, f"{saved.path}: {item.path}") if item.metadata else {}
        path = item.path.partition(".")[2].replace(".", "/")
        if item.identifier == _METRIC:
            metrics.add(path)
        elif isinstance(value.get("class_name"), str) and isinstance(value.get("config"), dict):
            nodes[path] = node(value, item.path)
            root = value if path == _ROOT else root
    top = nodes.get(_ROOT)
    if top is None:
        return _Described(nodes, frozenset(metrics))
    version, training = root.get("keras_version"), root.get("training_config")
    is_model = top.is_model and isinstance(top.config.get("layers"), list)
    config = {"class_name": root["class_name"], "config": _unwrapped(root["config"])}
    return _Described(
        nodes,
        frozenset(metrics),
        canonical(config) if is_model else None,
        version if isinstance(version, str) else None,
        canonical(training) if isinstance(training, dict) else None,
        None if is_model else top.class_name,
    )


def _unwrapped(value: Json) -> Json:
    """Return a value with every sequence as a plain list."""
    if isinstance(value, dict):
        items = value.get("items")
        if value.get("class_name") in _SEQUENCES and isinstance(items, list):
            return [_unwrapped(item) for item in items]
        return {key: _unwrapped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    return value

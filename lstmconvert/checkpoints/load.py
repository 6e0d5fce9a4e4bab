"""Opening TensorFlow checkpoints and SavedModels as models. Nothing in them is executed."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

from lstmconvert import files
from lstmconvert.checkpoints import bound, described, objects, placing, state, tf1
from lstmconvert.checkpoints.bound import Bound
from lstmconvert.checkpoints.described import Described
from lstmconvert.errors import CorruptFile, NoLSTM
from lstmconvert.keras import build
from lstmconvert.keras.load import Given
from lstmconvert.keras.read import Config, parse_config
from lstmconvert.keras.sketch import plan
from lstmconvert.layer import LSTMLayer
from lstmconvert.model import OBJECTS, Model, Source, Structure
from lstmconvert.naming import layer_names
from lstmconvert.records import dataclass
from lstmconvert.tensorflow.bundle import Bundle
from lstmconvert.tensorflow.checkpoint import read_checkpoint
from lstmconvert.tensorflow.objectgraph import ROOT
from lstmconvert.tensorflow.savedmodel import read_saved_model
from lstmconvert.tensors import SourceFile

CHECKPOINT, SAVED_MODEL = "checkpoint", "savedmodel"
#: The layout of TensorFlow 1's cells.
TF1 = "tf1"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


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
    opened = _Opened(path, root, bundle, bundle.sources, CHECKPOINT, Described())
    return _model(opened, given, takes_open=layout == TF1)


def load_saved_model(path: Path, given: Given | None = None) -> Model:
    """Load a SavedModel directory.

    Raises:
        NotAModel, CorruptFile, LimitExceeded: see `read_saved_model`.
        NoLSTM: no variable belongs to an LSTM cell.
    """
    saved = read_saved_model(path)
    keras = described.read(saved)
    return _model(_Opened(path, path, saved.bundle, saved.sources, SAVED_MODEL, keras), given)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What was opened: where, its variables, the files that they came from, and what it says."""

    path: Path
    root: Path
    bundle: Bundle
    sources: tuple[SourceFile, ...]
    container: str
    keras: Described


def _hashed(opened: _Opened) -> set[Path]:
    """Return the files that the source's SHA-256 is of: all of a SavedModel's directory, but what
    is a link and none of its own; of a checkpoint its own, and the note that names it where its
    directory was given."""
    read = {source.path for source in opened.sources}
    if opened.container == SAVED_MODEL:
        found = {path for path in opened.root.rglob("*") if path.is_file()}
        return {path for path in found if path in read or not path.is_symlink()}
    state = opened.path / "checkpoint"
    return {*read, *([state] if state.is_file() else [])}


@dataclass(frozen=True, slots=True)
class _Content:
    """The layers, the keys of their arrays, and notes for the user; the config of the whole model
    and its weights' keys by name, where known; what was found of TensorFlow 1's cells."""

    layers: tuple[LSTMLayer, ...]
    used: Set[str]
    config: Given | None = None
    names: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    cells: tf1.Read | None = None


def _model(opened: _Opened, given: Given | None, *, takes_open: bool = False) -> Model:
    bundle, keras = opened.bundle, opened.keras
    own = Given(keras.model, keras.version, f"{opened.path}: model_config") if keras.model else None
    content = _content(opened, given, own)
    if not content.layers and bundle.graph is None:
        cells = tf1.read(bundle.tensors, opened.path, takes_open=takes_open)
        content = _Content(cells.layers, cells.used, notes=tf1.notes(cells), cells=cells)
    if not content.layers:
        raise _no_lstm(opened, content)
    start = (placing.model_of(bundle) if content.names else None) or ROOT
    training = state.training_keys(bundle, keras.metrics, start) - content.used
    training -= set((content.names or {}).values())
    twice = _listed_twice(bundle)
    other = {k: t for k, t in bundle.tensors.items() if k not in content.used | training | twice}
    config = content.config
    parsed = _parsed(config or given or own)

    def digest() -> str:
        bundle.check_large()
        return files.digest_of_files(opened.root, _hashed(opened), opened.sources)

    def check() -> None:
        for source in opened.sources:
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
        layout=TF1 if takes_open and content.cells is not None else None,
        other=other,
        optimizer={k: t for k, t in bundle.tensors.items() if k in training},
        texts=_texts(config, keras) if config else {},
        notes=content.notes,
    )


def _parsed(given: Given | None) -> Config | None:
    return parse_config(given.text, given.version, given.where) if given else None


def _structure(content: _Content, other: Mapping[str, object]) -> Structure | None:
    if content.names is None:
        return None
    return Structure(kind=OBJECTS, names=content.names, paths=frozenset({*content.used, *other}))


def _texts(config: Given, keras: Described) -> dict[str, str]:
    training = {"training_config": keras.training} if keras.training else {}
    return {"model_config": config.text, **training}


def _no_lstm(opened: _Opened, content: _Content) -> NoLSTM:
    names = sorted(key.removesuffix(_VALUE) for key in opened.bundle.tensors)
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return NoLSTM(
        "no variable belongs to an LSTM cell",
        where=opened.path,
        found=shown or "none",
        hint=tf1.open_hint(content.cells) if content.cells is not None else None,
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


# -- the layers -------------------------------------------------------------------------------


def _content(opened: _Opened, given: Given | None, own: Given | None) -> _Content:
    """Find the layers: by the config of the whole model where it fits, else by the graph alone."""
    bundle = opened.bundle
    notes: tuple[str, ...] = ()
    config = given or own
    if config is not None:
        try:
            return _whole(opened, config)
        except CorruptFile as error:
            if given is not None and placing.model_of(bundle) is not None:
                raise
            notes = (_unplaced(error),)
    elif opened.keras.custom is not None:
        notes = (_custom(opened.keras.custom),)
    found = objects.layers(bundle)
    loose = [bound.described(one, opened.keras.nodes) for one in found]
    loose = loose or bound.by_full_names(bundle, opened.path)
    parsed = _parsed(given)
    if parsed is not None and (loose or bundle.graph is not None):
        loose = bound.with_config(loose, parsed, opened.path)
    layers = _built(loose, parsed)
    return _Content(layers, _used(layers), notes=notes if layers else ())


def _unplaced(error: CorruptFile) -> str:
    return f"only the LSTM layers are read, not the whole model: {str(error).splitlines()[0]}"


def _custom(class_name: str) -> str:
    return (
        "only the LSTM layers are read: the model is of a class of its own, "
        f"{class_name}, which says nothing of how its layers are called"
    )


def _whole(opened: _Opened, given: Given) -> _Content:
    """Read the whole model that a config describes.

    Raises:
        CorruptFile: the graph is not that model's.
    """
    config = parse_config(given.text, given.version, given.where)
    names = placing.place(config.root, opened.bundle)
    tensors = opened.bundle.tensors
    planned = [sketch for sketch in plan(config.root).layers if sketch.has_lstm]
    loose = bound.placed(planned, config.era, names, tensors)
    layers = _built(loose, config)
    used = _used(layers)
    rest = [one for one in objects.layers(opened.bundle) if used.isdisjoint(one.keys)]
    if rest:  # inside layers of the user's own
        extra = [bound.described(one, opened.keras.nodes) for one in rest]
        layers = _built([*loose, *extra], config)
        used = _used(layers)
    return _Content(layers, used, given, names)


def _built(loose: list[Bound], config: Config | None) -> tuple[LSTMLayer, ...]:
    context = build.Context.of(config.root) if config else None
    names = layer_names(one.sketch.name for one in loose)
    return tuple(
        build.layer(one.sketch, one.arrays, one.era, name, context)
        for one, name in zip(loose, names, strict=True)
    )


def _used(layers: tuple[LSTMLayer, ...]) -> frozenset[str]:
    cells = [cell for layer in layers for _, _, cell in layer.cells()]
    return frozenset(place for cell in cells for place in cell.places.values())

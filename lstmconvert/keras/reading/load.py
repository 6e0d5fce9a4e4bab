"""Opening a Keras file of any kind as a model, without Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lstmconvert.errors import CorruptFile, UsageError
from lstmconvert.files import opening
from lstmconvert.files.jsontext import parse_object
from lstmconvert.files.opening import Window
from lstmconvert.files.zipmembers import ZipMembers
from lstmconvert.hdf5.reading import StoredTree, read_tree
from lstmconvert.keras.reading.read import ParsedConfig, parse_config, read
from lstmconvert.keras.stores import archive
from lstmconvert.keras.stores.legacy import WRITER, is_legacy
from lstmconvert.model.model import Model, Source
from lstmconvert.model.neighbours import Neighbour
from lstmconvert.tensors.tensor import SourceFile, Tensor

ARCHIVE, WEIGHTS, LEGACY = "keras", "weights.h5", "h5"


class GivenConfig(NamedTuple):
    """A model's config: of a file itself, or what the user supplies for weights without one.

    Fields: `text`, as JSON; `version` of the Keras that wrote it; `where` it is from, for errors.
    """

    text: str
    version: str | None
    where: str


class _Opened(NamedTuple):
    """A weight store that was opened, with its config and other files.

    Fields: `tree`, the store; `path` and `container` of the file; `config`: the file's own, if it
    has one; `version`: of the Keras that wrote it, as the file says it; `texts`: its JSON, byte for
    byte; `assets`; `files` that it is made of, where a file names others; `digest` computes the
    SHA-256, if there is one; `check` raises `CorruptFile` if the file was changed since then.
    """

    tree: StoredTree
    path: Path
    container: str
    config: GivenConfig | None = None
    version: str | None = None
    texts: Mapping[str, str] = {}
    assets: Mapping[str, Tensor] = {}
    files: tuple[Path, ...] = ()
    digest: Callable[[], str | None] | None = None
    check: Callable[[], None] = lambda: None


def load_zip(source: SourceFile | Window | ZipMembers, given: GivenConfig | None = None) -> Model:
    """Load a zipped `.keras` archive, a file or in one. Raises as `archive.read_zip`, `read`."""
    path = source.path if isinstance(source, SourceFile) else source.source.path
    return _model(_archive(archive.read_zip(source), path), given)


def load_directory(path: Path, given: GivenConfig | None = None) -> Model:
    """Load an unzipped `.keras` archive. Raises as `archive.read_directory` and `read`."""
    return _model(_archive(archive.read_directory(path), path), given)


def _archive(content: archive.Archive, path: Path) -> _Opened:
    texts = {"model_config": content.config}
    if content.metadata is not None:
        texts["archive_metadata"] = content.metadata
    config = _config_of(content, path)
    return _Opened(
        tree=content.tree,
        path=path,
        container=ARCHIVE,
        config=config,
        version=config.version,
        texts=texts,
        assets=content.assets,
        digest=content.digest,
        check=content.check,
    )


def load_hdf5(source: SourceFile, given: GivenConfig | None = None) -> Model:
    """Load a `.weights.h5`, or a legacy `.h5`. Raises as `read_tree` and `read`."""
    tree = read_tree(source)
    root = tree.attributes.get("", {})
    texts = {
        key: value
        for key in ("model_config", "training_config")
        if isinstance(value := root.get(key), str)
    }
    version = _version(tree)
    config = None
    if "model_config" in texts:
        config = GivenConfig(texts["model_config"], version, f"{source.path}: model_config")
    opened = _Opened(
        tree=tree,
        path=source.path,
        container=LEGACY if is_legacy(tree) else WEIGHTS,
        config=config,
        version=version,
        texts=texts,
        digest=lambda: opening.digest_of_file(source),
        check=source.check_unchanged,
    )
    return _model(opened, given)


def _version(tree: StoredTree) -> str | None:
    for path in ("", "model_weights"):
        version = tree.attributes.get(path, {}).get(WRITER[0])
        if isinstance(version, str):
            return version
    return None


def load_shards(path: Path, given: GivenConfig | None = None) -> Model:
    """Load the shards that a `.weights.json` names. Raises as `shards.read` and `read`."""
    from lstmconvert.keras.stores import archive  # rare

    sources, tree = archive.read(path)
    files = tuple(source.path for source in sources)

    def check() -> None:
        for source in sources:
            source.check_unchanged()

    opened = _Opened(
        tree=tree,
        path=path,
        container=WEIGHTS,
        files=files,
        digest=lambda: opening.digest_of_files(path.parent, files, sources),
        check=check,
    )
    return _model(opened, given)


def load_tree(
    tree: StoredTree,
    text: str,
    version: str | None,
    path: Path,
    container: str,
    given: GivenConfig | None,
) -> Model:
    """Load a weight store that is in another container, with its config. Raises as `read`."""
    opened = _Opened(
        tree=tree,
        path=path,
        container=container,
        config=GivenConfig(text, version, str(path)),
        version=version,
        texts={"model_config": text},
    )
    return replace(_model(opened, given), layout=container)


def _model(opened: _Opened, given: GivenConfig | None) -> Model:
    """Read a model by its own config, else by the one that the user supplied."""
    if opened.config is None or given is None:
        return _read(opened, opened.config or given)
    model = _read(opened, opened.config)
    if model.absent is None:
        return model
    # Without an LSTM, the layers are of a user's own class, perhaps, which the other config tells.
    other = _read(opened, given)
    return other if other.absent is None else model


def _read(opened: _Opened, stated: GivenConfig | None) -> Model:
    texts = dict(opened.texts)
    config: ParsedConfig | None = None
    tree = opened.tree
    notes: tuple[str, ...] = ()
    if stated is not None:
        text = stated.text
        if '"PruneLowMagnitude"' in text:
            from lstmconvert.keras.reading import pruned  # few models are

            without = pruned.stripped(text, tree)
            if without is not None:
                text, tree, notes = without
        config = parse_config(text, stated.version, stated.where)
        texts["model_config"] = text
    content = read(tree, config, opened.path)
    era = config.era if config else None
    model = Model(
        layers=content.layers,
        source=Source(
            container=opened.container,
            keras_version=opened.version or (era.version if era else None),
            era=era.name if era else None,
            digest=opened.digest,
            check=opened.check,
            structure=content.structure,
            files=opened.files,
        ),
        container=opened.container,
        other=content.other,
        optimizer=content.optimizer,
        assets=opened.assets,
        texts=texts,
        notes=(*notes, *content.notes),
        absent=content.absent,
        describe=neighbours,
    )
    if opened.config is None and stated is not None:
        _check_stored(model, stated.where)
    return model


_OF_THE_WEIGHTS = "--config takes the config of the model that the weights are of"
#: How many layers an error lists.
_SHOWN = 5


def _check_stored(model: Model, where: str) -> None:
    """Raise `UsageError` where a config that the user gave is not that of the weights."""
    missing = [
        f"{name} ({layer.class_name})"
        for name, layer in neighbours(model).items()
        if layer.missing and not layer.tensors and not layer.unnamed
    ]
    if missing:
        listed = ", ".join(missing[:_SHOWN]) + ", …" * (len(missing) > _SHOWN)
        raise UsageError(
            "the config is of another model: weights of its layers are not stored",
            where=where,
            found=listed,
            hint=_OF_THE_WEIGHTS,
        )
    from lstmconvert.keras.modern.neighbours import contradiction  # as in `neighbours`

    error = contradiction(model)
    # A config of the LSTM layers alone is one, too: weights beside them are left over.
    if error is not None and (model.absent is not None or isinstance(error, CorruptFile)):
        raise UsageError(
            f"the config is of another model: {error.message}",
            where=f"{where}: {error.where}",
            found=error.found,
            expected=error.expected,
            hint=_OF_THE_WEIGHTS,
        )


def neighbours(model: Model) -> Mapping[str, Neighbour]:
    """Return a model's layers that hold no LSTM: what `Model.describe` is."""
    from lstmconvert.keras.modern import neighbours as described  # rarely needed at start-up

    return described.of(model)


def _config_of(content: archive.Archive, path: Path) -> GivenConfig:
    version = None
    if content.metadata is not None:
        stated = parse_object(content.metadata, path).get("keras_version")
        version = stated if isinstance(stated, str) else None
    return GivenConfig(content.config, version, f"{path}: {archive.CONFIG}")

"""Opening a Keras file of any kind as a model, without Keras."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lstmconvert import files
from lstmconvert.errors import NotAModel, UsageError
from lstmconvert.jsontext import parse_object
from lstmconvert.keras import archive, zipmembers
from lstmconvert.keras.hdf5 import is_hdf5, read_tree
from lstmconvert.keras.legacy import WRITER, is_legacy
from lstmconvert.keras.read import Config, parse_config, read
from lstmconvert.keras.tree import Tree
from lstmconvert.model import Model, Source
from lstmconvert.records import dataclass
from lstmconvert.tensors import SourceFile

ARCHIVE, WEIGHTS, LEGACY = "keras", "weights.h5", "h5"


@dataclass(frozen=True, slots=True)
class Given:
    """A config that the user supplied beside the file (`--config`): its text, its version."""

    text: str
    version: str | None
    where: str


def load_zip(source: SourceFile, given: Given | None = None) -> Model:
    """Load a zipped `.keras` archive. Raises as `archive.read_zip` and `read`."""
    return _archive(archive.read_zip(source), source.path, given)


def load_directory(path: Path, given: Given | None = None) -> Model:
    """Load an unzipped `.keras` archive. Raises as `archive.read_directory` and `read`."""
    return _archive(archive.read_directory(path), path, given)


def _archive(content: archive.Archive, path: Path, given: Given | None) -> Model:
    texts = {"model_config": content.config}
    version = None
    if content.metadata is not None:
        texts["archive_metadata"] = content.metadata
        stated = parse_object(content.metadata, f"{path}: {archive.METADATA}").get("keras_version")
        version = stated if isinstance(stated, str) else None
    own = Given(content.config, version, f"{path}: {archive.CONFIG}")
    model = _model(
        content.tree,
        given or own,
        path,
        ARCHIVE,
        version,
        texts,
        content.digest,
        content.check,
    )
    return replace(model, assets=content.assets)


def load_hdf5(source: SourceFile, given: Given | None = None) -> Model:
    """Load a `.weights.h5`, or a legacy `.h5`. Raises as `read_tree` and `read`."""
    tree = read_tree(source)
    root = tree.attributes.get("", {})
    texts = {
        key: value
        for key in ("model_config", "training_config")
        if isinstance(value := root.get(key), str)
    }
    version = _version(tree)
    container = LEGACY if is_legacy(tree) else WEIGHTS
    own = (
        Given(texts["model_config"], version, f"{source.path}: model_config")
        if "model_config" in texts
        else None
    )
    return _model(
        tree,
        given or own,
        source.path,
        container,
        version,
        texts,
        lambda: files.digest_of_file(source),
        source.check_unchanged,
    )


def _version(tree: Tree) -> str | None:
    for path in ("", "model_weights"):
        version = tree.attributes.get(path, {}).get(WRITER[0])
        if isinstance(version, str):
            return version
    return None


def load_shards(path: Path, given: Given | None = None) -> Model:
    """Load the shards that a `.weights.json` names. Raises as `shards.read` and `read`."""
    from lstmconvert.keras import shards  # rare

    sources, tree = shards.read(path)
    files_read = tuple(source.path for source in sources)

    def digest() -> str:
        return files.digest_of_files(path.parent, files_read, sources)

    def check() -> None:
        for source in sources:
            source.check_unchanged()

    model = _model(tree, given, path, WEIGHTS, None, {}, digest, check)
    return replace(model, source=replace(model.source, files=files_read))


def load_tree(
    tree: Tree, text: str, version: str | None, path: Path, container: str, given: Given | None
) -> Model:
    """Load a weight store that lies in another container, with its config. Raises as `read`."""
    own = Given(text, version, str(path))
    texts = {"model_config": text}
    model = _model(tree, given or own, path, container, version, texts, lambda: None, lambda: None)
    return replace(model, layout=container)


def _model(
    tree: Tree,
    given: Given | None,
    path: Path,
    container: str,
    version: str | None,
    texts: dict[str, str],
    digest: Callable[[], str | None],
    check: Callable[[], None],
) -> Model:
    config: Config | None = None
    if given is not None:
        config = parse_config(given.text, given.version, given.where)
        texts = {**texts, "model_config": given.text}
    content = read(tree, config, path)
    era = config.era if config else None
    return Model(
        layers=content.layers,
        source=Source(
            container=container,
            keras_version=version or (era.version if era else None),
            era=era.name if era else None,
            digest=digest,
            check=check,
            structure=content.structure,
        ),
        container=container,
        other=content.other,
        optimizer=content.optimizer,
        texts=texts,
        notes=content.notes,
    )


def given_config(path: Path) -> Given:
    """Read the config that `--config` names: JSON of `to_json()`, a `.keras`, a whole `.h5`.

    Raises:
        UsageError: the file holds no config.
        SourceError: it cannot be read.
    """
    if os.path.isdir(path) and archive.is_directory(path):
        return _from_archive(archive.read_directory(path), path)
    source = files.open_source(path)
    start = files.head(source, 8)
    if start.startswith(zipmembers.SIGNATURE):
        return _from_archive(archive.read_zip(source), path)
    if is_hdf5(source):
        tree = read_tree(source)
        text = tree.attributes.get("", {}).get("model_config")
        if not isinstance(text, str):
            raise UsageError("the file holds weights and no config", where=path)
        return Given(text, _version(tree), f"{path}: model_config")
    if start.lstrip()[:1] not in (b"{", b"["):
        raise NotAModel("no config: neither JSON, .keras nor .h5", where=path)
    return Given(files.whole_text(source).decode("utf-8", "replace"), None, str(path))


def _from_archive(content: archive.Archive, path: Path) -> Given:
    version = None
    if content.metadata is not None:
        stated = parse_object(content.metadata, path).get("keras_version")
        version = stated if isinstance(stated, str) else None
    return Given(content.config, version, f"{path}: {archive.CONFIG}")

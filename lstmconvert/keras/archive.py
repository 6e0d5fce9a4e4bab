"""`.keras` archives of Keras 3, as zip files and as unzipped directories.

    metadata.json        keras_version, date_saved
    config.json          the model's config
    model.weights.h5     the v3 weight store, or model.weights.npz
    assets/…             vocabularies and the like

(keras/src/saving/saving_lib.py, `_save_model_to_fileobj`.) Nothing else is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lstmconvert.errors import CorruptFile, NotAModel
from lstmconvert.files import Window, digest_of_files, files_below, open_source, whole_text
from lstmconvert.keras.hdf5 import read_tree
from lstmconvert.keras.tree import Tree
from lstmconvert.keras.zipmembers import ZipMembers
from lstmconvert.records import dataclass
from lstmconvert.tensors import FileTensor, SourceFile, Tensor

CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS_H5, WEIGHTS_NPZ = "model.weights.h5", "model.weights.npz"
ASSETS = "assets/"


@dataclass(frozen=True, slots=True)
class Archive:
    """What an archive holds: its JSON texts, its weight store, its assets.

    `check` raises `CorruptFile` where the CRC of a large member is wrong, or a file has changed;
    `digest` returns the SHA-256, and checks the same.
    """

    config: str
    metadata: str | None
    tree: Tree
    assets: Mapping[str, Tensor]
    digest: Callable[[], str]
    check: Callable[[], None]


def is_archive(names: tuple[str, ...]) -> bool:
    """Whether these are the members of a Keras archive."""
    return CONFIG in names and (WEIGHTS_H5 in names or WEIGHTS_NPZ in names)


def read_zip(source: SourceFile) -> Archive:
    """Read a zipped archive.

    Raises:
        NotAModel: a zip file that is no Keras archive.
        CorruptFile, LimitExceeded: see `ZipMembers` and `read_tree`.
    """
    members = ZipMembers(source)
    if not is_archive(members.names):
        raise NotAModel(
            "a zip file, and not a Keras archive",
            where=source.path,
            found=", ".join(members.names[:5]) or "no members",
            expected=f"{CONFIG} and {WEIGHTS_H5}",
        )
    if WEIGHTS_H5 in members.names:
        weights = members.open(WEIGHTS_H5)
        tree = read_tree(weights.source, weights.offset, weights.size)
    else:
        tree = _npz_tree(members.open(WEIGHTS_NPZ))

    def check() -> None:
        members.check_large()
        source.check_unchanged()

    return Archive(
        config=_text(members.read(CONFIG), source.path),
        metadata=_text(members.read(METADATA), source.path) if METADATA in members.names else None,
        tree=tree,
        assets={name: _asset(members, name) for name in members.names if _is_asset(name)},
        digest=members.digest,
        check=check,
    )


def is_directory(path: Path) -> bool:
    """Whether a directory is an unzipped archive."""
    return (path / CONFIG).is_file() and (
        (path / WEIGHTS_H5).is_file() or (path / WEIGHTS_NPZ).is_file()
    )


def read_directory(path: Path) -> Archive:
    """Read an unzipped archive (`model.save(path, zipped=False)`).

    Raises:
        CorruptFile, LimitExceeded: see `files_below` and `read_tree`.
    """
    names = [file.relative_to(path).as_posix() for file in files_below(path)]
    weights = WEIGHTS_H5 if WEIGHTS_H5 in names else WEIGHTS_NPZ
    sources = {
        name: open_source(path / name)
        for name in names
        if name in (CONFIG, METADATA, weights) or _is_asset(name)
    }

    def check() -> None:
        for source in sources.values():
            source.check_unchanged()

    is_hdf5 = weights == WEIGHTS_H5
    return Archive(
        config=_whole(sources[CONFIG]),
        metadata=_whole(sources[METADATA]) if METADATA in sources else None,
        tree=read_tree(sources[weights]) if is_hdf5 else _npz_tree(Window(sources[weights])),
        assets={name: _bytes_tensor(sources[name]) for name in names if _is_asset(name)},
        digest=lambda: digest_of_files(path, files_below(path), sources.values()),
        check=check,
    )


def _is_asset(name: str) -> bool:
    if not name.startswith(ASSETS) or name.endswith("/"):
        return False
    if not {"", ".", ".."}.isdisjoint(name.split("/")) or set(name) & set("\\\0"):
        # It is not used as a path here, but would be by who unpacks what we write.
        raise CorruptFile("an asset whose name is no plain path", where=repr(name)[:80])
    return True


def _asset(members: ZipMembers, name: str) -> Tensor:
    window = members.open(name)
    return FileTensor(window.source, window.offset, (window.size,), np.dtype("u1"))


def _bytes_tensor(source: SourceFile) -> Tensor:
    return FileTensor(source, 0, (source.size,), np.dtype("u1"))


def _npz_tree(window: Window) -> Tree:
    from lstmconvert.keras import npzstore  # rare: not worth its import at every start

    return npzstore.read_tree(window)


def _whole(source: SourceFile) -> str:
    return _text(whole_text(source), source.path)


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptFile("a JSON member is not UTF-8 text", where=path) from None

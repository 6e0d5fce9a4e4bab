"""`.keras` archives of Keras 3, as zip files and as unzipped directories.

    metadata.json        keras_version, date_saved
    config.json          the model's config
    model.weights.h5     the v3 weight store, or model.weights.npz
    assets/…             vocabularies and the like

(keras/src/saving/saving_lib.py, `_save_model_to_fileobj`.) Nothing else is read. What we write has
its members stored and its dates fixed, so that the same input gives the same bytes.

Keras 3.10 and later also writes sharded weights: a `.weights.json` and its HDF5 shards.

    {"weight_map": {"/layers/lstm/cell/vars": ["x_00000.weights.h5", …]}, …}

(`ShardedH5IOStore` in the same module.) The arrays of one cell may be in two shards.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstmconvert.errors import CorruptFile, NotAModel
from lstmconvert.files.jsontext import Json, parse_object
from lstmconvert.files.names import is_plain
from lstmconvert.files.opening import Window, digest_of_files, files_below, open_source, whole_text
from lstmconvert.files.zipmembers import ArchiveFile, FilePart, ZipMembers, entry
from lstmconvert.hdf5.reading import Attributes, StoredTree, read_tree
from lstmconvert.tensors.streaming import write_to
from lstmconvert.tensors.tensor import FileTensor, SourceFile, Tensor

CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS_H5, WEIGHTS_NPZ = "model.weights.h5", "model.weights.npz"
#: What an archive has, in words.
MEMBERS = f"{CONFIG} and {WEIGHTS_H5}"
ASSETS = "assets/"


class Archive(NamedTuple):
    """What an archive holds: its JSON texts, its weight store, its assets.

    `check` raises `CorruptFile` where the CRC of a large member is wrong, or a file has changed;
    `digest` returns the SHA-256, and checks the same.
    """

    config: str
    metadata: str | None
    tree: StoredTree
    assets: Mapping[str, Tensor]
    digest: Callable[[], str]
    check: Callable[[], None]


def is_archive(names: Container[str]) -> bool:
    """Whether these are the members of a Keras archive, or the files of an unzipped one."""
    return CONFIG in names and (WEIGHTS_H5 in names or WEIGHTS_NPZ in names)


def not_an_archive(names: Sequence[str], path: Path) -> NotAModel:
    """Return the error for a zip file of other members."""
    return NotAModel(
        "a zip file, and not a Keras archive",
        where=path,
        found=", ".join(names[:5]) or "no members",
        expected=MEMBERS,
    )


def read_zip(source: SourceFile | Window | ZipMembers) -> Archive:
    """Read a zipped archive, a file or in one, whose members may be known.

    Raises:
        NotAModel: a zip file that is not a Keras archive.
        CorruptFile, LimitExceeded: see `ZipMembers` and `read_tree`.
    """
    members = source if isinstance(source, ZipMembers) else ZipMembers(source)
    file = members.source
    if not is_archive(members.names):
        raise not_an_archive(members.names, file.path)
    if WEIGHTS_H5 in members.names:
        weights = members.open(WEIGHTS_H5)
        tree = read_tree(weights.source, weights.offset, weights.size)
    else:
        tree = _npz_tree(members.open(WEIGHTS_NPZ))

    def check() -> None:
        members.check_large()
        file.check_unchanged()

    return Archive(
        config=_text(members.read(CONFIG), file.path),
        metadata=_text(members.read(METADATA), file.path) if METADATA in members.names else None,
        tree=tree,
        assets={name: _asset(members, name) for name in members.names if _is_asset(name)},
        digest=members.digest,
        check=check,
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
        raise CorruptFile("an asset whose name is not a plain path", where=repr(name)[:80])
    return True


def _asset(members: ZipMembers, name: str) -> Tensor:
    window = members.open(name)
    return FileTensor(window.source, window.offset, (window.size,), np.dtype("u1"))


def _bytes_tensor(source: SourceFile) -> Tensor:
    return FileTensor(source, 0, (source.size,), np.dtype("u1"))


def _npz_tree(window: Window) -> StoredTree:
    from lstmconvert.keras.stores import npzstore  # rare: not worth its import at every start

    return npzstore.read_tree(window)


def _whole(source: SourceFile) -> str:
    return _text(whole_text(source), source.path)


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptFile("a JSON member is not UTF-8 text", where=path) from None


def write(
    path: Path,
    config: str,
    metadata: str,
    weights: Callable[[FilePart], None],
    size: int,
    assets: Mapping[str, Tensor],
) -> None:
    """Write a new archive.

    Args:
        path: the file to write.
        config, metadata: JSON texts.
        weights: writes an HDF5 weight store, which becomes `model.weights.h5`.
        size: about how many bytes it has.
        assets: member name -> its bytes.
    """
    with ArchiveFile(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry(METADATA), metadata)
        archive.writestr(entry(CONFIG), config)
        file.add(archive, _sized(WEIGHTS_H5, size), weights)
        for name, tensor in sorted(assets.items()):
            with archive.open(_sized(name, tensor.nbytes), "w") as target:
                write_to(target, tensor)


def _sized(name: str, size: int) -> zipfile.ZipInfo:
    """Return the entry of a member that we write, with its size, for one of gigabytes."""
    info = entry(name)
    info.file_size = size
    return info


WEIGHT_MAP = "weight_map"


def is_shard_map(value: Json) -> bool:
    """Whether a JSON value is a map of shards."""
    return isinstance(value, dict) and isinstance(value.get(WEIGHT_MAP), dict)


def read(path: Path) -> tuple[list[SourceFile], StoredTree]:
    """Read every shard of a map as one tree; return the map's file and theirs, and the tree.

    Raises:
        CorruptFile: a shard is not a plain file name beside the map, is missing, or two shards hold
            one array.
    """
    text = open_source(path)
    value = parse_object(whole_text(text), path)
    if not is_shard_map(value):
        raise CorruptFile("no weight_map of shards", where=path)
    sources = [text]
    tensors: dict[str, Tensor] = {}
    attributes: dict[str, Attributes] = {}
    groups: set[str] = set()
    for name in _names(value[WEIGHT_MAP], path):
        source = open_source(path.parent / name)
        tree = read_tree(source)
        if twice := tensors.keys() & tree.tensors.keys():
            raise CorruptFile("two shards hold one array", where=path, found=min(twice))
        sources.append(source)
        tensors.update(tree.tensors)
        attributes.update(tree.attributes)
        groups.update(tree.groups)
    return sources, StoredTree(tensors, attributes, frozenset(groups))


def _names(weight_map: dict[str, Json], path: Path) -> list[str]:
    names: dict[str, None] = {}
    for value in weight_map.values():
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or not is_plain(name):
                raise CorruptFile(
                    "a shard must be a plain file name beside the map",
                    where=path,
                    found=repr(name)[:80],
                )
            if os.path.islink(path.parent / name):  # false for a name that is too long
                raise CorruptFile("a shard is a symbolic link", where=path.parent / name)
            names[name] = None
    if not names:
        raise CorruptFile("the weight_map is empty", where=path)
    return list(names)

"""From a path to a checkpoint: a prefix, one of its files, a directory, or a V1 file."""

from __future__ import annotations

import re
from pathlib import Path

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, NotAModel
from lstmconvert.files import open_source
from lstmconvert.tensorflow.bundle import Bundle, read_bundle
from lstmconvert.tensorflow.entries import index_path
from lstmconvert.tensorflow.table import is_table
from lstmconvert.tensorflow.v1 import is_v1, read_v1

#: The file of a directory that names its newest checkpoint, in protobuf's text format
#: (tensorflow/python/training/checkpoint_state.proto).
STATE_FILE = "checkpoint"

_STATE_BYTES = limits.MIB
_STATE = re.compile(rb'^model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_LAST = re.compile(r".*[/\\]", re.DOTALL)
_PLAIN = re.compile(r"(?!\.\.?$)[^/\\]{1,200}")
#: What may follow a prefix in the name of a checkpoint's file.
_SUFFIX = re.compile(r"(.+)(\.index|\.meta|\.data-\d{5,}-of-\d{5,})")


def read_checkpoint(path: Path) -> Bundle:
    """Read a checkpoint of any format; its tensors are read when they are touched.

    Args:
        path: a prefix (`dir/ckpt-1`), its `.index`, `.meta` or data file, a directory with a
            `checkpoint` file or with one index, or a file of format V1.

    Raises:
        NotAModel: no checkpoint lies there.
        CorruptFile, LimitExceeded: as `read_bundle`.
    """
    if path.is_dir():
        path = newest(path)
    elif path.name == STATE_FILE and path.is_file():
        path = newest(path.parent)
    match = _SUFFIX.fullmatch(path.name)
    if match is not None:
        path = path.with_name(match.group(1))
    if index_path(path).exists() or (match is not None and not path.exists()):
        return read_bundle(path)
    source = open_source(path)
    if is_table(source) and is_v1(source):
        return read_v1(path)
    raise NotAModel(
        "no TensorFlow checkpoint",
        where=path,
        expected="a prefix, an .index file, or a directory with a `checkpoint` file",
    )


def newest(directory: Path) -> Path:
    """Return the prefix of the checkpoint that a directory's `checkpoint` file names.

    Without that file, the directory must hold one index.

    Raises:
        NotAModel: it holds none, or several.
        CorruptFile: the file names no neighbour.
    """
    state = directory / STATE_FILE
    if state.is_file():
        return directory / _named(state)
    found = sorted(path for path in directory.glob("*.index") if path.is_file())
    if len(found) != 1:
        raise NotAModel(
            "a directory that holds no checkpoint" if not found else "several checkpoints",
            where=directory,
            found=", ".join(path.name for path in found[:5]) or None,
            hint="name the checkpoint itself, without its suffix .index" if found else None,
        )
    return found[0].with_suffix("")


def _named(state: Path) -> str:
    source = open_source(state)
    match = _STATE.search(source.read_at(0, min(source.size, _STATE_BYTES)))
    if match is None:
        raise NotAModel("it names no checkpoint", where=state)
    written = _ESCAPE.sub(_unescaped, match.group(1)).decode("utf-8", "surrogateescape")
    # TF1 writes the path that the directory had then. Its last part is looked for here; TensorFlow
    # would follow it, to anywhere on this machine.
    name = _LAST.sub("", written) if _ABSOLUTE.match(written) else written
    here = state.with_name(name) if _PLAIN.fullmatch(name) and name.isprintable() else None
    if here is None or not (index_path(here).is_file() or here.is_file()):
        raise CorruptFile(
            "the checkpoint that it names is not in its own directory",
            where=state,
            found=repr(written[:200]),
            expected="the name of a neighbour",
            hint="name the checkpoint itself: the path of its .index",
        )
    return name


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match.group(1)
    return bytes([int(code, 8) & 0xFF]) if len(code) == 3 else code

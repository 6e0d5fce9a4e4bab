"""Which container a path is: by its bytes, never by its suffix alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lstmconvert import files
from lstmconvert.containers import safetensors
from lstmconvert.errors import NotAModel, SourceError
from lstmconvert.jsontext import parse
from lstmconvert.keras import archive, load, shards
from lstmconvert.keras.hdf5 import is_hdf5
from lstmconvert.keras.zipmembers import SIGNATURE as ZIP
from lstmconvert.keras.zipmembers import ZipMembers
from lstmconvert.model import Model
from lstmconvert.tensors import SourceFile

_READS = ".keras, .weights.h5, .h5, .weights.json, .safetensors, .npz"
#: First bytes of files that people mistake for models, and what they are.
_FOREIGN = {
    b"<!DOCTYPE": "an HTML page, perhaps of a download that failed",
    b"<html": "an HTML page, perhaps of a download that failed",
    b"\x80\x02": "a pickle, which is never opened",
    b"\x80\x03": "a pickle, which is never opened",
    b"\x80\x04": "a pickle, which is never opened",
    b"\x1f\x8b": "a gzip file: unpack it first",
    b"%PDF": "a PDF document",
}


def open_model(path: Path, given: load.Given | None) -> Model:
    """Open a file or directory of any container.

    Args:
        path: what to open.
        given: a config that the user supplied.

    Raises:
        SourceError: it is missing, unreadable, damaged, hostile, or no model.
    """
    if path.is_dir():
        if archive.is_directory(path):
            return load.load_directory(path, given)
        if _is_tensorflow(path):
            return _open_tensorflow(path, given)
        raise NotAModel(
            "a directory that holds no model",
            where=path,
            expected=f"{archive.CONFIG} and {archive.WEIGHTS_H5} (an unzipped .keras)",
        )
    if not path.exists() and Path(f"{path}.index").is_file():
        return _open_tensorflow(path, given)
    source = files.open_source(path)
    head = files.head(source, 16)
    if head.startswith(ZIP):
        return _open_zip(source, given)
    if is_hdf5(source):
        return load.load_hdf5(source, given)
    if safetensors.looks_like(head):
        return _open_safetensors(source)
    if head.lstrip()[:1] in (b"{", b"["):
        return _open_json(source, path, given)
    if _is_tensorflow(path):
        return _open_tensorflow(path, given)
    raise _foreign(source, head)


def _is_tensorflow(path: Path) -> bool:
    """Whether a path is a SavedModel or checkpoint, or a file of one."""
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        return bool(names & {"saved_model.pb", "checkpoint", "variables"}) or any(
            name.endswith(".index") for name in names
        )
    from lstmconvert.tensorflow.table import is_table

    return path.name == "checkpoint" or ".data-" in path.name or is_table(files.open_source(path))


def _open_tensorflow(path: Path, given: load.Given | None) -> Model:
    from lstmconvert.checkpoints import load as tensorflow_load
    from lstmconvert.tensorflow.savedmodel import is_saved_model

    if path.is_dir() and is_saved_model(path):
        return tensorflow_load.load_saved_model(path, given)
    return tensorflow_load.load_checkpoint(path, given)


def _open_zip(source: SourceFile, given: load.Given | None) -> Model:
    names = ZipMembers(source).names
    if not archive.is_archive(names) and any(name.endswith(".npy") for name in names):
        from lstmconvert.containers import npz

        return npz.open_model(source)
    return load.load_zip(source, given)


def _open_safetensors(source: SourceFile) -> Model:
    from lstmconvert import gatesfile

    tensors, texts = safetensors.read(source)
    if not gatesfile.is_per_gate(tensors, texts):
        raise SourceError(
            "a safetensors file in no layout that is read here",
            where=source.path,
            found=", ".join(list(tensors)[:5]) or "no tensors",
            expected="per-gate names such as lstm.forget_gate.kernel",
        )
    model = gatesfile.read(tensors, texts, "safetensors", source.path)
    return replace(model, source=replace(model.source, check=source.check_unchanged))


def _open_json(source: SourceFile, path: Path, given: load.Given | None) -> Model:
    value = parse(files.whole_text(source), path)
    if shards.is_shard_map(value):
        return load.load_shards(path, given)
    if isinstance(value, dict) and "class_name" in value:
        raise NotAModel(
            "the architecture of a model, without weights",
            where=path,
            hint=f"give its weights as the source, and --config {path.name}",
        )
    raise NotAModel("a JSON file, and no model", where=path, expected=_READS)


def _foreign(source: SourceFile, head: bytes) -> NotAModel:
    found = next((what for start, what in _FOREIGN.items() if head.startswith(start)), None)
    if found is None:
        is_text = all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head)
        found = "text" if is_text else f"unknown bytes {head[:8].hex(' ')}"
    return NotAModel("not a model file", where=source.path, found=found, expected=_READS)

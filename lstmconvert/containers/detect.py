"""Which container a path is: by its bytes, never by its suffix alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lstmconvert import files, metadata
from lstmconvert.containers import arrays, safetensors
from lstmconvert.errors import NotAModel, SourceError
from lstmconvert.jsontext import JsonObject, parse
from lstmconvert.keras import archive, load
from lstmconvert.keras.hdf5 import is_hdf5
from lstmconvert.keras.zipmembers import SIGNATURE as ZIP
from lstmconvert.keras.zipmembers import ZipMembers
from lstmconvert.model import Model
from lstmconvert.neighbours import Neighbours
from lstmconvert.npy import MAGIC as NPY
from lstmconvert.tensors import SourceFile, Tensor

GATES = "gates"
#: Containers whose files say more of their layers than arrays do.
_DOCUMENTS = frozenset({"tflite", "mlmodel"})
#: Suffix -> container, of files without a signature.
_BY_NAME = {".msgpack": "msgpack", ".mlmodel": "mlmodel"}

READS = (
    ".keras, .weights.h5, .h5, .weights.json, .safetensors, .npz, .onnx, .json, .pt, .params, "
    ".param, .tflite, .mlmodel, .mat, .msgpack, .eqx"
)
#: Tags of the fields of an ONNX model that follow ir_version (onnx/onnx.proto, ModelProto).
_AFTER_IR_VERSION = frozenset(bytes([tag]) for tag in b"\x12\x1a\x22\x28\x32\x3a\x42")
#: Files that people name where they mean the directory that holds them.
_OF_A_SAVED_MODEL = frozenset({"saved_model.pb", "keras_metadata.pb"})
#: A name inside a folder, what the folder is, and what to do.
_FOREIGN_FOLDERS = (
    (
        "manifest.ocdbt",
        "a checkpoint of Orbax, which is not read",
        "restore it with Orbax, and give lstmconvert.save what live.from_flax(params) returns",
    ),
    (
        "Manifest.json",
        "a package of Core ML",
        "a neural network in it is read: give Data/com.apple.CoreML/model.mlmodel",
    ),
)
#: The number that begins what `torch.save` wrote before it wrote zips (torch/serialization.py).
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P"
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


def open_model(path: Path, given: load.Given | None, layout: str | None = None) -> Model:
    """Open a file or directory of any container.

    Args:
        path: what to open.
        given: a config that the user supplied.
        layout: how named arrays are arranged, where the user says so.

    Raises:
        SourceError: it is missing, unreadable, damaged, hostile, or no model.
    """
    try:
        return _open(path, given, layout)
    except SourceError as error:
        # What is found deep inside names its place there. Of which file, is known here.
        where = error.where or ""
        if not where.startswith(str(path)) and not os.path.lexists(where.partition(": ")[0]):
            error.where = f"{path}: {where}" if where else str(path)
        raise


def _open(path: Path, given: load.Given | None, layout: str | None) -> Model:
    if os.path.isdir(path):  # false where Path.is_dir raises: too long, not allowed
        if archive.is_directory(path):
            return load.load_directory(path, given)
        if _is_tensorflow(path):
            return _open_tensorflow(path, given, layout)
        raise _foreign_folder(path)
    if not path.exists() and Path(f"{path}.index").is_file():
        return _open_tensorflow(path, given, layout)
    source = files.open_source(path)
    head = files.head(source, 16)
    if head.startswith(ZIP):
        return _open_zip(source, given, layout)
    if safetensors.looks_like(head):
        return _open_arrays(source, "safetensors", layout)
    container = arrays.container_of(head) or _BY_NAME.get(path.suffix.lower())
    if container in _DOCUMENTS:
        return _open_document(source, container, layout)
    if container is not None:
        return _open_arrays(source, container, layout)
    if head.startswith((NPY, b"{")) and path.name.lower().endswith(".eqx"):
        return _open_arrays(source, "eqx", layout or "equinox")
    if is_hdf5(source):
        return load.load_hdf5(source, given)
    if head.lstrip()[:1] in (b"{", b"["):
        return _open_json(source, path, given, layout)
    if _is_onnx(path, head):
        from lstmconvert.onnx import read as onnx_read

        return onnx_read.open_model(source)
    if _is_tensorflow(path):
        return _open_tensorflow(path, given, layout)
    raise _foreign(source, head)


def _is_onnx(path: Path, head: bytes) -> bool:
    """Whether a file is ONNX by its first bytes, ir_version from 3 and a next field, or by name."""
    return (
        len(head) > 2 and head[0] == 8 and 3 <= head[1] < 128 and head[2:3] in _AFTER_IR_VERSION
    ) or path.name.lower().endswith(".onnx")


def _is_tensorflow(path: Path) -> bool:
    """Whether a path is a SavedModel or checkpoint, or a file of one."""
    if os.path.isdir(path):  # false where Path.is_dir raises: too long, not allowed
        names = {entry.name for entry in path.iterdir()}
        return bool(names & {"saved_model.pb", "checkpoint", "variables"}) or any(
            name.endswith(".index") for name in names
        )
    from lstmconvert.tensorflow.table import is_table

    is_part = path.name == "checkpoint" or ".data-" in path.name or path.name in _OF_A_SAVED_MODEL
    is_graph = path.suffix == ".meta" and path.with_suffix(".index").is_file()
    return is_part or is_graph or is_table(files.open_source(path))


def _open_tensorflow(path: Path, given: load.Given | None, layout: str | None) -> Model:
    from lstmconvert.checkpoints import load as tensorflow_load
    from lstmconvert.tensorflow.savedmodel import is_saved_model

    if path.name in _OF_A_SAVED_MODEL and is_saved_model(path.parent):
        path = path.parent
    if path.is_dir() and is_saved_model(path):
        return tensorflow_load.load_saved_model(path, given)
    return tensorflow_load.load_checkpoint(path, given, layout)


def _open_zip(source: SourceFile, given: load.Given | None, layout: str | None) -> Model:
    names = ZipMembers(source).names
    if archive.is_archive(names):
        return load.load_zip(source, given)
    if any(name.endswith(".npy") for name in names):
        return _open_npz(source, layout)
    from lstmconvert.containers import torchfile  # what few need is imported when it is needed

    if torchfile.is_torch(names):
        tensors, notes = torchfile.read(source)
        model = _of_arrays(tensors, {}, source, "pt", layout)
        return replace(model, notes=(*model.notes, *notes))
    return load.load_zip(source, given)


def _open_arrays(source: SourceFile, container: str, layout: str | None) -> Model:
    beside = Neighbours(source.path)
    tensors, texts = arrays.read(container, source, beside)
    model = _of_arrays(tensors, texts, source, container, layout or arrays.layout_of(container))
    return _with_neighbours(model, source, beside, is_ours=metadata.KEY in texts)


def _open_tfjs(
    value: JsonObject, source: SourceFile, given: load.Given | None, layout: str | None
) -> Model:
    from lstmconvert.containers import tfjs

    beside, where = Neighbours(source.path), str(source.path)
    tensors, texts = tfjs.from_value(value, beside, where)
    if metadata.KEY in texts:
        model = _of_arrays(tensors, texts, source, tfjs.LAYOUT, layout or tfjs.LAYOUT)
        return _with_neighbours(model, source, beside, is_ours=True)
    model = load.load_tree(*tfjs.keras_tree(value, tensors, where), source.path, tfjs.LAYOUT, given)
    return _with_neighbours(model, source, beside, is_ours=False)


def _open_fdeep(value: JsonObject, source: SourceFile, given: load.Given | None) -> Model:
    from lstmconvert.containers import fdeep

    if metadata.KEY in value:
        found = fdeep.from_value(value, str(source.path))
        return _of_arrays(*found, source, fdeep.LAYOUT, fdeep.LAYOUT)
    tree, text, version = fdeep.keras_tree(value, str(source.path))
    model = load.load_tree(tree, text, version, source.path, fdeep.LAYOUT, given)
    known = replace(
        model.source,
        check=source.check_unchanged,
        digest=lambda: files.digest_of_file(source),
        structure=None,
    )
    # The config is of a whole model, of which the LSTMs alone were read.
    return replace(model, source=known, texts={})


def _with_neighbours(
    model: Model, source: SourceFile, beside: Neighbours, *, is_ours: bool
) -> Model:
    if not beside.paths:
        return model

    def check() -> None:
        source.check_unchanged()
        beside.check()

    parts = [source.path, *beside.paths]
    known = replace(model.source, check=check, files=tuple(parts))
    if not is_ours:
        opened = [source, *beside.files]
        known = replace(
            known, digest=lambda: files.digest_of_files(source.path.parent, parts, opened)
        )
    return replace(model, source=known)


def _open_document(source: SourceFile, container: str, layout: str | None) -> Model:
    document = arrays.module_of(container)
    tensors, texts, said = document.opened(source)
    layout = layout or arrays.layout_of(container)
    model = _of_arrays(tensors, texts, source, container, layout)
    if metadata.KEY in texts:
        return model
    return replace(model, layers=tuple(document.completed(layer, said) for layer in model.layers))


def _open_npz(source: SourceFile, layout: str | None) -> Model:
    from lstmconvert.containers import npz

    tensors, texts, check = npz.opened(source)
    model = _of_arrays(tensors, texts, source, "npz", layout)
    return replace(model, source=replace(model.source, check=check))


def _of_arrays(
    tensors: Mapping[str, Tensor],
    texts: Mapping[str, str],
    source: SourceFile,
    container: str,
    layout: str | None,
) -> Model:
    """Find the layout of named arrays: by metadata, by what the user says, by names."""
    from lstmconvert import gatesfile
    from lstmconvert.layouts import read

    said = None if layout == GATES else layout
    model = None
    if layout != GATES and (said or not gatesfile.is_per_gate(tensors, texts) or texts):
        model = read.model(tensors, texts, container, source.path, said)
    if model is None and not gatesfile.is_per_gate(tensors, texts):
        raise SourceError(
            "an array file in no layout that is known by its names",
            where=source.path,
            found=", ".join(list(tensors)[:5]) or "no tensors",
            expected="per-gate names such as lstm.forget_gate.kernel, or a framework's",
            hint="--from names its layout: lstmconvert formats lists them",
        )
    if model is None:
        model = gatesfile.read(tensors, texts, container, source.path)
    known = replace(model.source, check=source.check_unchanged)
    if metadata.KEY not in texts:
        known = replace(known, digest=lambda: files.digest_of_file(source))
    return replace(model, source=known)


def _open_json(
    source: SourceFile, path: Path, given: load.Given | None, layout: str | None
) -> Model:
    from lstmconvert.containers import fdeep, jsonarrays, rtneural, tfjs
    from lstmconvert.keras import shards

    value = parse(files.whole_text(source), path)
    if shards.is_shard_map(value):
        return load.load_shards(path, given)
    if fdeep.looks_like(value):
        return _open_fdeep(value, source, given)
    if tfjs.looks_like(value):
        return _open_tfjs(value, source, given, layout)
    if jsonarrays.looks_like(value):
        tensors, texts = jsonarrays.from_value(value, path)
        return _of_arrays(tensors, texts, source, "json", layout)
    if rtneural.looks_like(value):
        return _of_arrays(*rtneural.from_value(value, path), source, "rtneural", "rtneural")
    if isinstance(value, dict) and "class_name" in value:
        raise NotAModel(
            "the architecture of a model, without weights",
            where=path,
            hint=f"give its weights as the source, and --config {path.name}",
        )
    raise NotAModel("a JSON file, and no model", where=path, expected=READS)


def _foreign_folder(path: Path) -> NotAModel:
    names = {entry.name for entry in path.iterdir()}
    for mark, what, hint in _FOREIGN_FOLDERS:
        if mark in names:
            return NotAModel(what, where=path, hint=hint)
    return NotAModel(
        "a directory that holds no model",
        where=path,
        expected=f"{archive.CONFIG} and {archive.WEIGHTS_H5} (an unzipped .keras)",
        hint="give a file in it; lstmconvert batch takes whole folders",
    )


def _foreign(source: SourceFile, head: bytes) -> SourceError:
    if source.path.suffix.lower() == ".mat":
        from lstmconvert.containers import mat

        if mat.is_level_4(head):
            return mat.other_version("4", source)
    if head.startswith(_OLD_TORCH):
        return NotAModel(
            "a file of PyTorch before 1.6, a bare pickle, which is never opened",
            where=source.path,
            hint="in PyTorch: torch.save(torch.load(path, weights_only=True), new_path)",
        )
    found = next((what for start, what in _FOREIGN.items() if head.startswith(start)), None)
    if found is None:
        is_text = all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head)
        found = "text" if is_text else f"unknown bytes {head[:8].hex(' ')}"
    return NotAModel("not a model file", where=source.path, found=found, expected=READS)

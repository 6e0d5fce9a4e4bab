"""What is fuzzed: each container, its mutations, and what an accepted mutant must agree with."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import lstmconvert
from lstmconvert.errors import SourceError
from lstmconvert.files import writing, zipmembers
from lstmconvert.files.jsontext import in_pieces
from lstmconvert.keras.stores import stored
from lstmconvert.model.model import Model
from lstmconvert.pergate import gatesfile, metadata
from lstmconvert.tensorflow.formats import checkpoint
from lstmconvert.tensorflow.formats.checkpoint import SortedTable
from lstmconvert.tensors import tensor as tensor_module
from lstmconvert.tensors.tensor import SourceFile
from support import bundlefiles, hdf5later, mutate, mutate_onnx
from support.crafted_others import valid as others
from support.crafted_others import written
from support.crafted_safetensors import joined, split, unsealed

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "keras-3.6.0"
Numbers = Mapping[str, tuple[Any, str, bytes]]


class Finding(Exception):
    """A mutant whose result is wrong."""


# --- what a file holds ----------------------------------------------------------------------------


def numbers(model: Model) -> Numbers:
    """Every tensor of a per-gate file of the model."""
    found = gatesfile.tensors(model, with_optimizer=True)
    return {n: (t.shape, t.dtype.name, t.read().tobytes()) for n, t in found.items()}


def everything(model: Model) -> tuple[Numbers, str]:
    """Every tensor, and all that the metadata says."""
    return numbers(model), "".join(in_pieces(metadata.to_pieces(model, digest=None)))


def same_as_h5py(model: Model, path: Path) -> None:
    """Compare every array with h5py's view of it."""
    with h5py.File(path, "r") as file:
        for layer in model.layers:
            for _, _, cell in layer.cells():
                for part, place in cell.places.items():
                    _compare(file, place, cell.fused(part).read())
        for place, tensor in {**model.other, **model.optimizer}.items():
            if tensor.dtype.kind in "fiub":
                _compare(file, place, tensor.read())


def _compare(file: h5py.File, place: str, ours: Any) -> None:
    # What is not UTF-8 in a name, is spelled in ours.
    name = re.sub(
        rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), place.encode()
    )
    theirs = np.asarray(file[name][()])
    if theirs.dtype.byteorder == ">":
        theirs = theirs.astype(theirs.dtype.newbyteorder("<"))
    if theirs.shape != ours.shape or theirs.tobytes() != ours.tobytes():
        raise Finding(
            f"{place}: ours {ours.dtype}{ours.shape}, h5py's {theirs.dtype}{theirs.shape}"
        )


def same_as_safetensors(model: Model, path: Path) -> None:
    """Compare every tensor with the library's view, whatever its name."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        theirs = sorted(np.ascontiguousarray(file.get_tensor(n)).tobytes() for n in [*file.keys()])
    if sorted(data for _, _, data in numbers(model).values()) != theirs:
        raise Finding("other tensors than the library's")


# --- targets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A container to fuzz.

    Fields: `make` puts the valid file into a folder; `mutate` makes a mutant there, given the valid
    file and dice; `agree` raises `Finding` where an accepted mutant's result is wrong; `rewrite`:
    accepted mutants are also written as Keras files; `config`: the file beside it that is given
    as its config.
    """

    make: Callable[[Path], Path]
    mutate: Callable[[Path, Path, random.Random], Path]
    agree: Callable[[Model, Path, tuple[Numbers, str]], None]
    rewrite: bool = False
    config: str | None = None

    def given(self, path: Path) -> dict[str, Any]:
        """What `load` and `convert` are given beside the path."""
        return {"config": path.parent / self.config} if self.config else {}


def _copied(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        source = FIXTURES / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        return Path(copy(source, folder / source.name))

    return make


def _converted(
    suffix: str, layout: str | None = None, *, lstm_only: bool = False
) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / f"valid{suffix}"
        source = FIXTURES / "seed95.keras"
        lstmconvert.convert(source, path, layout=layout, lstm_only=lstm_only, force=True)
        return path

    return make


def _pickled(folder: Path) -> Path:
    """A text of a config, and what `get_weights()` of its model gives."""
    model = lstmconvert.load(FIXTURES / "seed95.keras")
    gates = model["lstm"].cell.gates.values()
    parts = ("kernel", "recurrent_kernel", "bias")
    weights = [np.concatenate([getattr(gate, part) for gate in gates], axis=-1) for part in parts]
    path = folder / "valid.pkl"
    path.write_bytes(pickle.dumps((model.texts["model_config"], weights), protocol=4))
    return path


def _compressed(folder: Path) -> Path:
    from scipy import io

    found = io.loadmat(_converted(".mat")(folder), simplify_cells=True)
    path = folder / "valid.mat"
    io.savemat(path, {n: v for n, v in found.items() if n[0] != "_"}, do_compression=True)
    return path


def _bytes(valid: Path, folder: Path, dice: random.Random) -> Path:
    path = folder / f"mutant{''.join(valid.suffixes)}"
    data = dice.choice(mutate.BYTES)(valid.read_bytes(), dice)
    if dice.random() < 0.2:
        data = dice.choice(mutate.BYTES)(data, dice) if data else data
    path.write_bytes(data)
    return path


def _made(kind: str) -> Callable[[Path], Path]:
    return lambda folder: written(others(kind), folder / "valid")


def _files(valid: Path, folder: Path, dice: random.Random) -> Path:
    """Mutate one file of a model that may be several, or a directory."""
    root = valid if valid.is_dir() else valid.parent
    mutant = folder / "mutant"
    shutil.rmtree(mutant, ignore_errors=True)
    shutil.copytree(root, mutant)
    paths = sorted(path for path in mutant.rglob("*") if path.is_file())
    hit = dice.choice([*paths, mutant / valid.name] if valid.is_file() else paths)
    if hit.suffix == ".json" and dice.random() < 0.6:
        hit.write_text(json.dumps(mutate.mutate_json(json.loads(hit.read_text()), dice)))
    else:
        hit.write_bytes(dice.choice(mutate.BYTES)(hit.read_bytes(), dice))
    return mutant if valid.is_dir() else mutant / valid.name


def _members(valid: Path, folder: Path, dice: random.Random) -> Path:
    """Mutate what one member of a zip holds; its checksum is right again."""
    path = folder / f"mutant{valid.suffix}"
    with zipfile.ZipFile(valid) as source, zipfile.ZipFile(path, "w") as target:
        hit = dice.choice(source.namelist())
        for name in source.namelist():
            data = source.read(name)
            if name == hit and data:
                data = dice.choice(mutate.BYTES)(data, dice)
            target.writestr(zipfile.ZipInfo(name), data)
    return path


def _records(valid: Path, folder: Path, dice: random.Random) -> Path:
    """Mutate a record of a checkpoint's index; the checksums of the index are right again."""
    records = {key: bytes(value) for key, value in SortedTable(SourceFile(valid))}
    key = dice.choice([*records])
    if dice.random() < 0.3:
        records[dice.choice(mutate.BYTES)(key or b"x", dice)] = records.pop(key)
    else:
        records[key] = dice.choice(mutate.BYTES)(records[key], dice)
    for other in valid.parent.iterdir():
        shutil.copy(other, folder / other.name)
    path = folder / valid.name
    path.write_bytes(bundlefiles.table([bundlefiles.block(sorted(records.items()))]))
    return path


#: Saves a checkpoint of TensorFlow 1 with its graph; TensorFlow needs more memory than a mutant.
_SAVE_GRAPH = """
import resource, sys
limit = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
import tensorflow as tf
from tf_keras.src.layers.rnn.legacy_cells import LSTMCell
v1 = tf.compat.v1
v1.disable_control_flow_v2()
with tf.Graph().as_default(), v1.Session() as session:
    inputs = v1.placeholder(tf.float32, (1, 3, 2))
    cell = LSTMCell(2, cell_clip=0.5, initializer=v1.constant_initializer(0.25))
    v1.nn.dynamic_rnn(cell, inputs, dtype=tf.float32)
    session.run(v1.global_variables_initializer())
    v1.train.Saver().save(session, sys.argv[1])
"""


def _with_graph(folder: Path) -> Path:
    command = [sys.executable, "-c", _SAVE_GRAPH, str(folder / "valid")]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "checkpoint").unlink()
    return folder / "valid.index"


def _graph(valid: Path, folder: Path, dice: random.Random) -> Path:
    """Mutate the graph beside a checkpoint."""
    for part in valid.parent.glob("valid.*"):
        shutil.copy(part, folder / part.name.replace("valid", "mutant", 1))
    graph = folder / "mutant.meta"
    graph.write_bytes(dice.choice(mutate.BYTES)(graph.read_bytes(), dice))
    return folder / "mutant.index"


def _ncnn(valid: Path, folder: Path, dice: random.Random) -> Path:
    """Mutate the text or the numbers: two files of one model."""
    path = Path(shutil.copy(valid, folder / "mutant.param"))
    shutil.copy(valid.with_suffix(".bin"), path.with_suffix(".bin"))
    hit = path if dice.random() < 0.7 else path.with_suffix(".bin")
    hit.write_bytes(dice.choice(mutate.BYTES)(hit.read_bytes(), dice))
    return path


def _whole_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    if dice.random() < 0.3:
        return _bytes(valid, folder, dice)
    for part in valid.parent.glob("*.bin"):  # TensorFlow.js keeps the numbers beside the text
        if part.stem != "mutant":
            (folder / part.name).write_bytes(part.read_bytes())
    path = folder / "mutant.json"
    path.write_text(json.dumps(mutate.mutate_json(json.loads(valid.read_text()), dice)))
    return path


def _archive_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    path = folder / "mutant.keras"
    with zipfile.ZipFile(valid) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json" or (name == "metadata.json" and dice.random() < 0.1):
                data = json.dumps(mutate.mutate_json(json.loads(data), dice)).encode()
            target.writestr(name, data)
    return path


def _legacy_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    path = Path(shutil.copy(valid, folder / "mutant.h5"))
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps(mutate.mutate_json(config, dice))
    return path


def _header_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    """The metadata stay as they are, and contradict the arrays."""
    header, body = split(valid.read_bytes())
    header, texts = mutate.mutate_json(header, dice), header["__metadata__"]
    if isinstance(header, dict) and dice.random() < 0.9:  # else the seal alone would find it
        value = unsealed(json.loads(texts["lstmconvert"]))
        header["__metadata__"] = {**texts, "lstmconvert": json.dumps(value)}
    path = folder / "mutant.safetensors"
    path.write_bytes(joined(header, body))
    return path


def _large(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """Makes a file whose members and tensors are all treated as those above 16 MiB are: they are
    read by and by, checked when they are asked for, and hashed and flushed by threads."""

    def made(folder: Path) -> Path:
        zipmembers._CHECK_NOW = checkpoint._CHECK_NOW = writing.WORTH_A_THREAD = 0
        tensor_module._NEAR = 1
        return make(folder)

    return made


_READ = SourceFile._read


def _equal_if_read(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
    try:
        _equal(model, path, valid)
    except SourceError as error:
        if "the disk is broken" not in str(error):
            raise


def _failing(valid: Path, folder: Path, dice: random.Random) -> Path:
    """The file is whole, and one read of it fails, in whatever thread comes to it."""
    path = folder / f"mutant{''.join(valid.suffixes)}"
    shutil.copy(valid, path)
    left = dice.choice((dice.randrange(1, 60), dice.randrange(1, 400)))

    def read(self: SourceFile, buffer: memoryview, offset: int) -> None:
        nonlocal left
        left -= self.path == path
        if self.path == path and left == 0:
            SourceFile._read = _READ  # type: ignore[method-assign]
            raise SourceError("the disk is broken", where=path)
        _READ(self, buffer, offset)

    SourceFile._read = read  # type: ignore[method-assign]
    return path


def _config_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    text = (FIXTURES / "seed95.config.json").read_text()
    if dice.random() < 0.3:
        data = dice.choice(mutate.BYTES)(text.encode(), dice)
    else:
        data = json.dumps(mutate.mutate_json(json.loads(text), dice)).encode()
    (folder / "config.json").write_bytes(data)
    return valid


def _with_config(folder: Path) -> Path:
    shutil.copy(FIXTURES / "seed95.config.json", folder / "config.json")
    return _copied("seed95.weights.h5")(folder)


def _unzipped(folder: Path) -> Path:
    source = FIXTURES.parent / "keras-3.15.1" / "seed95.unzipped"
    return Path(shutil.copytree(source, folder / "valid", dirs_exist_ok=True))


def _onnx_data(folder: Path) -> Path:
    """A model whose numbers lie in a file beside it, as the onnx library writes it."""
    import onnx

    model = onnx.load(_converted(".onnx")(folder))
    (folder / "valid.onnx").unlink()
    (folder / "valid").mkdir(exist_ok=True)
    path = folder / "valid" / "valid.onnx"
    (path.parent / "valid.data").unlink(missing_ok=True)
    onnx.save_model(
        model, path, save_as_external_data=True, location="valid.data", size_threshold=0
    )
    return path


def _onnx_nodes(valid: Path, folder: Path, dice: random.Random) -> Path:
    path = folder / "mutant.onnx"
    path.write_bytes(mutate_onnx.mutate(valid.read_bytes(), dice))
    return path


def _metadata_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    header, body = split(valid.read_bytes())
    value = json.loads(header["__metadata__"]["lstmconvert"])
    if dice.random() < 0.9:  # else the seal alone would find all of it
        value = unsealed(value)
    header["__metadata__"]["lstmconvert"] = json.dumps(mutate.mutate_json(value, dice))
    path = folder / "mutant.safetensors"
    path.write_bytes(joined(header, body))
    return path


def _shards(folder: Path) -> Path:
    for path in (FIXTURES.parent / "keras-3.15.1").glob("seed95*.weights.*"):
        if path.name != "seed95.weights.h5":
            shutil.copy(path, folder)
    return folder / "seed95.weights.json"


def _shards_json(valid: Path, folder: Path, dice: random.Random) -> Path:
    if dice.random() < 0.5:
        return _bytes(valid, folder, dice)
    path = folder / "mutant.weights.json"
    path.write_text(json.dumps(mutate.mutate_json(json.loads(valid.read_text()), dice)))
    return path


def _hdf5(valid: Path, folder: Path, dice: random.Random) -> Path:
    mutate.mutate_hdf5(valid, folder / "mutant.h5", dice)
    return folder / "mutant.h5"


def _later(folder: Path) -> Path:
    return hdf5later.write(FIXTURES / "seed95.weights.h5", folder / "valid.weights.h5")


def _signed(valid: Path, folder: Path, dice: random.Random) -> Path:
    """Mutate bytes; most often the checksums of HDF5's structures are right again."""
    path = _bytes(valid, folder, dice)
    data, whole = path.read_bytes(), valid.read_bytes()
    if len(data) == len(whole) and dice.random() < 0.9:
        path.write_bytes(hdf5later.signed(data, whole))
    return path


def _packed(folder: Path) -> Path:
    """The format that Keras writes, with chunks and filters."""
    path = folder / "valid.h5"
    with h5py.File(FIXTURES / "seed95.h5") as old, h5py.File(path, "w") as new:
        new.attrs.update(old.attrs)
        old.visititems(lambda name, item: _pack(name, item, new))
    return path


def _pack(name: str, item: Any, file: h5py.File) -> None:
    if isinstance(item, h5py.Group):
        file.require_group(name).attrs.update(item.attrs)
        return
    if "kernel" not in name:
        file[name] = item[()]
        return
    chunks = tuple(-(-size // 2) for size in item.shape)
    file.create_dataset(
        name, data=item[()], chunks=chunks, compression="gzip", shuffle=True, fletcher32=True
    )


def _equal(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
    if everything(model) != valid:
        raise Finding("another result than the original's")


def _numbers_of(archive: str) -> Callable[[Model, Path, tuple[Numbers, str]], None]:
    """A config cannot change a number: it only says where they are."""

    def agree(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
        _check_places(model, _fixture(archive))

    return agree


def _check_places(model: Model, known: Mapping[str, bytes]) -> None:
    found = {**model.other, **model.optimizer}
    for layer in model.layers:
        for _, _, cell in layer.cells():
            found.update(stored.places(cell))
    for place, tensor in found.items():
        if tensor.read().tobytes() != known[place]:
            raise Finding(f"{place} has other numbers than the original")


@cache
def _fixture(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(FIXTURES / name) as archive:
        data = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(data) as file:
        items: list[Any] = []
        file.visititems(lambda _, item: items.append(item))
        datasets = [item for item in items if isinstance(item, h5py.Dataset)]
        return {one.name.strip("/"): one[()].tobytes() for one in datasets}


def _as_h5py(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
    if everything(model) == valid:
        return  # nothing that says anything was hit; HDF5 may refuse the file for it
    answer = _answer(lambda: same_as_h5py(model, path))
    if answer is None:
        if numbers(model) != valid[0]:
            raise Finding("other numbers than the original's, in a file that h5py cannot read")
    elif answer:
        raise Finding(answer)


def _answer(ask: Callable[[], None]) -> str | None:
    """What is found in a child process, where the HDF5 library may die: None if it does."""
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        text = b"="
        try:
            ask()
        except Finding as error:
            text += str(error).encode()
        except Exception:
            text = b""  # h5py's own, of many types
        os.write(sender, text)
        os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said[1:] if said else None


def _any(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
    """These formats hold no checksum, so a number may change: only what is untyped is a finding."""
    numbers(model)


def _same_weights(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
    """No number depends on what was mutated."""
    known = {data for _, _, data in valid[0].values()}
    if not {data for _, _, data in numbers(model).values()} <= known:
        raise Finding("other weights than those of the file")


def _as_safetensors(model: Model, path: Path, valid: tuple[Numbers, str]) -> None:
    same_as_safetensors(model, path)


TARGETS: dict[str, Target] = {
    "keras": Target(_copied("seed95.keras"), _bytes, _equal),
    "keras-config": Target(
        _copied("zoo.keras"), _archive_json, _numbers_of("zoo.keras"), rewrite=True
    ),
    "weights": Target(_copied("seed95.weights.h5"), _bytes, _as_h5py),
    "weights-tree": Target(_copied("seed95.weights.h5"), _hdf5, _as_h5py),
    "weights-later": Target(_later, _signed, _as_h5py),
    "legacy-packed": Target(_packed, _bytes, _as_h5py),
    "legacy": Target(_copied("seed95.h5"), _bytes, _as_h5py),
    "legacy-tree": Target(_copied("seed95.h5"), _hdf5, _as_h5py),
    "legacy-config": Target(_copied("seed95.h5"), _legacy_json, _as_h5py, rewrite=True),
    "weights-config": Target(
        _with_config, _config_json, _numbers_of("seed95.keras"), rewrite=True, config="config.json"
    ),
    "unzipped": Target(_unzipped, _files, _any, rewrite=True),
    "npz-store": Target(_copied("../keras-3.15.1/seed95.npz.keras"), _members, _any, rewrite=True),
    "safetensors": Target(_converted(".safetensors"), _bytes, _as_safetensors),
    "safetensors-metadata": Target(
        _converted(".safetensors"), _metadata_json, _as_safetensors, rewrite=True
    ),
    "safetensors-header": Target(_converted(".safetensors"), _header_json, _as_safetensors),
    "npz": Target(_converted(".npz"), _bytes, _equal),
    "keras-large": Target(_large(_copied("seed95.keras")), _bytes, _equal),
    "npz-large": Target(_large(_converted(".npz")), _bytes, _equal),
    "keras-failing": Target(
        _large(_copied("seed95.keras")), _failing, _equal_if_read, rewrite=True
    ),
    "safetensors-failing": Target(_large(_converted(".safetensors")), _failing, _equal_if_read),
    "shards": Target(_shards, _shards_json, _numbers_of("seed95.keras")),
    "shards-files": Target(_shards, _files, _any),
    "onnx": Target(_converted(".onnx"), _bytes, _any),
    "onnx-nodes": Target(_converted(".onnx"), _onnx_nodes, _any, rewrite=True),
    "onnx-data": Target(_onnx_data, _files, _any),
    "mlmodel": Target(_converted(".mlmodel"), _bytes, _any),
    "tflite": Target(_converted(".tflite"), _bytes, _any),
    "pickle": Target(_pickled, _bytes, _any),
    # Cut before the metadata, it is a sound file of arrays: another layer's are turned then.
    "params": Target(_converted(".params", "mxnet", lstm_only=True), _bytes, _any),
    "mat": Target(_converted(".mat"), _bytes, _any),
    "mat-compressed": Target(_compressed, _bytes, _any),
    "ncnn": Target(_converted(".param"), _ncnn, _any),
    "json": Target(_converted(".json", "torch"), _whole_json, _any),
    "rtneural": Target(_converted(".json", "rtneural"), _whole_json, _any),
    "lwtnn": Target(_converted(".json", "lwtnn"), _whole_json, _any),
    "aida-x": Target(_converted(".aidax", "rtneural"), _whole_json, _any),
    "nam": Target(_converted(".nam"), _whole_json, _any),
    "tfjs": Target(_converted(".json", "tfjs"), _whole_json, _any),
    "tfjs-files": Target(_made("tfjs"), _files, _any),
    "fdeep": Target(_made("fdeep"), _whole_json, _any),
    "msgpack": Target(_made("msgpack"), _bytes, _any),
    "eqx": Target(_made("eqx"), _bytes, _any),
    "chainer": Target(_made("chainer"), _members, _any),
    "npz-members": Target(_made("npz"), _members, _any),
    "pt": Target(_made("pt"), _bytes, _any),
    "pt-members": Target(_made("pt"), _members, _any),
    "checkpoint": Target(_made("checkpoint"), _files, _equal),
    "checkpoint-records": Target(_made("checkpoint"), _records, _any),
    "checkpoint-first": Target(_copied("../tf-1.15.5-cells/lstm.v1/model.ckpt"), _bytes, _equal),
    "checkpoint-graph": Target(_with_graph, _graph, _same_weights),
    "savedmodel": Target(_made("savedmodel"), _files, _any),
    "mlpackage": Target(_copied("../coremltools-9.0/torch.mlpackage"), _files, _any),
}

"""Attacks on TensorFlow's files: checkpoints, SavedModels, and flatbuffers of LiteRT."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lstmconvert.tensorflow.formats.checkpoint import SortedTable
from lstmconvert.tensors.tensor import SourceFile
from support.bundlefiles import block, entry, header, nested, number, sealed, table, varint
from support.crafted import SECRET, Bench
from support.crafted_others import Files, attack, main_of, plain, put, swapped

for _kind in ("checkpoint", "savedmodel", "tflite"):
    plain(_kind)

_KERNEL = b"layer_with_weights-0/cell/kernel/.ATTRIBUTES/VARIABLE_VALUE"
_BIAS = b"layer_with_weights-0/cell/bias/.ATTRIBUTES/VARIABLE_VALUE"
_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"
_DATA = "x.data-00000-of-00001"

# --- the index of a checkpoint --------------------------------------------------------------------


def _records(found: Files) -> dict[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.index")
        path.write_bytes(main_of(found))
        return {key: bytes(value) for key, value in SortedTable(SourceFile(path))}


def _entry(label: str, refused: str, key: bytes, value: bytes) -> None:
    """Give a record of the index another value, all checksums of the index right."""

    def change(found: Files, bench: Bench) -> None:
        put(found, table([block(sorted({**_records(found), key: value}.items()))]))

    change.__name__ = label
    attack("checkpoint", refused)(change)


def _kernel(**changed: Any) -> bytes:
    """The kernel's record, with its checksum."""
    return entry(**{"shape": (7, 8), "offset": 60, "size": 224, "crc": 0x0D573D2F, **changed})


_entry("shape_of_a_petabyte", "above the limit", _KERNEL, _kernel(shape=(1 << 40, 1 << 40)))
_entry("larger_shape", "does not agree", _KERNEL, _kernel(shape=(1 << 20, 8)))
_entry("negative_axes", "without a shape", _KERNEL, _kernel(shape=(-7, -8)))
_entry("many_axes", "above the limit", _KERNEL, _kernel(shape=(7, 8, *[1] * 50)))
_entry("beyond_the_shard", "truncated", _KERNEL, _kernel(offset=1 << 40))
_entry("before_the_shard", "no shard", _KERNEL, _kernel(offset=-60))
_entry("another_shard", "no shard", _KERNEL, _kernel(shard=1))
_entry("another_checksum", "bad CRC-32C of a tensor", _KERNEL, _kernel(crc=1))
_entry("unknown_type", "unknown TensorFlow type", _KERNEL, _kernel(dtype=99))
_entry("type_of_strings", "not the arrays of one LSTM", _KERNEL, _kernel(dtype=7))
_entry("slices_that_are_missing", "partition", _KERNEL, _kernel(extra=nested(7, b"")))
_entry("endless_varint", "cut off or too long", _KERNEL, b"\x08" + b"\xff" * 12)
_entry("on_the_same_bytes", "same bytes", b"a/.ATTRIBUTES/VARIABLE_VALUE", _kernel())
_entry("key_of_no_text", "UTF-8", b"\xff", _kernel())
_entry("no_shards", "impossible header", b"", header(shards=0))
_entry("endless_shards", "No such file", b"", header(shards=1 << 31))
_entry("graph_is_a_number", "same bytes", _GRAPH, _kernel(shape=(), size=4))


def _index(label: str, refused: str, index: Callable[[Files], bytes]) -> None:
    def change(found: Files, bench: Bench) -> None:
        put(found, index(found))

    change.__name__ = label
    attack("checkpoint", refused)(change)


def _block(found: Files) -> bytes:
    return block(sorted(_records(found).items()))


def _handle(offset: int, size: int) -> bytes:
    return block([(b"a", varint(offset) + varint(size))])


_index("block_outside", "outside the file", lambda f: table([_block(f)], _handle(1 << 40, 10)))
_index("block_of_a_petabyte", "outside", lambda f: table([_block(f)], _handle(0, 1 << 50)))
_index("shared_beyond_the_key", "does not fit", lambda _: table(
    [sealed(b"\x7f\x01\x01ab" + struct.pack("<II", 0, 1))]))  # fmt: skip
_index("snappy_bomb", "above the limit", lambda _: table([sealed(varint(1 << 40) + bytes(20), 1)]))
_index("snappy_copy_from_nowhere", "before the block", lambda _: table(
    [sealed(varint(64) + b"\xfe\xff\xff", 1)]))  # fmt: skip
_index("another_compression", "compression 9", lambda _: table([sealed(b"abc", 9)]))
_index("keys_out_of_order", "out of order", lambda f: table([_block(f), _block(f)]))
_index("one_block_often", "overlap", lambda f: table([_block(f)], block(
    [(b"%06d" % n, varint(0) + varint(len(_block(f)) - 5)) for n in range(100)])))  # fmt: skip
_index("cut", "not a model file", lambda f: main_of(f)[:-1])
_index("footer_alone", "outside the file", lambda f: main_of(f)[-48:])
_index("text", "not a model file", lambda _: b"version https://example.org")


@attack("checkpoint", "truncated")
def shard_is_cut(found: Files, bench: Bench) -> None:
    data = found[_DATA]
    assert isinstance(data, bytes)
    found[_DATA] = data[:200]


@attack("checkpoint", "No such file")
def shard_is_missing(found: Files, bench: Bench) -> None:
    del found[_DATA]


@attack("checkpoint", "not a regular file")
def shard_is_a_pipe(found: Files, bench: Bench) -> None:
    del found[_DATA]
    os.mkfifo(bench.folder / _DATA)


@attack("checkpoint", "not in its own directory")
def state_that_names_another_folder(found: Files, bench: Bench) -> None:
    bench.victim.write_bytes(SECRET)
    state = f'model_checkpoint_path: "{bench.folder}/../victim"\n'.encode()
    rest = dict(found)
    found.clear()
    found.update({"checkpoint": state, **rest})


# --- the object graph: a text of the checkpoint, or of a SavedModel -------------------------------


def _child(node: int, name: str) -> bytes:
    return nested(1, number(1, node) + nested(2, name.encode()))


def _graph(label: str, refused: str, nodes: Callable[[], list[bytes]]) -> None:
    def change(found: Files, bench: Bench) -> None:
        from support.bundlefiles import graph, masked

        text = graph(nodes())
        sizes = struct.pack("<I", len(text))
        data = varint(len(text)) + struct.pack("<I", masked(sizes)) + text
        shard = found[_DATA]
        assert isinstance(shard, bytes)
        found[_DATA] = shard + data
        crc = masked(sizes + struct.pack("<I", masked(sizes)) + text)
        record = entry((), dtype=7, offset=len(shard), size=len(data), crc=crc)
        records = {**_records(found), _GRAPH: record}
        put(found, table([block(sorted(records.items()))]))

    change.__name__ = label
    attack("checkpoint", refused)(change)


_graph("graph_beyond_its_nodes", "does not have", lambda: [_child(1 << 30, "layer")])
_graph("graph_before_its_nodes", "does not have", lambda: [_child(-1, "layer")])
_graph("graph_in_a_circle", "no variable belongs", lambda: [_child(1, "a"), _child(0, "b")])
_graph("graph_of_doubling_paths", "no variable belongs", lambda: [
    *(_child(node + 1, "a") + _child(node + 1, "b") for node in range(60)), b""])  # fmt: skip
_graph("graph_of_one_long_chain", "no variable belongs", lambda: [
    *(_child(node + 1, "a") for node in range(10_000)), b""])  # fmt: skip
_graph("graph_of_empty_nodes", "messages beyond one in 8 bytes is above", lambda: [b""] * 200_000)


# --- SavedModels ----------------------------------------------------------------------------------


def _program(label: str, refused: str | None, data: bytes) -> None:
    def change(found: Files, bench: Bench) -> None:
        found["saved/saved_model.pb"] = data

    change.__name__ = label
    attack("savedmodel", refused)(change)


_program("program_of_nothing", "the file is empty", b"")
_program("program_of_a_text", "not a valid protocol buffer", b"node { name: 'a' }")
_program("endless_varint", "cut off or too long", b"\xff" * 40)
_program("length_beyond_the_end", "longer than its message", nested(2, b"")[:1] + varint(1 << 40))
_program("deep", "longer than its message", b"\x12\x7f" * 50_000)
_program("millions_of_objects", "messages beyond one in 8 bytes is above the limit",
         nested(2, nested(7, b"\x0a\0" * 4_000_000)))  # fmt: skip


@attack("savedmodel", None)
def functions_of_any_kind(found: Files, bench: Bench) -> None:
    # A graph is a program: ReadFile and PyFunc in it are stepped over.
    bench.victim.write_bytes(SECRET)
    data = found["saved/saved_model.pb"]
    assert isinstance(data, bytes)
    path = str(bench.victim).encode()
    node = nested(1, b"x") + nested(2, b"ReadFile") + nested(3, path)
    functions = nested(2, nested(1, nested(1, node)))
    found["saved/saved_model.pb"] = data + nested(2, nested(2, functions))


def _metadata(label: str, refused: str | None, old: bytes, new: bytes) -> None:
    """Change a text in place: lengths before it stay true."""

    def change(found: Files, bench: Bench) -> None:
        data = found["saved/keras_metadata.pb"]
        assert isinstance(data, bytes)
        assert old in data
        assert len(new) <= len(old)
        found["saved/keras_metadata.pb"] = data.replace(old, new.ljust(len(old)))

    change.__name__ = label
    attack("savedmodel", refused)(change)


_metadata("other_units", "disagree", b'"units": 2', b'"units": 9')
_metadata("units_of_text", "not a valid integer", b'"units": 2', b'"units":""')
_metadata("config_is_no_json", "not valid JSON", b'{"name"', b'{[[[[[')
_metadata(
    "class_of_any_module", "no LSTM layer", b'"class_name": "LSTM"', b'"class_name": "os"'
)


@attack("savedmodel", "no LSTM layer")
def variables_are_missing(found: Files, bench: Bench) -> None:
    for name in [name for name in found if "/variables/" in name]:
        del found[name]


@attack("savedmodel", None)
def assets_upwards(found: Files, bench: Bench) -> None:
    bench.victim.write_bytes(SECRET)
    found["saved/assets/vocabulary"] = bench.victim


# --- flatbuffers ----------------------------------------------------------------------------------


def _flat(refused: str | None) -> Callable[[Callable[[Any, Bench], None]], Any]:
    def register(change: Callable[[Any, Bench], None]) -> Callable[[Any, Bench], None]:
        def packed(found: Files, bench: Bench) -> None:
            model = schema.ModelT.InitFromPackedBuf(main_of(found), 0)
            change(model, bench)
            builder = flatbuffers.Builder(1 << 16)
            builder.Finish(model.Pack(builder), b"TFL3")
            put(found, bytes(builder.Output()))

        packed.__name__ = change.__name__
        attack("tflite", refused)(packed)
        return change

    return register


def _weight(model: Any) -> Any:
    (graph,) = model.subgraphs
    return next(one for one in graph.tensors if b"input_to_forget_weights" in one.name)


@_flat(None)
def packed_again(model: Any, bench: Bench) -> None:
    pass


@_flat("do not have its shape")
def larger_shape(model: Any, bench: Bench) -> None:
    _weight(model).shape = [1 << 20, 1 << 10]


@_flat("do not have its shape")
def negative_axes(model: Any, bench: Bench) -> None:
    _weight(model).shape = [-2, -7]


@_flat("above the limit")
def many_axes(model: Any, bench: Bench) -> None:
    _weight(model).shape = [2, 7, *[1] * 50]


@_flat("no such buffer")
def buffer_that_is_not_there(model: Any, bench: Bench) -> None:
    _weight(model).buffer = 1 << 30


@_flat("truncated")
def buffer_behind_the_file(model: Any, bench: Bench) -> None:
    buffer = model.buffers[_weight(model).buffer]
    buffer.data, buffer.offset, buffer.size = None, 1 << 40, 56


@_flat("a type that is not read")
def weights_of_strings(model: Any, bench: Bench) -> None:
    _weight(model).type = schema.TensorType.STRING


@_flat("without a scale")
def integers_without_a_scale(model: Any, bench: Bench) -> None:
    _weight(model).type = schema.TensorType.INT8
    _weight(model).shape = [2, 28]


@_flat("another number of scales")
def more_scales_than_rows(model: Any, bench: Bench) -> None:
    weight = _weight(model)
    weight.type, weight.shape = schema.TensorType.INT8, [2, 28]
    weight.quantization = schema.QuantizationParametersT(scale=[0.5, 0.25, 0.125])


@_flat("a tensor that is not there")
def tensor_that_is_not_there(model: Any, bench: Bench) -> None:
    operator = model.subgraphs[0].operators[0]
    operator.inputs = [1 << 30 if n == 2 else index for n, index in enumerate(operator.inputs)]


@_flat("damaged")
def code_that_is_not_there(model: Any, bench: Bench) -> None:
    model.subgraphs[0].operators[0].opcodeIndex = 99


@_flat("no operator of it is an LSTM")
def operator_of_its_own(model: Any, bench: Bench) -> None:
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].customCode = b"/bin/sh"


@_flat("another function than tanh")
def another_function(model: Any, bench: Bench) -> None:
    model.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = 1


@_flat("expands beyond")
def one_buffer_for_many(model: Any, bench: Bench) -> None:
    (graph,) = model.subgraphs
    one = graph.operators[0]
    for index in one.inputs[1:5]:
        graph.tensors[index].shape, graph.tensors[index].name = [2, 1 << 14], b""
        model.buffers[graph.tensors[index].buffer].data = np.zeros(1 << 17, np.uint8)
    graph.operators *= 200


@attack("tflite", "")
def vectors_of_billions(found: Files, bench: Bench) -> None:
    data = bytearray(main_of(found))
    for at in range(len(data) // 2, len(data) // 2 + 400, 4):
        struct.pack_into("<I", data, at, 0x7FFFFFFF)
    put(found, bytes(data))


@attack("tflite", "damaged")
def root_outside(found: Files, bench: Bench) -> None:
    put(found, struct.pack("<I", 0x7FFFFFF0) + main_of(found)[4:])


@attack("tflite", "damaged")
def text_that_is_cut(found: Files, bench: Bench) -> None:
    put(found, main_of(found)[:-600])


@attack("tflite", None)
def name_of_control_characters(found: Files, bench: Bench) -> None:
    swapped(found, b"lstmconvert", b"\x1b[31m\r\n\xff\xfe\x7f ")

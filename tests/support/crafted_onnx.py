"""Attacks through ONNX (SECURITY section 5): tensors, graphs, functions, data files, metadata."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import lstmconvert
from support.crafted import FIXTURES, KERAS, SECRET, Bench, Craft
from support.crafted_safetensors import unsealed
from support.onnx_tools import node_model, weights

CRAFTS: list[Craft] = []
_NAME = "lstm.forget_gate.kernel"
_BOMB = 1 << 40
Edit = Callable[[onnx.ModelProto, Bench], None]


@cache
def _valid() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "valid.onnx"
        lstmconvert.convert(FIXTURES / KERAS, path)
        return path.read_bytes()


def craft(refused: str | None) -> Callable[[Callable[[Bench], bytes]], Callable[[Bench], bytes]]:
    """Register what makes the bytes of a file."""

    def register(make: Callable[[Bench], bytes]) -> Callable[[Bench], bytes]:
        def write(bench: Bench) -> Path:
            return bench.write("crafted.onnx", make(bench))

        CRAFTS.append(Craft(make.__name__, write, refused))
        return make

    return register


def edit(refused: str | None) -> Callable[[Edit], Edit]:
    """Register a change of the valid model."""

    def register(change: Edit) -> Edit:
        def make(bench: Bench) -> bytes:
            model = onnx.ModelProto.FromString(_valid())
            change(model, bench)
            return model.SerializeToString()

        make.__name__ = change.__name__
        craft(refused)(make)
        return change

    return register


def gate(model: onnx.ModelProto) -> onnx.TensorProto:
    """The tensor that is attacked."""
    return next(proto for proto in model.graph.initializer if proto.name == _NAME)


@edit(None)
def onnx_plain(model: onnx.ModelProto, bench: Bench) -> None:
    pass


# ---- tensors -------------------------------------------------------------------------------------


@edit("a negative dimension")
def onnx_negative_dimension(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).dims[0] = -1


@edit("more or fewer numbers than its shape says")
def onnx_large_dimension(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).dims[0] = 1 << 20


@edit("the tensor is above the limit")
def onnx_huge_dimensions(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).dims[:] = [1 << 62, 1 << 62]


@edit("the number of a tensor's axes is above the limit")
def onnx_many_axes(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).dims.extend([1] * 50)


@edit("exactly one field")
def onnx_two_fields(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).float_data.append(1.0)


@edit("exactly one field")
def onnx_no_field(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).ClearField("raw_data")


@edit("more or fewer numbers than its shape says")
def onnx_raw_data_cut(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).raw_data = gate(model).raw_data[:-1]


@edit("more or fewer numbers than its shape says")
def onnx_float_data_cut(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).ClearField("raw_data")
    gate(model).float_data.extend([1.0] * 13)


@edit("a tensor of a type that is not read here")
def onnx_type_99(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).data_type = 99


@edit("a tensor of a type that is not read here")
def onnx_strings(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).data_type = TensorProto.STRING


@edit("numbers in the wrong field")
def onnx_wrong_field(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).ClearField("raw_data")
    gate(model).int64_data.extend([1] * 14)


@edit("a tensor in segments")
def onnx_segment(model: onnx.ModelProto, bench: Bench) -> None:
    gate(model).segment.end = 4


@edit("two initializers of one name")
def onnx_name_twice(model: onnx.ModelProto, bench: Bench) -> None:
    model.graph.initializer.append(gate(model))


@edit(None)
def onnx_float_data(model: onnx.ModelProto, bench: Bench) -> None:
    numbers = np.frombuffer(gate(model).raw_data, "<f4")
    gate(model).ClearField("raw_data")
    gate(model).float_data.extend(numbers.tolist())


# ---- data files ----------------------------------------------------------------------------------


def _external(model: onnx.ModelProto, *entries: tuple[str, str]) -> None:
    proto = gate(model)
    proto.ClearField("raw_data")
    proto.data_location = TensorProto.EXTERNAL
    for key, value in entries:
        proto.external_data.add(key=key, value=value)


@edit(None)
def onnx_external(model: onnx.ModelProto, bench: Bench) -> None:
    bench.write("beside.bin", b"1234" + gate(model).raw_data)
    _external(model, ("location", "beside.bin"), ("offset", "4"), ("length", "56"))


_OUTSIDE = "external data outside the model's folder"


def _location(name: str, refused: str, prepare: Callable[[Bench], str]) -> None:
    def change(model: onnx.ModelProto, bench: Bench) -> None:
        bench.victim.write_bytes(SECRET)
        _external(model, ("location", prepare(bench)))

    change.__name__ = f"onnx_external_{name}"
    edit(refused)(change)


def _made(make: Callable[[Path, Path], None]) -> Callable[[Bench], str]:
    def prepare(bench: Bench) -> str:
        make(bench.victim, bench.folder / "beside.bin")
        return "beside.bin"

    return prepare


_location("above", _OUTSIDE, lambda bench: f"../{bench.victim.name}")
_location("absolute", _OUTSIDE, lambda bench: str(bench.victim))
_location("nested", _OUTSIDE, lambda _: "a/b")
_location("backslash", _OUTSIDE, lambda _: "..\\victim")
_location("dots", _OUTSIDE, lambda _: "..")
_location("nothing", _OUTSIDE, lambda _: "")
_location("null", _OUTSIDE, lambda _: "a\0b")
_location("missing", "No such file", lambda _: "nowhere.bin")
_location("itself", "more or fewer numbers", lambda _: "crafted.onnx")
_location("symlink", "not a regular file", _made(lambda victim, beside: beside.symlink_to(victim)))
_location("hardlink", "has several names", _made(lambda victim, beside: os.link(victim, beside)))
_location("pipe", "not a regular file", _made(lambda _, beside: os.mkfifo(beside)))
_location("folder", "not a regular file", _made(lambda _, beside: beside.mkdir()))


def _place(name: str, refused: str, *entries: tuple[str, str]) -> None:
    def change(model: onnx.ModelProto, bench: Bench) -> None:
        bench.write("beside.bin", bytes(100))
        _external(model, *entries)

    change.__name__ = f"onnx_external_{name}"
    edit(refused)(change)


_LOCATED = ("location", "beside.bin")
_place("offset_negative", "no valid place", _LOCATED, ("offset", "-4"))
_place("offset_text", "no valid place", _LOCATED, ("offset", "0x4"))
_place("offset_unicode", "no valid place", _LOCATED, ("offset", "٤"))
_place("length_huge", "behind the end", _LOCATED, ("length", str(_BOMB)))
_place("offset_behind", "behind the end", _LOCATED, ("offset", "101"))
_place("two_locations", "without one location", _LOCATED, _LOCATED)
_place("no_location", "without one location", ("offset", "4"))


@edit("exactly one field")
def onnx_external_and_raw(model: onnx.ModelProto, bench: Bench) -> None:
    bench.write("beside.bin", gate(model).raw_data)
    _external(model, _LOCATED)
    gate(model).float_data.append(1.0)


# ---- files that are not models ------------------------------------------------------------------


@craft("the file is empty")
def onnx_empty(bench: Bench) -> bytes:
    return b""


@craft("a text, not a binary ONNX model")
def onnx_text(bench: Bench) -> bytes:
    return b'ir_version: 8\nproducer_name: "backend-test"\ngraph {\n}\n'


@craft("perhaps a TensorFlow GraphDef")
def onnx_graph_def(bench: Bench) -> bytes:
    return b"\x0a\x2a\x0a\x01x\x12\x0bPlaceholder" + bytes(20)


@craft("Git LFS pointer")
def onnx_lfs(bench: Bench) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@craft("not an ONNX model")
def onnx_without_graph(bench: Bench) -> bytes:
    return onnx.ModelProto(ir_version=8).SerializeToString()


@craft("not an ONNX model")
def onnx_without_version(bench: Bench) -> bytes:
    model = onnx.ModelProto.FromString(_valid())
    model.ClearField("ir_version")
    return b"\x12\x00" + model.SerializeToString()


@craft("not a valid ONNX file")
def onnx_cut(bench: Bench) -> bytes:
    data = _valid()
    return data[: len(data) // 2]


@craft("not a valid ONNX file")
def onnx_length_beyond(bench: Bench) -> bytes:
    return b"\x08\x08\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(100)


@craft("not a valid ONNX file")
def onnx_endless_varint(bench: Bench) -> bytes:
    return b"\x08\x08\x3a" + b"\xff" * 64


_DENSE = "the number of messages beyond one in 8 bytes is above the limit"


@craft(_DENSE)
def onnx_empty_nodes(bench: Bench) -> bytes:
    body = b"\x0a\x00" * 500_000
    return b"\x08\x08" + _framed(7, body)


@craft(_DENSE)
def onnx_empty_tensors(bench: Bench) -> bytes:
    return b"\x08\x08" + _framed(7, b"\x2a\x00" * 400_000)


@craft(_DENSE)
def onnx_empty_attributes(bench: Bench) -> bytes:
    node = _framed(1, b"\x2a\x00" * 500)
    return b"\x08\x08" + _framed(7, node * 1_400)


def _framed(number: int, body: bytes) -> bytes:
    length, result = len(body), bytearray()
    while length > 0x7F:
        result.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *result, length]) + body


def _nested(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        attribute = _framed(5, b"\x0a\x01g\xa0\x01\x05" + _framed(6, graph))
        graph = _framed(1, b"\x22\x02If" + attribute)
    return b"\x08\x08" + _framed(7, graph)


@craft("not a valid ONNX file")
def onnx_nested_60(bench: Bench) -> bytes:
    return _nested(60)


@craft("the nesting of graphs is above the limit")
def onnx_nested_2000(bench: Bench) -> bytes:
    return _nested(2000)


# ---- graphs --------------------------------------------------------------------------------------


def _constant_ints(name: str, *values: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value_ints=list(values))


def _bomb(name: str, refused: str, nodes: Callable[[], list[onnx.NodeProto]]) -> None:
    def make(bench: Bench) -> bytes:
        given = weights(np.random.default_rng(0))
        del given["W"]
        model = node_model(
            given,
            nodes=nodes(),
            inputs={"W": "out"},
            initializers={"one": np.ones((1, 8, 3), "f4"), "n": np.array([1, 8, _BOMB])},
        )
        return model.SerializeToString()

    make.__name__ = f"onnx_{name}"
    craft(refused)(make)


def _doubling() -> list[onnx.NodeProto]:
    names = ["one", *(f"d{i}" for i in range(39)), "out"]
    return [
        helper.make_node("Concat", [a, a], [b], axis=1)
        for a, b in itertools.pairwise(names)
    ]


_ABOVE = "above the limit"
_BEYOND = "the data expands beyond the limit"
_bomb("expand", _ABOVE, lambda: [
    _constant_ints("m", _BOMB, 8, 3), helper.make_node("Expand", ["one", "m"], ["out"])])
_bomb("constant_of_shape", _ABOVE, lambda: [helper.make_node("ConstantOfShape", ["n"], ["out"])])
_bomb("concat_doubling", _BEYOND, _doubling)
_bomb("tile", _BEYOND, lambda: [
    _constant_ints("m", 1, 1 << 24, 1), helper.make_node("Tile", ["one", "m"], ["out"])])
_bomb("pad", _BEYOND, lambda: [
    _constant_ints("m", 0, 0, 0, 0, 1 << 28, 0), helper.make_node("Pad", ["one", "m"], ["out"])])
_bomb("identity_round", "made from itself", lambda: [
    helper.make_node("Identity", ["b"], ["out"]), helper.make_node("Identity", ["out"], ["b"])])
_bomb("nodes_round", "made from itself", lambda: [
    helper.make_node("Neg", ["b"], ["out"]), helper.make_node("Neg", ["out"], ["b"])])
_bomb("random", "not a constant", lambda: [
    helper.make_node("RandomNormalLike", ["one"], ["out"])])
_bomb("foreign_domain", "not a constant", lambda: [
    helper.make_node("Neg", ["one"], ["out"], domain="evil")])
_bomb("wrong_rank", "does not fit its operator", lambda: [
    helper.make_node("Concat", ["one", "n"], ["out"], axis=0)])
_bomb("no_such_name", "a name that nothing has", list)


def _functions(name: str, refused: str, bodies: list[list[str]]) -> None:
    """Functions f0, f1, …, each of which calls others."""

    def make(bench: Bench) -> bytes:
        given = weights(np.random.default_rng(0))
        model = node_model(given)
        model.graph.node.append(helper.make_node("f0", ["X"], ["z"], domain="own"))
        model.opset_import.append(helper.make_opsetid("own", 1))
        for index, calls in enumerate(bodies):
            nodes = [
                helper.make_node(call, ["x"], [f"y{place}"], domain="own")
                for place, call in enumerate(calls)
            ] or [helper.make_node("Neg", ["x"], ["y0"])]
            model.functions.append(
                helper.make_function(
                    "own", f"f{index}", ["x"], ["y0"], nodes, list(model.opset_import)
                )
            )
        return model.SerializeToString()

    make.__name__ = f"onnx_{name}"
    craft(refused)(make)


_functions("function_of_itself", "a function that calls itself", [["f0"]])
_functions("functions_round", "a function that calls itself", [["f1"], ["f0"]])
_functions(
    "function_bomb", "the number of nodes is above the limit",
    [*([f"f{i + 1}"] * 2 for i in range(40)), []],
)
_functions("function_chain", "functions in functions", [*([f"f{i + 1}"] for i in range(3000)), []])


# ---- metadata ------------------------------------------------------------------------------------


def _metadata(name: str, refused: str | None, change: Callable[[Any], Any]) -> None:
    def edited(model: onnx.ModelProto, bench: Bench) -> None:
        entry = next(e for e in model.metadata_props if e.key == "lstmconvert")
        value = change(unsealed(json.loads(entry.value)))
        entry.value = value if isinstance(value, str) else json.dumps(value)

    edited.__name__ = f"onnx_metadata_{name}"
    edit(refused)(edited)


def _shape(value: Any) -> Any:
    cell = value["layers"][0]["directions"]["forward"]["cells"][0]
    cell["shapes"]["forget_gate.kernel"] = [14, 1]
    return value


def _outside(value: Any) -> Any:
    value["layers"][0]["tensors"] = {"other/x": ["forward", 0, "forget_gate.kernel"]}
    return value


_metadata("deep", "nested too deeply", lambda _: "[" * 100_000)
_metadata("list", "not an object", lambda _: [])
_metadata("no_layers", "not a per-gate file", lambda value: {**value, "layers": {}})
_metadata("numbers", "not a per-gate file", lambda value: {**value, "layers": [1]})
_metadata("version", "format version", lambda value: {**value, "version": 3})
_metadata("shape", "recorded shapes", _shape)
_metadata("other_tensors", None, _outside)
_metadata("surrogate", "not valid JSON", lambda _: '{"version": 1, "x": "\\ud800"}')

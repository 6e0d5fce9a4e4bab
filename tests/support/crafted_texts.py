"""Attacks on containers that are texts: of RTNeural, frugally-deep, TensorFlow.js, ncnn; ours."""

from __future__ import annotations

import os
from typing import Any

from support.crafted import SECRET, Bench
from support.crafted_others import Files, attack, edit, main_of, plain, put, swapped, valid

_JSON = ("rtneural", "fdeep", "tfjs", "json")
for _kind in (*_JSON, "ncnn"):
    plain(_kind)

# --- any JSON text --------------------------------------------------------------------------------


def _every(label: str, refused: str, start: bytes) -> None:
    """Put an entry before the others of the outermost object."""

    def change(found: Files, bench: Bench) -> None:
        put(found, b"{" + start + b", " + main_of(found)[1:])

    change.__name__ = label
    for kind in _JSON:
        attack(kind, refused)(change)


_every("deep", "nested too deeply", b'"x": ' + b"[" * 5000 + b"]" * 5000)
_every("not_a_number", "is not JSON", b'"x": NaN')
_every("infinity", "is not JSON", b'"x": -Infinity')
_every("beyond_all_floats", "too large", b'"x": 1e999')
_every("endless_integer", "5000 digits", b'"x": ' + b"9" * 5000)
_every("half_a_character", "surrogates", b'"x": "\\ud800"')
_every("entry_twice", "appears twice", b'"x": 1, "x": 2')

# --- RTNeural: layers in a row --------------------------------------------------------------------


@edit("rtneural", "do not have its shape")
def ragged(value: Any, bench: Bench) -> None:
    value["layers"][0]["weights"][0][3].pop()


@edit("rtneural", "not numbers")
def text_as_number(value: Any, bench: Bench) -> None:
    value["layers"][0]["weights"][0][0][0] = "__import__('os')"


@edit("rtneural", "not a number")
def flag_as_number(value: Any, bench: Bench) -> None:
    value["layers"][0]["weights"][0][0][0] = True


@edit("rtneural", "above the limit")
def weights_of_many_axes(value: Any, bench: Bench) -> None:
    for _ in range(50):
        value["layers"][0]["weights"][0] = [value["layers"][0]["weights"][0]]


@edit("rtneural", "an LSTM has three arrays")
def no_bias(value: Any, bench: Bench) -> None:
    value["layers"][0]["weights"].pop()


@edit("rtneural", "an empty array")
def no_rows(value: Any, bench: Bench) -> None:
    value["layers"][0]["weights"][0] = []


@edit("rtneural", "not a layer")
def layer_is_a_number(value: Any, bench: Bench) -> None:
    value["layers"].append(3)


# --- frugally-deep: a config, and arrays in base64 ------------------------------------------------


@edit("fdeep", "not float32 in base64")
def no_base64(value: Any, bench: Bench) -> None:
    value["trainable_params"]["lstm"]["weights"] = ["!" * 40]


@edit("fdeep", "not float32 in base64")
def base64_cut(value: Any, bench: Bench) -> None:
    value["trainable_params"]["lstm"]["weights"][0] = "QUJD"


@edit("fdeep", "an integer that no float holds")
def endless_number(value: Any, bench: Bench) -> None:
    value["trainable_params"]["lstm"]["weights"] = [10**399] * 56


@edit("fdeep", "do not fit each other")
def another_size(value: Any, bench: Bench) -> None:
    value["trainable_params"]["lstm"]["weights"][0] = "AAAA" * 4


@edit("fdeep", "not an array")
def weights_are_a_path(value: Any, bench: Bench) -> None:
    bench.victim.write_bytes(SECRET)
    value["trainable_params"]["lstm"]["weights"] = str(bench.victim)


@edit("fdeep", None)
def layers_that_run_code(value: Any, bench: Bench) -> None:
    bench.victim.write_bytes(SECRET)
    code = f"open({str(bench.sentinel)!r}, 'w')"
    value["architecture"]["config"]["layers"] += [
        {"class_name": "Lambda", "config": {"name": "a", "function": [code, None, None]}},
        {"class_name": "run", "module": "subprocess", "config": {"name": "b", "args": ["true"]}},
        {
            "class_name": "StringLookup",
            "config": {"name": "c", "vocabulary": str(bench.victim)},
        },
    ]


@edit("fdeep", "above the limit")
def layer_of_a_million_units(value: Any, bench: Bench) -> None:
    for layer in value["architecture"]["config"]["layers"]:
        if layer["class_name"] == "LSTM":
            layer["config"]["units"] = 1 << 40


# --- TensorFlow.js: shards beside the text --------------------------------------------------------


def _shard(label: str, path: str) -> None:
    @edit("tfjs", "is never opened")
    def change(value: Any, bench: Bench) -> None:
        bench.victim.write_bytes(valid("tfjs")["model.bin"])  # it would convert
        value["weightsManifest"][0]["paths"] = [
            path.format(victim=bench.victim, port=bench.port)
        ]

    _renamed("tfjs", f"shard_{label}")


def _renamed(kind: str, name: str) -> None:
    from dataclasses import replace

    from support.crafted_others import OTHERS

    OTHERS[-1] = replace(OTHERS[-1], name=f"{kind}-{name}")


_shard("upwards", "../victim")
_shard("absolute", "{victim}")
_shard("by_url", "http://127.0.0.1:{port}/model.bin")
_shard("by_file_url", "file://{victim}")
_shard("with_a_backslash", "..\\victim")
_shard("with_a_null", "model.bin\0")
_shard("itself", "..")


@attack("tfjs", "not a regular file")
def shard_is_a_link(found: Files, bench: Bench) -> None:
    data = found["model.bin"]
    assert isinstance(data, bytes)
    bench.victim.write_bytes(data)
    found["model.bin"] = bench.victim


@attack("tfjs", "not a regular file, or has several names")
def shard_has_two_names(found: Files, bench: Bench) -> None:
    data = found.pop("model.bin")
    assert isinstance(data, bytes)
    bench.victim.write_bytes(data)
    os.link(bench.victim, bench.folder / "model.bin")


@attack("tfjs", "not a regular file")
def shard_is_a_pipe(found: Files, bench: Bench) -> None:
    del found["model.bin"]
    os.mkfifo(bench.folder / "model.bin")


@attack("tfjs", "cannot be opened")
def shard_is_missing(found: Files, bench: Bench) -> None:
    del found["model.bin"]


@attack("tfjs", "the shards end before")
def shard_is_cut(found: Files, bench: Bench) -> None:
    data = found["model.bin"]
    assert isinstance(data, bytes)
    found["model.bin"] = data[:-1]


def _weight(label: str, refused: str, key: str, content: Any) -> None:
    @edit("tfjs", refused)
    def change(value: Any, bench: Bench) -> None:
        value["weightsManifest"][0]["weights"][0][key] = content

    _renamed("tfjs", f"weight_{label}")


_weight("of_a_petabyte", "end before", "shape", [1 << 30, 1 << 30])
_weight("negative", "not a shape", "shape", [-7, -8])
_weight("of_many_axes", "above the limit", "shape", [7, 8, *[1] * 50])
_weight("of_texts", "not read", "dtype", "string")
_weight("of_another_type", "not a weight", "dtype", ["float32"])
_weight("quantized", "quantized", "quantization", {"dtype": "uint8", "scale": 1, "min": 0})
_weight("without_a_name", "not a weight", "name", None)


@edit("tfjs", "a shard is listed twice")
def one_shard_for_many(value: Any, bench: Bench) -> None:
    (group,) = value["weightsManifest"]
    value["weightsManifest"] += [
        {**group, "weights": [{**one, "name": f"x{number}/y"} for one in group["weights"]]}
        for number in range(300)
    ]


# --- our own JSON ---------------------------------------------------------------------------------


def _item(label: str, refused: str, key: str, content: Any) -> None:
    @edit("json", refused)
    def change(value: Any, bench: Bench) -> None:
        value["tensors"][next(iter(value["tensors"]))][key] = content

    _renamed("json", label)


_item("petabyte", "do not have its shape", "shape", [1 << 30, 1 << 30])
_item("negative_axis", "not a shape", "shape", [-2])
_item("flag_as_axis", "do not have its shape", "shape", [True])
_item("objects", "not an array of numbers", "dtype", "object")
_item("bits_of_no_number", "not a number", "data", ["0x" + "f" * 40] * 5)
_item("file", "do not have its shape", "data", "/etc/passwd")

# --- ncnn: two files ------------------------------------------------------------------------------


def _ncnn(label: str, refused: str, old: bytes, new: bytes) -> None:
    def change(found: Files, bench: Bench) -> None:
        swapped(found, old, new)

    change.__name__ = label
    attack("ncnn", refused)(change)


_ncnn("endless_layers", "fewer layers than it says", b"\n5 5\n", b"\n4294967295 5\n")
_ncnn("endless_blobs", "not a layer", b" 0 1 ", b" 0 999999999 ")
_ncnn("negative_size", "not read here", b" 1=56 ", b" 1=-56 ")
_ncnn("endless_size", "truncated", b" 1=56 ", b" 1=99999999968 ")
_ncnn("endless_units", "above the limit", b" 3=2", b" 3=99999999999")
_ncnn("no_units", "not read here", b" 3=2", b" 3=0")
_ncnn("layer_of_weights_unknown", "not known here", b"Input ", b"Mystery ")


@attack("ncnn", "not a regular file")
def numbers_are_a_link(found: Files, bench: Bench) -> None:
    data = found["x.bin"]
    assert isinstance(data, bytes)
    bench.victim.write_bytes(data)
    found["x.bin"] = bench.victim


@attack("ncnn", "ends inside")
def numbers_are_cut(found: Files, bench: Bench) -> None:
    data = found["x.bin"]
    assert isinstance(data, bytes)
    found["x.bin"] = data[:-1]


@attack("ncnn", "not read here")
def numbers_of_another_kind(found: Files, bench: Bench) -> None:
    data = found["x.bin"]
    assert isinstance(data, bytes)
    found["x.bin"] = b"\x56\xe4\x4b\0" + data[4:]


@attack("ncnn", "cannot be opened")
def numbers_are_missing(found: Files, bench: Bench) -> None:
    del found["x.bin"]



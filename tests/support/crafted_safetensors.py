"""Attacks through safetensors (SECURITY section 4) and through the metadata of a per-gate file."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lstmconvert
from support.crafted import FIXTURES, KERAS, Bench, craft

Header = dict[str, Any]


@cache
def _valid() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "valid.safetensors"
        lstmconvert.convert(FIXTURES / KERAS, path)
        header, body = split(path.read_bytes())
    header["__metadata__"]["lstmconvert"] = json.dumps(
        unsealed(json.loads(header["__metadata__"]["lstmconvert"]))
    )
    return joined(header, body)


def unsealed(value: Header) -> Header:
    """Our metadata object as it was before there were checksums: what is changed in it is found by
    the check that is meant for it."""
    kept = {key: item for key, item in value.items() if key not in ("checksums", "seal")}
    return {**kept, "version": 1}


def split(data: bytes) -> tuple[Header, bytes]:
    """The header of a safetensors file, and what follows it."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: Header | bytes, body: bytes) -> bytes:
    """A safetensors file."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _header_attack(
    refused: str | None,
) -> Callable[[Callable[[Header, bytes], bytes]], Callable[[Header, bytes], bytes]]:
    def register(attack: Callable[[Header, bytes], bytes]) -> Callable[[Header, bytes], bytes]:
        def make(bench: Bench) -> Path:
            header, body = split(_valid())
            return bench.write("crafted.safetensors", attack(header, body))

        make.__name__ = attack.__name__
        craft(refused)(make)
        return attack

    return register


_INVALID = "not a valid safetensors file"
_NAME = "lstm.forget_gate.kernel"


@_header_attack(None)
def safetensors(header: Header, body: bytes) -> bytes:
    return joined(header, body)


@_header_attack(_INVALID)
def safetensors_overlap(header: Header, body: bytes) -> bytes:
    begin, end = header[_NAME]["data_offsets"]
    header[_NAME]["data_offsets"] = [begin - 4, end - 4]
    return joined(header, body)


@_header_attack(_INVALID)
def safetensors_hole(header: Header, body: bytes) -> bytes:
    header["late"] = {
        "dtype": "U8",
        "shape": [1],
        "data_offsets": [len(body) + 8, len(body) + 9],
    }
    return joined(header, body + bytes(9))


@_header_attack(_INVALID)
def safetensors_trailing_bytes(header: Header, body: bytes) -> bytes:
    return joined(header, body + b"#")


@_header_attack("is above the limit")
def safetensors_header_of_exabytes(header: Header, body: bytes) -> bytes:
    return struct.pack("<Q", 1 << 63) + joined(header, body)[8:]


@_header_attack("is above the limit")
def safetensors_header_too_long(header: Header, body: bytes) -> bytes:
    return struct.pack("<Q", 100_000_001) + joined(header, body)[8:]


@_header_attack("truncated")
def safetensors_header_past_the_end(header: Header, body: bytes) -> bytes:
    return struct.pack("<Q", 1_000_000) + joined(header, body)[8:]


@_header_attack(_INVALID)
def safetensors_shape_overflows(header: Header, body: bytes) -> bytes:
    header[_NAME]["shape"] = [1 << 62, 1 << 62]
    return joined(header, body)


@_header_attack(_INVALID)
def safetensors_negative_axis(header: Header, body: bytes) -> bytes:
    header[_NAME]["shape"] = [-7, -2]
    return joined(header, body)


@_header_attack(_INVALID)
def safetensors_fractional_axis(header: Header, body: bytes) -> bytes:
    header[_NAME]["shape"] = [7.0, 2]
    return joined(header, body)


@_header_attack("axes is above the limit")
def safetensors_hundred_axes(header: Header, body: bytes) -> bytes:
    header[_NAME]["shape"] = [7, 2, *[1] * 100]
    return joined(header, body)


@_header_attack("")
def safetensors_unknown_dtype(header: Header, body: bytes) -> bytes:
    header[_NAME]["dtype"] = "F8_E8M0"
    return joined(header, body)


@_header_attack(_INVALID)
def safetensors_metadata_is_a_number(header: Header, body: bytes) -> bytes:
    header["__metadata__"]["lstmconvert"] = 7
    return joined(header, body)


@_header_attack("appears twice")
def safetensors_duplicate_name(header: Header, body: bytes) -> bytes:
    text = json.dumps(header)
    entry = json.dumps({_NAME: header[_NAME]})[1:-1]
    return joined(f"{text[:-1]}, {entry}}}".encode(), body)


@_header_attack("not a model file")
def safetensors_leading_space(header: Header, body: bytes) -> bytes:
    return joined(b"    " + json.dumps(header).encode(), body)


@_header_attack("nest")
def safetensors_deep_json(header: Header, body: bytes) -> bytes:
    return joined(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", body)


@_header_attack("belongs to nothing")
def safetensors_names_that_mislead(header: Header, body: bytes) -> bytes:
    for name in ("../../x\0", "", "\u202ecod.exe", "\x1b[2J"):
        header[name] = {"dtype": "U8", "shape": [0], "data_offsets": [len(body), len(body)]}
    return joined(header, body)


@_header_attack("no file can hold")
def safetensors_path_without_a_part(header: Header, body: bytes) -> bytes:
    header["other//x"] = {"dtype": "U8", "shape": [0], "data_offsets": [len(body), len(body)]}
    return joined(header, body)


@_header_attack("belongs to nothing")
def safetensors_of_many_names(header: Header, body: bytes) -> bytes:
    end = len(body)
    for index in range(10_000):
        header[f"n{index}"] = {"dtype": "U8", "shape": [0], "data_offsets": [end, end]}
    return joined(header, body)


@_header_attack("the forget gate has no kernel")
def safetensors_without_a_map(header: Header, body: bytes) -> bytes:
    header["lstm.forget_gate.kernel_"] = header.pop(_NAME)
    value = json.loads(header["__metadata__"]["lstmconvert"])
    value["layers"][0]["tensors"].pop(_NAME)
    header["__metadata__"]["lstmconvert"] = json.dumps(value)
    return joined(header, body)


# --- the metadata ---------------------------------------------------------------------------------


def _metadata_attack(label: str, refused: str | None, change: Callable[[Any, Any], object]) -> None:
    def attack(header: Header, body: bytes) -> bytes:
        value = json.loads(header["__metadata__"]["lstmconvert"])
        change(value, value["layers"][0])
        header["__metadata__"]["lstmconvert"] = json.dumps(value)
        return joined(header, body)

    attack.__name__ = f"metadata_{label}"
    _header_attack(refused)(attack)


def _forward(layer: Any) -> Any:
    return layer["directions"]["forward"]


def _cell(layer: Any) -> Any:
    return _forward(layer)["cells"][0]


_NOT_OURS = "not a per-gate file"
_metadata_attack("unchanged", None, lambda v, _: v)
_metadata_attack("version", "format version", lambda v, _: v.update(version=3))
_metadata_attack("version_true", "format version", lambda v, _: v.update(version=True))
_metadata_attack("no_checksums", "with, or without", lambda v, _: v.update(version=2))
_metadata_attack("no_seal", "with, or without", lambda v, _: v.update(version=2, checksums={}))
_metadata_attack(
    "a_checksum_that_is_a_number",
    "eight hexadecimal digits",
    lambda v, _: v.update(version=2, checksums={_NAME: 5}, seal="00000000"),
)
_metadata_attack(
    "checksums_list",
    "eight hexadecimal digits",
    lambda v, _: v.update(version=2, checksums=[], seal="00000000"),
)
_metadata_attack(
    "checksums_of_others",
    "a tensor without a checksum",
    lambda v, _: v.update(version=2, checksums={"a": "00000000"}, seal="00000000"),
)
_metadata_attack("layers_object", _NOT_OURS, lambda v, _: v.update(layers={}))
_metadata_attack("no_layers", _NOT_OURS, lambda v, _: v.update(layers=[]))
_metadata_attack("layer_twice", _NOT_OURS, lambda v, x: v["layers"].append(x))
_metadata_attack("layer_number", _NOT_OURS, lambda v, _: v["layers"].append(5))
_metadata_attack("no_source", _NOT_OURS, lambda v, _: v.pop("source"))
_metadata_attack("source_list", _NOT_OURS, lambda v, _: v.update(source=[]))
_metadata_attack("config_text", _NOT_OURS, lambda _, x: x.update(config="x"))
_metadata_attack("directions", _NOT_OURS, lambda _, x: x["directions"].update(sideways={}))
_metadata_attack("no_cells", _NOT_OURS, lambda _, x: _forward(x).update(cells=[]))
_metadata_attack("cell_number", _NOT_OURS, lambda _, x: _forward(x).update(cells=[3]))
_metadata_attack("opaque_number", _NOT_OURS, lambda _, x: _forward(x).update(cells=[{"opaque": 3}]))
_metadata_attack("shapes", "recorded shapes", lambda _, x: _cell(x).update(shapes={}))
_metadata_attack("options", "", lambda _, x: _cell(x).update(options=[]))
_metadata_attack("unknown_list", "", lambda _, x: _cell(x)["options"].update(unknown=[["seed"]]))
_metadata_attack("option_type", "", lambda _, x: _cell(x)["options"].update(use_bias="yes"))
_metadata_attack("activation", "", lambda _, x: _cell(x)["options"].update(activation={"name": 5}))
_metadata_attack("activation_list", "", lambda _, x: _cell(x)["options"].update(activation=[1]))
_metadata_attack("model_config_list", _NOT_OURS, lambda v, _: v.update(model_config=[]))
for _key in ("model_config", "archive_metadata"):
    _metadata_attack(f"{_key}_no_json", "not valid JSON", lambda v, _, k=_key: v.update({k: "x"}))
_metadata_attack("notes", _NOT_OURS, lambda v, _: v.update(notes="x"))
_metadata_attack(
    "no_such_tensor", "names no tensor", lambda _, x: x["tensors"].update(x=["forward", 0, "a"])
)
_metadata_attack(
    "no_such_part", _NOT_OURS, lambda _, x: x["tensors"].update({_NAME: ["forward", 0, "evil"]})
)
_metadata_attack(
    "no_such_cell",
    "the forget gate has no kernel",
    lambda _, x: x["tensors"].update({_NAME: ["forward", 10**9, "forget_gate.kernel"]}),
)
_metadata_attack(
    "two_gates_of_one_tensor",
    "the forget gate has no kernel",
    lambda _, x: x["tensors"].update({_NAME: ["forward", 0, "input_gate.kernel"]}),
)

"""Attacks on files of named arrays: npz, .npy in .eqx, .params, msgpack, .pt."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import msgpack

from support.crafted import Bench
from support.crafted_others import Files, attack, main_of, plain, put, swapped

_MEMBER = "lstm.forget_gate.kernel.npy"
for _kind in ("npz", "chainer", "params", "msgpack", "eqx", "pt"):
    plain(_kind)


class _Code:
    """Unpickled, it makes the sentinel."""

    def __init__(self, bench: Bench) -> None:
        self.path = str(bench.sentinel)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def _npy(header: str, data: bytes, version: int = 1) -> bytes:
    text = header.encode("latin-1")
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def _header(descr: str = "'<f4'", shape: str = "(7, 2)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


# --- NumPy's zip of arrays ------------------------------------------------------------------------


def _rezipped(found: Files, changed: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(BytesIO(main_of(found))) as old, zipfile.ZipFile(buffer, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        for name, data in {**members, **changed}.items():
            new.writestr(zipfile.ZipInfo(name), data, method if name in changed else None)
    put(found, buffer.getvalue())


def _npz(label: str, refused: str, member: bytes) -> None:
    def change(found: Files, bench: Bench) -> None:
        _rezipped(found, {_MEMBER: member})

    change.__name__ = label
    attack("npz", refused)(change)


_BYTES = bytes(56)
_npz("negative_axis", "not a tuple", _npy(_header(shape="(-7, -2)"), _BYTES))
_npz("huge_shape", "above the limit", _npy(_header(shape="(1099511627776, 1048576)"), _BYTES))
_npz("large_shape", "not as long as its shape", _npy(_header(shape="(1048576, 2)"), _BYTES))
_npz("many_axes", "above the limit", _npy(_header(shape="(7, 2" + ", 1" * 40 + ")"), _BYTES))
_npz("text", "an array of text", _npy(_header("'<U1'"), _BYTES))
_npz("records", "does not write", _npy(_header("[('x', '<f4')]"), _BYTES))
_npz("code", "does not write", _npy(_header("__import__('os').getcwd()"), _BYTES))
_npz("deep", "does not write", _npy(_header("[" * 5000 + "]" * 5000)[:9000] + "}", _BYTES))
_npz("no_header", "no .npy array", b"no array")
_npz("cut", "truncated", _npy(_header(), b"")[:40])
_npz("version_9", "unknown version", _npy(_header(), _BYTES, 9))
_npz("endless_header", "above the limit", b"\x93NUMPY\x02\0" + struct.pack("<I", 1 << 31) + _BYTES)


@attack("npz", "expands beyond")
def zeros(found: Files, bench: Bench) -> None:
    member = _npy(_header(shape="(4195328, 4)"), bytes(4195328 * 16))
    _rezipped(found, {_MEMBER: member}, zipfile.ZIP_DEFLATED)


@attack("npz", "an array of Python objects")
def pickled(found: Files, bench: Bench) -> None:
    _rezipped(found, {_MEMBER: _npy(_header("'|O'"), pickle.dumps(_Code(bench)))})


@attack("chainer", "an array of Python objects")
def pickled_too(found: Files, bench: Bench) -> None:
    with zipfile.ZipFile(BytesIO(main_of(found))) as archive:
        name = archive.namelist()[0]
    _rezipped(found, {name: _npy(_header("'|O'", "()"), pickle.dumps(_Code(bench)))})


@attack("npz", "belongs to nothing")
def member_upwards(found: Files, bench: Bench) -> None:
    _rezipped(found, {"../../x.npy": _npy(_header(), _BYTES)})


@attack("npz", "an array of Python objects")
def metadata_of_objects(found: Files, bench: Bench) -> None:
    _rezipped(found, {"__metadata__.npy": _npy(_header("'|O'"), pickle.dumps(_Code(bench)))})


# --- arrays without names -------------------------------------------------------------------------


def _eqx(label: str, refused: str, start: bytes) -> None:
    def change(found: Files, bench: Bench) -> None:
        put(found, start + main_of(found))

    change.__name__ = label
    attack("eqx", refused)(change)


_eqx("huge_shape", "above the limit", _npy(_header(shape="(1099511627776, 1048576)"), b""))
_eqx("endless_header", "above the limit", b"\x93NUMPY\x02\0" + struct.pack("<I", 1 << 31))
_eqx("many_axes", "above the limit", _npy(_header(shape="(" + "1, " * 40 + ")"), bytes(4)))
_eqx("of_empty_arrays", "above the limit", _npy(_header(shape="(0,)"), b"") * 31_000)


@attack("eqx", "an array of Python objects")
def pickled_leaf(found: Files, bench: Bench) -> None:
    put(found, _npy(_header("'|O'", "()"), pickle.dumps(_Code(bench))) + main_of(found))


@attack("eqx", "not as long as its shape")
def cut_off(found: Files, bench: Bench) -> None:
    put(found, main_of(found)[:-1])


# --- MXNet ----------------------------------------------------------------------------------------


def _params(label: str, refused: str, offset: int, form: str, value: int) -> None:
    def change(found: Files, bench: Bench) -> None:
        data = bytearray(main_of(found))
        struct.pack_into(form, data, offset, value)
        put(found, bytes(data))

    change.__name__ = label
    attack("params", refused)(change)


#: From byte 24 on the first array: magic, storage, rank, axes, device, its number, dtype.
_params("endless_count", "above the limit", 16, "<Q", 1 << 60)
_params("another_magic", "not read here", 24, "<I", 0xF993FAC8)
_params("sparse", "not read here", 28, "<i", 1)
_params("many_axes", "above the limit", 32, "<i", 1 << 30)
_params("negative_rank", "not an array", 32, "<i", -5)
_params("huge_axis", "above the limit", 36, "<q", 1 << 61)
_params("negative_axis", "not an array", 36, "<q", -8)
_params("beyond_the_end", "truncated", 36, "<q", 1 << 20)
_params("unknown_dtype", "not an array", 60, "<i", 99)


def _names(label: str, refused: str, old: bytes, new: bytes) -> None:
    def change(found: Files, bench: Bench) -> None:
        swapped(found, old, new)

    change.__name__ = label
    attack("params", refused)(change)


_FIRST, _SECOND = b"lstm._unfused.0.i2h_weight", b"lstm._unfused.0.h2h_weight"
_names("two_of_one_name", "two arrays of one name", _SECOND, _FIRST)
_names("name_of_no_text", "not a text", _FIRST, b"\xff" * len(_FIRST))
_names("control_characters", "has no kernel", _FIRST, b"\x1b[31m\r\n".ljust(len(_FIRST), b"\0"))
_names("endless_name", "above the limit", struct.pack("<Q", len(_FIRST)) + _FIRST, b"\xff" * 8)


# --- Flax -----------------------------------------------------------------------------------------


def _array(shape: Any = (2, 2), name: Any = "float32", data: Any = bytes(16)) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((shape, name, data)))


def _msgpack(label: str, refused: str, leaf: Any) -> None:
    def change(found: Files, bench: Bench) -> None:
        tree = msgpack.unpackb(main_of(found), ext_hook=msgpack.ExtType)
        put(found, msgpack.packb({**tree, "more": leaf}))

    change.__name__ = label
    attack("msgpack", refused)(change)


_msgpack("large_shape", "not as long as its shape", _array((1 << 20, 1 << 20)))
_msgpack("negative_axes", "not as long as its shape", _array((-2, -2)))
_msgpack("many_axes", "above the limit", _array((2, 2, *[1] * 90)))
_msgpack("objects", "an array of no numbers", _array(name="object"))
_msgpack("dtype_of_code", "an array of no numbers", _array(name="os.system"))
_msgpack("records", "an array of no numbers", _array(name="f4,O"))
_msgpack("no_array", "not an array", _array(data=3))
_msgpack("shape_of_texts", "not an array", _array(shape=("2", "2")))
_msgpack(
    "chunks_of_a_petabyte", "do not fit",
    {"__msgpack_chunked_array__": True, "shape": {"0": 1 << 50}, "chunks": {"0": _array((4,))}},
)  # fmt: skip
_msgpack(
    "no_chunks", "do not fit",
    {"__msgpack_chunked_array__": True, "shape": {"0": 0}, "chunks": {}},
)  # fmt: skip


def _raw(label: str, refused: str, data: bytes) -> None:
    def change(found: Files, bench: Bench) -> None:
        put(found, data)

    change.__name__ = label
    attack("msgpack", refused)(change)


_raw("deep", "above the limit", b"\x81\xa1a" * 100_000 + b"\xc0")
_raw("deep_trees", "above the limit", b"\x81\xa1a" * 200 + b"\xc0")
_raw("endless_map", "no msgpack", b"\xdf\xff\xff\xff\xff")
_raw("endless_bytes", "no msgpack", b"\x81\xa1a\xc6\xff\xff\xff\xff")
_raw("a_list", "no tree of arrays", b"\x90")
_raw("key_of_no_text", "no msgpack", b"\x81\xa1\xff\xc0")
_raw("number_as_key", "no msgpack", b"\x81\x01\xc0")
_raw("bytes_as_key", "no msgpack", b"\x81\xc4\x01a\x81\xa1b\xc0")


def _many(label: str, refused: str, one: bytes, number: int) -> None:
    data = b"\x81\xa1x\xdd" + struct.pack(">I", number) + one * number
    _raw(f"many_{label}", refused, data)


_many("dicts", "the number of a dict's entries is above the limit", b"\x80", 3_000_000)
_many("dicts_in_lists", "the number of dicts is above the limit",
      b"\xdc\x0f\xff" + b"\x80" * 4095, 100)  # fmt: skip

# --- PyTorch --------------------------------------------------------------------------------------


def _torch(found: Files, changed: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(BytesIO(main_of(found))) as archive:
        root = archive.namelist()[0].partition("/")[0]
    _rezipped(found, {f"{root}/{name}": data for name, data in changed.items()}, method)


@attack("pt", "no tensors in it")
def code(found: Files, bench: Bench) -> None:
    _torch(found, {"data.pkl": pickle.dumps(_Code(bench), protocol=2)})


@attack("pt", "no tensors in it")
def module_of_any_kind(found: Files, bench: Bench) -> None:
    _torch(found, {"data.pkl": b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."})


@attack("pt", "a pickle that holds no Keras model")
def old_kind(found: Files, bench: Bench) -> None:
    put(found, pickle.dumps(_Code(bench), protocol=2))


@attack("pt", "a storage of another length")
def storage_cut(found: Files, bench: Bench) -> None:
    _torch(found, {"data/0": bytes(3)})


@attack("pt", "above the limit")
def storage_of_a_petabyte(found: Files, bench: Bench) -> None:
    with zipfile.ZipFile(BytesIO(main_of(found))) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        data = archive.read(name)
    # Sizes are one-byte integers (K): of the first storage's shape, (8, 7).
    changed = re.sub(rb"K\x08K\x07\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", data, count=1)
    assert changed != data
    _torch(found, {"data.pkl": changed})


@attack("pt", "the depth of its dictionaries is above the limit")
def deep_pickle(found: Files, bench: Bench) -> None:
    _torch(found, {"data.pkl": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."})


@attack("pt", "expands beyond")
def bomb(found: Files, bench: Bench) -> None:
    _torch(found, {"data/0": bytes(1 << 27)}, zipfile.ZIP_DEFLATED)


@attack("pt", "bad CRC-32")
def storage_damaged(found: Files, bench: Bench) -> None:
    # torch itself gives what lay in memory, and no error.
    with zipfile.ZipFile(BytesIO(main_of(found))) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/0"))
        numbers = archive.read(name)
    swapped(found, numbers, bytes([numbers[0] ^ 1]) + numbers[1:])


def _saved(refused: str) -> Callable[[Callable[[Any], Any]], None]:
    """Register a file that torch saved, with what is made of torch in it."""

    def register(make: Callable[[Any], Any]) -> None:
        def change(found: Files, bench: Bench) -> None:
            import torch

            buffer = BytesIO()
            state = torch.load(BytesIO(main_of(found)), weights_only=True)
            torch.save({**state, **make(torch)}, buffer)
            put(found, buffer.getvalue())

        change.__name__ = make.__name__
        attack("pt", refused)(change)

    return register


@_saved("a tensor is above the limit")
def one_number_for_billions(torch: Any) -> Any:
    return {"weight_ih_l0": torch.zeros(1).expand(8, 1 << 33)}


@_saved("expands beyond the limit")
def one_storage_for_thousands(torch: Any) -> Any:
    numbers = torch.zeros(1 << 18)
    return {f"x{number}": numbers for number in range(5000)}


@_saved("the number of entries is above the limit")
def dictionaries_in_each_other(torch: Any) -> Any:
    value: dict[str, Any] = {}
    for _ in range(7):
        value = {f"{number}": value for number in range(100)}
    return value


@_saved("the length of a name is above the limit")
def name_of_a_megabyte(torch: Any) -> Any:
    return {"k" * 1_000_000: {f"{number}": torch.zeros(1) for number in range(1000)}}


@attack("pt", None)
def storage_is_a_folder(found: Files, bench: Bench) -> None:
    # To torch's own reader such a member is empty, and its numbers what lay in memory.
    data = bytearray(main_of(found))
    with zipfile.ZipFile(BytesIO(main_of(found))) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/3"))
    entry = data.rindex(name.encode()) - 46  # in the central directory
    struct.pack_into("<I", data, entry + 38, 0x10)  # external attributes: MS-DOS's directory
    put(found, bytes(data))

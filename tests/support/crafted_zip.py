"""Attacks through zip archives (SECURITY section 3), directories and shard maps."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path

import h5py

from support.crafted import SECRET, V3_CELL, WEIGHTS, Bench, craft, members, rezipped, zipped

MIB = 1 << 20
_CENTRAL, _LOCAL, _END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


def _archive(bench: Bench, data: bytes) -> Path:
    return bench.write("crafted.keras", data)


def _patched(signature: bytes, name: bytes, at: int, new: bytes) -> bytes:
    """The valid archive with some bytes of one member's header changed."""
    data = bytearray(zipped(members()))
    fixed = 46 if signature == _CENTRAL else 30
    start = -1
    while True:
        start = data.index(signature, start + 1)
        if data[start + fixed : start + fixed + len(name)] == name:
            data[start + at : start + at + len(new)] = new
            return bytes(data)


# --- sizes ----------------------------------------------------------------------------------------


@craft("expands beyond the limit")
def zip_bomb(bench: Bench) -> Path:
    return rezipped(bench, {"model.weights.h5": bytes(65 * MIB)}, zipfile.ZIP_DEFLATED)


@craft("expands beyond the limit")
def zip_bomb_in_many_small_ones(bench: Bench) -> Path:
    assets = {f"assets/{n}": bytes(4 * MIB) for n in range(17)}
    return rezipped(bench, assets, zipfile.ZIP_DEFLATED)


@craft("is above the limit")
def zip_directory_of_two_hundred_thousand(bench: Bench) -> Path:
    entry = _CENTRAL + bytes(42)
    directory = entry * 200_000
    end = struct.pack("<4s4H2IH", _END, 0, 0, 9, 9, len(directory), 4, 0)
    return _archive(bench, b"PK\x03\x04" + directory + end)


@craft("not a readable zip archive")
def zip_directory_of_four_gigabytes(bench: Bench) -> Path:
    data = zipped(members())
    return _archive(bench, data[:-10] + b"\xf0\xff\xff\xff" + data[-6:])


@craft("bad CRC-32")
def zip_member_shorter_than_it_is(bench: Bench) -> Path:
    data = bytearray(_patched(_CENTRAL, b"config.json", 20, struct.pack("<2L", 10, 10)))
    return _archive(bench, bytes(data))


@craft("its two sizes differ")
def zip_member_of_two_sizes(bench: Bench) -> Path:
    return _archive(bench, _patched(_CENTRAL, b"config.json", 24, struct.pack("<L", 1 << 20)))


@craft("not a readable zip archive")
def zip_deflated_size_lies(bench: Bench) -> Path:
    data = zipped(members(), zipfile.ZIP_DEFLATED)
    start = data.rindex(_CENTRAL + data[data.rindex(_CENTRAL) + 4 :][:20])
    return _archive(bench, data[: start + 24] + struct.pack("<L", 10) + data[start + 28 :])


@craft(None)
def two_thousand_compressed_assets(bench: Bench) -> Path:
    # More of them than a process may have files open.
    assets = {f"assets/{n}": b"x" * 100 for n in range(2000)}
    return rezipped(bench, assets, zipfile.ZIP_DEFLATED)


# --- contradictions -------------------------------------------------------------------------------


@craft("appears twice")
def zip_with_two_configs(bench: Bench) -> Path:
    buffer = io.BytesIO(zipped(members()))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("config.json", b"{}")
    return _archive(bench, buffer.getvalue())


@craft("no member where config.json should begin")
def zip_names_differ(bench: Bench) -> Path:
    return _archive(bench, _patched(_LOCAL, b"config.json", 30, b"confjg.json"))


@craft("no member where config.json should begin")
def zip_name_with_a_null(bench: Bench) -> Path:
    entries = members()
    config = entries.pop("config.json")
    data = zipped({**entries, "config.json!x": config})
    return _archive(bench, data.replace(b"config.json!x", b"config.json\0x"))


@craft("its members overlap, or are not where it begins")
def zip_behind_another(bench: Bench) -> Path:
    return _archive(bench, zipped({"config.json": b"{}"}) + zipped(members()))


@craft("not a readable zip archive")
def zip_with_bytes_behind_it(bench: Bench) -> Path:
    return _archive(bench, zipped(members()) + b"#" * 100)


@craft("members where 3 are counted")
def zip_entry_within_a_comment(bench: Bench) -> Path:
    # The comment of the second entry takes in the third.
    data = bytearray(zipped(dict(sorted(members().items()))))
    second = data.index(_CENTRAL, data.index(_CENTRAL) + 1)
    third = data.index(_CENTRAL, second + 1)
    data[second + 32 : second + 34] = struct.pack("<H", data.index(_END) - third)
    return _archive(bench, bytes(data))


@craft("overlap")
def zip_member_within_another(bench: Bench) -> Path:
    inner = zipped({"assets/a": b"x" * 100})
    local = inner[: inner.index(_CENTRAL)]
    data = zipped({**members(), "assets/b": b"y" * 50 + local, "assets/a": b"x" * 100})
    quoted = data.index(local)
    start = data.index(b"assets/a", data.index(_CENTRAL)) - 46
    return _archive(bench, data[: start + 42] + struct.pack("<L", quoted) + data[start + 46 :])


@craft("bad CRC-32 of model.weights.h5")
def zip_with_a_flipped_weight(bench: Bench) -> Path:
    with h5py.File(bench.copy(WEIGHTS)) as file:
        offset = file[f"{V3_CELL}/0"].id.get_offset()
    entries = members()
    data = bytearray(zipped(entries))
    start = data.index(entries["model.weights.h5"])
    with h5py.File(io.BytesIO(entries["model.weights.h5"])) as file:
        offset = file[f"{V3_CELL}/0"].id.get_offset()
    data[start + offset] ^= 1
    return _archive(bench, bytes(data))


@craft("encrypted")
def zip_encrypted(bench: Bench) -> Path:
    return _archive(bench, _patched(_CENTRAL, b"config.json", 8, b"\1\0"))


@craft("not a readable zip archive")
def zip_of_several_disks(bench: Bench) -> Path:
    # A zip64 locator that says so.
    data = zipped(members())
    end = data.index(_END)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 1, 0, 7)
    return _archive(bench, data[:end] + locator + data[end:])


@craft("not a readable zip archive")
def zip_of_a_later_version(bench: Bench) -> Path:
    return _archive(bench, _patched(_CENTRAL, b"config.json", 6, b"\xff\0"))


@craft("compressed in a way that Keras does not write")
def zip_of_lzma(bench: Bench) -> Path:
    return _archive(bench, zipped(members(), zipfile.ZIP_LZMA))


@craft("compressed in a way that Keras does not write")
def zip_of_bzip2(bench: Bench) -> Path:
    return _archive(bench, zipped(members(), zipfile.ZIP_BZIP2))


@craft("not a readable zip archive")
def zip_deflated_and_damaged(bench: Bench) -> Path:
    data = bytearray(zipped(members(), zipfile.ZIP_DEFLATED))
    middle = data.index(b"model.weights.h5") + 2000
    data[middle : middle + 4] = b"\xff\xff\xff\xff"
    return _archive(bench, bytes(data))


@craft("not a Keras archive")
def zip_without_a_config(bench: Bench) -> Path:
    entries = members()
    del entries["config.json"]
    return _archive(bench, zipped(entries))


@craft(None)
def zip_of_deflated_members(bench: Bench) -> Path:
    return _archive(bench, zipped(members(), zipfile.ZIP_DEFLATED))


@craft(None)
def zip_with_a_comment(bench: Bench) -> Path:
    buffer = io.BytesIO(zipped(members()))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"packed again"
    return _archive(bench, buffer.getvalue())


# --- paths ----------------------------------------------------------------------------------------


@craft(None)
def zip_members_upwards(bench: Bench) -> Path:
    evil = {"../evil": b"x", "/abs": b"x", "..\\evil": b"x", "assets": b"x", "a\x1b[2J": b"x"}
    return rezipped(bench, evil)


@craft(None)
def zip_member_is_a_link(bench: Bench) -> Path:
    bench.victim.write_bytes(SECRET)
    buffer = io.BytesIO(zipped(members()))
    info = zipfile.ZipInfo("extra")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(info, str(bench.victim))
    return _archive(bench, buffer.getvalue())


@craft("not a plain path")
def asset_upwards(bench: Bench) -> Path:
    return rezipped(bench, {"assets/../../evil": b"x"})


@craft("not a plain path")
def asset_with_a_backslash(bench: Bench) -> Path:
    return rezipped(bench, {"assets/..\\evil": b"x"})


@craft(None)
def hdf5_and_zip_in_one(bench: Bench) -> Path:
    # The first bytes decide, always the same way.
    return bench.write("crafted.keras", bench.copy(WEIGHTS).read_bytes() + zipped(members()))

"""Attacks through HDF5: SECURITY section 2, and what it leads to."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np

from support.crafted import (
    SECRET,
    WEIGHTS,
    Bench,
    craft,
    hdf5_attack,
    kernel,
    taken,
)

MIB = 1 << 20


# --- other files ----------------------------------------------------------------------------------


@hdf5_attack("external storage")
def external_storage(file: h5py.File, group: str, bench: Bench) -> None:
    bench.victim.write_bytes(SECRET)
    name = taken(file, group)
    file.create_dataset(name, (7, 8), "f4", external=[(str(bench.victim), 0, 224)])


def _victim_store(bench: Bench) -> None:
    with h5py.File(bench.victim, "w") as victim:
        victim["0"] = np.ones((7, 8), "f4")
        victim["kernel"] = np.ones((7, 8), "f4")


@hdf5_attack("a soft or external link")
def external_link_to_a_dataset(file: h5py.File, group: str, bench: Bench) -> None:
    _victim_store(bench)
    file[taken(file, group)] = h5py.ExternalLink(str(bench.victim), "0")


@hdf5_attack("a soft or external link")
def external_link_to_a_group(file: h5py.File, group: str, bench: Bench) -> None:
    _victim_store(bench)
    del file[group]
    file[group] = h5py.ExternalLink(str(bench.victim), "/")


@hdf5_attack("a soft or external link")
def external_link_at_the_root(file: h5py.File, group: str, bench: Bench) -> None:
    _victim_store(bench)
    top = group.partition("/")[0]
    del file[top]
    file[top] = h5py.ExternalLink(str(bench.victim), "/")


@hdf5_attack("a soft or external link")
def soft_link(file: h5py.File, group: str, bench: Bench) -> None:
    file.move(kernel(group), f"{group}/elsewhere")
    file[kernel(group)] = h5py.SoftLink(f"/{group}/elsewhere")


@hdf5_attack("a soft or external link")
def soft_link_loop(file: h5py.File, group: str, bench: Bench) -> None:
    name = taken(file, group)
    file[name] = h5py.SoftLink(f"/{name}")


@hdf5_attack("a soft or external link")
def dangling_link(file: h5py.File, group: str, bench: Bench) -> None:
    file[f"{group}/dangling"] = h5py.SoftLink("/nowhere")


@hdf5_attack("virtual dataset")
def virtual_dataset(file: h5py.File, group: str, bench: Bench) -> None:
    _victim_store(bench)
    layout = h5py.VirtualLayout((7, 8), "f4")
    layout[...] = h5py.VirtualSource(str(bench.victim), "0", (7, 8))
    file.create_virtual_dataset(taken(file, group), layout)


@craft("a name that HDF5 cannot write")
def link_behind_a_name_that_is_a_path(bench: Bench) -> Path:
    # Listed first is `a/b`; looking that up would follow the external link `a`.
    path = bench.copy(WEIGHTS)
    _victim_store(bench)
    with h5py.File(path, "r+") as file:
        group = file.create_group("layers/aaa")
        group.create_group("A.b")
        group["a"] = h5py.ExternalLink(str(bench.victim), "/")
    data = path.read_bytes()
    return bench.write(WEIGHTS, data.replace(b"A.b", b"A/b"))


# --- sizes ----------------------------------------------------------------------------------------


@hdf5_attack("expands beyond the limit")
def shape_bomb_chunked(file: h5py.File, group: str, bench: Bench) -> None:
    name = taken(file, group)
    file.create_dataset(name, (1 << 31, 8), "f4", chunks=(1024, 8), fillvalue=1.0)


@hdf5_attack("is above the limit")
def shape_bomb_of_a_petabyte(file: h5py.File, group: str, bench: Bench) -> None:
    name = taken(file, group)
    file.create_dataset(name, (1 << 45, 8), "f4", chunks=(1024, 8), fillvalue=1.0)


@hdf5_attack("expands beyond the limit")
def shape_bomb_contiguous(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_dataset(taken(file, group), (1 << 31, 8), "f4")


@hdf5_attack("no stored data")
def nothing_stored(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_dataset(taken(file, group), (7, 8), "f4")


@hdf5_attack("missing chunks")
def gaps_between_the_chunks(file: h5py.File, group: str, bench: Bench) -> None:
    data = file.create_dataset(taken(file, group), (7, 8), "f4", chunks=(1, 8))
    data[0] = 1.0


def _deflated_zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join([*parts, packer.flush()])


@hdf5_attack("expands beyond the limit")
def gzip_bomb(file: h5py.File, group: str, bench: Bench) -> None:
    data = file.create_dataset(
        taken(file, group), (3 * MIB, 8), "f4", chunks=(MIB, 8), compression="gzip"
    )
    for row in range(0, 3 * MIB, MIB):
        data.id.write_direct_chunk((row, 0), _ZEROS)


@hdf5_attack("expands beyond the limit")
def gzip_bomb_in_many_small_ones(file: h5py.File, group: str, bench: Bench) -> None:
    for index in range(20):
        data = file.create_dataset(
            f"{group}/more/{index}", (MIB, 8), "f4", chunks=(MIB, 8), compression="gzip"
        )
        data.id.write_direct_chunk((0, 0), _ZEROS)


_ZEROS = _deflated_zeros(32 * MIB)


@hdf5_attack("the size of an HDF5 chunk is above the limit")
def chunk_bomb(file: h5py.File, group: str, bench: Bench) -> None:
    # A kernel of 224 bytes, in one chunk of 2 GiB.
    data = file.create_dataset(
        taken(file, group),
        (7, 8),
        "f4",
        maxshape=(None, None),
        chunks=(64 * MIB, 8),
        compression="gzip",
    )
    data.id.write_direct_chunk((0, 0), _ZEROS)


@hdf5_attack("is in two places")
def one_dataset_of_many_names(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_dataset("big", data=np.zeros(MIB, "u1"))
    for index in range(1000):
        file[f"again{index}"] = file["big"]


@craft("the datasets overlap")
def datasets_that_share_their_bytes(bench: Bench) -> Path:
    path = bench.copy(WEIGHTS)
    sizes = [1009 + 2 * index for index in range(40)]
    with h5py.File(path, "r+") as file:
        for size in sizes:
            file.create_dataset(f"layers/part{size}", data=np.full(size, 7, "u1"))
        file.create_dataset("layers/zz", data=np.zeros(100_000, "u1"))
    data = path.read_bytes()
    for size in sizes:
        data = data.replace(struct.pack("<Q", size), struct.pack("<Q", 90_000))
    return bench.write(WEIGHTS, data)


@hdf5_attack("a group or dataset is in two places")
def hard_link_cycle(file: h5py.File, group: str, bench: Bench) -> None:
    file[f"{group}/self"] = file[group]


@hdf5_attack("the nesting of the HDF5 groups is above the limit")
def five_hundred_levels(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_group("/".join(["deep"] * 500))


@hdf5_attack("path is above the limit")
def a_name_of_five_thousand(file: h5py.File, group: str, bench: Bench) -> None:
    file.create_group("n" * 5000)


@craft("an attribute's size is above the limit")
def huge_attribute(bench: Bench) -> Path:
    path = bench.folder / WEIGHTS
    with h5py.File(path, "w", libver="latest") as file:  # allows large ones
        group = file.create_group("layers/lstm/cell/vars")
        group.attrs["name"] = np.zeros(65 * MIB, "S1")
    return path


@craft("the number of unlike cells in a stack is above the limit")
def stack_of_any_order(bench: Bench) -> Path:
    # Without a config, the order of unlike cells is found by trying: 20! ways.
    path = bench.folder / WEIGHTS
    with h5py.File(path, "w") as file:
        for index in range(20):
            kind, width = ("lstm_cell", 8) if index % 2 else ("gru_cell", 6)
            cell = file.create_group(f"layers/rnn/cell/cells/{kind}_{index}/vars")
            cell["0"] = np.ones((2, width), "f4")
            cell["1"] = np.ones((2, width), "f4")
    return path

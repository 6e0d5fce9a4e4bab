"""Hostile files, made at test time: each is a valid file that converts, and differs in one thing.

A craft is a function that gets a `Bench` and returns the path to convert. What must become of it is
said where it is registered: refused with words in the message, or converted to the same numbers.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "keras-3.6.0"
KERAS, WEIGHTS, LEGACY = "seed95.keras", "seed95.weights.h5", "seed95.h5"
#: The LSTM's kernel, (7, 8), in a v3 store and in a legacy one.
V3_CELL, LEGACY_CELL = "layers/lstm/cell/vars", "model_weights/lstm/lstm/lstm_cell"
SECRET = b"SECRET-" * 64


@dataclass(frozen=True)
class Bench:
    """Where a file is crafted.

    Fields: `folder`, its own; `victim`, a file that nobody may open; `sentinel`, a file that code
    in the crafted file would create; `port`, on which nobody listens.
    """

    folder: Path
    victim: Path
    sentinel: Path
    port: int = 9

    def copy(self, name: str) -> Path:
        """Copy a valid fixture here."""
        return Path(shutil.copy(FIXTURES / name, self.folder / name))

    def write(self, name: str, data: bytes) -> Path:
        """Write a file here."""
        path = self.folder / name
        path.write_bytes(data)
        return path


@dataclass(frozen=True)
class Craft:
    """One attack: `name`, how to make it, and the words of its error, or None if it converts."""

    name: str
    make: Callable[[Bench], Path]
    refused: str | None


CRAFTS: list[Craft] = []


def craft(refused: str | None) -> Callable[[Callable[[Bench], Path]], Callable[[Bench], Path]]:
    """Register a craft whose message has the words `refused`, or that converts (None)."""

    def register(make: Callable[[Bench], Path]) -> Callable[[Bench], Path]:
        CRAFTS.append(Craft(make.__name__, make, refused))
        return make

    return register


def _register(
    name: str, carriers: tuple[Callable[[Bench], Path], ...], refused: str | None
) -> None:
    CRAFTS.extend(Craft(f"{name}-{make.__name__}", make, refused) for make in carriers)


Attack = Callable[[h5py.File, str, Bench], None]


def hdf5_attack(refused: str | None) -> Callable[[Attack], Attack]:
    """Register an attack on an open HDF5 file and its LSTM's group, in all that carry HDF5."""

    def register(attack: Attack) -> Attack:
        def legacy(bench: Bench) -> Path:
            path = bench.copy(LEGACY)
            with h5py.File(path, "r+") as file:
                attack(file, LEGACY_CELL, bench)
            return path

        def weights(bench: Bench) -> Path:
            path = bench.copy(WEIGHTS)
            with h5py.File(path, "r+") as file:
                attack(file, V3_CELL, bench)
            return path

        def archive(bench: Bench) -> Path:
            inner = weights(bench)
            return rezipped(bench, {"model.weights.h5": inner.read_bytes()})

        _register(attack.__name__, (legacy, weights, archive), refused)
        return attack

    return register


def kernel(group: str) -> str:
    """The name of the kernel in an LSTM's group."""
    return f"{group}/0" if group == V3_CELL else f"{group}/kernel"


def taken(file: h5py.File, group: str) -> str:
    """Take the kernel away, and return its name."""
    del file[kernel(group)]
    return kernel(group)


def members(name: str = KERAS) -> dict[str, bytes]:
    """The members of a valid archive."""
    with zipfile.ZipFile(FIXTURES / name) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def rezipped(bench: Bench, changed: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """The valid archive with other members, all checksums right."""
    return bench.write("crafted.keras", zipped({**members(), **changed}, method))


Config = Callable[[Any, dict[str, Any], Bench], None]


def config_attack(refused: str | None) -> Callable[[Config], Config]:
    """Register an attack on a parsed config and its LSTM's entry, as `.keras` and as `.h5`."""

    def register(attack: Config) -> Config:
        def text(bench: Bench) -> str:
            config = json.loads(members()["config.json"])
            lstm = next(x for x in config["config"]["layers"] if x["class_name"] == "LSTM")
            attack(config, lstm, bench)
            return json.dumps(config)

        def archive(bench: Bench) -> Path:
            return rezipped(bench, {"config.json": text(bench).encode()})

        def legacy(bench: Bench) -> Path:
            return with_config(bench, text(bench))

        _register(attack.__name__, (archive, legacy), refused)
        return attack

    return register


def with_config(bench: Bench, text: str | bytes) -> Path:
    """The valid legacy file with another config text."""
    path = bench.copy(LEGACY)
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]
        data = text.encode() if isinstance(text, str) else text
        if len(data) < 60_000:
            file.attrs["model_config"] = np.bytes_(data)
        else:
            file.attrs["model_config"] = text if isinstance(text, str) else text.decode()
    return path


def json_attack(refused: str | None) -> Callable[[Callable[[str], str]], Callable[[str], str]]:
    """Register an attack on the config's text, as `.keras` and as `.h5`."""

    def register(attack: Callable[[str], str]) -> Callable[[str], str]:
        def archive(bench: Bench) -> Path:
            text = attack(members()["config.json"].decode())
            return rezipped(bench, {"config.json": text.encode()})

        def legacy(bench: Bench) -> Path:
            return with_config(bench, attack(members()["config.json"].decode()))

        _register(attack.__name__, (archive, legacy), refused)
        return attack

    return register

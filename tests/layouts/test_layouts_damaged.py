"""Damaged files of other programs: an error of ours, or a model; never another exception."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from support.cli import KERAS
from support.thinned import rounds

import lstmconvert as lc

#: File -> the layout to ask for, and which of its files is damaged.
FILES = {
    "x.params": ("mxnet", "x.params"),
    "x.param": ("ncnn", "x.param"),
    "y.param": ("ncnn", "y.bin"),
    "x.json": ("tfjs", "x.json"),
    "y.json": ("tfjs", "y.bin"),
    "x.mat": ("matlab", "x.mat"),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    layout, damaged = FILES[name]
    lc.convert(KERAS / "both_concat.keras", tmp_path / name, layout=layout)
    good, rng = (tmp_path / damaged).read_bytes(), np.random.default_rng(len(name))
    for number in range(rounds(150)):
        data = bytearray(good)
        # The heads are where a wrong number does most.
        place = int(rng.integers(0, min(len(data) - 4, 300 if number % 2 else 1 << 30)))
        match number % 3:
            case 0:
                data[place] = int(rng.integers(0, 256))
            case 1:
                value = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000]))
                data[place : place + 4] = struct.pack("<I", value)
            case _:
                data = data[:place]
        (tmp_path / damaged).write_bytes(data)
        try:
            model = lc.load(tmp_path / name)
            for layer in model.values():
                for _, _, cell in layer.cells():
                    for _, tensor in cell.tensors():
                        tensor.read()
        except lc.LSTMConvertError:
            continue

"""Files that people have and that are not read: each is named, with what to do."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from support.thinned import each

import lstmconvert as lc
from lstmconvert.containers import table


def data(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        for member in ("configuration.json", "coefficients.bin"):
            archive.writestr(member, "{}")
    return folder / "x.zip"


def elmo(folder: Path) -> Path:
    with h5py.File(folder / "x.hdf5", "w") as file:
        for half in (0, 1):
            for name, shape in (("W_0", (8, 16)), ("B", (16,)), ("W_P_0", (4, 4))):
                file[f"RNN_{half}/RNN/MultiRNNCell/Cell0/LSTMCell/{name}"] = [[0.0] * shape[-1]]
    return folder / "x.hdf5"


#: Tesseract's header: 24 entries, of which the first is not there, and the second behind the table.
TESSDATA = struct.pack("<I24q", 24, -1, 196, *[-1] * 22) + b"x"
MATRIX = {"v": 1, "dim": [1], "data": [0.5]}
ICU = {"model": "Thai", "dic": {"a": 0}, **{f"mat{n}": MATRIX for n in range(1, 10)}}
FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "tesseract, by its bytes": (data("eng.bin", TESSDATA), "Tesseract"),
    "tesseract, by its name": (data("eng.traineddata", b"xxxx"), "Tesseract"),
    "ICU4X": (data("weights.json", json.dumps(ICU).encode()), "ICU4X"),
    "ELMo": (elmo, "ELMo"),
    "GGUF": (data("x.bin", b"GGUF\3\0\0\0" + bytes(16)), "GGUF"),
    "TensorRT": (data("x.plan", b"ftrt" + bytes(20)), "TensorRT"),
    "OpenVINO": (data("x.xml", b'<?xml version="1.0"?><net name="x"/>'), "OpenVINO"),
    "Deeplearning4j": (zipped, "Deeplearning4j"),
    "Torch 7": (data("x.t7", bytes(20)), "Torch 7"),
    "Caffe": (data("x.caffemodel", b"\n\1x" + bytes(20)), "Caffe"),
    "PaddlePaddle": (data("x.pdiparams", bytes(20)), "PaddlePaddle"),
    "MNN": (data("x.mnn", bytes(20)), "MNN"),
    "a graph as text": (data("x.pbtxt", b'node {\n  name: "x"\n}\n'), "as text"),
}


@each("name", FILES)
def test_it_is_named(name: str, tmp_path: Path) -> None:
    make, words = FILES[name]
    with pytest.raises(lc.NotAModel) as caught:
        lc.load(make(tmp_path))
    assert words in caught.value.message
    assert caught.value.message.endswith("not read")
    assert caught.value.hint


def test_the_guide_lists_them_all() -> None:
    text = table.unread()
    for row in table.FOREIGN:
        assert row.hint
        assert row.what.removesuffix(", which is not read") in text
    assert "ELMo" in text
    assert "|" not in "".join(row.what + str(row.hint) for row in table.FOREIGN)

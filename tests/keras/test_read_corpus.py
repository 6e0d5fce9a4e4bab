"""Real public files of Keras 2: what we read is what h5py sees in the fused arrays.

What they prove of a reader, `test_read_fixtures` proves of our own fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import keras_tools as tools
from support.corpus import CORPUS, corpus_files

import lstmconvert as lc
from lstmconvert.errors import SourceError
from lstmconvert.model.gates import GATES
from lstmconvert.tensors.dtypes import same_bits

pytestmark = pytest.mark.corpus

#: File -> its LSTM layers, by hand from its config: (name, class, units of each half).
KERAS2: dict[str, list[tuple[str, str, list[int]]]] = {
    "dl4j__bidirectional_lstm_tensorflow_2.h5": [("bidirectional_1", "Bidirectional", [10, 10])],
    "dl4j__lstm_functional_tf_keras_2.h5": [("lstm", "LSTM", [8])],
    "dl4j__masking_two_lstm.h5": [("lstm_2", "LSTM", [32])],
    "dl4j__rnn_4.h5": [("lstm", "LSTM", [6])],
    "dl4j__simple_flatten_lstm_tf_keras_2_model.h5": [("lstm_1", "LSTM", [50])],
    "dl4j__simple_lstm_tf_keras_2_model.h5": [("lstm_1", "LSTM", [50])],
    "dl4j__simple_lstm_tf_keras_2_weights.h5": [("lstm_1", "LSTM", [50])],
    "minimaxir_textgenrnn__hacker_news@ada2bf40.hdf5": [("rnn", "LSTM", [128])],
    "umbertogriffo_Predictive-Maintenance-using-LSTM__regression_model.h5": [
        ("lstm_1", "LSTM", [100]),
        ("lstm_2", "LSTM", [50]),
    ],
    "zabir-nabil_dot-res-lstm__bilstm.h5": [
        ("bidirectional_5", "Bidirectional", [40, 40]),
        ("bidirectional_6", "Bidirectional", [40, 40]),
    ],
}
#: Every file of the corpus that is not a source yet, or never, by pattern: why. A file that is read
#: and stands in no table fails `test_every_file_is_in_a_table`.
NOT_READ: dict[str, str] = {
    "*.md": "no model",
    "MANIFEST.json": "no model",
    "*.csv": "recorded numbers",
    "*_inputs_and_outputs.h5": "recorded numbers",
}
#: Read, by tests of their own: other containers and layouts than Keras 2's and 3's.
ELSEWHERE: dict[str, str] = {
    "*_1.h5": "Keras 1",
    "*_keras_1_*.h5": "Keras 1",
    "dl4j__lstm_tf_model.h5": "Keras 1",
    "minimaxir_textgenrnn__textgenrnn_weights.hdf5": "CuDNNLSTM",
    "zabir-nabil_dot-res-lstm__dot_res_lstm-01-0.65.hdf5": "CuDNNLSTM",
    "*.onnx": "ONNX",
    "*.safetensors": "PyTorch's layout",
    "jatinchowdhury18_RTNeural__*.json": "RTNeural",
    "crazydonkey200__char_rnn": "a TensorFlow 1 checkpoint",
    "iteam1__lstm_model": "a SavedModel",
}


def matches(table: dict[str, str], name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in table)


MODELS = corpus_files(
    lambda p: not matches(NOT_READ, p.name) and not matches(ELSEWHERE, p.name)
)


def test_every_file_is_in_a_table() -> None:
    found = {model.id for model in MODELS}
    others = {name for name in found if name.startswith(("dl4j__rnn_", "dl4j__convlstm2d_"))}
    assert found == set(KERAS2) | others
    assert len(others) >= 9


def recurrent(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield `(layer, arrays in file order)` of the layers with LSTM weights, by h5py alone."""
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        for layer in texts(root.attrs["layer_names"]):
            group = root[layer]
            names = texts(group.attrs["weight_names"])
            scopes = {n.rpartition("/")[0] for n in names if "recurrent_kernel" in n}
            arrays = [group[n][()] for n in names if n.rpartition("/")[0] in scopes]
            if arrays and arrays[1].shape[-1] == 4 * arrays[1].shape[-2]:
                yield layer, arrays


def texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else value for value in values]


@pytest.mark.parametrize("path", MODELS)
def test_gates_are_slices_of_the_files_arrays(path: Path) -> None:
    wanted = dict(recurrent(path))
    model = lc.load(path)
    assert {layer.name.split("/")[0] for layer in model.layers} == set(wanted)
    for top, arrays in wanted.items():
        cells = [
            cell
            for layer in model.layers
            if layer.name.split("/")[0] == top
            for _, _, cell in layer.cells()
        ]
        assert sum(len(cell.gate_parts) for cell in cells) == len(arrays)
        rest = iter(arrays)
        for cell in cells:
            for part in cell.gate_parts:
                fused = next(rest)
                for index, gate in enumerate(GATES):
                    columns = slice(index * cell.units, (index + 1) * cell.units)
                    one = cell.gates[gate].tensors[part].read()
                    assert same_bits(one, np.ascontiguousarray(fused[..., columns]))


@pytest.mark.parametrize("name", KERAS2)
def test_layers_by_hand(name: str) -> None:
    found = [
        (layer.name, layer.class_name, [d.units for _, d in layer.directions])
        for layer in lc.load(CORPUS / name).layers
    ]
    assert found == KERAS2[name]


@pytest.mark.parametrize("path", MODELS)
def test_per_gate_and_back(path: Path, tmp_path: Path) -> None:
    """Into safetensors, and back into a legacy `.h5`: every array of the source, bit for bit."""
    lc.convert(path, tmp_path / "g.safetensors")
    result = lc.convert(tmp_path / "g.safetensors", tmp_path / "back.h5")
    assert result.losses == ()
    source = {n: a for n, a in tools.stored(path).items() if not n.startswith("optimizer")}
    tools.assert_same_arrays(tools.stored(tmp_path / "back.h5"), source)
    assert tools.config_text(tmp_path / "back.h5") == tools.config_text(path)


@pytest.mark.parametrize("path", corpus_files(lambda p: matches(NOT_READ, p.name)))
def test_what_is_no_source(path: Path) -> None:
    with pytest.raises(SourceError):
        lc.load(path)

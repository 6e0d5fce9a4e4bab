"""The C header, compiled with gcc: its forward pass answers as Keras does."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_tools import SINGLE, case, close
from neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.activations import KERAS3
from lstmconvert.dtypes import Array
from lstmconvert.layer import LSTMLayer
from lstmconvert.model import Model, Source

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-ffp-contract=off")


def compiled(layer: LSTMLayer, folder: Path) -> Any:
    lc.save(layer, folder / "lstm.h", force=True)
    kind = "double" if layer.dtype.name == "float64" else "float"
    own = layer.name
    (folder / "lstm.c").write_text(
        '#include "lstm.h"\n'
        f"void run(const {kind} *x, int steps, {kind} *y) {{ {own}_forward(x, steps, y); }}\n"
    )
    library = folder / f"lib{len(list(folder.iterdir()))}.so"
    command = ["gcc", *STRICT, "-shared", "-fPIC", "-o", library, folder / "lstm.c", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library)).run


def answer(layer: LSTMLayer, x: Array, folder: Path) -> Array:
    function, dtype = compiled(layer, folder), layer.dtype
    width = sum(direction.units for _, direction in layer.directions)
    outputs = []
    for sequence in x.astype(dtype):
        sequence, y = np.ascontiguousarray(sequence), np.zeros((len(sequence), width), dtype)
        function(ctypes.c_void_p(sequence.ctypes.data), len(y), ctypes.c_void_p(y.ctypes.data))
        outputs.append(y)
    return np.stack(outputs)


@pytest.mark.parametrize("name", SINGLE)
def test_the_forward_pass_answers_as_keras_does(name: str, tmp_path: Path) -> None:
    known = case(name)
    close(answer(known.layer, known.x, tmp_path), known.y)


@pytest.mark.parametrize(
    ("activation", "recurrent"),
    [("relu", "hard_sigmoid"), ("softsign", "sigmoid"), ("elu", "linear"), ("silu", "softplus")],
)
def test_other_functions(activation: str, recurrent: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    options = {"activation": KERAS3[activation], "recurrent_activation": KERAS3[recurrent]}
    cell = make_cell(rng, 3, 2, dtype="float64", scale=0.2, **options)
    layer = make_layer(cell, return_sequences=True)
    x = rng.normal(size=(2, 5, 3))
    close(answer(layer, x, tmp_path), reference.run(layer, x).outputs[0], 1e-13)


def test_stacked_cells_in_two_directions(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    halves = [[make_cell(rng, 3, 4), make_cell(rng, 4, 2)] for _ in range(2)]
    x = rng.normal(size=(2, 5, 3)).astype(np.float32)
    for layer in (make_layer(halves[0]), make_layer(*halves)):
        layer = with_sequences(layer)
        close(answer(layer, x, tmp_path), reference.run(layer, x).outputs[0])
    assert "lstm_forward_cells_1_output_gate_bias[2]" in (tmp_path / "lstm.h").read_text()


def with_sequences(layer: LSTMLayer) -> LSTMLayer:
    halves = {
        side: replace(half, options=replace(half.options, return_sequences=True))
        for side, half in layer.directions
    }
    return replace(layer, forward=halves["forward"], backward=halves.get("backward"))


@pytest.mark.parametrize("names", [("lstm", "lstm_forward"), ("a/b", "a_b")])
def test_names_that_would_clash(names: tuple[str, str], tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    both = make_layer(make_cell(rng, 3, 2), make_cell(rng, 3, 2), name=names[0])
    layers = (both, make_layer(make_cell(rng, 3, 2), name=names[1]))
    with pytest.raises(lc.LSTMConvertError, match="one name in C"):
        lc.save(Model(layers=layers, source=Source(container="live"), container="live"),
                tmp_path / "x.h")  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_one_array_for_each_gate_is_there_bit_for_bit(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2), name="net/enc */ x")
    lc.save(layer, tmp_path / "x.h")
    text = (tmp_path / "x.h").read_text()
    assert "static const float net_enc_x_forget_gate_recurrent_kernel[2][2]" in text
    number = float(layer.forget_gate.kernel[1, 0]).hex()
    assert f"{number}f" in text
    assert text.count("*/") == text.count("/*")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": KERAS3["gelu"]}, "no activation gelu"),
        ({"dtype": "bfloat16"}, "C has no such type"),
        ({"projected": 1}, "projection"),
    ],
)
def test_what_is_not_written_in_c(options: Any, message: str, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2, **options))
    with pytest.raises(lc.LSTMConvertError, match=message):
        lc.save(layer, tmp_path / "x.h")
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_steps_alone_compiles_without_a_warning(tmp_path: Path) -> None:
    """Audio plug-ins keep the states themselves, and never call the forward pass."""
    lc.save(case("bidirectional").layer, tmp_path / "lstm.h")
    (tmp_path / "x.c").write_text('#include "lstm.h"\nint main(void) { return 0; }\n')
    command = ["gcc", *STRICT, "-Wno-unused-const-variable", "-o", tmp_path / "x", tmp_path / "x.c"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_nan_is_refused(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2))
    layer.forget_gate.tensors["bias"]._array[0] = np.nan
    with pytest.raises(lc.LSTMConvertError, match="NaN"):
        lc.save(layer, tmp_path / "x.h")

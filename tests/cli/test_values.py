"""`inspect --values`: the numbers that people and programs are shown are those of the file."""

from __future__ import annotations

import math
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cli import FIXTURES, KERAS, SEED95, failure, run
from support.neutral import make_cell, make_layer
from support.thinned import rounds

import lstmconvert as lc
from lstmconvert.checks import words
from lstmconvert.tensors.dtypes import Array, bits, dtype_of

SEED95_VALUES = """
lstm: weights, a column for each unit

                   input          forget            cell          output
  unit         0       1       0       1       0       1       0       1
  column       0       1       2       3       4       5       6       7
  x 0      0.717   0.799   0.456  -0.726  -0.381   0.633   0.314  -0.777
  x 1      0.372   0.299  -0.389   0.362   0.870  -0.751   0.579  -0.405
  x 2     -0.305  -0.396  -0.573   0.568   0.822   0.654  -0.167   0.288
  x 3     -0.650  -0.255   0.436  -0.166      -0  -0.772   0.497   0.394
  x 4      0.651   0.416  -0.279   0.173  -0.840  -0.550   0.793  -0.745
  x 5      0.645  -0.510   0.174  -0.753   0.717   0.655  -0.319   0.246
  x 6     -0.709  -0.373   0.687   0.147   0.410   0.531   0.778   0.746
  h 0     -0.613  -0.231   0.821   0.760  -0.725   0.120   0.126   0.159
  h 1         -0   0.584  -0.151  -0.616  -0.671   0.890  -0.872  -0.497
  b       -0.292   0.778   0.127  -0.557      -0  -0.382  -0.787   0.789
"""


def rng() -> np.random.Generator:
    return np.random.default_rng(15)


def fused(path: Path, wide: int) -> dict[int, Array]:
    """The matrices of a file whose last axis is `wide`, read by h5py, by their number of rows."""
    arrays: list[Array] = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: arrays.append(item[()]) if hasattr(item, "shape") else None)
    return {len(a): a for a in arrays if a.ndim == 2 and a.shape[1] == wide}


def test_the_example_fits_a_screen_and_shows_its_eight_columns() -> None:
    out = run("inspect", SEED95, "--values").out
    assert SEED95_VALUES in out
    assert len(out.splitlines()) < 50


def test_the_numbers_are_those_that_h5py_reads() -> None:
    out = run("inspect", KERAS / "seed95.h5", "--values", "--precision", "exact").out
    rows = re.findall(r"^  ([xhb]) ?\d* +(.*\d)$", out, re.MULTILINE)
    arrays = fused(KERAS / "seed95.h5", 8)
    for letter, count in (("x", 7), ("h", 2)):
        table = [[float(t) for t in numbers.split()] for name, numbers in rows if name == letter]
        columns = np.split(np.asarray(table, np.float32), len(table) // count)  # gate below gate
        assert np.array_equal(bits(np.concatenate(columns, axis=1)), bits(arrays[count]))


def test_one_gate_with_every_digit() -> None:
    out = run("inspect", SEED95, "--values", "--gate", "forget", "--precision", "exact").out
    assert "\n  forget gate, columns 2:4 of Keras's fused kernel\n" in out
    assert "\n  x 0      0.45573574  -0.72557235\n" in out
    assert "output gate" not in out


def test_a_large_matrix_shows_its_corners_and_says_so(tmp_path: Path) -> None:
    cell = make_cell(rng(), 257, 128)
    path = tmp_path / "big.safetensors"
    lc.save(make_layer(cell), path)
    out = run("inspect", path, "--values", "--precision", "2").out
    kernel = cell.forget_gate.kernel
    forget = out.partition("forget gate, columns 128:256")[2].partition("cell gate")[0]
    for row in (0, 5, 254, 256):
        numbers = re.search(rf"\n  x {row} +(.*)\n", forget)
        assert numbers
        texts = numbers[1].split()
        assert float(texts[0]) == pytest.approx(kernel[row, 0], abs=0.0501)
        assert float(texts[-1]) == pytest.approx(kernel[row, 127], abs=0.0501)
    assert "x 6 " not in forget
    assert "corners of 197,632 weights: --json prints all of them" in " ".join(out.split())
    assert all(len(line) <= 80 for line in out.splitlines())
    assert len(out.splitlines()) < 150


def test_parts_of_other_frameworks_and_of_the_cell(tmp_path: Path) -> None:
    vectors = ("bias", "recurrent_bias", "peephole", "layer_norm", "layer_norm_bias")
    cell = make_cell(rng(), 4, 2, projected=2, gate_parts=vectors, parts={"initial_cell": (2,)})
    path = tmp_path / "odd.safetensors"
    lc.save(make_layer(cell), path)
    out = run("inspect", path, "--values").out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert len(lines["p"]) == 6  # the cell gate has none
    assert [len(lines[name]) for name in ("b", "b'", "γ", "β")] == [8] * 4
    assert "\n  projection\n  column       0       1\n  row 0   " in out
    assert "\n  initial_cell\n" in out
    assert "corners" not in out


def test_a_convolution_names_the_place_and_the_channel() -> None:
    out = run("inspect", FIXTURES / "keras-2.3.1" / "conv_lstm.h5", "--values").out
    assert "a column for each filter\n" in out
    assert "\n  x 2,1 ch 0   " in out
    assert "\n  h 2,1 ch 2   " in out


def test_stacks_and_both_directions_show_every_cell() -> None:
    out = run("inspect", KERAS / "both_concat.keras", "--values").out
    assert "\nboth.forward: weights" in out
    assert "\nboth.backward: weights" in out
    out = run("inspect", KERAS / "rnn_stack_gru.keras", "--values").out
    assert "\nstack.forward.cells.0: weights" in out or "\nstack.cells.0: weights" in out


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_json_has_every_bit(tmp_path: Path, dtype: str) -> None:
    cell = make_cell(rng(), 5, 3, dtype=dtype, gate_parts=("bias", "peephole"), projected=2)
    path = tmp_path / "lstm.safetensors"
    lc.save(make_layer(cell), path)
    values = run("inspect", path, "--json", "--values").json["layers"][0]["values"]
    for name, tensor in cell.tensors():
        gate, _, part = name.rpartition("_gate.")
        narrow = np.dtype("f8" if dtype == "float64" else "f4")
        array = np.asarray(values[gate][part], narrow).astype(dtype_of(dtype))
        assert array.shape == tensor.shape
        assert np.array_equal(bits(array), bits(tensor.read()))
    one = run("inspect", path, "--json", "--values", "--stats", "--gate", "output").json
    assert list(one["layers"][0]["values"]) == ["output"]
    assert list(one["layers"][0]["stats"]) == ["output"]
    assert "values" not in run("inspect", path, "--json").json["layers"][0]


def test_json_refuses_more_numbers_than_a_text_should_hold(tmp_path: Path) -> None:
    error, hint = failure(
        "inspect", SEED95, "--json", "--values", LSTMCONVERT_MAX_JSON_NUMBERS="79"
    )
    assert "found 80" in error
    assert "name a --layer" in error
    assert "LSTMCONVERT_MAX_JSON_NUMBERS=80" in hint


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    assert "say --values or --stats too" in failure("inspect", SEED95, "--gate", "forget")[0]
    assert "say that too" in failure("inspect", SEED95, "--precision", "3")[0]
    for text in ("0", "18", "-1", "many", "³"):
        error, _ = failure("inspect", SEED95, "--values", "--precision", text)
        assert "neither a number of digits, 1 to 17, nor exact" in error
    error, _ = failure("inspect", SEED95, "--values", "--json", "--precision", "3")
    assert "leave --precision away" in error
    path = tmp_path / "coupled.safetensors"
    lc.save(make_layer(make_cell(rng(), 3, 2, input_forget=True)), path)
    error, hint = failure("inspect", path, "--values", "--gate", "input")
    assert "no cell stores the input gate" in error
    assert "--gate forget" in hint


def test_a_cell_without_the_gate_beside_one_that_has_it(tmp_path: Path) -> None:
    layer = make_layer(make_cell(rng(), 3, 2, input_forget=True), make_cell(rng(), 3, 2))
    path = tmp_path / "both.safetensors"
    lc.save(layer, path)
    out = run("inspect", path, "--values", "--gate", "input").out
    assert "\nlstm.forward stores no input gate\n" in out
    assert "\nlstm.backward: weights" in out


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (0.0, 3, "0"),
        (-0.0, 3, "-0"),
        (0.0004, 3, "4e-4"),
        (-3.1e-5, 3, "-3e-5"),
        (0.0006, 3, "0.001"),
        (1234.5, 0, "1234"),
        (math.nan, 3, "NaN"),
        (-math.inf, 3, "-Inf"),
        (2.5e-9, words.EXPONENT, "2.50e-9"),
    ],
)
def test_numbers_as_text(value: float, places: int, text: str) -> None:
    assert words.fixed(value, places, 3) == text


@settings(max_examples=rounds(200), deadline=None)
@given(st.floats(width=32), st.integers(1, 9), st.floats(min_value=1e-30, max_value=1e30))
def test_no_text_hides_a_weight(value: float, digits: int, largest: float) -> None:
    """Only a zero reads as zero, signs stay, and the exact text reads back as the same bits."""
    text = words.fixed(value, words.decimals(largest, digits), digits)
    if math.isfinite(value):
        assert (float(text) == 0) == (value == 0)
        assert math.copysign(1, float(text)) == math.copysign(1, value)
        back = np.float32(words.exact(value))
        assert bits(np.asarray(back)) == bits(np.asarray(np.float32(value)))

"""The C header, compiled with gcc: its forward pass answers as Keras does."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import SEED95
from support.layout_tools import SINGLE, case, close
from support.neutral import make_cell, make_layer
from support.thinned import turns

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.containers import cheader
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model import edit
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3, KERAS3
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.reference import chains
from lstmconvert.tensors import quantized
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import ArrayTensor

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-ffp-contract=off")


MAIN = """
#include "lstm.h"
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words) {
  int steps = atoi(words[1]), inputs = atoi(words[2]), width = atoi(words[3]);
  TYPE *x = malloc(sizeof(TYPE) * steps * inputs), *y = malloc(sizeof(TYPE) * steps * width);
  (void)count;
  while (fread(x, sizeof(TYPE), steps * inputs, stdin) == (size_t)(steps * inputs)) {
    NAME_forward(x, steps, y);
    fwrite(y, sizeof(TYPE), steps * width, stdout);
  }
  return 0;
}
"""


def compiled(layer: LSTMLayer, folder: Path, flags: Sequence[str], **how: Any) -> Path:
    """Return a program that runs the forward pass.

    It is a process of its own: with -ffast-math, gcc sets the processor to take subnormal numbers
    for zero, for all that runs in the process.
    """
    lc.save(layer, folder / "lstm.h", force=True, warn=False, **how)
    kind = "double" if layer.dtype.name == "float64" else "float"
    text = MAIN.replace("TYPE", kind).replace("NAME", layer.name)
    (folder / "lstm.c").write_text(text)
    program = folder / "program"
    command = ["gcc", *flags, "-o", program, folder / "lstm.c", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def answer(
    layer: LSTMLayer, x: Array, folder: Path, flags: Sequence[str] = STRICT, **how: Any
) -> Array:
    width = sum(direction.units for _, direction in layer.directions)
    batch, steps, inputs = x.shape
    command = [compiled(layer, folder, flags, **how), str(steps), str(inputs), str(width)]
    given = np.ascontiguousarray(x.astype(layer.dtype)).tobytes()
    done = subprocess.run(command, input=given, capture_output=True, check=True)
    return np.frombuffer(done.stdout, layer.dtype).reshape(batch, steps, width)


@pytest.mark.engines
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
    assert f"{{{layer.forget_gate.kernel[1, 0]!s}f, " in text
    assert text.count("*/") == text.count("/*")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": KERAS3["gelu"]}, "cannot express activation; found gelu"),
        ({"dtype": "bfloat16"}, "cannot express dtype; found bfloat16; expected float32, float64"),
        ({"projected": 1}, "projection"),
    ],
)
def test_what_is_not_written_in_c(options: Any, message: str, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2, **options))
    with pytest.raises(lc.LSTMConvertError, match=message):
        lc.save(layer, tmp_path / "x.h")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engines
def test_a_program_that_steps_alone_compiles_without_a_warning(tmp_path: Path) -> None:
    """Audio plug-ins keep the states themselves, and never call the forward pass."""
    lc.save(case("bidirectional").layer, tmp_path / "lstm.h")
    (tmp_path / "x.c").write_text('#include "lstm.h"\nint main(void) { return 0; }\n')
    command = ["gcc", *STRICT, "-Wno-unused-const-variable", "-o", tmp_path / "x", tmp_path / "x.c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nan_is_refused(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2))
    layer.forget_gate.tensors["bias"]._array[0] = np.nan
    with pytest.raises(lc.LSTMConvertError, match="NaN"):
        lc.save(layer, tmp_path / "x.h")


# ---- what a compiler may do, and what it may not ------------------------------------------------

FAST = ("-std=c99", "-O3", "-ffast-math")
BOUNDED = (
    *(KERAS3["tanh"], KERAS3["sigmoid"], KERAS3["softsign"]),
    *(HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3),
)
_FUNCTIONS = [
    *ROWS["c"].activation.exact,
    KERAS3["elu"],
    HARD_SIGMOID_KERAS2,
    HARD_SIGMOID_KERAS3,
]
_PLACES = ("activation", "recurrent_activation")


@pytest.mark.parametrize(
    ("activation", "factor", "option"),
    [
        *((function, 300 if function in BOUNDED else 1, option)
          for function, option in turns(_FUNCTIONS, _PLACES)),
        *(pytest.param(function, 1, option, marks=pytest.mark.slow)
          for option in _PLACES for function in BOUNDED),
    ],
    ids=str,
)  # fmt: skip
def test_saturated_gates_stay_finite_whatever_the_compiler_assumes(
    activation: Any, factor: int, option: str, tmp_path: Path
) -> None:
    """-ffast-math takes infinity for impossible: no function may pass through it.

    Of a function without a bound, large weights would leave the type.
    """
    cell = make_cell(np.random.default_rng(7), 3, 4, scale=0.3 * factor, **{option: activation})
    layer = make_layer(cell, return_sequences=True)
    x = np.random.default_rng(8).normal(size=(2, 7, 3)).astype(np.float32)
    wanted = reference.run(layer, x).outputs[0]
    assert np.isfinite(wanted).all()
    close(answer(layer, x, tmp_path, FAST), wanted, 1e-5 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize(
    ("standard", "dtype"),
    [*turns(("c++11", "c++20", "c99"), ("float32", "float64")),
     *(pytest.param(*row, marks=pytest.mark.slow)
       for row in turns(("c++14", "c++17", "c11"), ("float64", "float32")))],
)  # fmt: skip
def test_each_number_is_the_same_bits_in_every_standard(
    standard: str, dtype: str, tmp_path: Path
) -> None:
    """Any bits of a finite number: subnormals, -0.0, the largest and the smallest."""
    rng = np.random.default_rng(4)
    layer = make_layer(make_cell(rng, 40, 8, dtype=dtype))
    kernel = layer.forget_gate.tensors["kernel"]._array
    raw = rng.integers(0, 2**63, kernel.shape, np.uint64).astype(f"u{kernel.itemsize}")
    some = raw.view(kernel.dtype)
    info = np.finfo(dtype)
    edges = [0.0, -0.0, info.max, info.min, info.tiny, info.smallest_subnormal, 0.1, 1e16]
    some.reshape(-1)[: len(edges)] = edges
    kernel[:] = np.where(np.isfinite(some), some, 0)
    lc.save(layer, tmp_path / "lstm.h")
    is_c = not standard.startswith("c++")
    kind = "float" if dtype == "float32" else "double"
    name = "main.c" if is_c else "main.cpp"
    (tmp_path / name).write_text(
        '#include "lstm.h"\n#include "lstm.h"\n#include <stdio.h>\n'
        f"int main(void) {{ {kind} x[40] = {{0}}, y[8]; lstm_forward(x, 1, y);\n"
        "  fwrite(lstm_forget_gate_kernel, sizeof(lstm_forget_gate_kernel), 1, stdout);\n"
        "  return 0; }\n"
    )
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic-errors"]
    command = ["gcc" if is_c else "g++", f"-std={standard}", *strict, "-o", tmp_path / "main"]
    done = subprocess.run(
        [*command, tmp_path / name, "-lm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    out = subprocess.run([tmp_path / "main"], capture_output=True).stdout
    assert out == kernel.tobytes()


def test_literals_have_the_fewest_digits(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2))
    layer.forget_gate.tensors["kernel"]._array[0] = [0.1, -1e-10]
    lc.save(layer, tmp_path / "x.h")
    text = (tmp_path / "x.h").read_text()
    assert "{0.1f, -1e-10f}" in text
    assert "0x" not in text


# ---- integers with scales -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", quantized.LARGEST)
def test_each_column_has_the_scale_of_its_largest_weight(kind: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    array = (rng.normal(size=(9, 5)) * [1, 1e-30, 0, 1e3, 1]).astype(dtype)
    array[2, 4] = np.finfo(dtype).max
    made = quantized.quantized(array, kind)
    assert made.integers.dtype == kind
    assert [abs(made.integers[:, k].astype(int)).max() for k in range(5)] == [
        quantized.LARGEST[kind] * (k != 2) for k in range(5)
    ]
    error = abs(made.numbers.astype(np.float64) - array)
    assert np.isfinite(made.numbers).all()
    assert (error <= 0.501 * made.scales.astype(np.float64)).all()
    assert made.nbytes < array.nbytes


@pytest.mark.parametrize("kind", quantized.LARGEST)
def test_two_directions_of_integers(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    halves = [[make_cell(rng, 3, 4), make_cell(rng, 4, 2)] for _ in range(2)]
    layer = with_sequences(make_layer(*halves))
    x = rng.normal(size=(1, 5, 3)).astype(np.float32)
    before = answer(layer, x, tmp_path)
    after = answer(layer, x, tmp_path, weights=kind)
    small = chains.rounded(chains.alone(layer), kind)
    close(after, chains.run(small, x), 2e-6)
    assert abs(after - before).max() > (1e-4 if kind == "int8" else 1e-7)
    text = (tmp_path / "lstm.h").read_text()
    assert f"static const {kind}_t lstm_forward_cells_0_forget_gate_kernel[3][4]" in text
    # Two rows of int16 would take more with their scales.
    is_small = f"static const {kind}_t lstm_forward_cells_1_forget_gate_recurrent_kernel" in text
    assert is_small is (kind == "int8")


def test_an_integer_that_is_not_the_one_meant_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(array: Array, end: str) -> str:
        is_integer = array.dtype.name == "int8"
        return literals(array + is_integer if array.ndim == 1 else array, end)

    literals = cheader._literals
    monkeypatch.setattr(cheader, "_literals", wrong)
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2))
    with pytest.raises(lc.LSTMConvertError, match="differs from the intended one"):
        lc.save(layer, tmp_path / "x.h", weights="int8", warn=False)


def test_other_integers_are_refused(tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(2), 3, 2))
    with pytest.raises(lc.LSTMConvertError, match=r"no such weights; found int4; expected int8"):
        lc.save(layer, tmp_path / "x.h", weights="int4")
    with pytest.raises(lc.LSTMConvertError, match=r"--weights is for C headers \(\.h\)"):
        lc.save(layer, tmp_path / "x.safetensors", weights="int8")


@pytest.mark.parametrize("roles", [("hidden", "cell"), ("cell",)])
def test_a_sequence_begins_with_the_stored_states(roles: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    plain = make_layer([make_cell(rng, 3, 4)], [make_cell(rng, 3, 4)])
    names = [f"initial_{role}" for role in roles]

    def started(_: str, __: int, cell: Cell) -> Cell:
        parts = {name: ArrayTensor(rng.normal(size=4).astype(np.float32)) for name in names}
        return replace(cell, parts=parts)

    layer = with_sequences(edit.map_cells(plain, started))
    x = rng.normal(size=(2, 5, 3)).astype(np.float32)
    wanted = reference.run(layer, x).outputs[0]
    close(answer(layer, x, tmp_path), wanted)
    assert abs(wanted - reference.run(with_sequences(plain), x).outputs[0]).max() > 0.01


# ---- what the file says of itself ---------------------------------------------------------------


def test_two_models_of_one_layer_name_have_two_include_guards(tmp_path: Path) -> None:
    guards = []
    for seed in (1, 2, 2):
        lc.save(make_layer(make_cell(np.random.default_rng(seed), 3, 2)), tmp_path / f"{seed}.h",
                force=True)  # fmt: skip
        guards.append((tmp_path / f"{seed}.h").read_text().splitlines()[0])
    assert guards[0] != guards[1]
    assert guards[1] == guards[2]
    assert guards[0].startswith("#ifndef LSTMCONVERT_LSTM_")


def test_it_says_where_it_came_from_and_how_it_is_used(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.h")
    head = (tmp_path / "x.h").read_text().partition("#include")[0]
    assert hashlib.sha256(Path(SEED95).read_bytes()).hexdigest() in head
    assert f"lstmconvert {lc.__version__}" in head
    assert "lstm (80 weights)" in head
    # The usage is C, and compiles.
    usage = [line[6:] for line in head.splitlines() if line.startswith(" *     ")]
    (tmp_path / "x.c").write_text(
        '#include "x.h"\n#define STEPS 5\n'
        "int main(void) { float x[STEPS * 7] = {0};\n" + "\n".join(usage)
        + "\nlstm_step(x, h, c); return (int)(y[0] + h[0]); }\n"
    )
    command = ["gcc", *STRICT, "-o", tmp_path / "x", tmp_path / "x.c", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""The table of layouts: what goes in comes out, bit for bit; each row says what is documented."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.neutral import make_cell, make_layer
from support.thinned import ALL, each

import lstmconvert as lc
from lstmconvert.layouts import find
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3, Activation
from lstmconvert.model.gates import Gate, by_letters
from lstmconvert.model.layer import LSTMLayer, OpaqueCell
from lstmconvert.model.model import Model
from lstmconvert.model.options import UNKNOWN
from lstmconvert.tensors.dtypes import Array, same_bits
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

#: The layouts that take a layer of one direction.
LAYOUTS = sorted(name for name, row in ROWS.items() if not row.paired)
#: Layouts that store a bias less what they add at run time: not exact, and declared.
SHIFTED = {name for name, row in ROWS.items() if row.forget_bias}
EXACT = sorted(set(LAYOUTS) - SHIFTED)
INPUTS, H = 4, 3


def layer_of(seed: int = 0, **options: Any) -> LSTMLayer:
    return make_layer(make_cell(np.random.default_rng(seed), INPUTS, H, **options))


def both_of(**options: Any) -> LSTMLayer:
    rng = np.random.default_rng(5)
    return make_layer(make_cell(rng, INPUTS, H, **options), make_cell(rng, INPUTS, H, **options))


def tensors(value: LSTMLayer | Model) -> Iterator[tuple[str, Array]]:
    for layer in [value] if isinstance(value, LSTMLayer) else value.values():
        for side, index, cell in layer.cells():
            for name, tensor in cell.tensors():
                yield f"{layer.name}.{side}.{index}.{name}", tensor.read()


def assert_same(one: LSTMLayer | Model, two: LSTMLayer | Model) -> None:
    a, b = dict(tensors(one)), dict(tensors(two))
    assert set(a) == set(b)
    for name in a:
        assert same_bits(a[name], b[name]), name


def fits(layout: str, *, both: bool = False) -> bool:
    return not (both and ROWS[layout].single)


# ---- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=6 if ALL else 3, deadline=None)
@given(
    inputs=st.integers(1, 5),
    units=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
    both=st.booleans(),
    biased=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_arrays_come_back_bit_for_bit(
    layout: str, inputs: int, units: int, dtype: str, both: bool, biased: bool, seed: int
) -> None:
    """gather, then arrange, is the identity on any arrays of a layout, whatever their bits."""
    row = ROWS[layout]
    both = both and fits(layout, both=True)
    rng = np.random.default_rng(seed)
    made = {
        "gate_parts": ("bias",) if biased or row.always_bias else (),
        "dtype": dtype,
        "forget_bias": row.forget_bias,
    }
    cells = [make_cell(rng, inputs, units, **made) for _ in range(1 + both)]
    layer = make_layer(*cells)
    if dtype not in row.dtypes:
        refused(layer, layout, "dtype")
        return
    arrays = {name: _odd_bits(array) for name, array in lc.arrange(layer, layout).items()}
    found = lc.gather(arrays, layout)
    again = lc.arrange(found, layout)
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        assert same_bits(again[name], array), name


def _odd_bits(array: Array) -> Array:
    """Return an array with a -0.0 and a NaN with a payload in it, where it is not all zeros."""
    if not array.any() or array.size < 3:
        return array
    array = array.copy()
    flat = array.reshape(-1)
    flat[1] = -0.0
    raw = flat.view(np.uint8).reshape(flat.size, -1)
    raw[2, -2:] = (0xC1, 0x7F) if array.dtype.itemsize != 8 else (0xF9, 0x7F)
    return array


@each("layout", EXACT)
@each("both", [False, True])
def test_a_layer_comes_back_bit_for_bit(layout: str, both: bool) -> None:
    if not fits(layout, both=both):
        with pytest.raises(lc.LSTMConvertError, match="Bidirectional"):
            lc.arrange(both_of(), layout)
        return
    layer = both_of() if both else layer_of()
    assert_same(lc.gather(lc.arrange(layer, layout), layout), layer)


@each("layout", LAYOUTS)
def test_a_layer_without_bias_comes_back_without_or_with_zeros(layout: str) -> None:
    layer = layer_of(gate_parts=(), forget_bias=ROWS[layout].forget_bias)
    found = lc.gather(lc.arrange(layer, layout), layout)
    assert isinstance(found, LSTMLayer)
    assert found.cell.use_bias is ROWS[layout].always_bias
    if found.cell.use_bias:
        assert not found.forget_gate.bias.any()
    assert same_bits(found.cell_gate.kernel, layer.cell_gate.kernel)


@each("layout", [n for n in LAYOUTS if "recurrent_bias" in ROWS[n].parts])
def test_two_biases_stay_apart(layout: str) -> None:
    layer = layer_of(gate_parts=("bias", "recurrent_bias"))
    assert_same(lc.gather(lc.arrange(layer, layout), layout), layer)


@each("layout", [n for n in EXACT if "recurrent_bias" not in ROWS[n].parts])
def test_two_biases_are_summed_and_it_is_said(layout: str) -> None:
    layer = layer_of(gate_parts=("bias", "recurrent_bias"))
    with pytest.warns(UserWarning, match="lstm: .* has one bias: .* summed, rounded"):
        arrays = lc.arrange(layer, layout)
    found = lc.gather(arrays, layout)
    weights = layer.forget_gate
    assert same_bits(found.forget_gate.bias, weights.bias + weights.recurrent_bias)


@each("layout", [n for n in EXACT if "recurrent_bias" not in ROWS[n].parts])
def test_a_second_bias_of_zeros_is_no_loss(layout: str) -> None:
    layer = layer_of(gate_parts=("bias", "recurrent_bias"))
    for gate in layer.cell.gates.values():
        gate.tensors["recurrent_bias"]._array[:] = 0.0
        gate.tensors["bias"]._array[0] = -0.0
    found = lc.gather(lc.arrange(layer, layout), layout)  # a warning would be an error
    assert same_bits(found.forget_gate.bias, layer.forget_gate.bias)
    assert np.signbit(found.forget_gate.bias[0])


@pytest.mark.parametrize("layout", sorted(SHIFTED))
def test_the_forget_bias_is_taken_off_and_said(layout: str) -> None:
    layer = layer_of()
    with pytest.warns(UserWarning, match="adds 1 to the forget gate at run time: -1 is added"):
        arrays = lc.arrange(layer, layout)
    found = lc.gather(arrays, layout)
    assert found.cell.options.forget_bias == 1.0
    assert same_bits(found.forget_gate.bias, layer.forget_gate.bias - np.float32(1))
    assert same_bits(found.input_gate.bias, layer.input_gate.bias)


@pytest.mark.parametrize("layout", [n for n in LAYOUTS if ROWS[n].chained])
@pytest.mark.parametrize("both", [False, True])
def test_a_stack_comes_back_as_as_many_layers(layout: str, both: bool) -> None:
    both = both and fits(layout, both=True)
    rng = np.random.default_rng(6)
    width = 2 * H if both else H

    def one(inputs: int, name: str) -> LSTMLayer:
        cells = [make_cell(rng, inputs, H) for _ in range(1 + both)]
        return make_layer(*cells, name=name, return_sequences=True)

    layers = [one(INPUTS, "a_l0"), one(width, "a_l1"), one(width, "a_l2")]
    found = lc.gather(lc.arrange(layers, layout), layout, name="a")
    assert isinstance(found, Model)
    assert list(found) == ["a_l0", "a_l1", "a_l2"]
    for layer in layers:
        assert_same(found[layer.name], layer)


@pytest.mark.parametrize("layout", ["keras", "mlx", "equinox", "haiku", "tf1", "torch-cell"])
def test_a_stack_of_cells_comes_back(layout: str) -> None:
    rng = np.random.default_rng(9)
    options = {"forget_bias": ROWS[layout].forget_bias}
    cells = [make_cell(rng, INPUTS, 3, **options), make_cell(rng, 3, 2, **options)]
    layer = make_layer(cells)
    assert_same(lc.gather(lc.arrange(layer, layout), layout), layer)


@pytest.mark.parametrize("layout", [n for n in LAYOUTS if "projection" in ROWS[n].parts])
def test_projections_come_back(layout: str) -> None:
    layer = layer_of(projected=2, forget_bias=ROWS[layout].forget_bias)
    assert_same(lc.gather(lc.arrange(layer, layout), layout), layer)


@pytest.mark.parametrize("layout", [n for n in LAYOUTS if "peephole" in ROWS[n].parts])
def test_peepholes_come_back(layout: str) -> None:
    options = {"forget_bias": ROWS[layout].forget_bias}
    layer = layer_of(gate_parts=("bias", "peephole"), **options)
    assert_same(lc.gather(lc.arrange(layer, layout), layout), layer)


def test_gates_is_a_layout_too() -> None:
    layer = layer_of()
    arrays = lc.arrange(layer, "gates")
    assert sorted(arrays)[:2] == ["cell_gate.bias", "cell_gate.kernel"]
    assert_same(lc.gather(arrays, "gates"), layer)


def test_a_model_has_its_layers_names_before_the_arrays() -> None:
    model = lc.load("fixtures/keras-3.15.1/seed95.keras")
    arrays = lc.arrange(model, "torch")
    assert next(iter(arrays)) == "lstm.weight_ih_l0"
    assert_same(lc.gather(arrays, "torch"), model["lstm"])


def test_a_models_other_layers_are_arranged_as_in_a_file(tmp_path: Path) -> None:
    source = "fixtures/keras-3.15.1/neighbours.keras"
    model = lc.load(source)
    for layout in ("torch", "flax", "haiku"):
        with pytest.warns(lc.ConversionWarning) as told:
            arrays = lc.arrange(model, layout)
        result = lc.convert(
            source, tmp_path / "x.npz", layout=layout, warn=False, force=True
        )
        assert [str(each.message) for each in told] == list(result.warnings)
        with np.load(tmp_path / "x.npz") as stored:
            assert {*stored.files} - {"__metadata__"} == set(arrays)
            assert all(same_bits(stored[name], array) for name, array in arrays.items())
    alone = lc.arrange(model, "torch", lstm_only=True)
    assert all(name.startswith("lstm.") for name in alone)


# ---- the rows are what is documented ------------------------------------------------------------

#: Fused order and whether units are rows, from the frameworks' documents and sources.
DOCUMENTED: Mapping[str, tuple[str, str, bool]] = {
    "keras": ("kernel", "ifco", False),
    "torch": ("weight_ih_l0", "ifco", True),
    "torch-cell": ("weight_ih", "ifco", True),
    "nnx-optimized": ("cell.dense_i.kernel", "ifco", False),
    "nnx-optimized-cell": ("dense_i.kernel", "ifco", False),
    "equinox": ("weight_ih", "ifco", True),
    "mlx": ("Wx", "ifco", True),
    "tinygrad": ("weight_ih", "ifco", True),
    "paddle": ("0.cell.weight_ih", "ifco", True),
    "candle": ("weight_ih_l0", "ifco", True),
    "flux": ("Wi", "ifco", True),
    "lux": ("weight_ih", "ifco", True),
    "mxnet": ("_unfused.0.i2h_weight", "ifco", True),
    "matlab": ("InputWeights", "ifco", True),
    "hls4ml": ("w", "ifco", False),
    "frugally-deep": ("weights", "ifco", False),
    "tfjs": ("kernel", "ifco", False),
    "rtneural": ("kernel", "ifco", False),
    "cntk": ("W", "icfo", False),
    "dl4j": ("W", "cfoi", False),
    "onnx": ("W", "iofc", True),
    "openvino": ("W", "fico", True),
    "coreml-mil": ("weight_ih", "ifoc", True),
    "ncnn": ("weight_xc", "ifoc", True),
}


@each("layout", DOCUMENTED)
def test_the_order_and_orientation_are_the_documented_ones(layout: str) -> None:
    name, order, is_turned = DOCUMENTED[layout]
    layer = layer_of()
    fused = np.concatenate([layer.cell.gates[gate].kernel for gate in by_letters(order)], axis=1)
    array = lc.arrange(layer, layout)[name]
    wanted = fused.T if is_turned else fused
    assert np.array_equal(array.reshape(wanted.shape), wanted)


def test_haiku_and_tensorflow_1_glue_input_and_state() -> None:
    layer = layer_of(forget_bias=1.0)
    order = by_letters("icfo")
    wanted = np.concatenate(
        [
            np.concatenate([getattr(layer.cell.gates[gate], part) for gate in order], axis=1)
            for part in ("kernel", "recurrent_kernel")
        ]
    )
    assert np.array_equal(lc.arrange(layer, "haiku")["linear.w"], wanted)
    assert np.array_equal(lc.arrange(layer, "tf1")["kernel"], wanted)


def test_chainers_gates_alternate_unit_by_unit() -> None:
    layer = layer_of()
    array = lc.arrange(layer, "chainer-lstm")["upward/W"]
    for unit in range(H):
        for number, gate in enumerate(by_letters("cifo")):
            assert np.array_equal(array[4 * unit + number], layer.cell.gates[gate].kernel[:, unit])


def test_onnx_peepholes_have_another_order_than_its_gates() -> None:
    layer = layer_of(gate_parts=("bias", "recurrent_bias", "peephole"))
    arrays = lc.arrange(layer, "onnx")
    wanted = [layer.cell.gates[gate].peephole for gate in by_letters("iof")]
    assert np.array_equal(arrays["P"], np.concatenate(wanted)[None])
    biases = [
        getattr(layer.cell.gates[gate], part)
        for part in ("bias", "recurrent_bias")
        for gate in by_letters("iofc")
    ]
    assert np.array_equal(arrays["B"], np.concatenate(biases)[None])


def test_every_row_is_documented_or_one_array_a_gate() -> None:
    per_gate = {name for name, row in ROWS.items() if any(slot.per_gate for slot in row.slots[:1])}
    others = {"haiku", "tf1", "chainer-lstm", "nam"}
    assert set(DOCUMENTED) | per_gate | others == set(ROWS)


def test_a_gates_name_is_its_gates() -> None:
    layer = layer_of()
    for layout, name, gate in (
        ("flax", "cell.hg.kernel", Gate.CELL),
        ("nnx", "cell.if_.kernel", Gate.FORGET),
        ("burn", "cell_gate.input_transform.weight", Gate.CELL),
        ("cudnn", "matrix.2", Gate.CELL),
        ("cudnn", "matrix.7", Gate.OUTPUT),
        ("chainer", "0/w1", Gate.FORGET),
        ("coreml", "blockInputWeightMatrix", Gate.CELL),
        ("tflite", "input_to_output_weights", Gate.OUTPUT),
    ):
        array = lc.arrange(layer, layout)[name]
        weights = layer.cell.gates[gate]
        wanted = {weights.kernel.tobytes(), weights.recurrent_kernel.tobytes()}
        wanted |= {weights.kernel.T.tobytes(), weights.recurrent_kernel.T.tobytes()}
        assert array.tobytes() in wanted, (layout, name)


# ---- names alone --------------------------------------------------------------------------------


@each("layout", [n for n in LAYOUTS if ROWS[n].recognised])
@each("prefix", ["", "net.", "net.decoder."])
@each("both", [False, True])
def test_names_alone_tell_the_layout(layout: str, prefix: str, both: bool) -> None:
    arrays = lc.arrange(both_of() if both else layer_of(), layout)
    named = lazy({prefix + name: array for name, array in arrays.items()})
    named |= lazy({"net.dense.kernel": np.zeros((2, 2)), "net.dense.bias": np.zeros(2)})
    row = find.recognised(named)
    assert row is not None
    assert row.name == layout
    assert [(p, s.both) for p, s in find.modules(named, row).items()] == [(prefix, both)]


def lazy(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: ArrayTensor(array) for name, array in arrays.items()}


def test_a_part_of_the_names_is_not_enough() -> None:
    arrays = dict(lc.arrange(layer_of(), "flax"))
    assert find.recognised(lazy(arrays)) is not None
    del arrays["cell.hg.kernel"]
    assert find.recognised(lazy(arrays)) is None
    zeros = dict.fromkeys(["dense.kernel", "dense.bias", "weight_ih_l0"], np.zeros((2, 2)))
    assert find.recognised(lazy(zeros)) is None


def test_a_gap_in_a_stack_is_no_stack() -> None:
    names = [f"weight_{end}_l{k}" for k in (0, 2) for end in ("ih", "hh")]
    assert find.recognised(lazy(dict.fromkeys(names, np.zeros((4, 1))))) is None


def test_shapes_that_contradict_each_other_are_refused() -> None:
    arrays = dict(lc.arrange(layer_of(), "torch"))
    for name, shape in (
        ("weight_hh_l0", (12, 4)),
        ("weight_hh_l0", (16, 3)),
        ("bias_ih_l0", (11,)),
        ("weight_ih_l0", (12,)),
        ("weight_ih_l0", (10, 4)),
    ):
        with pytest.raises(lc.LSTMConvertError):
            lc.gather({**arrays, name: np.zeros(shape, np.float32)}, "torch")


@each("layout", LAYOUTS)
def test_arrays_of_another_layout_are_refused(layout: str) -> None:
    with pytest.raises(lc.LSTMConvertError, match="no arrays of"):
        lc.gather({"something": np.zeros(3)}, layout)


def test_an_unknown_layout_is_named() -> None:
    with pytest.raises(lc.LSTMConvertError, match=r"no such layout.*pytorch.*torch"):
        lc.arrange(layer_of(), "pytorch")


# ---- what cannot be expressed -------------------------------------------------------------------

RELU = Activation("relu")
FIXED = [name for name in LAYOUTS if ROWS[name].fixed]


@each("layout", FIXED)
@each("option, value",
    [
        ("activation", RELU),
        ("recurrent_activation", HARD_SIGMOID_KERAS2),
        ("recurrent_activation", HARD_SIGMOID_KERAS3),
    ],
)
def test_other_functions_are_refused_by_name(layout: str, option: str, value: Any) -> None:
    layer = layer_of(**{option: value}, forget_bias=ROWS[layout].forget_bias)
    refused(layer, layout, option)
    with pytest.warns(UserWarning, match=f"{option}.*lost, as allowed"):
        lc.arrange(layer, layout, allow_lossy=True)


@each("layout", FIXED)
@each("option", ["activation", "recurrent_activation"])
def test_an_unknown_function_is_no_guess(layout: str, option: str) -> None:
    layer = layer_of(**{option: UNKNOWN})
    for allow in (False, True):
        with pytest.raises(lc.LSTMConvertError, match=f"unknown: {option}"):
            lc.arrange(layer, layout, allow_lossy=allow)


def refused(layer: LSTMLayer, layout: str, option: str) -> None:
    with pytest.raises(lc.LSTMConvertError) as caught:
        lc.arrange(layer, layout)
    error: Any = caught.value
    assert (error.layer, error.option, error.target) == ("lstm", option, layout)


@each("layout", LAYOUTS)
def test_what_changes_the_outputs_is_refused_where_it_has_no_place(layout: str) -> None:
    row = ROWS[layout]
    rng = np.random.default_rng(1)
    cell = make_cell(rng, INPUTS, H)
    layers = {
        "go_backwards": make_layer(cell, go_backwards=True),
        "merge_mode": make_layer(cell, cell, merge_mode="sum"),
        "gate_clip": layer_of(gate_clip=1.0),
        "cell_clip": layer_of(cell_clip=1.0),
        "projection_clip": layer_of(projection_clip=1.0),
        "output_activation": layer_of(output_activation=RELU),
        "input_forget": layer_of(input_forget=True),
    }
    for part in ("peephole", "layer_norm"):
        if part not in row.parts:
            refused(layer_of(gate_parts=("bias", part)), layout, part)
    if "projection" not in row.parts:
        refused(layer_of(projected=2), layout, "projection")
    for option, layer in layers.items():
        has_mode = row.single or "sum" in row.abilities().merge_modes
        if option in row.expresses or (option == "merge_mode" and has_mode):
            continue
        refused(layer, layout, option)
    if "convolution" not in row.expresses:
        refused(layer_of(window=(2, 2)), layout, "convolution")


@each("layout", LAYOUTS)
def test_how_a_layer_is_run_is_never_a_reason(layout: str) -> None:
    options = {"dropout": 0.5, "seed": 3, "forget_bias": ROWS[layout].forget_bias}
    cell = make_cell(np.random.default_rng(1), INPUTS, H, **options)
    names = ("return_sequences", "return_state", "unroll", "stateful", "time_major")
    layer = make_layer(cell, **dict.fromkeys(names, True))
    assert lc.arrange(layer, layout)


@each("layout", [n for n in LAYOUTS if "go_backwards" not in ROWS[n].expresses])
def test_unknown_directions_are_no_guess(layout: str) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), INPUTS, H), go_backwards=UNKNOWN)
    with pytest.raises(lc.LSTMConvertError, match="unknown: go_backwards"):
        lc.arrange(layer, layout)


def test_halves_of_unlike_size_are_refused_where_they_must_be_alike() -> None:
    rng = np.random.default_rng(1)
    layer = make_layer(make_cell(rng, INPUTS, 3), make_cell(rng, INPUTS, 2))
    for layout in LAYOUTS:
        row = ROWS[layout]
        if row.single:
            continue
        if row.alike:
            refused(layer, layout, "units")
        elif not row.forget_bias:
            assert_same(lc.gather(lc.arrange(layer, layout), layout), layer)


def test_a_cell_that_is_no_lstm_is_refused() -> None:
    gru = OpaqueCell(class_name="GRUCell", name=None, config=None)
    refused(make_layer([make_cell(np.random.default_rng(1), INPUTS, H), gru]), "torch", "cells")


def test_a_stack_inside_each_half_is_no_torch_stack() -> None:
    rng = np.random.default_rng(1)
    cells = [make_cell(rng, INPUTS, H), make_cell(rng, H, H)]
    refused(make_layer(cells, cells), "torch", "cells")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"inputs": H, "units": H + 1}, "do not fit into one stack"),
        ({"inputs": H + 1, "units": H}, "do not fit into one stack"),
    ],
)
def test_layers_that_do_not_follow_make_no_stack(second: dict[str, int], message: str) -> None:
    rng = np.random.default_rng(1)
    one = make_layer(make_cell(rng, INPUTS, H), return_sequences=True)
    two = make_layer(make_cell(rng, second["inputs"], second["units"]), name="two")
    with pytest.raises(lc.LSTMConvertError, match=message):
        lc.arrange([one, two], "torch")


def test_a_stacks_inner_layer_hands_on_its_sequence() -> None:
    rng = np.random.default_rng(1)
    one, two = (make_layer(make_cell(rng, H, H), name=name) for name in "ab")
    with pytest.raises(lc.LSTMConvertError, match="whole sequence"):
        lc.arrange([one, two], "torch")
    with pytest.raises(lc.LSTMConvertError, match="no stacks"):
        lc.arrange([one, two], "mlx")

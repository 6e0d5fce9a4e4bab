"""`diff`: what counts as a difference, where it is said to be, and what does not count."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.cli import FIXTURES, KERAS, SEED95, WEIGHTS, run
from support.corpus import CORPUS
from support.neutral import make_cell, make_layer
from support.thinned import rounds

import lstmconvert as lc
from lstmconvert import limits
from lstmconvert.checks import bitdiff
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3, SIGMOID, TANH
from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import GateWeights, LSTMLayer, OpaqueCell
from lstmconvert.model.model import Model, Source
from lstmconvert.model.options import UNKNOWN
from lstmconvert.tensors.dtypes import Array, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, Columns, SourceFile, Tensor


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def model(*layers: LSTMLayer, **other: Array) -> Model:
    tensors: dict[str, Tensor] = {name: ArrayTensor(array) for name, array in other.items()}
    return Model(layers=layers, source=Source(container="live"), container="live", other=tensors)


def layer(name: str = "lstm", units: int = 2, **options: Any) -> LSTMLayer:
    return make_layer(make_cell(rng(), 7, units, **options), name=name)


def changed(one: LSTMLayer, gate: Gate, part: str, index: tuple[int, ...], value: Any) -> LSTMLayer:
    """Return the layer with one number of one tensor changed."""
    array = one.cell.gates[gate].tensors[part].read().copy()
    array[index] = value
    weights = {**one.cell.gates[gate].tensors, part: ArrayTensor(array)}
    cell = replace(one.cell, gates={**one.cell.gates, gate: GateWeights(gate, weights)})
    return replace(one, forward=replace(one.forward, cells=(cell,)))


def with_options(one: LSTMLayer, **options: Any) -> LSTMLayer:
    cell = replace(one.cell, options=replace(one.cell.options, **options))
    return replace(one, forward=replace(one.forward, cells=(cell,)))


@pytest.mark.parametrize("name", ["seed95", "zoo", "both_unlike", "bfloat16", "rnn_stack_gru"])
def test_a_file_equals_itself_and_its_conversion(tmp_path: Path, name: str) -> None:
    source, copy = KERAS / f"{name}.keras", tmp_path / "copy.safetensors"
    assert lc.diff(source, source)
    lc.convert(source, copy)
    report = lc.diff(source, copy)
    assert report, report
    assert report.layers
    assert all(layer.paired_by == "name" for layer in report.layers)


def test_the_sentence_for_equal() -> None:
    code, out, err = run("diff", SEED95, WEIGHTS)
    assert code == 0
    assert out == (
        "equal: 12 tensors of 1 layer, bit for bit; every option that both say; 2 other tensors\n"
    )
    assert err.startswith("note: not compared, because B does not say it: ")
    code, out, _ = run("diff", SEED95, WEIGHTS, "--weights-only")
    assert (code, out) == (
        0,
        "equal: 12 tensors of 1 layer, bit for bit (options and other tensors not compared)\n",
    )


def test_unknown_options_are_listed_and_no_difference() -> None:
    (found,) = lc.diff(SEED95, WEIGHTS).layers
    assert found
    assert not found.options
    assert {o.option for o in found.unknown} >= {"activation", "return_sequences", "seed"}
    assert {o.unknown_in for o in found.unknown} == {"b"}
    (back,) = lc.diff(WEIGHTS, SEED95).layers
    assert {o.unknown_in for o in back.unknown} == {"a"}


def test_one_bit_is_found_named_and_measured() -> None:
    one = layer()
    value = one.forget_gate.kernel[1, 0]
    two = changed(one, Gate.FORGET, "kernel", (1, 0), np.nextafter(value, np.float32(9)))
    report = lc.diff(model(one), model(two))
    assert not report
    (found,) = report.layers[0].tensors
    assert found.name == "lstm.forget_gate.kernel"
    assert (found.reason, found.first, found.count, found.size) == ("values", (1, 0), 1, 14)
    assert found.max_ulp == 1
    assert found.a == float(str(value))
    assert found.b > found.a


def test_what_people_see_of_a_difference(tmp_path: Path) -> None:
    one = changed(layer(), Gate.OUTPUT, "bias", (1,), 0.5)
    two = with_options(
        changed(one, Gate.OUTPUT, "bias", (1,), 0.25), dropout=0.5, activation=SIGMOID
    )
    for name, item in (("a", one), ("b", two)):
        lc.save(model(item), tmp_path / f"{name}.safetensors")
    code, out, _ = run("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert code == 1
    assert out == (
        "layer lstm differs: 1 of 12 tensors, 1 option\n"
        "  tensor            differ  first at  A    B     max abs  max ULP\n"
        "  output_gate.bias  1/2     [1]       0.5  0.25  0.25     8.4e+06\n"
        "  option      A     B\n"
        "  activation  tanh  sigmoid\n"
        "\n"
        "different: weights of 1 layer, options of 1 layer\n"
    )


@pytest.mark.parametrize(
    ("a", "b", "ulp"),
    [(0.0, -0.0, 1), (np.nan, 1.0, None), (np.inf, np.finfo("f4").max, 1), (1e-45, 0.0, 1)],
)
def test_bits_count_not_values(a: float, b: float, ulp: int | None) -> None:
    one, two = (changed(layer(), Gate.CELL, "kernel", (6, 1), x) for x in (a, b))
    (found,) = lc.diff(model(one), model(two)).layers[0].tensors
    assert (found.first, found.count, found.max_ulp) == ((6, 1), 1, ulp)


def test_nan_payloads_count() -> None:
    quiet, other = np.array([0x7FC00000, 0x7FC00001], dtype="<u4").view("<f4")
    one, two = (changed(layer(), Gate.CELL, "bias", (0,), x) for x in (quiet, other))
    assert lc.diff(model(one), model(one))
    (found,) = lc.diff(model(one), model(two)).layers[0].tensors
    assert math.isnan(found.a)
    assert math.isnan(found.b)
    assert '"NaN"' not in str(lc.diff(model(one), model(one)).to_json())


def test_shape_dtype_and_missing_parts() -> None:
    def reasons(a: LSTMLayer, b: LSTMLayer, reason: str) -> int:
        found = [t.reason for t in lc.diff(model(a), model(b)).layers[0].tensors]
        return found.count(reason)

    assert reasons(layer(), layer(units=3), "shape") == 12
    assert reasons(layer(), layer(dtype="float16"), "dtype") == 12
    assert reasons(layer(), layer(gate_parts=()), "missing") == 4
    assert reasons(layer(gate_parts=("bias", "peephole")), layer(), "missing") == 3
    assert reasons(layer(projected=2), layer(), "missing") == 1
    assert reasons(layer(), layer(input_forget=True), "missing") == 3


def test_cells_that_only_one_side_has() -> None:
    def cells(a: LSTMLayer, b: LSTMLayer) -> list[tuple[str, Any, Any]]:
        found = lc.diff(model(a), model(b)).layers[0].tensors
        return [(t.name, t.a, t.b) for t in found if t.reason == "cell"]

    cell = make_cell(rng(), 2, 2)
    gru = OpaqueCell(class_name="GRUCell", name="gru", config=None)
    one, two = make_layer(cell), make_layer([cell, cell])
    assert cells(one, two) == [("lstm", "none", "LSTM")]
    assert cells(two, one) == [("lstm.cells.1", "LSTM", "none")]
    assert cells(make_layer(cell, cell), one) == [("lstm.backward", "LSTM", "none")]
    assert cells(make_layer([cell, gru]), two) == [("lstm.cells.1", "GRUCell", "LSTM")]
    assert cells(make_layer([cell, gru]), make_layer([cell, gru])) == []


def test_activations_are_compared_as_maths() -> None:
    def options(a: Any, b: Any, **more: Any) -> list[str]:
        one = with_options(layer(), recurrent_activation=a)
        two = with_options(layer(), recurrent_activation=b, **more)
        return [o.option for o in lc.diff(model(one), model(two)).layers[0].options]

    assert options(HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS3) == ["recurrent_activation"]
    assert options(HARD_SIGMOID_KERAS2, HARD_SIGMOID_KERAS2) == []
    assert options(UNKNOWN, HARD_SIGMOID_KERAS2) == []
    # The same function, said or left to be the activation.
    assert options(SIGMOID, SIGMOID, output_activation=TANH) == []
    assert options(SIGMOID, SIGMOID, output_activation=SIGMOID) == ["output_activation"]


def test_hard_sigmoid_of_two_keras_versions_differs_between_files() -> None:
    report = lc.diff(KERAS / "zoo.keras", FIXTURES / "keras-2.3.1" / "zoo.h5")
    found = {x.a: x for x in report.layers}
    assert not any(x.tensors for x in report.layers)
    options = {o.option: (o.a, o.b) for o in found["hard"].options}
    assert options["recurrent_activation"] == (
        {"name": "hard_sigmoid", "alpha": pytest.approx(1 / 6), "beta": 0.5},
        {"name": "hard_sigmoid", "alpha": 0.2, "beta": 0.5},
    )
    assert (found["each/lstm_1"].b, found["each/lstm_1"].paired_by) == (
        "each/lstm_2",
        "order and shape",
    )


@pytest.mark.parametrize(
    ("a", "b"),
    [(True, 1), (1, True), ((1, 2), [1, 3]), ({"x": [True]}, {"x": [1]}), (None, False)],
)
def test_options_of_any_kind_differ(a: Any, b: Any) -> None:
    one, two = (with_options(layer(), kernel_initializer=x) for x in (a, b))
    assert not lc.diff(model(one), model(two))
    assert lc.diff(model(one), model(one))


def test_tuples_and_lists_of_a_config_are_the_same() -> None:
    one, two = (with_options(layer(), kernel_initializer={"axis": x}) for x in ((0, 1), [0, 1]))
    assert lc.diff(model(one), model(two))


def test_options_do_not_count_for_weights_only() -> None:
    one, two = (with_options(layer(), dropout=x) for x in (0.0, 0.5))
    assert not lc.diff(model(one), model(two))
    report = lc.diff(model(one, x=np.zeros(3)), model(two), weights_only=True)
    assert report
    assert report.other is None


# ---- pairing ----------------------------------------------------------------------------------


def test_a_convolution_that_weights_alone_do_not_describe() -> None:
    """The shapes tell that it is one; its strides are unknown, which is no difference."""
    report = lc.diff(KERAS / "conv_lstm2d.keras", KERAS / "conv_lstm2d.weights.h5")
    assert report
    assert any(option.option == "convolution" for option in report.layers[0].unknown)


def test_layers_left_over_are_paired_by_order_and_shape(tmp_path: Path) -> None:
    a = [layer("same", 2), layer("first", 3), layer("second", 3), layer("alone", 5)]
    b = [layer("same", 2), layer("lstm_1", 3), layer("extra", 6), layer("lstm_2", 3)]
    report = lc.diff(model(*a), model(*b))
    assert [(x.a, x.b, x.paired_by) for x in report.layers] == [
        ("same", "same", "name"),
        ("first", "lstm_1", "order and shape"),
        ("second", "lstm_2", "order and shape"),
    ]
    assert (report.only_in_a, report.only_in_b) == (("alone",), ("extra",))
    assert not report
    for name, layers in (("a", a), ("b", b)):
        lc.save(model(*layers), tmp_path / f"{name}.npz")
    code, out, err = run("diff", tmp_path / "a.npz", tmp_path / "b.npz")
    assert code == 1
    assert (
        out
        == "layer alone: only in A\nlayer extra: only in B\ndifferent: 2 layers on one side only\n"
    )
    assert "note: first is compared with lstm_1: paired by order and shape\n" in err


def test_a_layer_whose_biases_were_summed_is_still_paired() -> None:
    two = layer("a", gate_parts=("bias", "recurrent_bias"))
    report = lc.diff(model(two), model(layer("b")))
    assert [(found.a, found.b) for found in report.layers] == [("a", "b")]
    assert not report


def test_renamed_but_equal_layers_are_equal() -> None:
    assert lc.diff(model(layer("a"), layer("b", 4)), model(layer("c"), layer("d", 4)))


@pytest.mark.slow
def test_many_layers_are_paired_in_good_time() -> None:
    one = layer("x")
    a, b = ([replace(one, name=f"{side}{i}") for i in range(3000)] for side in "ab")
    assert len(lc.diff(model(*a), model(*b), weights_only=True).layers) == 3000


# ---- other tensors ----------------------------------------------------------------------------


def test_other_tensors_count_and_are_paired_like_layers(tmp_path: Path) -> None:
    x, y = np.arange(6, dtype="f4").reshape(2, 3), np.zeros(3, "i8")
    assert lc.diff(model(layer(), a=x, b=y), model(layer(), b=y, a=x))
    renamed = lc.diff(model(layer(), a=x), model(layer(), z=x))
    assert renamed
    assert renamed.other is not None
    assert renamed.other.renamed == (("a", "z"),)
    missing = lc.diff(model(layer(), a=x), model(layer(), b=y))
    assert not missing
    assert missing.other is not None
    assert (missing.other.only_in_a, missing.other.only_in_b) == (("a",), ("b",))
    differs = lc.diff(model(layer(), a=x), model(layer(), a=x + np.float32(1)))
    assert not differs
    assert differs.other is not None
    assert differs.other.tensors[0].first == (0, 0)


def test_other_tensors_of_any_dtype() -> None:
    def found(a: Array, b: Array) -> bitdiff.TensorDiff:
        other = lc.diff(model(layer(), x=a), model(layer(), x=b)).other
        assert other is not None
        (diff,) = other.tensors
        return diff

    assert found(np.array([1, 2], "c16"), np.array([1, 3], "c16")).first == (1,)
    assert found(np.array([b"ab", b"cd"]), np.array([b"ab", b"cx"])).b == "cx"
    assert found(np.array(["é", "b"]), np.array(["e", "b"])).a == "é"
    assert found(np.array(3, "i4"), np.array(4, "i4")).first == ()
    assert found(np.array([True]), np.array([False])).a is True
    assert found(np.array([7], "i8"), np.array([8], "i8")).max_ulp is None
    assert lc.diff(model(layer(), x=np.zeros((0, 4))), model(layer(), x=np.zeros((0, 4))))


def test_files_across_containers_are_equal(tmp_path: Path) -> None:
    assert lc.diff(SEED95, KERAS / "seed95.h5")
    copy = tmp_path / "copy.h5"
    lc.convert(SEED95, copy, lstm_only=True)
    report = lc.diff(SEED95, copy)
    assert not report
    assert report.other is not None
    assert len(report.other.only_in_a) == 2
    assert lc.diff(SEED95, copy, weights_only=True)


# ---- streaming --------------------------------------------------------------------------------


class Watched(Tensor):
    """A tensor that remembers which rows were asked for."""

    def __init__(self, array: Array) -> None:
        self.inner = ArrayTensor(array)
        self.shape, self.dtype = self.inner.shape, self.inner.dtype
        self.asked: list[tuple[int, int]] = []

    def rows(self, start: int, stop: int) -> Array:
        self.asked.append((start, stop))
        return self.inner.rows(start, stop)


def test_each_row_is_read_once_and_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def watched(array: Array) -> tuple[LSTMLayer, Watched]:
        base = Watched(array)
        one = layer()
        gates = {
            gate: GateWeights(gate, {**w.tensors, "kernel": Columns(base, 2 * k, 2 * k + 2)})
            for k, (gate, w) in enumerate(one.cell.gates.items())
        }
        cell = replace(one.cell, gates=gates)
        return replace(one, forward=replace(one.forward, cells=(cell,))), base

    array = rng().normal(size=(100, 8)).astype("f4")
    monkeypatch.setattr(bitdiff, "BUFFER_BYTES", 2 * 10 * 8 * 4)
    (one, a), (two, b) = watched(array), watched(array)
    report = lc.diff(model(one), model(two))
    assert report
    for base in (a, b):
        assert base.asked == [(i, i + 10) for i in range(0, 100, 10)]
    other = array.copy()
    other[57, 3] += 1
    other[90, 3] += 1
    three, _ = watched(other)
    found = lc.diff(model(one), model(three)).layers[0].tensors
    assert [(t.name, t.first, t.count) for t in found] == [("lstm.forget_gate.kernel", (57, 1), 2)]


def test_the_buffer_is_the_one_of_the_limits() -> None:
    assert bitdiff.BUFFER_BYTES == limits.BUFFER_BYTES


# ---- units of the last place ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
@settings(max_examples=rounds(50), deadline=None)
@given(data=st.data())
def test_ulp_counts_the_floats_between(name: str, data: st.DataObject) -> None:
    dtype = dtype_of(name)
    unsigned = np.dtype(f"<u{dtype.itemsize}")
    a, b = (
        data.draw(arrays.arrays(unsigned, 1, elements=st.integers(0, np.iinfo(unsigned).max)))
        for _ in "ab"
    )
    x, y = a.view(dtype), b.view(dtype)
    found = bitdiff.max_ulp(x, y)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        is_nan = np.isnan([x.astype("f8")[0], y.astype("f8")[0]]).any()
    if is_nan:
        assert found is None
    else:
        top = 1 << (8 * dtype.itemsize - 1)

        def order(raw: int) -> int:
            return -1 - (raw - top) if raw >= top else raw

        assert found == abs(order(int(a[0])) - order(int(b[0])))
        assert found == bitdiff.max_ulp(y, x)


def test_ulp_of_neighbours() -> None:
    x = np.array([1.0, -1.0, 1e-40, 65504.0], "f4")
    assert bitdiff.max_ulp(x, np.nextafter(x, np.float32(np.inf))) == 1
    assert bitdiff.max_ulp(x, x) == 0


# ---- JSON -------------------------------------------------------------------------------------


def test_the_json_report(tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    lc.save(lc.load(SEED95), copy, dtype="float16")
    code, out, _ = run("diff", SEED95, copy, "--json")
    report = run("diff", SEED95, copy, "--json").json
    assert code == 1
    assert out == run("diff", SEED95.resolve(), copy, "--json").out
    assert set(report) == {
        *("version", "equal", "a", "b", "weights_only", "layers", "only_in_a", "only_in_b", "other")
    }
    assert (report["version"], report["equal"]) == (1, False)
    assert (report["a"], report["b"]) == ("seed95.keras", "copy.safetensors")
    (found,) = report["layers"]
    assert (found["a"], found["b"], found["paired_by"], found["compared"]) == (
        *("lstm", "lstm", "name", 12),
    )
    assert found["tensors"][0] == {
        "name": "lstm.input_gate.kernel",
        "reason": "dtype",
        "a": "float32",
        "b": "float16",
        "first": None,
        "count": None,
        "size": None,
        "max_ulp": None,
        "max_abs": None,
    }
    assert found["options"] == [
        {"where": "lstm", "option": "policy", "a": "float32", "b": "float16", "unknown_in": None}
    ]
    assert report["other"] == {
        "equal": True,
        "compared": 2,
        "tensors": [],
        "renamed": [],
        "only_in_a": [],
        "only_in_b": [],
    }


def test_trouble_is_neither_equal_nor_different() -> None:
    assert run("diff", SEED95, "nowhere").code == 2


@pytest.mark.corpus
def test_real_files_differ_from_each_other_and_equal_themselves() -> None:
    a = CORPUS / "zabir-nabil_dot-res-lstm__bilstm.h5"
    assert run("diff", a, a).code == 0
    assert run("diff", a, SEED95).code == 1


# ---- meanings, and numbers that are near -------------------------------------------------------


def spec(name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": name, "config": config}


def scaling(distribution: str, **config: Any) -> dict[str, Any]:
    return spec("VarianceScaling", **{"mode": "fan_avg", "distribution": distribution, **config})


#: Option, and two spellings of one thing: an old Keras's, and today's.
SPELLINGS = [
    ("kernel_initializer", scaling("uniform", scale=1.0), spec("GlorotUniform")),
    ("kernel_initializer", scaling("normal"), scaling("truncated_normal", scale=1.0)),
    ("kernel_initializer", scaling("normal", scale=2.0, mode="fan_in"), spec("HeNormal")),
    ("bias_initializer", spec("RandomNormal"), spec("RandomNormal", mean=0.0, stddev=0.05)),
    ("kernel_regularizer", spec("L1L2", l1=0.0, l2=0.01), spec("L2", l2=0.009999999776482582)),
    ("kernel_regularizer", spec("L1L2", l1=0.0, l2=0.0), None),
    ("kernel_constraint", spec("MaxNorm", max_value=2), spec("MaxNorm", max_value=2.0, axis=0)),
]


@pytest.mark.parametrize(("option", "old", "new"), SPELLINGS)
def test_two_spellings_of_one_thing_are_equal(option: str, old: Any, new: Any) -> None:
    a, b = (model(with_options(layer(), **{option: value})) for value in (old, new))
    assert lc.diff(a, b), str(lc.diff(a, b))


@pytest.mark.parametrize(
    ("option", "one", "two"),
    [
        ("kernel_initializer", spec("GlorotUniform"), spec("GlorotNormal")),
        ("kernel_initializer", spec("HeNormal"), scaling("truncated_normal", scale=2.0)),
        ("kernel_initializer", spec("GlorotUniform"), spec("GlorotUniform", seed=1)),
        ("kernel_regularizer", spec("L2", l2=0.01), spec("L1", l1=0.01)),
        ("kernel_regularizer", spec("L2", l2=0.01), None),
        ("kernel_constraint", spec("MaxNorm", max_value=2), spec("MaxNorm", max_value=3)),
        ("kernel_constraint", spec("NonNeg"), spec("UnitNorm")),
        (
            "kernel_initializer",
            {**spec("GlorotUniform"), "registered_name": "mine>GlorotUniform"},
            spec("GlorotUniform"),
        ),
    ],
)
def test_two_things_of_like_spelling_differ(option: str, one: Any, two: Any) -> None:
    a, b = (model(with_options(layer(), **{option: value})) for value in (one, two))
    assert [d.option for d in lc.diff(a, b).layers[0].options] == [option]


@pytest.mark.engines
@pytest.mark.parametrize(("option", "old", "new"), SPELLINGS)
def test_keras_makes_the_same_of_both_spellings(option: str, old: Any, new: Any) -> None:
    """The oracle: the object that Keras builds of each has one config."""
    keras = pytest.importorskip("keras")
    family = {"initializer": keras.initializers, "regularizer": keras.regularizers}.get(
        option.rpartition("_")[2], keras.constraints
    )
    if new is None:
        assert float(family.deserialize(old)(np.ones((2, 2)))) == 0
        return
    objects = [family.deserialize(value) for value in (old, new)]
    if option == "kernel_regularizer":
        penalties = [float(each(np.ones((2, 2)))) for each in objects]
        assert penalties[0] == pytest.approx(penalties[1], rel=1e-6)
    elif option == "kernel_constraint":
        matrix = np.arange(6.0).reshape(3, 2)
        assert np.array_equal(*(np.asarray(each(matrix)) for each in objects))
    elif hasattr(objects[0], "distribution"):
        facts = [(each.scale, each.mode, each.distribution) for each in objects]
        assert facts[0] == facts[1]
    else:
        configs = [{**each.get_config(), "seed": None} for each in objects]
        assert configs[0] == configs[1]


def test_what_metrics_counted_is_no_difference() -> None:
    counted = {"metrics/mean/vars/0": np.ones(1, np.float32)}
    assert lc.diff(model(layer(), **counted), model(layer()))
    beside = {"dense/vars/0": np.ones(1, np.float32)}
    assert not lc.diff(model(layer(), **beside), model(layer()))


@pytest.mark.parametrize(
    ("rtol", "atol", "equal"),
    [
        (None, None, False),
        (0, 0, False),
        (None, 1e-3, True),
        (1e-2, None, True),
        (1e-5, 1e-7, False),
    ],
)
def test_near_numbers_are_equal_where_that_is_asked_for(
    rtol: float | None, atol: float | None, equal: bool
) -> None:
    one = layer()
    bias = one.forget_gate.bias
    assert bias is not None
    two = one.replacing({"forget_gate.bias": bias + np.float32(5e-4) * np.sign(bias)})
    report = lc.diff(model(one), model(two), rtol=rtol, atol=atol)
    assert bool(report) is equal
    if not equal:
        (found,) = report.layers[0].tensors
        assert found.max_abs == pytest.approx(5e-4, rel=1e-3)


def test_a_cast_is_near(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    lc.convert(SEED95, path, dtype="float16", warn=False)
    assert not lc.diff(SEED95, path, weights_only=True)
    assert lc.diff(SEED95, path, weights_only=True, atol=1e-3)
    assert not lc.diff(SEED95, path, weights_only=True, atol=1e-6)
    done = run("diff", SEED95, path, "--weights-only", "--atol", "1e-3", "--rtol", "0")
    assert (done.code, done.err) == (0, "")
    assert "equal: 12 tensors of 1 layer, within 0.001 + 0·|B|" in done.out
    report = run("diff", SEED95, path, "--weights-only", "--atol", "1e-3", "--json").json
    assert (report["atol"], report["rtol"]) == (1e-3, 0.0)


def test_nan_is_near_nan_alone() -> None:
    nan = changed(layer(), Gate.FORGET, "bias", (0,), math.nan)
    assert lc.diff(model(nan), model(nan), atol=1.0)
    assert not lc.diff(model(nan), model(layer()), atol=1e9)


# ---- many small tensors --------------------------------------------------------------------------


def pairs_of(dtype: str, count: int = 5) -> list[bitdiff.Compared]:
    """Return pairs of small tensors of one kind, of which some differ, in strange numbers too."""
    random, kind = np.random.default_rng(3), dtype_of(dtype)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-40]).astype(kind)
    pairs = []
    for index in range(count):
        a, b = (random.normal(size=(2, 3, 8)).astype(kind) for _ in "ab")
        a.reshape(-1)[::7], b.reshape(-1)[::5] = odd[index % 5], odd[(index + 1) % 5]
        b[..., : 2 * index] = a[..., : 2 * index]  # one range more is equal in each
        b[0, index % 3] = a[0, index % 3]

        def labels(index: int = index) -> dict[str, int | None]:
            return {f"{index}.{gate}": 2 for gate in "ifgo"}

        pairs.append(bitdiff.Compared(labels, ArrayTensor(a), ArrayTensor(b)))
    return pairs


@pytest.mark.parametrize("within", [None, bitdiff.Within(0.1, 0.5)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32"])
def test_tensors_looked_at_together_differ_as_each_by_itself(
    monkeypatch: pytest.MonkeyPatch, dtype: str, within: bitdiff.Within | None
) -> None:
    with np.errstate(invalid="ignore"):  # what is no number, as an integer
        pairs = pairs_of(dtype)
    together = list(bitdiff.compare_all(pairs, within))
    shown = repr(together)  # as NaN is not equal to itself
    monkeypatch.setattr(bitdiff, "BUFFER_BYTES", 16)  # a row at a time
    assert repr(list(bitdiff.compare_all(pairs, within))) == shown
    assert [len(each) for each in together][-1] == 0
    assert len(together[0]) == 4
    monkeypatch.undo()
    for (labels, a, b), diffs in zip(pairs, together, strict=True):
        assert a is not None
        assert b is not None
        for place, name in enumerate(labels()):
            x, y = (t.read()[..., 2 * place : 2 * place + 2] for t in (a, b))
            marks = bitdiff._differing(x, y, within if dtype != "int32" else None)
            found = [each for each in diffs if each.name == name]
            assert [each.count for each in found] == [n for n in [int(marks.sum())] if n]
            for each in found:
                assert each.first == tuple(np.argwhere(marks)[0].tolist())
                assert each.size == x.size
                assert each.max_ulp == bitdiff.max_ulp(x[marks], y[marks])


def test_small_tensors_of_a_file_are_read_in_a_few_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [layer(f"lstm_{index}", units=8) for index in range(60)]
    paths = [tmp_path / "a.weights.h5", tmp_path / "b.weights.h5"]
    for path, delta in zip(paths, (0, 1), strict=True):
        last = changed(layers[-1], Gate.CELL, "kernel", (3, 1), 5.0 + delta)
        lc.save(model(*layers[:-1], last), path, warn=False)
    a, b = map(lc.load, paths)
    looks = 0
    real = SourceFile.check_unchanged

    def counted(source: SourceFile) -> None:
        nonlocal looks
        looks += 1
        real(source)

    monkeypatch.setattr(SourceFile, "check_unchanged", counted)
    report = lc.diff(a, b)
    (diff,) = [tensor for each in report.layers for tensor in each.tensors]
    assert diff.name.endswith(".cell_gate.kernel")
    assert diff.first == (3, 1)
    assert 0 < looks < 60


def test_a_file_that_changes_after_it_was_opened_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    shutil.copy(KERAS / "zoo.keras", path)
    a, b = lc.load(KERAS / "zoo.keras"), lc.load(path)
    with path.open("r+b") as file:
        file.write(b"P")
    os.utime(path, (5, 5))
    with pytest.raises(lc.LSTMConvertError, match="changed while it was read"):
        lc.diff(a, b)

"""The small modules at the bottom: gates, names, dtypes, errors, JSON, settings, selections."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from keras_tools import FIXTURES, LATEST
from neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import errors, gates, limits, naming, select, settings
from lstmconvert.activations import KERAS2, KERAS3, Activation
from lstmconvert.dtypes import bits, dtype_of, little_endian, safetensors_name, same_bits
from lstmconvert.errors import (
    CorruptFile,
    LimitExceeded,
    LSTMConvertError,
    UnknownLayer,
    UnsupportedByTarget,
    UsageError,
)
from lstmconvert.gates import GATES, Gate
from lstmconvert.jsontext import canonical, parse, parse_object
from lstmconvert.keras import values
from lstmconvert.model import Model, Source
from lstmconvert.options import UNKNOWN, CellOptions, LayerOptions
from lstmconvert.tensors import ArrayTensor, Cast, Columns, SideBySide

LATEST_DIR = FIXTURES / LATEST

# ---- gates -------------------------------------------------------------------------------------


def test_gates_and_their_order() -> None:
    assert [str(gate) for gate in GATES] == ["input", "forget", "cell", "output"]
    assert "".join(gate.letter for gate in GATES) == "ifco"
    assert gates.by_letters("iofc") == (Gate.INPUT, Gate.OUTPUT, Gate.FORGET, Gate.CELL)
    assert [gates.columns(gate, 2) for gate in GATES] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert gates.columns(Gate.OUTPUT, 3, gates.by_letters("iofc")) == (3, 6)
    with pytest.raises(ValueError, match="not an order of the gates"):
        gates.by_letters("ifgo")


@pytest.mark.parametrize("order", ["ifco", "iofc", "icfo", "fico"])
@pytest.mark.parametrize("axis", [0, -1])
def test_split_and_fuse(order: str, axis: int) -> None:
    fused = np.arange(64.0).reshape(8, 8)
    parts = gates.split(fused, gates.by_letters(order), axis)
    assert "".join(gate.letter for gate in parts) == order
    assert all(np.shares_memory(part, fused) for part in parts.values())
    np.testing.assert_array_equal(gates.fuse(parts, gates.by_letters(order), axis), fused)
    first = fused[:2] if axis == 0 else fused[:, :2]
    np.testing.assert_array_equal(parts[gates.by_letters(order)[0]], first)
    with pytest.raises(ValueError, match="does not hold 4 equal gates"):
        gates.split(fused[:, :7], axis=-1)


# ---- names -------------------------------------------------------------------------------------

PARSED: dict[str, tuple[str, str | None, int | None, str] | None] = {
    "lstm.forget_gate.kernel": ("lstm", None, None, "forget_gate.kernel"),
    "a.b/c.backward.output_gate.bias": ("a.b/c", "backward", None, "output_gate.bias"),
    "rnn.cells.12.cell_gate.peephole": ("rnn", None, 12, "cell_gate.peephole"),
    "x.forward.cells.0.projection": ("x", "forward", 0, "projection"),
    "x.forward_.input_gate.kernel": ("x.forward_", None, None, "input_gate.kernel"),
    "a\nb.input_gate.kernel": ("a\nb", None, None, "input_gate.kernel"),
    "other/lstm.input_gate.kernel": None,
    "lstm.input_gate": None,
    "lstm.input_gate.weight": None,
    ".input_gate.kernel": None,
    "lstm.candidate_gate.kernel": None,
    "input_gate.kernel": None,
}


@pytest.mark.parametrize("name", PARSED)
def test_names_are_parsed(name: str) -> None:
    wanted = PARSED[name]
    assert naming.parse(name) == (None if wanted is None else naming.TensorName(*wanted))


def test_layer_names_are_unique_and_unambiguous() -> None:
    wanted = ["lstm", "lstm", "lstm_1", "x.forward", "a.cells.3", "other", "other/x", ""]
    wanted.append("b.cells.x")
    assert naming.layer_names(wanted) == [
        "lstm",
        "lstm_2",
        "lstm_1",
        "x.forward_",
        "a.cells.3_",
        "other_",
        "other_/x",
        "lstm_3",
        "b.cells.x",
    ]


# ---- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_bits_see_what_numbers_do_not(name: str) -> None:
    zero, minus = (np.array([v]).astype(dtype_of(name)) for v in (0.0, -0.0))
    assert zero == minus
    assert not same_bits(zero, minus)
    size = zero.dtype.itemsize
    nans = [np.array([p], f"<u{size}").view(zero.dtype) for p in payloads(zero.dtype)]
    with np.errstate(invalid="ignore"):  # signalling NaNs, which ml_dtypes notices
        assert all(np.isnan(x).all() for x in nans)
    assert same_bits(nans[0], nans[0].copy())
    assert not same_bits(nans[0], nans[1])
    assert bits(zero).dtype.kind == "u"


def payloads(dtype: Any) -> tuple[int, int]:
    infinity = int(bits(np.array([np.inf]).astype(dtype))[0])
    return infinity + 1, infinity + 2


def test_same_bits_wants_one_dtype_and_shape() -> None:
    a = np.zeros(4, "f4")
    assert not same_bits(a, a.astype("f8"))
    assert not same_bits(a, a.reshape(2, 2))
    assert not same_bits(a.astype("f2"), np.zeros(4, ml_dtypes.bfloat16))
    assert same_bits(a.astype(">f4") + 1, a + 1)
    assert same_bits(np.zeros((0, 3)), np.zeros((0, 3)))
    assert same_bits(np.zeros((), "f4"), np.zeros((), "f4"))


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", "<f4"])
def test_little_endian_is_contiguous(dtype: str) -> None:
    whole = np.arange(24, dtype=dtype).reshape(4, 6)
    for view in (whole, whole.T, whole[::2, 1:3], whole[::-1], whole[1, 2]):
        result = little_endian(np.asarray(view))
        assert result.flags.c_contiguous
        assert result.dtype.byteorder in "<="
        assert result.shape == view.shape
        np.testing.assert_array_equal(result, view)


def test_a_dtype_that_safetensors_lacks() -> None:
    with pytest.raises(UnsupportedByTarget, match="cannot hold this dtype"):
        safetensors_name(np.dtype("S3"), "x")


# ---- errors ------------------------------------------------------------------------------------


def error_classes() -> list[type[LSTMConvertError]]:
    def below(kind: type[LSTMConvertError]) -> list[type[LSTMConvertError]]:
        return [kind, *(c for sub in kind.__subclasses__() for c in below(sub))]

    return [kind for kind in below(LSTMConvertError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_errors_survive_pickling(kind: type[LSTMConvertError]) -> None:
    extra = {"layer": "lstm", "option": "clip", "target": "Keras 3"}
    more = extra if kind is UnsupportedByTarget else {}
    error = kind("what went wrong", where="a/b", found=3, expected=(4,), hint="do that", **more)
    again = pickle.loads(pickle.dumps(error))  # our own bytes
    assert type(again) is kind
    assert str(again) == str(error) == "a/b: what went wrong; found 3; expected (4,)"
    assert again.__dict__ == error.__dict__
    assert (again.hint, again.message, again.where) == ("do that", "what went wrong", "a/b")
    assert again.args == ("what went wrong",)
    for name, value in more.items():
        assert getattr(again, name) == value


def test_the_tree_is_drawn_where_it_is_defined() -> None:
    drawing = str(errors.__doc__)
    for kind in error_classes():
        assert kind.__name__ in drawing
        assert kind.__doc__


def test_an_error_is_one_line() -> None:
    text = str(CorruptFile("bad", where="a\nb\x1b[31m\u202e", found="\ud800"))
    assert text == "a\\nb\\x1b[31m\\u202e: bad; found \\ud800"
    assert issubclass(UnknownLayer, KeyError)
    assert "\n" not in str(UnknownLayer("no\nlayer"))


# ---- JSON --------------------------------------------------------------------------------------

BAD_JSON = {
    "NaN": "[NaN]",
    "Infinity": '{"a": -Infinity}',
    "a key twice": '{"a": 1, "b": {"c": 1, "c": 1}}',
    "too large a number": "[1e400]",
    "an integer of a thousand digits": "[" + "1" * 1000 + "]",
    "half a surrogate pair": '["\\ud800"]',
    "no JSON": "{",
    "two values": "1 2",
    "brackets": "[" * 100_000,
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_json_that_is_refused(what: str) -> None:
    with pytest.raises((CorruptFile, LimitExceeded)):
        parse(BAD_JSON[what], "here")


def test_json_that_is_no_text() -> None:
    with pytest.raises(CorruptFile):
        parse(b'"\xff"', "here")
    with pytest.raises(CorruptFile, match="not an object"):
        parse_object("[]", "here")


def test_json_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, text in (
        (limits.JSON_BYTES, '"' + "x" * 50 + '"'),
        (limits.JSON_VALUES, "[1,2,3,4,5,6,7,8,9,10,11,12]"),
        (limits.JSON_DEPTH, "[" * 12 + "]" * 12),
    ):
        parse(text, "here")
        monkeypatch.setenv(limit.variable, "10")
        with pytest.raises(LimitExceeded):
            parse(text, "here")
        monkeypatch.delenv(limit.variable)


def test_canonical_json() -> None:
    value = {"b": [1, None, True], "a": {"ü": 0.1}}
    text = canonical(value)
    assert text == '{"a":{"ü":0.1},"b":[1,null,true]}'
    assert parse(text, "here") == value
    with pytest.raises(ValueError, match="Out of range"):
        canonical(float("nan"))


# ---- settings ----------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[str | None, str, Any]] = {
    "dropout=0.5": (None, "dropout", 0.5),
    "lstm.seed=null": ("lstm", "seed", None),
    "a.b/c.merge_mode=sum": ("a.b/c", "merge_mode", "sum"),
    "merge_mode=None": (None, "merge_mode", None),
    "return_sequences=True": (None, "return_sequences", True),
    "activation=relu": (None, "activation", KERAS3["relu"]),
    "recurrent_activation=hard_sigmoid(alpha=0.2, beta=0.5)": (
        None,
        "recurrent_activation",
        KERAS2["hard_sigmoid"],
    ),
    "recurrent_activation=hard_sigmoid(alpha=1/6,beta=0.5)": (
        None,
        "recurrent_activation",
        KERAS3["hard_sigmoid"],
    ),
    "activation=elu(alpha=2)": (None, "activation", Activation("elu", {"alpha": 2.0})),
    "forget_bias=1": (None, "forget_bias", 1),
    "cell_clip=none": (None, "cell_clip", None),
    "projection_clip=null": (None, "projection_clip", None),
    "policy=mixed_float16": (None, "policy", "mixed_float16"),
}


@pytest.mark.parametrize("text", SETTINGS)
def test_settings_are_parsed(text: str) -> None:
    assert settings.parse(text, None) == settings.Setting(*SETTINGS[text])


BAD_SETTINGS = {
    "dropout": "--set dropout=VALUE",
    "droput=1": "did you mean dropout",
    "units=3": "no such option; found units",
    "dropout=much": "wrong type",
    "use_bias=1": "wrong type",
    "seed=1.5": "wrong type",
    "activation=tahn": "did you mean tanh",
    "activation=relu(": "not an activation",
    "activation=elu(alpha)": "constants",
    "activation=elu(alpha=1/0)": "not a number",
    "activation=elu(alpha=1.2.3)": "not a number",
    "activation=hard_sigmoid": "two functions",
    "=1": "no such option",
}


@pytest.mark.parametrize("text", BAD_SETTINGS)
def test_settings_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        settings.parse(text, None)
    assert BAD_SETTINGS[text] in f"{error.value} {error.value.hint}"


ERAS = [("keras1", KERAS2), ("keras2", KERAS2), ("keras3", KERAS3)]


@pytest.mark.parametrize(("era", "table"), ERAS)
def test_hard_sigmoid_is_that_of_the_era(era: str, table: Any) -> None:
    assert settings.parse("activation=hard_sigmoid", era).value == table["hard_sigmoid"]


def test_every_option_can_be_set() -> None:
    names = {field.name for kind in (CellOptions, LayerOptions) for field in fields(kind)}
    assert names <= set(settings.NAMES)


def unsaid(*names: str) -> Model:
    def layer(name: str) -> Any:
        cells = [
            make_cell(
                np.random.default_rng(0),
                3,
                2,
                activation=UNKNOWN,
                recurrent_activation=UNKNOWN,
            )
            for _ in range(2)
        ]
        return make_layer(*cells, name=name, merge_mode=UNKNOWN)

    return Model(layers=tuple(map(layer, names)), source=Source(container="weights.h5"))


def test_settings_apply_to_one_layer_or_to_all() -> None:
    model = unsaid("a", "b")
    found = settings.apply(model, ("activation=tanh", "b.merge_mode=ave", "b.dropout=0.5"))
    for name in ("a", "b"):
        for _, _, cell in found[name].cells():
            assert cell.options.activation == KERAS3["tanh"]
            assert cell.options.recurrent_activation is UNKNOWN
            assert cell.options.dropout == (0.5 if name == "b" else UNKNOWN)
    assert (found["a"].options.merge_mode, found["b"].options.merge_mode) == (UNKNOWN, "ave")
    assert model["a"].forward.lstm_cells[0].options.activation is UNKNOWN


@pytest.mark.parametrize(
    ("text", "message"),
    [("c.dropout=1", "no LSTM layer"), ("a.return_sequences=true", "file says otherwise")],
)
def test_settings_that_do_not_fit(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings.apply(unsaid("a"), (text,))


# ---- selections --------------------------------------------------------------------------------


def test_layers_and_nothing_else() -> None:
    model = lc.load(LATEST_DIR / "several.keras")
    found = select.layers(model, ["m_last", "z_first"])
    assert list(found) == ["z_first", "m_last"]
    assert not found.other
    assert found.source.structure is None
    assert model.other
    with pytest.raises(UnknownLayer) as error:
        select.layers(model, ["m_lost"])
    assert error.value.hint == "did you mean m_last?"


def test_lstm_only() -> None:
    found = select.lstm_only(lc.load(LATEST_DIR / "text.keras"))
    for rest in (found.other, found.assets, found.optimizer, found.texts):
        assert not rest
    assert list(found) == ["lstm"]


def test_cast_to_no_dtype_of_weights() -> None:
    model = lc.load(LATEST_DIR / "seed95.keras")
    for name in ("int8", "float8_e4m3fn", "complex64", "Float32"):
        with pytest.raises(UsageError, match="no such dtype"):
            select.cast(model, name)


def test_cast_to_its_own_dtype_is_nothing() -> None:
    model = lc.load(LATEST_DIR / "seed95.keras")
    found = select.cast(model, "float32")
    assert found.losses == ()
    assert not isinstance(found["lstm"].forget_gate.tensors["kernel"], Cast)


# ---- tensors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 4), (0, 3)])
def test_views_and_blocks(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype("f4")
    tensor = ArrayTensor(array)
    assert same_bits(tensor.read(), array)
    for budget in (1, 7, 10_000):
        found = [block.reshape(-1) for block in tensor.blocks(budget)]
        joined = np.concatenate(found) if found else np.zeros(0, "f4")
        assert same_bits(joined, array.reshape(-1))
    for start in range(array.size):
        piece = tensor.elements(start, array.size)
        assert same_bits(piece, array.reshape(-1)[start:])


def test_gates_of_one_array_cost_nothing_to_fuse() -> None:
    class Counted(ArrayTensor):
        reads = 0

        def rows(self, start: int, stop: int) -> Any:
            Counted.reads += 1
            return super().rows(start, stop)

    base = Counted(np.arange(24, dtype="f4").reshape(3, 8))
    parts = tuple(Columns(base, 2 * i, 2 * i + 2) for i in range(4))
    assert same_bits(SideBySide(parts).read(), base._array)
    assert Counted.reads == 1
    turned = SideBySide(parts[::-1]).read()
    assert same_bits(turned[:, :2], np.ascontiguousarray(base._array[:, 6:]))


CASTS: list[tuple[str, Callable[[Any], Any]]] = [
    ("float16", lambda a: a.astype("f2")),
    ("bfloat16", lambda a: a.astype(ml_dtypes.bfloat16)),
    ("float64", lambda a: a.astype("f8")),
]


@pytest.mark.parametrize(("name", "wanted"), CASTS)
def test_casts_are_numpys(name: str, wanted: Callable[[Any], Any]) -> None:
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 1e30, 65519.9, 1 + 2**-9, -1e-8]
    array = np.array(special, "f4").reshape(2, 5)
    with np.errstate(over="ignore"):
        assert same_bits(Cast(ArrayTensor(array), dtype_of(name)).read(), wanted(array))


def test_json_of_activations() -> None:
    for table in (KERAS2, KERAS3):
        for activation in table.values():
            text = json.dumps(activation.to_json())
            assert pickle.loads(pickle.dumps(activation)) == activation  # our own
            assert json.loads(text)["name"] == activation.name
    assert KERAS2["hard_sigmoid"] != KERAS3["hard_sigmoid"]
    assert {KERAS2["tanh"], KERAS3["tanh"]} == {Activation("tanh")}


def test_one_penalty_of_every_keras_has_one_name() -> None:
    """Keras 1's names and keywords are read as today's, so that `diff` sees one option."""
    today = values.object_spec({"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.1}}, "x")
    for name in ("WeightRegularizer", "L1L2Regularizer", "l1l2"):
        assert values.object_spec({"name": name, "l1": 0.0, "l2": 0.1}, "x") == today
    norm = values.object_spec({"name": "maxnorm", "m": 2}, "x")
    assert norm == {"class_name": "MaxNorm", "config": {"max_value": 2}}
    own = {"class_name": "Own", "config": {"m": 2}, "registered_name": "mine>Own"}
    assert (values.object_spec(own, "x") or {})["config"] == {"m": 2}

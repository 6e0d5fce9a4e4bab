"""Any LSTM through the per-gate file and back; any name through the names."""

from __future__ import annotations

import string
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from support.thinned import rounds

import lstmconvert as lc
from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.model import naming
from lstmconvert.model.activations import SIGMOID, TANH
from lstmconvert.model.gates import GATES, Gate, by_letters, fuse, split
from lstmconvert.model.layer import Cell, Direction, GateWeights, LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.model.options import UNKNOWN, CellOptions, DirectionOptions, LayerOptions
from lstmconvert.tensors.dtypes import dtype_of, same_bits
from lstmconvert.tensors.tensor import ArrayTensor, Columns

quick = settings(
    max_examples=rounds(25),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

DTYPES = ("float16", "bfloat16", "float32", "float64")
WIDTHS = st.sampled_from([1, 1, 2, 3, 7])


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> Any:
    """Any bits at all (NaN payloads, -0.0, infinities, subnormals), in any memory order."""
    kind = dtype_of(dtype)
    count = int(np.prod(shape))
    seed = draw(st.integers(0, 2**32 - 1))
    raw = np.random.default_rng(seed).integers(0, 256, count * kind.itemsize, dtype=np.uint8)
    array = raw.view(kind).reshape(shape).copy()
    for value in draw(st.lists(st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan]), max_size=3)):
        array.flat[draw(st.integers(0, count - 1))] = value
    return ordered(draw, array)


def ordered(draw: st.DrawFn, array: Any) -> Any:
    order = draw(st.sampled_from(["C", "F", "slice", "back", "big"]))
    if order == "F":
        return np.asfortranarray(array)
    if order == "slice":
        wider = np.zeros((*array.shape[:-1], array.shape[-1] + 3), array.dtype)
        wider[..., 1:-2] = array
        return wider[..., 1:-2]
    if order == "back":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    if order == "big" and array.dtype.name != "bfloat16":
        return array.astype(array.dtype.newbyteorder(">"))
    return array


@st.composite
def cells(
    draw: st.DrawFn, dtype: str, fused: bool | None = None, inputs: int | None = None
) -> Cell:
    units = draw(WIDTHS)
    inputs = draw(st.one_of(st.just(units), WIDTHS)) if inputs is None else inputs
    window = draw(st.sampled_from([(), (), (2,), (1, 2)]))
    biases = draw(st.sampled_from([(), ("bias",), ("bias", "recurrent_bias")]))
    parts = {
        "kernel": (*window, inputs, units),
        "recurrent_kernel": (*window, units, units),
        **dict.fromkeys(biases, (units,)),
    }
    gates: dict[Gate, dict[str, Any]] = {gate: {} for gate in GATES}
    for part, shape in parts.items():
        if draw(st.booleans()) if fused is None else fused:
            whole = ArrayTensor(draw(arrays((*shape[:-1], 4 * units), dtype)))
            for index, gate in enumerate(GATES):
                gates[gate][part] = Columns(whole, index * units, (index + 1) * units)
        else:
            for gate in GATES:
                gates[gate][part] = ArrayTensor(draw(arrays(shape, dtype)))
    options = CellOptions(
        activation=draw(st.sampled_from([TANH, UNKNOWN])),
        recurrent_activation=SIGMOID,
        use_bias="bias" in parts,
        dropout=draw(st.sampled_from([0.0, 0.5, UNKNOWN])),
        seed=draw(st.sampled_from([None, 3, UNKNOWN])),
        convolution={"strides": [1] * len(window)} if window else None,
    )
    return Cell(gates={g: GateWeights(g, t) for g, t in gates.items()}, options=options)


@st.composite
def layers(draw: st.DrawFn, name: str) -> LSTMLayer:
    dtype, inputs = draw(st.sampled_from(DTYPES)), draw(WIDTHS)

    def half(backwards: bool) -> Direction:
        stack = [draw(cells(dtype, inputs=inputs))]
        if draw(st.sampled_from([False, False, True])):
            stack.append(draw(cells(dtype, inputs=stack[0].units)))
        return Direction(
            cells=tuple(stack),
            options=DirectionOptions(
                go_backwards=backwards, return_sequences=draw(st.sampled_from([True, UNKNOWN]))
            ),
        )

    both = draw(st.booleans())
    return LSTMLayer(
        name=name,
        path=name,
        class_name="Bidirectional" if both else "LSTM",
        forward=half(False),
        backward=half(True) if both else None,
        options=LayerOptions(merge_mode=draw(st.sampled_from(["sum", None, UNKNOWN]))),
    )


#: Any text: control characters, slashes, dots, other scripts, what HDF5 and zip cannot hold.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LETTERS = "./_\\ \0\n\x7f\u202eé" + string.digits + "forwadbcels"
TRICKY = st.text(st.sampled_from(LETTERS), max_size=14)
ODD = ["other", "other/x", "x.forward", "a.backward", "b.cells.1", "c.cells.1.forward", ""]
ODD += [".", "/", "lstm", "lstm_1", "x.forward_", "d.input_gate.kernel", "__metadata__"]
NAMES = st.one_of(ANY_TEXT, TRICKY, st.sampled_from(ODD))


@st.composite
def models(draw: st.DrawFn) -> Model:
    names = naming.layer_names(draw(st.lists(NAMES, min_size=1, max_size=3)))
    other = {
        f"layers/dense_{i}/vars/0": ArrayTensor(draw(arrays((2, 3), draw(st.sampled_from(DTYPES)))))
        for i in range(draw(st.integers(0, 2)))
    }
    return Model(
        layers=tuple(draw(layers(name)) for name in names),
        source=Source(container="live"),
        other=other,
    )


@contextmanager
def folder() -> Iterator[Path]:
    """A new directory for one example: pytest's own would be shared by all of them."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def assert_same_model(found: Model, wanted: Model) -> None:
    assert list(found) == list(wanted)
    for one, two in zip(found.layers, wanted.layers, strict=True):
        assert (one.options, one.class_name, one.path) == (two.options, two.class_name, two.path)
        assert [n for n, _ in one.directions] == [n for n, _ in two.directions]
        for (_, a), (_, b) in zip(one.directions, two.directions, strict=True):
            assert a.options == b.options
        for (d, i, a), (e, j, b) in zip(one.cells(), two.cells(), strict=True):
            assert (d, i, a.options) == (e, j, b.options)
            assert [n for n, _ in a.tensors()] == [n for n, _ in b.tensors()]
            for (_, x), (_, y) in zip(a.tensors(), b.tensors(), strict=True):
                assert same_bits(x.read(), y.read())
    assert found.other.keys() == wanted.other.keys()
    for name, tensor in wanted.other.items():
        assert same_bits(found.other[name].read(), tensor.read())


@quick
@given(models())
def test_any_model_comes_back_from_safetensors(model: Model) -> None:
    with folder() as path:
        lc.save(model, path / "m.safetensors")
        assert_same_model(lc.load(path / "m.safetensors"), model)


@settings(quick, max_examples=rounds(8))
@given(models())
def test_any_model_comes_back_from_npz(model: Model) -> None:
    assume(not any("\0" in name for name in model))
    with folder() as path:
        lc.save(model, path / "m.safetensors")
        lc.convert(path / "m.safetensors", path / "m.npz")
        lc.convert(path / "m.npz", path / "n.safetensors")
        assert_same_model(lc.load(path / "n.safetensors"), model)
        assert (path / "n.safetensors").read_bytes() == (path / "m.safetensors").read_bytes()


def test_a_name_that_no_zip_holds() -> None:
    model = Model(layers=(one_layer("a\0b", False, 1),), source=Source(container="live"))
    with folder() as path:
        with pytest.raises(UnsupportedByTarget, match="null character"):
            lc.save(model, path / "m.npz")
        assert not list(path.iterdir())


@quick
@given(st.data(), st.sampled_from(DTYPES))
def test_fused_split_fused(data: st.DataObject, dtype: str) -> None:
    """Splitting and fusing in any order of gates is nothing at all, bit for bit."""
    cell = data.draw(cells(dtype, fused=True))
    for part in cell.gate_parts:
        whole = cell.fused(part).read()
        parts = split(ArrayTensor(whole))
        for gate, tensor in parts.items():
            assert same_bits(tensor.read(), cell.gates[gate].tensors[part].read())
        assert same_bits(fuse(parts).read(), whole)
        order = by_letters(data.draw(st.permutations("ifco").map("".join)))
        turned = ArrayTensor(cell.fused(part, order).read())
        assert same_bits(fuse(split(turned, order)).read(), whole)


@pytest.mark.slow
@quick
@given(st.data(), st.sampled_from(DTYPES), st.booleans(), st.booleans())
def test_any_file_of_h5py_in_v3_form(
    data: st.DataObject, dtype: str, big: bool, bias: bool
) -> None:
    """A weight store written by plain h5py, of any byte order and chunking, per gate and back."""
    units, inputs = data.draw(WIDTHS), data.draw(WIDTHS)
    shapes = [(inputs, 4 * units), (units, 4 * units), (4 * units,)][: 3 if bias else 2]
    wanted = [np.ascontiguousarray(data.draw(arrays(s, dtype))) for s in shapes]
    wanted = [a.astype(dtype_of(dtype)) if a.dtype.byteorder == ">" else a for a in wanted]
    layout = data.draw(st.sampled_from([{}, {"chunks": True}, {"compression": "gzip"}]))
    with folder() as path:
        with h5py.File(path / "x.weights.h5", "w") as file:
            for index, array in enumerate(wanted):
                store(file, f"layers/lstm/cell/vars/{index}", array, big, layout)
            store(file, "layers/dense/vars/0", wanted[0][:, :1].copy(), big, layout)
        lc.convert(path / "x.weights.h5", path / "g.safetensors")
        (layer,) = lc.load(path / "g.safetensors").layers
        assert (layer.cell.units, layer.input_dim) == (units, inputs)
        for part, array in zip(layer.cell.gate_parts, wanted, strict=True):
            assert same_bits(layer.cell.fused(part).read(), array)
            for index, gate in enumerate(GATES):
                columns = array[..., index * units : (index + 1) * units]
                one = layer.cell.gates[gate].tensors[part].read()
                assert same_bits(one, np.ascontiguousarray(columns))
        lc.convert(path / "g.safetensors", path / "y.weights.h5")
        with h5py.File(path / "y.weights.h5", "r") as file:
            for index, array in enumerate(wanted):
                found = file[f"layers/lstm/cell/vars/{index}"][()]
                assert found.tobytes() == array.tobytes()


def store(file: Any, name: str, array: Any, big: bool, layout: dict[str, Any]) -> None:
    if array.dtype.name == "bfloat16":  # as Keras does: two opaque bytes and a note
        dataset = file.create_dataset(name, data=array.view("V2"), **layout)
        dataset.attrs["dtype"] = "bfloat16"
    else:
        kind = array.dtype.newbyteorder(">") if big else array.dtype
        file.create_dataset(name, data=array.astype(kind), **layout)


# ---- names -------------------------------------------------------------------------------------


def one_layer(name: str, both: bool, count: int) -> LSTMLayer:
    def tensor(*shape: int) -> ArrayTensor:
        return ArrayTensor(np.zeros(shape, "f4"))

    def cell() -> Cell:
        weights = {"kernel": tensor(1, 1), "recurrent_kernel": tensor(1, 1), "bias": tensor(1)}
        gates = {gate: GateWeights(gate, weights) for gate in GATES}
        return Cell(gates=gates, options=CellOptions(), parts={"projection": tensor(1, 1)})

    half = Direction(cells=tuple(cell() for _ in range(count)), options=DirectionOptions())
    return LSTMLayer(
        name=name, path=name, class_name="x", forward=half, backward=half if both else None
    )


@given(st.lists(NAMES, max_size=6), st.booleans(), st.integers(1, 3))
@example(["x.forward", "x.forward_", "x"], True, 2)
@example(["a", "a.cells.0", "a.cells.0_"], False, 2)
@settings(max_examples=rounds(100), deadline=None)
def test_any_name_is_parsed_as_it_was_rendered(wanted: list[str], both: bool, count: int) -> None:
    """Whatever the layers are called, tensor names are unique, and say where they belong."""
    names = naming.layer_names(wanted)
    assert len(set(names)) == len(wanted)
    seen: set[str] = set()
    for name in names:
        layer = one_layer(name, both, count)
        rendered = [tensor_name for tensor_name, _ in naming.tensors(layer)]
        places = [(d, i, part) for d, i, c in layer.cells() for part, _ in c.tensors()]
        assert len(set(rendered)) == len(rendered)
        assert seen.isdisjoint(rendered)
        seen.update(rendered)
        for tensor_name, (direction, index, part) in zip(rendered, places, strict=True):
            parsed = naming.parse(tensor_name)
            assert parsed is not None
            assert parsed.layer == name
            assert (parsed.direction or "forward") == direction
            assert (parsed.cell or 0) == index
            assert parsed.tensor == part
            assert not tensor_name.startswith(naming.OTHER)


@given(st.lists(NAMES, max_size=6))
@settings(max_examples=rounds(100), deadline=None)
def test_names_are_given_once_and_stay(wanted: list[str]) -> None:
    names = naming.layer_names(wanted)
    assert naming.layer_names(names) == names


@given(st.text(max_size=40))
@settings(max_examples=rounds(100), deadline=None)
def test_any_text_is_parsed_or_not(text: str) -> None:
    parsed = naming.parse(text)
    if parsed is not None:
        middle = f".{parsed.direction}" if parsed.direction else ""
        middle += f".cells.{parsed.cell}" if parsed.cell is not None else ""
        start = f"{parsed.layer}{middle}.{parsed.tensor}"
        assert text == start or parsed.cell is not None  # cells.01


def test_metadata_holds_any_name() -> None:
    """Names that no path and no terminal likes, through the file."""
    names = ["a\nb", "\u202ex", "../..", "C:\\x", "x" * 300, "other/y", "\0", "ü.forward"]
    layers = [one_layer(n, False, 1) for n in naming.layer_names(names)]
    model = Model(layers=tuple(layers), source=Source(container="live"))
    with folder() as path:
        lc.save(model, path / "n.safetensors")
        assert list(lc.load(path / "n.safetensors")) == [layer.name for layer in layers]

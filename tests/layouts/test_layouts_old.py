"""MXNet and Chainer run the weights, in an interpreter that has a NumPy old enough for them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from support.cli import SEED95, failure
from support.foreign import OLD, answers, installed
from support.layout_tools import BUILDERS, SINGLE, case, close
from support.neutral import make_cell, make_layer
from support.thinned import each

import lstmconvert as lc
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model, Source
from lstmconvert.tensors.dtypes import Array, same_bits

#: Each starts an interpreter that imports a framework.
pytestmark = pytest.mark.engines

MXNET = """
    import mxnet as mx
    from mxnet import gluon

    for name, arrays in cases.items():
        shapes = {key: a.shape for key, a in mx.nd.load(f"{name}.params").items()}
        both, depth = "_unfused.0.l_cell.i2h_weight" in shapes, arrays["depth"]
        rows, width = shapes[f"_unfused.0.{'l_cell.' if both else ''}i2h_weight"]
        projected = shapes["_unfused.0.h2r_weight"][0] if name == "projected" else None
        module = gluon.rnn.LSTM(int(rows) // 4, int(depth), "NTC", bidirectional=both,
                                input_size=int(width), projection_size=projected)
        module.load_parameters(f"{name}.params")
        if projected is None:  # only a GPU runs it
            answers[name] = module(mx.nd.array(arrays["x"])).asnumpy()
        module.save_parameters(f"{name}.own.params")
"""
CHAINER = """
    import chainer.links as links
    from chainer import serializers

    for name, arrays in cases.items():
        kind, x = name.partition(".")[0], arrays["x"]
        width, units, depth = (int(n) for n in arrays["sizes"])
        if kind == "L":
            module = links.LSTM(width, units)
        else:
            module = getattr(links, kind)(depth, width, units, 0)
        serializers.load_npz(f"{name}.npz", module)
        if kind == "L":
            y = np.stack([module(x[:, t]).data for t in range(x.shape[1])], 1)
        else:
            y = np.stack([one.data for one in module(None, None, list(x))[2]])
        answers[name] = y
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("old")


def save(layers: tuple[LSTMLayer, ...], path: Path, layout: str) -> None:
    model = Model(layers=layers, source=Source(container="live"), container="live")
    stacks = ["s=" + ",".join(model)] if len(layers) > 1 else []
    lc.save(model, path, layout=layout, bare=True, stacks=stacks, force=True)


def projected() -> LSTMLayer:
    rng = np.random.default_rng(8)
    return make_layer(make_cell(rng, 5, 4, projected=2), return_sequences=True)


@pytest.fixture(scope="module")
def mxnet(folder: Path) -> dict[str, Array]:
    python, given = installed(*OLD), {}
    for name in BUILDERS:
        save(case(name).layers, folder / f"{name}.params", "mxnet")
        given[name] = {"x": case(name).x, "depth": np.array(len(case(name).layers))}
    save((projected(),), folder / "projected.params", "mxnet")
    given["projected"] = {"depth": np.array(1)}
    return answers(MXNET, given, folder, python)


@pytest.mark.parametrize("name", BUILDERS)
def test_mxnet(name: str, mxnet: dict[str, Array]) -> None:
    close(mxnet[name], case(name).y)


@pytest.mark.parametrize("name", [*BUILDERS, "projected"])
def test_mxnets_own_file_comes_back(name: str, mxnet: dict[str, Array], folder: Path) -> None:
    model = lc.load(folder / f"{name}.own.params")
    assert (model.layout, model.container) == ("mxnet", "params")
    layers = (projected(),) if name == "projected" else case(name).layers
    for found, layer in zip(model.values(), layers, strict=True):
        for (_, _, one), (_, _, two) in zip(found.cells(), layer.cells(), strict=True):
            for part, tensor in two.tensors():
                assert same_bits(dict(one.tensors())[part].read(), tensor.read())


def test_params_keep_every_option(tmp_path: Path) -> None:
    lc.convert(SEED95, tmp_path / "x.params", layout="mxnet")
    report = lc.diff(SEED95, tmp_path / "x.params")
    assert all(report.layers)
    assert not any(found.unknown for found in report.layers)


@each(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:16] + struct.pack("<Q", 1 << 60) + data[24:],
        lambda data: data[:24] + bytes(4) + data[28:],
        lambda data: data[:32] + struct.pack("<i", 1 << 30) + data[36:],
        lambda data: data[:32] + struct.pack("<i", -1) + data[36:],
        lambda data: data[:36] + struct.pack("<q", -4) + data[44:],
        lambda data: data[:36] + struct.pack("<q", 1 << 62) + data[44:],
        lambda data: data[:60] + struct.pack("<i", 99) + data[64:],
        lambda data: data + b"x",
        lambda data: data.replace(b"_unfused.0.i2h_weight", b"\xff" * 21),
        lambda data: data.replace(b"i2h_weight", b"h2h_weight"),
    ],
)
def test_params_that_lie_are_refused(change: object, tmp_path: Path) -> None:
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2))
    lc.save(layer, tmp_path / "good.params", layout="mxnet", bare=True)
    data = (tmp_path / "good.params").read_bytes()
    (tmp_path / "x.params").write_bytes(change(data))
    failure("inspect", tmp_path / "x.params")


@pytest.fixture(scope="module")
def chainer(folder: Path) -> dict[str, Array]:
    python, given = installed(*OLD), {}
    for name in BUILDERS:
        known = case(name)
        sizes = {"sizes": np.array([known.layers[0].input_dim, known.layers[0].units, 1])}
        sizes["sizes"][2] = len(known.layers)
        layout, kind = ("chainer-bi", "NStepBiLSTM") if known.both else ("chainer", "NStepLSTM")
        save(known.layers, folder / f"{kind}.{name}.npz", layout)
        given[f"{kind}.{name}"] = {"x": known.x, **sizes}
        if name in SINGLE and not known.both:
            save(known.layers, folder / f"L.{name}.npz", "chainer-lstm")
            given[f"L.{name}"] = {"x": known.x, **sizes}
    return answers(CHAINER, given, folder, python)


@pytest.mark.parametrize("name", BUILDERS)
def test_chainer(name: str, chainer: dict[str, Array]) -> None:
    known = case(name)
    close(chainer[f"NStep{'Bi' if known.both else ''}LSTM.{name}"], known.y)
    if f"L.{name}" in chainer:
        close(chainer[f"L.{name}"], known.y)


@pytest.mark.engines
@pytest.mark.parametrize("name", ["bidirectional", "stacked-bidirectional"])
def test_chainers_links_take_turns(name: str) -> None:
    known = case(name)
    arrays = lc.arrange(known.layers, "chainer-bi")
    assert sorted({key[0] for key in arrays}) == list("0123"[: 2 * len(known.layers)])
    found = lc.gather(arrays, "chainer-bi")
    layers = [found] if isinstance(found, LSTMLayer) else list(found.values())
    for one, two in zip(layers, known.layers, strict=True):
        assert two.backward is not None
        assert one.backward is not None
        wanted = two.backward.lstm_cells[0].gates
        for gate, weights in one.backward.lstm_cells[0].gates.items():
            assert same_bits(weights.kernel, wanted[gate].kernel)
    with pytest.raises(lc.LSTMConvertError, match="one direction"):
        lc.arrange(case("plain").layer, "chainer-bi")


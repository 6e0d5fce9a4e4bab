"""PaddlePaddle runs the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.foreign import answers
from support.layout_tools import BUILDERS, case, close
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.tensors.dtypes import Array, same_bits

pytestmark = pytest.mark.engines

RUN = """
    import paddle
    for name, arrays in cases.items():
        x = arrays.pop("x")
        both, depth = "0.cell_fw.weight_ih" in arrays, 1 + max(int(key[0]) for key in arrays)
        rows, width = arrays["0.cell_fw.weight_ih" if both else "0.cell.weight_ih"].shape
        projected = arrays["0.cell.weight_ho"].shape[1] if name == "projected" else 0
        module = paddle.nn.LSTM(width, rows // 4, num_layers=depth, proj_size=projected,
                                direction="bidirect" if both else "forward")
        missing, unexpected = module.set_state_dict(arrays)
        assert not unexpected and not [key for key in missing if ".cell" in key]
        module.eval()
        answers[name] = module(paddle.to_tensor(x))[0].numpy()
        for key, tensor in module.state_dict().items():
            answers[f"{name}|{key}"] = tensor.numpy()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    cases = {name: (case(name).x, case(name).layers) for name in BUILDERS}
    cases["projected"] = (X, (projected(),))
    given = {name: {"x": x, **lc.arrange(layers, "paddle")} for name, (x, layers) in cases.items()}
    return answers(RUN, given, tmp_path_factory.mktemp("paddle"))


X = np.random.default_rng(3).normal(size=(3, 6, 5)).astype(np.float32)


def projected() -> lc.LSTMLayer:
    rng = np.random.default_rng(8)
    return make_layer(make_cell(rng, 5, 4, projected=2), return_sequences=True)


@pytest.mark.parametrize("name", BUILDERS)
def test_paddle(name: str, found: dict[str, Array]) -> None:
    close(found[name], case(name).y)


def test_a_projection(found: dict[str, Array]) -> None:
    close(found["projected"], reference.run(projected(), X).outputs[0])


@pytest.mark.parametrize("name", ["plain", "bidirectional", "stacked", "projected"])
def test_its_own_state_dict_comes_back(
    name: str, found: dict[str, Array], tmp_path: Path
) -> None:
    """Its flat names are wrong where there is a projection; the others are always right."""
    from safetensors.numpy import save_file

    start = f"{name}|"
    state = {k.removeprefix(start): a for k, a in found.items() if k.startswith(start)}
    assert {"0.cell.weight_ih", "0.cell_fw.weight_ih"} & set(state)
    save_file({f"net.{k}": np.ascontiguousarray(a) for k, a in state.items()}, tmp_path / "x.st")
    model = lc.load(tmp_path / "x.st")
    layers = [projected()] if name == "projected" else case(name).layers
    for one, two in zip(model.values(), layers, strict=True):
        for (_, _, a), (_, _, b) in zip(one.cells(), two.cells(), strict=True):
            for gate, weights in b.gates.items():
                for part, tensor in weights.tensors.items():
                    assert same_bits(a.gates[gate].tensors[part].read(), tensor.read())

"""Core ML: coremltools makes of the MIL arrays the very NeuralNetwork arrays that we write.

Predictions need a Mac. What is compared here is where each number ends: coremltools converts a MIL
program into a NeuralNetwork, whose weights lie gate by gate.
"""

from __future__ import annotations

import numpy as np
import pytest
from foreign import answers
from layout_tools import SINGLE, case

import lstmconvert as lc
from lstmconvert.dtypes import Array, same_bits

CONVERT = """
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    for name, arrays in cases.items():
        both, (rows, width) = "weight_ih_back" in arrays, arrays["weight_ih"].shape
        side = "bidirectional" if both else "forward"

        @mb.program(input_specs=[mb.TensorSpec(shape=(6, 1, width))])
        def program(x):
            h = np.zeros((1, rows // 4 * (2 if both else 1)), np.float32)
            y, *_ = mb.lstm(x=x, initial_h=h, initial_c=h, direction=side, output_sequence=True,
                            **arrays)
            return y

        spec = ct.convert(program, convert_to="neuralnetwork").get_spec()
        for layer in spec.neuralNetwork.layers:
            kind = layer.WhichOneof("layer")
            if kind not in ("uniDirectionalLSTM", "biDirectionalLSTM"):
                continue
            found = getattr(layer, kind).weightParams
            for half, weights in zip(("forward.", "backward."), found if both else [found]):
                start = half if both else ""
                for field, value in weights.ListFields():
                    key = f"{name}|{start}{field.name}"
                    answers[key] = np.array(value.floatValue, np.float32)
"""
NAMES = [name for name in SINGLE if "no-bias" not in name]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    given = {name: lc.arrange(case(name).layer, "coreml-mil") for name in NAMES}
    return answers(CONVERT, given, tmp_path_factory.mktemp("coreml"))


@pytest.mark.parametrize("name", NAMES)
def test_coreml(name: str, found: dict[str, Array]) -> None:
    wanted = lc.arrange(case(name).layer, "coreml")
    start = f"{name}|"
    assert {key.removeprefix(start) for key in found if key.startswith(start)} == set(wanted)
    for key, array in wanted.items():
        assert same_bits(found[start + key].reshape(array.shape), np.ascontiguousarray(array)), key

"""hls4ml: the arrays are those that it takes from a Keras model, and its C simulation runs them.

It computes in fixed point, with the functions in tables of 1024 entries: its outputs are near
Keras's, not equal to rounding. Unlike gates are far apart at that scale.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support.foreign import answers
from support.layout_tools import case, close

import lstmconvert as lc
from lstmconvert import reference
from lstmconvert.tensors.dtypes import Array, same_bits

RUN = """
    import os
    os.environ["KERAS_BACKEND"] = "jax"  # the quicker import
    import keras
    import hls4ml

    x = keras.Input(cases["plain"]["x"].shape[1:])
    layers = {name: keras.layers.LSTM(3, return_sequences=True) for name in cases}
    for name, layer in layers.items():
        if "bidirectional" in name:
            layers[name] = keras.layers.Bidirectional(layer)
        layers[name].name = name.replace("-", "_")
    model = keras.Model(x, [layer(x) for layer in layers.values()])
    for name, layer in layers.items():
        layer.set_weights([cases[name][f"w{n}"] for n in range(len(layer.weights))])
    config = hls4ml.utils.config_from_keras_model(
        model, granularity="name", default_precision="ap_fixed<32,8>")
    made = hls4ml.converters.convert_from_keras_model(
        model, hls_config=config, output_dir="project", backend="Vivado")
    made.write()
    with open("project/build_lib.sh") as file:
        text = file.read()
    assert "-O3" in text
    with open("project/build_lib.sh", "w") as file:
        file.write(text.replace("-O3", "-O0"))  # it takes a third of the time
    made._compile()
    outputs = made.predict(np.ascontiguousarray(cases["plain"]["x"]))
    for (name, layer), y in zip(layers.items(), outputs):
        answers[f"{name}|y"] = np.asarray(y)
        for weights in made.graph[layer.name].weights.values():
            answers[f"{name}|{weights.name.rstrip('0123456789').rstrip('_')}"] = weights.data
"""
NAMES = ("plain", "bidirectional")
#: Of 32 bits with 8 before the point, and of tables of 1024 entries from -8 to 8.
NEAR = 0.03


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    folder = tmp_path_factory.mktemp("hls4ml")
    given = {}
    for name in NAMES:
        found = lc.arrange(case(name).layer, "keras")
        sides = ("forward.", "backward.") if case(name).both else ("",)
        keys = [f"{d}{key}" for d in sides for key in ("kernel", "recurrent_kernel", "bias")]
        given[name] = {f"w{n}": found[key] for n, key in enumerate(keys)} | {"x": case("plain").x}
    result = answers(RUN, given, folder)
    shutil.rmtree(folder / "project")
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_hls4ml(name: str, found: dict[str, Array]) -> None:
    arrays = lc.arrange(case(name).layer, "hls4ml")
    own = {key.removeprefix(f"{name}|") for key in found if key.startswith(f"{name}|")}
    assert own - {"y"} == set(arrays)
    for key, array in arrays.items():
        assert same_bits(found[f"{name}|{key}"].astype(np.float32), array), key
    x = case("plain").x
    wanted = reference.run(case(name).layer, x).outputs[0]
    close(found[f"{name}|y"].reshape(wanted.shape), wanted, NEAR)

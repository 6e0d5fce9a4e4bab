"""Make a Keras file of any size, laid out as Keras does it:
`python models.py DST UNITS LAYERS [OTHERS]`. OTHERS counts tensors of other layers, in a
`.weights.h5` alone.

It runs in a process of its own, so that the measuring one stays small: a child's peak memory is at
least that of the process that starts it.
"""

from __future__ import annotations

import copy
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

#: A real archive of Keras 3.15.1, whose config and metadata the made files take over.
TEMPLATE = Path(__file__).parents[2] / "fixtures" / "keras-3.15.1" / "seed95.keras"
INPUTS = 4


def write_weights(path: Path, units: int, layers: int, others: int = 0) -> None:
    """Write a v3 weight store of stacked LSTM layers, contiguous, random float32, and as many other
    layers as `others`, of one tensor each."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for index in range(layers):
            group = file.create_group(f"layers/{_name(index)}")
            group.create_group("vars").attrs["name"] = _name(index)
            arrays = group.create_group("cell/vars")
            arrays.attrs["name"] = "lstm_cell"
            inputs = units if index else INPUTS
            for number, shape in enumerate([(inputs, 4 * units), (units, 4 * units), (4 * units,)]):
                arrays[str(number)] = random.random(shape, np.float32) - np.float32(0.5)
        for index in range(others):
            group = file.create_group(f"layers/scale_{index}/vars")
            group["0"] = random.random(8, np.float32)


def write_archive(path: Path, units: int, layers: int) -> None:
    """Write a `.keras` archive: the weight store of `write_weights`, stored, and a config."""
    weights = path.with_suffix(".weights.h5")
    write_weights(weights, units, layers)
    with zipfile.ZipFile(TEMPLATE) as template, zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", template.read("metadata.json"))
        config = _config(json.loads(template.read("config.json")), units, layers)
        archive.writestr("config.json", json.dumps(config))
        archive.write(weights, "model.weights.h5")
    weights.unlink()


def _name(index: int) -> str:
    return f"lstm_{index}" if index else "lstm"


def _config(template: dict[str, Any], units: int, layers: int) -> dict[str, Any]:
    first, lstm = template["config"]["layers"][:2]
    first["config"]["batch_shape"] = [None, None, INPUTS]
    del first["inbound_nodes"], lstm["inbound_nodes"]
    stack = [first]
    for index in range(layers):
        layer = copy.deepcopy(lstm)
        layer["name"] = layer["config"]["name"] = _name(index)
        layer["config"].update(units=units, return_sequences=True)
        layer["build_config"]["input_shape"] = [None, None, units if index else INPUTS]
        stack.append(layer)
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "sequential", "trainable": True, "dtype": "float32", "layers": stack},
        "registered_name": None,
        "build_config": {"input_shape": [None, None, INPUTS]},
        "compile_config": {},
    }


if __name__ == "__main__":
    destination, sizes = Path(sys.argv[1]), [int(text) for text in sys.argv[2:]]
    write = write_archive if destination.suffix == ".keras" else write_weights
    write(destination, *sizes)

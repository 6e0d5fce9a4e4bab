"""Keras models that are chains of layers, and what Keras answers to a sequence."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstmconvert.tensors.dtypes import Array

#: How long a sequence is: long for one model, since Keras takes seconds for each of them.
LONG, STEPS = 200, 40
#: Saturated gates: weights that large take the sigmoid and tanh to their ends. The recurrent ones
#: stay as they are: a state that decides over the next one is chaos, and float32 says nothing then.
LARGE = 30.0


def _layers(keras: Any) -> Mapping[str, Callable[[], list[Any]]]:
    k = keras.layers

    def lstm(units: int, **options: Any) -> Any:
        return k.LSTM(units, **{"return_sequences": True, **options})

    return {
        "amplifier": lambda: [lstm(6), k.Dense(1, name="head")],
        "dropout": lambda: [
            lstm(4), k.Dropout(0.3), lstm(3, use_bias=False), k.Dense(2, "tanh"), k.Identity(),
        ],
        "convolution": lambda: [
            k.Conv1D(4, 3, dilation_rate=2, padding="causal", activation="relu"),
            k.BatchNormalization(),
            k.PReLU(shared_axes=[1]),
            lstm(3),
            k.TimeDistributed(k.Dense(2, "sigmoid"), name="head"),
        ],
        "activations": lambda: [
            lstm(5), k.Dense(4), k.Activation("tanh"), k.Dense(3, "elu"), k.ReLU(),
        ],
        "gru": lambda: [k.GRU(4, return_sequences=True), lstm(3), k.Dense(3, "softmax")],
        "normalized": lambda: [
            k.BatchNormalization(),
            lstm(3),
            k.PReLU(shared_axes=[1]),
            k.BatchNormalization(scale=False),
            k.TimeDistributed(k.Dense(2, "sigmoid"), name="head"),
            k.LeakyReLU(0.1),
        ],
        "layered": lambda: [
            k.LayerNormalization(), lstm(3), k.LayerNormalization(scale=False), k.Dense(4),
            k.LayerNormalization(center=False, scale=False),
        ],
        "functions": lambda: [
            lstm(5), k.Dense(4, "selu"), k.Dense(3, "silu"), k.Dense(3, "hard_sigmoid"),
            k.Dense(3), k.ReLU(max_value=0.5), k.LeakyReLU(0.1), k.ELU(0.5), k.Softmax(),
        ],
        "folded behind": lambda: [
            k.Conv1D(4, 3, padding="causal", use_bias=False, name="conv1d"),
            k.BatchNormalization(), k.ReLU(), lstm(3), k.TimeDistributed(k.Dense(2), name="head"),
            k.BatchNormalization(center=False),
        ],
        "folded ahead": lambda: [
            k.BatchNormalization(), lstm(4, use_bias=False, name="lstm"), k.BatchNormalization(),
            k.Conv1D(4, 3, groups=2, activation="tanh", name="conv1d"),
            k.BatchNormalization(scale=False), k.Dense(2, use_bias=False, name="head"),
        ],
        "folded into cells": lambda: [
            k.BatchNormalization(), k.Bidirectional(lstm(3), name="bidirectional"),
            k.BatchNormalization(), k.GRU(2, return_sequences=True, name="gru"),
        ],
        "ahead": lambda: [k.Conv1D(4, 3, padding="causal"), lstm(3), k.Dense(1)],
        "same": lambda: [
            k.Conv1D(3, 4, padding="same", use_bias=False), lstm(4),
            k.Conv1D(4, 3, dilation_rate=2, groups=2), k.LSTM(2), k.Dense(1, "tanh"),
        ],
        "both": lambda: [k.Bidirectional(lstm(3)), k.Conv1D(2, 2, groups=2, padding="same")],
        "both-last": lambda: [k.Bidirectional(k.LSTM(3)), k.Dense(2)],
        "backwards": lambda: [lstm(3, go_backwards=True), k.LSTM(2, go_backwards=True)],
        "last": lambda: [lstm(5, return_sequences=False), k.Dense(2, use_bias=False)],
    }  # fmt: skip


NAMES = ("amplifier", "dropout", "convolution", "activations", "gru", "last")


def model(keras: Any, name: str, *, inputs: int = 2, scale: float = 1.0, seed: int = 7) -> Any:
    """Return a built model with random weights, those of LSTMs but the recurrent times `scale`."""
    made = keras.Sequential([keras.layers.Input((None, inputs)), *_layers(keras)[name]()])
    rng = np.random.default_rng(seed)
    weights = []
    for variable in made.weights:
        numbers = rng.normal(size=variable.shape) * 0.5
        if "variance" in variable.path:
            numbers = rng.uniform(0.5, 2.0, variable.shape)
        elif "lstm" in variable.path and "recurrent" not in variable.path:
            numbers = numbers * scale
        weights.append(numbers.astype(np.float32))
    made.set_weights(weights)
    return made


def saved(keras: Any, folder: Path, name: str, **how: Any) -> tuple[Path, Array, Array]:
    """Save a model, and return its file, an input (1, steps, inputs), and what Keras answers."""
    data, x, answer = _answered(keras, name, **how)
    path = folder / f"{name}.keras"
    path.write_bytes(data)
    return path, x, answer


@functools.cache
def _answered(keras: Any, name: str, **how: Any) -> tuple[bytes, Array, Array]:
    """Return a model's file, an input and its answer, for all tests: each takes seconds."""
    made = model(keras, name, **how)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.keras")
        made.save(path)
        data = path.read_bytes()
    steps = LONG if name == "amplifier" else STEPS
    x = np.random.default_rng(8).normal(size=(1, steps, made.input_shape[-1])).astype(np.float32)
    answer = np.asarray(made(x))
    for array in (x, answer):
        array.flags.writeable = False
    return data, x, answer


def in_ncnn(path: Path, x: Array, name: str) -> Array:
    """Return what ncnn gives for a batch of sequences, by the blobs NAME.x and NAME.y."""
    import ncnn

    net = ncnn.Net()
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    assert net.load_param(str(path)) == 0
    assert net.load_model(str(path.with_suffix(".bin"))) == 0
    outputs = []
    for sequence in x:
        with net.create_extractor() as extractor:
            extractor.input(f"{name}.x", ncnn.Mat(np.ascontiguousarray(sequence)))
            _, y = extractor.extract(f"{name}.y")
            outputs.append(np.array(y))
    return np.stack(outputs)


def in_litert(path: Path, x: Array) -> Array:
    """Return what LiteRT gives for a sequence."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
    (given,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.reset_all_variables()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(end["index"]))

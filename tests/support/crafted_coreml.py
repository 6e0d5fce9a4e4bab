"""Attacks on Core ML's protocol buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.bundlefiles import nested, varint
from support.crafted import Bench
from support.crafted_others import Files, attack, main_of, plain, put
from support.protobuf import message

_NETWORK, _PIPELINE = 500, 202
plain("mlmodel")


def _edit(refused: str | None) -> Callable[[Callable[[Any], object]], Callable[[Any], object]]:
    """Register a change of the message."""

    def register(change: Callable[[Any], object]) -> Callable[[Any], object]:
        def edited(found: Files, bench: Bench) -> None:
            model = message("Model").FromString(main_of(found))
            change(model)
            put(found, model.SerializeToString())

        edited.__name__ = change.__name__
        attack("mlmodel", refused)(edited)
        return change

    return register


def _lstm(model: Any) -> Any:
    return next(
        layer.uniDirectionalLSTM
        for layer in model.neuralNetwork.layers
        if layer.HasField("uniDirectionalLSTM")
    )


@_edit("its numbers do not have its shape")
def endless_inputs(model: Any) -> None:
    _lstm(model).inputVectorSize = 1 << 62


@_edit("above the limit")
def endless_units(model: Any) -> None:
    _lstm(model).outputVectorSize = 1 << 62


@_edit("its numbers do not have its shape")
def numbers_cut(model: Any) -> None:
    weights = _lstm(model).weightParams.forgetGateWeightMatrix
    weights.floatValue = weights.floatValue[:-1]


@_edit("its numbers do not have its shape")
def numbers_twice(model: Any) -> None:
    weights = _lstm(model).weightParams.forgetGateWeightMatrix
    weights.floatValue = weights.floatValue * 2


@_edit("quantized")
def numbers_of_bytes(model: Any) -> None:
    _lstm(model).weightParams.forgetGateWeightMatrix.int8RawValue = b"x"


@_edit("three functions")
def no_functions(model: Any) -> None:
    del _lstm(model).activations[:]


@_edit("")
def no_forget_gate(model: Any) -> None:
    _lstm(model).weightParams.ClearField("forgetGateWeightMatrix")


@_edit("two layers of one name")
def two_layers_of_one_name(model: Any) -> None:
    model.neuralNetwork.layers.extend(list(model.neuralNetwork.layers))


@_edit("an ML program")
def program(model: Any) -> None:
    model.ClearField("neuralNetwork")
    model.mlProgram.SetInParent()


def _bytes(label: str, refused: str, change: Callable[[bytes], bytes]) -> None:
    def changed(found: Files, bench: Bench) -> None:
        put(found, change(main_of(found)))

    changed.__name__ = label
    attack("mlmodel", refused)(changed)


def _deep(data: bytes) -> bytes:
    inner = b""
    for _ in range(3000):
        inner = nested(_PIPELINE, nested(1, inner))
    return data + inner


_bytes("cut", "not a model of Core ML", lambda data: data[:-1])
_bytes("deep", "not a model of Core ML", _deep)
_bytes(
    "length_beyond", "not a model",
    lambda data: data + nested(_NETWORK, b"")[:2] + varint(1 << 40),
)  # fmt: skip
_bytes("endless_varint", "not a model", lambda data: data + b"\xff" * 20)
_bytes(
    "empty_layers", "above the limit",
    lambda data: data + nested(_NETWORK, nested(1, b"") * 1_200_000),
)  # fmt: skip

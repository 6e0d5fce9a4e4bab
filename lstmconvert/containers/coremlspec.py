"""The part of Core ML's specification that an LSTM takes, as messages of the protobuf library.

Names and numbers are those of coremltools/mlmodel/format (Model.proto, FeatureTypes.proto,
NeuralNetwork.proto). Fields that are not here are kept unread. Lists of float32 are declared as the
bytes that they are in a file, so that no number passes through another type.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from lstmconvert import limits
from lstmconvert.tensorflow.wire import LENGTH, Parser

_PACKAGE = "lstmconvert.coreml"
#: Message -> field -> its number, `*` if it is repeated, and its type: a scalar or a message.
_MESSAGES: dict[str, dict[str, str]] = {
    "Model": {
        "specificationVersion": "1 int32",
        "description": "2 ModelDescription",
        "pipelineClassifier": "200 PipelineOf",
        "pipelineRegressor": "201 PipelineOf",
        "pipeline": "202 Pipeline",
        "neuralNetworkRegressor": "303 NeuralNetwork",
        "neuralNetworkClassifier": "403 NeuralNetwork",
        "neuralNetwork": "500 NeuralNetwork",
        "mlProgram": "502 Empty",
        "serializedModel": "3000 Empty",
    },
    "PipelineOf": {"pipeline": "1 Pipeline"},
    "Pipeline": {"models": "1* Model"},
    "ModelDescription": {
        "input": "1* FeatureDescription",
        "output": "10* FeatureDescription",
        "metadata": "100 Metadata",
    },
    "Metadata": {"shortDescription": "1 string", "userDefined": "100* UserDefined"},
    "UserDefined": {"key": "1 string", "value": "2 string"},
    "FeatureDescription": {"name": "1 string", "type": "3 FeatureType"},
    "FeatureType": {"multiArrayType": "5 ArrayFeatureType"},
    "ArrayFeatureType": {"shape": "1* int64", "dataType": "2 int32", "shapeRange": "31 ShapeRange"},
    "ShapeRange": {"sizeRanges": "1* SizeRange"},
    "SizeRange": {"lowerBound": "1 uint64", "upperBound": "2 int64"},
    "NeuralNetwork": {"layers": "1* Layer", "arrayInputShapeMapping": "5 int32"},
    "Layer": {
        "name": "1 string",
        "input": "2* string",
        "output": "3* string",
        "uniDirectionalLSTM": "420 UniDirectionalLSTM",
        "biDirectionalLSTM": "430 BiDirectionalLSTM",
        "transpose": "985 Axes",
        "loadConstantND": "1070 LoadConstantND",
        "squeeze": "1120 SignedAxes",
        "expandDims": "1125 SignedAxes",
    },
    "Axes": {"axes": "1* uint64"},
    "SignedAxes": {"axes": "1* int64"},
    "LoadConstantND": {"shape": "1* uint64", "data": "2 WeightParams"},
    "UniDirectionalLSTM": {
        "inputVectorSize": "1 uint64",
        "outputVectorSize": "2 uint64",
        "activations": "10* ActivationParams",
        "params": "15 LSTMParams",
        "weightParams": "20 LSTMWeightParams",
        "reverseInput": "100 bool",
    },
    "BiDirectionalLSTM": {
        "inputVectorSize": "1 uint64",
        "outputVectorSize": "2 uint64",
        "activationsForwardLSTM": "10* ActivationParams",
        "activationsBackwardLSTM": "11* ActivationParams",
        "params": "15 LSTMParams",
        "weightParams": "20* LSTMWeightParams",
    },
    "LSTMParams": {
        "sequenceOutput": "10 bool",
        "hasBiasVectors": "20 bool",
        "forgetBias": "30 bool",
        "hasPeepholeVectors": "40 bool",
        "coupledInputAndForgetGate": "50 bool",
        "cellClipThreshold": "60 float",
    },
    "LSTMWeightParams": {
        f"{gate}{part}": f"{start + number} WeightParams"
        for part, start in (
            ("WeightMatrix", 1),
            ("RecursionMatrix", 20),
            ("BiasVector", 40),
            ("PeepholeVector", 60),
        )
        for number, gate in enumerate(
            ("inputGate", "forgetGate", "outputGate")
            if part == "PeepholeVector"
            else ("inputGate", "forgetGate", "blockInput", "outputGate")
        )
    },
    "WeightParams": {
        "floatValue": "1 bytes",
        "float16Value": "2 bytes",
        "rawValue": "30 bytes",
        "int8RawValue": "31 bytes",
    },
    "ActivationParams": {
        "linear": "5 Slope",
        "ReLU": "10 Empty",
        "tanh": "30 Empty",
        "scaledTanh": "31 Slope",
        "sigmoid": "40 Empty",
        "sigmoidHard": "41 Slope",
    },
    "Slope": {"alpha": "1 float", "beta": "2 float"},
    "Empty": {},
}


@cache
def message(name: str) -> Any:
    """Return the class of a message."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def check_messages(data: bytes, where: object) -> None:
    """Count messages and texts before the library makes them: two bytes become a hundred.

    Raises:
        CorruptFile: it is no protocol buffer.
        LimitExceeded: there are too many.
    """
    parser, count = Parser(where), 0
    levels = [(_kinds("Model"), parser.fields(data))]
    while levels:
        kinds, fields = levels[-1]
        for number, wire, payload in fields:
            kind = kinds.get(number)
            if wire != LENGTH or kind is None or kind == "bytes":
                continue
            count += 1
            if count & 0xFFF == 0:
                limits.COREML_MESSAGES.check(count, where, "the number of messages")
            if kind in _MESSAGES and payload:
                levels.append((_kinds(kind), parser.fields(payload)))
                break
        else:
            levels.pop()
    limits.COREML_MESSAGES.check(count, where, "the number of messages")


@cache
def _kinds(name: str) -> dict[int, str]:
    pairs = (text.split() for text in _MESSAGES[name].values())
    return {int(number.removesuffix("*")): kind for number, kind in pairs}


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(
        name="lstmconvert/coreml.proto", package=_PACKAGE, syntax="proto3"
    )
    field_type = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for key, text in fields.items():
            number, kind = text.split()
            field = described.field.add(name=key, number=int(number.removesuffix("*")))
            field.label = (
                field_type.LABEL_REPEATED if number.endswith("*") else field_type.LABEL_OPTIONAL
            )
            if kind in _MESSAGES:
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool

"""Number types of ONNX by NumPy's names, both ways (onnx/onnx.proto, TensorProto.DataType)."""

from __future__ import annotations

#: NumPy name -> number of the enumeration.
NUMBERS: dict[str, int] = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
    "complex64": 14,
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e5m2": 19,
}
NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items()}

#: Whole numbers of four bits, two in a byte, the lower half first, and what they are read as.
PACKED: dict[int, str] = {21: "uint8", 22: "int8"}

#: Opsets that can be asked for: LSTM-14 is the oldest whose batch-major neighbours (Squeeze and
#: Unsqueeze with axes as inputs, bfloat16 Concat) are all there.
OLDEST = 14
#: LSTM-22 differs from LSTM-14 in nothing but that it takes bfloat16.
BFLOAT16_SINCE = 22


def newest() -> int:
    """Return the newest opset that the installed onnx knows."""
    import onnx

    return onnx.defs.onnx_opset_version()

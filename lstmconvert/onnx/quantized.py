"""ONNX Runtime's DynamicQuantizeLSTM: an LSTM whose W and R are stored as 8-bit integers.

`onnxruntime.quantization.quantize_dynamic` puts it in an LSTM's place. Its inputs are the LSTM's,
and four more (onnxruntime/docs/ContribOperators.md); W and R lie the other way round, and a weight
is (q - zero point) * scale, with one scale for each direction or for each column of one.
"""

from __future__ import annotations

import numpy as np
import onnx

from lstmconvert.dtypes import Array
from lstmconvert.errors import CorruptFile
from lstmconvert.tensors import ArrayTensor, Tensor

OPERATOR, DOMAIN = "DynamicQuantizeLSTM", "com.microsoft"
#: Weight -> the inputs that hold its scale and its zero point, by their places.
SCALES = {"W": (8, 9), "R": (10, 11)}
_TYPES = ("int8", "uint8")


def is_quantized(node: onnx.NodeProto) -> bool:
    """Whether a node is ONNX Runtime's quantized LSTM."""
    return node.op_type == OPERATOR and node.domain == DOMAIN


def dequantized(stored: Tensor, scale: Tensor, zero: Tensor | None, where: str) -> Tensor:
    """Return W or R of the operator LSTM, (directions, 4 * units, inputs), float32.

    Args:
        stored: (directions, inputs, 4 * units), of 8 bits.
        scale, zero: (directions,), or (directions, 4 * units).
        where: for messages.

    Raises:
        CorruptFile: a type or a shape is not the operator's.
    """
    shape = stored.shape
    shapes = (shape[:1], (*shape[:1], *shape[2:]))
    fits = (
        len(shape) == 3
        and stored.dtype.name in _TYPES
        and scale.dtype.name == "float32"
        and scale.shape in shapes
        and (zero is None or (zero.dtype == stored.dtype and zero.shape in shapes))
    )
    if not fits:
        raise CorruptFile(
            "the weights of a quantized LSTM do not fit their scales",
            where=where,
            found=f"{stored.dtype.name} {shape}, scale {scale.dtype.name} {scale.shape}",
        )
    whole = stored.read().astype(np.int32)
    if zero is not None:
        whole -= _each_column(zero.read()).astype(np.int32)
    values = whole.astype(np.float32) * _each_column(scale.read())
    return ArrayTensor(np.ascontiguousarray(values.swapaxes(1, 2)))


def _each_column(array: Array) -> Array:
    return array.reshape(array.shape[0], 1, -1)

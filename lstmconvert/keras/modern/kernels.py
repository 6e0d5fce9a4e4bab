"""Arrays that lie otherwise in an older Keras, brought to the order of axes of Keras 3; and whether
they are of the size that their layer's config says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from lstmconvert.dtypes import Array
from lstmconvert.errors import CorruptFile
from lstmconvert.keras.modern.classes import CONVOLUTIONS
from lstmconvert.keras.modern.parts import Part
from lstmconvert.keras.modern.recurrent import gru_of_cudnn
from lstmconvert.tensors import Computed, Tensor


def finish(part: Part, *, theano: bool) -> None:
    """Turn a part's arrays into the order of axes that Keras 3 has."""
    class_name = part.node.class_name
    if class_name == "CuDNNGRU" and part.arrays:
        part.arrays = gru_of_cudnn(part.arrays)
    if class_name == "Conv1D" and part.arrays and len(part.arrays[0].shape) == 4:
        part.arrays[0] = _conv1d_of_keras1(part)
    elif class_name in ("Conv2D", "Conv3D") and part.arrays:
        part.arrays[0] = _window_first(part)
    if theano and class_name in CONVOLUTIONS and part.arrays:
        part.arrays[0] = _flipped(part.arrays[0])


def _conv1d_of_keras1(part: Part) -> Tensor:
    """(steps, 1, input, filters) of Keras 1.1 and 1.2, or (filters, input, steps, 1) before
    (keras/engine/saving.py of Keras 2.2, `preprocess_weights_for_loading`)."""
    kernel = part.arrays[0]
    steps, filters = part.config.get("kernel_size"), part.config.get("filters")
    steps = steps[0] if isinstance(steps, list) else steps
    if kernel.shape[:2] == (steps, 1) and kernel.shape[3] == filters:
        return _changed(kernel, lambda array: array[:, 0])
    return _changed(kernel, lambda array: np.transpose(array, (2, 3, 1, 0))[:, 0])


def _window_first(part: Part) -> Tensor:
    kernel, filters = part.arrays[0], part.config.get("filters")
    is_th = part.config.get("data_format") == "channels_first"
    window = part.config.get("kernel_size")
    old = isinstance(window, list) and list(kernel.shape[2:]) == window and is_th
    if not old or kernel.shape[0] != filters or list(kernel.shape[:-2]) == window:
        return kernel
    rank = len(kernel.shape)
    return _changed(kernel, lambda array: np.transpose(array, (*range(2, rank), 1, 0)))


def _flipped(kernel: Tensor) -> Tensor:
    return _changed(kernel, lambda array: np.flip(array, tuple(range(array.ndim - 2))))


def _changed(tensor: Tensor, change: Callable[[Array], Array]) -> Tensor:
    shape = change(np.broadcast_to(np.zeros((), tensor.dtype), tensor.shape)).shape
    return Computed(tensor, shape, change)


#: Class -> a weight, one of its axes, and the keyword that says how long that is.
_SIZES: Mapping[str, tuple[str, int, str]] = {
    "Dense": ("kernel", -1, "units"),
    "Embedding": ("embeddings", -1, "output_dim"),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), ("kernel", -1, "filters")),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose"), ("kernel", -2, "filters")),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), ("pointwise_kernel", -1, "filters")),
    **dict.fromkeys(("GRUCell", "SimpleRNNCell"), ("recurrent_kernel", 0, "units")),
}


def check_size(part: Part, where: str) -> None:
    """Raise `CorruptFile` where a layer's weights are of another size than its config says."""
    role, axis, keyword = _SIZES.get(part.class_name, ("", 0, ""))
    stated = part.config.get(keyword)
    for weight, tensor in zip(part.weights, part.arrays, strict=True):
        if weight.role != role or not isinstance(stated, int):
            continue
        if len(tensor.shape) < 2 or tensor.shape[axis] != stated:
            raise CorruptFile(
                "the config and the stored weights disagree",
                where=f"{where}: {part.name}/{role}",
                found=f"shape {'×'.join(map(str, tensor.shape))}",
                expected=f"{keyword} {stated}",
            )

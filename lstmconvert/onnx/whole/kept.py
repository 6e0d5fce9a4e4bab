"""Where each weight of the other layers belongs in the source, and how it lies in the graph.

The LSTM layers of a file of the whole model are read back by the metadata of any per-gate file. The
other weights have readable names, and may be turned or reshaped as their operators want them: a
second metadata text says of each what it was.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json, canonical, parse_object
from lstmconvert.model import naming
from lstmconvert.tensors.tensor import Computed, Tensor
from lstmconvert.tensors.views import Reshaped, transposed

#: The metadata text beside the one of every per-gate file, and its format's version.
KEY, VERSION = "lstmconvert.whole", 1
#: A weight's path in the source, how its axes are turned, if they are, and its shape there.
Origin = tuple[str, tuple[int, ...] | None, tuple[int, ...]]


def to_text(origins: Mapping[str, Origin], names: Container[str]) -> str:
    """Return the metadata text of the weights that are there: initializer -> origin."""
    tensors = {
        name: [path, None if axes is None else list(axes), list(shape)]
        for name, (path, axes, shape) in origins.items()
        if name in names
    }
    return canonical({"version": VERSION, "tensors": tensors})


def others(text: str, tensors: Mapping[str, Tensor], where: object) -> dict[str, Tensor]:
    """Return the weights of the other layers as their source has them: `other/…` -> tensor.

    Args:
        text: the metadata.
        tensors: the graph's initializers.
        where: the file, for errors.

    Raises:
        CorruptFile: the text is not of this format, or does not fit the tensors.
    """
    value = parse_object(text, f"{where}: {KEY}")
    listed = value.get("tensors")
    if value.get("version") != VERSION or not isinstance(listed, dict):
        raise CorruptFile("not the map of a whole model", where=where, found=str(value)[:60])
    result: dict[str, Tensor] = {}
    for name, entry in listed.items():
        path, axes, shape = _entry(entry, f"{where}: {name}")
        if name not in tensors:
            raise CorruptFile("a weight of the whole model is missing", where=where, found=name)
        result[naming.other(path)] = unturned(tensors[name], axes, shape)
    return result


def _entry(value: Json, where: str) -> Origin:
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        path, axes, shape = value
        is_shape = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
        is_order = axes is None or (
            isinstance(axes, list)
            and all(type(n) is int for n in axes)
            and is_shape
            and sorted(axes) == list(range(len(shape)))
        )
        if is_shape and is_order and naming.is_path(path):
            return path, None if axes is None else tuple(axes), tuple(shape)
    raise CorruptFile("not the place of a weight", where=where, found=str(value)[:60])


def turned(tensor: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return a weight with its axes in another order."""
    if axes == (1, 0):
        return transposed(tensor)
    shape = tuple(tensor.shape[axis] for axis in axes)
    return Computed(tensor, shape, lambda array: np.transpose(array, axes))


def unturned(tensor: Tensor, axes: tuple[int, ...] | None, shape: tuple[int, ...]) -> Tensor:
    """Return a weight as its source has it: the inverse of `turned` and a reshape.

    Args:
        tensor: as it is in the graph.
        axes: how its axes were turned, or None.
        shape: in the source.

    Raises:
        CorruptFile: it has another number of elements.
    """
    if axes is None:
        return tensor if tensor.shape == shape else Reshaped(tensor, shape)
    before = tuple(shape[axis] for axis in axes)
    result = tensor if tensor.shape == before else Reshaped(tensor, before)
    back = tuple(sorted(range(len(axes)), key=axes.__getitem__))
    return turned(result, back)

"""Arrays as one JSON text, for programs that read nothing else.

    {"format": "pt", "lstmconvert": {…}, "tensors": {name: {"dtype", "shape", "data": […]}}}

A bare object of nested lists, `{name: […]}`, as RTNeural takes PyTorch's state_dict, is read too,
and one of Keras's arrays by layer, `{layer: {"kernel:0": […]}}`, as a plug-in of SmartAmp takes it.

`data` is nested like the shape. A number is written so that it reads back bit for bit; what JSON
does not have (NaN, infinity) is a text of its bits, `"0x7fc00000"`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.modules import Arrays, Opened, Writing
from lstmconvert.errors import CorruptFile, UnsupportedByTarget
from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import FLOATS, Array, bits, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

TENSORS, FORMAT = "tensors", "format"
#: Beyond this float64 leaves integers out.
EXACT = 1 << 53


def read(file: Opened) -> Arrays:
    """Read a file's arrays and its metadata.

    Raises:
        CorruptFile, LimitExceeded: it is not of this format, or too large.
    """
    value, where = file.json, file.path
    if not isinstance(value, dict):
        raise CorruptFile("not an object of arrays", where=where)
    if TENSORS not in value:
        tensors = {name: tensor_of(data, f"{where}: {name}") for name, data in _flat_names(value)}
        return Arrays(tensors, {})
    texts = {}
    if metadata.KEY in value:
        texts[metadata.KEY] = canonical(value[metadata.KEY])
    if isinstance(value.get(FORMAT), str):
        texts[FORMAT] = value[FORMAT]
    tensors = {
        name: ArrayTensor(_array(item, f"{where}: {name}"))
        for name, item in value[TENSORS].items()
    }
    return Arrays(tensors, texts)


def _flat_names(value: JsonObject) -> Iterator[tuple[str, Json]]:
    """Yield `layer.kernel` for `{layer: {"kernel:0": …}}`, and plain names as they are."""
    for name, data in value.items():
        if isinstance(data, dict):
            inner = ((f"{name}.{key.partition(':')[0]}", item) for key, item in data.items())
            yield from inner
        else:
            yield name, data


def _array(item: Json, where: str) -> Array:
    match item:
        case {"dtype": str(name), "shape": [*shape], "data": data} if name in FLOATS:
            pass
        case _:
            raise CorruptFile("not an array of numbers", where=where, expected=", ".join(FLOATS))
    if not all(isinstance(size, int) and 0 <= size < 1 << 40 for size in shape):
        raise CorruptFile("not a shape", where=where, found=str(shape)[:60])
    limits.RANK.check(len(shape), where, "the number of its axes")
    dtype = dtype_of(name)
    flat = list(_flat(data, tuple(shape), where))
    array = np.array([0.0 if isinstance(x, str) else x for x in flat], np.float64)
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    unsigned = bits(result)
    for index, text in enumerate(flat):
        if isinstance(text, str):
            unsigned[index] = _bits_of(text, dtype.itemsize, where)
    return unsigned.view(dtype).reshape(tuple(shape))


def tensor_of(data: Json, where: str) -> Tensor:
    """Return nested lists of numbers as float32; as float64 if that would round one.

    Raises:
        CorruptFile: the lists have different lengths, or hold something else.
    """
    shape: list[int] = []
    inner = data
    while isinstance(inner, list):
        shape.append(len(inner))
        limits.RANK.check(len(shape), where, "the number of its axes")
        inner = inner[0] if inner else None
    if not all(shape):
        raise CorruptFile("an empty array", where=where)
    flat = list(_flat(data, tuple(shape), where))
    if not all(isinstance(x, (int, float)) for x in flat):
        raise CorruptFile("not numbers", where=where)
    wide = np.array(flat, np.float64).reshape(shape)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return ArrayTensor(narrow if (narrow.astype(np.float64) == wide).all() else wide)


def typed(tensor: Tensor, dtype: Json, where: object) -> Tensor:
    """Return numbers in the dtype that a file of ours states; files of others state none.

    Raises:
        CorruptFile: it is none, or does not hold every number.
    """
    if dtype is None:
        return tensor
    wide = tensor.read().astype(np.float64)
    if dtype in FLOATS:
        with np.errstate(over="ignore"):
            narrow = wide.astype(dtype_of(dtype))
        if (narrow.astype(np.float64) == wide).all():
            return ArrayTensor(narrow)
    raise CorruptFile("its dtype does not hold its numbers", where=where, found=str(dtype)[:40])


def _flat(data: Json, shape: tuple[int, ...], where: str) -> Iterator[float | str]:
    if not shape:
        if isinstance(data, bool) or not isinstance(data, (int, float, str)):
            raise CorruptFile("not a number", where=where, found=str(data)[:40])
        if isinstance(data, int) and abs(data) > EXACT:
            raise CorruptFile("an integer that no float holds", where=where, found=str(data)[:40])
        yield data
        return
    if not isinstance(data, list) or len(data) != shape[0]:
        raise CorruptFile("its data do not have its shape", where=where, expected=str(shape))
    for item in data:
        yield from _flat(item, shape[1:], where)


def _bits_of(text: str, size: int, where: str) -> int:
    try:
        value = int(text, 16) if text.startswith("0x") and len(text) <= 18 else -1
    except ValueError:
        value = -1
    if not 0 <= value < 1 << (8 * size):
        raise CorruptFile("not a number", where=where, found=text[:40])
    return value


def write(path: Path, content: Writing) -> None:
    """Write a file.

    Raises:
        UnsupportedByTarget: an array that is not of floating-point numbers.
    """
    items = {name: item(name, content.tensors[name]) for name in sorted(content.tensors)}
    final = content.metadata()
    value: dict[str, Any] = {TENSORS: items}
    if FORMAT in final:
        value[FORMAT] = final[FORMAT]
    if metadata.KEY in final:
        value[metadata.KEY] = parse_object(final[metadata.KEY], metadata.KEY)
    with open(path, "w", encoding="utf-8") as file:
        file.write(canonical(value))


def item(name: str, tensor: Tensor) -> JsonObject:
    """Return one array as JSON."""
    if tensor.dtype.name not in FLOATS:
        raise UnsupportedByTarget(
            "JSON holds arrays of floating-point numbers here",
            where=name,
            option="dtype",
            target="json",
            found=tensor.dtype.name,
            hint="leave the other tensors out: without --with-other",
        )
    return {
        "dtype": tensor.dtype.name,
        "shape": list(tensor.shape),
        "data": numbers(tensor.read()),
    }


def numbers(array: Array) -> Json:
    """Return an array as nested lists of numbers that read back bit for bit."""
    wide = array.astype(np.float64)
    if np.isfinite(wide).all():
        return wide.tolist()
    unsigned = bits(array).reshape(array.shape)
    spelled = np.empty(array.shape, object)
    for place in np.ndindex(array.shape):
        number = float(wide[place])
        is_finite = number - number == 0
        spelled[place] = number if is_finite else f"{int(unsigned[place]):#x}"
    return json.loads(json.dumps(spelled.tolist()))

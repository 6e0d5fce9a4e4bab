"""Layers that move numbers and change none: another shape, order, or size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.configs import values as configvalues
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import END, Order, Shape, Value, channels_first
from lstmconvert.tensors.dtypes import Array, dtype_of

_RANKS = {"1D": 1, "2D": 2, "3D": 3}


def window_rank(site: Site) -> int:
    """The number of axes of a layer's window, by the end of its class's name; of an operation's,
    by what it is given."""
    name = site.part.class_name.removesuffix("Transpose")
    return _RANKS.get(name[-2:]) or site.arguments[0].rank - 2


def is_channels_first(site: Site) -> bool:
    """Whether a layer's channels come before its windows."""
    data_format = site.word("data_format", "channels_last", "channels_last", "channels_first")
    return data_format == "channels_first"


def kept(site: Site) -> Value:
    """Return what a layer is given that does something in training alone."""
    value: Value = site.arguments[0]
    if value.dtype != site.policy and value.dtype.startswith(("float", "bfloat")):
        value = site.writer.cast(value, site.policy)
    return value.again()


def _given(site: Site) -> Value:
    """Return what a layer is given that moves numbers of any type."""
    return kept(site)


def flatten(site: Site) -> Value:
    """Flatten."""
    value = _given(site)
    if value.rank == 1:
        name = site.op("Unsqueeze", [site.writer.form(value), site.ints(1)])
        return Value(name, value.dtype, (*value.shape, 1))
    order = value.straight
    if is_channels_first(site) and value.rank > 2:
        # Keras flattens what it has turned to channels_last (keras/src/layers/reshaping/flatten.py
        # of Keras 2 and 3).
        order = (0, *range(2, value.rank), 1)
    name = site.writer.form(value, order)
    if value.rank > 2:
        name = site.op("Flatten", [name], axis=1)
    return Value(name, value.dtype, (value.shape[0], _product(value.shape[1:])))


def _product(sizes: Shape) -> int | None:
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


def reshape(site: Site) -> Value:
    """Reshape."""
    value = _given(site)
    target = _sizes(site, "target_shape", low=-1)
    if target.count(-1) > 1 or any(size == 0 for size in target):
        raise site.refused("target_shape", list(target))
    name = site.op("Reshape", [site.writer.form(value), site.ints(0, *target)])
    whole = _product(value.shape[1:])
    rest = math.prod(size for size in target if size != -1)
    inferred = None if whole is None else whole // rest
    return Value(
        name,
        value.dtype,
        (value.shape[0], *(inferred if size == -1 else size for size in target)),
    )


def _sizes(site: Site, key: str, low: int = 1) -> tuple[int, ...]:
    value = site.option(key)
    if isinstance(value, dict):  # {"class_name": "__tuple__", "items": …}
        value = value.get("items")
    if not isinstance(value, list):
        raise CorruptFile("not a list of sizes", where=f"{site.label}.{key}", found=str(value)[:40])
    where = f"{site.label}.{key}"
    return tuple(configvalues.integer(size, where, low) for size in value)


def permute(site: Site) -> Value:
    """Permute: an order of axes, which the next layer may take as it is."""
    value = _given(site)
    dims = _sizes(site, "dims")
    order = (0, *dims)
    if sorted(order) != list(range(value.rank)):
        raise CorruptFile("not an order of axes", where=site.label, found=str(dims))
    name, stored = site.writer.native(value)
    result = Value("", value.dtype, tuple(value.shape[axis] for axis in order))
    result.forms[tuple(order.index(axis) for axis in stored)] = name
    return result


def repeat(site: Site) -> Value:
    """RepeatVector."""
    value = _given(site)
    count = site.integer("n")
    if value.rank != 2:
        raise CorruptFile("RepeatVector of an input that is not a vector", where=site.label)
    row = site.op("Unsqueeze", [site.writer.form(value), site.ints(1)])
    name = site.op("Expand", [row, site.ints(1, count, 1)])
    return Value(name, value.dtype, (value.shape[0], count, value.shape[1]))


def upsampling(site: Site) -> Value:
    """UpSampling1D, 2D and 3D."""
    value, rank = site.given(site.arguments[0]), window_rank(site)
    factors = site.sizes("size", rank, 2)
    how = site.word(
        "interpolation", "nearest", "nearest", "bilinear", *(() if rank != 2 else _TABLES)
    )
    if how in _TABLES:
        return _upsampled(site, value, how, factors)
    first = rank > 1 and is_channels_first(site)
    axes = range(2, 2 + rank) if first else range(1, 1 + rank)
    scales = [1.0] * value.rank
    for axis, factor in zip(axes, factors, strict=True):
        scales[axis] = float(factor)
    name, order = site.writer.native(value)
    stored = [scales[axis] for axis in order]
    if how == "bilinear" or rank != 2:
        # ONNX Runtime's linear Resize takes scales at the first or the last two axes alone.
        order = value.straight
        name, stored = site.writer.form(value), scales
    constant = site.writer.graph.constant(_floats(stored), "scales_" + "_".join(map(str, stored)))
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
               "nearest_mode": "floor"}  # fmt: skip
    made = site.op("Resize", [name, "", constant], **(linear if how == "bilinear" else nearest))
    shape = [
        size * int(scale) if isinstance(size, int) else size if scale == 1 else None
        for size, scale in zip(value.shape, scales, strict=True)
    ]
    return site.made(made, tuple(shape), order)


#: Interpolations of TensorFlow's, each a weighted sum of the pixels around; JAX and PyTorch round
#: the weights of bicubic otherwise.
_TABLES = ("bicubic", "lanczos3", "lanczos5")


def _spaces(site: Site, value: Value, how: str) -> tuple[int, int]:
    spaces = value.shape[2:] if is_channels_first(site) else value.shape[1:-1]
    sizes = [size for size in spaces if isinstance(size, int)]
    if len(sizes) < 2:
        raise site.refused("interpolation", f"{how} of an image whose size is not known")
    return sizes[0], sizes[1]


def _upsampled(site: Site, value: Value, how: str, factors: Sequence[int]) -> Value:
    height, width = _spaces(site, value, how)
    return resampled(site, value, how, (height * factors[0], width * factors[1]))


def resampled(site: Site, value: Value, how: str, grown: Sequence[int]) -> Value:
    """Multiply an image with a matrix of weights from the left and one from the right.

    Args:
        site: the layer.
        value: an image of four axes.
        how: one of TensorFlow's interpolations by tables: bicubic, lanczos3, lanczos5.
        grown: the new height and width.

    Raises:
        UnsupportedByTarget: the size of the image is not known.
    """
    is_first, sizes = is_channels_first(site), _spaces(site, value, how)
    order: Order = value.straight if is_first else channels_first(4)
    rows, columns = (
        site.constant(_weights(how, size, target).astype(dtype_of(site.compute)), what)
        for size, target, what in zip(sizes, grown, ("row_weights", "weights"), strict=True)
    )
    turned = site.op("Transpose", [columns], "column_weights", perm=[1, 0])
    tall = site.op("MatMul", [rows, site.writer.form(value, order)], "rows")
    name = site.op("MatMul", [tall, turned], "columns")
    channels = value.shape[1 if is_first else -1]
    shape = (value.shape[0], channels, *grown) if is_first else (value.shape[0], *grown, channels)
    return site.made(name, shape, order)


def _weights(how: str, size: int, grown: int) -> Array:
    """Return what each pixel counts for in each of the new ones, (grown, size)."""
    result = np.zeros((grown, size), np.float32)
    for place in range(grown):
        if how == "bicubic":
            result[place] = _bicubic(place, size, grown)
        else:
            result[place] = _lanczos(place, size, grown, int(how.removeprefix("lanczos")))
    return result


def _bicubic(place: int, size: int, grown: int) -> Array:
    """Keys's kernel with a = -0.5, from a table of 1024 steps (TensorFlow,
    core/kernels/image/resize_bicubic_op.cc, with half_pixel_centers)."""
    steps, a = 1024, -0.5
    row: Array = np.zeros(size, np.float32)
    at = np.float32(place + 0.5) * np.float32(size / grown) - np.float32(0.5)
    first = math.floor(at)
    offset = round(float(np.float32(at - first) * np.float32(steps)))
    for pixel in range(first - 1, first + 3):
        if 0 <= pixel < size:
            x = abs(pixel - first - offset / steps)
            near = ((a + 2) * x - (a + 3)) * x * x + 1
            far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
            row[pixel] = near if x <= 1 else far
    row /= row.sum()
    return row


def _lanczos(place: int, size: int, grown: int, radius: int) -> Array:
    """TensorFlow's Lanczos kernel (core/kernels/image/scale_and_translate_op.cc, and
    sampling_kernels.h), without antialiasing."""
    row: Array = np.zeros(size, np.float32)
    at = (place + 0.5) * (size / grown)
    first = max(math.ceil(at - radius - 0.5), 0)
    last = min(math.floor(at + radius - 0.5), size - 1)
    for pixel in range(first, last + 1):
        x = abs(pixel + 0.5 - at)
        if x <= radius:
            angle = math.pi * x
            is_center = x <= 1e-3
            row[pixel] = 1 if is_center else (
                radius * math.sin(angle) * math.sin(angle / radius) / (angle * angle)
            )
    row /= row.sum()
    return row


def _floats(values: Sequence[float]) -> Array:
    return np.asarray(values, np.float32)


def _pairs(site: Site, key: str, default: int) -> list[tuple[int, int]]:
    """Return what is added or cut off before and after each axis of a window."""
    rank, value = window_rank(site), site.option(key, default)
    where = f"{site.label}.{key}"
    if rank == 1 and isinstance(value, list) and len(value) == 2:
        value = [value]
    listed = value if isinstance(value, list) else [value] * rank
    if len(listed) != rank:
        raise CorruptFile("not a size for each axis", where=where, found=str(value)[:40])
    pairs = []
    for item in listed:
        both = item if isinstance(item, list) else [item, item]
        if len(both) != 2:
            raise CorruptFile("not a size for each side", where=where, found=str(item)[:40])
        before, after = (configvalues.integer(size, where, 0) for size in both)
        pairs.append((before, after))
    return pairs


def _window_axes(site: Site, rank: int) -> list[int]:
    first = rank > 1 and is_channels_first(site)
    if rank == 1 and site.config.get("data_format") == "channels_first":
        first = True
    return list(range(2, 2 + rank) if first else range(1, 1 + rank))


def _changed(shape: Shape, more: Mapping[int, int]) -> Shape:
    """Return a shape with so much more along some axes."""
    return tuple(
        size if not more.get(axis) else size + more[axis] if isinstance(size, int) else None
        for axis, size in enumerate(shape)
    )


def zero_padding(site: Site) -> Value:
    """ZeroPadding1D, 2D and 3D."""
    value, rank = _given(site), window_rank(site)
    pairs = dict(zip(_window_axes(site, rank), _pairs(site, "padding", 1), strict=True))
    name, order = site.writer.native(value)
    sides = [pairs.get(axis, (0, 0)) for axis in order]
    pads = site.ints(*(before for before, _ in sides), *(after for _, after in sides))
    made = site.op("Pad", [name, pads], mode="constant")
    shape = _changed(value.shape, {axis: sum(pair) for axis, pair in pairs.items()})
    return Value(made, value.dtype, shape, order)


def cropping(site: Site) -> Value:
    """Cropping1D, 2D and 3D."""
    value, rank = _given(site), window_rank(site)
    pairs = dict(zip(_window_axes(site, rank), _pairs(site, "cropping", 1), strict=True))
    name, order = site.writer.native(value)
    axes = [order.index(axis) for axis in pairs]
    starts = [before for before, _ in pairs.values()]
    ends = [-after if after else END for _, after in pairs.values()]
    made = site.op("Slice", [name, site.ints(*starts), site.ints(*ends), site.ints(*axes)])
    shape = _changed(value.shape, {axis: -sum(pair) for axis, pair in pairs.items()})
    return Value(made, value.dtype, shape, order)

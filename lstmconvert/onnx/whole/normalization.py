"""Layers that normalize: with statistics that are weights, or of what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.modern.classes import EPSILON
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import Order, Value
from lstmconvert.tensors.dtypes import Array, dtype_of

#: keras.config.epsilon(), the least standard deviation that Normalization divides by.
_LEAST_DEVIATION = 1e-7
#: 1 / 1e-12: the largest factor of a UnitNormalization of Keras 3.8 and later; before, the sum of
#: squares is at least that 1e-12 (tensorflow/python/ops/nn_impl.py, `l2_normalize`).
_UNIT_EPSILON = 1e-12


def axis_of(site: Site, value: Json, rank: int) -> int:
    """Return an axis as a number from 0 on.

    Raises:
        CorruptFile: the value has no such axis.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or not -rank <= value < rank:
        raise CorruptFile("no such axis", where=site.label, found=str(value)[:40])
    return value % rank


def axes_of(site: Site, key: str, default: Json, rank: int) -> tuple[int, ...]:
    """Return a keyword that is one axis or a list of them, from 0 on, in order."""
    value = site.option(key, default)
    listed = value if isinstance(value, list) else [value]
    return tuple(sorted({axis_of(site, item, rank) for item in listed}))


def batch(site: Site) -> Value:
    """BatchNormalization: by what was averaged in training."""
    value = site.given(site.arguments[0])
    axis = axis_of(site, site.option("axis", -1), value.rank)
    if site.compute == "float64":
        return _batch_in_steps(site, value, axis)
    size = site.part.arrays[-1].size
    mean, variance = site.weight("moving_mean"), site.weight("moving_variance")
    gamma = _or_filled(site, "gamma", size, 1.0)
    beta = _or_filled(site, "beta", size, 0.0)
    rank = value.rank
    # The operator's channels are its second axis; what the others are does not count.
    orders = [order for order in (*value.forms, *value.makers) if order[1:2] == (axis,)]
    order = orders[0] if orders else _second(axis, rank)
    name = site.op(
        "BatchNormalization",
        [site.writer.form(value, order), gamma, beta, mean, variance],
        epsilon=site.real("epsilon", EPSILON),
    )
    return site.made(name, value.shape, order)


def _batch_in_steps(site: Site, value: Value, axis: int) -> Value:
    """The same by single operators: the epsilon of BatchNormalization is a float32."""
    name, order = site.writer.native(value)
    mean, variance = (
        _spread(site, role, (axis,), order) for role in ("moving_mean", "moving_variance")
    )
    more = site.op("Add", [variance, site.number(site.real("epsilon", EPSILON))])
    factor = site.op("Reciprocal", [site.op("Sqrt", [more])])
    if site.tensor("gamma") is not None:
        factor = site.op("Mul", [factor, _spread(site, "gamma", (axis,), order)], "factor")
    rest = site.op("Neg", [site.op("Mul", [mean, factor])], "rest")
    if site.tensor("beta") is not None:
        rest = site.op("Add", [rest, _spread(site, "beta", (axis,), order)], "rest")
    made = site.op("Add", [site.op("Mul", [name, factor]), rest])
    return site.made(made, value.shape, order)


def _second(axis: int, rank: int) -> Order:
    if rank == 2 and axis == 1:
        return (0, 1)
    others = [index for index in range(rank) if index != axis]
    return (others[0], axis, *others[1:])


def _or_filled(site: Site, role: str, size: int, value: float) -> str:
    if site.tensor(role) is not None:
        return site.weight(role)
    return site.writer.graph.zeros(size, dtype_of(site.compute), role, value)


def layer(site: Site) -> Value:
    """LayerNormalization: by the mean and variance of each row."""
    value = site.given(site.arguments[0])
    axes = axes_of(site, "axis", -1, value.rank)
    if site.flag("rms_scaling", False):
        return _rms_scaling(site, value, axes)
    epsilon = site.real("epsilon", EPSILON)
    is_suffix = axes == tuple(range(value.rank - len(axes), value.rank))
    gamma, beta = site.tensor("gamma"), site.tensor("beta")
    sizes = [value.static(axis) for axis in axes]
    # Its epsilon is a float32.
    is_node = is_suffix and site.writer.opset >= 17 and site.compute != "float64"
    if is_node and None not in sizes:
        name, order = _with_suffix(site, value, axes)
        scale = site.weight("gamma") if gamma is not None else _ones(site, sizes)
        inputs = [name, scale, *([site.weight("beta")] if beta is not None else [])]
        made = site.op("LayerNormalization", inputs, axis=-len(axes), epsilon=epsilon)
        return site.made(made, value.shape, order)
    name, order = site.writer.native(value)
    stored = [order.index(axis) for axis in axes]
    mean = site.reduce("ReduceMean", name, stored, "mean", keep=True)
    centred = site.op("Sub", [name, mean], "centred")
    squared = site.op("Mul", [centred, centred], "squared")
    variance = site.reduce("ReduceMean", squared, stored, "variance", keep=True)
    deviation = site.op("Sqrt", [site.op("Add", [variance, site.number(epsilon)])], "deviation")
    result = site.op("Div", [centred, deviation], "normalized")
    for operator, role, tensor in (("Mul", "gamma", gamma), ("Add", "beta", beta)):
        if tensor is not None:
            result = site.op(operator, [result, _spread(site, role, axes, order)])
    return site.made(result, value.shape, order)


def _with_suffix(site: Site, value: Value, axes: Sequence[int]) -> tuple[str, Order]:
    """Return a form whose last axes are those that are normalized over."""
    orders = [*value.forms, *value.makers]
    fitting = [order for order in orders if order[-len(axes) :] == tuple(axes)]
    order = fitting[0] if fitting else value.straight
    return site.writer.form(value, order), order


def _ones(site: Site, sizes: Sequence[int | None]) -> str:
    shape = [size for size in sizes if size is not None]
    return site.filled(shape, 1.0, "ones")


def _spread(
    site: Site, role: str, axes: Sequence[int], order: Order
) -> str:
    """Return a weight over some axes in a shape that fits a stored array."""
    if order[-len(axes) :] == tuple(axes):
        return site.weight(role)
    tensor = site.needed(role)
    turned = [axis for axis in order if axis in axes]
    perm = [list(axes).index(axis) for axis in turned]
    shape = [tensor.shape[list(axes).index(a)] if a in axes else 1 for a in order]
    return site.weight(role, perm if len(perm) > 1 else None, shape)


def _rms_scaling(site: Site, value: Value, axes: Sequence[int]) -> Value:
    """Divide by the deviation, with the mean left in (keras/src/ops/nn.py)."""
    name, order = site.writer.native(value)
    stored = [order.index(axis) for axis in axes]
    mean = site.reduce("ReduceMean", name, stored, "mean", keep=True)
    centred = site.op("Sub", [name, mean], "centred")
    squared = site.op("Mul", [centred, centred], "squared")
    variance = site.reduce("ReduceMean", squared, stored, "variance", keep=True)
    more = site.op("Add", [variance, site.number(site.real("epsilon", EPSILON))])
    result = site.op("Div", [name, site.op("Sqrt", [more])], "normalized")
    if site.tensor("gamma") is not None:
        result = site.op("Mul", [result, _spread(site, "gamma", axes, order)])
    return site.made(result, value.shape, order)


def rms(site: Site) -> Value:
    """RMSNormalization: by the root of the mean square."""
    value = site.given(site.arguments[0])
    axes = axes_of(site, "axis", -1, value.rank)
    name, order = site.writer.native(value)
    squared = site.op("Mul", [name, name], "squared")
    stored = [order.index(axis) for axis in axes]
    mean = site.reduce("ReduceMean", squared, stored, "mean", keep=True)
    more = site.op("Add", [mean, site.number(site.real("epsilon", 1e-6))])
    result = site.op("Div", [name, site.op("Sqrt", [more])], "normalized")
    result = site.op("Mul", [result, _spread(site, "scale", axes, order)])
    return site.made(result, value.shape, order)


def group(site: Site) -> Value:
    """GroupNormalization: by the mean and variance of each group of channels of each row."""
    value = site.given(site.arguments[0])
    if site.mask is not None and not site.is_modern:
        raise site.refused("mask", why="tf_keras itself takes no mask of steps here")
    axis = axis_of(site, site.option("axis", -1), value.rank)
    channels = value.static(axis)
    if channels is None or axis == 0:
        raise site.refused("axis", site.option("axis", -1))
    groups = site.option("groups", 32)
    groups = channels if groups == -1 else site.integer("groups", 32)
    order: Order = (0, axis, *(i for i in range(1, value.rank) if i != axis))
    name = site.writer.form(value, order)
    grouped = site.op("Reshape", [name, site.ints(0, groups, -1)], "groups")
    made = site.op(
        "InstanceNormalization",
        [grouped, _constant(site, groups, 1.0), _constant(site, groups, 0.0)],
        epsilon=site.real("epsilon", EPSILON),
    )
    made = site.op("Reshape", [made, site.op("Shape", [name])], "channels")
    for operator, role in (("Mul", "gamma"), ("Add", "beta")):
        if site.tensor(role) is not None:
            weight = site.weight(role, None, (channels, *[1] * (value.rank - 2)))
            made = site.op(operator, [made, weight])
    return site.made(made, value.shape, order)


def _constant(site: Site, size: int, value: float) -> str:
    return site.writer.graph.zeros(size, dtype_of(site.compute), "", value)


def unit(site: Site) -> Value:
    """UnitNormalization: each row divided by its length."""
    value = site.given(site.arguments[0])
    axes = axes_of(site, "axis", -1, value.rank)
    return unit_length(site, value, axes, _UNIT_EPSILON)


def unit_length(site: Site, value: Value, axes: Sequence[int], epsilon: float) -> Value:
    """Return x · min(1 / length, 1 / epsilon), or before Keras 3.8 x / max(length², epsilon)^½."""
    name, order = site.writer.native(value)
    stored = [order.index(axis) for axis in axes]
    square = site.reduce("ReduceSumSquare", name, stored, "square", keep=True)
    if site.is_modern:
        factor = site.op("Reciprocal", [site.op("Sqrt", [square])])
        factor = site.op("Min", [factor, site.number(1.0 / epsilon)])
        return site.made(site.op("Mul", [name, factor], "normalized"), value.shape, order)
    least = site.op("Max", [square, site.number(epsilon)])
    result = site.op("Div", [name, site.op("Sqrt", [least])], "normalized")
    return site.made(result, value.shape, order)


def adapted(site: Site) -> Value:
    """Normalization: by a mean and variance that are weights, or in the config."""
    value = site.given(site.arguments[0])
    mean, variance = _statistics(site, value, "mean"), _statistics(site, value, "variance")
    name = site.writer.form(value)
    deviation = site.op("Max", [site.op("Sqrt", [variance]), site.number(_LEAST_DEVIATION)])
    if site.flag("invert", False):
        result = site.op("Add", [mean, site.op("Mul", [name, deviation])], "restored")
    else:
        result = site.op("Div", [site.op("Sub", [name, mean]), deviation], "normalized")
    return site.made(result, value.shape)


def _statistics(site: Site, value: Value, key: str) -> str:
    """Return the mean or variance, shaped for the axes that it is kept over."""
    axis = site.config.get("axis", -1)
    listed = [] if axis is None else axis if isinstance(axis, list) else [axis]
    axes = tuple(sorted(axis_of(site, item, value.rank) for item in listed))
    shape = [value.static(index) if index in axes else 1 for index in range(value.rank)]
    if not axes:
        shape = []
    if None in shape:
        raise site.refused("axis", axis)
    sizes = [size for size in shape if size is not None]
    if site.tensor(key) is not None:
        return site.weight(key, None, sizes)
    given: Any = site.config.get(key)
    array: Array = np.asarray(given, dtype_of(site.compute))
    if array.size == int(np.prod(sizes)):
        return site.constant(array.reshape(sizes), key)
    return site.constant(np.ascontiguousarray(np.broadcast_to(array, sizes)), key)


def rescaling(site: Site) -> Value:
    """Rescaling: x · scale + offset."""
    value = site.given(site.arguments[0])
    name = site.writer.form(value)
    scale, offset = (_plain(site, key, default) for key, default in (("scale", 1), ("offset", 0)))
    result = site.op("Mul", [name, scale])
    result = site.op("Add", [result, offset])
    return site.made(result, value.shape)


def _plain(site: Site, key: str, default: float) -> str:
    value = site.option(key, default)
    if isinstance(value, dict):  # a serialized array
        value = value.get("config", {}).get("value")
    try:
        array = np.asarray(value, dtype_of(site.compute))
    except (TypeError, ValueError):
        raise site.refused(key, value) from None
    return site.number(array.item()) if array.ndim == 0 else site.constant(array, key)


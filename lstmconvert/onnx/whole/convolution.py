"""Convolutions and pooling. Their operators have the channels before the window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.onnx.messages import Axis
from lstmconvert.onnx.whole import activations
from lstmconvert.onnx.whole.shaping import is_channels_first, window_rank
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import END, Order, Shape, Value, channels_first


def _order(site: Site, value: Value) -> Order:
    """The order of what the operators take: Keras's own if its channels are first."""
    rank = window_rank(site)
    if value.rank != rank + 2:
        raise CorruptFile(f"a window of {rank} axes on a value of {value.rank}", where=site.label)
    return value.straight if is_channels_first(site) else channels_first(value.rank)


def _shape(site: Site, value: Value, channels: Axis, sizes: Sequence[Axis]) -> Shape:
    if is_channels_first(site):
        return (value.shape[0], channels, *sizes)
    return (value.shape[0], *sizes, channels)


def _spaces(site: Site, value: Value) -> Shape:
    return value.shape[2:] if is_channels_first(site) else value.shape[1:-1]


def _channels(site: Site, value: Value) -> int:
    channels = value.static(1 if is_channels_first(site) else -1)
    if channels is None:
        raise CorruptFile("a convolution over an unknown number of channels", where=site.label)
    return channels


class _Window:
    """The window of a convolution or a pooling: its sizes, strides, steps between, padding."""

    def __init__(self, site: Site, size: str = "kernel_size") -> None:
        rank, self._site = window_rank(site), site
        self.size = site.sizes(size, rank, 2 if size == "pool_size" else None)
        default: Any = list(self.size) if size == "pool_size" else 1
        self.strides = site.sizes("strides", rank, default)
        self.dilation = site.sizes("dilation_rate", rank, 1)
        words = ("valid", "same") if size == "pool_size" or rank > 1 else _PADDINGS
        self.padding = site.word("padding", "valid", *words)

    def spans(self) -> list[int]:
        """How many steps the window covers along each axis."""
        return [(k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True)]

    def sizes(self, spaces: Sequence[Axis]) -> list[Axis]:
        """Return the sizes of what comes out."""
        result: list[Axis] = []
        for size, span, stride in zip(spaces, self.spans(), self.strides, strict=True):
            if not isinstance(size, int):
                result.append(size if self.padding != "valid" and stride == 1 else None)
            elif self.padding == "valid":
                result.append((size - span) // stride + 1)
            else:
                result.append(-(-size // stride))
        return result

    def padded(self, spaces: Sequence[Axis]) -> dict[str, Any]:
        """Return the attributes that pad what goes in."""
        if self.padding == "valid":
            return {}
        if self.padding == "causal":
            return {"pads": [self.spans()[0] - 1, 0]}
        if self._is_open(spaces):
            return self._unknown()
        before, after = [], []
        for size, span, stride in zip(spaces, self.spans(), self.strides, strict=True):
            total = span - 1
            if isinstance(size, int):
                total = max((-(-size // stride) - 1) * stride + span - size, 0)
            before.append(total // 2)
            after.append(total - total // 2)
        pads = [*before, *after]
        return {"pads": pads} if any(pads) else {}

    def _is_open(self, spaces: Sequence[Axis]) -> bool:
        """Whether what pads an input depends on sizes that are not known."""
        is_plain = all(stride == 1 for stride in self.strides)
        is_known = all(isinstance(size, int) for size in spaces)
        return self.padding == "same" and not is_plain and not is_known

    def is_padded_apart(self, spaces: Sequence[Axis]) -> bool:
        """Whether nodes of their own must pad an input. ONNX Runtime refuses SAME_UPPER where a
        window is smaller than its step; there is at most one zero of a window of up to two steps,
        which lies behind."""
        spans = self.spans()
        is_wide = all(k >= s for k, s in zip(spans, self.strides, strict=True))
        return self._is_open(spaces) and not is_wide and max(spans) > _SMALL

    def _unknown(self) -> dict[str, Any]:
        """Return what pads an input whose size is not known, and that is not padded apart."""
        spans = self.spans()
        if all(k >= s for k, s in zip(spans, self.strides, strict=True)):
            return {"auto_pad": "SAME_UPPER"}
        if max(spans) > _SMALL:
            return {}
        return {"pads": [*[0] * len(spans), *(k - 1 for k in spans)]}

    def padding_of(self, name: str) -> str:
        """Return the pads of an input (batch, channels, space…) by its size when it runs.

        The last window begins `last` steps before the end, so that `span - last` are missing.
        """
        site, rank = self._site, len(self.size)
        strides, zero = site.ints(*self.strides), site.writer.place(0)
        sizes = site.op("Slice", [site.op("Shape", [name]), site.ints(2), site.ints(END)], "sizes")
        rest = site.op("Mod", [sizes, strides], "rest")
        last = site.op("Where", [site.op("Equal", [rest, zero]), strides, rest], "last")
        missing = site.op("Sub", [site.ints(*self.spans()), last], "missing")
        total = site.op("Max", [missing, zero], "padding")
        before = site.op("Div", [total, site.writer.place(2)], "before")
        after = site.op("Sub", [total, before], "after")
        none = site.ints(0, 0)
        return site.op("Concat", [none, before, none, after], f"pads_of_{rank}_axes", axis=0)

    def padded_apart(self, name: str, spaces: Sequence[Axis], filling: float = 0.0) -> str:
        """Return an input with what pads it, where nodes of their own do that."""
        if not self.is_padded_apart(spaces):
            return name
        pads = self._site.writer.cached(("pads", name, self.size, self.strides),
                                        lambda: self.padding_of(name))  # fmt: skip
        return self._site.op("Pad", [name, pads, self._site.number(filling)], "padded")

    def attributes(self, spaces: Sequence[Axis]) -> dict[str, Any]:
        """Return the attributes of a Conv."""
        result = {"kernel_shape": list(self.size), **self.padded(spaces)}
        if any(stride != 1 for stride in self.strides):
            result["strides"] = list(self.strides)
        if any(step != 1 for step in self.dilation):
            result["dilations"] = list(self.dilation)
        return result


#: Windows up to this size have at most one zero, which lies behind.
_SMALL = 2
_PADDINGS = ("valid", "same", "causal")


def _activated(site: Site, value: Value) -> Value:
    return activations.apply(site, value, site.activation())


def _bias(site: Site) -> list[str]:
    return [] if site.tensor("bias") is None else [site.weight("bias")]


def convolution(site: Site) -> Value:
    """Conv1D, 2D and 3D."""
    value = site.given(site.arguments[0])
    order, window, rank = _order(site, value), _Window(site), window_rank(site)
    spaces, groups = _spaces(site, value), site.integer("groups", 1)
    kernel = site.weight("kernel", (rank + 1, rank, *range(rank)))
    attributes = window.attributes(spaces)
    if groups != 1:
        attributes["group"] = groups
    given = window.padded_apart(site.writer.form(value, order), spaces)
    name = site.op("Conv", [given, kernel, *_bias(site)], **attributes)
    channels = site.part.arrays[0].shape[-1]
    made = site.made(name, _shape(site, value, channels, window.sizes(spaces)), order)
    return _activated(site, made)


def locally_connected(site: Site) -> Value:
    """LocallyConnected1D and 2D of Keras 2: another kernel at each place."""
    value, rank = site.given(site.arguments[0]), window_rank(site)
    if site.integer("implementation", 1) != 1 or site.word("padding", "valid", "valid") != "valid":
        raise site.refused("implementation", site.option("implementation"))
    window, strides = site.sizes("kernel_size", rank), site.sizes("strides", rank, 1)
    first = int(is_channels_first(site))
    places, _, filters = site.needed("kernel").shape
    name = site.writer.form(value)
    counts: list[int] = []
    for index, (k, step) in enumerate(zip(window, strides, strict=True)):
        size = value.static(1 + first + index)
        if size is None:
            raise site.refused("input_shape", "an axis whose length is not known")
        starts = np.arange(0, size - k + 1, step)
        counts.append(len(starts))
        steps = site.constant((starts[:, None] + np.arange(k)).astype(np.int64), f"steps_{index}")
        # An axis of the window becomes two: places, and steps in the window.
        name = site.op("Gather", [name, steps], "windows", axis=1 + first + 2 * index)
    if math.prod(counts) != places:
        raise CorruptFile("a kernel for other places than there are", where=site.label)
    if rank > 1 or first:
        at = range(1 + first, 1 + first + 2 * rank, 2)
        channels = ([1], []) if first else ([], [2 * rank + 1])
        perm = [0, *at, *channels[0], *(axis + 1 for axis in at), *channels[1]]
        name = site.op("Transpose", [name], "windows_last", perm=perm)
    rows = site.op("Reshape", [name, site.ints(0, places, -1)], "rows")
    made = site.op("Einsum", [rows, site.weight("kernel")], "products", equation="bpi,pio->bpo")
    if rank > 1:
        made = site.op("Reshape", [made, site.ints(0, *counts, filters)], "places")
    if not first:
        if site.tensor("bias") is not None:
            made = site.op("Add", [made, site.weight("bias")])
        return _activated(site, site.made(made, (value.shape[0], *counts, filters)))
    shape = (value.shape[0], filters, *counts)
    result = site.made(made, shape, (0, *range(2, rank + 2), 1))
    if site.tensor("bias") is not None:
        # Keras reshapes it, where one would turn it (tf_keras/src/backend.py, `bias_add`).
        bias = site.weight("bias", shape=(filters, *counts))
        result = site.made(site.op("Add", [site.writer.form(result), bias]), shape)
    return _activated(site, result)


def depthwise(site: Site) -> Value:
    """DepthwiseConv1D and 2D."""
    value = site.given(site.arguments[0])
    made = _depthwise(site, value, "kernel", _bias(site))
    return _activated(site, made)


def _depthwise(site: Site, value: Value, role: str, bias: Sequence[str]) -> Value:
    order, window, rank = _order(site, value), _Window(site), window_rank(site)
    spaces, channels = _spaces(site, value), _channels(site, value)
    count = site.needed(role).shape[-1] * channels
    # (window, channels, multiplier) to (channels · multiplier, 1, window)
    kernel = site.weight(role, (rank, rank + 1, *range(rank)), (count, 1, *window.size))
    given = window.padded_apart(site.writer.form(value, order), spaces)
    name = site.op(
        "Conv",
        [given, kernel, *bias],
        group=channels,
        **window.attributes(spaces),
    )
    return site.made(name, _shape(site, value, count, window.sizes(spaces)), order)


def separable(site: Site) -> Value:
    """SeparableConv1D and 2D: each channel by itself, then all of them at each point."""
    value = site.given(site.arguments[0])
    by_channel = _depthwise(site, value, "depthwise_kernel", ())
    rank, order = window_rank(site), _order(site, value)
    kernel = site.weight("pointwise_kernel", (rank + 1, rank, *range(rank)))
    inputs = [site.writer.form(by_channel, order), kernel, *_bias(site)]
    name = site.op("Conv", inputs, "pointwise", kernel_shape=[1] * rank)
    shape = list(by_channel.shape)
    shape[1 if is_channels_first(site) else -1] = site.needed("pointwise_kernel").shape[-1]
    return _activated(site, site.made(name, tuple(shape), order))


def _ends(span: int, stride: int, padding: str, stated: int | None) -> tuple[int, int]:
    """Return how much a transposed convolution cuts off in all, and how much it adds at the end.

    Where the layer states an output_padding, Keras takes twice half the window off before it adds
    that (keras/src/backend/common/backend_utils.py, `_get_output_shape_given_tf_padding`).
    """
    if stated is None:
        return (max(span - stride, 0) if padding == "same" else 0), max(stride - span, 0)
    cut = span // 2 * 2 if padding == "same" else 0
    return max(cut - stated, 0), max(stated - cut, 0)


def transposed(site: Site) -> Value:
    """Conv1DTranspose, 2D and 3D."""
    value = site.given(site.arguments[0])
    order, window, rank = _order(site, value), _Window(site), window_rank(site)
    stated = site.option("output_padding")
    extras = None if stated is None else site.sizes("output_padding", rank, low=0)
    if window.padding == "causal":
        raise site.refused("padding", "causal")
    kernel = site.weight("kernel", (rank + 1, rank, *range(rank)))
    before, after, more = [], [], []
    sizes: list[Axis] = []
    for place, size in enumerate(_spaces(site, value)):
        span, stride = window.spans()[place], window.strides[place]
        cut, extra = _ends(span, stride, window.padding, None if extras is None else extras[place])
        before.append(cut // 2)
        after.append(cut - cut // 2)
        more.append(extra)
        sizes.append((size - 1) * stride + span - cut + extra if isinstance(size, int) else None)
    attributes: dict[str, Any] = {"kernel_shape": list(window.size)}
    if any(before) or any(after):
        attributes["pads"] = [*before, *after]
    if any(more):
        attributes["output_padding"] = more
    if any(stride != 1 for stride in window.strides):
        attributes["strides"] = list(window.strides)
    if any(step != 1 for step in window.dilation):
        attributes["dilations"] = list(window.dilation)
    inputs = [site.writer.form(value, order), kernel, *_bias(site)]
    name = site.op("ConvTranspose", inputs, **attributes)
    channels = site.part.arrays[0].shape[-2]
    return _activated(site, site.made(name, _shape(site, value, channels, sizes), order))


def pooling(site: Site) -> Value:
    """MaxPooling and AveragePooling, 1D to 3D."""
    value = site.given(site.arguments[0])
    order, window = _order(site, value), _Window(site, "pool_size")
    spaces = _spaces(site, value)
    is_average = site.part.class_name.startswith("Average")
    attributes = window.attributes(spaces)
    if is_average and window.padding == "same":
        attributes["count_include_pad"] = 0
    operator = "AveragePool" if is_average else "MaxPool"
    given = site.writer.form(value, order)
    wide = window.padded_apart(given, spaces, 0.0 if is_average else -math.inf)
    name = site.op(operator, [wide], **attributes)
    if is_average and wide != given:
        # What pads a window does not count: the mean of ones and zeros is the share that does.
        ones = site.op("Expand", [site.number(1.0), site.op("Shape", [given])], "ones")
        share = site.op(operator, [window.padded_apart(ones, spaces)], "share", **attributes)
        name = site.op("Div", [name, share], "mean")
    channels = value.shape[1 if is_channels_first(site) else -1]
    return site.made(name, _shape(site, value, channels, window.sizes(spaces)), order)


def adaptive_pooling(site: Site) -> Value:
    """AdaptiveMaxPooling and AdaptiveAveragePooling: windows that cover an axis of a known size
    evenly, the i-th from the floor of i · n / m to the ceiling of (i + 1) · n / m."""
    value, rank = site.given(site.arguments[0]), window_rank(site)
    targets = site.sizes("output_size", rank)
    is_average = "Average" in site.part.class_name
    start = 2 if is_channels_first(site) else 1
    for axis, target in enumerate(targets, start):
        size = value.static(axis)
        if size is None:
            raise site.refused("output_size", "an axis whose size is not known")
        name, order = site.writer.native(value)
        stored = order.index(axis)
        cuts = [(i * size // target, -(-(i + 1) * size // target)) for i in range(target)]
        pieces = []
        for before, after in cuts:
            ints = [site.ints(before), site.ints(after), site.ints(stored)]
            piece = site.op("Slice", [name, *ints], "window")
            operator = "ReduceMean" if is_average else "ReduceMax"
            pieces.append(site.reduce(operator, piece, [stored], "pooled", keep=True))
        made = pieces[0] if target == 1 else site.op("Concat", pieces, axis=stored)
        shape = (*value.shape[:axis], target, *value.shape[axis + 1 :])
        value = site.made(made, shape, order)
    return value


def global_pooling(site: Site) -> Value:
    """GlobalMaxPooling and GlobalAveragePooling, 1D to 3D."""
    value, rank = site.given(site.arguments[0]), window_rank(site)
    keep, first = site.flag("keepdims", False), is_channels_first(site)
    axes = list(range(2, 2 + rank) if first else range(1, 1 + rank))
    is_average = site.part.class_name == "GlobalAveragePooling1D"
    kept: Shape = tuple(
        1 if axis in axes else size
        for axis, size in enumerate(value.shape)
        if keep or axis not in axes
    )
    if is_average and site.mask is not None:
        return site.made(_masked_mean(site, value, axes[0], keep=keep), kept)
    name, order = site.writer.native(value)
    operator = "ReduceMax" if "Max" in site.part.class_name else "ReduceMean"
    stored = sorted(order.index(axis) for axis in axes)
    made = site.reduce(operator, name, stored, keep=keep)
    left = tuple(axis for axis in order if keep or axis not in axes)
    rest = sorted(left)
    return site.made(made, kept, tuple(rest.index(axis) for axis in left))


def _masked_mean(site: Site, value: Value, axis: int, *, keep: bool) -> str:
    """The mean of the steps that count; 0 / 0 where none does, as in Keras."""
    mask = site.writer.form(site.mask)
    column = site.op("Unsqueeze", [mask, site.ints(2 if axis == 1 else 1)], "mask_column")
    chosen = site.op("Where", [column, site.writer.form(value), site.number(0.0)], "counted")
    total = site.reduce("ReduceSum", chosen, [axis], "total", keep=keep)
    count = site.reduce("ReduceSum", site.to(column, site.compute), [axis], "count", keep=keep)
    return site.op("Div", [total, count], "mean")

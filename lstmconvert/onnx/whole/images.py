"""Images: layers and operations that move pixels, blur them, compare them or change their colours.

Each computes what Keras computes on TensorFlow (keras/src/backend/tensorflow/image.py and nn.py,
and the kernels of TensorFlow that those call). What a layer does in training alone is nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.onnx.messages import NUMBERS, Axis
from lstmconvert.onnx.whole.shaping import is_channels_first, resampled
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import FLOATS, Order, Shape, Value
from lstmconvert.tensors.dtypes import Array, dtype_of

#: Image layers that cast whole numbers to the dtype that they compute in also where they change
#: nothing, by Keras 3.15's answers with training=False; the others give back what they are given.
CASTING = frozenset(
    {
        *("AugMix", "CutMix", "RandAugment", "RandomElasticTransform", "RandomErasing"),
        *("RandomFlip", "RandomGaussianBlur", "RandomPerspective", "RandomRotation"),
        *("RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "Solarization"),
    }
)
#: Image layers that do something in training alone.
IDLE = CASTING | frozenset(
    {
        *("Equalization", "MaxNumBoundingBoxes", "MixUp", "RandomBrightness"),
        *("RandomColorDegeneration", "RandomColorJitter"),
        *("RandomContrast", "RandomGrayscale", "RandomHue", "RandomInvert"),
        *("RandomPosterization", "RandomSaturation"),
        *("RandomHeight", "RandomWidth"),  # of Keras 2
    }
)


def _real(site: Site, value: Value) -> Value:
    """Return an image in what is computed in, which is its own dtype if operators have it."""
    if value.dtype not in FLOATS:
        raise site.refused("inputs", value.dtype, f"{site.part.class_name} of whole numbers")
    site.compute = "float32" if value.dtype == "bfloat16" else value.dtype
    return site.writer.cast(value, site.compute)


def _batch(site: Site, value: Value, *, last: bool) -> tuple[str, Order]:
    """Return an image, or a batch of them, as (batch, channels, rows, columns), or with its
    channels last, and the order that its axes have in that."""
    if value.rank not in (3, 4):
        raise site.refused("inputs", f"an image of {value.rank} axes")
    axes = list(range(value.rank))
    spaces = axes[-2:] if is_channels_first(site) else axes[-3:-1]
    channel = value.rank - 3 if is_channels_first(site) else value.rank - 1
    order = (*axes[:-3], *spaces, channel) if last else (*axes[:-3], channel, *spaces)
    name = site.writer.form(value, order)
    if value.rank == 3:
        name = site.op("Unsqueeze", [name, site.ints(0)], "batch")
    return name, order


def _of_batch(site: Site, name: str, value: Value, order: Order, dtype: str) -> Value:
    """Return what was made of `_batch`, in the shape that the image had."""
    if value.rank == 3:
        name = site.op("Squeeze", [name, site.ints(0)], "image")
    return site.writer.cast(Value(name, dtype, value.shape, order), value.dtype)


def _channels(site: Site, value: Value, axis: int | None = None) -> int:
    if axis is None:
        axis = -3 if is_channels_first(site) else -1
    count = value.static(axis)
    if count is None:
        raise site.refused("inputs", "an unknown number of channels")
    return count


# ---- filters -------------------------------------------------------------------------------------


def _filtered(
    site: Site, name: str, kernel: Array, channels: int, what: str, pads: Sequence[int] = ()
) -> str:
    """Return (batch, channels, rows, columns) with each channel filtered by itself."""
    weights = np.tile(kernel.astype(dtype_of(site.compute)), (channels, 1, 1, 1))
    more = {"pads": list(pads)} if any(pads) else {}
    return site.op(
        "Conv", [name, site.constant(weights, f"{what}_kernel")], what,
        kernel_shape=list(kernel.shape), group=channels, **more,
    )  # fmt: skip


def gaussian_blur(site: Site, value: Value) -> Value:
    """GaussianBlur: outside the image all is zero."""
    real, (rows, columns) = _real(site, value), site.sizes("kernel_size", 2, [3, 3])
    if rows != columns:
        raise site.refused("kernel_size", [rows, columns], "Keras's backends blur by other kernels "
                           "where one is not square")  # fmt: skip
    sigmas = site.option("sigma", [1.0, 1.0])
    if not isinstance(sigmas, list) or len(sigmas) != 2:
        raise site.refused("sigma", sigmas)
    dtype = dtype_of(site.compute)
    places = np.arange(rows, dtype=dtype) - dtype.type((rows - 1) / 2)
    curves = [np.exp(-0.5 * (places / dtype.type(float(str(sigma)))) ** 2) for sigma in sigmas]
    across, down = (curve / curve.sum() for curve in curves)
    name, order = _batch(site, real, last=False)
    before, behind = (rows - 1) // 2, rows // 2
    made = _filtered(site, name, np.outer(down, across), _channels(site, real), "blurred",
                     [before, before, behind, behind])  # fmt: skip
    return _of_batch(site, made, value, order, site.compute)


#: tensorflow/python/ops/image_ops_impl.py, `sobel_edges`: downwards and to the right.
_DOWNWARDS = np.asarray([[-1, -2, -1], [0, 0, 0], [1, 2, 1]])


def sobel_edges(site: Site, value: Value) -> Value:
    """SobelEdges: the slopes down and across, as a last axis."""
    if value.rank != 4:
        raise site.refused("inputs", f"images of {value.rank} axes")
    _warn_of_backends(site, "at the frame of an image")
    name, order = _batch(site, real := _real(site, value), last=False)
    frame = site.ints(0, 0, 1, 1, 0, 0, 1, 1)
    name = site.op("Pad", [name, frame], "mirrored", mode="reflect")
    count = _channels(site, value)
    slopes = [
        site.op("Unsqueeze", [_filtered(site, name, kernel, count, what), site.ints(2)], "slope")
        for what, kernel in (("down", _DOWNWARDS), ("across", _DOWNWARDS.T))
    ]
    made = site.op("Concat", slopes, "edges", axis=2)
    result = site.made(made, (*real.shape, 2), (*order[:2], 4, *order[2:]))
    return site.writer.cast(result, value.dtype)


def _warn_of_backends(site: Site, where: str) -> None:
    site.writer.warn(
        f"{site.label}: {where} Keras's backends compute different numbers; the graph computes "
        "those of TensorFlow"
    )


def similarity(site: Site, value: Value, other: Value) -> Value:
    """SSIM: a number for each pair of images."""
    if value.shape != other.shape or "bool" in (value.dtype, other.dtype):
        raise site.refused("inputs", f"images {value.shape} and {other.shape}")
    dtype = value.dtype if value.dtype in FLOATS else "float32"
    first = _real(site, site.writer.cast(value, dtype))
    second = site.writer.cast(other, site.compute)
    count = _channels(site, value)
    size, sigma = site.integer("filter_size", 11), site.real("filter_sigma", 1.5)
    places = np.arange(size) - (size - 1) / 2
    curve = np.exp(-(places**2) / (2 * sigma**2))
    kernel = np.outer(curve, curve) / curve.sum() ** 2
    most = site.real("max_val", 1.0)
    factors = site.real("k1", 0.01), site.real("k2", 0.03)
    least = [site.number((factor * most) ** 2) for factor in factors]
    names = [_batch(site, image, last=False)[0] for image in (first, second)]
    means = [_filtered(site, name, kernel, count, "mean") for name in names]

    def product(pair: Sequence[str], what: str) -> str:
        return site.op("Mul", pair, what)

    def spread(pair: Sequence[str], square: str, what: str) -> str:
        filtered = _filtered(site, product(pair, "product"), kernel, count, "mean_of_product")
        return site.op("Sub", [filtered, square], what)

    squares = [product([mean, mean], "square_of_mean") for mean in means]
    both = product(means, "product_of_means")
    variances = [
        spread([name, name], square, "variance")
        for name, square in zip(names, squares, strict=True)
    ]
    joint = spread(names, both, "covariance")
    two = site.number(2.0)
    above = [
        site.op("Add", [product([two, name], "twice"), small], "above")
        for name, small in zip((both, joint), least, strict=True)
    ]
    below = [
        site.op("Add", [site.op("Add", pair, "sum"), small], "below")
        for pair, small in zip((squares, variances), least, strict=True)
    ]
    quotient = site.op("Div", [product(above, "numerator"), product(below, "denominator")], "ssim")
    result = site.reduce("ReduceMean", quotient, [1, 2, 3], "ssim_of_image")
    if value.rank == 3:
        result = site.op("Squeeze", [result, site.ints(0)], "ssim_of_one")
    return site.writer.cast(site.made(result, value.shape[:-3]), value.dtype)


# ---- windows -------------------------------------------------------------------------------------


class _Windows(NamedTuple):
    """The windows of Fold and Unfold, for rows and columns each."""

    sizes: tuple[int, ...]
    dilations: tuple[int, ...]
    paddings: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, site: Site) -> _Windows:
        return cls(
            site.sizes("kernel_size", 2), site.sizes("dilation", 2, 1),
            site.sizes("padding", 2, 0, 0), site.sizes("stride", 2, 1),
        )  # fmt: skip

    def along(self, axis: int, size: int) -> int:
        """How many windows there are along an axis."""
        return self._room(axis, size) // self.strides[axis] + 1

    def rest(self, axis: int, size: int) -> int:
        """How many places are behind the last window."""
        return self._room(axis, size) % self.strides[axis]

    def _room(self, axis: int, size: int) -> int:
        reach = self.dilations[axis] * (self.sizes[axis] - 1) + 1
        return size + 2 * self.paddings[axis] - reach

    def attributes(self) -> dict[str, list[int]]:
        return {
            "kernel_shape": list(self.sizes), "dilations": list(self.dilations),
            "pads": [*self.paddings, *self.paddings], "strides": list(self.strides),
        }  # fmt: skip

    def kernel(self, site: Site, times: int) -> str:
        """Return the name of a kernel with a one at each place of the window in turn."""
        count = math.prod(self.sizes)
        places = np.eye(count, dtype=dtype_of(site.compute)).reshape(count, 1, *self.sizes)
        return site.constant(np.tile(places, (times, 1, 1, 1)), "places")


def unfold(site: Site, value: Value) -> Value:
    """Unfold: the windows of (batch, channels, rows, columns) as columns."""
    if value.rank != 4:
        raise site.refused("inputs", f"{value.rank} axes")
    windows, real = _Windows.of(site), _real(site, value)
    channels = _channels(site, value, 1)
    inputs = [site.writer.form(real), windows.kernel(site, channels)]
    made = site.op("Conv", inputs, "windows", group=channels, **windows.attributes())
    depth = channels * math.prod(windows.sizes)
    made = site.op("Reshape", [made, site.ints(0, depth, -1)], "columns")
    sizes = [value.static(axis) for axis in (2, 3)]
    counts = [windows.along(i, size) for i, size in enumerate(sizes) if size is not None]
    total: Axis = math.prod(counts) if len(counts) == 2 else None
    return site.writer.cast(site.made(made, (value.shape[0], depth, total)), value.dtype)


def fold(site: Site, value: Value) -> Value:
    """Fold: the sum of windows, each at its place; back from `unfold`."""
    if value.rank != 3:
        raise site.refused("inputs", f"{value.rank} axes")
    windows, real = _Windows.of(site), _real(site, value)
    sizes, count = site.sizes("output_size", 2), math.prod(windows.sizes)
    depth = _channels(site, value, 1)
    steps = [windows.along(axis, size) for axis, size in enumerate(sizes)]
    if depth % count or min(steps) < 1:
        raise site.refused("output_size", list(sizes))
    # Pixels behind the last window are zero.
    rest = [windows.rest(axis, size) for axis, size in enumerate(sizes)]
    name = site.op("Reshape", [site.writer.form(real), site.ints(-1, count, *steps)], "windows")
    more = {"output_padding": rest} if any(rest) else {}
    made = site.op("ConvTranspose", [name, windows.kernel(site, 1)], "sums",
                   **windows.attributes(), **more)  # fmt: skip
    made = site.op("Reshape", [made, site.ints(-1, depth // count, *sizes)], "fold")
    shape = (value.shape[0], depth // count, *sizes)
    return site.writer.cast(site.made(made, shape), value.dtype)


# ---- colours -------------------------------------------------------------------------------------


def _planes(site: Site, value: Value) -> tuple[list[str], int]:
    """Return the three channels, each with an axis of one, and the axis."""
    if value.rank not in (3, 4):
        raise site.refused("inputs", f"an image of {value.rank} axes")
    axis = value.rank - (3 if is_channels_first(site) else 1)
    if value.shape[axis] != 3:
        raise site.refused("inputs", f"{value.shape[axis]} channels")
    names = [site.writer.form(value), site.ints(1, 1, 1)]
    return site.ops("Split", names, 3, "channels", axis=axis), axis


def rgb_to_hsv(site: Site, value: Value) -> Value:
    """RGBToHSV (tensorflow/core/kernels/image/colorspace_op.h)."""
    real = _real(site, value)
    planes, axis = _planes(site, real)
    red, green, blue = planes
    zero, sixth = site.number(0.0), site.number(1 / 6)
    brightness = site.op("Max", planes, "value")
    spread = site.op("Sub", [brightness, site.op("Min", planes, "darkest")], "range")
    is_bright = site.op("Greater", [brightness, zero], "is_bright")
    share = site.op("Div", [spread, brightness], "share")
    saturation = site.op("Where", [is_bright, share, zero], "saturation")
    norm = site.op("Mul", [site.op("Reciprocal", [spread]), sixth], "norm")

    def hue_of(first: str, second: str, start: float) -> str:
        made = site.op("Mul", [norm, site.op("Sub", [first, second])], "arc")
        return site.op("Add", [made, site.number(start)], "from_start") if start else made

    hue = site.op("Where", [site.op("Equal", [green, brightness], "is_green"),
                            hue_of(blue, red, 2 / 6), hue_of(red, green, 4 / 6)], "hue_if_not_red")
    is_red = site.op("Equal", [red, brightness], "is_red")
    hue = site.op("Where", [is_red, hue_of(green, blue, 0.0), hue], "hue_of_colour")
    hue = site.op("Where", [site.op("Greater", [spread, zero], "is_coloured"), hue, zero], "hue")
    turned = site.op("Add", [hue, site.number(1.0)], "turned")
    hue = site.op("Where", [site.op("Less", [hue, zero], "is_before"), turned, hue], "hue_in_turn")
    made = site.op("Concat", [hue, saturation, brightness], "hsv", axis=axis)
    return site.writer.cast(site.made(made, value.shape), value.dtype)


def hsv_to_rgb(site: Site, value: Value) -> Value:
    """HSVToRGB (tensorflow/core/kernels/image/colorspace_op.h). A hue that is not between 0 and 1
    is no colour's: TensorFlow does not take whole turns away, as Keras's other backends do."""
    real = _real(site, value)
    (hue, saturation, brightness), axis = _planes(site, real)
    zero, unit = site.number(0.0), site.number(1.0)
    arc = site.op("Mul", [hue, site.number(6.0)], "arc")
    rest = site.op("Sub", [unit, saturation], "rest")
    planes = []
    for middle, is_outside in ((3.0, True), (2.0, False), (4.0, False)):
        off = site.op("Abs", [site.op("Sub", [arc, site.number(middle)])], "distance")
        if is_outside:
            ramp = site.op("Sub", [off, unit], "ramp")
        else:
            ramp = site.op("Sub", [site.number(2.0), off], "ramp")
        ramp = site.op("Clip", [ramp, zero, unit], "share")
        share = site.op("Add", [rest, site.op("Mul", [saturation, ramp])], "share_of_value")
        planes.append(site.op("Mul", [share, brightness], "channel"))
    made = site.op("Concat", planes, "rgb", axis=axis)
    return site.writer.cast(site.made(made, value.shape), value.dtype)


# ---- pixels from other places --------------------------------------------------------------------


class _Side(NamedTuple):
    """The length of an axis: as a real number, one less than that, and as int64."""

    length: str
    last: str
    whole: str


def _side(site: Site, value: Value, name: str, order: Order, axis: int) -> _Side:
    """Return the length of one of Keras's axes of a value that is stored in an order."""
    size = value.static(axis)
    if size is not None:
        length, last = (site.number(float(count)) for count in (size, size - 1))
        return _Side(length, last, site.writer.place(size))
    shape = site.op("Shape", [name], "shape")
    whole = site.op("Gather", [shape, site.writer.place(order.index(axis))], "length")
    length = site.to(whole, site.compute)
    return _Side(length, site.op("Sub", [length, site.number(1.0)], "last"), whole)


def _steps(site: Site, value: Value, axis: int, side: _Side) -> str:
    """Return the places along an axis as real numbers, (places,)."""
    size = value.static(axis)
    if size is not None:
        return site.constant(np.arange(size, dtype=dtype_of(site.compute)), "places")
    ends = [site.writer.place(0), side.whole, site.writer.place(1)]
    return site.to(site.op("Range", ends, "whole_places"), site.compute)


class _Ends(NamedTuple):
    """The one or two places of an axis that a coordinate lies at: the places, int64 and within the
    axis, whether each is in truth, and what each counts for."""

    places: list[str]
    inside: list[str]
    weights: list[str]


def _ends(
    site: Site, places: Sequence[str], weights: Sequence[str], side: _Side, *, wraps: bool = False
) -> _Ends:
    whole, inside = [], []
    for place in places:
        near = place if wraps else site.op("Clip", [place, site.number(0.0), side.last], "near")
        name = site.to(near, "int64")
        whole.append(site.op("Mod", [name, side.whole], "wrapped") if wraps else name)
        inside.append(site.op("Equal", [place, near], "is_inside"))
    return _Ends(whole, inside, list(weights))


def _two_ends(site: Site, at: str, side: _Side, *, wraps: bool = False) -> _Ends:
    """Return the places before and behind a coordinate."""
    unit = site.number(1.0)
    before = site.op("Floor", [at], "before")
    behind = site.op("Add", [before, unit], "behind")
    upper = site.op("Sub", [at, before], "weight_behind")
    weights = [site.op("Sub", [unit, upper], "weight"), upper]
    return _ends(site, [before, behind], weights, side, wraps=wraps)


def _between(
    site: Site,
    axes: Sequence[_Ends],
    read: Callable[[Sequence[str], Sequence[str]], str],
    places: Sequence[str] = (),
    inside: Sequence[str] = (),
) -> str:
    """Return what lies at coordinates, between what `read` reads at all places around them."""
    if not axes:
        return read(places, inside)
    ends, *rest = axes
    parts = [
        _between(site, rest, read, [*places, place], [*inside, is_there])
        for place, is_there in zip(ends.places, ends.inside, strict=True)
    ]
    if not ends.weights:
        return parts[0]
    terms = [site.op("Mul", pair, "term") for pair in zip(parts, ends.weights, strict=True)]
    return site.op("Add", terms, "between")


def _flat_place(site: Site, places: Sequence[str], sides: Sequence[_Side]) -> str:
    """Return the place among all numbers of an array, of those along its axes."""
    flat = places[0]
    for place, side in zip(places[1:], sides[1:], strict=True):
        flat = site.op("Add", [site.op("Mul", [flat, side.whole], "start"), place], "place")
    return flat


def _all(site: Site, names: Sequence[str]) -> str:
    made = names[0]
    for name in names[1:]:
        made = site.op("And", [made, name], "is_inside")
    return made


def _mirrored(site: Site, at: str, side: _Side) -> str:
    """Return coordinates of [dcba|abcd|dcba] as those of abcd."""
    zero, unit = site.number(0.0), site.number(1.0)
    twice = site.op("Add", [side.length, side.length], "twice")

    def turns(name: str) -> str:
        count = site.op("Floor", [site.op("Div", [name, twice])], "turns")
        return site.op("Mul", [twice, count], "whole_turns")

    negative = site.op("Neg", [at], "before_zero")
    low = site.op("Add", [turns(negative), at], "low")
    is_far = site.op("Less", [low, site.op("Neg", [side.length])], "is_far")
    back = site.op("Sub", [site.op("Neg", [low]), unit], "turned")
    low = site.op("Where", [is_far, site.op("Add", [low, twice]), back], "mirrored_low")
    high = site.op("Sub", [at, turns(at)], "high")
    back = site.op("Sub", [site.op("Sub", [twice, high]), unit], "turned")
    is_near = site.op("Less", [high, side.length], "is_near")
    high = site.op("Where", [is_near, high, back], "mirrored_high")
    return site.op("Where", [site.op("Less", [at, zero], "is_low"), low, high], "mirrored")


def _wrapped(site: Site, at: str, side: _Side) -> str:
    """Return coordinates of [abcd|abcd|abcd] as those of abcd. Between d and a TensorFlow has d."""
    _warn_of_backends(site, "outside an image that is wrapped")
    zero, unit = site.number(0.0), site.number(1.0)
    length = site.op("Max", [side.last, unit], "wave")
    count = site.op("Floor", [site.op("Div", [site.op("Neg", [at]), length])], "turns")
    count = site.op("Add", [count, unit], "turns_back")
    low = site.op("Add", [at, site.op("Mul", [side.length, count])], "wrapped_low")
    count = site.op("Floor", [site.op("Div", [at, length])], "turns")
    high = site.op("Sub", [at, site.op("Mul", [side.length, count])], "wrapped_high")
    is_high = site.op("Greater", [at, side.last], "is_high")
    inner = site.op("Where", [is_high, high, at], "not_high")
    return site.op("Where", [site.op("Less", [at, zero], "is_low"), low, inner], "wrapped")


#: Fill mode -> what makes a coordinate outside the image one that is inside, or near it.
_OUTSIDE: Mapping[str, Callable[[Site, str, _Side], str]] = {
    "reflect": _mirrored,
    "wrap": _wrapped,
}


def _half_away(site: Site, at: str) -> str:
    """Return whole numbers, halves away from zero, as C++'s `round`: ONNX's makes them even."""
    size = site.op("Abs", [at], "size")
    below = site.op("Floor", [size], "below")
    is_up = site.op("GreaterOrEqual", [site.op("Sub", [size, below]), site.number(0.5)], "is_up")
    whole = site.op("Add", [below, site.to(is_up, site.compute)], "whole")
    return site.op("Mul", [whole, site.op("Sign", [at])], "rounded")


#: What gathers and chooses pixels of these; of other types they are float32 meanwhile.
_GATHERED = ("float32", "float64", "int32", "int64", "uint8")


def projected(site: Site, value: Value, transform: str, mode: str) -> Value:
    """Return images whose pixels are taken from where transforms (n, 8, 1) of float32 say
    (tensorflow/core/kernels/image/image_ops.h).

    Args:
        site: the operation.
        value: the images, or one.
        transform: one for each image, or for all.
        mode: what is outside the image.
    """
    site.compute = "float32"
    is_nearest = site.word("interpolation", "bilinear", "bilinear", "nearest") == "nearest"
    if value.dtype == "bool":
        raise site.refused("inputs", value.dtype)
    dtype = value.dtype if is_nearest and value.dtype in _GATHERED else "float32"
    image = site.writer.cast(value, dtype)
    name, order = _batch(site, image, last=True)
    stored = (-1, *order) if value.rank == 3 else order
    rows, columns, _ = order[-3:]
    tall, wide = (_side(site, value, name, stored, axis) for axis in (rows, columns))
    x = _steps(site, value, columns, wide)
    y = site.op("Unsqueeze", [_steps(site, value, rows, tall), site.ints(1)], "row_places")
    factors = site.ops("Split", [transform, site.ints(*[1] * 8)], 8, "factors", axis=1)

    def moved(start: int) -> str:
        terms = [site.op("Mul", [factors[start + i], at], "term") for i, at in enumerate((x, y))]
        both = site.op("Add", terms, "sum")
        end = factors[start + 2] if start < 6 else site.number(1.0)
        return site.op("Add", [both, end], "moved")

    depth = moved(6)
    is_nowhere = site.op("Equal", [depth, site.number(0.0)], "is_nowhere")
    depth = site.op("Where", [is_nowhere, site.number(1.0), depth], "depth")
    axes = []
    for start, side in ((3, tall), (0, wide)):
        at = site.op("Div", [moved(start), depth], "at")
        if mode != "constant":
            at = _OUTSIDE[mode](site, at, side) if mode in _OUTSIDE else at
            at = site.op("Clip", [at, site.number(0.0), side.last], "at_inside")
        if is_nearest:
            axes.append(_ends(site, [_half_away(site, at)], [], side))
        else:
            axes.append(_two_ends(site, at, side))
    sides = [tall, wide]
    channels = _channels(site, value)
    flat = site.op("Reshape", [name, site.ints(0, -1, channels)], "pixels")
    size = site.op("Shape", [name], "sizes")
    count = site.op("Slice", [size, site.ints(0), site.ints(1)], "batch_size")
    batch = site.op("Concat", [count, site.ints(1, 1)], "for_each_image", axis=0)
    fill = site.real("fill_value", 0.0)
    filling = site.number(fill if dtype.startswith("float") else int(fill), dtype)

    def column(made: str) -> str:
        return site.op("Reshape", [made, site.ints(0, -1, 1)], "column")

    def read(places: Sequence[str], inside: Sequence[str]) -> str:
        place = column(_flat_place(site, places, sides))
        place = site.op("Expand", [place, batch], "place_of_image")
        taken = site.op("GatherND", [flat, place], "pixel", batch_dims=1)
        if mode != "constant":
            return taken
        return site.op("Where", [column(_all(site, inside)), taken, filling], "pixel_or_fill")

    ends = [
        ends._replace(weights=[column(weight) for weight in ends.weights]) for ends in axes
    ]
    made = _between(site, ends, read)
    made = site.op("Where", [column(is_nowhere), filling, made], "projected")
    made = site.op("Reshape", [made, size], "images")
    return _of_batch(site, made, value, order, dtype)


def affine_transform(site: Site, value: Value, transform: Value) -> Value:
    """AffineTransform: with a transform (8,), or one for each image."""
    if transform.rank not in (1, 2):
        raise site.refused("transform", f"of {transform.rank} axes")
    name = site.writer.form(site.writer.cast(transform, "float32"))
    name = site.op("Reshape", [name, site.ints(-1, 8, 1)], "transform")
    mode = site.word("fill_mode", "constant", "constant", "nearest", *_OUTSIDE)
    return projected(site, value, name, mode)


def homography(site: Site, start: Value, end: Value) -> tuple[Value, str]:
    """Return the equations whose solution moves four points to four others, and their right
    sides: (n, 8, 8) and (n, 8, 1) of float32."""
    if start.shape != end.shape or start.shape[-2:] != (4, 2) or start.rank not in (2, 3):
        raise site.refused("points", f"{start.shape} and {end.shape}")
    site.compute = "float32"
    first, last = (
        site.op("Reshape", [site.writer.form(site.writer.cast(points, "float32")),
                            site.ints(-1, 4, 2)], "points")
        for points in (start, end)
    )  # fmt: skip
    pads = site.ints(0, 0, 0, 0, 0, 1)
    with_unit = site.op("Pad", [last, pads, site.number(1.0)], "with_unit")
    halves = [
        site.op("Unsqueeze", [site.op("Pad", [with_unit, site.ints(*sides)]), site.ints(2)], "half")
        for sides in ((0, 0, 0, 0, 0, 3), (0, 0, 3, 0, 0, 0))
    ]
    affine = site.op("Concat", halves, "affine", axis=2)
    column = site.op("Unsqueeze", [site.op("Neg", [first]), site.ints(3)], "column")
    row = site.op("Unsqueeze", [last, site.ints(2)], "row")
    products = site.op("Mul", [column, row], "products")
    matrix = site.op("Concat", [affine, products], "equations", axis=3)
    matrix = site.op("Reshape", [matrix, site.ints(-1, 8, 8)], "matrix")
    side = site.op("Reshape", [first, site.ints(-1, 8, 1)], "right_side")
    return site.made(matrix, (start.shape[0] if start.rank == 3 else 1, 8, 8)), side


def map_coordinates(site: Site, value: Value, coordinates: Value) -> Value:
    """MapCoordinates: the numbers at coordinates (axes, …)."""
    order, mode = site.integer("order", 1, 0), site.option("fill_mode", "constant")
    if mode in ("mirror", "reflect"):
        raise site.refused("fill_mode", mode, "each of Keras's backends mirrors in another way")
    site.word("fill_mode", "constant", "constant", "nearest", "wrap")
    if order > 1 or coordinates.dtype not in ("float32", "float64"):
        raise site.refused("coordinates", f"{coordinates.dtype} with order {order}")
    rank = value.rank
    if not rank or value.dtype == "bool" or coordinates.rank < 2 or coordinates.shape[0] != rank:
        raise site.refused("inputs", f"{value.shape} at coordinates {coordinates.shape}")
    site.compute = dtype = coordinates.dtype
    name = site.writer.form(value)
    sides = [_side(site, value, name, value.straight, axis) for axis in range(rank)]
    axes = []
    for axis, side in enumerate(sides):
        names = [site.writer.form(coordinates), site.writer.place(axis)]
        at = site.op("Gather", names, "coordinate", axis=0)
        if order:
            axes.append(_two_ends(site, at, side, wraps=mode == "wrap"))
        else:
            axes.append(_ends(site, [site.op("Round", [at])], [], side, wraps=mode == "wrap"))
    wide = value if value.dtype == dtype else site.writer.cast(value, dtype)
    flat = site.op("Reshape", [site.writer.form(wide), site.ints(-1)], "numbers")
    is_real = value.dtype in FLOATS
    fill = site.real("fill_value", 0.0)
    filling = site.number(fill if is_real else float(int(fill)))

    def read(places: Sequence[str], inside: Sequence[str]) -> str:
        taken = site.op("Gather", [flat, _flat_place(site, places, sides)], "number", axis=0)
        if mode != "constant":
            return taken
        return site.op("Where", [_all(site, inside), taken, filling], "number_or_fill")

    made = _between(site, axes, read)
    if not is_real:
        made = site.op("Round", [made], "whole")
    return site.writer.cast(site.made(made, coordinates.shape[1:]), value.dtype)


# ---- sizes and places ----------------------------------------------------------------------------


def _cubic(site: Site, x: str) -> str:
    """Keys's kernel with a = -0.5."""

    def polynomial(*factors: float) -> str:
        made = site.op("Mul", [site.number(factors[0]), x], "term")
        for factor in factors[1:-1]:
            made = site.op("Add", [made, site.number(factor)], "sum") if factor else made
            made = site.op("Mul", [made, x], "term")
        return site.op("Add", [made, site.number(factors[-1])], "polynomial")

    near, far = polynomial(1.5, -2.5, 0.0, 1.0), polynomial(-0.5, 2.5, -4.0, 2.0)
    is_far = site.op("GreaterOrEqual", [x, site.number(1.0)], "is_far")
    made = site.op("Where", [is_far, far, near], "cubic")
    is_outside = site.op("GreaterOrEqual", [x, site.number(2.0)], "is_outside")
    return site.op("Where", [is_outside, site.number(0.0), made], "weights")


def _linear(site: Site, x: str) -> str:
    return site.op("Max", [site.number(0.0), site.op("Sub", [site.number(1.0), x])], "weights")


def _lanczos(radius: float) -> Callable[[Site, str], str]:
    def run(site: Site, x: str) -> str:
        zero, unit = site.number(0.0), site.number(1.0)
        angle = site.op("Mul", [site.number(math.pi), x], "angle")
        wide = site.op("Div", [angle, site.number(radius)], "wide_angle")
        sines = [site.op("Sin", [name]) for name in (angle, wide)]
        wave = site.op("Mul", [site.op("Mul", [site.number(radius), sines[0]]), sines[1]], "wave")
        square = site.op("Mul", [site.number(math.pi**2), site.op("Mul", [x, x])], "square")
        is_zero = site.op("Equal", [x, zero], "is_zero")
        quotient = site.op("Div", [wave, site.op("Where", [is_zero, unit, square])], "quotient")
        is_off = site.op("Greater", [x, site.number(1e-3)], "is_off")
        made = site.op("Where", [is_off, quotient, unit], "lanczos")
        is_outside = site.op("Greater", [x, site.number(radius)], "is_outside")
        return site.op("Where", [is_outside, zero, made], "weights")

    return run


_KERNELS: Mapping[str, Callable[[Site, str], str]] = {
    **dict.fromkeys(("linear", "bilinear", "trilinear"), _linear),
    **dict.fromkeys(("cubic", "bicubic", "tricubic"), _cubic),
    "lanczos3": _lanczos(3.0),
    "lanczos5": _lanczos(5.0),
}
#: The least sum of weights that is divided by.
_LEAST_SUM = 1000.0 * float(np.finfo(np.float32).eps)


def scale_and_translate(
    site: Site, value: Value, sizes: Sequence[object], scale: Value, translation: Value
) -> Value:
    """ScaleAndTranslate: each axis is a product with what each place counts for in the new ones.

    Args:
        site: the operation.
        value: the images.
        sizes: the shape that they get; only that of the axes that are scaled counts.
        scale: for each of those axes.
        translation: the same.
    """
    real, kernel = _real(site, value), _KERNELS[site.word("method", "linear", *_KERNELS)]
    computed = site.compute
    listed = site.option("spatial_dims")
    if not isinstance(listed, list) or len(sizes) != value.rank:
        raise site.refused("spatial_dims", listed)
    axes = [int(str(axis)) % value.rank for axis in listed]
    count = len(axes)
    if scale.shape != (count,) or translation.shape != (count,):
        raise site.refused("scale", f"{scale.shape} and {translation.shape}")
    dtypes = {scale.dtype, translation.dtype}
    if not dtypes <= {"float32", "float64"}:
        raise site.refused("scale", ", ".join(sorted(dtypes)))
    wide = max(dtypes)
    names = [site.writer.form(site.writer.cast(item, wide)) for item in (scale, translation)]
    for number, axis in enumerate(axes):
        size = sizes[axis]
        if not isinstance(size, int) or size < 1:
            raise site.refused("output_shape", sizes)
        site.compute = wide
        order = (*(i for i in range(value.rank) if i != axis), axis)
        name = site.writer.form(real, order)
        side = _side(site, real, name, order, axis)
        factor, step = (
            site.op("Gather", [item, site.writer.place(number)], "of_axis", axis=0)
            for item in names
        )
        weights = _weights(site, kernel, _steps(site, real, axis, side), side, (size, factor, step))
        if wide != computed:
            weights = site.to(weights, computed)
        site.compute = computed
        made = site.op("MatMul", [name, weights], "scaled")
        shape = tuple(size if i == axis else old for i, old in enumerate(real.shape))
        real = Value(made, computed, shape, order)
    return site.writer.cast(real, value.dtype)


def _weights(
    site: Site,
    kernel: Callable[[Site, str], str],
    places: str,
    side: _Side,
    new: tuple[int, str, str],
) -> str:
    """Return what each place of an axis counts for in each of the new ones, (places, new ones)."""
    size, factor, step = new
    zero, unit, half = (site.number(number) for number in (0.0, 1.0, 0.5))
    inverse = site.op("Div", [unit, factor], "inverse")
    middles = site.constant(np.arange(size, dtype=dtype_of(site.compute)) + 0.5, "middles")
    at = site.op("Mul", [middles, inverse], "scaled_back")
    at = site.op("Sub", [at, site.op("Mul", [step, inverse])], "moved_back")
    at = site.op("Sub", [at, half], "at")
    column = site.op("Unsqueeze", [places, site.ints(1)], "column")
    x = site.op("Abs", [site.op("Sub", [at, column])], "distance")
    if site.flag("antialias", True):
        x = site.op("Div", [x, site.op("Max", [inverse, unit])], "distance_in_kernel")
    weights = kernel(site, x)
    total = site.reduce("ReduceSum", weights, [0], "total", keep=True)
    is_zero = site.op("Equal", [total, zero], "is_zero")
    share = site.op("Div", [weights, site.op("Where", [is_zero, unit, total])], "share")
    is_much = site.op("Greater", [site.op("Abs", [total]), site.number(_LEAST_SUM)], "is_much")
    share = site.op("Where", [is_much, share, zero], "share_or_zero")
    is_behind = site.op("GreaterOrEqual", [at, site.op("Neg", [half])], "is_behind_start")
    end = site.op("Sub", [side.length, half], "end")
    is_there = site.op("And", [is_behind, site.op("LessOrEqual", [at, end])], "is_there")
    return site.op("Where", [is_there, share, zero], "weights_or_zero")


# ---- layers --------------------------------------------------------------------------------------


def idle(site: Site) -> Value:
    """Return an image as it is given. tf_keras casts it in each of these layers."""
    value: Value = site.arguments[0]
    if value.dtype in FLOATS or site.part.class_name in CASTING or not site.is_modern:
        value = site.writer.cast(value, site.policy)
    return value.again()


def auto_contrast(site: Site) -> Value:
    """AutoContrast: from the darkest to the brightest pixel of each image and channel."""
    given: Value = site.arguments[0]
    value = site.given(given)
    if value.rank != 4 or site.compute not in ("float32", "float64"):
        raise site.refused("inputs", f"{value.dtype} of {value.rank} axes")
    bounds = _value_range(site)
    name = _rescaled(site, site.writer.form(value), bounds, _PIXELS)
    ends = [site.reduce(kind, name, [1, 2], keep=True) for kind in ("ReduceMin", "ReduceMax")]
    spread = site.op("Sub", [ends[1], ends[0]], "spread")
    scale = site.op("Div", [site.number(_PIXELS[1]), spread], "scale")
    offset = site.op("Mul", [site.op("Neg", [ends[0]]), scale], "offset")
    made = site.op("Add", [site.op("Mul", [name, scale]), offset], "stretched")
    made = site.op("Clip", [made, site.number(_PIXELS[0]), site.number(_PIXELS[1])], "clipped")
    made = _rescaled(site, made, _PIXELS, bounds)
    names = [site.op("IsNaN", [made], "is_flat"), site.writer.form(value), made]
    return site.made(site.op("Where", names, "contrast"), value.shape)


_PIXELS = (0.0, 255.0)
_LEVELS = 256


def _value_range(site: Site) -> tuple[float, float]:
    stated: object = site.option("value_range", [0, 255])
    if not isinstance(stated, list) or len(stated) != 2:
        raise site.refused("value_range", stated)
    return float(stated[0]), float(stated[1])


def contrast_limited(site: Site) -> Value:
    """ContrastLimitedAdaptiveHistogramEqualization: how many pixels of a tile are not brighter,
    between the tiles around a pixel; each step as in its `_clahe`."""
    value: Value = site.arguments[0]
    value = site.given(value) if value.dtype in FLOATS else value
    if value.rank != 4:
        raise site.refused("inputs", f"an image of {value.rank} axes")
    given, bounds = value.dtype, _value_range(site)
    site.compute, value = "float32", site.writer.cast(value, "float32")
    order = (0, 1, 2, 3) if is_channels_first(site) else (0, 3, 1, 2)
    channels, *sizes = (value.static(axis) for axis in order[1:])
    grid = site.sizes("tile_grid_size", 2, [8, 8])
    if channels is None or None in sizes:
        raise site.refused("tile_grid_size", "tiles of an image whose size is not known")
    sides = [int(str(size)) for size in sizes]
    tile = [-(-side // count) for side, count in zip(sides, grid, strict=True)]
    name = _rescaled(site, site.writer.form(value, order), bounds, _PIXELS)
    name = site.op("Clip", [name, site.number(_PIXELS[0]), site.number(_PIXELS[1])], "bright")
    levels = site.op("Cast", [name], "levels", to=NUMBERS["int64"])
    padded = levels
    for axis, (side, count, length) in enumerate(zip(sides, grid, tile, strict=True), 2):
        places = np.arange(count * length)
        mirrored = np.where(places < side, places, 2 * side - 1 - places)
        if mirrored.min() < 0:
            raise site.refused("tile_grid_size", list(grid), "Keras itself takes no such tiles")
        if len(places) != side:  # a mirror that has the last pixel twice
            names = [padded, site.constant(mirrored, f"mirror_{axis}")]
            padded = site.op("Gather", names, "padded", axis=axis)
    shares = _shares_of_tiles(site, padded, channels, grid, tile)
    made = _between_tiles(site, levels, shares, (channels, *sides), grid, tile)
    result = Value(_rescaled(site, made, _PIXELS, bounds), "float32", value.shape, order)
    return site.writer.cast(result, given)


def _shares_of_tiles(
    site: Site, levels: str, channels: int, grid: Sequence[int], tile: Sequence[int]
) -> str:
    """Return what becomes of each level in each tile, (batch, channels, tiles · levels)."""
    (rows, columns), (height, width) = grid, tile
    shape = site.ints(0, channels, rows, height, columns, width)
    tiled = site.op("Reshape", [levels, shape], "tiled")
    tiled = site.op("Transpose", [tiled], "tiles", perm=[0, 1, 2, 4, 3, 5])
    count = rows * columns
    flat = site.op("Reshape", [tiled, site.ints(0, channels, count, -1, 1)], "pixels")
    all_levels = site.constant(np.arange(_LEVELS), "all_levels")
    is_level = site.op("Equal", [flat, all_levels], "is_level")
    number = site.op("Cast", [is_level], "is_level_as_number", to=NUMBERS["float32"])
    counted = site.reduce("ReduceSum", number, [3], "histogram")
    most = site.real("clip_limit", 4.0) * (height * width) / _LEVELS
    if most > 0:
        clipped = site.op("Min", [counted, site.number(most)], "clipped")
        above = site.op("Sub", [counted, clipped], "above")
        excess = site.reduce("ReduceSum", above, [3], "excess", keep=True)
        share = site.op("Div", [excess, site.number(float(_LEVELS))], "share_of_excess")
        counted = site.op("Add", [clipped, share], "spread")
    total = site.op("CumSum", [counted, site.writer.place(3)], "total")
    least = site.reduce("ReduceMin", total, [3], "least", keep=True)
    above = site.op("Mul", [site.op("Sub", [total, least]), site.number(_PIXELS[1])], "above_least")
    whole = site.op("Sub", [site.number(float(height * width)), least], "whole")
    is_zero = site.op("Equal", [whole, site.number(0.0)], "is_zero")
    whole = site.op("Where", [is_zero, site.number(1.0), whole], "whole_or_one")
    made = site.op("Div", [above, whole], "equalized")
    made = site.op("Clip", [made, site.number(_PIXELS[0]), site.number(_PIXELS[1])], "within")
    return site.op("Reshape", [made, site.ints(0, channels, -1)], "shares")


def _between_tiles(
    site: Site,
    levels: str,
    shares: str,
    sizes: Sequence[int],
    grid: Sequence[int],
    tile: Sequence[int],
) -> str:
    """Return each pixel between what the four tiles around it make of it."""
    ends = []
    for size, count, length in zip(sizes[1:], grid, tile, strict=True):
        middle = np.arange(size, dtype=np.float32) - np.float32(length / 2)
        place = middle / np.float32(length) + np.float32(1)
        before = np.floor(place)
        tiles = [np.clip(before + step - 1, 0, count - 1).astype(np.int64) for step in (0, 1)]
        ends.append((tiles, place - before))
    (rows, down), (columns, right) = ends
    weights = []
    for axis, share in enumerate((down[:, None], right[None, :])):
        full = np.broadcast_to(share, sizes[1:]).reshape(-1)
        pair = [site.constant(side, f"weight_{axis}") for side in (np.float32(1) - full, full)]
        weights.append(pair)
    lines = []
    for row in rows:
        parts = []
        for column, weight in zip(columns, weights[1], strict=True):
            start = (row[:, None] * grid[1] + column[None, :]) * _LEVELS
            at = site.op("Add", [levels, site.constant(start, "tile_start")], "place")
            at = site.op("Reshape", [at, site.ints(0, sizes[0], -1)], "places")
            taken = site.op("GatherElements", [shares, at], "of_tile", axis=2)
            parts.append(site.op("Mul", [taken, weight], "weighted"))
        lines.append(site.op("Add", parts, "line"))
    weighted = [site.op("Mul", pair) for pair in zip(lines, weights[0], strict=True)]
    made = site.op("Add", weighted, "between_tiles")
    return site.op("Reshape", [made, site.ints(0, *sizes)], "contrast_limited")


def _rescaled(
    site: Site, name: str, now: tuple[float, float], wanted: tuple[float, float]
) -> str:
    """Return numbers between two bounds as numbers between two others."""
    if now == wanted:
        return name
    share = site.op("Sub", [name, site.number(now[0])], "from_zero")
    share = site.op("Div", [share, site.number(now[1] - now[0])], "share")
    made = site.op("Mul", [share, site.number(wanted[1] - wanted[0])], "widened")
    return site.op("Add", [made, site.number(wanted[0])], "moved")


def _axes(site: Site, value: Value) -> tuple[int, int]:
    """Return the axes of the rows and of the columns of an image, or of a batch of them."""
    if value.rank not in (3, 4):
        raise CorruptFile("not an image", where=site.label, found=f"{value.rank} axes")
    last = value.rank - 1 if is_channels_first(site) else value.rank - 2
    return last - 1, last


def _sizes(site: Site, value: Value, option: str) -> tuple[int, int]:
    """Return the height and width of an image.

    Raises:
        UnsupportedByTarget: they are not known, and the option depends on them.
    """
    height, width = (value.static(axis) for axis in _axes(site, value))
    if height is None or width is None:
        raise site.refused(option, f"{site.option(option)} of an image whose size is not known")
    return height, width


def _target(site: Site) -> tuple[int, int]:
    return site.integer("height"), site.integer("width")


def _cut(site: Site, value: Value, starts: Sequence[int], sizes: Sequence[int]) -> Value:
    """Return a part of an image."""
    axes = _axes(site, value)
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    name, order = site.writer.native(value)
    places = [order.index(axis) for axis in axes]
    made = site.op("Slice", [name, site.ints(*starts), site.ints(*ends), site.ints(*places)],
                   "cropped")  # fmt: skip
    shape = list(value.shape)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    return Value(made, value.dtype, tuple(shape), order)


def _like_target(site: Site, value: Value, option: str) -> tuple[list[int], list[int]]:
    """Return the sizes of the largest part of an image that has the sides' ratio of the target, and
    those of the least frame around it (keras/src/backend/tensorflow/image.py, `resize`)."""
    (height, width), (rows, columns) = _sizes(site, value, option), _target(site)
    tall = int(np.float32(width * rows) / np.float32(columns))
    wide = int(np.float32(height * columns) / np.float32(rows))
    inside = [max(min(height, tall), 1), max(min(width, wide), 1)]
    return inside, [max(height, tall), max(width, wide)]


def _cropped(site: Site, value: Value, option: str) -> Value:
    inside, _ = _like_target(site, value, option)
    starts = [(size - part) // 2
              for size, part in zip(_sizes(site, value, option), inside, strict=True)]  # fmt: skip
    return _cut(site, value, starts, inside)


def _framed(site: Site, value: Value) -> Value:
    """Return an image in a frame of one number: as wide before as behind, as Keras makes it."""
    if site.word("fill_mode", "constant", "constant") and site.compute not in FLOATS:
        raise site.refused("pad_to_aspect_ratio", site.compute)
    option, axes = "pad_to_aspect_ratio", _axes(site, value)
    _, around = _like_target(site, value, option)
    widths = [(wide - size) // 2
              for size, wide in zip(_sizes(site, value, option), around, strict=True)]  # fmt: skip
    if all(widths):
        raise site.refused(option, "a frame on all sides")
    pads = [widths[axes.index(axis)] if axis in axes else 0 for axis in range(value.rank)]
    inputs = [site.writer.form(value), site.ints(*pads, *pads),
              site.number(site.real("fill_value", 0.0))]  # fmt: skip
    shape = list(value.shape)
    for axis, width, size in zip(axes, widths, _sizes(site, value, option), strict=True):
        shape[axis] = size + 2 * width
    return Value(site.op("Pad", inputs, "framed"), value.dtype, tuple(shape))


def resizing(site: Site) -> Value:
    """Resizing: an image of whole numbers stays one, rounded."""
    value: Value = site.arguments[0]
    given = value.dtype
    if site.flag("antialias", False):
        raise site.refused("antialias", True)
    if given in FLOATS or not site.is_modern:
        value = site.given(value)
    elif given not in NUMBERS or given == "bool":
        raise site.refused("inputs", given)
    else:
        value = site.writer.cast(value, "float32")
        site.compute = "float32"
    if site.flag("crop_to_aspect_ratio", False):
        value = _cropped(site, value, "crop_to_aspect_ratio")
    elif site.flag("pad_to_aspect_ratio", False):
        value = _framed(site, value)
    how = str(site.option("interpolation", "bilinear")).lower()
    result = _resized(site, value, how)
    if given in FLOATS or not site.is_modern:
        return result
    info = np.iinfo(dtype_of(given))

    def rounded(name: str, _: Order) -> str:
        name = site.op("Round", [name])
        return site.op("Clip", [name, site.number(float(info.min)), site.number(float(info.max))])

    return site.writer.cast(site.map(result, rounded), given)


def _resized(site: Site, value: Value, how: str) -> Value:
    """Return an image of the height and width of the config, whatever its ratio is."""
    rows, columns = _target(site)
    axes = _axes(site, value)
    if tuple(value.shape[axis] for axis in axes) == (rows, columns):
        return value
    if value.rank != 4:
        raise site.refused("inputs", "an image without a batch")
    if how in ("bicubic", "lanczos3", "lanczos5"):
        return resampled(site, value, how, (rows, columns))
    if how not in ("nearest", "bilinear"):
        raise site.refused("interpolation", how)
    name = site.writer.form(value)
    sizes: Shape = tuple(
        (rows, columns)[axes.index(axis)] if axis in axes else size
        for axis, size in enumerate(value.shape)
    )
    shape = site.op("Shape", [name], "shape")
    batch = site.op("Slice", [shape, site.ints(0), site.ints(1)], "batch")
    rest = site.ints(*(size for size in sizes[1:] if isinstance(size, int)))
    if not all(isinstance(size, int) for size in sizes[1:]):
        raise site.refused("inputs", "an image of an unknown number of channels")
    target = site.op("Concat", [batch, rest], "new_shape", axis=0)
    # TensorFlow takes the nearest pixel by floor((place + 0.5) · scale).
    nearest = {"mode": "nearest", "nearest_mode": "round_prefer_ceil"}
    mode = nearest if how == "nearest" else {"mode": "linear"}
    made = site.op(
        "Resize", [name, "", "", target], coordinate_transformation_mode="half_pixel", **mode
    )
    return Value(made, value.dtype, sizes)


def center_crop(site: Site) -> Value:
    """CenterCrop: the middle of an image; of one that is too small the largest part with the same
    ratio, resized."""
    value = site.given(site.arguments[0])
    (rows, columns), axes = _target(site), _axes(site, value)
    sizes = [value.static(axis) for axis in axes]
    if None in sizes and not site.is_modern:
        raise site.refused("height", "an image whose size is not known")
    if None in sizes:
        return _middle(site, value, axes, (rows, columns))
    height, width = (int(str(size)) for size in sizes)
    if height >= rows and width >= columns:
        starts = [(height - rows) // 2, (width - columns) // 2]
        return _cut(site, value, starts, (rows, columns))
    return _resized(site, _cropped(site, value, "height"), "bilinear")


def _middle(site: Site, value: Value, axes: Sequence[int], target: Sequence[int]) -> Value:
    name = site.writer.form(value)
    shape = site.op("Shape", [name], "shape")
    sizes = site.op("Gather", [shape, site.ints(*axes)], "sizes", axis=0)
    wanted = site.ints(*target)
    starts = site.op("Div", [site.op("Sub", [sizes, wanted]), site.ints(2)], "starts")
    ends = site.op("Add", [starts, wanted], "ends")
    made = site.op("Slice", [name, starts, ends, site.ints(*axes)], "cropped")
    result = list(value.shape)
    for axis, size in zip(axes, target, strict=True):
        result[axis] = size
    return Value(made, value.dtype, tuple(result))


def random_crop(site: Site) -> Value:
    """RandomCrop: nothing in Keras 3; in Keras 2 what CenterCrop does to small images."""
    if site.is_modern:
        return idle(site)
    value = site.given(site.arguments[0])
    return _resized(site, _cropped(site, value, "height"), "bilinear")

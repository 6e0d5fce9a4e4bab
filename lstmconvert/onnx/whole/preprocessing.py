"""Layers that prepare what a model is given: images of another size, numbers as categories.

What these layers do to images in training alone is nothing here.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json
from lstmconvert.onnx.messages import NUMBERS, Body, Declared
from lstmconvert.onnx.whole.cells import inside, name_inside
from lstmconvert.onnx.whole.shaping import is_channels_first, resampled
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import FLOATS, Order, Shape, Value
from lstmconvert.tensors.dtypes import dtype_of

#: The opset whose operators take texts apart and put them together.
TEXTS_SINCE = 20
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


# ---- images --------------------------------------------------------------------------------------


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
    name = _between(site, site.writer.form(value), bounds, _PIXELS)
    ends = [site.reduce(kind, name, [1, 2], keep=True) for kind in ("ReduceMin", "ReduceMax")]
    spread = site.op("Sub", [ends[1], ends[0]], "spread")
    scale = site.op("Div", [site.number(_PIXELS[1]), spread], "scale")
    offset = site.op("Mul", [site.op("Neg", [ends[0]]), scale], "offset")
    made = site.op("Add", [site.op("Mul", [name, scale]), offset], "stretched")
    made = site.op("Clip", [made, site.number(_PIXELS[0]), site.number(_PIXELS[1])], "clipped")
    made = _between(site, made, _PIXELS, bounds)
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
    name = _between(site, site.writer.form(value, order), bounds, _PIXELS)
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
    result = Value(_between(site, made, _PIXELS, bounds), "float32", value.shape, order)
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



def _between(
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


# ---- categories ----------------------------------------------------------------------------------


def _encoded(site: Site, places: Value, depth: int, dtype: str, mode: str = "") -> Value:
    """Return places as Keras encodes them (keras/src/utils/numerical_utils.py,
    `encode_categorical_inputs`).

    Args:
        site: the layer.
        places: whole numbers, (batch, …).
        depth: how many places there are.
        dtype: of the result.
        mode: `int`, `one_hot`, `multi_hot` or `count`; the layer's own if it is empty.
    """
    mode = mode or _mode(site, "multi_hot")
    if site.option("sparse"):
        raise site.refused("sparse", True)
    if mode == "int":
        return site.writer.cast(places, dtype)
    name, shape = site.writer.form(places), places.shape
    if mode == "one_hot" and places.rank > 1 and shape[-1] == 1:
        name = site.op("Squeeze", [name, site.ints(places.rank - 1)], "places")
        shape = shape[:-1]
    if mode != "one_hot" and places.rank < 2:
        raise site.refused("output_mode", f"{mode} of a batch of numbers")
    column = site.op("Unsqueeze", [name, site.ints(-1)], "column")
    all_places = site.constant(np.arange(depth, dtype=dtype_of(places.dtype)), "categories")
    is_there = Value(site.op("Equal", [column, all_places], "is_there"), "bool", (*shape, depth))
    if mode == "one_hot":
        return site.writer.cast(is_there, dtype)
    numbers = site.writer.form(site.writer.cast(is_there, "float32"))
    weights = site.keywords.get("count_weights")
    if weights is not None:
        given = site.writer.form(site.writer.cast(weights, "float32"))
        numbers = site.op("Mul", [numbers, site.op("Unsqueeze", [given, site.ints(-1)])])
    made = site.reduce("ReduceSum", numbers, [1], mode)
    if mode == "multi_hot":  # the largest of no numbers would be an infinity
        made = site.op("Min", [made, site.writer.number(1.0, "float32")], "multi_hot")
    return site.writer.cast(Value(made, "float32", (shape[0], *shape[2:], depth)), dtype)


_MODES = ("int", "one_hot", "multi_hot", "count")
_OLD_MODES: Mapping[str, str] = {"binary": "multi_hot"}


def _mode(site: Site, default: str) -> str:
    mode = site.word("output_mode", default, *_MODES, *_OLD_MODES)
    return _OLD_MODES.get(mode, mode)


def category_encoding(site: Site) -> Value:
    """CategoryEncoding: whole numbers as ones at their places."""
    value: Value = site.arguments[0]
    places = value if value.dtype in ("int32", "int64") else site.writer.cast(value, "int32")
    return _encoded(site, places, site.integer("num_tokens"), site.policy)


def discretization(site: Site) -> Value:
    """Discretization: the number of bounds that are not above a number."""
    bounds = _numbers(site, "bin_boundaries")
    value = site.writer.cast(site.arguments[0], "float32")
    column = site.op("Unsqueeze", [site.writer.form(value), site.ints(-1)], "column")
    limits = site.constant(np.asarray(bounds, np.float32), "bin_boundaries")
    reached = site.op("GreaterOrEqual", [column, limits], "reached")
    made = site.op("Cast", [reached], "reached_as_number", to=NUMBERS["int32"])
    count = site.reduce("ReduceSum", made, [value.rank], "bin")
    mode = _mode(site, "int")
    whole = "int32" if site.is_modern else "int64"
    dtype = whole if mode == "int" else site.policy
    return _encoded(site, Value(count, "int32", value.shape), len(bounds) + 1, dtype, mode)


def _numbers(site: Site, key: str) -> list[float]:
    """Return a keyword that is a list of numbers.

    Raises:
        UnsupportedByTarget: the config has none.
        CorruptFile: it is another thing.
    """
    value: Json = site.option(key)
    if value is None:
        raise site.refused(key, why=f"the config does not have the {key}")
    is_list = isinstance(value, list) and all(
        isinstance(item, (int, float)) and not isinstance(item, bool) for item in value
    )
    if not is_list or not isinstance(value, list):
        raise CorruptFile("not a list of numbers", where=f"{site.label}.{key}",
                          found=str(value)[:40])  # fmt: skip
    return [item for item in value if isinstance(item, (int, float))]


def integer_lookup(site: Site) -> Value:
    """IntegerLookup: the place of a whole number in a list; one that is not there is at the first
    places, by its rest."""
    mode = _mode(site, "int")
    mask_token, outside = site.option("mask_token"), site.integer("num_oov_indices", 1, low=0)
    if outside > 1 and site.option("oov_method", "floormod") != "floormod":
        raise site.refused("oov_method", site.option("oov_method"))
    first = int(mask_token is not None and mode == "int")
    listed = [int(number) for number in _vocabulary(site)]
    special = [mask_token] * first + [site.option("oov_token", -1)] * outside
    tokens = listed[len(special) :] if listed[: len(special)] == special else listed
    value = site.writer.cast(site.arguments[0], "int64")
    known = site.constant(np.asarray([*special, *tokens], np.int64), "vocabulary")
    if site.flag("invert", False):
        made = site.op("Gather", [known, site.writer.form(value)], "token")
        return Value(made, "int64", value.shape)
    name, depth = site.writer.form(value), len(special) + len(tokens)
    column = site.op("Unsqueeze", [name, site.ints(-1)], "column")
    keys = site.constant(np.asarray(tokens, np.int64), "tokens")
    is_token = site.op("Equal", [column, keys], "is_token")
    numbers = site.op("Cast", [is_token], "is_token_as_number", to=NUMBERS["int32"])
    at = site.op("ArgMax", [numbers], "place", axis=-1, keepdims=0)
    at = site.op("Add", [at, site.writer.place(len(special))], "place_behind_special")
    is_known = site.reduce("ReduceMax", numbers, [value.rank], "is_known")
    is_known = site.op("Cast", [is_known], "is_known_as_bool", to=NUMBERS["bool"])
    # Keras stops at a number that is not in the list if it has no place for it: an Embedding does
    # so here.
    elsewhere = site.writer.place(first if outside else depth)
    if outside > 1:
        rest = site.op("Mod", [name, site.writer.place(outside)], "rest")
        elsewhere = site.op("Add", [rest, elsewhere], "outside")
    places = site.op("Where", [is_known, at, elsewhere], "index")
    if mask_token is not None:
        is_mask = site.op("Equal", [name, site.writer.place(int(str(mask_token)))], "is_mask")
        at = site.writer.place(0 if first else _NOWHERE)
        places = site.op("Where", [is_mask, at, places], "index_or_mask")
    return _as_wanted(site, Value(places, "int64", value.shape), depth, mode)


def string_lookup(site: Site) -> Value:
    """StringLookup: the place of a text in a list, or the text at a place."""
    mode = _mode(site, "int")
    mask_token, outside = site.option("mask_token"), site.integer("num_oov_indices", 1, low=0)
    if outside > 1:
        raise site.refused("num_oov_indices", outside, "ONNX has no hash of a text")
    mask = None if mask_token is None else str(mask_token)
    unknown = str(site.option("oov_token", "[UNK]"))
    value: Value = site.arguments[0]
    if site.flag("invert", False):
        tokens = _tokens(site, mode, mask, outside, unknown)
        value = site.writer.cast(value, "int64")
        made = site.op("LabelEncoder", [site.writer.form(value)], "token",
                       keys_int64s=list(range(len(tokens))), values_strings=tokens,
                       default_string=unknown)  # fmt: skip
        return Value(made, "string", value.shape)
    if value.dtype != "string":
        raise site.refused("inputs", value.dtype)
    made, depth = _placed(site, site.writer.form(value), mode, mask, outside, unknown)
    return _as_wanted(site, Value(made, "int64", value.shape), depth, mode)


def _tokens(site: Site, mode: str, mask: str | None, outside: int, unknown: str) -> list[str]:
    """Return the texts that have places, in their order."""
    special = [mask] * (mode == "int" and mask is not None) + [unknown] * outside
    listed = _texts(site)
    known = listed[len(special) :] if listed[: len(special)] == special else listed
    return [str(token) for token in (*special, *known)]


def _placed(
    site: Site, name: str, mode: str, mask: str | None, outside: int, unknown: str
) -> tuple[str, int]:
    """Return the places of texts, and how many there are. The mask has one only among numbers."""
    tokens = _tokens(site, mode, mask, outside, unknown)
    places = {token: place for place, token in enumerate(tokens)}
    if mode != "int" and mask is not None:
        places[mask] = _NOWHERE
    # Keras stops at a text that is not in the list if it has no place for it: an Embedding does
    # so here.
    elsewhere = tokens.index(unknown) if outside else len(tokens)
    made = site.op("LabelEncoder", [name], "index", keys_strings=list(places),
                   values_int64s=list(places.values()), default_int64=elsewhere)  # fmt: skip
    return made, len(tokens)


def _as_wanted(site: Site, places: Value, depth: int, mode: str) -> Value:
    """Return places in a list as a lookup gives them."""
    if site.flag("pad_to_max_tokens", False):
        depth = site.integer("max_tokens")
    dtype = "int64" if mode == "int" or site.is_modern else site.policy
    return _encoded(site, places, depth, dtype, mode)


#: A place that no category is at.
_NOWHERE = -1


def text_vectorization(site: Site) -> Value:
    """TextVectorization: the places of a text's words in a list, a row for each text."""
    split, mode = site.config.get("split", "whitespace"), _mode(site, "int")
    for key in ("ngrams", "ragged"):
        if site.option(key):
            raise site.refused(key, site.option(key))
    if split not in (None, "whitespace"):
        raise site.refused("split", split, "ONNX has no operator that takes a text apart into "
                           "characters")  # fmt: skip
    value: Value = site.arguments[0]
    if value.dtype != "string":
        raise site.refused("inputs", value.dtype)
    name, shape = site.writer.form(value), value.shape
    if split is not None and value.rank > 1:
        name, shape = site.op("Squeeze", [name, site.ints(-1)], "texts"), shape[:-1]
    if split is not None and len(shape) != 1:
        raise site.refused("inputs", f"texts of {value.rank} axes")
    flat = name if len(shape) == 1 else site.op("Reshape", [name, site.ints(-1)], "flat_texts")
    standard = _standardized(site, flat)
    if standard != flat and len(shape) != 1:
        sizes = site.op("Shape", [name], "sizes")
        standard = site.op("Reshape", [standard, sizes], "standard_texts")
    name = standard if standard != flat else name
    if split is not None:
        name, shape = _split(site, [*string.whitespace], name, " "), (*shape, None)
        name = site.ops("StringSplit", [name], 2, "words", delimiter="")[0]
    made, depth = _placed(site, name, mode, "", 1, "[UNK]")
    length = site.option("output_sequence_length")
    if mode == "int" and length is not None:
        most, before = site.integer("output_sequence_length"), [0] * (len(shape) - 1)
        pads = site.ints(*before, 0, *before, most)
        filled = site.op("Pad", [made, pads], "filled")
        ends = [site.ints(0), site.ints(most), site.ints(len(shape) - 1)]
        made, shape = site.op("Slice", [filled, *ends], "row"), (*shape[:-1], most)
    return _as_wanted(site, Value(made, "int64", shape), depth, mode)


def _standardized(site: Site, name: str) -> str:
    """Return texts (n,) in the form that the layer makes them: ASCII's letters alone are made
    small, as TensorFlow makes them, which is what the locale C has."""
    default = "lower_and_strip_punctuation"
    if "standardize" in site.config and site.config["standardize"] is None:
        return name
    how = site.word("standardize", default, default, "lower", "strip_punctuation")
    if how != "strip_punctuation":
        name = site.op("StringNormalizer", [name], "lower", case_change_action="LOWER", locale="C")
    return name if how == "lower" else _split(site, [*string.punctuation], name, "")


def _split(site: Site, marks: Sequence[str], name: str, between: str) -> str:
    """Return texts (n,) with another text in the place of each of some marks."""
    if site.writer.opset < TEXTS_SINCE:
        raise site.refused("opset", site.writer.opset, f"StringSplit came with opset {TEXTS_SINCE}:"
                           f" say --opset {TEXTS_SINCE}")  # fmt: skip
    empty = site.op("Constant", [], "empty", value_strings=[""])
    empty = site.op("Expand", [empty, site.op("Shape", [name], "count")], "empty_texts")
    joint = site.op("Constant", [], "between", value_strings=[between]) if between else ""
    for mark in marks:
        if mark == between:
            continue
        pieces, _ = site.ops("StringSplit", [name], 2, "pieces", delimiter=mark)
        with inside(site) as nodes:
            place, goes_on, state = (
                name_inside(site, what) for what in ("place", "goes_on", "state")
            )
            piece = site.op("Gather", [pieces, place], "piece", axis=1)
            joined = site.op("StringConcat", [state, piece], "joined")
            if joint:
                joined = site.op("StringConcat", [joined, joint], "joined")
            still = site.op("Identity", [goes_on], "still")
        # No Scan: ONNX Runtime 1.32 appends there to the text of two steps before.
        body = Body(f"{site.label}.join", nodes,
                    [Declared(place, "int64", []), Declared(goes_on, "bool", []),
                     Declared(state, "string", [None])],
                    [Declared(still, "bool", []), Declared(joined, "string", [None])])  # fmt: skip
        sizes = site.op("Shape", [pieces], "sizes")
        times = site.op("Gather", [sizes, site.writer.place(1)], "times", axis=0)
        name = site.op("Loop", [times, "", empty], "without_mark", body=body)
    return name


def _texts(site: Site) -> list[str]:
    """Return the list of the config, or that of the file that a .keras has of the layer."""
    stated = site.option("vocabulary")
    if stated is None:
        text = site.asset("vocabulary.txt")
        if text is None:
            raise site.refused("vocabulary", why="the file does not have the layer's vocabulary")
        return text.split("\n")
    if not isinstance(stated, list) or not all(isinstance(token, str) for token in stated):
        raise site.refused("vocabulary", str(stated))
    return [str(token) for token in stated]


def _vocabulary(site: Site) -> list[float]:
    """Return the list of the config, or that of the file that a .keras has of the layer."""
    if site.option("vocabulary") is not None:
        return _numbers(site, "vocabulary")
    text = site.asset("vocabulary.txt")
    if text is None:
        raise site.refused("vocabulary", why="the file does not have the layer's vocabulary")
    try:
        return [int(line) for line in text.split("\n")]
    except ValueError:
        raise CorruptFile("not a list of whole numbers", where=site.label) from None

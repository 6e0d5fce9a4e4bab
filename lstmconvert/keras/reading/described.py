"""The layers that a config describes, with their options and without weights."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from lstmconvert.errors import UsageError
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.configs.era import Era
from lstmconvert.keras.configs.sketch import CellSketch, LayerSketch, plan
from lstmconvert.keras.configs.values import integer
from lstmconvert.keras.reading import read
from lstmconvert.keras.reading.read import parse_config
from lstmconvert.keras.stores.stored import CellArrays, Stored
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.naming import layer_names
from lstmconvert.tensors.dtypes import dtype_of
from lstmconvert.tensors.tensor import Shape
from lstmconvert.tensors.views import Zeros

_DTYPE = dtype_of("float32")


def layers(text: str, version: str | None, where: str) -> tuple[LSTMLayer, ...]:
    """Return the LSTM layers of a model's config. Their weights are zeros of one input.

    What is inside layers of a user's own class is not there.

    Args:
        text: the config, as JSON.
        version: of the Keras that wrote it, if it is known.
        where: the file, for errors.

    Raises:
        UsageError: there is no LSTM layer.
        CorruptFile: it is not a config.
    """
    config = parse_config(text, version, where)
    result = plan(config.root)
    sketches = [sketch for sketch in result.layers if sketch.has_lstm]
    if not sketches and not result.custom:
        layer_classes = [f"{name} ({kind})" for kind, name in result.classes[:10]]
        raise UsageError(
            "the config has no LSTM layer",
            where=where,
            found=f"layers {', '.join(layer_classes) or 'none'}",
            hint="--config takes the config of the model that the weights are of",
        )
    context = read.Context.of(config.root)
    names = layer_names(sketch.name for sketch in sketches)
    return tuple(
        read.build_layer(sketch, partial(_zeros, config.era, sketch), config.era, name, context)
        for sketch, name in zip(sketches, names, strict=True)
    )


def _zeros(era: Era, layer: LayerSketch, sketch: CellSketch) -> CellArrays:
    """Return arrays of a cell's shapes, at the paths of a v3 store; the first of a stack has one
    input."""
    if not sketch.is_lstm or sketch.node is None:
        return CellArrays({})
    config = era.modern(sketch.node.config)
    units = read.units_of(config, sketch.node.name) or 1
    inputs = 1
    for direction in layer.directions:
        for before, cell in pairwise(direction.cells):
            if cell is sketch and before.node is not None:
                inputs = read.units_of(era.modern(before.node.config), before.node.name) or 1
    window: Shape = ()
    if "filters" in config:
        window = _window(config.get("kernel_size"), sketch)
    shapes = {
        "kernel": (*window, inputs, 4 * units),
        "recurrent_kernel": (*window, units, 4 * units),
        "bias": (4 * units,),
    }
    if config.get("use_bias") is False:
        del shapes["bias"]
    return CellArrays(
        {
            role: Stored(f"{sketch.group}/vars/{index}", Zeros(shape, _DTYPE))
            for index, (role, shape) in enumerate(shapes.items())
        }
    )


def _window(value: Json, sketch: CellSketch) -> Shape:
    """Return the sizes of a convolution's window: one number counts for every axis."""
    axes = next((int(char) for char in sketch.class_name if char.isdigit()), 2)
    sizes = value if isinstance(value, list) else [value] * axes
    return tuple(integer(size, f"{sketch.class_name}.kernel_size") for size in sizes)

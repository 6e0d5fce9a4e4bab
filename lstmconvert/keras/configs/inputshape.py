"""The shape of a layer's input: as its model's config states it, and as its own config does.

Keras builds a layer from that shape, and some layers for one shape only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lstmconvert.errors import UnknownOption
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.configs.nodes import Node
from lstmconvert.model.layer import LSTMLayer, OpaqueCell

#: A size is None where any will do.
Shape = tuple[int | None, ...]
_INPUT = "InputLayer"
_KEYS = ("batch_shape", "batch_input_shape")


def fed(root: Node) -> dict[int, Shape]:
    """Return the shape that is fed to each layer behind an input, by the `id` of its JSON object.

    The batch and time axes come first; a size is None where any will do. Layers further on are
    missing: what reaches them depends on the layers between.
    """
    result: dict[int, Shape] = {}
    if root.is_model:
        _model(root, result)
    return result


def _model(model: Node, result: dict[int, Shape]) -> None:
    children = model.layers()
    shapes = {child.name: shape for child in children for shape in _input_shapes(child)}
    is_chain = not any("inbound_nodes" in child.whole for child in children)
    names: Sequence[str]
    for before, child in zip([None, *children], children, strict=False):
        if is_chain:
            names = [before.name] if before is not None and before.class_name == _INPUT else []
        else:
            names = child.sources
        if len(names) == 1 and names[0] in shapes:
            result[id(child.whole)] = shapes[names[0]]
        if child.is_model:
            _model(child, result)


def _input_shapes(child: Node) -> Iterator[Shape]:
    for key in _KEYS:
        shape: Json = child.config.get(key)
        listed = shape if child.class_name == _INPUT and isinstance(shape, list) else []
        if listed and all(x is None or (type(x) is int and 0 < x < 1 << 40) for x in listed):
            yield tuple(listed)


def input_shape(layer: LSTMLayer) -> Shape:
    """Return the input's shape with the batch and time axes, None where any size will do.

    The source's own shape is used where its config has one that fits the weights.

    Raises:
        UnknownOption: Keras builds such a layer for one shape, and no file says which: stateful for
            one batch size, unrolled for one number of steps, convolutional for one image size.
    """
    cell = next(cell for _, _, cell in layer.cells())
    first = layer.forward.cells[0]
    # A stack is fed to its first cell, which may be a GRU.
    width = input_width(first) if isinstance(first, OpaqueCell) else first.input_dim
    rank = len(cell.fused_shape("kernel")) - 2
    is_first = (cell.options.convolution or {}).get("data_format") == "channels_first"
    channels = 2 if is_first else 2 + rank
    fitting = (
        shape
        for shape in _own_shapes(layer)
        if len(shape) == 3 + rank and width in (None, shape[channels])
    )
    default: list[int | None] = [None] * (3 + rank)
    default[channels] = width
    shape = next(fitting, tuple(default))
    _check(layer, shape)
    return shape


def input_width(cell: OpaqueCell) -> int | None:
    """Return the input width of a cell that is not an LSTM: the rows of its kernel.

    A recurrent cell of Keras lists its kernel first (keras/src/layers/rnn/gru.py, `GRUCell.build`).
    """
    return cell.tensors[0].shape[0] if cell.tensors and cell.tensors[0].shape else None


def _own_shapes(layer: LSTMLayer) -> Iterator[Shape]:
    """Yield the shapes that a config states: of the build, the input tensor, the layer itself."""
    if layer.input_shape is not None:
        yield layer.input_shape
    whole = layer.config or {}
    for key in ("build_config", "config"):
        holder = whole.get(key)
        if not isinstance(holder, dict):
            continue
        deeper = holder.get("shapes_dict")
        for place in (holder, deeper if isinstance(deeper, dict) else {}):
            for name in ("input_shape", "sequences_shape", "batch_input_shape", "batch_shape"):
                yield from _shape(place.get(name))
    yield from _shape(_of_input_tensor(whole.get("inbound_nodes")))
    # Keras 2 writes this of a layer into a SavedModel: {"class_name": "TensorShape", "items": […]}.
    for name in ("build_input_shape", "batch_input_shape"):
        built = whole.get(name)
        yield from _shape(built.get("items") if isinstance(built, dict) else None)


def _of_input_tensor(value: Json) -> Json:
    """Return the shape of the first `__keras_tensor__` that a layer is called on."""
    for key in (0, "args", 0):
        if isinstance(value, list) and isinstance(key, int) and value:
            value = value[key]
        elif isinstance(value, dict) and isinstance(key, str):
            value = value.get(key)
        else:
            return None
    config = value.get("config") if isinstance(value, dict) else None
    return config.get("shape") if isinstance(config, dict) else None


def _shape(value: Json) -> Iterator[Shape]:
    if isinstance(value, list) and all(
        size is None or (type(size) is int and 0 < size < 1 << 40) for size in value
    ):
        yield tuple(value)


def _check(layer: LSTMLayer, shape: Shape) -> None:
    options = [direction.options for _, direction in layer.directions]
    missing = []
    if any(option.stateful is True for option in options) and shape[0] is None:
        missing.append("batch size (stateful=True)")
    if any(option.unroll is True for option in options) and shape[1] is None:
        missing.append("number of steps (unroll=True)")
    if None in shape[2:]:
        missing.append("image size (a convolution)")
    if missing:
        raise UnknownOption(
            f"Keras builds such a layer for one {' and '.join(missing)}, which no file says",
            where=layer.name,
            found=f"input shape {shape}",
            hint="convert from a .keras file, whose config says it",
        )

"""The input shapes that a model's config states for the layers that are fed by its inputs."""

from __future__ import annotations

from collections.abc import Iterator

from lstmconvert.jsontext import Json
from lstmconvert.keras.masks import sources
from lstmconvert.keras.nodes import Node

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
    children = list(model.layers())
    shapes = {child.name: shape for child in children for shape in _stated(child)}
    is_chain = not any("inbound_nodes" in child.whole for child in children)
    for before, child in zip([None, *children], children, strict=False):
        if is_chain:
            names = [before.name] if before is not None and before.class_name == _INPUT else []
        else:
            names = list(sources(child))
        if len(names) == 1 and names[0] in shapes:
            result[id(child.whole)] = shapes[names[0]]
        if child.is_model:
            _model(child, result)


def _stated(child: Node) -> Iterator[Shape]:
    for key in _KEYS:
        shape: Json = child.config.get(key)
        listed = shape if child.class_name == _INPUT and isinstance(shape, list) else []
        if listed and all(x is None or (type(x) is int and 0 < x < 1 << 40) for x in listed):
            yield tuple(listed)

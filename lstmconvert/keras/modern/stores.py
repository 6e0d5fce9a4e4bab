"""The arrays of a tree of parts, into either weight store of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lstmconvert.keras import layerstore
from lstmconvert.keras.modern.parts import Part, unsupported
from lstmconvert.keras.modern.sources import is_frozen
from lstmconvert.keras.nodes import snake_case
from lstmconvert.layer import LSTMLayer
from lstmconvert.tensors import Tensor

Fitted = Callable[[LSTMLayer], LSTMLayer]


def v3_store(root: Part, fitted: Fitted) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return full path -> tensor, and group -> `name` attribute, of a v3 store."""
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for group, part in _groups(root, ""):
        names[group] = part.name
        for index, tensor in enumerate(part.arrays):
            tensors[f"{group}/vars/{index}".strip("/")] = tensor
        if part.layer is not None:
            for place, name, cell in layerstore.v3_cells(fitted(part.layer), group):
                if name:
                    names[place] = name
                for index, tensor in enumerate(cell):
                    tensors[f"{place}/vars/{index}"] = tensor
    return tensors, names


def _groups(part: Part, group: str) -> Iterator[tuple[str, Part]]:
    yield group, part
    used: dict[str, int] = {}
    for attribute, child in part.children:
        path = f"{group}/{attribute}".strip("/")
        if attribute in ("layers", "cells"):
            kind = snake_case(child.class_name)
            used[kind] = used.get(kind, -1) + 1
            path = f"{path}/{kind}_{used[kind]}" if used[kind] else f"{path}/{kind}"
        yield from _groups(child, path)


def legacy_store(
    root: Part, fitted: Fitted
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Return full path below the weights' group -> tensor, and layer -> weight names."""
    tensors: dict[str, Tensor] = {}
    names: dict[str, tuple[str, ...]] = {}
    for _, top in root.children:
        if top.name in names:
            raise unsupported("an .h5 cannot hold two layers of one name", top.name, "name")
        listed: dict[str, Tensor] = {}
        for name, tensor in _in_order(top, fitted):
            own, count = name, 0
            while own in listed:
                count += 1
                own = f"{name}_{count}"
            listed[own] = tensor
        names[top.name] = tuple(listed)
        tensors.update({f"{top.name}/{name}": tensor for name, tensor in listed.items()})
    return tensors, names


def _in_order(top: Part, fitted: Fitted) -> Iterator[tuple[str, Tensor]]:
    """Yield a layer's weights in the order in which Keras 3 reads them (`sources.keras3_order`)."""
    trained: list[tuple[str, Tensor]] = []
    rest: list[tuple[str, Tensor]] = []
    whole = is_frozen(top)
    for scope, part in _scopes(top, ""):
        for weight, tensor in zip(part.weights, part.arrays, strict=True):
            is_first = whole or (weight.trainable and part.trainable)
            (trained if is_first else rest).append((f"{scope}/{weight.role}", tensor))
        if part.layer is not None:
            for name, tensor, is_trained in layerstore.legacy_weights(fitted(part.layer), scope):
                (trained if whole or is_trained else rest).append((name, tensor))
    yield from (*trained, *rest)


def _scopes(part: Part, outer: str) -> Iterator[tuple[str, Part]]:
    scope = f"{outer}/{part.name}".strip("/")
    yield scope, part
    for _, child in part.children:
        yield from _scopes(child, scope)

"""Whether a mask reaches each layer of a model, as far as its config tells.

A mask is made by `Masking` and by `Embedding(mask_zero=True)`, handed on by some layers and dropped
by others (`supports_masking` and `compute_mask` of each class in keras/src/layers). A class that is
in no table leaves it unknown behind it, where there was one before it.
"""

from __future__ import annotations

from lstmconvert.keras.configs.nodes import RECURRENT, Node, sources_of
from lstmconvert.model.options import UNKNOWN, Unknown

Mask = bool | Unknown

_PASS = frozenset(
    {
        *("InputLayer", "Masking", "Dropout", "SpatialDropout1D", "GaussianDropout"),
        *("GaussianNoise", "AlphaDropout", "ActivityRegularization", "Activation"),
        *("Dense", "BatchNormalization", "LayerNormalization", "TimeDistributed"),
        *("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "ThresholdedReLU"),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"),
    }
)
_DROP = frozenset(
    {
        *("Flatten", "Reshape", "Permute", "GlobalAveragePooling1D", "GlobalMaxPooling1D"),
        *("Conv1D", "Conv2D", "MaxPooling1D", "MaxPooling2D", "AveragePooling1D"),
        *("Convolution1D", "Convolution2D", "UpSampling1D", "RepeatVector"),
    }
)
_RUN = RECURRENT | {"GRU", "SimpleRNN", "RNN", "CuDNNGRU", "Bidirectional"}


def reaching(root: Node) -> dict[int, Mask]:
    """Return whether a mask reaches each serialized layer, by the `id` of its JSON object."""
    result: dict[int, Mask] = {}
    _through(root, False, result)
    return result


def _through(item: Node, mask: Mask, result: dict[int, Mask]) -> Mask:
    """Record the mask that reaches a layer and what is inside it; return the one behind it."""
    stated = _stated(item)
    if stated is True:  # Keras 3 writes the mask into the call itself
        mask = True
    key = id(item.whole)
    result[key] = mask if result.get(key, mask) == mask else UNKNOWN  # called twice
    if item.is_model and not item.custom:
        return _through_model(item, mask, result)
    inner = item.child("layer")
    if item.class_name == "TimeDistributed" and inner is not None:
        _through(inner, UNKNOWN if mask else mask, result)
    return _behind(item, mask)


def _behind(item: Node, mask: Mask) -> Mask:
    name, config = item.class_name, item.config
    if item.custom:
        return UNKNOWN
    if name == "Masking" or (name == "Embedding" and config.get("mask_zero") is True):
        return True
    if name in _RUN:
        inner = item.child("layer")
        runs = inner.config if inner is not None else config
        return mask if runs.get("return_sequences") is True else False
    if name in _PASS or mask is False:
        return mask
    return False if name in _DROP else UNKNOWN


def _through_model(model: Node, mask: Mask, result: dict[int, Mask]) -> Mask:
    layers = model.layers()
    if not any("inbound_nodes" in child.whole for child in layers):
        for child in layers:
            mask = _through(child, mask, result)
        return mask
    behind: dict[str, Mask] = {}
    children = {child.name: child for child in layers}
    fed_by = {name: child.sources for name, child in children.items()}
    users: dict[str, list[str]] = {}
    for name, of in fed_by.items():
        for source in set(of):
            users.setdefault(source, []).append(name)
    missing = {name: len(set(of)) for name, of in fed_by.items()}
    ready = [name for name, count in missing.items() if count == 0]
    for name in ready:  # grows meanwhile
        inputs = [behind[source] for source in fed_by[name]] or [mask]
        behind[name] = _through(children[name], _joined(inputs), result)
        for user in users.get(name, []):
            missing[user] -= 1
            if missing[user] == 0:
                ready.append(user)
    if len(ready) < len(children):  # wired in a way that is not read here
        result.update({id(x.whole): UNKNOWN for n, x in children.items() if n not in behind})
        return UNKNOWN
    ends = model.config.get("output_layers")
    names = [name for name in sources_of(ends) if name in behind]
    return _joined([behind[name] for name in names] or [UNKNOWN])


def _joined(masks: list[Mask]) -> Mask:
    return masks[0] if all(mask is masks[0] for mask in masks) else UNKNOWN


def _stated(child: Node) -> bool:
    calls = child.whole.get("inbound_nodes", [])
    return any(
        isinstance(call, dict)
        and isinstance(kwargs := call.get("kwargs"), dict)
        and isinstance(kwargs.get("mask"), dict)
        for call in (calls if isinstance(calls, list) else [])
    )

"""What Keras 2 wrote of a SavedModel's objects: each layer's class and config, the model's own.

The root's metadata holds the config of the whole model, in the spelling of Keras 2, with tuples and
shapes as objects of their own (tf_keras/src/saving/legacy/saved_model/json_utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lstmconvert.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.keras.nodes import Node, node
from lstmconvert.tensorflow.savedmodel import SavedModel

#: How json_utils.py and TensorFlow's own wrappers spell a sequence.
_SEQUENCES = frozenset({"__tuple__", "TensorShape", "TupleWrapper", "ListWrapper"})
_METRIC = "_tf_keras_metric"
_ROOT = ""


@dataclass(frozen=True, slots=True)
class Described:
    """What a SavedModel says of its objects.

    Fields: `nodes`: path -> the serialized layer there; `metrics`: the paths of metrics; `model`:
    the text of the whole model's config, if the root is a model of Keras's own; `version`: the
    Keras that wrote it; `training`: the text of what `compile` was given; `custom`: the root's
    class, if it is one of the user's own.
    """

    nodes: Mapping[str, Node] = field(default_factory=dict)
    metrics: frozenset[str] = frozenset()
    model: str | None = None
    version: str | None = None
    training: str | None = None
    custom: str | None = None


def read(saved: SavedModel) -> Described:
    """Read what Keras 2 wrote of a SavedModel; nothing, where another library wrote it.

    Raises:
        CorruptFile: a text is no JSON object.
    """
    nodes: dict[str, Node] = {}
    metrics: set[str] = set()
    root: JsonObject = {}
    for one in saved.keras:
        value = parse_object(one.metadata, f"{saved.path}: {one.path}") if one.metadata else {}
        path = one.path.partition(".")[2].replace(".", "/")
        if one.identifier == _METRIC:
            metrics.add(path)
        elif isinstance(value.get("class_name"), str) and isinstance(value.get("config"), dict):
            nodes[path] = node(value, one.path)
            root = value if path == _ROOT else root
    found = nodes.get(_ROOT)
    if found is None:
        return Described(nodes, frozenset(metrics))
    version, training = root.get("keras_version"), root.get("training_config")
    is_model = found.is_model and isinstance(found.config.get("layers"), list)
    config = {"class_name": root["class_name"], "config": unwrapped(root["config"])}
    return Described(
        nodes,
        frozenset(metrics),
        canonical(config) if is_model else None,
        version if isinstance(version, str) else None,
        canonical(training) if isinstance(training, dict) else None,
        None if is_model else found.class_name,
    )


def unwrapped(value: Json) -> Json:
    """Return a value with every sequence as a plain list."""
    if isinstance(value, dict):
        items = value.get("items")
        if value.get("class_name") in _SEQUENCES and isinstance(items, list):
            return [unwrapped(item) for item in items]
        return {key: unwrapped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrapped(item) for item in value]
    return value

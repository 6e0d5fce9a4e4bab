"""A model's config as a tree of layers: what every era's JSON says, in one shape.

A config is data. Class names are looked up in closed tables; a class that is not in one is opaque.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json, JsonObject

#: Classes of Keras's own that hold a list of layers.
MODELS = frozenset({"Sequential", "Functional", "Model"})
#: Classes that run an LSTM over time.
LSTM_CLASSES = frozenset({"LSTM"})
CONV_LSTM_CLASSES = frozenset({"ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})
CUDNN_CLASSES = frozenset({"CuDNNLSTM"})
RECURRENT = LSTM_CLASSES | CONV_LSTM_CLASSES | CUDNN_CLASSES
CELL_CLASSES = frozenset({"LSTMCell"})
#: An LSTM cell with peepholes, of whatever package: TensorFlow Addons' is registered as `Addons>…`,
#: that of tf.keras before 2.10 was its own. What a class of that name does is known if its arrays
#: are those of one.
PEEPHOLE_CELL = "PeepholeLSTMCell"

#: Keywords of a Sequential (keras/src/models/sequential.py, `get_config`).
_SEQUENTIAL_KEYS = frozenset({"name", "trainable", "dtype", "layers", "build_input_shape"})
_OPERATION_MODULES = ("keras.src.ops.", "keras.ops")


class _Fields(NamedTuple):
    class_name: str
    name: str
    config: JsonObject
    whole: JsonObject
    custom: bool
    own_class: str = ""


class Node(_Fields):
    """One serialized object of a config, which nobody changes.

    Fields: `class_name`; `name`, the layer's own; `config`, its keyword arguments; `whole`, the
    object verbatim; `custom`: a class that is registered and not Keras's own; `own_class`: the name
    of a user's own class whose config has the form of one of Keras's models, which the other fields
    then state.
    """

    @property
    def stored_class(self) -> str:
        """The class by which a v3 store names the object's group."""
        return self.own_class or self.class_name

    @property
    def is_model(self) -> bool:
        """Whether the object holds a list of layers."""
        return self.class_name in MODELS and not self.custom

    @property
    def is_operation(self) -> bool:
        """Whether it is a bare operation of a functional model, which is not a layer."""
        module = self.whole.get("module")
        return isinstance(module, str) and module.startswith(_OPERATION_MODULES)

    def child(self, key: str) -> Node | None:
        """Return the serialized object under a key of the config, if there is one."""
        value = self.config.get(key)
        return node(value, f"{self.name}.{key}") if isinstance(value, dict) else None

    def listed(self, key: str) -> list[Json]:
        """Return the list under a key of the config, empty if there is none.

        Raises:
            CorruptFile: it is not a list.
        """
        value = self.config.get(key, [])
        if not isinstance(value, list):
            raise CorruptFile(f"a config whose {key} are no list", where=self.name)
        return value

    def layers(self) -> tuple[Node, ...]:
        """Return the layers of a model, in order, without bare operations."""
        return self._layers

    @cached_property
    def _layers(self) -> tuple[Node, ...]:
        # Once: who sketches the layers, and who follows shapes and masks, walk through them.
        items = enumerate(self.listed("layers"))
        children = [node(item, f"{self.name}.layers[{index}]") for index, item in items]
        return tuple([child for child in children if not child.is_operation])

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The names of the layers whose outputs a layer is called on."""
        names: list[str] = []
        calls = self.whole.get("inbound_nodes", [])
        for call in calls if isinstance(calls, list) else []:
            # Keras 3 lists arguments, of which the first is the input; Keras 2 lists tensors.
            arguments = call.get("args") if isinstance(call, dict) else call
            if isinstance(call, dict):
                arguments = arguments[:1] if isinstance(arguments, list) else []
            names += sources_of(arguments)
        return tuple(names)


def sources_of(value: Json) -> list[str]:
    """Return the names of the layers that tensors of a config come from: one tensor, or a list."""
    if isinstance(value, dict):
        config = value.get("config")
        value = config.get("keras_history") if isinstance(config, dict) else None
        if isinstance(value, dict):
            return sources_of(value)
    if not isinstance(value, list):
        return []
    if value and isinstance(value[0], str):
        return [value[0]]
    return [name for item in value for name in sources_of(item)]


def node(value: Json, where: str) -> Node:
    """Read one serialized object: `{"class_name": …, "config": …}`.

    Raises:
        CorruptFile: it is not such an object.
    """
    if not isinstance(value, dict) or not isinstance(value.get("class_name"), str):
        raise CorruptFile("a config entry without a class_name", where=where)
    class_name, config = value["class_name"], value.get("config")
    if isinstance(config, list):  # a Sequential of Keras 0.x to 2.2: the bare list of its layers
        config = {"layers": config}
    if not isinstance(config, dict):
        config = {}
    name = config.get("name", value.get("name"))
    if class_name == "TensorFlowOpLayer":
        name = value.get("name", name)  # the config has that of the operator
    short, custom = _class_name(class_name, value)
    form = _form_of_model(config) if custom or short not in MODELS else None
    own_class = short if form else ""
    if form:
        short, custom = form, False
    return Node(short, name if isinstance(name, str) else "", config, value, custom, own_class)


def _form_of_model(config: JsonObject) -> str | None:
    """Return the class of models whose `get_config` gives a config of that form, if one does: a
    user's `class MyModel(keras.Model)` with a `train_step` has that of a functional model."""
    layers = config.get("layers")
    if not isinstance(layers, list) or not layers:
        return None
    if not all(isinstance(x, dict) and {"class_name", "config"} <= x.keys() for x in layers):
        return None
    if "input_layers" in config and "output_layers" in config:
        return "Functional"
    is_fed = layers[0]["class_name"] == "InputLayer" or "build_input_shape" in config
    return "Sequential" if is_fed and config.keys() <= _SEQUENTIAL_KEYS else None


def _class_name(class_name: str, value: JsonObject) -> tuple[str, bool]:
    # Keras 3 writes module and registered_name; Keras 2 writes `package>Class` for custom ones.
    registered = value.get("registered_name")
    module = value.get("module")
    short = class_name.rpartition(">")[2]
    if ">" in class_name and not class_name.startswith("Keras>"):
        return short, True
    if isinstance(module, str):
        return short, not (module == "keras" or module.startswith(("keras.", "tf_keras.")))
    # Keras's own classes have a module; a class of the user's that is not registered has none.
    has_none = "module" in value and module is None
    return short, isinstance(registered, str) and (has_none or ">" in registered)


#: What a config calls a class by its public name -> its own, by which stores name groups.
_OWN_NAMES = {"GroupQueryAttention": "GroupedQueryAttention"}


def own_name(class_name: str) -> str:
    """Return what a class is called in its own module."""
    return _OWN_NAMES.get(class_name, class_name)


@lru_cache(256)  # a model of thousands of layers has a few classes
def snake_case(class_name: str) -> str:
    """Return the group name that a v3 store gives to a class (keras/src/utils/naming.py)."""
    name = re.sub(r"\W+", "", own_name(class_name))
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def counted(class_name: str, used: dict[str, int]) -> str:
    """Return the group that a v3 store gives to the next object of a class, among its siblings:
    `lstm`, `lstm_1`, … (keras/src/saving/saving_lib.py, `_save_container_state`).

    Args:
        class_name: the class.
        used: group name -> how many it was given to before the last; changed.
    """
    name = snake_case(class_name)
    used[name] = used.get(name, -1) + 1
    return f"{name}_{used[name]}" if used[name] else name

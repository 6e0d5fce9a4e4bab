"""A model's config as a tree of layers: what every era's JSON says, in one shape.

A config is data. Class names are looked up in closed tables; a class that is not in one is opaque.

Two things are read from the tree for each layer. One is the shape of its input, as the model's
config states it, and as its own config does: Keras builds a layer from that shape, and some layers
for one shape only. The other is whether a mask reaches it, as far as the config tells. A mask is
made by `Masking` and by `Embedding(mask_zero=True)`, handed on by some layers and dropped by others
(`supports_masking` and `compute_mask` of each class in keras/src/layers). A class that is in no
table leaves it unknown behind it, where there was one before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from lstmconvert.errors import CorruptFile, UnknownOption
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.model.layer import LSTMLayer, OpaqueCell
from lstmconvert.model.options import UNKNOWN, Unknown

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


class ConfigNode(_Fields):
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
    def is_trainable(self) -> bool:
        """Whether training changes its weights, as Keras takes the keyword: 0 is no, too."""
        return bool(self.config.get("trainable", True))

    @property
    def is_model(self) -> bool:
        """Whether the object holds a list of layers."""
        return self.class_name in MODELS and not self.custom

    @property
    def is_operation(self) -> bool:
        """Whether it is a bare operation of a functional model, which is not a layer."""
        module = self.whole.get("module")
        return isinstance(module, str) and module.startswith(_OPERATION_MODULES)

    def child(self, key: str) -> ConfigNode | None:
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
            raise CorruptFile(f"a config whose {key} are not a list", where=self.name)
        return value

    def layers(self) -> tuple[ConfigNode, ...]:
        """Return the layers of a model, in order, without bare operations."""
        return self._layers

    @cached_property
    def _layers(self) -> tuple[ConfigNode, ...]:
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


def node(value: Json, where: str) -> ConfigNode:
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
    return ConfigNode(
        short, name if isinstance(name, str) else "", config, value, custom, own_class
    )


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


# -- the shape of a layer's input ----------------------------------------------------------------


#: A size is None where any will do.
Shape = tuple[int | None, ...]
_INPUT = "InputLayer"
_KEYS = ("batch_shape", "batch_input_shape")


def fed(root: ConfigNode) -> dict[int, Shape]:
    """Return the shape that is fed to each layer behind an input, by the `id` of its JSON object.

    The batch and time axes come first; a size is None where any will do. Layers further on are
    missing: what reaches them depends on the layers between.
    """
    result: dict[int, Shape] = {}
    if root.is_model:
        _model(root, result)
    return result


def _model(model: ConfigNode, result: dict[int, Shape]) -> None:
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


def _input_shapes(child: ConfigNode) -> Iterator[Shape]:
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


# -- masks ---------------------------------------------------------------------------------------


Mask = bool | Unknown

#: Layers that hand on what they are given when a model runs (keras/src/layers/regularization).
IDLE = frozenset(
    {
        *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"),
        *("Identity", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    }
)
#: Layers that make one value of several (keras/src/layers/merging).
MERGING = frozenset(
    {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot"}
)
#: Of those, the ones that hand on the masks of what they merge.
MASK_MERGING = MERGING - {"Dot"}
_PASS = frozenset(
    {
        *("InputLayer", "Masking", "Activation", "Dense", "BatchNormalization"),
        *("LayerNormalization", "TimeDistributed"),
        *("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "ThresholdedReLU"),
        *IDLE,
        *MASK_MERGING,
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


def reaching(root: ConfigNode) -> dict[int, Mask]:
    """Return whether a mask reaches each serialized layer, by the `id` of its JSON object."""
    result: dict[int, Mask] = {}
    _through(root, False, result)
    return result


def _through(item: ConfigNode, mask: Mask, result: dict[int, Mask]) -> Mask:
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


def _behind(item: ConfigNode, mask: Mask) -> Mask:
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


def _through_model(model: ConfigNode, mask: Mask, result: dict[int, Mask]) -> Mask:
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


def _stated(child: ConfigNode) -> bool:
    calls = child.whole.get("inbound_nodes")
    return isinstance(calls, list) and any(
        isinstance(call, dict)
        and isinstance(kwargs := call.get("kwargs"), dict)
        and isinstance(kwargs.get("mask"), dict)
        for call in calls
    )

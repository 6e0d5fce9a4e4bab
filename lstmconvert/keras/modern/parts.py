"""A model's config as a tree of parts, each with the weights that its class has.

A part is a layer, a sub-layer or a model. A recurrent layer that holds an LSTM is one part, whose
arrays the neutral model has; every other part's class is a row of the table.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.files.jsontext import Json, JsonObject, canonical
from lstmconvert.keras.configs import code, verbatim
from lstmconvert.keras.configs import era as eras
from lstmconvert.keras.configs.nodes import RECURRENT, ConfigNode, node, snake_case
from lstmconvert.keras.configs.sketch import STACKED, cell_groups, layer_groups, mirrored
from lstmconvert.keras.modern.classes import (
    CLASSES,
    COMMON_KEYWORDS,
    FUNCTIONS,
    IN_A_CELL,
    INPUT_KEYWORDS,
    LOOKUPS,
    PART_WEIGHTS,
    PLAIN,
    REFUSED,
    WRAPPERS,
    KerasClass,
    Weight,
)
from lstmconvert.keras.modern.replacing import Expression, Replacements
from lstmconvert.keras.writing import layerstore
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.naming import unique
from lstmconvert.tensors.tensor import Tensor

TARGET = "Keras 3"
#: What to do with classes of the user's own.
KEEP = (
    "--keep-custom writes it as it stands, and in a model of an older Keras --replace puts another "
    "in its place"
)
_INITIAL_STATE = '"initial_state"'
#: Keras 3 joins the masks of a Concatenate by an operation, which takes this name when the model is
#: loaded (keras/src/layers/merging/concatenate.py, `compute_mask`); two of one name it refuses.
_CONCATENATE = re.compile(r"concatenate(_\d+)?")


@dataclass(slots=True, eq=False)
class Part:
    """One layer, sub-layer or model.

    Fields: `node`: the source's own; `name`, `class_name`: in Keras 3; `config`: keywords under
    today's names, values as the source has them; `row`: of the table, None for models and LSTMs;
    `group`: in a v3 store of the source; `trainable`: its own flag; `children`: (attribute, part)
    in the order in which Keras tracks them; `layer`: the neutral layer, of a part that holds
    LSTMs; `weights`, the `arrays` that they are, and of each the full `paths` in the source
    that it is made of; `operation`: as Keras 3 serializes it, of a
    function between layers; `custom`: the registered name of a class of the user's own that is kept
    as it stands, and `places`: where in the part's group its arrays are; `is_listed`: whether these
    are in the order in which an `.h5` lists them; `replaced`: whether the user put it in another
    layer's place; `expression`: what it computes, if the user says so.
    """

    node: ConfigNode
    name: str
    class_name: str
    config: JsonObject
    row: KerasClass | None
    group: str
    trainable: bool
    children: list[tuple[str, Part]] = field(default_factory=list)
    layer: LSTMLayer | None = None
    weights: tuple[Weight, ...] = ()
    arrays: list[Tensor] = field(default_factory=list)
    paths: list[tuple[str, ...]] = field(default_factory=list)
    opaque: bool = False
    operation: JsonObject | None = None
    custom: str = ""
    places: list[str] = field(default_factory=list)
    is_listed: bool = True
    replaced: bool = False
    expression: Expression | None = None

    @property
    def is_function(self) -> bool:
        """Whether it represents a function between layers."""
        return self.node.class_name in FUNCTIONS

    @property
    def is_model(self) -> bool:
        """Whether it holds a list of layers."""
        return self.layer is None and not self.opaque and self.node.is_model

    def walk(self) -> Iterator[Part]:
        """Yield the part and everything below it."""
        yield self
        for _, child in self.children:
            yield from child.walk()


def unsupported(what: str, name: str, option: str, found: object = None) -> UnsupportedByTarget:
    """Return the error for a layer that cannot cross."""
    return UnsupportedByTarget(
        what,
        where=name,
        layer=name,
        option=option,
        target=TARGET,
        found=found,
        hint="keep the source's kind of file, or take the LSTM layers alone with --lstm-only",
    )


def no_row(name: str, class_name: str) -> UnsupportedByTarget:
    """Return the error for a layer whose class is not a row of the table."""
    why = REFUSED.get(class_name)
    what = f"the class {class_name} is not among those that cross{f': {why}' if why else ''}"
    error = unsupported(what, name, class_name)
    if why is None:
        error.hint = f"if it is your own, {KEEP}; {error.hint}"
    return error


def if_users_class(class_name: str) -> str:
    """Return what to do where a class that has the name of one of Keras's is the user's own."""
    says = f"--keep-custom --weights-of {class_name}=… says so"
    return f"if {class_name} is a class of your own, {says}"


class Leave(NamedTuple):
    """What a target takes that Keras 3 does not.

    Fields: `keywords`: class -> old keywords that stay in the part's config; `refusals`: where it
    is a list, a layer that cannot cross is put there, and an opaque part in its place;
    `any_keyword`: whether a keyword that Keras 3 does not have stays as it is; `anew`: whether a
    config of Keras 3 is spelled anew too, with no keyword but those of the table; `classes` that it
    takes, though they are not rows of the table; `keep_custom`: whether a class of the user's own
    is kept as it stands; `users_classes`: such that have the name of one of Keras's; `put`: what
    takes the place of a layer; `plain_lstm`: whether an LSTM is a layer like any other, whose
    arrays are not read.
    """

    keywords: Mapping[str, frozenset[str]] = {}
    classes: Mapping[str, KerasClass] = {}
    keep_custom: bool = False
    users_classes: Collection[str] = ()
    put: Replacements | None = None
    plain_lstm: bool = False
    refusals: list[UnsupportedByTarget] | None = None
    any_keyword: bool = False
    anew: bool = False


class Builder:
    """Builds the tree of one model.

    Args:
        layers: group in a v3 store, as `keras.configs.sketch` names it -> neutral layer.
        era: of the source's config.
        container: the v3 group that holds a model's layers.
        groups: the groups of the store, as far as they are known.
        leave: what the target takes in addition to what Keras 3 takes.

    Raises:
        UnsupportedByTarget: a class or keyword has no place in the target.
        CorruptFile: the config is damaged.
    """

    def __init__(
        self,
        layers: Mapping[str, LSTMLayer],
        era: str,
        container: str,
        groups: Collection[str],
        leave: Leave | None = None,
    ) -> None:
        self._layers, self._era = layers, era
        self._leave = leave or Leave()
        self._container, self._groups = container, groups
        self._ordering: str | None = None
        self._has_masks = False

    def model(self, root: ConfigNode) -> Part:
        """Return the tree of a whole model."""
        if self._era == "keras1":
            self._ordering = eras.ordering(root.whole)
        self._has_masks = self._era != "keras3" and makes_masks(root.whole)
        return self._build(root, "", root.name or "model")

    def _build(self, item: ConfigNode, group: str, name: str) -> Part:
        name = name.replace("/", "_")  # Keras 3 allows none in a name
        if self._leave.put is not None and (new := self._leave.put.of(item.name)) is not None:
            return self._replaced(item, group, name, new)
        if item.custom:
            if self._leave.keep_custom:
                return _kept(item, group, name)
            raise _of_the_user(name, item.class_name)
        _check_extras(item, name)
        if group in self._layers:
            return self._recurrent(item, group, name)
        if self._leave.keep_custom and item.class_name in self._leave.users_classes:
            return _kept(item, group, name)
        if item.class_name in PLAIN and self._leave.plain_lstm:
            return self._plain(item, PLAIN[item.class_name], group, name)
        if item.class_name in RECURRENT:
            raise unsupported("an LSTM whose weights another layer holds", name, item.class_name)
        if item.is_model:
            return self._model(item, group, name)
        if self._era == "keras1":
            item = node(eras.modern(item.whole, self._ordering), name)
            if item.is_model:  # of layers that compute what one of Keras 1 did
                return self._model(item, group, name)
        if item.class_name in FUNCTIONS:
            return Part(item, name, item.class_name, item.config, None, group, True)
        row = CLASSES.get(item.class_name)
        if row is None or (self._era != "keras3" and item.class_name in REFUSED):
            return self._unknown(item, group, name)
        return self._plain(item, row, group, name)

    def _plain(self, item: ConfigNode, row: KerasClass, group: str, name: str) -> Part:
        """Return a layer whose class is a row of the table."""
        is_kept = self._era == "keras3" and not self._leave.anew
        config = item.config if is_kept else self._modern(item, row, name)
        if self._has_masks and _CONCATENATE.fullmatch(name):
            name = name.replace("concatenate", "concatenate_layer")
        part = Part(
            item, name, row.today or item.class_name, config, row, group, item.is_trainable
        )
        self._add_parts(part, item)
        is_adapted = config.get("bin_boundaries") is None and self._era != "keras3"
        if item.class_name == "Discretization" and is_adapted:
            part.weights = (_SUMMARY,)
        return part

    def _unknown(self, item: ConfigNode, group: str, name: str) -> Part:
        if item.class_name in code.CLASSES:
            error = code.refused(name, code.CLASSES[item.class_name], "another Keras")
            if item.class_name == "Lambda" and self._era != "keras3":
                how = f"--replace {name}='…' says what it computes, as x[:, -1]"
                error.hint = f"{how}; {error.hint}"
            raise error
        row = self._leave.classes.get(item.class_name)
        if row is not None:
            config = item.config if self._era == "keras3" else _renamed(item, row)
            part = Part(item, name, item.class_name, config, row, group, item.is_trainable)
            self._add_parts(part, item)
            return part
        # A bare operation of Keras 3 in an .h5 has no class that names its package either.
        is_layer = self._era != "keras3" or "trainable" in item.config
        if self._leave.keep_custom and item.class_name not in REFUSED and is_layer:
            return _kept(item, group, name)
        if self._era != "keras3":
            raise no_row(name, item.class_name)
        return Part(item, name, item.class_name, item.config, None, group, True, opaque=True)

    def _replaced(
        self, item: ConfigNode, group: str, name: str, new: Expression | JsonObject
    ) -> Part:
        """Return what the user puts in a layer's place."""
        if isinstance(new, Expression):
            if item.class_name != "Lambda":
                raise _in_the_place("an expression is for a Lambda", name, item.class_name)
            if item.config.get("mask") is not None:
                what = "a Lambda that makes a mask by code of its own"
                raise _in_the_place(what, name, item.class_name)
            kept = {key: item.config[key] for key in _OF_INPUT & item.config.keys()}
            made = node({"class_name": _FUNCTION, "config": {**kept, "name": item.name}}, name)
            return Part(made, name, _FUNCTION, made.config, None, group, True, expression=new)
        if item.is_model or group in self._layers:
            raise _in_the_place("a config is for a layer of no LSTM", name, item.class_name)
        config: JsonObject = {**new["config"], "name": item.name}
        for key in INPUT_KEYWORDS & item.config.keys():
            config[key] = item.config[key]
        put = node({**new, "config": config}, name)
        if put.custom or put.is_model or put.class_name in FUNCTIONS:
            raise _in_the_place("the config is not that of a layer of Keras", name, put.class_name)
        builder = Builder({}, "keras3", self._container, (), Leave(anew=True, plain_lstm=True))
        part = builder.build(put, group, name)
        for below in part.walk():
            if below.opaque:
                raise no_row(name, below.class_name)
            below.replaced = True
        return part

    def build(self, item: ConfigNode, group: str, name: str) -> Part:
        """Return one layer, with what is inside it."""
        return self._build(item, group, name)

    def _recurrent(self, item: ConfigNode, group: str, name: str) -> Part:
        layer = self._layers[group]
        has_states = any(d.options.return_state is True for _, d in layer.directions)
        if verbatim.is_nested(layer) and (has_states or _INITIAL_STATE in canonical(item.whole)):
            # As one stack it has the same states, in a list that is not nested.
            raise unsupported("the states of a stack of cells in a stack", name, "return_state")
        class_name = layerstore.class_name(layer)
        return Part(
            item, name, class_name, item.config, None, group, item.is_trainable, layer=layer
        )

    def _model(self, item: ConfigNode, group: str, name: str) -> Part:
        class_name = "Functional" if item.class_name == "Model" else item.class_name
        part = Part(item, name, class_name, item.config, None, group, item.is_trainable)
        below = list(layer_groups(item, group, self._container, self._groups))
        named = _names([child.name or snake_case(child.class_name) for child, _ in below])
        for (child, where), own_name in zip(below, named, strict=True):
            part.children.append(("layers", self._layer(child, where, own_name)))
        return part

    def _layer(self, item: ConfigNode, group: str, name: str) -> Part:
        refusals = self._leave.refusals
        if refusals is None:
            return self._build(item, group, name)
        try:
            return self._build(item, group, name)
        except UnsupportedByTarget as error:
            error.option = error.option or item.class_name
            refusals.append(error)
            return Part(item, name, item.class_name, item.config, None, group, True, opaque=True)

    def _modern(self, item: ConfigNode, row: KerasClass, name: str) -> JsonObject:
        if self._leave.any_keyword:
            return _renamed(item, row)
        kept = self._leave.keywords.get(item.class_name, frozenset())
        return _modern(item, row, name, self._era, kept)

    def _add_parts(self, part: Part, item: ConfigNode) -> None:
        name = item.class_name
        if name == "TimeDistributed":
            self._add(part, "layer", item.child("layer"))
        elif name == "Bidirectional":
            forward = item.child("layer")
            self._add(part, "forward_layer", forward)
            backward = item.child("backward_layer") or (mirrored(forward) if forward else None)
            self._add(part, "backward_layer", backward)
        elif name == "RNN":
            self._add(part, "cell", item.child("cell"))
        elif name == STACKED:
            self._add_cells(part, item)
        elif name in IN_A_CELL:
            self._add_cell(part, name)
        else:
            part.weights = _existing(part, part.row.weights if part.row else ())
            for attribute in part.row.parts if part.row else ():
                self._add_dense(part, attribute)
                if attribute == "key_dense" and part.config.get("use_gate"):
                    self._add_dense(part, "gate_dense")
            if name in WRAPPERS:
                self._add(part, "layer", item.child("layer"))
                if part.group in self._groups:
                    part.weights = (Weight("kernel", trainable=False), *part.weights)

    def _add(self, part: Part, attribute: str, item: ConfigNode | None) -> None:
        if item is None:
            raise unsupported("a wrapper around nothing", part.name, part.class_name)
        own_name = item.name or snake_case(item.class_name)
        part.children.append((attribute, self._build(item, _join(part.group, attribute), own_name)))

    def _add_cells(self, part: Part, item: ConfigNode) -> None:
        for cell, leaf in cell_groups(item):
            group = _join(part.group, f"cells/{leaf}")
            part.children.append(("cells", self._build(cell, group, cell.name or leaf)))

    def _add_cell(self, part: Part, name: str) -> None:
        cell_name, row = snake_case(IN_A_CELL[name]), part.row or KerasClass()
        group = part.group if name.startswith("CuDNN") else _join(part.group, "cell")
        cell = Part(
            part.node, cell_name, IN_A_CELL[name], part.config, None, group, part.trainable
        )
        cell.weights = _existing(part, row.weights)
        part.children.append(("cell", cell))

    def _add_dense(self, part: Part, attribute: str) -> None:
        # tf_keras keeps them under private names (keras/layers/attention/multi_head_attention.py).
        private = _join(part.group, f"_{attribute}")
        group = private if private in self._groups else _join(part.group, attribute)
        dense = Part(part.node, attribute, "EinsumDense", part.config, None, group, True)
        dense.weights = _existing(part, PART_WEIGHTS)
        part.children.append((attribute, dense))


#: What a Discretization of Keras 2 was adapted to.
_SUMMARY = Weight("summary", trainable=False)
#: The class of a function between layers in which an expression is written.
_FUNCTION = "TFOpLambda"
#: Keywords of a layer that say what the model is fed with, where it is the first one.
_OF_INPUT = INPUT_KEYWORDS | {"dtype"}


def _kept(item: ConfigNode, group: str, name: str) -> Part:
    """Return a layer of a class of the user's own, as it stands."""
    registered = item.whole.get("registered_name")
    custom = registered if isinstance(registered, str) else str(item.whole["class_name"])
    trainable = item.is_trainable
    return Part(item, name, item.class_name, item.config, None, group, trainable, custom=custom)


def _of_the_user(name: str, class_name: str) -> UnsupportedByTarget:
    error = unsupported("a class of the user's own cannot cross", name, class_name)
    error.hint = f"{KEEP}; {error.hint}"
    return error


def _in_the_place(what: str, name: str, class_name: str) -> UnsupportedByTarget:
    error = unsupported(f"--replace: {what}", name, class_name)
    error.hint = None
    return error


def _check_extras(item: ConfigNode, name: str) -> None:
    """Refuse weights that a layer of Keras 3 has beside those of its class, which each kind of file
    keeps in another way (keras/src/layers/core/dense.py, `save_own_variables`)."""
    rank = item.config.get("lora_rank")
    if rank is not None:
        what = "LoRA weights (enable_lora) are stored differently in each kind of file"
        raise unsupported(what, name, "lora_rank", rank)
    policy = item.config.get("dtype")
    config = policy.get("config") if isinstance(policy, dict) else None
    policy_name = config.get("name") if isinstance(config, dict) else policy
    is_quantized = isinstance(policy, dict) and "Quantized" in str(policy.get("class_name"))
    if is_quantized or item.config.get("quantization_config") is not None:
        what = "the weights of a quantized layer are stored differently in each kind of file"
        raise unsupported(what, name, "dtype", policy_name)


def _names(stated: Sequence[str]) -> list[str]:
    """Return the names of a model's layers in Keras 3, which has no / in them: none of those that
    change becomes that of another layer."""
    kept = [name for name in stated if "/" not in name]
    changed = [name.replace("/", "_") for name in stated if "/" in name]
    free = iter(unique([*kept, *changed])[len(kept) :])
    return [next(free) if "/" in name else name for name in stated]


def makes_masks(value: Json) -> bool:
    """Whether something in a config makes a mask."""
    if isinstance(value, dict):
        if value.get("class_name") == "Masking" or value.get("mask_zero") is True:
            return True
        return any(map(makes_masks, value.values()))
    return isinstance(value, list) and any(map(makes_masks, value))


def _existing(part: Part, weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    return tuple(weight for weight in weights if weight.exists(part.config))


def _modern(
    item: ConfigNode, row: KerasClass, name: str, era: str, kept: Collection[str]
) -> JsonObject:
    """Return the keywords of a layer under today's names, without those that say nothing.

    Args:
        item, row, name, era: the layer, its row and name, and the source's era.
        kept: keywords that the target takes, though Keras 3 does not.

    Raises:
        UnsupportedByTarget: a keyword has no place in Keras 3.
    """
    result: JsonObject = {}
    for key, value in item.config.items():
        if key in kept:
            result[key] = value
            continue
        if key in INPUT_KEYWORDS or key in row.dropped:
            continue
        if key in row.neutral:
            if value not in row.neutral[key]:
                raise unsupported(f"Keras 3 has no {key} here", name, key, value)
            continue
        today = row.renamed.get(key, key)
        if today not in row.keywords and today not in COMMON_KEYWORDS:
            if value is None:
                continue
            error = unsupported(f"Keras 3 has no {key} here", name, key, value)
            error.hint = f"{if_users_class(item.class_name)}; {error.hint}"
            raise error
        if today in row.choices and value not in row.choices[today]:
            raise unsupported(f"Keras 3 has no such {key} here", name, key, value)
        result[today] = _number(value)
    _fix(item.class_name, result, name, era)
    return {**row.stated, **result}


def _renamed(item: ConfigNode, row: KerasClass) -> JsonObject:
    """Return all keywords of a layer, under today's names where those changed."""
    result = {key: _number(value) for key, value in row.renamed_in(item.config).items()}
    _fix_cell(item.class_name, result)
    return result


def _number(value: Json) -> Json:
    # Keras 2.2 writes a constant given as a NumPy number as {"type": "ndarray", "value": 0.3}.
    if isinstance(value, dict) and value.get("type") == "ndarray" and "value" in value:
        return value["value"]
    return value


def _fix(class_name: str, config: JsonObject, name: str, era: str) -> None:
    if class_name == "BatchNormalization" and isinstance(config.get("axis"), (list, dict)):
        config["axis"] = _one_axis(config["axis"], name)
    _fix_cell(class_name, config)
    if class_name == "Bidirectional":
        config.setdefault("merge_mode", "concat")
    if class_name in ("GRU", "GRUCell") and era == "keras1":
        config.setdefault("use_bias", True)
    if class_name in LOOKUPS and config.get("max_tokens") is None:
        config.pop("pad_to_max_tokens", None)  # TensorFlow before 2.6 states it where none is told
    if class_name == "IntegerLookup" and isinstance(config.get("oov_token"), str):
        text = config["oov_token"]
        if not text.removeprefix("-").isdecimal():
            raise unsupported("a token that is not a whole number", name, "oov_token", text)
        config["oov_token"] = int(text)
    if class_name in LOOKUPS and isinstance(config.get("vocabulary"), str):
        raise code.refused(name, code.KEYWORDS["vocabulary"], "another Keras")


def _fix_cell(class_name: str, config: JsonObject) -> None:
    if class_name in ("GRU", "GRUCell"):
        config.setdefault("reset_after", False)  # what it was before there was a choice
    if class_name == "CuDNNGRU":
        config.update({"reset_after": True, "recurrent_activation": "sigmoid"})


def _one_axis(value: Json, name: str) -> int:
    if isinstance(value, dict):  # {"class_name": "ListWrapper", "config"…}, or {"0": 3}
        value = value.get("config", list(value.values()))
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int):
        raise unsupported("Keras 3 normalizes over one axis", name, "axis", value)
    return value


def _join(group: str, part: str) -> str:
    return f"{group}/{part}".strip("/")

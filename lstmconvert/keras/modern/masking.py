"""Masks of a whole model on its way to Keras 3, written into the calls where they must be.

A mask tells a layer which steps to skip. Embedding and Masking make one; what hands it on, and to
whom, differs from Keras to Keras:

                                      Keras 1, 2     3.3      3.8 to 3.15   3.16
    Add, Concatenate and their like   and            none     or            or
    Multiply, Maximum, Minimum        values stay    stay     values of masked steps change
    LSTM and other recurrent layers   hand it on     do       do            do not
    a layer called on initial states  gets it        does not
    Rescaling, Normalization          stop it        hand it on
    TimeDistributed(Embedding)        makes one      does not

(tf_keras/src/layers/merging/base_merge.py; keras/src/layers/merging/base_merge.py, rnn/rnn.py and
layer.py, step 6 of `__call__`; each tried on the versions named.) An explicit `mask=` in a call
means the same in all of them. So the mask that the Keras of the source gives a layer is computed by
Keras's own operations, and given to the layer's call: by the config of a functional model, which a
Sequential becomes where it has to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.keras.configs import spelling
from lstmconvert.keras.configs.nodes import IDLE, MASK_MERGING, node
from lstmconvert.keras.modern import graph
from lstmconvert.keras.modern.classes import RECURRENT
from lstmconvert.keras.modern.emission import innermost, input_name, input_shape_of, written_input
from lstmconvert.keras.modern.graph import CallGraph, LayerCall, Ref, refs
from lstmconvert.keras.modern.operations import BARE, serialized_operation
from lstmconvert.keras.modern.parts import Part, unsupported

#: A mask as an expression: `("ids", scope, ref)`: the ids are not 0; `("steps", scope, ref,
#: value)`: any feature is not the value; `("tensor", scope, ref)`: a tensor of the model;
#: `("and", masks)`, `("or", masks)`; `ALL`: no step is masked; any other: one that no operation
#: here computes. None: no mask.
Mask = tuple[object, ...]
Given = tuple[Mask | None, ...]
ALL: Mask = ("all",)

_JOINS = {"and": "LogicalAnd", "or": "LogicalOr"}

#: Layers whose call has an argument `mask`: what they are given changes what they compute, except
#: for BatchNormalization, and what a model or a wrapper gives to the layers inside.
_TAKING = RECURRENT | {
    *("TimeDistributed", "BatchNormalization", "Softmax", "GlobalAveragePooling1D"),
    *("Attention", "AdditiveAttention", "MultiHeadAttention"),
}
#: Those that take one mask for each input.
_SEVERAL = frozenset({"Attention", "AdditiveAttention", "MultiHeadAttention"})
#: Merging layers that Keras 3 computes otherwise at masked steps.
_VALUED = frozenset({"Multiply", "Maximum", "Minimum"})
#: Layers that hand on the mask of their first input (`supports_masking` in keras/src/layers).
PASSING = frozenset(
    {
        *("Dense", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"),
        *IDLE,
        *("BatchNormalization", "LayerNormalization", "UnitNormalization"),
        *("GroupNormalization", "TimeDistributed", "Rescaling", "Normalization"),
        *_SEVERAL,
    }
)


class Rules(NamedTuple):
    """How one Keras hands masks on.

    Fields: `title`; `joins`: what merging layers make of several masks, `and`, `or` or nothing;
    `stopping`: layers that stop a mask, and hand it on elsewhere; `runs_on`: whether recurrent
    layers hand it on; `each`: whether TimeDistributed hands on the mask of an Embedding in it;
    `with_states`: whether a layer that is called on initial states gets it.
    """

    title: str
    joins: str
    stopping: frozenset[str] = frozenset()
    runs_on: bool = True
    each: bool = False
    with_states: bool = False


OLD = Rules(
    "Keras 2", "and", frozenset({"Rescaling", "Normalization"}), each=True, with_states=True
)
TODAY = Rules("Keras 3.8 to 3.15", "or")
#: Other Kerases that may open what is written.
OTHERS = (Rules("Keras 3.3", ""), Rules("Keras 3.16", "or", runs_on=False))

#: A call of a layer: the model that it is in, the layer's name, the number of the call.
Place = tuple[Part, str, int]


def chain(model: Part) -> CallGraph:
    """Return the calls of a Sequential's layers: each on the output of the one before."""
    names = [child.name for _, child in model.children]
    has_input = model.children[0][1].class_name == "InputLayer"
    start = names[0] if has_input else input_name(model)
    calls: dict[str, tuple[LayerCall, ...]] = {start: ()}
    before = Ref(start, 0, 0)
    for name in names[1:] if has_input else names:
        calls[name] = (LayerCall((before,), {}),)
        before = Ref(name, 0, 0)
    return CallGraph(calls, [Ref(start, 0, 0)], [before])


# -- what each Keras hands to each layer ------------------------------------------------------


@dataclass(slots=True, eq=False)
class MaskFlow:
    """Follows the masks through a model by the rules of one Keras.

    Fields: `graphs` of the models; `rules`; `known`: what the masks that are written are, by model
    and tensor; `scopes`: the names of the models around each, and its own; `given`: what each layer
    that takes masks is given, once for each time that the model around it is called; `merged`: the
    masks of what is merged by value.
    """

    graphs: Mapping[Part, CallGraph]
    rules: Rules
    known: Mapping[tuple[Part, Ref], Mask] = field(default_factory=dict)
    scopes: dict[Part, tuple[str, ...]] = field(default_factory=dict)
    given: dict[Place, list[Given]] = field(default_factory=dict)
    merged: dict[Place, list[Given]] = field(default_factory=dict)

    def model(self, model: Part, scope: tuple[str, ...], given: Sequence[Mask | None]) -> Given:
        """Follow the masks of one call of a model.

        Args:
            model: the model.
            scope: the names of the models around it, and its own.
            given: the masks of its inputs.

        Returns:
            The masks of its outputs.
        """
        if not model.children:
            return (None,)
        self.scopes[model] = scope
        calls = self.graphs.get(model) or chain(model)
        parts = {child.name: child for _, child in model.children}
        inputs = list(refs(calls.inputs))
        behind: dict[tuple[str, int], Given] = {
            (ref.layer, ref.call): (given[index] if index < len(given) else None,)
            for index, ref in enumerate(inputs)
        }
        for name, index in graph.walked(calls):
            if (name, index) in behind:
                continue
            part, call = parts.get(name), calls.calls[name][index]
            masks = tuple(_at(behind, ref) for ref in call.inputs)
            behind[name, index] = (
                (None,)
                if part is None or part.is_function
                else self._call(part, call, masks, (model, name, index), scope)
            )
        return tuple(_at(behind, ref) for ref in refs(calls.outputs))

    def _call(
        self, part: Part, call: LayerCall, masks: Given, place: Place, scope: tuple[str, ...]
    ) -> Given:
        explicit = self._explicit(call, place[0], scope)
        first = explicit or (masks[0] if masks else None)
        if takes_mask(part):
            has_states = any(True for _ in refs(call.keywords.get("initial_state")))
            is_given = explicit is not None or self.rules.with_states or not has_states
            single = (first if is_given else None,)
            is_given_all = part.class_name in _SEVERAL and not part.custom
            taken = masks if is_given_all or len(masks) > 1 else single
            self.given.setdefault(place, []).append(taken)
        if part.is_model:
            inner = (first, *masks[1:]) if explicit is not None else masks
            return self.model(part, (*scope, part.name), inner)
        return self._behind(part, call, first, masks, place, scope)

    def _explicit(self, call: LayerCall, model: Part, scope: tuple[str, ...]) -> Mask | None:
        ref = call.keywords.get("mask")
        if not isinstance(ref, Ref):
            return None
        return self.known.get((model, ref), ("tensor", scope, ref))

    def _behind(
        self,
        part: Part,
        call: LayerCall,
        first: Mask | None,
        masks: Given,
        place: Place,
        scope: tuple[str, ...],
    ) -> Given:
        name, config = part.class_name, part.config
        if part.custom:  # it may have the name of one of Keras's classes
            return (None if first is None else ("behind", name, first),)
        source = call.inputs[0] if call.inputs else None
        if name == "Embedding":
            return (("ids", scope, source),) if config.get("mask_zero") is True else (None,)
        if name == "Masking":
            return (("steps", scope, source, config.get("mask_value", 0.0)),)
        if is_recurrent(part):
            mask = first if self.rules.runs_on and _gives_sequences(part) else None
            return (mask, mask) if _is_split(part) else (mask,)
        if name in MASK_MERGING:
            if name in _VALUED and any(mask is not None for mask in masks):
                self.merged.setdefault(place, []).append(masks)
            return (self._merged(part, masks),)
        if name == "TimeDistributed" and self.rules.each:
            inner = part.children[0][1]
            if inner.class_name == "Embedding" and inner.config.get("mask_zero") is True:
                return (("each", scope, source),)
        if part.opaque and first is not None:
            return (("behind", name, first),)
        return (first if name in PASSING and name not in self.rules.stopping else None,)

    def _merged(self, part: Part, masks: Given) -> Mask | None:
        present = [mask for mask in masks if mask is not None]
        if not self.rules.joins or not present:
            return None
        if part.class_name == "Concatenate" and part.config.get("axis", -1) not in (-1, 2):
            return ("joined", self.rules.joins, masks)
        if self.rules.joins == "and":
            return _joined("and", [mask for mask in present if mask != ALL]) or ALL
        if len(present) < len(masks) or ALL in present:
            return None
        return _joined("or", present)


def _at(behind: Mapping[tuple[str, int], Given], ref: Ref) -> Mask | None:
    masks = behind.get((ref.layer, ref.call), ())
    return masks[ref.output] if ref.output < len(masks) else None


def _joined(word: str, masks: Sequence[Mask]) -> Mask | None:
    """Return the and, or the or, of masks: of one, or of the same twice, that one."""
    flat: dict[object, None] = {}
    for mask in masks:
        inner = mask[1] if mask[0] == word else (mask,)
        flat.update(dict.fromkeys(inner if isinstance(inner, tuple) else (inner,)))
    if len(flat) == 1:
        only = next(iter(flat))
        return only if isinstance(only, tuple) else None
    return (word, tuple(sorted(flat, key=repr))) if flat else None


def takes_mask(part: Part) -> bool:
    """Whether the call of a layer has an argument `mask`."""
    # Of a class of the user's own only its code tells; it may.
    return is_recurrent(part) or part.is_model or part.class_name in _TAKING or bool(part.custom)


def is_recurrent(part: Part) -> bool:
    """Whether a layer runs over time."""
    return part.layer is not None or (part.class_name in RECURRENT and not part.custom)


def _gives_sequences(part: Part) -> bool:
    if part.layer is not None:
        return part.layer.forward.options.return_sequences is True
    inner = part.children[0][1] if part.class_name == "Bidirectional" else part
    return inner.config.get("return_sequences") is True


def zeroes(part: Part) -> bool:
    """Whether a layer has zeros at masked steps in Keras 3, and the output before in Keras 2: a
    Bidirectional of ConvLSTMs (tf_keras/src/layers/rnn/base_conv_rnn.py, `call`)."""
    layer = part.layer
    is_window = layer is not None and layer.forward.is_convolutional
    return is_window and part.class_name == "Bidirectional" and _gives_sequences(part)


def _is_split(part: Part) -> bool:
    """Whether a Bidirectional returns the outputs of its two halves separately."""
    if part.layer is not None:
        return part.layer.backward is not None and part.layer.options.merge_mode is None
    return part.class_name == "Bidirectional" and part.config.get("merge_mode", "concat") is None


def _computes_by_mask(part: Part) -> bool:
    """Whether a mask changes what a layer computes once it is trained. Of a model, the layers in it
    are looked at."""
    if part.class_name == "TimeDistributed":
        inner = part.children[0][1]
        return inner.is_model or _computes_by_mask(inner)
    return takes_mask(part) and not part.is_model and part.class_name != "BatchNormalization"


# -- masks written into the calls -------------------------------------------------------------


def makes_masks(root: Part) -> bool:
    """Whether any layer of a model makes a mask, or is given one."""
    return any(
        part.class_name == "Masking" or part.config.get("mask_zero") is True
        for part in root.walk()
    )


@dataclass(slots=True, eq=False)
class MaskWriter:
    """Writes the masks of a model into its calls.

    Fields: `root`, whose Sequentials may become functional; `graphs`, changed; `source`: the rules
    of the Keras whose numbers are kept; `known`: what each mask that is written is.
    """

    root: Part
    graphs: dict[Part, CallGraph]
    source: Rules
    known: dict[tuple[Part, Ref], Mask] = field(default_factory=dict)

    def write(self) -> None:
        """Give each layer that takes a mask the one that it had."""
        self._open_sequentials()
        self.write_calls()

    def write_calls(self) -> None:
        """`write`, but leave the Sequentials as they are."""
        old = self._flow(self.source)
        new = [self._flow(rules) for rules in (TODAY, *OTHERS)]
        for model, calls in list(self.graphs.items()):
            writer = _CallWriter(model, calls, self.known)
            for name, listed in calls.calls.items():
                for index in range(len(listed)):
                    place = (model, name, index)
                    if self.source is not TODAY and any(place in flow.merged for flow in new):
                        writer.unmask(name, index)
                    elif place in old.given:
                        writer.call(place, old, new)
            self.graphs[model] = writer.graph()

    def left(self) -> tuple[list[tuple[Part, str]], list[tuple[Part, str]]]:
        """Return the layers whose numbers differ still, each with the Keras in which they do: in
        those of today, and in others."""
        old = self._flow(self.source)
        today = [(part, TODAY.title) for part in self._unlike(old, TODAY)]
        others = [(part, rules.title) for rules in OTHERS for part in self._unlike(old, rules)]
        return today, others

    def repeating(self) -> Iterator[Part]:
        """Yield the layers of Keras 2 that are given a mask and have zeros in Keras 3."""
        old = self._flow(self.source)
        for place in old.given:
            part = _child(place[0], place[1])
            is_masked = any(mask is not None for given in _plain(old, place) for mask in given)
            if is_masked and zeroes(part):
                yield part

    def _flow(self, rules: Rules) -> MaskFlow:
        flow = MaskFlow(self.graphs, rules, self.known)
        flow.model(self.root, (self.root.name,), ())
        return flow

    def _unlike(self, old: MaskFlow, rules: Rules) -> Iterator[Part]:
        new = self._flow(rules)
        seen: dict[Part, None] = {}
        for model, name, index in {**old.given, **new.given}:
            part, place = _child(model, name), (model, name, index)
            if _computes_by_mask(part) and _plain(old, place) != _plain(new, place):
                seen[part] = None
        for model, name, _ in new.merged if rules.joins else ():
            seen[_child(model, name)] = None
        yield from seen

    def _open_sequentials(self) -> None:
        """Make functional models of the Sequentials in which a mask has to be written."""
        old = self._flow(self.source)
        unlike: set[Part] = set()
        for new in [self._flow(rules) for rules in (TODAY, *OTHERS)]:
            for place in {**old.given, **new.given}:
                part = _child(place[0], place[1])
                matters = part.is_model or (_computes_by_mask(part) and not part.custom)
                if matters and _plain(old, place) != _plain(new, place):
                    unlike.add(place[0])
            unlike.update(model for model, _, _ in new.merged)
        for part in list(self.root.walk()):
            if part in unlike and part.class_name == "Sequential":
                open_sequential(part, self.graphs)


def _child(model: Part, name: str) -> Part:
    return next(child for _, child in model.children if child.name == name)


def make_functional(model: Part) -> None:
    """Make a Sequential the functional model of the same calls, as Keras 2 writes them, since an
    operation can be in no other.

    Raises:
        UnsupportedByTarget: the config does not say the shape of the input.
    """
    if not _give_input(model):
        raise unsupported(
            "the config does not say the shape of the input", model.name, "input_shape"
        )
    names = [child.node.name or child.name for _, child in model.children]
    layers: list[Json] = [{"class_name": "InputLayer", "config": {"name": names[0]}}]
    for (_, child), before in zip(model.children[1:], names, strict=False):
        entry: JsonObject = {"class_name": child.node.class_name, "config": {}}
        name = child.node.name or child.name
        layers.append({**entry, "name": name, "inbound_nodes": [[[before, 0, 0, {}]]]})
    config: JsonObject = {
        **model.config,
        "layers": layers,
        "input_layers": [[names[0], 0, 0]],
        "output_layers": [[names[-1], 0, 0]],
    }
    whole: JsonObject = {"class_name": "Functional", "config": config}
    model.node, model.config = node({**model.node.whole, **whole}, model.name), config
    model.class_name = "Functional"


def open_sequential(model: Part, graphs: dict[Part, CallGraph]) -> bool:
    """Make a functional model of a Sequential; False if the shape of its input is not known."""
    if not _give_input(model):
        return False
    graphs[model] = chain(model)
    model.class_name = "Functional"
    return True


def _give_input(model: Part) -> bool:
    """Put a layer for the input before those of a Sequential, if none is there; False if its shape
    is not known."""
    if model.children[0][1].class_name != "InputLayer":
        shape = input_shape_of(model)
        if shape is None:
            return False
        first = innermost(model).config
        name = input_name(model)
        config: JsonObject = {"name": name, "batch_shape": shape}
        config |= {key: first[key] for key in ("dtype", "input_dtype") if key in first}
        item = node({"class_name": "InputLayer", "config": config}, name)
        start = Part(item, name, "InputLayer", item.config, None, "", True)
        model.children.insert(0, ("layers", start))
    return True


def _plain(flow: MaskFlow, place: Place) -> list[Given]:
    """Return what a layer is given; that nothing is masked is not a mask."""
    return [
        tuple(None if mask == ALL else mask for mask in given)
        for given in flow.given.get(place, [])
    ]


class _CallWriter:
    """Writes masks into the calls of one model."""

    def __init__(
        self, model: Part, calls: CallGraph, known: dict[tuple[Part, Ref], Mask]
    ) -> None:
        self._model, self._graph, self._known = model, calls, known
        self._calls = dict(calls.calls)
        self._parts = {child.name: child for _, child in model.children}
        self._made: dict[tuple[object, ...], Ref] = {}

    def graph(self) -> CallGraph:
        """Return the calls as they are now."""
        return self._graph._replace(calls=self._calls)

    def call(self, place: Place, old: MaskFlow, new: Sequence[MaskFlow]) -> None:
        """Write the mask of one call, if it has one."""
        _, name, index = place
        call = self._calls[name][index]
        given = set(old.given[place])
        masks = next(iter(given))
        is_one = len(given) == 1 and len(masks) == 1
        part = self._parts[name]
        if "mask" in call.keywords or not is_one or part.class_name in _SEVERAL or part.custom:
            return  # the call of a user's own class may have no argument `mask`
        mask = masks[0]
        scope = old.scopes[self._model]
        if mask is not None:
            expression = mask
        else:
            others = [m for flow in new for g in flow.given.get(place, []) for m in g]
            present = [m for m in others if m is not None and self._is_here(m, scope)]
            if not present:
                return
            expression = ("all", present[0])  # none was masked, and some would be now
        if mask is None or self._is_here(mask, scope):
            ref = self._operation(expression)
            self._known[self._model, ref] = ALL if mask is None else mask
            self._replace(name, index, call._replace(keywords={**call.keywords, "mask": ref}))

    def unmask(self, name: str, index: int) -> None:
        """Take the masks off the inputs of one call."""
        call = self._calls[name][index]
        inputs = tuple(self._unmasked(source) for source in call.inputs)
        self._replace(name, index, call._replace(inputs=inputs))

    def _replace(self, name: str, index: int, call: LayerCall) -> None:
        listed = list(self._calls[name])
        listed[index] = call
        self._calls[name] = tuple(listed)

    def _is_here(self, mask: Mask, scope: tuple[str, ...]) -> bool:
        """Whether operations of this model, which is in a scope, can compute a mask."""
        match mask:
            case ("and" | "or", tuple(inner)):
                return all(isinstance(part, tuple) and self._is_here(part, scope) for part in inner)
            case ("ids" | "steps" | "tensor", tuple(inside), Ref() as ref, *_):
                return inside == scope and ref.layer in self._calls
        return False

    def _operation(self, mask: Mask) -> Ref:
        """Return the tensor that is a mask, by operations that are added to the model."""
        if mask in self._made:
            return self._made[mask]
        match mask:
            case ("ids", _, Ref() as source):
                ref = self._add("NotEqual", {}, (source, 0))
            case ("steps", _, Ref() as source, value):
                unlike = self._add("NotEqual", {}, (source, value))
                ref = self._add("Any", {"axis": -1, "keepdims": False}, (unlike,))
            case ("all", tuple(model)):
                ref = self._add("OnesLike", {}, (self._operation(model),))
            case ("and" | "or" as word, tuple(inner)):
                ref, *rest = [self._operation(part) for part in inner if isinstance(part, tuple)]
                for other in rest:
                    ref = self._add(_JOINS[word], {}, (ref, other))
            case ("tensor", _, Ref() as ref):
                pass
            case _:
                raise AssertionError(mask)
        self._made[mask] = ref
        return ref

    def _unmasked(self, source: Ref) -> Ref:
        """Return a tensor without its mask: what an operation gives has none."""
        key: tuple[object, ...] = ("times", source)
        if key not in self._made:
            self._made[key] = self._add("Multiply", {}, (source, 1))
        return self._made[key]

    def _add(self, operation: str, config: JsonObject, arguments: tuple[Json, ...]) -> Ref:
        base = f"mask_{operation.lower()}"
        taken = self._parts.keys() | self._calls.keys()
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        item = node({"class_name": "TFOpLambda", "config": {"name": name}}, name)
        part = Part(item, name, item.class_name, item.config, None, "", True)
        part.operation = serialized_operation(BARE[operation], operation, config, name, taken)
        self._model.children.append(("layers", part))
        self._parts[name] = part
        self._calls[name] = (LayerCall((), {}, arguments),)
        return Ref(name, 0, 0)


def settled(
    root: Part,
    graphs: dict[Part, CallGraph],
    writes: bool,
    bare: bool,
    notes: dict[str, None],
) -> dict[Part, CallGraph]:
    """Put the layers of a model of an older Keras in the order of Keras 3, and return how they are
    called, with the masks that have to be written.

    Args:
        root: the model; its Sequentials may become functional models.
        graphs: of its functional models.
        writes: whether the file can hold masks: Keras does not load operations of an `.h5`.
        bare: whether the file holds no calls at all.
        notes: notes for the user; what is not the same everywhere is added.

    Raises:
        UnsupportedByTarget: the Keras of today gives a layer another mask, and none can be written.
        CorruptFile: as `graph.arrange`.
    """
    if not makes_masks(root):
        graph.arrange(graphs)
        return graphs
    if not writes:
        # As Keras 3 hands the masks on by itself; the calls are written without them.
        ordering = MaskWriter(root, dict(graphs), TODAY)
        _write_elsewhere(ordering)
        if not bare:
            _tell(MaskWriter(root, graphs, OLD), notes)
        return graphs
    writer = MaskWriter(root, graphs, OLD)
    writer.write()
    _tell(writer, notes)
    graph.arrange(writer.graphs)
    return writer.graphs


def kept(root: Part, text: str, notes: dict[str, None]) -> str:
    """Return the config of a Sequential of Keras 3 with its masks written, where a later Keras
    hands them on otherwise; as it is where none does.

    Args:
        root: the model; it may become a functional one.
        text: its config.
        notes: notes for the user; what is not the same everywhere is added.
    """
    if root.class_name != "Sequential" or not makes_masks(root):
        return text
    graphs: dict[Part, CallGraph] = {}
    writer = MaskWriter(root, graphs, TODAY)
    if not any(child.is_model for _, child in root.children):
        writer.write()
    _tell(writer, notes)
    if root not in graphs:
        return text
    graph.arrange(graphs)
    value = parse_object(text, "model_config")
    items = {str(item["config"].get("name")): item for item in value["config"]["layers"]}
    calls, layers = graphs[root], []
    for _, child in root.children:
        entry = child.operation or items.get(child.name) or written_input(child)
        nodes = [graph.written_call(call) for call in calls.calls[child.name]]
        layers.append({**entry, "name": child.name, "inbound_nodes": nodes})
    config = {
        "name": root.name,
        "layers": layers,
        "input_layers": graph.written_ends(calls.inputs, root),
        "output_layers": graph.written_ends(calls.outputs, root),
    }
    return canonical(spelling.serialized_model("Functional", config))


def _write_elsewhere(writer: MaskWriter) -> None:
    """Order the layers by calls with masks, which are not kept."""
    children = {part: list(part.children) for part in writer.graphs}
    writer.write_calls()
    graph.arrange(writer.graphs)
    for part, before in children.items():
        kept = {child for _, child in before}
        part.children = [item for item in part.children if item[1] in kept]


def _tell(writer: MaskWriter, notes: dict[str, None]) -> None:
    for part in writer.repeating():
        raise unsupported(
            "Keras 3 gives zeros at the masked steps of this layer, and the Keras that wrote the "
            "file the output before",
            part.name,
            "mask",
        )
    today, others = writer.left()
    if today:
        part, title = today[0]
        raise unsupported(
            f"{title} gives this layer another mask than the Keras that wrote the file, and padded "
            "inputs would give other numbers",
            part.name,
            "mask",
        )
    for part, title in others:
        notes[
            f"{part.name}: {title} gives this layer another mask, and padded inputs give other "
            "numbers there"
        ] = None

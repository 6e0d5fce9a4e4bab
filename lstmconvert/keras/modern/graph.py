"""How the layers of a functional model are called: Keras 1's and 2's nodes, and Keras 3's.

Keras 2 lists, for each call of a layer, the tensors that it is called with: `[layer, call, output,
keywords]`. Keras 3 reads that form too (keras/src/models/functional.py, `deserialize_node`), but
not initial states among the inputs, nor tensors among the keywords: those calls are written in its
own form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.jsontext import Json, JsonObject
from lstmconvert.keras.modern import operations
from lstmconvert.keras.modern.classes import RECURRENT
from lstmconvert.keras.modern.parts import Part, unsupported
from lstmconvert.keras.nodes import node
from lstmconvert.records import dataclass

#: What a call may be given beside its inputs.
_KEYWORDS = frozenset(
    {
        "mask",
        "training",
        "initial_state",
        "value",
        "key",
        "query_mask",
        "value_mask",
        "key_mask",
        "attention_mask",
        "return_attention_scores",
        "use_causal_mask",
    }
)
#: The shape in a serialized tensor, which Keras takes from the layer that makes the tensor, and
#: does not read here (functional.py, `convert_revived_tensor`).
_ANY_SHAPE: list[None] = [None]


class Ref(NamedTuple):
    """One tensor: the `output`-th that the `call`-th call of a layer gives."""

    layer: str
    call: int
    output: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer: the tensors that are its first argument, and its keywords, whose values
    are plain, or (lists of) tensors. Of an operation, its `arguments` instead."""

    inputs: tuple[Ref, ...]
    keywords: Mapping[str, Json]
    arguments: tuple[Json, ...] = ()

    def refs(self) -> Iterator[Ref]:
        """Yield every tensor, in the order in which Keras 3 finds them."""
        yield from self.inputs
        yield from refs(self.arguments)
        for key in sorted(self.keywords):
            yield from refs(self.keywords[key])


@dataclass(frozen=True, slots=True)
class Graph:
    """The calls of each layer, and the model's inputs and outputs: tensors, in lists or dicts."""

    calls: Mapping[str, tuple[Call, ...]]
    inputs: Json
    outputs: Json


def refs(value: Json) -> Iterator[Ref]:
    """Yield the tensors of a structure, dicts in the order of their keys."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from refs(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs(item)


def read(model: Part) -> Graph:
    """Read the graph of a functional model of Keras 1 or 2.

    Raises:
        CorruptFile: a call names no layer, or is no call.
        UnsupportedByTarget: a call that Keras 3 has no form for.
    """
    return _Reader(model).graph()


def arranged(root: Part) -> dict[Part, Graph]:
    """Put the layers of each functional model in Keras 3's order, and return their graphs.

    Raises:
        CorruptFile, UnsupportedByTarget: as `read`.
    """
    graphs: dict[Part, Graph] = {}
    for part in list(root.walk()):
        if part.is_model and part.class_name == "Functional":
            found = graphs[part] = read(part)
            by_name = {child.name: child for _, child in part.children}
            names = order(found)
            if set(names) != set(by_name):
                raise CorruptFile("a layer that the model's outputs do not need", where=part.name)
            part.children = [("layers", by_name[name]) for name in names]
    return graphs


class _Reader:
    def __init__(self, model: Part) -> None:
        self._model = model
        self._parts = {part.node.name: part for _, part in model.children}
        self._first: dict[str, int] = {}

    def graph(self) -> Graph:
        calls: dict[str, tuple[Call, ...]] = {}
        for index, item in enumerate(self._model.node.listed("layers")):
            own = node(item, f"{self._model.name}.layers[{index}]")
            listed = item.get("inbound_nodes") or []
            if not isinstance(listed, list) or own.name not in self._parts:
                raise self._damaged(own.name, listed)
            calls[own.name] = tuple(self._call(self._parts[own.name], one) for one in listed)
        inputs = self._structure(self._model.config.get("input_layers"))
        outputs = self._structure(self._model.config.get("output_layers"))
        self._count_from(calls, outputs)
        return Graph(
            {self._parts[name].name: tuple(map(self._named_call, found))
             for name, found in calls.items()},
            _mapped(inputs, self._named),
            _mapped(outputs, self._named),
        )

    def _call(self, part: Part, found: Json) -> Call:
        if isinstance(found, list) and found and isinstance(found[0], str):
            found = [found]
        if not isinstance(found, list) or not found:
            raise unsupported("it is called with its inputs by name", part.name, "inputs", found)
        if part.is_function:
            return self._function(part, found)
        inputs: list[Ref] = []
        keywords: JsonObject = {}
        for one in found:
            inputs.append(self._ref(one, part))
            if len(one) > 3 and isinstance(one[3], dict):
                keywords.update(one[3])
        return self._sorted(part, inputs, self._keywords(part, keywords))

    def _function(self, part: Part, found: list[Json]) -> Call:
        keywords: JsonObject = {}
        first: list[Json] = []
        for one in found:
            is_constant = isinstance(one, list) and len(one) > 2 and one[0] == "_CONSTANT_VALUE"
            first.append(one[2] if is_constant else self._ref(one, part))
            if isinstance(one[-1], dict):
                keywords.update(one[-1])
        keywords = {key: self._structure(value) for key, value in keywords.items()}
        is_list = len(first) > 1 or operations.function_of(part) in operations.LISTING
        arguments = operations.read(part, first if is_list else first[0], keywords, self._parts)
        return Call((), {}, tuple(arguments))

    def _sorted(self, part: Part, inputs: list[Ref], keywords: JsonObject) -> Call:
        is_recurrent = part.layer is not None or part.class_name in RECURRENT
        if is_recurrent and len(inputs) > 1:
            if part.config.get("num_constants"):
                raise unsupported("it is called with constants", part.name, "num_constants")
            keywords["initial_state"] = inputs[1:]
            inputs = inputs[:1]
        return Call(tuple(inputs), keywords)

    def _keywords(self, part: Part, keywords: JsonObject) -> JsonObject:
        result: JsonObject = {}
        for key, value in keywords.items():
            if value is None or (key == "training" and part.is_model):
                continue
            if key not in _KEYWORDS:
                raise unsupported(f"it is called with {key}", part.name, key, value)
            result[key] = self._structure(value)
        return result

    def _structure(self, value: Json) -> Json:
        if self._is_ref(value):
            return Ref(*value[:3])
        if isinstance(value, dict):
            return {key: self._structure(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._structure(item) for item in value]
        return value

    def _is_ref(self, value: Json) -> bool:
        return (
            isinstance(value, list)
            and 3 <= len(value) <= 4
            and isinstance(value[0], str)
            and value[0] in self._parts
            and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value[1:3])
        )

    def _ref(self, value: Json, part: Part) -> Ref:
        if self._is_ref(value):
            return Ref(*value[:3])
        if isinstance(value, list) and value and value[0] == "_CONSTANT_VALUE":
            raise unsupported("it is called with a constant", part.name, "inputs")
        raise self._damaged(part.name, value)

    def _damaged(self, name: str, found: Json) -> CorruptFile:
        return CorruptFile(
            "a layer of the config is called with what is no tensor of it",
            where=f"{self._model.name}/{name}",
            found=str(found)[:80],
        )

    def _count_from(self, calls: Mapping[str, tuple[Call, ...]], outputs: Json) -> None:
        """Find the number of each nested model's first call: 1, as its own making counted as
        call 0 (tf_keras/src/engine/functional.py, `_should_skip_first_node`), or 0."""
        seen: dict[str, set[int]] = {}
        for call in (call for found in calls.values() for call in found):
            for ref in call.refs():
                seen.setdefault(ref.layer, set()).add(ref.call)
        for ref in refs(outputs):
            seen.setdefault(ref.layer, set()).add(ref.call)
        for name, found in seen.items():
            count = max(len(calls.get(name, ())), 1)
            if max(found) > count or (max(found) == count and 0 in found):
                raise self._damaged(name, sorted(found))
            is_late = max(found) == count
            self._first[name] = 1 if is_late or (0 not in found and self._is_made(name)) else 0

    def _is_made(self, name: str) -> bool:
        part = self._parts[name]
        if not part.is_model:
            return False
        first = part.children[0][1].class_name if part.children else ""
        return part.class_name != "Sequential" or first == "InputLayer"

    def _named(self, ref: Ref) -> Ref:
        return Ref(self._parts[ref.layer].name, ref.call - self._first[ref.layer], ref.output)

    def _named_call(self, call: Call) -> Call:
        keywords = {key: _mapped(value, self._named) for key, value in call.keywords.items()}
        arguments = tuple(_mapped(value, self._named) for value in call.arguments)
        return Call(tuple(map(self._named, call.inputs)), keywords, arguments)


def _mapped(value: Json, change: Callable[[Ref], Json]) -> Json:
    if isinstance(value, Ref):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return value


def written_call(call: Call) -> Json:
    """Return a call as Keras 3 reads it."""
    if call.arguments:
        return {"args": [_mapped(value, _tensor) for value in call.arguments], "kwargs": {}}
    if not any(True for _ in refs(dict(call.keywords))):
        return [[*ref, dict(call.keywords)] for ref in call.inputs]
    inputs: Json = [_tensor(ref) for ref in call.inputs]
    keywords = {key: _mapped(value, _tensor) for key, value in call.keywords.items()}
    return {"args": [inputs if len(inputs) > 1 else inputs[0]], "kwargs": keywords}


def _tensor(ref: Ref) -> JsonObject:
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": _ANY_SHAPE, "dtype": "float32", "keras_history": list(ref)},
    }


def written_ends(value: Json, model: Part) -> Json:
    """Return a model's inputs or outputs as Keras 3 reads them: calls of a nested functional model
    count from 1 there, and nowhere else (functional.py, `get_tensor`)."""
    functional = {part.name for _, part in model.children if part.class_name == "Functional"}

    def counted(ref: Ref) -> Json:
        return [ref.layer, ref.call + (ref.layer in functional), ref.output]

    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _mapped(value, counted)


def order(graph: Graph) -> list[str]:
    """Return the layers in the order that Keras 3 gives them when it makes the model
    (keras/src/ops/function.py, `map_graph`): farthest from the outputs first, then as a walk from
    the outputs meets them.

    Raises:
        CorruptFile: the calls go round in a circle.
    """
    walked, met = _walk(graph)
    depths: dict[tuple[str, int], int] = {}
    layers: dict[str, int] = {}
    for name, index in reversed(walked):
        depth = max(depths.setdefault((name, index), 0), layers.get(name, 0))
        layers[name] = depths[name, index] = depth
        for ref in _before(graph, (name, index)):
            key = (ref.layer, ref.call)
            depths[key] = max(depth + 1, depths.get(key, 0))
    for ref in refs(graph.inputs):
        if ref.layer not in layers:
            layers[ref.layer], met[ref.layer] = 0, -1
    return sorted(layers, key=lambda name: (-layers[name], met[name]))


def _before(graph: Graph, at: tuple[str, int]) -> tuple[Ref, ...]:
    calls = graph.calls.get(at[0], ())
    return tuple(calls[at[1]].refs()) if at[1] < len(calls) else ()


def _walk(graph: Graph) -> tuple[list[tuple[str, int]], dict[str, int]]:
    """Walk from the outputs back, depth first: calls in the order in which they are done with, and
    when each layer was first met."""
    done: dict[tuple[str, int], None] = {}
    going: set[tuple[str, int]] = set()
    met: dict[str, int] = {}
    for end in refs(graph.outputs):
        stack = [((end.layer, end.call), False)]
        while stack:
            at, is_leaving = stack.pop()
            if is_leaving:
                going.discard(at)
                done[at] = None
                continue
            if at in done:
                continue
            if at in going:
                raise CorruptFile("the layers of the config call each other", where=at[0])
            met.setdefault(at[0], len(met))
            going.add(at)
            stack.append((at, True))
            before = _before(graph, at)
            stack.extend(((ref.layer, ref.call), False) for ref in reversed(before))
    return list(done), met

"""How the layers of a functional model are called: Keras 1's and 2's nodes, and Keras 3's.

Keras 2 lists, for each call of a layer, the tensors that it is called with: `[layer, call, output,
keywords]`. Keras 3 reads that form too (keras/src/models/functional.py, `deserialize_node`), but
not initial states among the inputs, nor tensors among the keywords: those calls are written in its
own form, which `read_keras3` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.keras.configs import spelling
from lstmconvert.keras.configs.nodes import node, snake_case
from lstmconvert.keras.modern import operations
from lstmconvert.keras.modern.classes import CLASSES, RECURRENT
from lstmconvert.keras.modern.parts import Part, unsupported
from lstmconvert.keras.modern.replacing import Expression

#: Arguments that a call may have in addition to its inputs.
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
#: It stands for the name of a layer where a function is called with a plain value.
_CONSTANT = "_CONSTANT_VALUE"
#: The shape in a serialized tensor, which Keras takes from the layer that makes the tensor, and
#: does not read here (functional.py, `convert_revived_tensor`).
_ANY_SHAPE: list[None] = [None]


class Ref(NamedTuple):
    """One tensor: the `output`-th that the `call`-th call of a layer gives."""

    layer: str
    call: int
    output: int


class LayerCall(NamedTuple):
    """One call of a layer: the tensors that are its first argument, and its keywords, whose values
    are plain, or (lists of) tensors. Of an operation, and of any layer of Keras 3, its positional
    `arguments` instead of `inputs`."""

    inputs: tuple[Ref, ...]
    keywords: Mapping[str, Json]
    arguments: tuple[Json, ...] = ()

    def refs(self) -> Iterator[Ref]:
        """Yield every tensor, in the order in which Keras 3 finds them."""
        yield from self.inputs
        yield from refs(self.arguments)
        for key in sorted(self.keywords):
            yield from refs(self.keywords[key])


class CallGraph(NamedTuple):
    """The calls of each layer, and the model's inputs and outputs: tensors, in lists or dicts.

    `operations`: the bare operations of a model of Keras 3, by name, as they are serialized: they
    are called like layers, and are not parts.
    """

    calls: Mapping[str, tuple[LayerCall, ...]]
    inputs: Json
    outputs: Json
    operations: Mapping[str, JsonObject] = {}


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


def read(model: Part) -> CallGraph:
    """Read the graph of a functional model of Keras 1 or 2.

    Raises:
        CorruptFile: a call names no layer, or is not a call.
        UnsupportedByTarget: a call that Keras 3 has no form for.
    """
    return _CallReader(model).graph()


def read_all(root: Part) -> dict[Part, CallGraph]:
    """Return the graph of each functional model at or below a part.

    Raises:
        CorruptFile, UnsupportedByTarget: as `read`.
    """
    result: dict[Part, CallGraph] = {}
    for part in root.walk():
        if not part.is_model:
            continue
        if part.class_name == "Sequential" and any(each.expression for _, each in part.children):
            from lstmconvert.keras.modern import masking  # which knows graphs, and is rarely needed

            masking.make_functional(part)
        if part.class_name == "Functional":
            result[part] = read(part)
    return result


def read_keras3(model: Part) -> CallGraph:
    """Read the graph of a functional model of Keras 3 (keras/src/models/functional.py,
    `deserialize_node`).

    Raises:
        CorruptFile: a call names no layer, or is not a call.
    """
    parts = {part.node.name: part for _, part in model.children}
    calls: dict[str, tuple[LayerCall, ...]] = {}
    operations: dict[str, JsonObject] = {}
    for index, item in enumerate(model.node.listed("layers")):
        layer = node(item, f"{model.name}.layers[{index}]")
        if layer.is_operation:
            stated = item.get("name")
            name = stated if isinstance(stated, str) else layer.name
            operations[name] = item
        else:
            name = parts[layer.name].name
        listed = item.get("inbound_nodes") or []
        calls[name] = tuple(_keras3_call(call, f"{model.name}/{name}") for call in listed)
    # Calls of a nested functional model count from 1 there: see `written_ends`.
    late = {part.name for part in parts.values() if part.class_name == "Functional"}

    def end(value: Json) -> Json:
        if isinstance(value, dict):
            return {key: end(item) for key, item in value.items()}
        if not isinstance(value, list):
            raise _no_tensor(model.name, value)
        if value and isinstance(value[0], str) and len(value) == 3:
            ref = _history(value, model.name)
            return ref._replace(call=ref.call - (ref.layer in late))
        return [end(item) for item in value]

    graph = CallGraph(
        calls,
        end(model.config.get("input_layers")),
        end(model.config.get("output_layers")),
        operations,
    )
    every = [ref for made in calls.values() for call in made for ref in call.refs()]
    for ref in (*every, *refs(graph.inputs), *refs(graph.outputs)):
        if not 0 <= ref.call < max(len(calls.get(ref.layer, ())), ref.layer in calls):
            raise _no_tensor(model.name, list(ref))
    return graph


def _keras3_call(value: Json, where: str) -> LayerCall:
    if not isinstance(value, dict):
        raise _no_tensor(where, value)
    given, keywords = value.get("args"), value.get("kwargs", {})
    if not isinstance(given, list) or not isinstance(keywords, dict):
        raise _no_tensor(where, value)
    arguments = tuple(_keras3_value(item, where) for item in given)
    return LayerCall(
        (), {key: _keras3_value(item, where) for key, item in keywords.items()}, arguments
    )


def _keras3_value(value: Json, where: str) -> Json:
    if isinstance(value, list):
        return [_keras3_value(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__keras_tensor__":
        config = value.get("config")
        return _history(config.get("keras_history") if isinstance(config, dict) else None, where)
    return {key: _keras3_value(item, where) for key, item in value.items()}


def _history(value: Json, where: str) -> Ref:
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        _, call, output = value
        if all(isinstance(number, int) and number >= 0 for number in (call, output)):
            return Ref(value[0], call, output)
    raise _no_tensor(where, value)


def _no_tensor(where: str, found: Json) -> CorruptFile:
    return CorruptFile(
        "a layer of the config is called with something that is not a tensor of it",
        where=where,
        found=str(found)[:80],
    )


def arrange(graphs: Mapping[Part, CallGraph]) -> None:
    """Put the layers of each functional model in Keras 3's order.

    Args:
        graphs: of the models, with the masks that Keras 3 hands to their layers: these are edges
            too, and by them it orders the layers.

    Raises:
        CorruptFile: a layer leads to no output.
    """
    for part, calls in graphs.items():
        by_name = {child.name: child for _, child in part.children}
        names = order(calls)
        if missing := set(by_name) - set(names):
            raise CorruptFile(
                "a layer that the model's outputs do not need", where=part.name, found=min(missing)
            )
        part.children = [("layers", by_name[name]) for name in names if name in by_name]


class _CallReader:
    def __init__(self, model: Part) -> None:
        self._model = model
        self._parts = {part.node.name: part for _, part in model.children}
        self._first: dict[str, int] = {}
        self._calls: dict[str, tuple[LayerCall, ...]] = {}
        #: Function -> what it gives; lengths of tensors among them are not tensors of the model.
        self._results: dict[str, Any] = {}
        #: Function -> the parts that stand for it.
        self._written: dict[str, list[Part]] = {}
        #: An output of a function of several -> the operation that stands for it.
        self._outputs: dict[tuple[str, int], Ref] = {}
        #: Tensors of functions -> their dtypes, and whether they have a row for each sample.
        self._dtypes: dict[str, str | None] = {}
        self._leading: dict[str, bool] = {}

    def graph(self) -> CallGraph:
        listed = self._listed()
        functions = {name for name, part in self._parts.items() if part.is_function}
        for name in self._in_order(listed):
            part = self._parts[name]
            if part.is_function:
                self._read_function(part, listed[name])
            else:
                tensors = [self._parts[at] for at in _names(listed[name], self._parts)]
                self._leading[name] = all(self._leads_of(each.node.name) for each in tensors)
        for name, stated in listed.items():
            if name not in functions:
                part = self._parts[name]
                self._calls[name] = tuple(self._call(part, call) for call in stated)
        inputs = self._structure(self._model.config.get("input_layers"))
        outputs = self._structure(self._model.config.get("output_layers"))
        for size in operations.sizes_in(outputs):
            raise unsupported("an output of the model is a shape", self._model.name, str(size))
        self._model.children = [
            (attribute, each)
            for attribute, part in self._model.children
            for each in (self._written.get(part.node.name, ()) if part.is_function else [part])
        ]
        self._count_from(self._calls, outputs)
        return CallGraph(
            {self._parts[name].name: tuple(map(self._named_call, made))
             for name, made in self._calls.items()},
            _mapped(inputs, self._named),
            _mapped(outputs, self._named),
        )

    def _listed(self) -> dict[str, list[Json]]:
        """Return the calls of each layer, as the config has them."""
        result: dict[str, list[Json]] = {}
        for index, item in enumerate(self._model.node.listed("layers")):
            layer = node(item, f"{self._model.name}.layers[{index}]")
            listed = item.get("inbound_nodes") or []
            if not isinstance(listed, list) or layer.name not in self._parts:
                raise self._damaged(layer.name, listed)
            result[layer.name] = listed
        return result

    def _in_order(self, listed: Mapping[str, list[Json]]) -> Iterator[str]:
        """Yield the layers, each after those that it is called on; in a circle, anyhow."""
        done: set[str] = set()
        for start in listed:
            stack = [(start, False)]
            while stack:
                name, is_ready = stack.pop()
                if is_ready:
                    yield name
                elif name not in done:
                    done.add(name)
                    stack.append((name, True))
                    stack.extend((at, False) for at in _names(listed[name], self._parts))

    def _call(self, part: Part, stated: Json) -> LayerCall:
        if isinstance(stated, list) and stated and isinstance(stated[0], str):
            stated = [stated]
        if not isinstance(stated, list) or not stated:
            raise unsupported("it is called with its inputs by name", part.name, "inputs", stated)
        inputs: list[Ref] = []
        keywords: JsonObject = {}
        for entry in self._unnested(stated):
            inputs.append(self._ref(entry, part))
            if len(entry) > 3 and isinstance(entry[3], dict):
                keywords.update(entry[3])
        return self._sorted(part, inputs, self._keywords(part, keywords))

    def _unnested(self, stated: list[Json]) -> Iterator[Json]:
        """Yield the tensors of a call: the states of a stack of cells are lists in a list."""
        for item in stated:
            is_list = isinstance(item, list) and bool(item) and isinstance(item[0], list)
            yield from self._unnested(item) if is_list else [item]

    # -- functions -----------------------------------------------------------------------------

    def _read_function(self, part: Part, listed: list[Json]) -> None:
        """Find what a function gives, and the operations of Keras 3 that stand for it."""
        if len(listed) != 1:
            raise unsupported("a function that is called more than once", part.name, "inputs")
        given = self._given(part, listed[0])
        if part.expression is not None:
            result: Any = self._expressed(part.expression, given)
        else:
            symbol = operations.symbol(given)
            result = operations.read(given) if symbol is None else symbol
        name = part.node.name
        self._results[name] = result
        if isinstance(result, operations.Applied):
            self._leading[name] = operations.leads(result, self._leads)
            self._dtypes[name] = operations.dtype_of(result, self._dtype)
            self._place(result, part, part.name, name)

    def _expressed(
        self, expression: Expression, given: operations.FunctionCall
    ) -> operations.Applied:
        """Return what the user says a Lambda computes."""
        for size in operations.sizes_in((given.first,)):
            raise given.refused("inputs", size, "it is called with the shape of a tensor")
        for key, value in given.keywords.items():
            if value is not None and key != "training":
                raise given.refused(key, value, f"it is called with {key}")
        from lstmconvert.keras.modern import expressions  # only --replace needs it

        return expressions.written(expression, given.part.name, given.first)

    def _given(self, part: Part, stated: Json) -> operations.FunctionCall:
        if isinstance(stated, list) and stated and isinstance(stated[0], str):
            stated = [stated]
        if not isinstance(stated, list):
            raise unsupported("it is called with its inputs by name", part.name, "inputs", stated)
        keywords: JsonObject = {}
        first: list[Any] = []
        for entry in stated:
            is_constant = isinstance(entry, list) and len(entry) > 2 and entry[0] == _CONSTANT
            is_nested = not is_constant and isinstance(entry, list) and not self._is_ref(entry)
            if is_constant:
                first.append(entry[2])
            elif is_nested:
                first.append(self._structure(entry))
                continue
            else:
                first.append(self._resolved(self._plain_ref(entry, part)))
            if isinstance(entry[-1], dict):
                keywords.update(entry[-1])
        keywords = {key: self._structure(value) for key, value in keywords.items()}
        if part.expression is not None:
            function, value = "", first[0] if len(first) == 1 else first
        elif part.class_name == "TensorFlowOpLayer":
            function, value, keywords = operations.of_operator(part, first)
        else:
            function = operations.plain_name(operations.function_of(part))
            is_list = len(first) != 1 or function in operations.LISTING
            value = first if is_list else first[0]
        return operations.FunctionCall(part, function, value, keywords, self._dtype, self._leads)

    def _place(self, applied: operations.Applied, part: Part, name: str, key: str) -> Ref:
        """Add an operation and those that it takes to the model, in a function's place.

        Args:
            applied: the operation.
            part: the function's.
            name: the operation's.
            key: its name among the parts, by which the calls name it.
        """
        arguments = [self._argument(each, part) for each in applied.arguments]
        if applied.is_layer:
            config = {"name": name, **applied.config}
            item = node({"class_name": applied.class_name, "config": config}, name)
            row = CLASSES[applied.class_name]
            made = Part(item, name, applied.class_name, config, row, "", True)
            call = LayerCall(tuple(each for each in arguments if isinstance(each, Ref)), {})
        else:
            item = node({"class_name": part.class_name, "config": {"name": name}}, name)
            made = Part(item, name, part.class_name, item.config, None, "", True)
            made.operation = operations.serialized_operation(
                applied.module, applied.class_name, applied.config, name, self._parts
            )
            call = LayerCall((), {}, tuple(arguments))
        self._parts[key] = made
        self._calls[key] = (call,)
        self._written.setdefault(part.node.name, []).append(made)
        return Ref(key, 0, 0)

    def _argument(self, value: Any, part: Part) -> Any:
        if isinstance(value, operations.Applied):
            base = f"{part.name}_{snake_case(value.class_name)}"
            name, number = base, 0
            while name in self._parts:
                number += 1
                name = f"{base}_{number}"
            self._parts[name] = part  # taken
            return self._place(value, part, name, name)
        if isinstance(value, list):
            return [self._argument(item, part) for item in value]
        return value

    def _resolved(self, ref: Ref) -> Any:
        """Return what a tensor of the config is: itself, or what stands for it."""
        result = self._results.get(ref.layer)
        if isinstance(result, operations.Unstacked):
            output = result.output(ref.output)
            if not isinstance(output, operations.Applied):
                return output
            if (ref.layer, ref.output) not in self._outputs:
                made = self._argument(output, self._parts[ref.layer])
                self._leading[made.layer] = operations.leads(output, self._leads)
                self._dtypes[made.layer] = operations.dtype_of(output, self._dtype)
                self._outputs[ref.layer, ref.output] = made
            return self._outputs[ref.layer, ref.output]
        if result is None or isinstance(result, operations.Applied):
            return ref
        return result

    def _leads(self, ref: Ref) -> bool:
        return self._leads_of(ref.layer)

    def _leads_of(self, name: str) -> bool:
        return self._leading.get(name, False)

    def _dtype(self, ref: Ref) -> str | None:
        """Return the dtype of a tensor, as far as the config says it."""
        if ref.layer in self._dtypes:
            is_place = ref.output == 1 and self._is_top_k(ref.layer)
            return "int32" if is_place else self._dtypes[ref.layer]
        part = self._parts[ref.layer]
        if part.is_model:
            stated = {spelling.policy(below.config.get("dtype"), below.name)
                      for below in part.walk()} - {None}
            return stated.pop() if len(stated) == 1 else None
        dtype = part.config.get("dtype")
        known = spelling.policy(dtype, part.name)
        if known is not None:
            return spelling.computed_in(known)
        return dtype if isinstance(dtype, str) else None

    def _is_top_k(self, name: str) -> bool:
        result = self._results.get(name)
        return isinstance(result, operations.Applied) and result.class_name == "TopK"

    def _sorted(self, part: Part, inputs: list[Ref], keywords: JsonObject) -> LayerCall:
        is_recurrent = part.layer is not None or part.class_name in RECURRENT
        if is_recurrent and len(inputs) > 1:
            if part.config.get("num_constants"):
                raise unsupported("it is called with constants", part.name, "num_constants")
            keywords["initial_state"] = inputs[1:]
            inputs = inputs[:1]
        return LayerCall(tuple(inputs), keywords)

    def _keywords(self, part: Part, keywords: JsonObject) -> JsonObject:
        result: JsonObject = {}
        for key, value in keywords.items():
            if value is None or (key == "training" and part.is_model):
                continue
            if key not in _KEYWORDS and not part.custom:
                raise unsupported(f"it is called with {key}", part.name, key, value)
            result[key] = self._structure(value)
            for size in operations.sizes_in(result[key]):
                raise unsupported(f"it is called with {key}", part.name, key, size)
        return result

    def _structure(self, value: Json) -> Json:
        if self._is_ref(value):
            return self._resolved(Ref(*value[:3]))
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
        ref = self._resolved(self._plain_ref(value, part))
        if not isinstance(ref, Ref):
            raise unsupported("it is called with the shape of a tensor", part.name, "inputs")
        return ref

    def _plain_ref(self, value: Json, part: Part) -> Ref:
        if self._is_ref(value):
            return Ref(*value[:3])
        if isinstance(value, list) and value and value[0] == "_CONSTANT_VALUE":
            raise unsupported("it is called with a constant", part.name, "inputs")
        raise self._damaged(part.name, value)

    def _damaged(self, name: str, value: Json) -> CorruptFile:
        return _no_tensor(f"{self._model.name}/{name}", value)

    def _count_from(self, calls: Mapping[str, tuple[LayerCall, ...]], outputs: Json) -> None:
        """Find the number of each nested model's first call: 1, as its own making counted as
        call 0 (tf_keras/src/engine/functional.py, `_should_skip_first_node`), or 0."""
        seen: dict[str, set[int]] = {}
        for call in (call for made in calls.values() for call in made):
            for ref in call.refs():
                seen.setdefault(ref.layer, set()).add(ref.call)
        for ref in refs(outputs):
            seen.setdefault(ref.layer, set()).add(ref.call)
        for name, made in seen.items():
            count = max(len(calls.get(name, ())), 1)
            if max(made) > count or (max(made) == count and 0 in made):
                raise self._damaged(name, sorted(made))
            is_late = max(made) == count
            self._first[name] = 1 if is_late or (0 not in made and self._is_made(name)) else 0

    def _is_made(self, name: str) -> bool:
        part = self._parts[name]
        if not part.is_model:
            return False
        first = part.children[0][1].class_name if part.children else ""
        return part.class_name != "Sequential" or first == "InputLayer"

    def _named(self, ref: Ref) -> Ref:
        first = self._first.get(ref.layer, 0)  # an input that no layer takes is in no call
        return Ref(self._parts[ref.layer].name, ref.call - first, ref.output)

    def _named_call(self, call: LayerCall) -> LayerCall:
        keywords = {key: _mapped(value, self._named) for key, value in call.keywords.items()}
        arguments = tuple(_mapped(value, self._named) for value in call.arguments)
        return LayerCall(tuple(map(self._named, call.inputs)), keywords, arguments)


def _names(value: Json, known: Collection[str]) -> Iterator[str]:
    """Yield the layers that a call names."""
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and value[0] in known:
            yield value[0]
            value = value[3:]
        for item in value:
            yield from _names(item, known)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _names(item, known)


def _mapped(value: Json, change: Callable[[Ref], Json]) -> Json:
    if isinstance(value, Ref):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return value


def written_call(call: LayerCall) -> Json:
    """Return a call as Keras 3 reads it."""
    if call.arguments:
        return {"args": [_mapped(value, _tensor) for value in call.arguments], "kwargs": {}}
    if not any(True for _ in refs(dict(call.keywords))):
        return [[*ref, dict(call.keywords)] for ref in call.inputs]
    inputs: Json = [_tensor(ref) for ref in call.inputs]
    keywords = {key: _mapped(value, _tensor) for key, value in call.keywords.items()}
    return {"args": [inputs if len(inputs) > 1 else inputs[0]], "kwargs": keywords}


#: Class -> names of its arguments, of which tf_keras notes all tensors but the first by name.
_NAMES = {"MultiHeadAttention": ("query", "value", "key")}


def keras2_call(call: LayerCall, part: Part, late: Collection[str]) -> Json:
    """Return a call as Keras 2 reads it: `[layer, call, output, keywords]` for each input.

    Args:
        call: the call.
        part: what is called.
        late: the layers whose calls count from 1: see `counts_from_one`.

    Raises:
        UnsupportedByTarget: Keras 2 has no form for it.
    """
    keywords = dict(call.keywords)
    names = _NAMES.get(part.class_name, ("inputs",))
    given = call.arguments or ((list(call.inputs),) if call.inputs else ())
    if len(given) > len(names):
        raise unsupported("Keras 2 has no form for this call", part.name, "inputs")
    keywords = {**dict(zip(names, given, strict=False)), **keywords}
    first = keywords.pop(names[0], None)
    inputs = [first] if isinstance(first, Ref) else list(first or ())
    if not inputs or not all(isinstance(item, Ref) for item in inputs):
        raise unsupported("Keras 2 has no form for this call", part.name, "inputs")
    states = keywords.pop("initial_state", None)
    keywords = {key: value for key, value in keywords.items() if value is not None}
    inputs += list(refs(states)) if states is not None else []
    counted = partial(_counted, late)
    plain = {key: _mapped(value, counted) for key, value in keywords.items()}
    return [[*counted(ref), plain if index == 0 else {}] for index, ref in enumerate(inputs)]


def _counted(late: Collection[str], ref: Ref) -> list[Json]:
    return [ref.layer, ref.call + (ref.layer in late), ref.output]


def keras2_ends(value: Json, late: Collection[str]) -> Json:
    """Return a model's inputs or outputs as Keras 2 reads them; `late` as in `keras2_call`."""
    return _mapped([value] if isinstance(value, Ref) else value, partial(_counted, late))


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

    # Keras 3.0 to 3.5 read lists of tensors only, also of one; later ones read both.
    return _mapped([value] if isinstance(value, Ref) else value, counted)


def order(graph: CallGraph) -> list[str]:
    """Return the layers in the order that Keras 3 gives them when it makes the model
    (keras/src/ops/function.py, `map_graph`): farthest from the outputs first, then as a walk from
    the outputs meets them.

    Raises:
        CorruptFile: the calls go round in a circle.
    """
    _, layers, met = _depths(graph)
    return sorted(layers, key=lambda name: (-layers[name], met[name]))


def run_order(graph: CallGraph) -> list[tuple[str, int]]:
    """Return the calls, (layer, number), in the order in which Keras 3 runs them: farthest from the
    outputs first (keras/src/ops/function.py, `map_graph` and `_run_through_graph`).

    Raises:
        CorruptFile: the calls go round in a circle.
    """
    calls, _, _ = _depths(graph)
    return sorted(calls, key=lambda at: -calls[at])  # a sort that keeps the order of equals


def _depths(
    graph: CallGraph,
) -> tuple[dict[tuple[str, int], int], dict[str, int], dict[str, int]]:
    """Return how far calls and layers are from the outputs, and when each layer was first met."""
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
            depths[ref.layer, ref.call] = 0
    return depths, layers, met


def walked(graph: CallGraph) -> list[tuple[str, int]]:
    """Return the calls of a model, `(layer, number)`, each after those that it needs.

    Raises:
        CorruptFile: the calls go round in a circle.
    """
    return _walk(graph)[0]


def _before(graph: CallGraph, at: tuple[str, int]) -> tuple[Ref, ...]:
    calls = graph.calls.get(at[0], ())
    return tuple(calls[at[1]].refs()) if at[1] < len(calls) else ()


def _walk(graph: CallGraph) -> tuple[list[tuple[str, int]], dict[str, int]]:
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

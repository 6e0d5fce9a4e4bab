"""The walk over a model's tree: which layer is called on what, and with which mask.

`content` is what a file of the whole model holds: its graph, and what brings every weight back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lstmconvert.errors import CorruptFile, LSTMConvertError, UnknownOption, UnsupportedByTarget
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.keras.configs import spelling
from lstmconvert.keras.configs.nodes import node as node_of
from lstmconvert.keras.modern import crossing, emission, replacing
from lstmconvert.keras.modern import graph as calls
from lstmconvert.keras.modern.classes import COMMON_KEYWORDS, INPUT_KEYWORDS
from lstmconvert.keras.modern.crossing import ModelTree
from lstmconvert.keras.modern.parts import Leave, Part
from lstmconvert.keras.stores import stored
from lstmconvert.model import naming
from lstmconvert.model.layer import compute_dtype
from lstmconvert.model.model import Model
from lstmconvert.onnx.messages import NUMBERS, Axis, Style
from lstmconvert.onnx.whole import classes, kept, operations, preprocessing, recurrent
from lstmconvert.onnx.whole.site import HINT, TARGET, Site
from lstmconvert.onnx.whole.writer import FLOATS, GraphWriter, Value, WholeGraph
from lstmconvert.tensors.tensor import Tensor

if TYPE_CHECKING:
    from lstmconvert.conversion import Options


# -- the walk ------------------------------------------------------------------------------------


#: The arguments of a layer's `call` behind its first, where it takes any (keras/src/layers of
#: Keras 3.15; Keras 2 writes them as keywords).
_RECURRENT = ("initial_state", "mask", "training")
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention"), (
        *("value", "key", "query_mask", "value_mask", "key_mask", "attention_mask"),
        *("return_attention_scores", "training", "use_causal_mask"),
    )),
    "ReversibleEmbedding": ("reverse",),
    "Attention": ("mask", "training", "return_attention_scores", "use_causal_mask"),
    "AdditiveAttention": ("mask", "training", "return_attention_scores", "use_causal_mask"),
    **dict.fromkeys(("GRU", "SimpleRNN", "RNN", "Bidirectional"), _RECURRENT),
    "CategoryEncoding": ("count_weights",),
}  # fmt: skip
#: Of the keywords of a call, those that change nothing when a model is run.
_IDLE = frozenset({"training"})
#: The most layers in the way that are named.
_SHOWN = 3


class _Missing(Exception):
    """A value that a refused layer would have made."""


class Network:
    """Writes a tree as a graph.

    Args:
        tree: the model.
        writer: takes the nodes.
        origins: of the tensors that are stored as the source has them, `id` -> path there.
    """

    def __init__(self, tree: ModelTree, writer: GraphWriter, origins: Mapping[int, str]) -> None:
        self._tree, self._writer, self._origins = tree, writer, origins
        self._refusals: list[LSTMConvertError] = []
        self._called: dict[int, int] = {}
        self._inputs: list[str] = []

    def run(self) -> None:
        """Write the whole model.

        Raises:
            UnsupportedByTarget: a layer cannot be said; all are looked at before.
            UnknownOption: the file does not say what the graph depends on.
            CorruptFile: the config is damaged.
        """
        root = self._tree.root
        try:
            values = [self._input(*given) for given in self._given(root)]
            outputs = self._model(root, values, "")
        except _Missing:
            outputs = []
        raise_refusals(self._refusals)
        ends = list(_flat(outputs))
        names = self._output_names(root, ends)
        states = recurrent.end_states(self._writer)
        self._writer.outputs([*zip(ends, names, strict=True), *states])

    # ---- ends --------------------------------------------------------------------------------

    def _given(self, root: Part) -> Iterator[tuple[str, str, list[int | None]]]:
        """Yield name, dtype and shape of each input of the model."""
        policy = self._tree.policy
        if root.class_name == "Sequential":
            first = root.children[0][1] if root.children else root
            if first.class_name == "InputLayer":
                yield self._input_layer(first)
                return
            shape = emission.input_shape_of(root)
            if shape is None:
                raise UnknownOption(
                    "the config does not say the shape of the model's input",
                    where=root.name,
                    hint="give the model's config with --config, if it says one",
                )
            dtype = emission.input_dtype(emission.innermost(root).config, policy, root.name)
            yield emission.input_name(root), dtype, shape
            return
        by_name = {part.name: part for _, part in root.children}
        for ref in calls.refs(self._tree.graphs[root].inputs):
            yield self._input_layer(by_name[ref.layer])

    def _input_layer(self, part: Part) -> tuple[str, str, list[int | None]]:
        shape = emission.stated_shape(part)
        if shape is None:
            raise CorruptFile("an input without a shape", where=part.name)
        dtype = emission.input_dtype(part.config, self._tree.policy, part.name)
        return part.node.name, dtype, shape

    def _input(self, name: str, dtype: str, shape: Sequence[int | None]) -> Value:
        self._inputs.append(name)
        is_first = len(self._inputs) == 1 and self._is_single()
        axes: list[Axis] = []
        for index, size in enumerate(shape):
            known = {0: "batch", 1: "time" if is_first else f"{name}_time"}
            axes.append(known.get(index, f"{name}_axis_{index}") if size is None else size)
        return self._writer.input(name, dtype, axes)

    def _is_single(self) -> bool:
        graph = self._tree.graphs.get(self._tree.root)
        return graph is None or len(list(calls.refs(graph.inputs))) == 1

    def _output_names(self, root: Part, ends: Sequence[Value]) -> list[str]:
        """Return Keras's names of the model's outputs: those of the layers that make them, each
        with a number from its second on."""
        if root.class_name == "Sequential":
            wanted = [root.children[-1][1].node.name] * len(ends)
        else:
            by_name = {part.name: part.node.name for _, part in root.children}
            refs = calls.refs(self._tree.graphs[root].outputs)
            wanted = [by_name.get(ref.layer, ref.layer) for ref in refs]
        result: list[str] = []
        taken = {value.name for value in self._writer.graph.inputs}
        for name in wanted:
            unique, number = name, 0
            while unique in taken:
                number += 1
                unique = f"{name}_{number}"
            taken.add(unique)
            result.append(unique)
        return result

    # ---- models ------------------------------------------------------------------------------

    def _model(self, part: Part, values: Sequence[Value], prefix: str) -> Any:
        if part.class_name == "Sequential":
            return self._sequential(part, values, prefix)
        return self._functional(part, values, prefix)

    def _sequential(self, part: Part, values: Sequence[Value], prefix: str) -> Any:
        value: Any = values[0]
        for _, child in part.children:
            if child.class_name == "InputLayer":
                continue
            value = self._called_on(child, [value], {}, prefix)
        return value

    def _functional(self, part: Part, values: Sequence[Value], prefix: str) -> Any:
        graph = self._tree.graphs[part]
        parts = {child.name: child for _, child in part.children}
        results: dict[tuple[str, int], list[Value] | None] = {}
        given = dict(zip((ref.layer for ref in calls.refs(graph.inputs)), values, strict=True))

        def value_of(ref: calls.Ref) -> Value:
            made = results.get((ref.layer, ref.call))
            if made is None:
                raise _Missing
            if ref.output >= len(made):
                raise CorruptFile("no such output of a layer", where=ref.layer, found=ref.output)
            return made[ref.output]

        for name, index in calls.run_order(graph):
            if name in given:
                results[name, index] = [given[name]]
                continue
            call = graph.calls[name][index]
            try:
                listed = _arguments(call, parts.get(name))
                arguments = [_resolved(item, value_of) for item in listed]
                keywords = {key: _resolved(v, value_of) for key, v in call.keywords.items()}
            except _Missing:
                results[name, index] = None
                if name in parts:
                    self._check_class(parts[name], prefix)
                continue
            operation = graph.operations.get(name)
            try:
                if operation is not None:
                    made = self._operation(operation, name, arguments, keywords, prefix)
                else:
                    made = self._called_on(parts[name], arguments, keywords, prefix)
                results[name, index] = list(_flat(made))
            except _Missing:  # its refusal is noted
                results[name, index] = None
        return _resolved(graph.outputs, value_of)

    # ---- calls -------------------------------------------------------------------------------

    def _called_on(
        self, part: Part, arguments: list[Any], keywords: dict[str, Any], prefix: str
    ) -> Any:
        """Write one call of a layer; what cannot be said is noted, and its value is missing."""
        try:
            return self._call(part, arguments, keywords, prefix)
        except (UnsupportedByTarget, UnknownOption) as error:
            self._refusals.append(error)
            raise _Missing from None

    def _check_class(self, part: Part, prefix: str) -> None:
        """Note a layer that nothing is given, because one before it is refused, if its class is
        not a row of the table."""
        is_plain = part.layer is None and not part.is_model and part.operation is None
        name = part.class_name
        if is_plain and name not in classes.CLASSES and name not in operations.CLASSES:
            self._refusals.append(_no_class(self._site(part, prefix)))

    def _call(
        self, part: Part, arguments: list[Any], keywords: dict[str, Any], prefix: str
    ) -> Any:
        if part.operation is not None:
            return self._operation(part.operation, part.node.name, arguments, keywords, prefix)
        if operations.is_operation(part):
            return self._operation(part.node.whole, part.node.name, arguments, keywords, prefix)
        if part.is_model:
            values = list(_flat(_in_order(self._tree.graphs.get(part), arguments[0])))
            values = self._with_masks(values, keywords.get("mask"))
            return self._model(part, values, f"{prefix}{part.node.name}/")
        site = self._site(part, prefix)
        site.arguments, site.keywords = _sorted(part, site, arguments, keywords)
        return self.written(site)

    def _with_masks(self, values: Sequence[Value], stated: Any) -> list[Value]:
        """Return a nested model's inputs with the masks that its call states: an attention may
        have taken those off that the values had."""
        masks = stated if isinstance(stated, list) else [stated]
        result = list(values)
        for index, mask in enumerate(masks[: len(result)]):
            if isinstance(mask, Value):
                result[index] = result[index].again()
                result[index].mask = self._writer.cast(mask, "bool")
        return result

    def written(self, site: Site) -> Any:
        """Write a layer on the arguments of its site, and return its value, or a list of them."""
        part, first = site.part, site.arguments[0]
        explicit = site.keywords.get("mask")
        site.mask = _masks(first) if explicit is None else _as_masks(site, explicit)
        site.passing = site.mask
        others = (value for key, value in site.keywords.items() if key != "mask")
        if site.is_modern and explicit is None and any(True for x in others for _ in _flat(x)):
            # Keras 3 finds no mask for a layer that is given tensors by other names too: an LSTM
            # with initial states (keras/src/layers/layer.py, `__call__`, step 6).
            site.mask = None
        start = len(self._writer.graph.nodes)
        if part.layer is not None:
            result = recurrent.lstm(site)
        else:
            row = classes.CLASSES.get(part.class_name)
            if row is None:
                raise _no_class(site)
            _check_keywords(site)
            result = row.run(site, self)
        self._name_result(site, result, start)
        return result

    def inner(self, site: Site, part: Part, arguments: list[Any]) -> Any:
        """Write a layer inside a wrapper.

        Args:
            site: the wrapper's.
            part: the inner layer.
            arguments: of its call.
        """
        prefix = f"{site.path}/"
        if part.is_model:
            values = list(_flat(_in_order(self._tree.graphs.get(part), arguments[0])))
            return self._model(part, values, f"{prefix}{part.node.name}/")
        below = self._site(part, prefix)
        below.arguments = arguments
        return self.written(below)

    def _site(self, part: Part, prefix: str) -> Site:
        path = f"{prefix}{part.node.name or part.name}"
        if part.layer is not None:
            path = part.layer.name
        count = self._called[id(part)] = self._called.get(id(part), 0) + 1
        label = path if count == 1 else f"{path}.call_{count}"
        site = Site(
            self._writer, part, label, path,
            era=self._tree.era, policy=self._policy(part), origins=self._origins,
        )  # fmt: skip
        if part.class_name in classes.WIDE and site.compute == "float16":
            site.compute = "float32"
        return site

    def _policy(self, part: Part) -> str:
        if part.layer is not None and part.layer.forward.lstm_cells:
            return compute_dtype(part.layer.forward, part.layer.forward.lstm_cells[0])
        stated = spelling.policy(part.config.get("dtype"), part.name)
        if stated is None:
            arrays = [tensor for below in part.walk() for tensor in below.arrays]
            floats = [a.dtype.name for a in arrays if a.dtype.name in FLOATS]
            stated = floats[0] if floats else self._tree.policy
        return spelling.computed_in(str(stated))

    def _operation(
        self,
        serialized: JsonObject,
        name: str,
        arguments: list[Any],
        keywords: dict[str, Any],
        prefix: str,
    ) -> Any:
        item = node_of(serialized, name)
        config = dict(item.config)  # some operations are written as others, with more keywords
        part = Part(item, name, item.class_name, config, None, "", True, opaque=True)
        path = f"{prefix}{name}"
        site = Site(
            self._writer, part, path, path,
            era=self._tree.era, policy=self._tree.policy, origins=self._origins,
        )  # fmt: skip
        start = len(self._writer.graph.nodes)
        try:
            result = operations.write(site, arguments, keywords)
        except (UnsupportedByTarget, UnknownOption) as error:
            self._refusals.append(error)
            raise _Missing from None
        self._name_result(site, result, start)
        return result

    def _name_result(self, site: Site, result: Any, start: int) -> None:
        """Call what a layer has made by the layer's name."""
        graph = self._writer.graph
        made = {name for node in graph.nodes[start:] for name in node.outputs}
        values = list(_flat(result))
        if not values or not values[0].forms:
            return
        old = next(iter(values[0].forms.values()))
        if old not in made:
            return
        new = graph.unique(site.label)
        graph.rename(old, new, start)
        for value in (*values, *recurrent.kept_states(self._writer)):
            for key, name in value.forms.items():
                if name == old:
                    value.forms[key] = new


def raise_refusals(refusals: Sequence[LSTMConvertError]) -> None:
    """Raise one error for all layers that are in the way, if there are any.

    Raises:
        UnsupportedByTarget, UnknownOption: the one that there is, or one that names the first
            three and says how many more there are.
    """
    if not refusals:
        return
    named: dict[str, LSTMConvertError] = {}
    for error in refusals:
        named.setdefault(f"{error.where}: {error.message}", error)
    if len(named) == 1:
        raise refusals[0]
    shown = []
    for error in list(named.values())[:_SHOWN]:
        option = getattr(error, "option", None)
        detail = f" {error.found}" if error.found else ""
        shown.append(f"{error.where} ({option or error.message}{detail})")
    more = len(named) - len(shown)
    first = refusals[0]
    raise UnsupportedByTarget(
        "layers that ONNX cannot say are in the way of the whole model",
        where=first.where,
        layer=getattr(first, "layer", None),
        option=getattr(first, "option", None),
        target=TARGET,
        found=", ".join(shown) + (f" and {more} more" if more else ""),
        hint=HINT,
    )


def _no_class(site: Site) -> UnsupportedByTarget:
    name = site.part.class_name
    return site.refused(name, why=classes.why_not(name))


def _arguments(call: calls.LayerCall, part: Part | None) -> list[Any]:
    """Return the positional arguments of a call, of any era's."""
    if call.arguments:
        return list(call.arguments)
    is_list = part is not None and (part.class_name in classes.TAKES_LIST)
    return [call.inputs[0] if len(call.inputs) == 1 and not is_list else list(call.inputs)]


def _resolved(value: Json, value_of: Any) -> Any:
    if isinstance(value, calls.Ref):
        return value_of(value)
    if isinstance(value, list):
        return [_resolved(item, value_of) for item in value]
    if isinstance(value, dict):
        return {key: _resolved(item, value_of) for key, item in value.items()}
    return value


def _in_order(graph: calls.CallGraph | None, given: Any) -> Any:
    """Return a nested model's inputs in the order of its own list of them."""
    if isinstance(given, dict) and graph is not None and isinstance(graph.inputs, dict):
        return [given[key] for key in sorted(given)]
    return given


def _flat(value: Any) -> Iterator[Value]:
    if isinstance(value, Value):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _flat(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)


def _sorted(
    part: Part, site: Site, arguments: list[Any], keywords: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the first argument of a call, and the others by name.

    Raises:
        UnsupportedByTarget: the layer is called with something that is not known here.
    """
    names = _ARGUMENTS.get("RNN" if part.layer is not None else part.class_name, ())
    rest = arguments[1 + len(names) :]
    if not arguments or any(not isinstance(item, (bool, type(None))) for item in rest):
        raise site.refused("inputs", why="it is called with arguments that are not known here")
    given = {**dict(zip(names, arguments[1:], strict=False)), **keywords}
    known = {*names, "mask"}
    kept = {key: item for key, item in given.items() if item is not None and key not in _IDLE}
    for key, item in kept.items():
        if key not in known:
            raise site.refused(key, item, why=f"it is called with {key}")
    return arguments[:1], kept


def _masks(value: Any) -> Any:
    """Return the masks that are attached to a value, or to a list of them."""
    if isinstance(value, Value):
        return value.mask
    if isinstance(value, (list, tuple)):
        return [_masks(item) for item in value]
    return None


def _as_masks(site: Site, value: Any) -> Any:
    if isinstance(value, list):
        return [None if item is None else _as_masks(site, item) for item in value]
    if not isinstance(value, Value):
        raise site.refused("mask", value)
    return site.writer.cast(value, "bool")


def _check_keywords(site: Site) -> None:
    """Refuse a keyword of a layer of Keras 3 that the class's row does not know: of older ones,
    the tree has done it, except for classes that have no row."""
    row, name = site.part.row, site.part.class_name
    if row is None or (site.era != "keras3" and name not in classes.WITHOUT_ROW):
        return
    known = classes.WITHOUT_WEIGHTS.get(name, row.keywords | row.dropped)
    if known is None:
        return
    for key, value in site.config.items():
        is_known = key in known or key in COMMON_KEYWORDS or key in INPUT_KEYWORDS
        if is_known or value is None or value in row.neutral.get(key, ()):
            continue
        if key not in classes.TAKEN.get(site.part.class_name, ()):
            raise site.refused(key, value)


# -- what a file holds ---------------------------------------------------------------------------


#: Class -> the opset whose operators it takes: without LayerNormalization, the layer is nine nodes.
_SINCE: Mapping[str, int] = {
    "LayerNormalization": 17, "MelSpectrogram": 17, "TextVectorization": preprocessing.TEXTS_SINCE,
    **dict.fromkeys(operations.BITWISE, operations.BITS_SINCE),
    "Scatter": operations.SUMS_SINCE,
}  # fmt: skip


class WholeFile(NamedTuple):
    """A whole model to be written: `graph`; `opset`; `texts`: metadata beside the usual one;
    `warnings`, to tell the user."""

    graph: WholeGraph
    opset: int
    texts: Mapping[str, str]
    warnings: tuple[str, ...]


def content(model: Model, how: Options, opset: int | None, least: int) -> WholeFile:
    """Return the graph of a whole model.

    Args:
        model: the model.
        how: the options of `save`.
        opset: the version of the operators that was asked for, or None.
        least: the oldest that can be had.

    Raises:
        UnsupportedByTarget: layers cannot be said: all of them are looked for.
        UnknownOption: the file does not say what the graph depends on.
        CorruptFile: config and weights contradict each other.
    """
    tensors = stored.tensors(model)
    refusals: list[UnsupportedByTarget] = []
    put = replacing.read(how.replace)
    leave = Leave(
        keywords=classes.TAKEN, classes=classes.WITHOUT_ROW, put=put, refusals=refusals
    )
    tree = crossing.tree(model, tensors, leave) if model.is_complete else None
    if tree is None:
        raise UnsupportedByTarget(
            "the source is not a whole model: there is no config, or not every weight",
            target=TARGET,
            option="whole",
            hint="give the model's config with --config, or leave --whole away",
        )
    if refusals:
        raise_refusals([*refusals, *_without_row(tree.root, refusals)])
    version = opset or _opset(tree, least)
    paths = {id(tensor): path for path, tensor in tensors.items()}
    graph = WholeGraph(Style(fused=how.fused), ())
    writer = GraphWriter(graph, version, is_modern=tree.era == "keras3", assets=model.assets)
    Network(tree, writer, paths).run()
    graph.prune()
    _check_names(graph)
    left = _left_over(model, graph)
    if how.with_optimizer:
        left.update(model.optimizer)
    for path, tensor in left.items():
        if tensor.dtype.name not in NUMBERS:
            raise UnsupportedByTarget(
                "ONNX cannot hold this dtype",
                where=path,
                option="dtype",
                target=TARGET,
                found=tensor.dtype.name,
            )
        graph.weight(naming.other(path), tensor)
    texts = {kept.KEY: kept.to_text(graph.origins, graph.weights)}
    return WholeFile(graph, version, texts, tuple(writer.warnings))


def _without_row(root: Part, refusals: list[UnsupportedByTarget]) -> list[UnsupportedByTarget]:
    """Return the refusals of layers whose class is not a row of the table here."""
    known = {refusal.where for refusal in refusals}
    conflicts = []
    for part in root.walk():
        if part.layer is not None or part.is_model or part.is_function or part.children:
            continue
        is_row = part.class_name in classes.CLASSES or part.class_name in PARTS
        if part.name not in known and not is_row:
            conflicts.append(
                UnsupportedByTarget(
                    classes.why_not(part.class_name),
                    where=part.name,
                    layer=part.name,
                    option=part.class_name,
                    target=TARGET,
                    hint=HINT,
                )
            )
    return conflicts


#: Classes of parts that are not layers of their own.
PARTS = frozenset({"InputLayer", "GRUCell", "SimpleRNNCell", "StackedRNNCells"})


def _opset(tree: ModelTree, least: int) -> int:
    """Return the oldest opset that says every layer in one node where there is one."""
    between = [item for made in tree.graphs.values() for item in made.operations.values()]
    names = [str(item.get("class_name")) for item in between]
    names += [part.class_name for part in tree.root.walk()]
    return max([least, *(_SINCE.get(name, least) for name in names)])


def _check_names(graph: WholeGraph) -> None:
    """Refuse two values of one name: layers may be called as their weights are."""
    seen: set[str] = set()
    names = [name for node in graph.nodes for name in node.outputs if name]
    names += [*graph.weights, *graph.defaults]
    names += [value.name for value in graph.inputs if value.name not in graph.defaults]
    for name in names:
        if name in seen:
            raise UnsupportedByTarget(
                "two values of the graph would have one name",
                where=name,
                option="name",
                target=TARGET,
                hint="rename the layer in Keras, or leave --whole away",
            )
        seen.add(name)


def _left_over(model: Model, graph: WholeGraph) -> dict[str, Tensor]:
    """Return the tensors of the source that no node takes as they are, or turned."""
    paths = {path for name, (path, _, _) in graph.origins.items() if name in graph.weights}
    rest = {path: tensor for path, tensor in model.other.items() if path not in paths}
    return {**rest, **model.assets}

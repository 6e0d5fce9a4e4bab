"""The graphs of a model, one in another, and what each name means in each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, LimitExceeded
from lstmconvert.onnx.skeleton import Skeleton

#: The default domain of operators has two spellings.
DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(eq=False, slots=True)
class Scope:
    """One graph: its initializers, the nodes that make its values, its inputs, by name.

    `sparse`: the names of initializers that list only what is not zero; they are not read.
    """

    outer: Scope | None
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    inputs: set[str] = field(default_factory=set)
    sparse: set[str] = field(default_factory=set)

    def holder(self, name: str) -> Scope | None:
        """Return the graph, this one or one around it, that a name belongs to."""
        scope: Scope | None = self
        while scope is not None:
            kinds = (scope.initializers, scope.producers, scope.inputs, scope.sparse)
            if any(name in kind for kind in kinds):
                return scope
            scope = scope.outer
        return None


@dataclass(slots=True)
class Graphs:
    """All graphs of a model.

    Fields: `scopes`, the outermost first; `nodes`: every node with its graph; `uses`: value name
    -> the nodes that take it; `homes`: the graph of each node, by `id`; `outputs`: the names of
    values that leave their graph; `opsets`: domain -> version.
    """

    scopes: list[Scope] = field(default_factory=list)
    nodes: list[tuple[Scope, onnx.NodeProto]] = field(default_factory=list)
    uses: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    homes: dict[int, Scope] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    opsets: dict[str, int] = field(default_factory=dict)

    def is_used(self, name: str) -> bool:
        """Whether a value goes anywhere."""
        return bool(name) and (name in self.uses or name in self.outputs)


def read(skeleton: Skeleton) -> Graphs:
    """Take a model's graphs apart; functions of its own are put in where they are called.

    Raises:
        CorruptFile: a function calls itself, or is not there.
        LimitExceeded: with its functions put in, the graph has too many nodes.
    """
    model = skeleton.proto
    versions = [entry.domain for entry in model.opset_import]
    properties = [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    if not all(type(text) is str for text in (*versions, *properties)):
        raise CorruptFile("a text that is not UTF-8", where=skeleton.source.path)
    if model.functions:
        model = _inlined(skeleton)
    graphs = Graphs(
        opsets={
            "" if entry.domain in DEFAULT_DOMAINS else entry.domain: entry.version
            for entry in model.opset_import
        }
    )
    _walk(model.graph, None, graphs, skeleton)
    return graphs


def _walk(
    graph: onnx.GraphProto, outer: Scope | None, graphs: Graphs, skeleton: Skeleton
) -> None:
    scope = Scope(outer)
    graphs.scopes.append(scope)
    _check_names(graph, skeleton)
    scope.inputs.update(value.name for value in graph.input)
    scope.sparse.update(proto.values.name for proto in graph.sparse_initializer)
    for proto in graph.initializer:
        if proto.name in scope.initializers:
            raise CorruptFile(
                "two initializers of one name", where=f"{skeleton.source.path}: {proto.name}"
            )
        scope.initializers[proto.name] = proto
    graphs.outputs.update(value.name for value in graph.output)
    for node in graph.node:
        graphs.nodes.append((scope, node))
        graphs.homes[id(node)] = scope
        scope.producers.update((name, node) for name in node.output if name)
        for name in node.input:
            graphs.uses.setdefault(name, []).append(node)
        for inner in _inner(node):
            _walk(inner, scope, graphs, skeleton)


def _check_names(graph: onnx.GraphProto, skeleton: Skeleton) -> None:
    """Refuse texts that are not UTF-8: protobuf hands them out as bytes."""
    texts: list[str] = [value.name for value in (*graph.input, *graph.output)]
    for proto in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        texts.append(proto.name)
        texts += (text for entry in proto.external_data for text in (entry.key, entry.value))
    for node in graph.node:
        texts += (*node.input, *node.output, node.name, node.op_type, node.domain)
        texts += (attribute.name for attribute in node.attribute)
        texts += (text for entry in node.metadata_props for text in (entry.key, entry.value))
    if not all(type(text) is str for text in texts):
        raise CorruptFile("a name that is not UTF-8", where=skeleton.source.path)


def _inner(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _inlined(skeleton: Skeleton) -> onnx.ModelProto:
    from onnx import inliner

    _check_calls(skeleton)
    try:
        return inliner.inline_local_functions(skeleton.proto)
    except Exception as error:  # the library's own are untyped
        raise CorruptFile(
            f"a model whose functions do not fit: {str(error)[:120]}", where=skeleton.source.path
        ) from None


def _check_calls(skeleton: Skeleton) -> None:
    """Count the nodes that there will be, before there are."""
    model = skeleton.proto
    bodies = {(f.domain, f.name, f.overload): list(f.node) for f in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size(nodes: list[onnx.NodeProto], path: tuple[object, ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            total += 1
            if key in bodies:
                if key in path:
                    raise CorruptFile(
                        "a function that calls itself",
                        where=skeleton.source.path,
                        found=node.op_type,
                    )
                if key not in sizes:
                    sizes[key] = size(bodies[key], (*path, key))
                total += sizes[key]
            for inner in _inner(node):
                total += size(list(inner.node), path)
        return total

    try:
        count = size(list(model.graph.node), ())
    except RecursionError:
        raise LimitExceeded("functions in functions", where=skeleton.source.path) from None
    limits.ONNX_NODES.check(count, skeleton.source.path, "the number of nodes")


def attributes(node: onnx.NodeProto) -> Mapping[str, onnx.AttributeProto]:
    """Return a node's attributes by name."""
    return {attribute.name: attribute for attribute in node.attribute}

"""What a file of the whole model holds: its graph, and what brings every weight back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.keras.modern import crossing, replacing
from lstmconvert.keras.modern.parts import Leave, Part
from lstmconvert.keras.stores import stored
from lstmconvert.model import naming
from lstmconvert.model.model import Model
from lstmconvert.onnx.builder import Style
from lstmconvert.onnx.messages import NUMBERS
from lstmconvert.onnx.whole import classes, kept, network, preprocessing
from lstmconvert.onnx.whole.network import Network
from lstmconvert.onnx.whole.site import HINT, TARGET
from lstmconvert.onnx.whole.writer import WholeGraph, Writer
from lstmconvert.tensors.tensor import Tensor

if TYPE_CHECKING:
    from lstmconvert.conversion import Options

#: Class -> the opset whose operators it takes: without LayerNormalization, the layer is nine nodes.
_SINCE: Mapping[str, int] = {
    "LayerNormalization": 17, "MelSpectrogram": 17, "TextVectorization": preprocessing.TEXTS_SINCE,
}  # fmt: skip


class Whole(NamedTuple):
    """A whole model to be written: `graph`; `opset`; `texts`: metadata beside the usual one;
    `warnings`, to tell the user."""

    graph: WholeGraph
    opset: int
    texts: Mapping[str, str]
    warnings: tuple[str, ...]


def content(model: Model, how: Options, opset: int | None, least: int) -> Whole:
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
        network.raise_refusals([*refusals, *_without_row(tree.root, refusals)])
    version = opset or _opset(tree.root, least)
    paths = {id(tensor): path for path, tensor in tensors.items()}
    graph = WholeGraph(Style(fused=how.fused), ())
    writer = Writer(graph, version, is_modern=tree.era == "keras3", assets=model.assets)
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
    return Whole(graph, version, texts, tuple(writer.warnings))


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


def _opset(root: Part, least: int) -> int:
    """Return the oldest opset that says every layer in one node where there is one."""
    return max([least, *(_SINCE.get(part.class_name, least) for part in root.walk())])


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
    there = {path for name, (path, _, _) in graph.origins.items() if name in graph.weights}
    rest = {path: tensor for path, tensor in model.other.items() if path not in there}
    return {**rest, **model.assets}

"""Opening ONNX files: our own, exactly, and any model that has LSTM nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from lstmconvert import files, metadata, metadataread, naming
from lstmconvert.dtypes import same_bits
from lstmconvert.errors import NoLSTM, NotAModel
from lstmconvert.jsontext import parse_object
from lstmconvert.layer import Direction, LSTMLayer
from lstmconvert.model import Model, Source
from lstmconvert.onnx import nodes, outputs, scopes, skeleton, values
from lstmconvert.onnx.constants import Constants
from lstmconvert.onnx.nodes import LSTMNode
from lstmconvert.onnx.scopes import Graphs
from lstmconvert.onnx.skeleton import Skeleton
from lstmconvert.options import UNKNOWN, DirectionOptions, LayerOptions
from lstmconvert.tensors import SourceFile, Tensor

CONTAINER = LAYOUT = "onnx"
GATES = "gates"
#: The end of a node's name that says no more than what the node is.
_OPERATOR = re.compile(r"(?:node_)?LSTM((?:__?\d+)?)")
#: A name that says nothing of the layer: tf2onnx's, and the dynamo exporter's.
_ANONYMOUS = re.compile(r"(?:node_)?lstm(__?\d+)?", re.IGNORECASE)
#: Where PyTorch's dynamo exporter keeps the names of modules: `: M/lstm: …LSTM/lstm: aten.lstm…`.
_NAMESPACE = "namespace"
#: What TensorFlow's tracing puts into the names of nodes.
_TRACED = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_HALF = re.compile(r"(?:forward|backward)_")
#: What ONNX Runtime's quantization puts after the name of a node.
_QUANTIZED = "_quant"
#: What exporters put after the name of a node's first output.
_OUTPUT = re.compile(r"_(output_0|Y)$")


def open_model(source: SourceFile) -> Model:
    """Open an ONNX file.

    Raises:
        NotAModel: it is something else.
        NoLSTM: no node is an LSTM.
        SourceError: an LSTM's weights are not in the file.
        CorruptFile, LimitExceeded: it contradicts itself, or is too large.
    """
    _refuse_others(source)
    found = skeleton.read(source)
    graphs = scopes.read(found)
    texts = {entry.key: entry.value for entry in found.proto.metadata_props}
    model = None
    if metadata.KEY in texts:
        model = _own(found, graphs, texts[metadata.KEY])
    if model is None:
        model = _foreign(found, graphs)
        if metadata.KEY in texts:
            model = replace(model, notes=(*model.notes, _STALE))
    return replace(model, source=replace(model.source, check=found.check))


def _refuse_others(source: SourceFile) -> None:
    head = files.head(source, 64)
    if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head):
        raise NotAModel(
            "a text, not a binary ONNX model",
            where=source.path,
            hint="if it is ONNX's text format, parse and save it first: "
            "onnx.save(onnx.parser.parse_model(text), path)",
        )
    if head[:1] == b"\x0a":  # field 1 of a GraphDef is a node; of a model, the number ir_version
        raise NotAModel(
            "not an ONNX model",
            where=source.path,
            found="another protocol buffer, perhaps a TensorFlow GraphDef",
        )


_STALE = (
    "the file was written by lstmconvert and changed since: its LSTM nodes are read, and what it "
    "says of their layers is not"
)


# ---- our own -------------------------------------------------------------------------------------


def _own(found: Skeleton, graphs: Graphs, text: str) -> Model | None:
    """Return the model that the metadata describes; None if its tensors are not there."""
    wanted = _wanted(text, found)
    tensors = {
        proto.name: found.tensor(proto)
        for proto in found.proto.graph.initializer
        if proto.name in wanted or proto.name.startswith(naming.OTHER)
    }
    if wanted - tensors.keys():
        tensors.update(_fused(found, graphs, wanted))
    if wanted - tensors.keys():
        return None
    model = metadataread.Reader(tensors, found.source.path).model(text, CONTAINER)
    return replace(model, layout=GATES)


def _wanted(text: str, found: Skeleton) -> set[str]:
    value = parse_object(text, f"{found.source.path}: {metadata.KEY}")
    layers = value.get("layers")
    maps = [
        layer.get("tensors") for layer in layers if isinstance(layer, dict)
    ] if isinstance(layers, list) else []
    return {name for names in maps if isinstance(names, dict) for name in names}


def _fused(found: Skeleton, graphs: Graphs, wanted: set[str]) -> dict[str, Tensor]:
    """Cut the gates out of W, R, B and P of the nodes that bear our names."""
    result = {}
    stored = {proto.name: proto for proto in found.proto.graph.initializer}
    for node in _nodes(found, graphs, Constants(found, graphs)):
        own = node.node.name
        # Under a mixed policy the node is given casts of what is stored.
        wide = {key: f"{own}.{key}" for key in node.values if f"{own}.{key}" in stored}
        kept = {key: found.tensor(stored[name]) for key, name in wide.items()}
        node = replace(node, values={**node.values, **kept})
        both = (f"{own}.forward", f"{own}.backward")
        for index, prefix in enumerate(both if node.directions == 2 else (own,)):
            for gate, tensors in nodes.gates(node, index).items():
                for part, tensor in tensors.items():
                    name = f"{prefix}.{gate}_gate.{part}"
                    if name in wanted:
                        result[name] = tensor
    return result


# ---- any other -----------------------------------------------------------------------------------


def _foreign(found: Skeleton, graphs: Graphs) -> Model:
    constants = Constants(found, graphs)
    looks = Constants(found, graphs)  # what the graph does with outputs asks for no weights
    lstms = list(_nodes(found, graphs, constants))
    uses = {id(node): outputs.use(node, graphs, looks) for node in lstms}
    lstms = _unshared(lstms, uses, constants)
    if not lstms:
        kinds = sorted({node.op_type for _, node in graphs.nodes})
        raise NoLSTM(
            "no LSTM node",
            where=found.source.path,
            found=", ".join(kinds)[:120] or "no nodes",
            hint="an exporter may have taken the LSTM apart into other operators: convert the "
            "model that it was exported from",
        )
    names = naming.layer_names(_readable(node, graphs) for node in lstms)
    notes: list[str] = []
    layers = tuple(
        _layer(node, name, uses[id(node)], notes)
        for node, name in zip(lstms, names, strict=True)
    )
    other, left_out = _other(found, graphs, constants)
    if left_out:
        notes.append(f"{left_out} tensors of types that are not read here are left out")
    return Model(
        layers=layers,
        source=Source(container=CONTAINER, digest=found.digest),
        container=CONTAINER,
        layout=LAYOUT,
        other=other,
        notes=tuple(notes),
    )


def _nodes(found: Skeleton, graphs: Graphs, constants: Constants) -> Iterator[LSTMNode]:
    for scope, node in graphs.nodes:
        if nodes.is_lstm(node):
            name = node.name or next((out for out in node.output if out), "LSTM")
            yield nodes.read(node, scope, constants, f"{found.source.path}: {name}")


def _unshared(
    found: list[LSTMNode], uses: Mapping[int, outputs.Use], constants: Constants
) -> list[LSTMNode]:
    """Leave out nodes that are one layer called again: made of the same initializers, alike in all.

    The branches of an If each have a node of their own.
    """
    first: dict[object, list[LSTMNode]] = {}
    for node in found:
        alike = first.setdefault(_identity(node, uses[id(node)], constants), [])
        if not any(_same_weights(node, other) for other in alike):
            alike.append(node)
    kept = {id(node) for alike in first.values() for node in alike}
    return [node for node in found if id(node) in kept]


def _identity(node: LSTMNode, used: outputs.Use, constants: Constants) -> object:
    return (
        node.direction,
        node.batch_first,
        tuple(node.activations),
        node.clip,
        node.coupled,
        node.has_lengths,
        used,
        tuple(
            (name, constants.leaves(node.scope, node.input(name))) for name in sorted(node.values)
        ),
    )


def _same_weights(one: LSTMNode, two: LSTMNode) -> bool:
    # Two layers may be slices of one initializer.
    return all(same_bits(one.values[n].read(), two.values[n].read()) for n in one.values)


def _readable(node: LSTMNode, graphs: Graphs) -> str:
    """Make a layer's name of a node's: `/encoder/lstm/LSTM_1` is `encoder/lstm_1`.

    tf2onnx calls the node `LSTM__33`, and those around it `model/enc/transpose` and the like.
    """
    name = node.node.name or _OUTPUT.sub("", next((o for o in node.node.output if o), ""))
    if node.is_quantized:
        name = name.removesuffix(_QUANTIZED)
    namespace = next((p.value for p in node.node.metadata_props if p.key == _NAMESPACE), "")
    if parts := _parts("/".join(part.partition(":")[0] for part in namespace.split("/")[:-1])):
        return _printable(parts)
    parts = _parts(name)
    if len(parts) == 1 and _ANONYMOUS.fullmatch(parts[0]):
        around = [_parts(other)[:-1] for other in outputs.neighbours(node, graphs)]
        parts = next(filter(None, around), parts)
        parts = [part for part in parts if part not in _TRACED] or parts
        if node.directions == 2 and len(parts) > 1 and _HALF.match(parts[-1]):
            parts = parts[:-1]
    elif len(parts) > 1 and (match := _OPERATOR.fullmatch(parts[-1])):
        parts = [*parts[:-2], f"{parts[-2]}{match[1]}"]
    return _printable(parts)


def _printable(parts: list[str]) -> str:
    text = "/".join(parts)
    return text if text.isprintable() and text else "lstm"


def _parts(name: str) -> list[str]:
    split = name.replace("::", "/").split("/")
    return [part for part in split if part not in ("", ".", "..")]


def _layer(node: LSTMNode, name: str, used: outputs.Use, notes: list[str]) -> LSTMLayer:
    if _is_fed_backwards(node):
        notes.append(
            f"{name}: the graph may turn the sequence round before the LSTM: if so, it is a layer "
            "with go_backwards"
        )
    if node.has_lengths:
        notes.append(
            f"{name}: the graph tells the LSTM how long each sequence is: give the layer a mask "
            "that says so"
        )
    if node.is_quantized:
        notes.append(
            f"{name}: 8-bit weights, read as the numbers that they stand for; the graph also "
            "rounds what it is given to 8 bits as it runs, and a layer does not"
        )
    halves = [_direction(node, index, used) for index in range(node.directions)]
    return LSTMLayer(
        name=name,
        path=node.node.name or name,
        class_name="LSTM" if node.directions == 1 else "Bidirectional",
        forward=halves[0],
        backward=halves[1] if node.directions == 2 else None,
        options=LayerOptions(
            merge_mode=used.merge_mode if node.directions == 2 else UNKNOWN,
            masked=node.has_lengths,
            policy=node.values["W"].dtype.name,
        ),
    )


def _direction(node: LSTMNode, index: int, used: outputs.Use) -> Direction:
    return Direction(
        cells=(nodes.cell(node, index),),
        options=DirectionOptions(
            return_sequences=used.steps,
            return_state=used.carry or (used.steps and used.hidden),
            go_backwards=node.direction == "reverse" or index == 1,
            stateful=False,
            unroll=False,
            time_major=False,
            keeps_time_order=node.direction == "reverse" and used.steps and not used.turned,
            # Behind the end of a sequence, ONNX Runtime gives zeros.
            zero_output_for_mask=node.has_lengths and node.directions == 1,
            policy=node.values["W"].dtype.name,
        ),
        class_name="LSTM",
    )


def _is_fed_backwards(node: LSTMNode) -> bool:
    value = node.input("X")
    before = node.scope.producers.get(value)
    return before is not None and before.op_type == "ReverseSequence"


def _other(
    found: Skeleton, graphs: Graphs, constants: Constants
) -> tuple[Mapping[str, Tensor], int]:
    """Return the initializers that are no LSTM's weights, by name, and how many are not read."""
    named: dict[str, Tensor] = {}
    left_out = 0
    for scope in graphs.scopes:
        for name, proto in scope.initializers.items():
            if (id(scope), name) in constants.asked:
                continue
            if not values.is_known(proto):
                left_out += 1
                continue
            path = "/".join(part for part in name.split("/") if part not in ("", "."))
            path = path.replace("\0", "") or "unnamed"
            wanted = naming.unique([*named, path])[-1]
            named[wanted] = found.tensor(proto)
    return named, left_out

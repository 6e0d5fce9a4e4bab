"""Opening ONNX files: our own, exactly, and any model that has LSTM nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from lstmconvert.errors import NoLSTM, NotAModel
from lstmconvert.files import opening
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.model import naming, settings
from lstmconvert.model.layer import Direction, LSTMLayer
from lstmconvert.model.model import PER_GATE, Model, Source
from lstmconvert.model.options import UNKNOWN, DirectionOptions, LayerOptions, Unknown
from lstmconvert.onnx import nodes, skeleton
from lstmconvert.onnx.constants import Constants, NotConstantError
from lstmconvert.onnx.nodes import LSTMNode
from lstmconvert.onnx.skeleton import Graphs, Skeleton, attributes
from lstmconvert.onnx.whole import kept as whole
from lstmconvert.pergate import metadata
from lstmconvert.pergate.checksums import Described
from lstmconvert.tensors.dtypes import same_bits
from lstmconvert.tensors.tensor import SourceFile, Tensor

CONTAINER = LAYOUT = "onnx"
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
#: The text that exporters put after the name of a node's first output.
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
    file = skeleton.read(source)
    graphs = skeleton.graphs_of(file)
    texts = {entry.key: entry.value for entry in file.proto.metadata_props}
    model = None
    if metadata.KEY in texts:
        model = _model_of_metadata(file, graphs, texts)
    if model is None:
        file.described = None
        model = _foreign(file, graphs)
        if metadata.KEY in texts:
            model = replace(model, notes=(*model.notes, _STALE))
    return replace(model, source=replace(model.source, check=file.check))


def _refuse_others(source: SourceFile) -> None:
    head = opening.head(source, 64)
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


# ---- files that were written here ----------------------------------------------------------------


def _model_of_metadata(file: Skeleton, graphs: Graphs, texts: Mapping[str, str]) -> Model | None:
    """Return the model that the metadata describes; None if its tensors are not there."""
    described = Described(texts[metadata.KEY], file.source.path, metadata.KEY)
    stored = {proto.name: proto for proto in file.proto.graph.initializer}
    checksums = described.checksums or {}
    if checksums.keys() <= stored.keys():
        described.check_seal({name: file.tensor(stored[name]) for name in checksums})
    elif whole.KEY not in texts:
        return None
    wanted = _wanted(described.value)
    file.described = described
    tensors = {
        proto.name: file.tensor(proto)
        for proto in file.proto.graph.initializer
        if proto.name in wanted or proto.name.startswith(naming.OTHER)
    }
    if wanted - tensors.keys():
        tensors.update(_fused(file, graphs, wanted))
    if wanted - tensors.keys():
        return None
    if whole.KEY in texts:
        every = {name: file.tensor(proto) for name, proto in stored.items()}
        tensors.update(whole.others(texts[whole.KEY], every, file.source.path))
    return metadata.Reader(tensors, file.source.path).model(described.value, CONTAINER)


def _wanted(value: JsonObject) -> set[str]:
    layers = value.get("layers")
    maps = [
        layer.get("tensors") for layer in layers if isinstance(layer, dict)
    ] if isinstance(layers, list) else []
    return {name for names in maps if isinstance(names, dict) for name in names}


def _fused(file: Skeleton, graphs: Graphs, wanted: set[str]) -> dict[str, Tensor]:
    """Cut the gates out of W, R, B and P of the nodes that bear our names."""
    result = {}
    stored = {proto.name: proto for proto in file.proto.graph.initializer}
    for node in _nodes(file, graphs, Constants(file, graphs)):
        node_name = node.node.name
        # Under a mixed policy the node is given casts of the stored weights.
        wide = {key: f"{node_name}.{key}" for key in node.values if f"{node_name}.{key}" in stored}
        kept = {key: file.tensor(stored[name]) for key, name in wide.items()}
        node = replace(node, values={**node.values, **kept})
        both = (f"{node_name}.forward", f"{node_name}.backward")
        for index, prefix in enumerate(both if node.directions == 2 else (node_name,)):
            for gate, weights in nodes.gates(node, index).items():
                for part, tensor in weights.tensors.items():
                    name = f"{prefix}.{gate}_gate.{part}"
                    if name in wanted:
                        result[name] = tensor
    return result


# ---- any other -----------------------------------------------------------------------------------


def _foreign(file: Skeleton, graphs: Graphs) -> Model:
    constants = Constants(file, graphs)
    looks = Constants(file, graphs)  # what the graph does with outputs asks for no weights
    lstms = list(_nodes(file, graphs, constants))
    uses = {id(node): use(node, graphs, looks) for node in lstms}
    lstms = _unshared(lstms, uses, constants)
    if not lstms:
        return _spelled(file, graphs, constants)
    names = naming.layer_names(_readable(node, graphs) for node in lstms)
    notes: list[str] = []
    layers = tuple(
        _layer(node, name, uses[id(node)], notes)
        for node, name in zip(lstms, names, strict=True)
    )
    return _with_others(file, graphs, constants, layers, notes, LAYOUT)


def _spelled(file: Skeleton, graphs: Graphs, constants: Constants) -> Model:
    """Return the cells that are written in plain operators.

    Raises:
        NoLSTM: there are none.
    """
    from lstmconvert.onnx.spelled import flow_of  # rarely needed
    from lstmconvert.spelled.layers import recovered

    result = recovered(flow_of(file, graphs, constants))
    if not result.layers:
        kinds = sorted({node.op_type for _, node in graphs.nodes})
        raise NoLSTM(
            "no LSTM node",
            where=file.source.path,
            found=", ".join(kinds)[:120] or "no nodes",
            hint=(
                f"what looks like a cell of plain operators is none: {result.refused[0]}"
                if result.refused
                else "no cell of plain operators is in it either: convert the model that it was "
                "exported from"
            ),
        )
    constants.asked.update(
        ref for weights in result.weights for ref in weights if isinstance(ref, tuple)
    )
    return _with_others(file, graphs, constants, result.layers, list(result.notes), PER_GATE)


def _with_others(
    file: Skeleton,
    graphs: Graphs,
    constants: Constants,
    layers: tuple[LSTMLayer, ...],
    notes: list[str],
    layout: str,
) -> Model:
    other, left_out = _other(file, graphs, constants)
    if left_out:
        notes.append(f"{left_out} tensors of types that are not read here are left out")
    return Model(
        layers=layers,
        source=Source(container=CONTAINER, digest=file.digest),
        container=CONTAINER,
        layout=layout,
        other=other,
        notes=tuple(notes),
    )


def _nodes(file: Skeleton, graphs: Graphs, constants: Constants) -> Iterator[LSTMNode]:
    for scope, node in graphs.nodes:
        if nodes.is_lstm(node):
            name = node.name or next((out for out in node.output if out), "LSTM")
            yield nodes.read(node, scope, constants, f"{file.source.path}: {name}")


def _unshared(
    lstms: list[LSTMNode], uses: Mapping[int, Use], constants: Constants
) -> list[LSTMNode]:
    """Leave out nodes that are one layer called again: made of the same initializers, alike in all.

    The branches of an If each have a node of their own.
    """
    first: dict[object, list[LSTMNode]] = {}
    for node in lstms:
        alike = first.setdefault(_identity(node, uses[id(node)], constants), [])
        if not any(_same_weights(node, other) for other in alike):
            alike.append(node)
    kept = {id(node) for alike in first.values() for node in alike}
    return [node for node in lstms if id(node) in kept]


def _identity(node: LSTMNode, used: Use, constants: Constants) -> object:
    return (
        node.direction,
        node.batch_first,
        node.turned,
        tuple(node.activations),
        node.clip,
        node.coupled,
        node.has_lengths,
        used,
        tuple(
            (name, constants.leaves(node.scope, node.input(name))) for name in sorted(node.values)
        ),
    )


def _same_weights(first: LSTMNode, second: LSTMNode) -> bool:
    # Two layers may be slices of one initializer.
    return all(same_bits(first.values[n].read(), second.values[n].read()) for n in first.values)


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
        around = [_parts(other)[:-1] for other in neighbours(node, graphs)]
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


def _layer(node: LSTMNode, name: str, used: Use, notes: list[str]) -> LSTMLayer:
    if node.turned:
        notes.append(
            f"{name}: the graph turns the sequence round before the LSTM, which is read as part of "
            "the layer: go_backwards"
        )
    if used.steps and _is_turned_behind(node, used):
        notes.append(
            f"{name}: the graph turns the steps that it returns round in time: no option of a "
            "layer says so, turn them round yourself"
        )
    if node.origins:
        note = settings.states_to_pass(list(node.origins.items()), node.units, node.directions)
        notes.append(f"{name}: {note}")
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


def _is_turned_behind(node: LSTMNode, used: Use) -> bool:
    """Whether the steps come out in an order that no layer returns."""
    if node.directions == 2:
        return used.turned
    return used.turned != node.turned and not node.reads_backwards(0)


def _direction(node: LSTMNode, index: int, used: Use) -> Direction:
    return Direction(
        cells=(nodes.cell(node, index),),
        options=DirectionOptions(
            return_sequences=used.steps,
            return_state=used.carry or (used.steps and used.hidden),
            go_backwards=node.reads_backwards(index),
            stateful=False,
            unroll=False,
            time_major=False,
            keeps_time_order=(
                node.directions == 1
                and node.reads_backwards(index)
                and used.steps
                and used.turned == node.turned
            ),
            # Behind the end of a sequence, ONNX Runtime gives zeros.
            zero_output_for_mask=node.has_lengths and node.directions == 1,
            policy=node.values["W"].dtype.name,
        ),
        class_name="LSTM",
    )


def _other(
    file: Skeleton, graphs: Graphs, constants: Constants
) -> tuple[Mapping[str, Tensor], int]:
    """Return the initializers that are not LSTM's weights, by name, and how many are not read."""
    named: dict[str, Tensor] = {}
    left_out = 0
    for scope in graphs.scopes:
        for name, proto in scope.initializers.items():
            if (id(scope), name) in constants.asked:
                continue
            if not skeleton.is_known(proto):
                left_out += 1
                continue
            path = "/".join(part for part in name.split("/") if part not in ("", "."))
            path = path.replace("\0", "") or "unnamed"
            wanted = naming.unique([*named, path])[-1]
            named[wanted] = file.tensor(proto)
    return named, left_out


# ---- what a graph does with a node's outputs, as far as that tells options of a layer ------------
#
# A node always computes every step of every direction. The nodes after it tell whether only the
# last step counts (return_sequences) and how two directions are joined (merge_mode). Values are
# followed with the meaning of each of their axes: T time, D directions, B batch, H units.

#: Nodes that hand their first input on as it is, as far as its axes go.
_HAND_ON = frozenset({"Cast", "Dropout", "Identity"})
#: The most nodes behind an LSTM that are looked at.
_STEPS = 200


@dataclass(frozen=True, slots=True)
class Use:
    """What of a node's outputs is used.

    Fields: `steps`: all steps, or some beside the last; `hidden` and `carry`: the last states, as
    outputs of their own; `merge_mode`, `UNKNOWN` where the graph joins the directions in no way of
    Keras's, or not at all; `turned`: whether the order of time is turned round.
    """

    steps: bool
    hidden: bool
    carry: bool
    merge_mode: str | Unknown
    turned: bool


def use(node: LSTMNode, graphs: Graphs, constants: Constants) -> Use:
    """Return what the graph does with a node's outputs; if nothing, all that the node has count."""
    names = [node.output(name) for name in ("Y", "Y_h", "Y_c")]
    used = [graphs.is_used(name) for name in names]
    if not any(used):
        used = [bool(name) for name in names]
    steps, hidden, carry = used
    tracer = _Tracer(graphs, constants, node)
    axes = "BTDH" if node.batch_first else "TDBH"
    ends = tracer.ends(_Value(names[0], axes)) if steps else []
    is_last = bool(ends) and all(end.last for end in ends)
    if not steps and hidden:  # what is returned is the last step, by its other name
        axes = axes.replace("T", "")
        ends, hidden = tracer.ends(_Value(names[1], axes, last=True)), False
    modes = {end.mode for end in ends}
    mode = modes.pop() if len(modes) == 1 else None
    turned = bool(ends) and all(end.turned for end in ends)
    return Use(steps and not is_last, hidden, carry, UNKNOWN if mode is None else mode, turned)


@dataclass(frozen=True, slots=True)
class _Value:
    """A value on its way.

    Fields: `name`; `axes`, a letter each; `half`: 0 or 1, or None for both directions; `last`:
    whether it is the last step alone; `turned`: whether time runs the other way; `mode`: how the
    directions were joined.
    """

    name: str
    axes: str
    half: int | None = None
    last: bool = False
    turned: bool = False
    mode: str | None = None


class _Tracer:
    def __init__(self, graphs: Graphs, constants: Constants, node: LSTMNode) -> None:
        self._graphs, self._constants, self._node = graphs, constants, node
        self._seen: dict[str, _Value] = {}

    def ends(self, start: _Value) -> list[_Value]:
        """Follow a value until it is used for something else; return what it is there."""
        waiting, result = [start], list[_Value]()
        for _ in range(_STEPS):
            if not waiting:
                return result
            value = waiting.pop()
            self._seen[value.name] = value
            if value.name in self._graphs.outputs:
                result.append(value)
            for user in self._graphs.uses.get(value.name, ()):
                following = self._behind(user, value)
                if following is None:
                    result.append(value)
                waiting += following or ()
        return [start]

    def _behind(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        """Return what a node makes of a value; None if that is not followed.

        A node that waits for the other half returns nothing, and is met again from there.
        """
        kind = user.op_type
        if not user.output or (value.mode is None and kind in ("Concat", "Add", "Mul")):
            return self._joined(user, value)
        if user.input[0] != value.name and kind != "Where":
            return None
        name = user.output[0]
        if kind in _HAND_ON or (kind == "Where" and value.name in user.input[1:]):
            return [replace(value, name=name)]
        if kind == "Transpose":
            return self._transposed(user, value)
        if kind == "Squeeze":
            axes = self._axes(user, 1, value)
            if axes is None:
                return None
            kept = "".join(a for index, a in enumerate(value.axes) if index not in axes)
            half = 0 if self._node.directions == 1 and "D" not in kept else value.half
            return [replace(value, name=name, axes=kept, half=half)]
        if kind == "Split":
            return self._split(user, value)
        if kind in ("Slice", "Gather"):
            return self._picked(user, value)
        if kind == "ReverseSequence" and "T" in value.axes:
            return [replace(value, name=name, turned=not value.turned)]
        if kind == "Reshape" and value.half is None and value.axes.endswith("DH"):
            mode = "concat" if self._node.directions == 2 else None
            return [replace(value, name=name, axes=f"{value.axes[:-2]}H", mode=mode, half=0)]
        return None

    def _transposed(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        given = attributes(user).get("perm")
        order = list(given.ints) if given is not None else []
        if sorted(order) != list(range(len(value.axes))):
            return None
        axes = "".join(value.axes[index] for index in order)
        return [replace(value, name=user.output[0], axes=axes)]

    def _split(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        axis = attributes(user)["axis"].i if "axis" in attributes(user) else 0
        if value.half is not None or self._letter(value, axis) != "D" or len(user.output) != 2:
            return None
        return [replace(value, name=name, half=i) for i, name in enumerate(user.output)]

    def _picked(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        place = self._pick(user, value)
        if place is None:
            return None
        letter, index, axes = place
        following = replace(value, name=user.output[0], axes=axes)
        if letter == "T" and index is None:
            return [replace(following, turned=not value.turned)]
        if letter == "D" and value.half is None and index is not None:
            half = index if index >= 0 else index + self._node.directions
            return [replace(following, half=half)] if half in (0, 1) else None
        if letter == "T" and not value.turned and (value.half is not None or self._is_single):
            reads_back = self._node.direction == "reverse" or value.half == 1
            if index == (0 if reads_back else -1):
                return [replace(following, last=True)]
        return None

    @property
    def _is_single(self) -> bool:
        return self._node.directions == 1

    def _pick(self, user: onnx.NodeProto, value: _Value) -> tuple[str, int | None, str] | None:
        """Return the axis that a Gather or Slice picks one place of, the place, and the axes left.

        The place is None for a Slice from the last to the first.
        """
        if user.op_type == "Gather":
            stated = attributes(user)
            axis = stated["axis"].i if "axis" in stated else 0
            picked = self._numbers(user, 1)
            letter = self._letter(value, axis)
            if picked is None or len(picked) != 1 or not letter:
                return None
            is_scalar = self._rank(user, 1) == 0
            return letter, picked[0], value.axes.replace(letter, "") if is_scalar else value.axes
        starts, ends, axes = (self._numbers(user, place) for place in (1, 2, 3))
        steps = self._numbers(user, 4) if len(user.input) > 4 else [1]
        if starts is None or ends is None or axes is None or steps is None:
            return None
        if [len(numbers) for numbers in (starts, ends, axes, steps)] != [1, 1, 1, 1]:
            return None
        letter = self._letter(value, axes[0])
        if steps == [-1] and starts[0] in (-1, 2**63 - 1, 2**31 - 1) and ends[0] < -(2**30):
            return (letter, None, value.axes) if letter == "T" else None
        is_one = ends[0] == starts[0] + 1 or (starts[0] == -1 and ends[0] >= 2**30)
        return (letter, starts[0], value.axes) if letter and is_one and steps == [1] else None

    def _joined(self, user: onnx.NodeProto, value: _Value) -> Sequence[_Value] | None:
        if value.half is None or self._is_single or not user.output:
            return None
        others = [self._seen.get(name) for name in user.input]
        if any(other is None for other in others):
            return []  # met again from the other half
        both = [other for other in others if other is not None]
        halves = [other.half for other in both]
        if sorted(h for h in halves if h is not None) != [0, 1] or both[0].axes != both[1].axes:
            return None
        mode = {"Concat": "concat", "Add": "sum", "Mul": "mul"}[user.op_type]
        name = user.output[0]
        if mode == "concat" and not self._joins_units(user, value, halves):
            return None
        if mode == "sum":
            mode, name = self._average(user)
        last = all(other.last for other in both)
        turned = any(other.turned for other in both)
        return [_Value(name, value.axes, 0, last, turned, mode)]

    def _joins_units(
        self, user: onnx.NodeProto, value: _Value, halves: Sequence[int | None]
    ) -> bool:
        return halves == [0, 1] and self._letter(value, attributes(user)["axis"].i) == "H"

    def _average(self, user: onnx.NodeProto) -> tuple[str, str]:
        """Tell a sum from an average: a sum that is halved, and used for nothing else."""
        after = self._graphs.uses.get(user.output[0], [])
        if len(after) == 1 and after[0].op_type in ("Div", "Mul") and len(after[0].input) == 2:
            wanted = 2.0 if after[0].op_type == "Div" else 0.5
            for place in (0, 1):
                if after[0].input[place] != user.output[0]:
                    tensor = self._small(after[0], place)
                    if tensor == [wanted] and (place == 1 or wanted == 0.5):
                        return "ave", after[0].output[0]
        return "sum", user.output[0]

    # ---- constants ---------------------------------------------------------------------------

    def _letter(self, value: _Value, axis: int) -> str:
        rank = len(value.axes)
        return value.axes[axis] if -rank <= axis < rank else ""

    def _axes(self, user: onnx.NodeProto, place: int, value: _Value) -> set[int] | None:
        listed = attributes(user).get("axes")  # an attribute until opset 13
        axes = list(listed.ints) if listed is not None else self._numbers(user, place)
        return None if axes is None else {axis % len(value.axes) for axis in axes}

    def _numbers(self, user: onnx.NodeProto, place: int) -> list[int] | None:
        numbers = self._small(user, place)
        return None if numbers is None else [int(number) for number in numbers]

    def _small(self, user: onnx.NodeProto, place: int) -> list[float] | None:
        if place >= len(user.input) or not user.input[place]:
            return None
        try:
            tensor = self._tensor(user, place)
        except NotConstantError:
            return None
        return list(tensor.read().reshape(-1).tolist()) if tensor.size <= 4 else None

    def _rank(self, user: onnx.NodeProto, place: int) -> int:
        return len(self._tensor(user, place).shape)

    def _tensor(self, user: onnx.NodeProto, place: int) -> Tensor:
        return self._constants.tensor(self._graphs.homes[id(user)], user.input[place])


def neighbours(node: LSTMNode, graphs: Graphs) -> Iterator[str]:
    """Yield the names of nodes around one: those before it, then those behind it, nearest first."""
    value = node.input("X")
    for _ in range(_NEAR):
        before = node.scope.producers.get(value)
        if before is None or before.op_type == "LSTM":
            break
        yield before.name
        value = before.input[0] if before.input else ""
    value = next((output for output in node.node.output if graphs.is_used(output)), "")
    for _ in range(_NEAR):
        users = graphs.uses.get(value, [])
        if len(users) != 1 or users[0].op_type == "LSTM" or not users[0].output:
            break
        yield users[0].name
        value = users[0].output[0]


#: Within this many nodes, a node's name tells the layer.
_NEAR = 3

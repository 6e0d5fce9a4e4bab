"""Writing ONNX: one file, or past two gigabytes one file and its data beside it.

The data file is a safetensors file with the same names: `lstm.onnx.data` can be opened as such, and
the model's initializers point into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from lstmconvert import __version__, metadata, naming, readback, writing
from lstmconvert.containers import safetensors
from lstmconvert.errors import LSTMConvertError, UnknownOption, UnsupportedByTarget, UsageError
from lstmconvert.layer import LSTMLayer
from lstmconvert.model import Model
from lstmconvert.onnx import chain, express, layers, types
from lstmconvert.onnx.builder import Graph, Style
from lstmconvert.onnx.layers import Axes, Feed
from lstmconvert.onnx.protofile import Parts, Placed
from lstmconvert.options import UNKNOWN
from lstmconvert.tensors import FileTensor, SourceFile, Tensor

if TYPE_CHECKING:
    from lstmconvert.targets import Options, Result

#: A protocol buffer cannot be longer: protobuf counts its bytes in a signed 32-bit integer.
PROTOBUF_BYTES = 2**31 - 1
#: For what is not counted: the tags and lengths of the metadata.
_MARGIN = 1024
DATA_SUFFIX = ".data"
_NO_KERNEL = ("float64", "bfloat16")


@dataclass(frozen=True, slots=True)
class _Content:
    """What a file will hold: the model as its metadata tells it, the graph, what to say of it."""

    model: Model
    graph: Graph
    opset: int
    warnings: tuple[str, ...]

    @property
    def fused(self) -> bool:
        return self.graph.style.fused


def save(model: Model, path: Path, how: Options, source: Path | None) -> Result:
    """Write an ONNX file.

    Raises:
        UnsupportedByTarget: the LSTM operator cannot express a layer, or ONNX a dtype.
        UnknownOption: a layer's graph depends on an option that the source does not say.
        UsageError: no such opset.
        DestinationError: see `writing.replacing`; it holds for the data file too.
    """
    from lstmconvert.targets import GATES, Result

    content = _content(model, how)
    result = Result(
        destination=path,
        container="onnx",
        layout=GATES,
        layers=tuple(content.model),
        tensors=len(content.graph.weights),
        losses=content.model.losses,
        warnings=(*model.notes, *content.model.losses, *content.warnings),
        written=not how.dry_run,
    )
    if not how.dry_run:
        _write(content, path, how.force, source)
    return result


def _content(model: Model, how: Options) -> _Content:
    style = Style(fused=how.fused, states=how.state_inputs, lengths=how.length_input)
    kept, losses = _expressible(model, how)
    if how.fused:
        folded = [express.with_folded_forget_bias(layer) for layer in kept]
        kept = [layer for layer, _ in folded]
        losses += [text for _, texts in folded for text in texts]
    opset = _opset(how.opset, kept)
    model = replace(model, layers=tuple(kept), losses=(*model.losses, *losses))
    shown = replace(model, layers=tuple(map(express.with_every_output, model.layers)))
    graph, unchained = _graph(shown, style, how.chain)
    if how.with_other or how.with_optimizer:
        other = {**model.other, **model.assets} if how.with_other else {}
        slots = model.optimizer if how.with_optimizer else {}
        for name, tensor in {**other, **slots}.items():
            graph.weight(naming.other(name, asset=name in model.assets), _known(tensor, name))
    warnings = [text for layer in kept for text in _warnings(layer, how)]
    return _Content(model, graph, opset, (*warnings, *unchained))


def _expressible(model: Model, how: Options) -> tuple[list[LSTMLayer], list[str]]:
    """Return the layers that ONNX can express; with allow_lossy the others are left out."""
    kept, lost = [], []
    for layer in model.layers:
        try:
            express.check(express.with_every_output(layer), masks=how.length_input)
        except (UnsupportedByTarget, UnknownOption) as error:
            if not how.allow_lossy or isinstance(error, UnknownOption):
                raise
            lost.append(f"{layer.name}: left out: {error.message}")
            last: LSTMConvertError = error
        else:
            kept.append(layer)
    if not kept:
        raise last
    return kept, lost


def _opset(asked: int | None, kept: list[LSTMLayer]) -> int:
    """Return the opset: by default the oldest that has all that is needed, for most runtimes."""
    narrow = any(
        express.compute_dtype(direction, cell) == "bfloat16" or cell.dtype.name == "bfloat16"
        for layer in kept
        for _, direction in layer.directions
        for cell in direction.lstm_cells
    )
    least = types.BFLOAT16_SINCE if narrow else types.OLDEST
    opset = least if asked is None else asked
    if not least <= opset <= types.newest():
        raise UsageError(
            "no such opset" if not narrow else "no opset whose LSTM takes bfloat16",
            where="--opset",
            found=opset,
            expected=f"{least} to {types.newest()}, the newest that the installed onnx knows",
        )
    return opset


def _known(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype.name not in types.NUMBERS:
        raise UnsupportedByTarget(
            "ONNX cannot hold this dtype",
            where=name,
            option="dtype",
            target=express.TARGET,
            found=tensor.dtype.name,
            hint="leave --with-other away",
        )
    return tensor


def _graph(model: Model, style: Style, chained: bool) -> tuple[Graph, tuple[str, ...]]:
    graph = Graph(style)
    for layer in model.layers:
        # All that the metadata lists, in its order. Fused, the gates are in W, R, B and P.
        for side, index, cell in layer.cells():
            start = naming.prefix(layer, side, index)
            for part, tensor in cell.parts.items() if style.fused else cell.tensors():
                graph.weight(f"{start}.{part}", tensor)
    feeds = chain.feeds(model) if chained else {}
    fed, sources = dict[str, Feed](), set(feeds.values())
    waiting = list(model.layers)
    starts = sum(layer.name not in feeds for layer in waiting)
    while waiting:
        layer = next(x for x in waiting if x.name not in feeds or feeds[x.name] in fed)
        waiting.remove(layer)
        feed = fed[feeds[layer.name]] if layer.name in feeds else None
        axes = _axes(layer, alone=starts == 1)
        fed[layer.name] = layers.add(graph, layer, axes, feed, layer.name not in sources)
    graph.prune()
    if chained and not feeds:
        return graph, ("--chain: no layer feeds another in the source's config: nothing chained",)
    return graph, ()


def _axes(layer: LSTMLayer, alone: bool) -> Axes:
    prefix = "" if alone else f"{layer.name}."
    return Axes(f"{prefix}batch", f"{prefix}time", layer.forward.options.time_major is True)


def _warnings(layer: LSTMLayer, how: Options) -> list[str]:
    direction, name, result = layer.forward, layer.name, []
    compute = express.compute_dtype(direction, direction.lstm_cells[0])
    if compute in _NO_KERNEL:
        result.append(
            f"{name}: ONNX Runtime has no {compute} LSTM on CPU: the file is right, and other "
            "runtimes may run it; --dtype float32 writes one that runs everywhere"
        )
    given = {"return_sequences": "every step", "return_state": "the last states"}
    unsaid = [key for key in given if getattr(direction.options, key) is UNKNOWN]
    if unsaid:
        outputs = " and ".join(given[key] for key in unsaid)
        result.append(f"{name}: {' and '.join(unsaid)} unknown: the graph gives {outputs}")
    if direction.options.stateful is True:
        text = "each run starts from zero" + ("" if how.state_inputs else " without --state-inputs")
        result.append(f"{name}: stateful in the source: {text}: pass the last states back")
    if layer.options.masked is True and not how.length_input:
        result.append(
            f"{name}: a mask reaches it in the source, and the graph has none: give whole "
            "sequences, or write with --length-input"
        )
    return result


def _write(content: _Content, path: Path, force: bool, source: Path | None) -> None:
    from lstmconvert.digest import Digest

    size = sum(tensor.nbytes for tensor in content.graph.weights.values())
    digest = Digest(content.model, size)

    def texts() -> dict[str, str]:
        return {metadata.KEY: digest.texts(content.model)[metadata.KEY]}

    spare = len(texts()[metadata.KEY].encode())  # the first text has no hash yet, and its length
    parts = Parts(_model_proto(content.opset), _graph_proto(content.graph), content.graph.weights)
    if parts.size() + spare + _MARGIN <= PROTOBUF_BYTES:
        with writing.replacing(path, force=force, source=source) as temporary:
            parts.write(temporary, texts)
            _read_back(parts, temporary, path)
            content.model.source.check()
        return
    beside = path.with_name(path.name + DATA_SUFFIX)
    whole = {"format": "np"} if content.fused else None
    with writing.replacing_all([path, beside], force=force, source=source) as (temporary, data):
        seal = safetensors.write(data, parts.weights, lambda: whole or digest.texts(content.model))
        written = safetensors.read(SourceFile(data))[0]
        readback.check_written(parts.weights, written, beside)
        seal()
        replace(parts, placed=_placed(written, beside.name)).write(temporary, texts)
        content.model.source.check()


def _placed(written: Mapping[str, Tensor], name: str) -> dict[str, Placed]:
    """Return where the numbers of each tensor lie in the data file."""
    return {
        key: Placed(name, tensor.offset, tensor.nbytes)
        for key, tensor in written.items()
        if isinstance(tensor, FileTensor)
    }


def _read_back(parts: Parts, temporary: Path, path: Path) -> None:
    from lstmconvert.onnx import skeleton

    model = skeleton.read(SourceFile(temporary))
    found = {proto.name: model.tensor(proto) for proto in model.proto.graph.initializer}
    readback.check_written(parts.weights, found, path)


def _model_proto(opset: int) -> onnx.ModelProto:
    identifier = onnx.helper.make_opsetid("", opset)
    return onnx.ModelProto(
        ir_version=onnx.helper.find_min_ir_version_for([identifier], True),
        producer_name="lstmconvert",
        producer_version=__version__,
        opset_import=[identifier],
    )


def _graph_proto(graph: Graph) -> onnx.GraphProto:
    return onnx.helper.make_graph(
        graph.nodes, "lstmconvert", graph.inputs, graph.outputs, graph.defaults
    )

"""Writing ONNX: one file, or past two gigabytes one file and its data beside it.

The data file is a safetensors file with the same names: `lstm.onnx.data` can be opened as such, and
the model's initializers point into it.

What the LSTM operator cannot express of a layer is refused by name. Everything that a graph around
the operator can make up for is no reason: go_backwards, merge_mode, stacks of cells, a run-time
forget bias.

A protocol buffer is its fields one after another, so that a model file is

    ModelProto without its graph · tag and length of the graph ·
    GraphProto without its initializers · for each: tag and length ·
        TensorProto without its numbers · tag and length of raw_data · the numbers ·
    metadata_props

(https://protobuf.dev/programming-guides/encoding; field numbers: onnx/onnx.proto). The numbers go
from file to file through a few megabytes of memory, and the metadata comes last, when the hash of
the source is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from lstmconvert import __version__
from lstmconvert.conversion import Draft, Options
from lstmconvert.errors import LSTMConvertError, UnsupportedByTarget, UsageError
from lstmconvert.files import safetensors, writing
from lstmconvert.files.jsontext import Piece, joined
from lstmconvert.keras.configs import chain
from lstmconvert.layouts import assume
from lstmconvert.layouts.rows import ONNX
from lstmconvert.model import edit, naming
from lstmconvert.model.activations import Activation
from lstmconvert.model.fit import OPTIONS, Abilities, Fitter
from lstmconvert.model.layer import Direction, LSTMLayer, compute_dtype, compute_dtypes
from lstmconvert.model.model import Model
from lstmconvert.model.options import UNKNOWN
from lstmconvert.onnx import layers, messages
from lstmconvert.onnx.layers import Axes, Feed
from lstmconvert.onnx.messages import Graph, Style
from lstmconvert.pergate import metadata
from lstmconvert.pergate.metadata import Digest
from lstmconvert.tensors.checksums import crc32c
from lstmconvert.tensors.streaming import Sums, pour_into, sums_in
from lstmconvert.tensors.tensor import FileTensor, SourceFile, Tensor

TARGET = "ONNX"
#: f(-x) = 1 - f(x): what a coupled gate needs, because ONNX Runtime computes the forget gate from
#: the input gate, and not the other way round.
_SYMMETRIC = ("sigmoid", "hard_sigmoid", "sparse_sigmoid")
_ABILITIES = Abilities(
    title="ONNX's LSTM",
    name=TARGET,
    parts=frozenset(
        {
            *("kernel", "recurrent_kernel", "bias", "recurrent_bias", "peephole"),
            *("initial_hidden", "initial_cell"),
        }
    ),
    # Nodes around the operator turn, merge and chain: of those options, none is in the way.
    options=OPTIONS - {"convolution", "cell_clip", "projection_clip"},
    activation=ONNX.activation,
    recurrent_activation=ONNX.recurrent_activation,
    forget_bias=None,
    known=frozenset(
        {
            *("activation", "recurrent_activation", "forget_bias"),
            *("return_sequences", "return_state", "go_backwards", "merge_mode"),
        }
    ),
    hint="leave the layer out with --layer, or let --allow-lossy leave it out",
)


def fitter_of(*, masks: bool, fused: bool) -> Fitter:
    """Return what fits layers into a graph, or refuses them.

    Args:
        masks: whether the graph takes sequence lengths.
        fused: whether the weights are plain W, R and B, which have no run-time forget bias.
    """
    known = _ABILITIES.known | ({"zero_output_for_mask"} if masks else frozenset())
    amount = 0.0 if fused else None
    title = "fused ONNX weights" if fused else _ABILITIES.title
    return Fitter(_ABILITIES._replace(known=known, forget_bias=amount, title=title))


def fit(layer: LSTMLayer, fitter: Fitter) -> LSTMLayer:
    """Return a layer as a graph of ours computes it.

    Raises:
        UnknownOption: an option that shapes the graph is unknown.
        UnsupportedByTarget: the operator cannot express an option or a part.
    """
    layer = fitter.fit(layer)
    for _, _, cell in layer.cells():
        activation = cell.options.recurrent_activation
        if cell.options.input_forget and not _is_symmetric(activation):
            fitter.refuse(layer, "input_forget", activation)
    dtypes = compute_dtypes(layer)
    if len(dtypes) > 1:
        fitter.refuse(layer, "cells of several dtypes", ", ".join(sorted(dtypes)))
    return layer


def with_every_output(layer: LSTMLayer) -> LSTMLayer:
    """Return a layer of a framework's arrays with all outputs that their framework does not choose.

    Nothing is guessed by that: every step and the last states are what such a layer can give.
    """
    if not assume.is_foreign(layer):
        return layer
    return edit.map_directions(layer, lambda _, direction: _giving_all(direction))


def _giving_all(direction: Direction) -> Direction:
    known = direction.options
    states = True if known.return_state is UNKNOWN else known.return_state
    steps = True if known.return_sequences is UNKNOWN else known.return_sequences
    return replace(direction, options=replace(known, return_state=states, return_sequences=steps))


def _is_symmetric(activation: object) -> bool:
    return (
        isinstance(activation, Activation)
        and activation.name in _SYMMETRIC
        and activation.constants.get("beta", 0.5) == 0.5
    )


#: A protocol buffer cannot be longer: protobuf counts its bytes in a signed 32-bit integer.
PROTOBUF_BYTES = 2**31 - 1
#: Room for the bytes that are not counted: the tags and lengths of the metadata.
_MARGIN = 1024
DATA_SUFFIX = ".data"
_NO_KERNEL = ("float64", "bfloat16")


class _Content(NamedTuple):
    """What a file will hold: the model as its metadata tells it, the graph, what to say of it;
    `texts`: metadata beside the usual one; `others`: the paths of other tensors that it holds."""

    model: Model
    graph: Graph
    opset: int
    warnings: tuple[str, ...]
    texts: Mapping[str, str] = {}
    others: tuple[str, ...] = ()

    @property
    def fused(self) -> bool:
        return self.graph.style.fused


def draft(model: Model, path: Path, how: Options) -> Draft:
    """Return what an ONNX file will hold.

    Raises:
        UnsupportedByTarget: the LSTM operator cannot express a layer, or ONNX a dtype.
        UnknownOption: a layer's graph depends on an option that the source does not say.
        UsageError: no such opset.
    """
    if how.replace and not how.whole:
        raise UsageError("--replace is for whole models: add --whole", where=path)
    content = _whole(model, how) if how.whole else _content(model, how)
    if how.check:
        content = _checked(content, how)
    file = _File(content, path)
    could_be_whole = model.is_complete and "model_config" in model.texts
    return Draft(
        layers=tuple(content.model),
        tensors=len(content.graph.weights),
        others=content.others,
        whole_model=how.whole,
        extent=_WHOLE if how.whole else _COULD_BE_WHOLE if could_be_whole else "",
        without=set(model) - set(content.model),
        write=file.write,
        more_files=file.data_files,
        losses=content.model.losses,
        warnings=(*model.notes, *content.model.losses, *content.warnings),
    )


def _checked(content: _Content, how: Options) -> _Content:
    """Return the content with what the model gives for one input in its metadata."""
    from lstmconvert.keras.modern import chains  # rarely needed

    if how.whole:
        answers, notes = chains.answers(content.model, TARGET)
    else:
        shown = map(with_every_output, content.model.layers)
        answers, notes = chains.answers_of_layers(replace(content.model, layers=tuple(shown))), []
    model = replace(content.model, answers=answers)
    return content._replace(model=model, warnings=(*content.warnings, *notes))


_WHOLE = ", the whole model"
_COULD_BE_WHOLE = " alone; --whole writes the graph of the whole model"


def _whole(model: Model, how: Options) -> _Content:
    from lstmconvert.onnx.whole import network

    opset = None if how.opset is None else _opset(how.opset, [])
    content = network.content(model, how, opset, messages.OLDEST)
    others = (*model.other, *model.assets)
    warnings = (*content.warnings,)
    return _Content(model, content.graph, content.opset, warnings, content.texts, others)


def _content(model: Model, how: Options) -> _Content:
    style = Style(fused=how.fused, states=how.state_inputs, lengths=how.length_input)
    kept, losses = _expressible(model, how)
    opset = _opset(how.opset, kept)
    model = replace(model, layers=tuple(kept), losses=(*model.losses, *losses))
    shown = replace(model, layers=tuple(map(with_every_output, model.layers)))
    graph, unchained = _graph(shown, style, how.chain)
    if how.with_other or how.with_optimizer:
        other = {**model.other, **model.assets} if how.with_other else {}
        slots = model.optimizer if how.with_optimizer else {}
        for name, tensor in {**other, **slots}.items():
            graph.weight(naming.other(name), _known(tensor, name))
    warnings = [text for layer in kept for text in _warnings(layer, how)]
    others = (*model.other, *model.assets) if how.with_other else ()
    return _Content(model, graph, opset, (*warnings, *unchained), others=others)


def _expressible(model: Model, how: Options) -> tuple[list[LSTMLayer], list[str]]:
    """Return the layers that ONNX can express; with allow_lossy the others are left out."""
    kept, lost = [], []
    fitter = fitter_of(masks=how.length_input, fused=how.fused)
    for layer in model.layers:
        try:
            fitted = fit(with_every_output(layer), fitter)
        except UnsupportedByTarget as error:
            if not how.allow_lossy:
                raise
            lost.append(f"{layer.name}: left out: {error.message}")
            last: LSTMConvertError = error
        else:
            kept.append(_with_options_of(fitted, layer))
    if not kept:
        raise last
    return kept, [*fitter.losses, *lost]


def _with_options_of(fitted: LSTMLayer, layer: LSTMLayer) -> LSTMLayer:
    """Return a fitted layer with the layer's own options of time: its graph may give more."""
    halves = dict(layer.directions)
    return edit.map_directions(
        fitted, lambda side, direction: replace(direction, options=halves[side].options)
    )


def _opset(asked: int | None, kept: list[LSTMLayer]) -> int:
    """Return the opset: by default the oldest that has all that is needed, for most runtimes."""
    narrow = any(
        compute_dtype(direction, cell) == "bfloat16" or cell.dtype.name == "bfloat16"
        for layer in kept
        for _, direction in layer.directions
        for cell in direction.lstm_cells
    )
    least = messages.BFLOAT16_SINCE if narrow else messages.OLDEST
    opset = least if asked is None else asked
    # The library is asked about what came after the table alone: importing it takes long.
    if opset < least or (opset > messages.TABLED and opset > messages.newest()):
        raise UsageError(
            "no such opset" if not narrow else "no opset whose LSTM takes bfloat16",
            where="--opset",
            found=opset,
            expected=f"{least} to {messages.newest()}, the newest that the installed onnx knows",
        )
    return opset


def _known(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype.name not in messages.NUMBERS:
        raise UnsupportedByTarget(
            "ONNX cannot hold this dtype",
            where=name,
            option="dtype",
            target=TARGET,
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
    compute = compute_dtype(direction, direction.lstm_cells[0])
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


class _File:
    """A file that is being written: one, or past two gigabytes two."""

    def __init__(self, content: _Content, path: Path) -> None:
        self._content, self._path = content, path
        self._sums = Sums()

    @cached_property
    def _parts(self) -> Parts:
        body, weights = self._content.graph.body(), self._content.graph.weights
        graph = messages.graph(body)
        return Parts(_model(self._content.opset, body.nodes), graph, weights, _heads(weights))

    @cached_property
    def _digest(self) -> Digest:
        return Digest(self._content.model, self._content.graph.weights, self._sums)

    @cached_property
    def _pieces(self) -> list[Piece]:
        return list(self._digest.texts(self._content.model, is_known=False)[metadata.KEY])

    def _metadata(self, *, is_known: bool) -> dict[str, str]:
        return {metadata.KEY: joined(self._pieces, is_known=is_known), **self._content.texts}

    def data_files(self) -> list[Path]:
        """Return the data file, where one file would be too long."""
        # The first text has no hash yet, and the length of the last.
        spare = sum(len(text.encode()) for text in self._metadata(is_known=False).values())
        if self._parts.size() + spare + _MARGIN <= PROTOBUF_BYTES:
            return []
        return [self._path.with_name(self._path.name + DATA_SUFFIX)]

    def write(self, temporaries: Sequence[Path]) -> None:
        """Write the file, and its data file where there is one, and read them back."""
        temporary, *data = temporaries
        parts = self._parts
        if data:
            placed = self._data(data[0])
            parts = parts._replace(heads=_heads(parts.weights, placed), has_numbers=False)
        check = parts.write(temporary, partial(self._metadata, is_known=True), self._sums)
        with writing.flushing(temporary):
            check()

    def _data(self, path: Path) -> dict[str, ExternalBytes]:
        """Write the data file, and return where in it the numbers of each tensor lie."""
        name = self._path.name + DATA_SUFFIX
        texts: dict[str, list[Piece]] = {"format": ["np"]}
        if not self._content.fused:
            texts[metadata.KEY] = self._pieces
        written = safetensors.write(path, self._parts.weights, lambda _: texts, self._sums)
        with writing.flushing(path):
            written.check()
        written.seal()
        return _placed(safetensors.read(SourceFile(path), with_metadata=False)[0], name)


def _placed(written: Mapping[str, Tensor], name: str) -> dict[str, ExternalBytes]:
    """Return where the numbers of each tensor lie in the data file."""
    return {
        key: ExternalBytes(name, tensor.offset, tensor.nbytes)
        for key, tensor in written.items()
        if isinstance(tensor, FileTensor)
    }


def _model(opset: int, nodes: Sequence[messages.Node]) -> bytes:
    producer = ("lstmconvert", __version__)
    return messages.model(messages.ir_version(opset), producer, opset, nodes)


#: Field numbers: a model's graph, a graph's initializer, a tensor's numbers.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


class ExternalBytes(NamedTuple):
    """Where a tensor's numbers lie in a data file: the file's name, offset and length."""

    location: str
    offset: int
    length: int


class Parts(NamedTuple):
    """What a model file is made of.

    Fields: `model`: without a graph; `graph`: without the weights; `weights`: name -> tensor;
    `heads`: of each weight, as `_heads` makes them; `has_numbers`: whether the numbers lie in the
    file, and not in a data file.
    """

    model: bytes
    graph: bytes
    weights: Mapping[str, Tensor]
    heads: Mapping[str, tuple[bytes, int]]
    has_numbers: bool = True

    def size(self) -> int:
        """The size of the file in bytes, without metadata."""
        return len(self._start()) + sum(len(before) + size for before, size in self.heads.values())

    def _start(self) -> bytes:
        """Return what stands before the first weight."""
        length = sum(len(before) + size for before, size in self.heads.values())
        return self.model + messages.head(_GRAPH, len(self.graph) + length) + self.graph

    def write(
        self, path: Path, metadata: Callable[[], Mapping[str, str]], sums: Sums
    ) -> Callable[[], None]:
        """Write the file, and return what compares it with what was written.

        Args:
            path: the file.
            metadata: called once, after the weights are written.
            sums: takes the checksum of each weight whose numbers lie in this file.
        """
        start = self._start()
        with open(path, "wb") as file:
            offsets, end = [], len(start)
            file.write(start)
            for before, size in self.heads.values():
                file.seek(end)
                file.write(before)
                offsets.append(end + len(before))
                end = offsets[-1] + size
            file.truncate(end)
            file.flush()
            if self.has_numbers:
                pour_into(file.fileno(), self.weights, offsets, sums)
            file.seek(end)
            last = messages.metadata(metadata())
            file.write(last)

        def check() -> None:
            pieces = [("the graph", len(start), crc32c(start))]
            crcs = sums.passed(self.heads) if self.has_numbers else [0] * len(offsets)
            for (name, (before, size)), crc in zip(self.heads.items(), crcs, strict=True):
                pieces += [(name, len(before), crc32c(before)), (name, size, crc)]
            pieces.append(("the metadata", len(last), crc32c(last)))
            source = SourceFile(path)
            if source.size != end + len(last):
                raise writing.differs(path, f"it has {source.size:,} bytes")
            stored = sums_in(source, 0, (size for _, size, _ in pieces))
            for (name, _, crc), read in zip(pieces, stored, strict=True):
                if read != crc:
                    raise writing.differs(path, name)

        return check


def _heads(
    weights: Mapping[str, Tensor], placed: Mapping[str, ExternalBytes] | None = None
) -> dict[str, tuple[bytes, int]]:
    """Return each initializer up to its numbers, and their length in the model file.

    Args:
        weights: name -> tensor.
        placed: where the numbers are, if they lie in a data file.
    """
    result = {}
    for name, tensor in weights.items():
        start = messages.tensor_head(name, tensor.shape, tensor.dtype.name)
        if placed is None:
            start += messages.head(_RAW_DATA, tensor.nbytes)
            length = tensor.nbytes
        else:
            start += messages.external(placed[name]._asdict())
            length = 0
        result[name] = messages.head(_INITIALIZER, len(start) + length) + start, length
    return result

"""Files of named arrays, of any container: opened as a model, and written from one.

A module of a container reads and writes arrays and metadata, and does not know gates. What the
arrays mean is found here: by our metadata, by the layout that the user says, by the arrays' names;
where they have none, by Keras's order of `get_weights()`, as `np.savez(path, *x)` keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lstmconvert.containers.modules import Arrays, Asked, Opened, SecondFile, Writing
from lstmconvert.containers.table import Container
from lstmconvert.conversion import Draft, Options, Rounded
from lstmconvert.errors import NotAModel, UnsupportedByTarget, UsageError, close_to
from lstmconvert.files import opening, writing
from lstmconvert.files.jsontext import Json, JsonObject, Piece, canonical, parse_object
from lstmconvert.model.chain import Answer, Chain
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.model.model import PER_GATE, Model, Source
from lstmconvert.pergate import gatesfile, metadata
from lstmconvert.pergate.checksums import Described
from lstmconvert.pergate.metadata import Digest
from lstmconvert.tensors.streaming import Sums
from lstmconvert.tensors.tensor import SourceFile, Tensor

if TYPE_CHECKING:
    from lstmconvert.keras.reading.load import GivenConfig
    from lstmconvert.layouts.write import Content


def open_model(file: Opened, row: Container, asked: Asked) -> Model:
    """Open a file of named arrays as a model.

    Raises:
        NotAModel: the arrays are in no layout that is known by their names.
        SourceError: see `ArrayModule.read` and `layouts.read.model`.
    """
    return opened(row.array_module().read(file), file, row, asked)


def opened(arrays: Arrays, file: Opened, row: Container, asked: Asked) -> Model:
    """Return the model of arrays that were read from a file. Raises as `open_model`."""
    if asked.config is not None and is_unnamed(list(arrays.tensors)):
        tensors = _in_order(arrays, file, asked.config)
        arrays, asked = arrays._replace(tensors=tensors), Asked(LAYOUT, asked.config)
    value = None
    if metadata.KEY in arrays.texts:
        described = Described(arrays.texts[metadata.KEY], file.path, metadata.KEY)
        value = described.value
        arrays = arrays._replace(tensors=described.verified(arrays.tensors), texts={})
        del described  # of thousands of layers, the text is megabytes
    is_ours = value is not None
    if arrays.store is not None and not is_ours:
        model = _keras_model(arrays, file, row, asked)
    else:
        model = _arranged(arrays.tensors, value, file, row, asked.layout)
    if arrays.completed is not None and not is_ours:
        model = replace(model, layers=tuple(map(arrays.completed, model.layers)))
    if arrays.document:
        document = canonical({"program": row.program, "keys": arrays.document})
        model = replace(model, texts={**model.texts, metadata.DOCUMENT: document})
    if arrays.answers and not model.answers:
        model = replace(model, answers=arrays.answers)
    if arrays.proven is not None:
        _prove(model, row, arrays.proven)
    return replace(
        model,
        source=_sourced(model, file, arrays.check, is_ours=is_ours),
        notes=(*model.notes, *arrays.notes),
    )


def _in_order(arrays: Arrays, file: Opened, config: GivenConfig) -> Mapping[str, Tensor]:
    """Name arrays that were saved without names, in the order of `get_weights()`."""
    from lstmconvert.keras.reading import described  # imported late to keep start-up fast

    layers = described.layers(config.text, config.version, config.where)
    return named(arrays.tensors, layers, file.path)


def _keras_model(arrays: Arrays, file: Opened, row: Container, asked: Asked) -> Model:
    from lstmconvert.keras.reading import load

    if arrays.store is None:
        raise AssertionError("no Keras model")
    store = arrays.store()
    model = load.load_tree(
        store.tree, store.config, store.version, file.path, row.name, asked.config
    )
    model = replace(model, layout=row.layouts[0])
    if store.whole:
        return model
    # The config is of a whole model, of which the LSTMs alone were read.
    return replace(model, source=replace(model.source, structure=None), texts={})


def _prove(model: Model, row: Container, proven: Callable[[Chain], None]) -> None:
    """Let a file's own answer to an input tell whether its weights are what they were."""
    from lstmconvert.keras.modern import chains  # rarely needed

    try:
        chain = chains.of(model, row.layouts[0], row.title)
    except UnsupportedByTarget:
        return
    if chain is not None:
        proven(chain)


def _arranged(
    tensors: Mapping[str, Tensor],
    value: JsonObject | None,
    file: Opened,
    row: Container,
    layout: str | None,
) -> Model:
    """Find the layout of named arrays: by metadata, by what the user says, by names."""
    wanted = layout or row.fixed_layout
    is_per_gate = value is not None or gatesfile.is_per_gate(tensors)
    model = None
    if wanted != PER_GATE and (wanted or not is_per_gate or value is not None):
        from lstmconvert.layouts import read  # imported late to keep start-up fast

        model = read.model(tensors, value, row.name, file.path, wanted)
    if model is None and not is_per_gate:
        raise NotAModel(
            "an array file in no layout that is known by its names",
            where=file.path,
            found=", ".join(list(tensors)[:5]) or "no tensors",
            expected="per-gate names such as lstm.forget_gate.kernel, or a framework's",
            hint=_hint(list(tensors)),
        )
    return model or gatesfile.read(tensors, value, row.name, file.path)


def _hint(names: Sequence[str]) -> str:
    if is_unnamed(names):
        return "arrays without names, as of get_weights(): give the model's config with --config"
    return "--from names its layout: lstmconvert formats lists them"


def _sourced(
    model: Model, file: Opened, check_arrays: Callable[[], None] | None, *, is_ours: bool
) -> Source:
    """Return where a model came from, with the checks and the hash of all its files."""
    source, neighbours = file.source, file.neighbours

    def check() -> None:
        (check_arrays or source.check_unchanged)()
        neighbours.check()

    paths = (source.path, *neighbours.paths)
    known = replace(model.source, check=check, files=paths if len(paths) > 1 else ())
    if is_ours:
        return known
    if len(paths) == 1:
        return replace(known, digest=lambda: opening.digest_of_file(source))
    opened = [source, *neighbours.files]
    return replace(
        known, digest=lambda: opening.digest_of_files(source.path.parent, paths, opened)
    )


# -- writing ----------------------------------------------------------------------------------


def draft(
    model: Model, destination: Path, row: Container, layout: str, how: Options
) -> Draft:
    """Return what a file of named arrays will hold.

    Raises:
        UsageError: see `layouts.write.content`; or the container has no place for what is asked.
        UnknownOption, UnsupportedByTarget: the layout cannot express a layer.
    """
    if layout == PER_GATE:
        tensors = gatesfile.tensors(
            model, lstm_only=how.lstm_only, with_optimizer=how.with_optimizer
        )
        notes: list[str] = []
        if how.check:
            from lstmconvert.keras.modern import chains  # rarely needed

            answers, notes = chains.answers(model, layout)
            model = replace(model, answers=answers)
        return Draft(
            layers=tuple(model),
            tensors=len(tensors),
            others=(*model.other, *model.assets),
            losses=model.losses,
            warnings=(*model.notes, *model.losses, *notes),
            more_files=partial(_seconds, row, destination),
            write=partial(_write, row, destination, model, tensors, ()),
        )
    return _arranged_draft(model, destination, row, layout, how)


def _arranged_draft(
    model: Model, destination: Path, row: Container, layout: str, how: Options
) -> Draft:
    from lstmconvert.layouts import write  # imported late to keep start-up fast
    from lstmconvert.layouts.rows import row_of

    _check_stacks(destination, row, how)
    name = f"{how.prefix}_" if how.prefix else ""
    folds: list[str] = []
    if how.fold_batchnorm:
        model, folds = _folded(model, destination, row, layout, how)
    chain, rounded = _chain(model, destination, row, layout, how)
    keys, notes = _document(model, row, chain)
    notes = [*folds, *notes]
    written = model
    if keys:
        texts = {k: text for k, text in model.texts.items() if k != metadata.DOCUMENT}
        written = replace(model, texts=texts)
    content = write.content(
        written,
        row_of(layout),
        stacks=how.stacks,
        bare=how.bare,
        with_other=how.with_other,
        with_optimizer=how.with_optimizer,
        lstm_only=how.lstm_only or (row.chain and chain is None),
        allow_lossy=how.allow_lossy,
        says_options=row.document,
        chain=chain,
    )
    if chain is not None:
        chain = _fitted(chain, content.model)
    coarse, tensors = None, content.tensors
    if how.weights is not None:
        coarse, tensors = _rounded(content, chain, how.weights)
        rounded = [*rounded, coarse.loss]
    losses = (*content.model.losses, *rounded)
    answers: tuple[Answer, ...] = ()
    if chain is None and how.check and not row.has_place:
        raise UsageError(
            "--check stores what the whole model gives, and this one is not a chain",
            where=destination,
            hint="leave --check away",
        )
    if how.check or (chain is not None and row.takes("prefix")):
        answers = _answers(content.model, chain, row, coarse)
        if how.check:
            content = content._replace(model=replace(content.model, answers=answers))
    answer = answers[0] if chain is not None and answers else None
    warnings = [*model.notes, *losses, *content.warnings, *notes, *_of_no_effect(chain)]
    if not row.metadata:
        warnings.append(
            f"{destination.name} has no place for options: its arrays alone come back"
        )
    prefixes = [module["prefix"] for module in content.arranged["modules"]]
    # Only a document looks at them, and it holds no stacks: one layer for each prefix.
    layers = tuple(zip(prefixes, content.model.values(), strict=not how.stacks))
    return Draft(
        layers=tuple(content.model),
        tensors=len(content.tensors),
        others=content.others if chain is None else (*model.other, *model.assets),
        whole_model=chain is not None,
        extent=", the whole model" if chain is not None else "",
        losses=losses,
        warnings=tuple(warnings),
        rounded=coarse,
        more_files=partial(_seconds, row, destination),
        write=partial(
            _write, row, destination, model, content.tensors, layers,
            arranged=content.texts, whole=_Whole(chain, keys, answer, name, coarse),
            intended=tensors,
        ),
    )


class _Whole(NamedTuple):
    """Some fields of `Writing`."""

    chain: Chain | None
    document: Mapping[str, Json]
    answer: Answer | None
    name: str
    rounded: Rounded | None


def _folded(
    model: Model, destination: Path, row: Container, layout: str, how: Options
) -> tuple[Model, list[str]]:
    """Return a model whose BatchNormalizations are in the weights of other layers, and what to say.

    Raises:
        UsageError: only LSTM layers are written.
        UnsupportedByTarget: the model is not a chain, or a BatchNormalization cannot be folded.
    """
    from lstmconvert.containers import sequential  # rarely needed
    from lstmconvert.keras.modern import chains
    from lstmconvert.keras.reading import load

    is_whole = row.chain and not how.lstm_only and not how.with_other
    chain = chains.of(model, layout, row.chain_module().HOLDS.title) if is_whole else None
    if chain is None:
        raise UsageError(
            "--fold-batchnorm is for whole models, and the LSTM layers alone are written",
            where=destination,
            hint="leave --fold-batchnorm away",
        )
    chain, folds = chains.folded(chain, layout)
    if not folds:
        return model, ["--fold-batchnorm: the model has no BatchNormalization"]
    store = sequential.of(chain)
    made = load.load_tree(store.tree, store.config, store.version, destination, row.name, None)
    known = made.source
    source = replace(
        model.source, structure=known.structure, era=known.era, keras_version=known.keras_version
    )
    notes, texts = _of_no_effect(chain), dict(made.texts)
    if metadata.DOCUMENT in model.texts:
        texts[metadata.DOCUMENT] = model.texts[metadata.DOCUMENT]
    if "training_config" in model.texts:
        notes.append("left out, as of the model before: how it was compiled")
    made = replace(
        made, source=source, container=model.container, layout=model.layout,
        describe=model.describe, texts=texts,
        losses=(*model.losses, *folds), notes=model.notes,
    )  # fmt: skip
    return made, notes


def _of_no_effect(chain: Chain | None) -> list[str]:
    if chain is None or not chain.vanished:
        return []
    return [f"left out, as of no effect on a trained model: {', '.join(chain.vanished)}"]


def _fitted(chain: Chain, model: Model) -> Chain:
    """Return a chain whose LSTM layers are those that are written."""
    links = (
        link if link.layer is None else link._replace(layer=model[link.layer.name])
        for link in chain.links
    )
    return chain._replace(links=tuple(links))


def _answers(
    model: Model, chain: Chain | None, row: Container, coarse: Rounded | None
) -> tuple[Answer, ...]:
    """Return what a model gives, as a chain if it is one, else what each of its LSTM layers does.

    Where the target runs step by step, it is every step.
    """
    from lstmconvert.keras.modern import chains
    from lstmconvert.reference import chains as forward

    if chain is None:
        return chains.answers_of_layers(model)
    if coarse is not None:
        chain = forward.rounded(chain, coarse.kind)
    is_stepwise = row.chain_module().HOLDS.every_step
    return (forward.answer(forward.every_step(chain) if is_stepwise else chain),)


def _rounded(
    content: Content, chain: Chain | None, kind: str
) -> tuple[Rounded, Mapping[str, Tensor]]:
    """Return what integers cost, and the arrays that they stand for.

    Raises:
        UsageError: there are no such integers.
    """
    from lstmconvert.reference import chains
    from lstmconvert.tensors import quantized

    if kind not in quantized.LARGEST:
        raise UsageError(
            "no such weights",
            where="--weights",
            found=kind,
            expected=", ".join(quantized.LARGEST),
            hint=close_to(kind, quantized.LARGEST),
        )
    tensors = quantized.rounded(content.tensors, kind)
    parts = map(chains.alone, content.model.values())
    whole = list(parts) if chain is None else [chains.every_step(chain)]
    output_error, largest = chains.distance(whole, kind)
    weight_error = max(
        float(abs(tensors[name].read().astype(np.float64) - tensor.read()).max(initial=0.0))
        for name, tensor in content.tensors.items()
    )
    size = quantized.nbytes(content.tensors, kind)
    return Rounded(kind, output_error, largest, weight_error, size), tensors


def _chain(
    model: Model, destination: Path, row: Container, layout: str, how: Options
) -> tuple[Chain | None, list[str]]:
    """Return a whole model as the chain that a container holds, and what was rounded in it.

    None, where the container holds LSTM layers alone, or they alone are there or asked for.

    Raises:
        UnsupportedByTarget: the model is not a chain, or the container does not hold all of it.
    """
    if not row.chain or how.lstm_only or how.with_other:
        return None, []
    from lstmconvert.keras.modern import chains  # imported late to keep start-up fast
    from lstmconvert.layouts.rows import row_of

    holds, target = row.chain_module().HOLDS, row_of(layout)
    try:
        chain = chains.of(model, layout, holds.title)
    except UnsupportedByTarget:
        if not model.neighbours:  # LSTM layers are all that is there: none is left out
            return None, []
        raise
    if chain is None or (how.bare and chain.is_one_lstm):
        return None, []
    if how.bare:
        raise UsageError(
            "--bare is for LSTM layers alone, and the whole model is written",
            where=destination,
            hint="leave --bare away, or give --lstm-only too",
        )
    chain = chains.filled(chain, holds)
    try:
        chains.check(chain, holds, layout)
    except UnsupportedByTarget:
        if chain.is_one_lstm:  # which is all that is there: no layer is left out
            return None, []
        raise
    chain, rounded = (chain, []) if how.dtype is None else chains.cast(chain, how.dtype)
    chains.check_dtypes(chain, holds.dtypes or target.dtypes, layout, holds.title)
    return chain, rounded


def _document(
    model: Model, row: Container, chain: Chain | None
) -> tuple[Mapping[str, Json], list[str]]:
    """Return what a model's file said for the program that this container is for, and what of it
    is left out."""
    text = model.texts.get(metadata.DOCUMENT)
    document = {} if text is None else parse_object(text, metadata.DOCUMENT)
    if not row.program or document.get("program") != row.program:
        return {}, []
    return row.chain_module().carried(document["keys"], chain)


def _check_stacks(destination: Path, row: Container, how: Options) -> None:
    """Raise if a stack is asked for, and the container states how each layer runs."""
    if row.document and how.stacks:
        raise UsageError(
            f"--stack: {row.title} holds each layer by itself",
            where=destination,
            found=", ".join(how.stacks),
            hint="leave --stack away, or write a .safetensors",
        )


def _seconds(row: Container, destination: Path) -> list[Path]:
    """Return the second file of a container, in a list that is empty if it has none."""
    return [] if row.second is None else [destination.with_suffix(row.second)]


def _write(
    row: Container,
    destination: Path,
    model: Model,
    tensors: Mapping[str, Tensor],
    layers: Sequence[tuple[str, LSTMLayer]],
    temporaries: Sequence[Path],
    arranged: Callable[[Digest, bool], Mapping[str, Iterable[Piece]]] | None = None,
    whole: _Whole | None = None,
    intended: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a file, read it back and compare it with what was meant.

    Args:
        row: the container.
        destination: the name that the file will take.
        model: where the arrays are from.
        tensors: name -> array.
        layers: the prefix of the names of a layer's arrays, and the layer.
        temporaries: the file, and the second file if the container has one.
        arranged: makes the metadata of a framework's file.
        whole: what else the file says, where it is not a plain file of arrays.
        intended: what the arrays are in the file, where the file rounds them.

    Raises as `readback.check_written`.
    """
    sums = Sums()
    # A framework trains its files and saves them again, with our metadata: they are to be changed.
    has_checksums = row.checksums and arranged is None
    digest = Digest(model, tensors, sums, is_sealed=has_checksums)
    temporary, known = temporaries[0], {}
    second = None
    for path, final in zip(temporaries[1:], _seconds(row, destination), strict=True):
        second = SecondFile(path, final.name)
    module = row.array_module()

    def texts(is_known: bool) -> Mapping[str, Iterable[Piece]]:
        if arranged is not None:
            return arranged(digest, is_known)
        return digest.texts(model, is_known=is_known)

    content = Writing(
        tensors=tensors, texts=texts, sums=sums, layers=layers, second_file=second
    )
    if whole is not None:
        content = content._replace(**whole._asdict())
    written = module.write(temporary, content)
    if second is not None:
        known = {second.name: SourceFile(second.temporary)}
    with writing.flushing(temporary):
        if written is not None:
            written.check()
        else:
            intended = tensors if intended is None else intended
            stored = module.read(Opened(temporary, known, arrays_only=True)).tensors
            writing.check_written(intended, stored, destination, sums)
            del stored
    if written is not None:
        written.seal()


#: NumPy's names for arrays that were given none (numpy/lib/_npyio_impl.py, `_savez`).
_NAME = re.compile(r"arr_(\d{1,9})")
#: The layout whose names the arrays get: a cell's as Keras calls them.
LAYOUT = "keras"


def is_unnamed(names: Sequence[str]) -> bool:
    """Whether all arrays have NumPy's names for arrays without one."""
    return bool(names) and all(_NAME.fullmatch(name) for name in names)


def named(
    tensors: Mapping[str, Tensor], layers: Sequence[LSTMLayer], where: object
) -> dict[str, Tensor]:
    """Return the arrays of the LSTMs under their names in the layout `keras`, others as they are.

    Args:
        tensors: the arrays, all of which `is_unnamed`.
        layers: the LSTM layers of the model's config.
        where: the file, for errors.

    Raises:
        UsageError: the arrays of the layers are not there, or could be several.
    """
    order = sorted(tensors, key=lambda name: int(name.removeprefix("arr_")))
    cells = list(_cells(layers))
    starts = _starts([tensors[name].shape for name in order], [cell for _, cell in cells])
    if starts is None:
        raise UsageError(
            "the arrays are not, in one way alone, the weights of the model of --config",
            where=where,
            found=", ".join(f"{name} {tensors[name].shape}" for name in order[:8]),
            expected="get_weights() of it: of each LSTM kernel, recurrent_kernel and bias",
        )
    renamed = {
        order[start + offset]: prefix + role
        for (prefix, cell), start in zip(cells, starts, strict=True)
        for offset, role in enumerate(_roles(cell))
    }
    return {renamed.get(name, name): tensors[name] for name in order}


def _cells(layers: Sequence[LSTMLayer]) -> Iterator[tuple[str, Cell]]:
    """Yield each cell, and the prefix of its arrays' names, in the order of `get_weights()`."""
    for layer in layers:
        for side, direction in layer.directions:
            half = f"{side}." if layer.backward is not None else ""
            for index, cell in enumerate(direction.cells):
                if isinstance(cell, Cell):
                    place = f"cells.{index}." if len(direction.cells) > 1 else ""
                    yield f"{layer.name.replace('/', '.')}.{half}{place}", cell


def _roles(cell: Cell) -> tuple[str, ...]:
    roles = ("kernel", "recurrent_kernel", "bias")
    return roles if cell.use_bias else roles[:2]


def _starts(shapes: Sequence[tuple[int, ...]], cells: Sequence[Cell]) -> list[int] | None:
    """Return where the arrays of each cell begin, one cell after the other.

    None if there is no such order, or more than one: then the first and the last place for a cell
    are not the same.
    """
    first, start = [], 0
    for cell in cells:
        while start < len(shapes) and not _fits(shapes[start : start + 3], cell):
            start += 1
        first.append(start)
        start += len(_roles(cell))
    last, end = [], len(shapes)
    for cell in reversed(cells):
        start = end - len(_roles(cell))
        while start >= 0 and not _fits(shapes[start : start + 3], cell):
            start -= 1
        last.append(start)
        end = start
    return first if first == last[::-1] else None


def _fits(shapes: Sequence[tuple[int, ...]], cell: Cell) -> bool:
    """Whether the first of some arrays are those of a cell."""
    columns, count = 4 * cell.units, len(_roles(cell))
    if len(shapes) < count:
        return False
    kernel, recurrent, *bias = shapes[:count]
    return (
        len(kernel) == len(recurrent) >= 2
        and kernel[-1:] == (columns,)
        and recurrent[-2:] == (cell.units, columns)
        and all(shape == (columns,) for shape in bias)
    )

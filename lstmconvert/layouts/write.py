"""A model as a framework's file: arrays under the framework's names, and our metadata, with which
every option can be read back."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.files.jsontext import Json, JsonObject, Piece
from lstmconvert.layouts.arrange import arrange
from lstmconvert.layouts.fit import fit_stack, notices
from lstmconvert.layouts.plain import prefix_of
from lstmconvert.layouts.read import KEY
from lstmconvert.layouts.row import Row
from lstmconvert.model import naming
from lstmconvert.model.chain import WITHOUT_OTHERS, Chain
from lstmconvert.model.fit import Fitter
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.model.neighbours import Neighbour
from lstmconvert.pergate import metadata
from lstmconvert.tensors.tensor import Tensor


class Content(NamedTuple):
    """What a framework's file will hold.

    Fields: `row`; `model`, fitted; `tensors`: name -> tensor; `arranged`: the entry of the metadata
    that says how they are arranged; `others`: the paths of the model's other tensors that are
    among them; `losses` and `warnings`, for the user.
    """

    row: Row
    model: Model
    tensors: Mapping[str, Tensor]
    arranged: JsonObject
    others: frozenset[str]
    losses: tuple[str, ...]
    warnings: tuple[str, ...]

    def texts(self, digest: metadata.Digest, is_known: bool) -> dict[str, Iterable[Piece]]:
        """Return the file's metadata in pieces: the `format` of the framework, and ours."""
        texts = digest.texts(self.model, is_known=is_known, arranged={KEY: self.arranged})
        return {**texts, "format": [self.row.format]}


def content(
    model: Model,
    row: Row,
    *,
    stacks: Sequence[str] = (),
    bare: bool = False,
    with_other: bool = False,
    with_optimizer: bool = False,
    lstm_only: bool = False,
    allow_lossy: bool = False,
    says_options: bool = False,
    chain: Chain | None = None,
) -> Content:
    """Arrange a model's layers for a framework.

    Args:
        model: the model.
        row: the framework.
        stacks: `NAME=a,b` texts: the layers a and b become one stack of that name.
        bare: no layer name before the arrays' names; for one module.
        with_other: carry the other tensors too: those that the framework has no place for under
            their paths.
        with_optimizer: carry the optimizer's slots too.
        lstm_only: leave the layers beside the LSTMs out.
        allow_lossy: declare what cannot be expressed instead of refusing it.
        says_options: whether the file says the layers' options, so that its user need not.
        chain: the whole model, where the file holds all of it.

    Raises:
        UsageError: a stack of layers that are not there or do not fit; `bare` with several.
        UnknownOption, UnsupportedByTarget: see `Fitter`.
    """
    modules = _modules(model, stacks)
    if bare and len(modules) > 1:
        raise UsageError(
            "--bare is for one layer: the names of several would be the same",
            found=", ".join(modules),
            hint="choose one with --layer, or join them with --stack NAME=a,b",
        )
    fitter = Fitter(row.abilities(in_document=says_options), allow_lossy)
    tensors: dict[str, Tensor] = {}
    notes: list[str] = []
    fitted: dict[str, LSTMLayer] = {}
    recorded = []
    for name, layers in modules.items():
        prefix = "" if bare else prefix_of(replace(layers[0], name=name))
        done = fit_stack(layers, row, fitter)
        _add(tensors, prefix, arrange(done, row))
        fitted.update((layer.name, layer) for layer in done)
        for layer in done:
            notes += notices(layer, row, in_document=says_options)
        recorded.append({"prefix": prefix, "layers": [layer.name for layer in layers]})
    others = Others()
    # A chain's other layers have the framework's names where there are some, else their own.
    named = chain is not None and _has_names(row)
    if chain is not None and named:
        others = _links(chain, model, row)
    elif not (lstm_only or bare or says_options):
        others = neighbours_of(model, row, keep=with_other)
    for prefix, arrays in others.arrays.items():
        _add(tensors, prefix, arrays)
    rest = {**model.other, **model.assets} if with_other else {}
    rest = {path: tensor for path, tensor in rest.items() if path not in others.paths}
    rest |= dict(model.optimizer) if with_optimizer else {}
    _add(tensors, naming.OTHER, rest)
    if chain is not None and not named:
        _add(tensors, "", chain.arrays())
    model = replace(
        model,
        layers=tuple(fitted[layer.name] for layer in model.layers),
        losses=(*model.losses, *fitter.losses, *others.losses),
    )
    comes_back = len(others.recorded) == len(others.arrays)
    is_whole = comes_back and not model.assets and set(model.other) <= others.paths
    holds_all = with_other or (others.paths and is_whole)
    if chain is not None:
        holds_all = comes_back or not named
    if not holds_all:
        kept = {key: text for key, text in model.texts.items() if key == metadata.DOCUMENT}
        model = replace(model, texts=kept, source=replace(model.source, structure=None))
    arranged: JsonObject = {"name": row.name, "modules": recorded}
    if chain is not None and not named:
        arranged["others"] = chain.paths()
    if chain is not None and chain.filled and not named:
        arranged["filled"] = dict(chain.filled)
    if others.recorded and "model_config" in model.texts:  # by which they are read again
        arranged["neighbours"] = others.recorded
    if fitter.originals:
        arranged["originals"] = _originals(fitter, modules)
    return Content(
        row=row,
        model=model,
        tensors=tensors,
        arranged=arranged,
        others=frozenset({*rest, *others.paths}),
        losses=(*fitter.losses, *others.losses),
        warnings=(*notes, *others.notes),
    )


@dataclass(slots=True, eq=False)
class Others:
    """The layers beside the LSTMs as a framework has them.

    Fields: `arrays`: what stands before a layer's names -> its arrays; `paths`, in the source, of
    what they are made of; `recorded`, for the metadata: of each layer whose arrays are those of the
    source and only turned, where they were; `losses` and `notes`, for the user.
    """

    arrays: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)
    recorded: list[Json] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def neighbours_of(model: Model, row: Row, *, keep: bool = False) -> Others:
    """Arrange the layers beside the LSTMs. A layer without a place is told; the caller says
    what is left out.

    Args:
        model, row: as in `content`.
        keep: whether what has no place is carried under its path. Then so are arrays that an older
            Keras has in another form, which is the only one that goes back to it.
    """
    result = Others()
    if not model.other:
        return result
    from lstmconvert.layouts import neighbours  # not needed for the LSTMs alone
    from lstmconvert.layouts.neighbourrows import TABLE

    table = TABLE.get(row.name)
    if table is None:
        return result
    for layer in model.neighbours.values():
        if not layer.parameters:
            continue
        arranged = neighbours.arrange(layer, table, row.sides)
        odd = {tensor.dtype.name for tensor in layer.tensors.values()} - set(row.dtypes)
        reason = arranged.reason or (f"{row.title} has no {min(odd)}" if odd else "")
        is_stored = _is_stored(model, layer)
        if keep and not is_stored and not reason:
            reason = "its source keeps its arrays in a form of its own"
        if reason:
            result.notes.append(f"{layer.name}: it has no place in this layout: {reason}")
            continue
        result.arrays[layer.name.replace("/", ".") + "."] = arranged.tensors
        result.paths |= {path for paths in layer.paths.values() for path in paths}
        result.notes += [f"{layer.name}: {text}" for text in arranged.notices]
        if arranged.loss:
            result.losses.append(f"{layer.name}: {arranged.loss}")
        if is_stored:
            stored = {role: paths[0] for role, paths in layer.paths.items()}
            result.recorded.append({"name": layer.name, "paths": stored})
    return result


def _has_names(row: Row) -> bool:
    """Whether a framework has its own names for the arrays of layers that are not LSTMs."""
    from lstmconvert.layouts.neighbourrows import TABLE  # not needed for the LSTMs alone

    return row.name in TABLE


def _links(chain: Chain, model: Model, row: Row) -> Others:
    """Arrange the layers of a chain that are not LSTMs. The file says what each computes.

    Raises:
        UnsupportedByTarget: the framework has no place for one.
    """
    from lstmconvert.layouts import neighbours  # not needed for the LSTMs alone
    from lstmconvert.layouts.neighbourrows import TABLE

    result = Others()
    for link in chain.links:
        if not link.arrays:
            continue
        # A cast of the chain is in its links.
        layer = replace(model.neighbours[link.neighbour], tensors=link.arrays)
        arranged = neighbours.arrange(layer, TABLE[row.name], row.sides)
        if arranged.reason:
            raise UnsupportedByTarget(
                f"{row.title} has no place for this layer",
                where=link.name,
                layer=link.name,
                option=layer.class_name,
                target=row.name,
                found=arranged.reason,
                hint=WITHOUT_OTHERS,
            )
        result.arrays[layer.name.replace("/", ".") + "."] = arranged.tensors
        result.paths |= set(link.paths.values())
        if arranged.loss:
            result.losses.append(f"{layer.name}: {arranged.loss}")
        if link.paths.keys() == link.arrays.keys():
            result.recorded.append({"name": layer.name, "paths": dict(link.paths)})
    return result


def _is_stored(model: Model, layer: Neighbour) -> bool:
    """Whether a layer's weights are arrays of the source as they are there."""
    return all(
        len(paths) == 1 and model.other.get(paths[0]) is layer.tensors[role]
        for role, paths in layer.paths.items()
    )


def _originals(fitter: Fitter, modules: Mapping[str, Sequence[LSTMLayer]]) -> JsonObject:
    layers = {layer.name: layer for members in modules.values() for layer in members}
    result: JsonObject = {}
    for (name, side, index), tensor in fitter.originals.items():
        cell = dict(layers[name].directions)[side].lstm_cells[index]
        result[f"{name}.{side}.{index}"] = {
            "data": base64.b64encode(tensor.read().tobytes()).decode(),
            "forget_bias": cell.options.forget_bias,
            "had_bias": cell.use_bias,
        }
    return result


def _add(tensors: dict[str, Tensor], prefix: str, more: Mapping[str, Tensor]) -> None:
    for name, tensor in more.items():
        if prefix + name in tensors:
            raise UsageError(
                "two arrays of the file would have one name",
                found=prefix + name,
                hint="convert the layers one by one with --layer",
            )
        tensors[prefix + name] = tensor


def _modules(model: Model, stacks: Iterable[str]) -> dict[str, list[LSTMLayer]]:
    """Return `module name -> its layers`, in the model's order."""
    joined: dict[str, str] = {}
    groups: dict[str, list[LSTMLayer]] = {}
    for text in stacks:
        name, equals, rest = text.partition("=")
        members = rest.split(",")
        if not name or not equals or len(members) < 2:
            raise UsageError("--stack takes NAME=a,b: two layers or more", found=text)
        groups[name] = [model[member] for member in members]
        for member in members:
            if member in joined or members.count(member) > 1:
                raise UsageError("a layer is in two stacks", where="--stack", found=member)
            joined[member] = name
    result: dict[str, list[LSTMLayer]] = {}
    for layer in model.layers:
        name = joined.get(layer.name, layer.name)
        if name in result and layer.name not in joined:
            raise UsageError("a stack has the name of a layer", where="--stack", found=name)
        result[name] = groups.get(name, [layer]) if layer.name in joined else [layer]
    return result

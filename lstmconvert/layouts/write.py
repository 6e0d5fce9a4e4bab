"""A model as a framework's file: its arrays under its names, and our metadata to come back by."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lstmconvert import metadata, naming
from lstmconvert.errors import UsageError
from lstmconvert.jsontext import JsonObject, canonical, parse_object
from lstmconvert.layer import LSTMLayer
from lstmconvert.layouts.arrange import arrange
from lstmconvert.layouts.fit import Fitter, fit_stack
from lstmconvert.layouts.plain import prefix_of
from lstmconvert.layouts.read import KEY
from lstmconvert.layouts.row import Row
from lstmconvert.model import Model
from lstmconvert.records import dataclass
from lstmconvert.tensors import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a framework's file will hold.

    Fields: `row`; `model`, fitted; `tensors`: name -> tensor; `arranged`: the metadata's word on
    how; `losses` and `warnings`, to tell the user.
    """

    row: Row
    model: Model
    tensors: Mapping[str, Tensor]
    arranged: JsonObject
    losses: tuple[str, ...]
    warnings: tuple[str, ...]

    def texts(self, digest: Callable[[Model], dict[str, str]]) -> dict[str, str]:
        """Return the file's metadata: the framework's own `format`, and ours."""
        texts = digest(self.model)
        value = parse_object(texts[metadata.KEY], metadata.KEY)
        for layer in value["layers"]:
            layer["tensors"] = {}
        text = canonical({**value, KEY: self.arranged})
        return {**texts, "format": self.row.format, metadata.KEY: text}


def content(
    model: Model,
    row: Row,
    *,
    stacks: Sequence[str] = (),
    bare: bool = False,
    with_other: bool = False,
    with_optimizer: bool = False,
    allow_lossy: bool = False,
    says_functions: bool = False,
) -> Content:
    """Arrange a model's layers for a framework.

    Args:
        model: the model.
        row: the framework.
        stacks: `NAME=a,b` texts: the layers a and b become one stack of that name.
        bare: no layer name before the arrays' names; for one module.
        with_other: carry the other tensors too.
        with_optimizer: carry the optimizer's slots too.
        allow_lossy: declare what cannot be expressed instead of refusing it.
        says_functions: whether the file says what functions the gates have.

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
    fitter = Fitter(row, allow_lossy, says_functions)
    tensors: dict[str, Tensor] = {}
    fitted: dict[str, LSTMLayer] = {}
    recorded = []
    for name, layers in modules.items():
        prefix = "" if bare else prefix_of(replace(layers[0], name=name))
        done = fit_stack(layers, fitter)
        _add(tensors, prefix, arrange(done, row))
        fitted.update((layer.name, layer) for layer in done)
        recorded.append({"prefix": prefix, "layers": [layer.name for layer in layers]})
    rest = {**model.other, **model.assets} if with_other else {}
    rest |= dict(model.optimizer) if with_optimizer else {}
    _add(tensors, naming.OTHER, rest)
    model = replace(
        model,
        layers=tuple(fitted[layer.name] for layer in model.layers),
        losses=(*model.losses, *fitter.losses),
    )
    if not with_other:
        model = replace(model, texts={}, source=replace(model.source, structure=None))
    arranged: JsonObject = {"name": row.name, "modules": recorded}
    if fitter.originals:
        arranged["originals"] = _originals(fitter, modules)
    return Content(
        row=row,
        model=model,
        tensors=tensors,
        arranged=arranged,
        losses=tuple(fitter.losses),
        warnings=tuple(fitter.warnings),
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


def _add(tensors: dict[str, Tensor], prefix: str, found: Mapping[str, Tensor]) -> None:
    for name, tensor in found.items():
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
                raise UsageError("a layer stands in two stacks", where="--stack", found=member)
            joined[member] = name
    result: dict[str, list[LSTMLayer]] = {}
    for layer in model.layers:
        name = joined.get(layer.name, layer.name)
        if name in result and layer.name not in joined:
            raise UsageError("a stack has the name of a layer", where="--stack", found=name)
        result[name] = groups.get(name, [layer]) if layer.name in joined else [layer]
    return result

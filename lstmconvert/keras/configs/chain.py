"""Which layers feed one another in the source: neighbours in its config, with nothing between."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from lstmconvert.errors import CorruptFile, UsageError
from lstmconvert.files.jsontext import Json, parse_object
from lstmconvert.keras.configs.nodes import IDLE, ConfigNode, node
from lstmconvert.model import naming
from lstmconvert.model.model import Model

_HAND_ON = IDLE | {"InputLayer"}


def feeds(model: Model, *, masks: bool = False) -> dict[str, str]:
    """Return `layer -> the layer whose first output is all that it is given`.

    Both are layers of one model of the source: none is inside a wrapper. A layer that is used
    twice, or given an initial state by another, is in no chain. Empty where the source has no
    config.

    Args:
        model: the model.
        masks: whether a layer may be given a mask too.
    """
    text = model.texts.get("model_config")
    if text is None:
        return {}
    root = node(parse_object(text, "model_config"), "model_config")
    edges = dict(_edges(root, "", masks))
    names = {name: naming.layer_names([name])[0] for name in {*edges, *edges.values()}}
    sources = {names[to]: names[source] for to, source in edges.items()}
    fitting = {
        to: source
        for to, source in sources.items()
        if to in model and source in model and _fit(model, source, to)
    }
    return {to: source for to, source in fitting.items() if not _is_round(fitting, to)}


def _is_round(sources: dict[str, str], name: str) -> bool:
    """Whether a layer is given its own output: no config of Keras's says so."""
    seen: set[str] = set()
    while name in sources and name not in seen:
        seen.add(name)
        name = sources[name]
    return name in seen


def _fit(model: Model, source: str, to: str) -> bool:
    first, second = model[source].forward.options, model[to].forward.options
    return bool(first.return_sequences) and bool(first.time_major) == bool(second.time_major)


def _edges(model: ConfigNode, outer: str, masks: bool) -> Iterator[tuple[str, str]]:
    if not model.is_model:
        return
    children = model.layers()
    is_chain = model.class_name == "Sequential"
    given = _sequence(children) if is_chain else _history(children, masks)
    by_name = {child.name: child for child in children}
    for child in children:
        prefix = f"{outer}{child.name}/"
        if child.is_model:
            yield from _edges(child, prefix, masks)
        source = _through(given, by_name, child.name)
        if source is not None:
            yield f"{outer}{child.name}", f"{outer}{source}"


def _through(given: dict[str, str], by_name: dict[str, ConfigNode], name: str) -> str | None:
    """Return the nearest layer before `name` that changes its input; None if there is none."""
    seen = {name}
    while name in given and given[name] not in seen:
        name = given[name]
        seen.add(name)
        if by_name[name].class_name not in _HAND_ON:
            return name
    return None


def _sequence(children: Sequence[ConfigNode]) -> dict[str, str]:
    return {
        after.name: before.name for before, after in itertools.pairwise(children)
    }


def _history(children: Sequence[ConfigNode], masks: bool) -> dict[str, str]:
    """Return `layer -> the one layer whose first output it takes` of a functional model."""
    names = {child.name for child in children}
    result = {}
    for child in children:
        calls = child.whole.get("inbound_nodes")
        if not isinstance(calls, list) or len(calls) != 1:
            continue
        tensors = list(_tensors(_without_masks(calls[0]) if masks else calls[0]))
        if len(tensors) == 1 and tensors[0][1:] == (0, 0) and tensors[0][0] in names:
            result[child.name] = tensors[0][0]
    return result


def _without_masks(call: Json) -> Json:
    if isinstance(call, dict):
        return {key: _without_masks(value) for key, value in call.items() if key != "mask"}
    return [_without_masks(value) for value in call] if isinstance(call, list) else call


def _tensors(call: Json) -> Iterator[tuple[str, int, int]]:
    """Yield `(layer, node, output)` of every tensor of a call, as Keras 3 and 2 spell it."""
    if isinstance(call, dict):
        history = call.get("keras_history")
        if isinstance(history, list):
            yield _place(history)
            return
        for value in call.values():
            yield from _tensors(value)
    elif isinstance(call, list):
        is_place = len(call) in (3, 4) and isinstance(call[0], str) and isinstance(call[1], int)
        if is_place:
            yield _place(call)
            call = call[3:]
        for value in call:
            yield from _tensors(value)


def _place(value: list[Json]) -> tuple[str, int, int]:
    if len(value) < 3 or not isinstance(value[0], str):
        raise CorruptFile(
            "not the history of a tensor", where="model_config", found=str(value)[:60]
        )
    return value[0], value[1], value[2]


def check_stacks(model: Model, stacks: Sequence[str]) -> None:
    """Raise where the source's config says that layers of a stack do not follow one another.

    Args:
        model: the whole model that the layers are of. Where it has no config, nothing is known.
        stacks: `NAME=a,b` texts.

    Raises:
        UsageError: a layer is given something else than the output of the one before it.
    """
    if not stacks or "model_config" not in model.texts:
        return
    fed = feeds(model, masks=True)
    root = node(parse_object(model.texts["model_config"], "model_config"), "model_config")
    placed = {naming.layer_names([name])[0] for name in _placed(root, "")}
    for text in stacks:
        members = text.partition("=")[2].split(",")
        for before, after in itertools.pairwise(members):
            if {before, after} <= placed and before in model and fed.get(after) != before:
                raise UsageError(
                    f"--stack: {after} is not given what {before} gives: something lies between",
                    where=text,
                    found=f"{after} is given the output of {fed[after]}"
                    if after in fed
                    else f"{after} is given the output of no LSTM layer alone",
                    expected="layers that follow one another, every step handed on",
                    hint="write the layers one by one, without --stack",
                )


def _placed(model: ConfigNode, outer: str) -> Iterator[str]:
    """Yield the layers whose position in the model a config states."""
    for child in model.layers() if model.is_model else ():
        yield f"{outer}{child.name}"
        yield from _placed(child, f"{outer}{child.name}/")

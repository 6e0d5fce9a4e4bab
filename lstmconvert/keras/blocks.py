"""Recurrent cells among the weights of a legacy layer, by names and shapes, in every spelling.

    lstm_1/lstm_cell/kernel:0, …/recurrent_kernel:0, …/bias:0       Keras 2 and 3
    stack/kernel:0 … stack/kernel_1:0 …                             cells of one stack, Keras 2
    lstm_1_W_i:0, lstm_1_U_i:0, lstm_1_b_i:0, lstm_1_W_c:0, …       Keras 1: gates i c f o
    lstm_1_W:0, lstm_1_U:0, lstm_1_b:0                              Keras 1, consume_less="gpu"
    param_0 … param_11                                              Keras 0.x, in the same order

(keras/engine/topology.py and keras/layers/recurrent.py of Keras 1.2.2.) Theano names have no `:0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lstmconvert.gates import by_letters
from lstmconvert.keras.cells import gate_count
from lstmconvert.keras.stored import ROLES, Stored
from lstmconvert.records import dataclass

_KERAS1_ORDER = by_letters("icfo")
_KERAS1_ROLES = {"W": "kernel", "U": "recurrent_kernel", "b": "bias"}
_KERAS1_GATE = re.compile(r"(?P<scope>.+)_(?P<role>[WUb])_(?P<gate>[a-z])")
_KERAS1_FUSED = re.compile(r"(?P<scope>.+)_(?P<role>[WUb])")
_PARAM = re.compile(r"param_\d+")
_SUFFIX = re.compile(r":\d+$")
_NUMBERED = re.compile(r"(kernel|recurrent_kernel|bias)_\d+")

#: Gates of a Keras 1 layer by the letters of its weights' names: LSTM, GRU.
_KERAS1_KINDS = {"icfo": 4, "zrh": 3}


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring weights of one layer that are one recurrent cell.

    Fields: `gates`: 4 for an LSTM, 3 GRU, 1 simple RNN; `scope`: the parts of the weights' names
    before `kernel`; `arrays`: by role, or by `input_gate.kernel` and so on; `theano`: whether the
    names are Theano's, without `:0`.
    """

    gates: int
    scope: tuple[str, ...]
    arrays: dict[str, Stored]
    theano: bool = False


@dataclass(frozen=True, slots=True)
class _Weight:
    name: str
    scope: tuple[str, ...]
    leaf: str
    stored: Stored


def blocks(names: Sequence[str], weights: Sequence[Stored]) -> list[Block]:
    """Find the recurrent cells among a layer's weights, in order."""
    listed = [_weight(name, stored) for name, stored in zip(names, weights, strict=True)]
    return list(_scan(listed))


def _weight(name: str, stored: Stored) -> _Weight:
    *scope, leaf = _SUFFIX.sub("", name).split("/")
    # TensorFlow 1 numbers the second variable of one name in a scope.
    match = _NUMBERED.fullmatch(leaf)
    return _Weight(name, tuple(scope), match[1] if match else leaf, stored)


def _scan(weights: list[_Weight]) -> Iterator[Block]:
    index = 0
    while index < len(weights):
        rest = weights[index : index + 12]
        found = _modern(rest) or _keras1(rest) or _keras1_fused(rest) or _keras0(rest)
        if found is not None:
            yield found
        index += len(found.arrays) if found is not None else 1


def _modern(weights: list[_Weight]) -> Block | None:
    scope = weights[0].scope
    length = 0
    for weight, role in zip(weights, ROLES, strict=False):
        if weight.scope != scope or weight.leaf != role:
            break
        length += 1
    return _fused(weights[:length], scope) if length >= 2 else None


def _fused(weights: list[_Weight], scope: tuple[str, ...], theano: bool = False) -> Block | None:
    arrays = dict(zip(ROLES, (weight.stored for weight in weights), strict=False))
    shapes = [arrays[role].tensor.shape for role in ROLES[:2]]
    count = gate_count(shapes[0], shapes[1])
    return None if count is None else Block(count, scope, arrays, theano)


def _keras1(weights: list[_Weight]) -> Block | None:
    for letters, count in _KERAS1_KINDS.items():
        size = count * len(_KERAS1_ROLES)
        matches = [_KERAS1_GATE.fullmatch(weight.leaf) for weight in weights[:size]]
        scopes = {match["scope"] for match in matches if match}
        if len(matches) < size or None in matches or len(scopes) != 1:
            continue
        named = [(m["gate"], m["role"]) for m in matches if m]
        if named != [(letter, role) for letter in letters for role in _KERAS1_ROLES]:
            continue
        scope = (*weights[0].scope, scopes.pop())
        theano = not _SUFFIX.search(weights[0].name)
        if count != 4:
            others = {weight.leaf: weight.stored for weight in weights[:size]}
            return Block(count, scope, others, theano)
        return Block(count, scope, _separate(weights), theano)
    return None


def _separate(weights: list[_Weight]) -> dict[str, Stored]:
    keys = [f"{gate}_gate.{role}" for gate in _KERAS1_ORDER for role in _KERAS1_ROLES.values()]
    return {key: weight.stored for key, weight in zip(keys, weights, strict=False)}


def _keras1_fused(weights: list[_Weight]) -> Block | None:
    matches = [_KERAS1_FUSED.fullmatch(weight.leaf) for weight in weights[:3]]
    if len(matches) < 3 or None in matches or len({m["scope"] for m in matches if m}) != 1:
        return None
    if [m["role"] for m in matches if m] != list(_KERAS1_ROLES):
        return None
    scope = (*weights[0].scope, next(m["scope"] for m in matches if m))
    return _fused(weights[:3], scope, not _SUFFIX.search(weights[0].name))


def _keras0(weights: list[_Weight]) -> Block | None:
    """Twelve arrays without roles: W, U, b of each gate; only an LSTM's shapes repeat so."""
    if len(weights) < 12 or not all(_PARAM.fullmatch(weight.leaf) for weight in weights):
        return None
    shapes = [weight.stored.tensor.shape for weight in weights]
    is_lstm = len(shapes[0]) == 2 and shapes[1] == (shapes[0][1],) * 2
    if not is_lstm or shapes != shapes[:3] * 4 or shapes[2] != (shapes[0][1],):
        return None
    return Block(4, weights[0].scope, _separate(weights))


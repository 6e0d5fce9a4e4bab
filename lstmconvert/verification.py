"""Whether layers compute the same: one random input through several engines, from one or two files.

The yardstick is the NumPy reference pass in float64 on the first file. NaN equals NaN where both
have one; a NaN on one side alone is a difference.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from lstmconvert.dtypes import Array, dtype_of
from lstmconvert.errors import (
    LSTMConvertError,
    MissingPackage,
    UnknownOption,
    UnsupportedByTarget,
    UsageError,
)
from lstmconvert.jsontext import JsonObject
from lstmconvert.keras.inputshape import input_shape
from lstmconvert.layer import Direction, LSTMLayer
from lstmconvert.layouts import assume
from lstmconvert.live.engines import ENGINES, Engine
from lstmconvert.model import Model

VERSION = 1
NAN_POLICY = "NaN equals NaN; NaN on one side alone is a difference"
REFERENCE = "numpy"
BATCH, STEPS, WINDOW = 3, 9, 6
#: Dtype of the weights -> the differences that rounding explains, absolute and relative.
TOLERANCES = {"float64": 1e-9, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One layer of one file through one engine, against the yardstick.

    Fields: `layer`; `file`: `a` or `b`; `engine`; `output`; `dtype` of the engine's answer;
    `max_abs`, `max_rel`, `max_ulp`: the largest differences, ULP in that dtype; `first_bad`: the
    index of the first number beyond the tolerance, or None; `bad` of `size` numbers are;
    `skipped`: why the engine did not run it, or None.
    """

    layer: str
    file: str
    engine: str
    output: str = "y"
    dtype: str = ""
    max_abs: float = 0.0
    max_rel: float = 0.0
    max_ulp: int = 0
    first_bad: tuple[int, ...] | None = None
    bad: int = 0
    size: int = 0
    rtol: float = 0.0
    atol: float = 0.0
    skipped: str | None = None

    def __bool__(self) -> bool:
        """Whether the numbers agree, or were not compared."""
        return not self.bad


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `verify` found. True when everything that was run agrees, and something was.

    Fields: `a` and `b`, the names of the files; `seed` of the input; `lines`.
    """

    a: str
    b: str | None
    seed: int
    lines: tuple[Line, ...]

    def __bool__(self) -> bool:
        """Whether everything agrees."""
        return all(self.lines) and any(line.skipped is None for line in self.lines)

    def to_json(self) -> JsonObject:
        """Return the report as one JSON object."""
        return {
            "version": VERSION,
            "equal": bool(self),
            "a": self.a,
            "b": self.b,
            "seed": self.seed,
            "reference": "numpy, float64",
            "nan_policy": NAN_POLICY,
            "lines": [{"equal": bool(line), **asdict(line)} for line in self.lines],
        }


def verify(
    a: str | Path | Model | LSTMLayer,
    b: str | Path | Model | LSTMLayer | None = None,
    *,
    engines: Sequence[str] = (),
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
) -> Report:
    """Run the same random input through several engines, layer by layer, and compare.

    Every output of a layer is compared: return_sequences is taken as True.

    Args:
        a: a file, model or layer; NumPy's float64 answer to it is the yardstick.
        b: another, whose layers must answer the same; paired by name, else by order.
        engines: names of engines, which must then run every layer; by default NumPy and each
            installed one that can.
        rtol, atol: how far apart two numbers may be, |x - y| <= atol + rtol * |y|; by default what
            rounding in the weights' dtype explains.
        seed: of the input.

    Raises:
        UsageError: no such engine, or the files have not the same number of layers.
        MissingPackage: an engine that was named is not installed.
        UnknownOption, UnsupportedByTarget: an engine that was named cannot run a layer.
    """
    chosen = _chosen(engines)
    one, two = _model(a), None if b is None else _model(b)
    pairs = _pairs(one, two)
    lines: list[Line] = []
    for first, second in pairs:
        x = _input(first, seed)
        wanted = ENGINES[REFERENCE].run(_sequences(first), x)
        for file, layer in (("a", first), ("b", second)):
            if layer is None:
                continue
            bounds = _bounds(first, layer, rtol, atol)
            lines += [
                _line(engine, layer, file, x, wanted, bounds, bool(engines)) for engine in chosen
            ]
    return Report(a=_name(a), b=None if b is None else _name(b), seed=seed, lines=tuple(lines))


def _chosen(names: Sequence[str]) -> list[Engine]:
    for name in names:
        if name not in ENGINES:
            raise UsageError("no such engine", found=name, expected=", ".join(ENGINES))
        if not ENGINES[name].installed:
            raise MissingPackage(
                f"the engine {name} is not installed", hint=ENGINES[name].needs
            )
    if names:
        return [ENGINES[name] for name in dict.fromkeys(names)]
    return [engine for engine in ENGINES.values() if engine.installed]


def _model(value: str | Path | Model | LSTMLayer) -> tuple[LSTMLayer, ...]:
    if isinstance(value, (str, Path)):
        from lstmconvert.api import load

        value = load(value)
    layers = (value,) if isinstance(value, LSTMLayer) else value.layers
    return tuple(assume.layer(layer)[0] for layer in layers)


def _name(value: str | Path | Model | LSTMLayer) -> str:
    if isinstance(value, (str, Path)):
        return Path(value).name
    return value.name if isinstance(value, LSTMLayer) else "model"


def _pairs(
    one: Sequence[LSTMLayer], two: Sequence[LSTMLayer] | None
) -> list[tuple[LSTMLayer, LSTMLayer | None]]:
    if two is None:
        return [(layer, None) for layer in one]
    named = {layer.name: layer for layer in two}
    if set(named) == {layer.name for layer in one}:
        return [(layer, named[layer.name]) for layer in one]
    if len(one) != len(two):
        raise UsageError("A and B have not the same layers", found=len(two), expected=len(one))
    return list(zip(one, two, strict=True))


def _sequences(layer: LSTMLayer) -> LSTMLayer:
    """Return a layer that gives every output, and starts from zero."""

    def change(direction: Direction) -> Direction:
        options = replace(
            direction.options,
            return_sequences=True,
            return_state=False,
            stateful=False,
            time_major=False,
            zero_output_for_mask=False,
        )
        return replace(direction, options=options)

    backward = layer.backward
    return replace(
        layer, forward=change(layer.forward), backward=change(backward) if backward else None
    )


def _input(layer: LSTMLayer, seed: int) -> Array:
    batch, steps, *inner = input_shape(layer)
    sizes = (batch or BATCH, steps or STEPS, *(size or WINDOW for size in inner))
    x = np.random.default_rng(seed).normal(size=sizes)
    # Numbers that every dtype has, so that no engine sees another input.
    return x.astype(dtype_of("bfloat16")).astype(np.float64)


def _bounds(
    a: LSTMLayer, b: LSTMLayer, rtol: float | None, atol: float | None
) -> tuple[float, float]:
    from lstmconvert.onnx.express import compute_dtypes  # of a mixed policy, not the weights'

    dtypes = {layer.dtype.name for layer in (a, b)} | compute_dtypes(a) | compute_dtypes(b)
    widest = max(TOLERANCES[name] for name in dtypes)
    return widest if rtol is None else rtol, widest if atol is None else atol


def _line(
    engine: Engine,
    layer: LSTMLayer,
    file: str,
    x: Array,
    wanted: Array,
    bounds: tuple[float, float],
    must: bool,
) -> Line:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = engine.run(_sequences(layer), x)
    except (UnsupportedByTarget, UnknownOption, MissingPackage) as error:
        if must:
            raise
        return Line(layer=layer.name, file=file, engine=engine.name, skipped=_reason(error))
    if found.shape != wanted.shape:
        raise UsageError(
            "the layers have outputs of other shapes",
            where=layer.name,
            found=found.shape,
            expected=wanted.shape,
        )
    return _compared(engine.name, layer, file, found, wanted, bounds)


def _reason(error: LSTMConvertError) -> str:
    return error.message


@np.errstate(all="ignore")
def _compared(
    engine: str,
    layer: LSTMLayer,
    file: str,
    found: Array,
    wanted: Array,
    bounds: tuple[float, float],
) -> Line:
    rtol, atol = bounds
    wide = found.astype(np.float64)
    same = (wide == wanted) | (np.isnan(wide) & np.isnan(wanted))
    distance = np.where(same, 0.0, np.abs(wide - wanted))
    bad = ~same & ~(distance <= atol + rtol * np.abs(wanted))
    relative = np.where(same, 0.0, distance / np.abs(wanted))
    first = np.argwhere(bad)
    return Line(
        layer=layer.name,
        file=file,
        engine=engine,
        dtype=found.dtype.name,
        max_abs=float(distance.max(initial=0.0)),
        max_rel=float(relative.max(initial=0.0)),
        max_ulp=_ulp(found, wanted, same),
        first_bad=tuple(map(int, first[0])) if len(first) else None,
        bad=int(bad.sum()),
        size=found.size,
        rtol=rtol,
        atol=atol,
    )


def _ulp(found: Array, wanted: Array, same: Array) -> int:
    """Return the largest number of representable numbers between two, in the dtype of `found`."""
    differ = ~same.ravel()
    one, two = (_ordered(array.astype(found.dtype))[differ] for array in (found, wanted))
    return max((abs(int(p) - int(q)) for p, q in zip(one, two, strict=True)), default=0)


def _ordered(array: Array) -> Array:
    """Map floating-point numbers to integers in the same order."""
    bits = array.reshape(-1).view(f"i{array.dtype.itemsize}").astype(np.int64)
    smallest = np.int64(-(1 << (8 * array.dtype.itemsize - 1)))
    return np.where(bits < 0, smallest - bits, bits)

"""Whether layers compute the same: one random input through several engines, from one or two files.

An engine's answer to the first file is compared with the reference, NumPy in float64. The second
file is compared with the first in each engine: one engine gives the same bits for the same weights,
so that nothing is allowed there, unless a rounding is between the files.

How far an engine may be from the reference is measured, not guessed: the reference runs in float32
and in float64, and the difference says how much this layer makes of rounding errors. NaN equals NaN
where both have one; a NaN on one side alone is a difference.

A file may also state what the model gives for one input (`convert --check`). Then what NumPy, Keras
and the engine that runs such files as they are give for it is compared with that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from lstmconvert import reference
from lstmconvert.api import load
from lstmconvert.checks.page import Printed, ReportPage
from lstmconvert.containers import table
from lstmconvert.errors import (
    MissingPackage,
    UnknownOption,
    UnsupportedByTarget,
    UsageError,
    close_to,
)
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.keras.configs.nodes import input_shape
from lstmconvert.layouts import assume
from lstmconvert.live.engines import ENGINES, Engine
from lstmconvert.model import edit
from lstmconvert.model.chain import Answer
from lstmconvert.model.layer import Cell, Direction, LSTMLayer, compute_dtypes
from lstmconvert.model.model import Model, alone
from lstmconvert.model.options import UNKNOWN
from lstmconvert.reference.maths import EPSILONS, allowed
from lstmconvert.tensors import progress
from lstmconvert.tensors.dtypes import Array, dtype_of

VERSION = 1
NAN_POLICY = "NaN equals NaN; NaN on one side alone is a difference"
REFERENCE = "numpy"
#: The other side of a line about the check that a file holds.
STORED = "stored"
WHOLE = "the whole model"
BATCH, STEPS, WINDOW = 3, 9, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLayer:
    """One layer of one file through one engine.

    Fields: `layer`; `file`: `a` or `b`; `engine`; `against`: what it was compared with: the
    `reference`; `a`, the same engine's answer to the first file; `stored`, what the file itself
    states; None for the reference itself;
    `output`; `dtype` of the engine's answer; `max_abs`, `max_rel`, `max_ulp`: the largest
    differences, ULP in that dtype; `first_bad`: the index of the first number that is further off
    than allowed, or None; `bad` of `size` numbers are; `allowed`: the largest absolute difference
    that is allowed anywhere; `rtol`, `atol`, where the caller gave them; `beyond`: how many numbers
    were not compared, since this dtype cannot hold them; `skipped`: why it was not run, or None.
    """

    layer: str
    file: str
    engine: str
    against: str | None = "reference"
    output: str = "y"
    dtype: str = ""
    max_abs: float = 0.0
    max_rel: float = 0.0
    max_ulp: int = 0
    first_bad: tuple[int, ...] | None = None
    bad: int = 0
    size: int = 0
    allowed: float = 0.0
    rtol: float | None = None
    atol: float | None = None
    beyond: int = 0
    skipped: str | None = None

    def __bool__(self) -> bool:
        """Whether the numbers agree, or were not compared."""
        return not self.bad

    @property
    def is_compared(self) -> bool:
        """Whether two different answers were compared."""
        return self.skipped is None and self.against is not None and self.beyond < self.size


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class VerifyReport(Printed):
    """What `verify` found. True when everything that was run agrees, and something was.

    It prints as `lstmconvert verify` does.

    Fields: `a` and `b`, the names of the files; `seed` of the input; `lines`; `whole`: whether
    whole models were run, not layer by layer; `stored`: how many checks the one file holds; None:
    none was looked for.
    """

    a: str
    b: str | None
    seed: int
    lines: tuple[VerifiedLayer, ...]
    whole: bool = False
    stored: int | None = None

    def __bool__(self) -> bool:
        """Whether everything agrees."""
        return all(self.lines) and self.is_compared

    @property
    def is_compared(self) -> bool:
        """Whether anything was compared: the reference alone proves nothing."""
        return any(line.is_compared for line in self.lines)

    def __repr__(self) -> str:
        verdict = "agrees" if self else "differs" if self.is_compared else "nothing was compared"
        return f"Report({self.a}{f', {self.b}' if self.b else ''}: {verdict})"

    def to_json(self) -> JsonObject:
        """Return the report as one JSON object."""
        return {
            "version": VERSION,
            "equal": bool(self),
            "compared": self.is_compared,
            "a": self.a,
            "b": self.b,
            "seed": self.seed,
            "whole": self.whole,
            "stored": self.stored,
            "reference": "keras" if self.whole else "numpy, float64",
            "nan_policy": NAN_POLICY,
            "lines": [{"equal": bool(line), **asdict(line)} for line in self.lines],
        }

    def show(self, page: ReportPage) -> None:
        """Write the report to a page."""
        ran = [line for line in self.lines if line.skipped is None]
        first = ("output", "against") if self.whole else ("layer", "file")
        header = (*first, "engine", "dtype", "max abs", "max rel", "max ULP", "allowed")
        if ran:
            page.table(
                [self._row(line) for line in ran],
                header=(*header, "verdict", ""),
                right=(4, 5, 6, 7),
            )
        for line in self.lines:
            if line.skipped is not None:
                page.paragraph(f"{line.layer}: {line.engine} was not run: {line.skipped}", indent=2)
        page.line()
        text = f"reference: NumPy in float64, on {self.a}. "
        if self.whole:
            text = f"reference: Keras itself, which runs the whole model of {self.a}. "
        if self.b is not None:
            text += f"{self.b} is compared with {self.a} in each engine. "
        if self.stored:
            text += f"The check in {self.a} states what is `stored`. "
        elif self.stored == 0:
            text += f"{self.a} holds no check: convert --check stores one. "
        page.paragraph(f"{text}seed {self.seed}. {NAN_POLICY}.", indent=2)
        if not self.is_compared:
            page.line()
            why = "no other engine ran, and NumPy alone is the reference"
            if all(line.against == STORED for line in self.lines):
                why = "no engine ran the check" if self.stored else "the file holds no check"
            if self.whole:
                why = "that takes Keras and ONNX Runtime, and a model that both run"
            page.paragraph(f"nothing was compared: {why}", bold=True)

    def _file(self, line: VerifiedLayer) -> str | None:
        if line.against == STORED:
            return f"{self.a}, stored"
        return self.a if line.file == "a" else self.b

    def _row(self, line: VerifiedLayer) -> tuple[str, ...]:
        verdict = "agrees" if line else f"{line.bad} of {line.size} differ"
        if line.against is None:
            verdict = "is the reference"
        where = "" if line.first_bad is None else f"first at {list(line.first_bad)}"
        if line.beyond:
            where = f"{where} {line.beyond} of {line.size} beyond {line.dtype}".strip()
        return (
            line.layer,
            str(line.against if self.whole else self._file(line)),
            line.engine,
            line.dtype,
            f"{line.max_abs:.2g}",
            f"{line.max_rel:.2g}",
            str(line.max_ulp),
            "" if line.against is None else f"{line.allowed:.2g}",
            verdict,
            where,
        )


def verify(
    a: str | Path | Model | LSTMLayer,
    b: str | Path | Model | LSTMLayer | None = None,
    *,
    engines: Sequence[str] = (),
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    whole: bool = False,
) -> VerifyReport:
    """Run the same random input through several engines, layer by layer, and compare.

    Every output of a layer is compared: return_sequences is taken as True.

    Args:
        a: a file, model or layer; NumPy's float64 answer to it is the yardstick.
        b: another, whose layers must answer the same in each engine, to the last bit, unless a
            rounding is between them (another dtype, a summed pair of biases, a declared loss);
            layers are paired by name, else by order.
        engines: names of engines, which must then run every layer; by default NumPy and each
            installed one that can.
        rtol, atol: how much two numbers may differ, |x - y| <= atol + rtol * |y|; one alone makes
            the other zero. By default what was measured, see the head of this module.
        seed: of the input.
        whole: run the whole model of the file `a` in Keras, and its ONNX graph in ONNX Runtime;
            each output is compared. Engines are then `keras`, `tf_keras`, `onnxruntime` and
            `openvino`.

    Raises:
        UsageError: no such engine, or the files do not have the same number of layers; `whole` with
            a second file, or of no file.
        MissingPackage: an engine that was named is not installed.
        UnknownOption, UnsupportedByTarget: an engine that was named cannot run a layer.
    """
    asked = None if rtol is None and atol is None else (rtol or 0.0, atol or 0.0)
    if whole:
        from lstmconvert.checks import wholemodel

        if b is not None or not isinstance(a, (str, Path)):
            raise UsageError(
                "whole models are compared with what Keras computes: --whole takes one file",
                hint="convert it with --whole, and compare files with diff",
            )
        return wholemodel.verify(a, engines=engines, asked=asked, seed=seed)
    chosen = _chosen(engines) if engines else []
    name = _name(a)
    stored: list[VerifiedLayer] = []
    count: int | None = None
    if isinstance(a, (str, Path)):
        player = _player(Path(a))
        if player is not None and b is None:
            lines = _stored(Path(a), None, player, engines, asked)
            return VerifyReport(
                a=_name(a), b=None, seed=seed, lines=tuple(lines), stored=len(player)
            )
        path, a = Path(a), load(a)
        if b is None:
            stored, count = _stored(path, a, a.answers, engines, asked), len(a.answers)
    chosen = chosen or _chosen(engines)
    layers_a, losses = _model(a)
    layers_b, more = (None, ()) if b is None else _model(b)
    lines = stored
    pairs = list(_pairs(layers_a, layers_b))
    progress.expect(len(pairs) * len(chosen) * (1 if b is None else 2))
    for first, second in pairs:
        x = _input(first, seed)
        sequences = _sequences(first)
        yardstick = _Yardstick(sequences, x)
        answers = {}
        for engine in chosen:
            answer = _answer(engine, sequences, x, must=bool(engines))
            answers[engine.name] = answer
            progress.advance(1)
            lines.append(_of_a(engine.name, first, answer, yardstick, asked))
        if second is not None:
            pair = _Pair(first, second, (*losses, *more))
            changed = _Yardstick(pair.first, x) if pair.roundings else yardstick
            for engine in chosen:
                before = answers[engine.name]
                if pair.is_changed and isinstance(before, np.ndarray):
                    before = _answer(engine, pair.first, x, must=bool(engines))
                after = _answer(engine, pair.second, x, must=bool(engines))
                lines.append(_of_b(engine.name, pair, before, after, changed, asked))
                progress.advance(1)
    return VerifyReport(
        a=name,
        b=None if b is None else _name(b),
        seed=seed,
        lines=tuple(lines),
        stored=count,
    )


# ---- the check that a file holds ----------------------------------------------------------------


def _player(path: Path) -> tuple[Answer, ...] | None:
    """Return the check of a file that no model is read from; None of any other file."""
    row = table.container("c")
    if row is None or table.suffix_of(path.name, [row]) is None or not path.is_file():
        return None
    from lstmconvert.containers import cheader

    player = cheader.player(path)
    return () if player is None else (player.answer,)


def _stored(
    path: Path,
    model: Model | None,
    answers: Sequence[Answer],
    engines: Sequence[str],
    asked: tuple[float, float] | None,
) -> list[VerifiedLayer]:
    """Compare what a file states with what engines give: the reference, Keras, and the engine that
    runs the file as it is.

    Args:
        path: the file.
        model: the model in it; None for a header in C.
        answers: what the file states.
        engines: those that the user named; none: all.
        asked: rtol and atol, or None.
    """
    container = "c" if model is None else model.container
    lines = []
    for answer in answers:
        for engine in ENGINES.values():
            if engines and engine.name not in engines:
                continue
            is_player = engine.play is not None and engine.container == container
            is_keras = engine.name == "keras" and answer.layer is None and model is not None
            if not (is_player or is_keras or (engine.name == REFERENCE and model is not None)):
                continue
            name = WHOLE if answer.layer is None else answer.layer
            line = VerifiedLayer(layer=name, file="a", engine=engine.name, against=STORED)
            given = _given(engine, path, model, answer, is_asked=bool(engines))
            lines.append(
                replace(line, skipped=given) if isinstance(given, str)
                else _of_stored(line, given, answer, asked)
            )  # fmt: skip
    return lines


def _given(
    engine: Engine, path: Path, model: Model | None, answer: Answer, *, is_asked: bool
) -> Array | str:
    """Return what an engine gives for the stored input, or why it was not run."""
    if model is None and not is_asked:
        return f"a header is a program: --engine {engine.name} compiles it and runs it"
    if not engine.installed:
        return f"it is not installed: {engine.needs}"
    try:
        if engine.name == REFERENCE and model is not None:
            return _recomputed(model, answer)
        if engine.play is not None:
            return engine.play(path, answer)
    except (UnsupportedByTarget, UnknownOption, MissingPackage) as error:
        return error.message
    from lstmconvert.checks import wholemodel

    return wholemodel.answered(engine.name, path, answer.x)


def _recomputed(model: Model, answer: Answer) -> Array:
    from lstmconvert.keras.modern import chains
    from lstmconvert.reference import chains as forward

    if answer.layer is not None:
        return forward.run_layer(model[answer.layer], answer.x)
    chain = chains.of(model, REFERENCE, "NumPy")
    if chain is None:
        raise UnsupportedByTarget(
            "the file does not hold the whole model",
            where=WHOLE, option="check", target=REFERENCE,
        )  # fmt: skip
    return forward.answered(chain, answer)


def _of_stored(
    line: VerifiedLayer, given: Array, answer: Answer, asked: tuple[float, float] | None
) -> VerifiedLayer:
    wanted = answer.y
    if given.ndim == 2 and wanted.ndim == 3:
        wanted = wanted[:, -1]  # Keras gives the last step alone, and the file runs step by step
    return compared(line, given, wanted, np.full(wanted.shape, answer.bound), asked)


def _chosen(names: Sequence[str]) -> list[Engine]:
    check_engines(
        names, ENGINES, "no such engine", lambda name: ENGINES[name].installed,
        lambda name: ENGINES[name].needs,
    )  # fmt: skip
    if names:
        return [ENGINES[name] for name in dict.fromkeys(names)]
    return [engine for engine in ENGINES.values() if engine.installed]


def check_engines(
    names: Sequence[str],
    known: Collection[str],
    unknown: str,
    is_installed: Callable[[str], bool],
    needs: Callable[[str], str],
    hint: str | None = None,
) -> None:
    """Make sure that the engines that were asked for can run.

    Args:
        names: as the user gave them.
        known: the names that there are.
        unknown: what is said of another.
        is_installed, needs: of a known one; what is to be installed for it.
        hint: to one that is not known, and is close to none.

    Raises:
        UsageError: a name is not known.
        MissingPackage: an engine is not installed.
    """
    for name in names:
        if name not in known:
            close = close_to(name, known) or hint
            raise UsageError(unknown, found=name, expected=", ".join(known), hint=close)
        if not is_installed(name):
            raise MissingPackage(f"the engine {name} is not installed", hint=needs(name))


def _model(
    value: str | Path | Model | LSTMLayer,
) -> tuple[tuple[LSTMLayer, ...], tuple[str, ...]]:
    """Return the layers, with what is assumed of files that say no options, and the losses."""
    if isinstance(value, (str, Path)):
        value = load(value)
    if isinstance(value, LSTMLayer):
        return (assume.layer(value)[0],), ()
    return tuple(assume.layer(layer)[0] for layer in value.layers), value.losses


def _name(value: str | Path | Model | LSTMLayer) -> str:
    if isinstance(value, (str, Path)):
        return Path(value).name
    return value.name if isinstance(value, LSTMLayer) else "model"


def _pairs(
    layers_a: Sequence[LSTMLayer], layers_b: Sequence[LSTMLayer] | None
) -> list[tuple[LSTMLayer, LSTMLayer | None]]:
    if layers_b is None:
        return [(layer, None) for layer in layers_a]
    named = {layer.name: layer for layer in layers_b}
    if set(named) == {layer.name for layer in layers_a}:
        return [(layer, named[layer.name]) for layer in layers_a]
    if len(layers_a) != len(layers_b):
        raise UsageError(
            "A and B do not have the same layers", found=len(layers_b), expected=len(layers_a)
        )
    return list(zip(layers_a, layers_b, strict=True))


def _sequences(layer: LSTMLayer) -> LSTMLayer:
    """Return a layer that gives every output, starts from zero, and runs the plain way."""

    def change(_: str, direction: Direction) -> Direction:
        options = replace(
            direction.options,
            return_sequences=True,
            return_state=False,
            stateful=False,
            unroll=False,  # another order of the same sums, and other last bits
            time_major=False,
            zero_output_for_mask=False,
        )
        return replace(direction, options=options)

    return edit.map_directions(layer, change)


def _input(layer: LSTMLayer, seed: int) -> Array:
    batch, steps, *inner = input_shape(layer)
    sizes = (batch or BATCH, steps or STEPS, *(size or WINDOW for size in inner))
    x = np.random.default_rng(seed).normal(size=sizes)
    # Numbers that every dtype has, so that no engine sees another input.
    return x.astype(dtype_of("bfloat16")).astype(np.float64)


class _Yardstick:
    """What the reference answers, and how far off rounding may bring an answer.

    Args:
        layer: a layer that gives every output.
        x: the input.
    """

    def __init__(self, layer: LSTMLayer, x: Array) -> None:
        self.answer = ENGINES[REFERENCE].run(layer, x)
        outputs = reference.run(layer, x, dtype="float32").outputs
        narrow = np.concatenate(outputs, axis=-1).astype(np.float64)
        with np.errstate(all="ignore"):
            error = np.abs(narrow - self.answer)
        error[narrow == self.answer] = 0.0
        error[np.isnan(narrow) & np.isnan(self.answer)] = 0.0
        error[np.isnan(error)] = np.inf  # float32 cannot hold the number, or what it is made of
        # Errors grow with the steps, and where two numbers meet by chance, others do not. The
        # backward half of a Bidirectional begins at the end.
        if layer.backward is None:
            largest = error.max(axis=(0, *range(2, error.ndim)), initial=0.0, keepdims=True)
            self._noise = np.maximum.accumulate(largest, axis=1)
        else:
            self._noise = error.max(initial=0.0, keepdims=True)
        finite = np.abs(self.answer[np.isfinite(self.answer)])
        self._scale = float(finite.max(initial=0.0))

    def bound(self, dtype: str) -> Array:
        """Return how far from the reference an answer that is computed in a dtype may be."""
        bound: Array = allowed(self._noise, self._scale, dtype)
        return np.broadcast_to(bound, self.answer.shape)


class _Pair:
    """A layer of each file, made alike in what is rounded between them.

    Fields: `first` and `second`, to run; `is_changed`: whether the first is not as it was;
    `roundings`: whether roundings are between them that cannot be done again exactly.
    """

    def __init__(self, first: LSTMLayer, second: LSTMLayer, losses: tuple[str, ...]) -> None:
        self.layer = second
        of_layer = [loss for loss in losses if first.name in loss or second.name in loss]
        self.dtypes = {first.dtype.name, second.dtype.name}
        self.dtypes |= {name for name in EPSILONS for loss in of_layer if name in loss}
        whole = first, second
        # A cast is a rounding that has one result: the wider weights are cast again here.
        narrow = max(first, second, key=lambda layer: EPSILONS[layer.dtype.name]).dtype.name
        first, second = (_cast(layer, narrow) for layer in whole)
        has_casts = any("rounded from" in loss for loss in of_layer) and whole == (first, second)
        # So is the sum of two: a summed pair of biases, or a forget bias that was added to one.
        sums = max(_sums(first, second), _sums(second, first))
        first, second = _biased_as(first, second), _biased_as(second, first)
        self.roundings = has_casts or sums > 1 or _biases(first) != _biases(second)
        self.first, self.second = _sequences(first), _sequences(second)
        self.is_changed = first is not whole[0]
        self.computed = compute_dtypes(first), compute_dtypes(second)

    def bound(self, engine: str, yardstick: _Yardstick) -> Array | float:
        """Return how much the two answers of an engine may differ."""
        dtypes = set(self.dtypes) if self.roundings else set()
        if engine != REFERENCE and self.computed[0] != self.computed[1]:
            dtypes |= self.computed[0] | self.computed[1]
        if not dtypes:
            return 0.0
        return yardstick.bound(max(dtypes, key=EPSILONS.__getitem__))


def _cast(layer: LSTMLayer, name: str) -> LSTMLayer:
    if layer.dtype.name == name:
        return layer
    return edit.cast(alone(layer), name).layers[0]


def _biases(layer: LSTMLayer) -> list[tuple[bool, object]]:
    """Return of each cell what is rounded where a framework has one bias, or adds one itself."""
    return [
        (edit.has_second_bias(cell), cell.options.forget_bias or 0.0)
        for _, _, cell in layer.cells()
    ]


def _cells_in_both(layer: LSTMLayer, other: LSTMLayer) -> dict[tuple[str, int], tuple[Cell, Cell]]:
    """Return the cells of two layers that have the same place, by direction and index."""
    cells = {(side, index): cell for side, index, cell in other.cells()}
    return {
        (side, index): (cell, cells[side, index])
        for side, index, cell in layer.cells()
        if (side, index) in cells
    }


def _folds(cell: Cell, other: Cell) -> tuple[bool, float | None]:
    """Return whether the two biases of a cell are one in the other, and to what its forget bias
    at run time has to change so that both have the same; None where it need not, or is unknown."""
    is_summed = edit.has_second_bias(cell) and not edit.has_second_bias(other)
    before, after = cell.options.forget_bias, other.options.forget_bias
    if before is UNKNOWN or after is UNKNOWN or (before or 0.0) == (after or 0.0) or after:
        return is_summed, None
    return is_summed, 0.0


def _sums(layer: LSTMLayer, other: LSTMLayer) -> int:
    """Return how many sums stand one behind the other, at most, where `_biased_as` adds biases.
    Of more than one the order counts, so that the result is not a single number."""
    folds = (_folds(*pair) for pair in _cells_in_both(layer, other).values())
    return max((is_summed + (amount is not None) for is_summed, amount in folds), default=0)


def _biased_as(layer: LSTMLayer, other: LSTMLayer) -> LSTMLayer:
    """Return a layer whose biases are added where the other layer has their sum: the same bits,
    since the rounded sum of two numbers is one number."""
    pairs = _cells_in_both(layer, other)
    if _biases(layer) == _biases(other):
        return layer

    def change(side: str, index: int, cell: Cell) -> Cell:
        if (side, index) not in pairs:
            return cell
        is_summed, amount = _folds(*pairs[side, index])
        cell = edit.with_one_bias(cell) if is_summed else cell
        return cell if amount is None else edit.with_forget_bias(cell, amount)

    return edit.map_cells(layer, change)


def _answer(engine: Engine, layer: LSTMLayer, x: Array, *, must: bool) -> Array | str:
    """Return an engine's answer, or why it cannot run the layer."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return engine.run(layer, x)
    except (UnsupportedByTarget, UnknownOption, MissingPackage) as error:
        if must:
            raise
        return error.message


def _of_a(
    engine: str,
    layer: LSTMLayer,
    answer: Array | str,
    yardstick: _Yardstick,
    asked: tuple[float, float] | None,
) -> VerifiedLayer:
    line = VerifiedLayer(layer=layer.name, file="a", engine=engine)
    if isinstance(answer, str):
        return replace(line, skipped=answer)
    if engine == REFERENCE:
        line = replace(line, against=None)
    computed = max(compute_dtypes(layer) | {layer.dtype.name}, key=EPSILONS.__getitem__)
    return compared(line, answer, yardstick.answer, yardstick.bound(computed), asked)


def _of_b(
    engine: str,
    pair: _Pair,
    before: Array | str,
    after: Array | str,
    yardstick: _Yardstick,
    asked: tuple[float, float] | None,
) -> VerifiedLayer:
    line = VerifiedLayer(layer=pair.layer.name, file="b", engine=engine, against="a")
    for answer in (before, after):
        if isinstance(answer, str):
            return replace(line, skipped=answer)
    if isinstance(before, str) or isinstance(after, str):  # for the type checker
        return line
    bound = np.broadcast_to(pair.bound(engine, yardstick), before.shape)
    return compared(line, after, before.astype(np.float64), bound, asked)


@np.errstate(all="ignore")
def compared(
    line: VerifiedLayer,
    answer: Array,
    wanted: Array,
    bound: Array,
    asked: tuple[float, float] | None,
) -> VerifiedLayer:
    """Return the line with what differs.

    Raises:
        UsageError: the two are of other shapes.
    """
    if answer.shape != wanted.shape:
        raise UsageError(
            "the layers have outputs of other shapes",
            where=line.layer,
            found=answer.shape,
            expected=wanted.shape,
        )
    if asked is not None:
        rtol, atol = asked
        bound = atol + rtol * np.abs(wanted)
        line = replace(line, rtol=rtol, atol=atol)
    wide = answer.astype(np.float64)
    same = (wide == wanted) | (np.isnan(wide) & np.isnan(wanted))
    distance = np.where(same, 0.0, np.abs(wide - wanted))
    beyond = np.isinf(bound) & ~same
    bad = ~same & ~beyond & ~(distance <= bound)
    seen = distance[~beyond]
    first = np.argwhere(bad)
    allowed = bound[np.isfinite(bound)]
    return replace(
        line,
        dtype=answer.dtype.name,
        max_abs=float(seen.max(initial=0.0)),
        max_rel=float((seen / np.abs(wanted[~beyond]))[seen > 0].max(initial=0.0)),
        max_ulp=_ulp(answer, wanted, same | beyond),
        first_bad=tuple(map(int, first[0])) if len(first) else None,
        bad=int(bad.sum()),
        size=answer.size,
        allowed=float(allowed.max(initial=0.0)),
        beyond=int(beyond.sum()),
    )


def _ulp(computed: Array, wanted: Array, same: Array) -> int:
    """Return the largest distance of two arrays in units of the last place of `computed`."""
    differ = ~same.ravel()
    ordered = [_ordered(array.astype(computed.dtype))[differ] for array in (computed, wanted)]
    return max((abs(int(p) - int(q)) for p, q in zip(*ordered, strict=True)), default=0)


def _ordered(array: Array) -> Array:
    """Map floating-point numbers to integers in the same order."""
    bits = array.reshape(-1).view(f"i{array.dtype.itemsize}").astype(np.int64)
    smallest = np.int64(-(1 << (8 * array.dtype.itemsize - 1)))
    return np.where(bits < 0, smallest - bits, bits)

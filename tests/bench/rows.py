"""The rows of the table: what is measured against what, and what the design allows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from measure import OUT, Cost, alternate, compare, middle, run

HERE = Path(__file__).parent
SEED95 = HERE.parents[1] / "fixtures" / "keras-3.15.1" / "seed95.keras"
_MIB = 1 << 20

_IMPORTS = [sys.executable, "-c", "import numpy, h5py, safetensors"]
_NOTHING = [sys.executable, "-c", "pass"]
_COPY = ["sh", "-c", 'cp "$1" "$2" && sync "$2"', "sh"]
#: What a user writes without this package: the gates of every LSTM layer, cut out of its weights.
_KERAS = """
import sys
import keras, numpy, safetensors.numpy
gates = {}
for layer in keras.models.load_model(sys.argv[1]).layers:
    if isinstance(layer, keras.layers.LSTM):
        for part, array in zip(("kernel", "recurrent_kernel", "bias"), layer.get_weights()):
            for gate, piece in zip("ifco", numpy.split(array, 4, axis=-1)):
                gates[f"{layer.name}.{gate}.{part}"] = numpy.ascontiguousarray(piece)
safetensors.numpy.save_file(gates, sys.argv[2])
"""

#: The same to ONNX: Keras's own export, and the converter that it stands on.
_EXPORT = """
import sys
import keras
model = keras.models.load_model(sys.argv[1])
model(keras.ops.zeros([1, *model.input_shape[1:]]))  # a model that was never called is refused
model.export(sys.argv[2], format="onnx", verbose=False)
"""
_TF2ONNX = """
import sys
import keras, tensorflow, tf2onnx
model = keras.models.load_model(sys.argv[1])
model.output_names = ["y"]
given = [tensorflow.TensorSpec(x.shape, x.dtype, name="x") for x in model.inputs]
function = tensorflow.function(lambda x: {"y": model(x)})
tf2onnx.convert.from_function(function, input_signature=given, output_path=sys.argv[2])
"""

#: And of many files, one after the other: TensorFlow is imported once.
_KERAS_LOOP = """
import glob, os, sys
import keras, numpy, safetensors.numpy
for source in sorted(glob.glob(os.path.join(sys.argv[1], "*.keras"))):
    gates = {}
    for layer in keras.models.load_model(source).layers:
        if isinstance(layer, keras.layers.LSTM):
            for part, array in zip(("kernel", "recurrent_kernel", "bias"), layer.get_weights()):
                for gate, piece in zip("ifco", numpy.split(array, 4, axis=-1)):
                    gates[f"{layer.name}.{gate}.{part}"] = numpy.ascontiguousarray(piece)
    name = os.path.basename(source).removesuffix(".keras")
    safetensors.numpy.save_file(gates, os.path.join(sys.argv[2], f"{name}.safetensors"))
"""


class Row(NamedTuple):
    """One line: the work, what it took, against what, the ratio, the budget, whether it is met."""

    work: str
    took: str
    against: str
    ratio: float
    budget: str
    met: bool | None


class Plan(NamedTuple):
    """How much is measured: repetitions of small and large work, and the sizes of the files.

    `layers` are (units, layers) of files that hold about as many bytes, `files` how many of the
    smallest size are converted at once.
    """

    small: int
    large: int
    sizes: tuple[tuple[int, int], ...]
    layers: tuple[tuple[int, int], ...]
    files: int
    keras: bool


#: The sizes make 1.2, 60 and 604 MB; the layers 140 MB each.
_SIZES = ((128, 3), (672, 4), (2048, 5))
FULL = Plan(15, 5, _SIZES, ((676, 10), (62, 1000), (20, 10_000)), 200, False)
QUICK = Plan(1, 1, ((64, 1), (64, 2)), ((32, 2), (8, 16)), 4, False)


def rows(plan: Plan, scratch: Path) -> Iterator[Row]:
    """Measure."""
    small = convert(SEED95, "safetensors")
    base = middle(alternate([small], plan.small, scratch)[0])
    yield from _start(plan, scratch)
    yield from _large(plan, scratch, base)
    yield from _sizes(plan, scratch)
    yield from _layers(plan, scratch)
    yield from _many(plan, scratch)


def convert(source: Path, suffix: str) -> list[str]:
    """Return the command that converts a file."""
    return [sys.executable, "-m", "lstmconvert", "convert", str(source), f"{OUT}/lstm.{suffix}"]


def _through_keras(source: Path) -> list[str]:
    return [sys.executable, "-c", _KERAS, str(source), f"{OUT}/lstm.safetensors"]


def _start(plan: Plan, scratch: Path) -> Iterator[Row]:
    small = convert(SEED95, "safetensors")
    pair = compare(small, _IMPORTS, plan.small, scratch)
    yield _row("convert, 95 parameters", pair.ours, "the imports", pair.other, pair.wall, 1.5)
    if plan.keras:
        pair = compare(_through_keras(SEED95), small, min(3, plan.small), scratch)
        yield _faster("convert, 95 parameters", pair.other, pair.ours, pair.wall, 12)
        to_onnx = convert(SEED95, "onnx")
        for name, text in (("Keras's export", _EXPORT), ("tf2onnx", _TF2ONNX)):
            other = [sys.executable, "-c", text, str(SEED95), f"{OUT}/lstm.onnx"]
            pair = compare(to_onnx, other, min(3, plan.small), scratch)
            yield Row(
                "convert to onnx, 95 parameters", _text(pair.ours), f"{name} {_text(pair.other)}",
                pair.wall, "none", None,
            )
    for option in ("--help", "--version"):
        pair = compare([*small[:3], option], _NOTHING, plan.small, scratch)
        yield _row(option, pair.ours, "python -c pass", pair.other, pair.wall, 7)


def _large(plan: Plan, scratch: Path, base: Cost) -> Iterator[Row]:
    for suffix in ("keras", "weights.h5"):
        source = make(scratch / f"large.{suffix}", *plan.sizes[-1])
        work = f"convert {_size(source)} {suffix}"
        copy = [*_COPY, str(source), f"{OUT}/copy"]
        pair = compare(convert(source, "safetensors"), copy, plan.large, scratch)
        yield _row(work, pair.ours, "cp and sync", pair.other, pair.wall, 2.5)
        above = (pair.ours.peak - base.peak) / _MIB
        took, limit = f"{pair.ours.peak / _MIB:.0f} MB", 150
        yield Row(
            f"{work}: peak memory", took, f"small case {base.peak / _MIB:.0f} MB", above,
            f"<= {limit} MB above", above <= limit,
        )
        if suffix == "keras":
            yield from _onnx(plan, source, scratch)
        if suffix == "keras" and plan.keras:
            slow = run(_through_keras(source), scratch)
            yield _faster(work, pair.ours, slow, slow.wall / pair.ours.wall, 25)
        source.unlink()


def _onnx(plan: Plan, source: Path, scratch: Path) -> Iterator[Row]:
    copy = [*_COPY, str(source), f"{OUT}/copy"]
    pair = compare(convert(source, "onnx"), copy, plan.large, scratch)
    work = f"convert {_size(source)} keras to onnx"
    yield _row(work, pair.ours, "cp and sync", pair.other, pair.wall, 4)


def _sizes(plan: Plan, scratch: Path) -> Iterator[Row]:
    """The cost of a byte, without the start-up, is that of a byte of the smaller file."""
    sources = [make(scratch / f"{u}.{n}.keras", u, n) for u, n in plan.sizes]
    commands = [convert(source, "safetensors") for source in (SEED95, *sources)]
    start, *runs = (middle(costs).wall for costs in alternate(commands, plan.small, scratch))
    costs = [
        max(wall - start, 1e-6) / source.stat().st_size
        for source, wall in zip(sources, runs, strict=True)
    ]
    for index in range(1, len(sources)):
        less, more = sources[index - 1], sources[index]
        yield Row(
            f"cost of a byte, {_size(more)}", f"{costs[index] * 1e9:.2f} s/GB",
            f"{_size(less)}: {costs[index - 1] * 1e9:.2f} s/GB", costs[index] / costs[index - 1],
            "<= 1.3 x (linear)", costs[index] <= 1.3 * costs[index - 1],
        )
    for source in sources:
        source.unlink()


def _layers(plan: Plan, scratch: Path) -> Iterator[Row]:
    sources = [make(scratch / f"{u}.{n}.keras", u, n) for u, n in plan.layers]
    few, *others = alternate(
        [convert(source, "safetensors") for source in sources], max(1, plan.large // 2), scratch,
        warm=False,
    )
    for (units, count), costs in zip(plan.layers[1:], others, strict=True):
        one, many = middle(few), middle(costs)
        weights = _weights(units, count) / _weights(*plan.layers[0])
        budget = 2 * one.wall * weights + count / 1000
        yield Row(
            f"{count:,} layers", _text(many), f"{plan.layers[0][1]} layers: {_text(one)}",
            many.wall / budget, "<= 2 x a byte's cost + 1 ms a layer", many.wall <= budget,
        )
    for source in sources:
        source.unlink()


def _many(plan: Plan, scratch: Path) -> Iterator[Row]:
    """Many files of about 1 MB: two processes against one, and against Keras in a loop."""
    folder = scratch / "many"
    folder.mkdir()
    first = make(folder / "0.keras", *plan.sizes[0])
    for number in range(1, plan.files):
        shutil.copyfile(first, folder / f"{number}.keras")
    os.sync()  # or the disk would be busy with them while the first runs are timed
    work = f"batch, {plan.files} files of {_size(first)}"
    batch = [sys.executable, "-m", "lstmconvert", "batch", str(folder), "--out-dir", OUT, "-j"]
    pair = compare([*batch, "2"], [*batch, "1"], plan.large, scratch)
    gain = 1 / pair.wall
    yield Row(
        f"{work}, -j 2", _text(pair.ours), f"-j 1 {_text(pair.other)}", gain,
        ">= 1.7 x faster", gain >= 1.7,
    )
    if plan.keras:
        loop = [sys.executable, "-c", _KERAS_LOOP, str(folder), OUT]
        pair = compare(loop, [*batch, "2"], min(3, plan.large), scratch)
        yield _faster(f"{work}, -j 2", pair.other, pair.ours, pair.wall, 10)
    shutil.rmtree(folder)


def _weights(units: int, layers: int) -> int:
    return layers * units * units  # all but a little


def make(path: Path, units: int, layers: int) -> Path:
    """Make a file in a process of its own."""
    numbers = (str(units), str(layers))
    subprocess.run([sys.executable, str(HERE / "models.py"), str(path), *numbers], check=True)
    return path


def _row(work: str, ours: Cost, name: str, other: Cost, ratio: float, budget: float) -> Row:
    against = f"{name} {_text(other)}"
    return Row(work, _text(ours), against, ratio, f"<= {budget:g} x", ratio <= budget)


def _faster(work: str, ours: Cost, keras: Cost, ratio: float, budget: float) -> Row:
    against = f"through Keras {_text(keras)}"
    return Row(work, _text(ours), against, ratio, f">= {budget:g} x faster", ratio >= budget)


def _text(cost: Cost) -> str:
    seconds = f"{cost.wall * 1000:.0f} ms" if cost.wall < 1 else f"{cost.wall:.1f} s"
    return f"{seconds}, {cost.peak / _MIB:.0f} MB"


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.3g} MB"

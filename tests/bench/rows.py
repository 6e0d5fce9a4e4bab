"""The rows of the table: what is measured, against which limit, and what a user would do instead.

Every command of a row runs in turn with the others of it: ours, the limit, ours, the limit, …, and
the user's own script once, in the first round.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import others
from growth import exponent
from measure import OUT, Cost, in_turn, middle, ratio
from others import Script

HERE = Path(__file__).parent
SEED95 = HERE.parents[1] / "fixtures" / "keras-3.15.1" / "seed95.keras"
_MB = 1e6
_MIB = 1 << 20
_US = [sys.executable, "-m", "lstmconvert"]
_IMPORTS = [sys.executable, "-c", "import numpy, h5py, safetensors"]
_NOTHING = [sys.executable, "-c", "pass"]
#: Takes a folder, and the files to copy into it.
_COPY = ["sh", "-c", 'to=$1; shift; cp "$@" "$to" && sync "$to"/*', "sh", OUT]
#: What reading alone costs: a limit for what writes nothing.
_READ = ["sh", "-c", 'for f; do cat "$f" > /dev/null; done', "sh"]
#: How much more memory than the small case a large file may take.
_ABOVE = 150


class Row(NamedTuple):
    """One line: the work, what it took, the limit, the ratio, the budget, whether it is met, and
    what the user's own way takes."""

    work: str
    took: str
    limit: str
    ratio: float
    budget: str
    met: bool | None
    instead: str = ""


class Road(NamedTuple):
    """A kind of conversion of a large file.

    Fields: `title`; `source`: a kind of `_SOURCES`; `name` of the destination; `options`, where
    `KERAS` stands for the file of Keras; `budget`: how many times cp and sync; `script`: the user's
    own way.
    """

    title: str
    source: str
    name: str
    options: tuple[str, ...]
    budget: float
    script: Script | None = None


#: In the options of a road: the file of Keras.
KERAS = "{keras}"
#: The kinds of files that roads begin with: the name of one, and the options that make it.
_SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "h5": ("a.h5", ()),
    "gates": ("a.safetensors", ()),
    "npz": ("a.npz", ()),
    **{
        layout: ("a.safetensors", ("--to", layout))
        for layout in ("torch", "mlx", "equinox", "paddle", "onnx")
    },
    ".onnx": ("a.onnx", ()),
    ".onnx --whole": ("a.onnx", ("--whole",)),
    ".msgpack": ("a.msgpack", ()),
    ".params": ("a.params", ("--to", "mxnet")),
    ".param (ncnn)": ("a.param", ()),
    ".mlmodel": ("a.mlmodel", ()),
    "tfjs": ("model.json", ("--to", "tfjs")),
    ".mat": ("a.mat", ()),
    ".tflite": ("a.tflite", ()),
    ".eqx": ("a.eqx", ("--layer", "lstm_1", "--bare")),
}
#: What each of them costs on the road back, and the user's own way: 2.5 where nothing is said.
_BACK: dict[str, tuple[float, Script | None]] = {
    "torch": (2.5, others.TORCH_KERAS),
    ".msgpack": (4, others.FLAX_KERAS),
    **dict.fromkeys(
        (".params", ".param (ncnn)", ".mlmodel", "tfjs", ".mat", ".tflite", ".eqx"), (4, None)
    ),
}
#: Roads of one pass, of a pass that turns matrices, and where a library or a text is between.
_ROADS = (
    Road("to gates", "keras", "a.safetensors", (), 1.5, others.KERAS_SLICE),
    Road("to gates, .weights.h5", "weights.h5", "a.safetensors", (), 1.3),
    Road("to gates, .npz", "keras", "a.npz", (), 2.5),
    Road("to gates, .onnx", "keras", "a.onnx", (), 2, others.KERAS_EXPORT),
    Road("to .onnx --fused", "keras", "a.onnx", ("--fused",), 2.5),
    Road("to .onnx --whole", "keras", "a.onnx", ("--whole",), 2.5, others.TF2ONNX),
    Road("to .h5", "keras", "a.h5", (), 2.5, others.KERAS_SAVE),
    Road(".h5 to .keras", "h5", "a.keras", (), 2.5, others.KERAS_SAVE),
    Road("to .keras", "keras", "a.keras", (), 2.5, others.KERAS_SAVE),
    *(
        Road(f"--to {layout}", "keras", "a.safetensors", ("--to", layout), 2.5, script)
        for layout, script in (
            ("torch", others.KERAS_TORCH),
            ("mlx", others.KERAS_TURN),
            ("equinox", None),
            ("paddle", None),
            ("onnx", None),
            ("haiku", None),
        )
    ),
    *(
        Road(
            f"{kind} to .keras", kind, "a.keras",
            ("--config", KERAS) if kind == ".msgpack" else (), *_BACK.get(kind, (2.5, None)),
        )
        for kind in _SOURCES if kind != "h5"
    ),
    Road("torch to gates", "torch", "a.safetensors", (), 2.5),
    Road("gates to torch", "gates", "a.safetensors", ("--to", "torch"), 2.5),
    Road("to .msgpack", "keras", "a.msgpack", (), 4, others.FLAX),
    Road("to .tflite", "keras", "a.tflite", (), 4, others.TFLITE),
    Road("to .params", "keras", "a.params", ("--to", "mxnet"), 4),
    Road("to .param (ncnn)", "keras", "a.param", (), 4),
    Road("to .mlmodel", "keras", "a.mlmodel", (), 4),
    Road("to tfjs", "keras", "model.json", ("--to", "tfjs"), 4, others.TFJS),
    Road("to .mat", "keras", "a.mat", (), 4),
    Road("to .eqx, one layer", "keras", "a.eqx", ("--layer", "lstm_1", "--bare"), 4),
    Road("to C, one layer", "keras", "a.h", ("--layer", "lstm_1"), 4),
)


class Plan(NamedTuple):
    """How much is measured: repetitions of small and large work, and the sizes of the files.

    Fields: `sizes`: (units, layers) of files of more and more bytes, the second last of them for
    the roads; `layers`: (units, layers) of files of more and more layers; `files`: how many of the
    smallest are converted at once; `tensors`: how many are beside the LSTMs; `alone`: whether the
    users' own ways are left out; `roads`: the titles of those that are measured, or none for all.
    """

    small: int
    large: int
    road: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    layers: tuple[tuple[int, int], ...]
    files: tuple[int, ...]
    tensors: tuple[int, ...]
    alone: bool
    roads: tuple[str, ...] = ()


#: The roads' file is of 604 MB. The sizes make 1.2, 60 and 604 MB, and 5 GB.
FULL = Plan(
    small=15,
    large=3,
    road=(2048, 5),
    sizes=((128, 3), (672, 4), (2048, 5), (5600, 5)),
    layers=((20, 10), (20, 100), (20, 1000), (20, 10_000)),
    files=(200, 2000, 20_000),
    tensors=(10, 100, 1000, 10_000, 100_000),
    alone=False,
)
QUICK = Plan(
    small=1,
    large=1,
    road=(64, 2),
    sizes=((64, 1), (64, 4)),
    layers=((8, 2), (8, 16)),
    files=(2, 4),
    tensors=(2, 20),
    alone=True,
)
#: One road of each kind: of one pass, turned, back, through a library, from and to a whole model.
FEW = ("to gates, .weights.h5", "--to torch", "torch to .keras", ".h5 to .keras", "tfjs to .keras",
       "to .onnx --whole")  # fmt: skip


def rows(plan: Plan, scratch: Path) -> Iterator[Row]:
    """Measure."""
    small = _convert(SEED95, "a.safetensors")
    base = middle(in_turn([small], plan.small, scratch)[0])
    yield from _start(plan, scratch)
    yield from _large(plan, scratch, base)
    yield from _bytes(plan, scratch, base)
    yield from _layers(plan, scratch, base)
    yield from _files(plan, scratch, base)
    yield from _tensors(plan, scratch, base)


def _convert(source: Path, name: str, *options: str) -> list[str]:
    return [*_US, "convert", str(source), *options, f"{OUT}/{name}"]


# -- start-up -----------------------------------------------------------------------------------


def _start(plan: Plan, scratch: Path) -> Iterator[Row]:
    """Small work is little more than what it imports."""
    works: list[tuple[str, list[str], float | None, Script | None]] = [
        ("to gates", _convert(SEED95, "a.safetensors"), 1.25, others.KERAS_SLICE),
        ("--to torch", _convert(SEED95, "a.safetensors", "--to", "torch"), 1.4, others.KERAS_TORCH),
        ("to .onnx", _convert(SEED95, "a.onnx"), 1.6, others.KERAS_EXPORT),
        ("to .onnx --whole", _convert(SEED95, "a.onnx", "--whole"), None, others.TF2ONNX),
        ("inspect", [*_US, "inspect", str(SEED95)], None, others.KERAS_SHOW),
        ("diff", [*_US, "diff", str(SEED95), str(SEED95)], None, others.KERAS_DIFF),
        ("view", [*_US, "view", str(SEED95), "-o", f"{OUT}/a.html"], None, None),
        (
            "verify",
            [*_US, "verify", str(SEED95), str(SEED95), "--engine", "numpy"],
            None,
            others.KERAS_VERIFY,
        ),
    ]  # fmt: skip
    for title, command, budget, script in works:
        name = f"{OUT}/{Path(command[-1]).name}" if command[3] == "convert" else str(SEED95)
        row = _row(plan, f"95 parameters, {title}", command, _IMPORTS, budget, scratch, plan.small,
                   _script(plan, script, SEED95, name), "the imports")  # fmt: skip
        yield row[0]
    for option in ("--help", "--version"):
        yield _row(plan, option, [*_US, option], _NOTHING, 5, scratch, plan.small, None,
                   "python -c pass")[0]  # fmt: skip


# -- large files --------------------------------------------------------------------------------


def _large(plan: Plan, scratch: Path, base: Cost) -> Iterator[Row]:
    """Each road of a large file against cp and sync, with its memory."""
    keras = _make(scratch / "large.keras", *plan.road)
    made = {"keras": keras, "weights.h5": _make(scratch / "large.weights.h5", *plan.road)}
    size = _size(keras)
    roads = [road for road in _ROADS if not plan.roads or road.title in plan.roads]
    for number, road in enumerate(roads):
        try:
            source = made.get(road.source) or _source(road.source, keras)
        except RuntimeError:
            continue
        made[road.source] = source
        copy = [*_COPY, *map(str, _files_of(source))]
        options = [str(keras) if option == KERAS else option for option in road.options]
        command = _convert(source, road.name, *options)
        script = _script(plan, road.script, source, f"{OUT}/{road.name}")
        work = f"{size}, {road.title}"
        try:
            row, cost = _row(plan, work, command, copy, road.budget, scratch, plan.large, script,
                             "cp and sync")  # fmt: skip
        except RuntimeError as error:
            if "is not installed" not in str(error):
                raise
            continue  # what the road needs, is not here
        yield row
        yield _memory(work, cost, base)
        rest = {later.source for later in roads[number + 1 :]} | {"keras", "h5", "torch"}
        if road.source not in rest:
            for path in _files_of(made.pop(road.source)):
                path.unlink()
    first, same, torch = (str(made[kind]) for kind in ("keras", "h5", "torch"))
    views: list[tuple[str, list[str], list[str], Script | None]] = [
        ("diff", ["diff", first, same], [first, same], others.KERAS_DIFF),
        (
            "diff, turned",
            ["diff", "--weights-only", first, torch],
            [first, torch],
            others.KERAS_TORCH_DIFF,
        ),
        ("inspect", ["inspect", first], [first], others.KERAS_SHOW),
        ("inspect --stats", ["inspect", "--stats", first], [first], others.KERAS_SHOW),
        ("view", ["view", first, "-o", f"{OUT}/a.html"], [first], None),
        (
            "verify",
            ["verify", first, same, "--engine", "numpy"],
            [first, same],
            others.KERAS_VERIFY,
        ),
    ]
    for title, command, read, script in views:
        other = _script(plan, script, Path(first), read[-1])
        row, cost = _row(plan, f"{size}, {title}", [*_US, *command], [*_READ, *read], None, scratch,
                         plan.large, other, "cat")  # fmt: skip
        yield row
        yield _memory(f"{size}, {title}", cost, base)
    for source in made.values():
        for path in _files_of(source):
            path.unlink()


def _source(kind: str, keras: Path) -> Path:
    """Make the large file in a kind that a road begins with, in a folder of its own.

    Raises:
        RuntimeError: the package that writes it is not installed.
    """
    name, options = _SOURCES[kind]
    path = keras.with_name(f"from {kind}") / name
    path.parent.mkdir()
    command = [*_US, "convert", str(keras), *options, str(path)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        path.parent.rmdir()
        if "is not installed" in done.stderr:
            raise RuntimeError(done.stderr)
        raise subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr)
    os.sync()  # or the disk would be busy with it while the first run is timed
    return path


def _files_of(source: Path) -> list[Path]:
    """Return a source, and the files that belong to it: those of its folder, if it has its own."""
    is_alone = source.parent.name.startswith("from ")
    return sorted(source.parent.iterdir()) if is_alone else [source]


def _memory(work: str, cost: Cost, base: Cost) -> Row:
    above = (cost.peak - base.peak) / _MIB
    return Row(
        f"{work}: peak memory", f"{cost.peak / _MIB:.0f} MB",
        f"small case {base.peak / _MIB:.0f} MB", above, f"<= {_ABOVE} MB above", above <= _ABOVE,
    )  # fmt: skip


# -- growth -------------------------------------------------------------------------------------


def _bytes(plan: Plan, scratch: Path, base: Cost) -> Iterator[Row]:
    """Bytes: to gates, and turned."""
    sizes = [size for size in plan.sizes if _fits(size, scratch)]
    sources = [_make(scratch / f"{u}.{n}.keras", u, n) for u, n in sizes]
    counts = [source.stat().st_size / _MB for source in sources]
    for title, options in (("to gates", ()), ("--to torch", ("--to", "torch"))):
        commands = [_convert(source, "a.safetensors", *options) for source in sources]
        yield from _growth(f"{title}: bytes", "MB", counts, commands, plan, scratch, base)
    for source in sources:
        source.unlink()


def _fits(size: tuple[int, int], scratch: Path) -> bool:
    """Whether the disk holds a file of a size four times: itself, what is made of it, and room."""
    return 4 * 32 * _weights(*size) < shutil.disk_usage(scratch).free


def _weights(units: int, layers: int) -> int:
    return layers * units * units  # all but a little


def _layers(plan: Plan, scratch: Path, base: Cost) -> Iterator[Row]:
    """Layers: at most 0.4 ms and 20 KB each, in what opens them all."""
    sources = [_make(scratch / f"{u}.{n}.keras", u, n) for u, n in plan.layers]
    counts = [count for _, count in plan.layers]
    for title, command in (
        ("convert", lambda path: _convert(path, "a.safetensors")),
        ("inspect", lambda path: [*_US, "inspect", str(path)]),
        ("diff", lambda path: [*_US, "diff", str(path), str(path)]),
    ):
        commands = [command(path) for path in sources]
        yield from _growth(
            f"{title}: layers", "", counts, commands, plan, scratch, base, each=(0.4, 20)
        )
    for source in sources:
        source.unlink()


def _files(plan: Plan, scratch: Path, base: Cost) -> Iterator[Row]:
    """Files: a batch of more and more of them, and in the user's own loop."""
    folders = []
    for count in plan.files:
        folder = scratch / f"files{count}"
        folder.mkdir()
        for number in range(count):
            shutil.copyfile(SEED95, folder / f"{number}.keras")
        folders.append(folder)
    os.sync()
    batch = [*_US, "batch", "--out-dir", OUT, "-j"]
    commands = [[*batch, "2", str(folder)] for folder in folders]
    yield from _growth("batch -j 2: files", "", plan.files, commands, plan, scratch, base)
    script = _script(plan, others.KERAS_LOOP, folders[0], OUT)
    yield _row(plan, f"batch -j 2, {plan.files[0]} files", commands[0], [*batch, "1",
               str(folders[0])], None, scratch, plan.large, script, "-j 1")[0]  # fmt: skip
    for folder in folders:
        shutil.rmtree(folder)
    yield _one_file(plan, scratch)


def _one_file(plan: Plan, scratch: Path) -> Row:
    """One small file of a batch, in a process that has converted others before."""
    folder = scratch / "onefile"
    folder.mkdir()
    numbers = [str(SEED95), str(folder), str(20 * plan.large)]
    done = subprocess.run(
        [sys.executable, str(HERE / "smallfile.py"), *numbers],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    shutil.rmtree(folder)
    calls, ours, worked, disk = map(float, done.stdout.split())
    took = f"{ours:.1f} ms, {worked:.1f} of them the processor's, {calls:.0f} calls"
    return Row("batch: one small file", took, f"write and fsync {disk:.1f} ms", ours / disk,
               "none", None)  # fmt: skip


def _tensors(plan: Plan, scratch: Path, base: Cost) -> Iterator[Row]:
    """Tensors of other layers beside one LSTM."""
    sources = [
        _make(scratch / f"beside{count}.weights.h5", 8, 1, count) for count in plan.tensors
    ]
    commands = [_convert(source, "a.safetensors") for source in sources]
    yield from _growth(
        "to gates: tensors beside", "", plan.tensors, commands, plan, scratch, base
    )
    for source in sources:
        source.unlink()


def _growth(
    work: str,
    unit: str,
    counts: Sequence[float],
    commands: Sequence[Sequence[str]],
    plan: Plan,
    scratch: Path,
    base: Cost,
    each: tuple[float, float] | None = None,
) -> Iterator[Row]:
    """Yield the exponent of how cost grows, above the start; and what each of the most costs.

    Args:
        work: a title.
        unit: of the counts.
        counts: how much is in each command's source, from less to more.
        commands: the commands.
        plan, scratch: how, and where.
        base: the cost of the small case.
        each: budgets of one: milliseconds and kilobytes.
    """
    costs = [middle(costs) for costs in in_turn(commands, plan.large, scratch, warm=False)]
    above = [max(cost.wall - base.wall, 1e-3) for cost in costs]
    power = exponent(counts, above)
    took = ", ".join(_seconds(cost.wall) for cost in costs)
    numbers = ", ".join(f"{count:,.4g}" for count in counts)
    yield Row(
        f"{work} ({numbers}{unit and f' {unit}'})", took, "linear: exponent 1", power,
        "<= 1.1", power <= 1.1,
    )  # fmt: skip
    if each is not None:
        for name, one, budget, what in (
            ("ms", above[-1] * 1000 / counts[-1], each[0], "time"),
            ("KB", (costs[-1].peak - base.peak) / 1024 / counts[-1], each[1], "memory"),
        ):
            yield Row(
                f"{work}, {what} of each of {counts[-1]:,}", f"{one:.3g} {name}", _text(costs[-1]),
                one, f"<= {budget:g} {name}", one <= budget,
            )  # fmt: skip


# -- one row ------------------------------------------------------------------------------------


def _script(plan: Plan, script: Script | None, *arguments: object) -> tuple[str, list[str]] | None:
    """Return the title and the command of the user's own way, if it runs here."""
    command = None if script is None or plan.alone else script.command(*map(str, arguments))
    return None if script is None or command is None else (script.title, command)


def _row(
    plan: Plan,
    work: str,
    ours: Sequence[str],
    limit: Sequence[str],
    budget: float | None,
    scratch: Path,
    times: int,
    script: tuple[str, list[str]] | None,
    name: str,
) -> tuple[Row, Cost]:
    """Run ours, the limit and the user's own way in turn."""
    commands = [ours, limit] + ([script[1]] if script is not None else [])
    costs = in_turn(commands, times, scratch, once=commands[2:], may_fail=commands[2:])
    mine, least = middle(costs[0]), middle(costs[1])
    times_limit = ratio(costs[0], costs[1])
    instead = ""
    if script is not None:
        other = middle(costs[2]) if costs[2] else None
        instead = f"{script[0]}: " + (
            "failed" if other is None else f"{_text(other)} ({other.wall / mine.wall:.1f} x ours)"
        )
    row = Row(
        work, _text(mine), f"{name} {_seconds(least.wall)}", times_limit,
        "none" if budget is None else f"<= {budget:g} x",
        None if budget is None else times_limit <= budget, instead,
    )  # fmt: skip
    return row, mine


def _make(path: Path, *numbers: int) -> Path:
    """Make a file in a process of its own."""
    texts = [str(number) for number in numbers]
    subprocess.run([sys.executable, str(HERE / "models.py"), str(path), *texts], check=True)
    return path


def _seconds(wall: float) -> str:
    return f"{wall * 1000:.0f} ms" if wall < 1 else f"{wall:.1f} s"


def _text(cost: Cost) -> str:
    return f"{_seconds(cost.wall)}, {cost.peak / _MIB:.0f} MB"


def _size(path: Path) -> str:
    return f"{path.stat().st_size / _MB:.3g} MB"

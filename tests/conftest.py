"""What every test needs before a framework is imported."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import re
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import corpus

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# TensorFlow decides by the processor whether it computes with oneDNN, and has no dilated transposed
# convolution without it: the oracle is the same on every machine.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# About a thousand child processes import the package: where no bytecode may be kept, each compiles
# all of it, which doubles its time, and the tests themselves are compiled in every run.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Whether a machine is slow, or has other work, is no failure.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# No test here takes the power away: none waits until the disk has what it wrote.
os.fsync = lambda _descriptor: None

#: The frameworks that take seconds to import. A test that imports one is marked `engines`.
ENGINES = frozenset(
    (
        *("coremltools", "equinox", "flax", "haiku", "hls4ml", "jax", "keras", "mlx", "onnxscript"),
        *("openvino", "paddle", "tensorflow", "tf2onnx", "tf_keras", "tinygrad", "torch"),
    )
)
#: How a module says that it imports an engine at its top: then it is not even imported where
#: engines are deselected.
_ENGINE_MODULE = re.compile(r"^pytestmark = .*pytest\.mark\.engines", re.MULTILINE)

#: (engine, case) -> largest absolute difference from Keras, filled in by the tests.
_MATRIX: dict[tuple[str, str], float] = {}


@pytest.fixture(scope="session")
def matrix() -> dict[tuple[str, str], float]:
    """The table that is printed when all is done."""
    return _MATRIX


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a batch convert its files in this process, and begin no worker, which takes longer."""
    from lstmconvert.bulk import runners

    monkeypatch.setattr(
        runners, "Pool", lambda _workers, given, **_: contextlib.nullcontext(runners._Here(given))
    )


#: Where the graph that TensorFlow makes of a layer is what is tested, tf_keras is as it comes.
_GRAPHS = frozenset(
    ("spelled", "test_frozen.py", "test_onnx_writers.py", "test_tf1_cells.py", "test_tf1_graph.py")
)


@pytest.fixture(autouse=True)
def plain_kernels(request: pytest.FixtureRequest) -> None:
    """Let the LSTMs and GRUs of tf_keras compute step by step, as its other cells do.

    Otherwise it traces each of them twice as a whole, for a processor and for CuDNN: 1.5 seconds
    for each layer that a test builds or loads, and the same numbers.
    """
    if request.node.get_closest_marker("engines") is None or not _names_tf_keras(request.path):
        return
    tf_keras = pytest.importorskip("tf_keras")
    monkeypatch = request.getfixturevalue("monkeypatch")
    name = "_could_use_gpu_kernel"
    # What a layer says of itself is kept: a later test may use it as it comes.
    plain = property(lambda _: False, lambda layer, value: vars(layer).update({name: value}))
    for kind in (tf_keras.layers.LSTM, tf_keras.layers.GRU):
        monkeypatch.setattr(kind, name, plain, raising=False)


@functools.cache
def _names_tf_keras(path: Path) -> bool:
    return _GRAPHS.isdisjoint(path.parts) and "tf_keras" in path.read_text(encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the largest absolute difference of each framework from Keras, case by case."""
    if not _MATRIX:
        return
    cases = list(dict.fromkeys(case for _, case in _MATRIX))
    terminalreporter.section("max abs difference from Keras (dtypes: from float64)")
    engines = dict.fromkeys(engine for engine, _ in _MATRIX)
    rows = [["", *engines]]
    for case in cases:
        numbers = (_MATRIX.get((engine, case)) for engine in engines)
        rows.append([case, *("" if x is None else f"{x:.1e}" for x in numbers)])
    for row in rows:
        terminalreporter.write_line(f"{row[0]:22}" + "".join(f"{text:>12}" for text in row[1:]))


def pytest_configure(config: pytest.Config) -> None:
    """Keep engines out where they are deselected; make every warning of ours an error."""
    gc.disable()  # until all is collected
    modules = ["google"]
    if "not engines" in config.option.markexpr:
        sys.meta_path.insert(0, _NoEngines())
    else:
        modules += ["tensorflow", "tf_keras", "keras", "torch"]
    for module in modules:
        for kind in ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"):
            config.addinivalue_line("filterwarnings", rf"ignore::{kind}:{module}(\..*)?")
    # JAX, once imported, warns of every child process, and those of the tests only exec.
    config.addinivalue_line("filterwarnings", r"ignore:os\.fork\(\) was called:RuntimeWarning")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m 'not engines'`, do not even import the modules that import an engine."""
    if "not engines" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text(encoding="utf-8")
    return True if _ENGINE_MODULE.search(text) else None


def pytest_collection_finish() -> None:
    """What thousands of tests are made of stays: it is not looked through for garbage each time."""
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    gc.enable()


class _NoEngines(MetaPathFinder):
    """Fails whatever imports an engine where engines are deselected: it wants their mark."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] in ENGINES:
            pytest.fail(f"this imports {name}: mark it with pytest.mark.engines")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a name that no other process would give, and skip what needs a missing corpus."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"the name of this test holds an address: {item.nodeid}")
    if corpus.IS_HERE:
        if not corpus.CORPUS.is_dir():
            raise pytest.UsageError(f"{corpus.VARIABLE} names no folder: {corpus.CORPUS}")
        return
    skip = pytest.mark.skip(reason=f"the corpus is not here ({corpus.VARIABLE} is not set)")
    for item in items:
        if item.get_closest_marker("corpus"):
            item.add_marker(skip)

"""What every test needs before a framework is imported."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

#: (engine, case) -> largest absolute difference from Keras, filled in by the tests.
_MATRIX: dict[tuple[str, str], float] = {}


@pytest.fixture(scope="session")
def matrix() -> dict[tuple[str, str], float]:
    """The table that is printed when all is done."""
    return _MATRIX


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
    """Let the deprecations inside third-party packages pass; every other warning is an error."""
    for module in ("tensorflow", "tf_keras", "keras", "torch", "google"):
        for kind in ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"):
            config.addinivalue_line("filterwarnings", rf"ignore::{kind}:{module}(\..*)?")
    # JAX, once imported, warns of every child process, and those of the tests only exec.
    config.addinivalue_line("filterwarnings", r"ignore:os\.fork\(\) was called:RuntimeWarning")

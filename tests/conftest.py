"""What every test needs before a framework is imported."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def pytest_configure(config: pytest.Config) -> None:
    """Let the deprecations inside third-party packages pass; every other warning is an error."""
    for module in ("tensorflow", "tf_keras", "keras", "torch", "google"):
        for kind in ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"):
            config.addinivalue_line("filterwarnings", rf"ignore::{kind}:{module}(\..*)?")
    # JAX, once imported, warns of every child process, and those of the tests only exec.
    config.addinivalue_line("filterwarnings", r"ignore:os\.fork\(\) was called:RuntimeWarning")

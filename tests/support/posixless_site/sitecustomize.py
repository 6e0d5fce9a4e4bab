"""A child process of a test run under `support.posixless` is treated as its parent is."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import support.posixless  # noqa: F401  # importing it does it

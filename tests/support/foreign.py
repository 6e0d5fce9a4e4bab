"""Frameworks that run in a process of their own, some in an interpreter of their own.

A child gets the arrays and inputs of many cases in one npz and answers in another: one start each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lstmconvert.tensors.dtypes import Array

ROOT = Path(__file__).parent.parent.parent

#: What every script starts with: `cases`, name -> (arrays, x), and `answers`, to be filled.
_START = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
found = np.load(sys.argv[1])
cases, answers = {}, {}
for key in found.files:
    name, _, inner = key.partition("|")
    cases.setdefault(name, {})[inner] = found[key]
"""
#: Before `import coremltools`, which would import these, and needs them for their models alone.
WITHOUT_FRAMEWORKS = """
    for name in ("tensorflow", "torch", "sklearn"):
        sys.modules[name] = None
"""
_END = """
np.savez(sys.argv[2], **answers)
"""


def installed(variable: str, default: str, what: str) -> Path:
    """Return what `.ci/run` installed beside the project's own environment; skip without.

    Args:
        variable: of the environment, set by `.ci/run`, so that nothing is skipped there.
        default: where it lies in a checkout.
        what: for the reason.
    """
    said = os.environ.get(variable)
    path = Path(said) if said else ROOT / default
    if said is None and not path.exists():
        pytest.skip(f"{what} is not installed ({default}); .ci/run installs it")
    assert path.exists(), f"{variable} names nothing: {path}"
    return path


#: The interpreter that has MXNet and Chainer, which need NumPy before 1.24; and Node's package.
OLD = ("LSTMCONVERT_OLD_PYTHON", ".venv-old/bin/python", "MXNet and Chainer")
TFJS = ("LSTMCONVERT_TFJS", ".tfjs/node_modules/@tensorflow/tfjs", "TensorFlow.js")


def answers(
    script: str,
    cases: Mapping[str, Mapping[str, Array]],
    folder: Path,
    python: Path | str = sys.executable,
) -> dict[str, Array]:
    """Run a script on every case in one process.

    Args:
        script: takes `cases`, name -> arrays by name, and fills `answers`, name -> array.
        cases: what it takes.
        folder: for the files between, and where the script runs.
        python: the interpreter.
    """
    given = {f"{name}|{key}": a for name, arrays in cases.items() for key, a in arrays.items()}
    np.savez(folder / "in.npz", **given)
    text = _START + textwrap.dedent(script) + _END
    command = [str(python), "-c", text, "in.npz", "out.npz"]
    quiet = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=quiet, cwd=folder
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-2000:])
    with np.load(folder / "out.npz") as found:
        return dict(found)

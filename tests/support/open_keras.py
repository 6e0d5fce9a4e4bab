"""Open Keras files with whatever Keras the running Python has, and say what came of each.

    python open_keras.py FOLDER

For each model file in the folder that `index.json` lists, it writes one JSON line: its name and
`same`, `other numbers`, or the error. `index.json`: file -> the .npz of inputs and outputs. It runs
in the environments of other releases, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")
TOLERANCE = 3e-5  # float32 on another engine


def leaves(value: Any) -> list[Any]:
    """Return the arrays of a nested result, dicts in the order of their keys."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return [np.asarray(value, "f8")]


def outcome(keras: Any, path: Path, numbers: Path) -> str:
    """Return what comes of opening a file and running it."""
    with np.load(numbers) as stored:
        given = [stored[name] for name in sorted(stored.files) if name.startswith("x")]
        wanted = [stored[name] for name in sorted(stored.files) if name.startswith("y")]
    try:
        model = keras.saving.load_model(str(path), compile=False)
        results = leaves(model(given if len(given) > 1 else given[0], training=False))
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    is_same = len(results) == len(wanted) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
        for a, b in zip(results, wanted)  # noqa: B905  # `strict` is not in every Python
    )
    return "same" if is_same else "other numbers"


def main(folder: Path) -> None:
    """Print one line for each file."""
    import keras

    for name, numbers in json.loads((folder / "index.json").read_text()).items():
        result = outcome(keras, folder / name, folder / numbers)
        print(json.dumps([name, result]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

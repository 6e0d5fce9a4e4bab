"""Where the corpus lies: real public files that are used in place and are not part of the project.

The environment variable LSTMCONVERT_CORPUS names its folder. Nothing else is looked at, so that the
tests do the same wherever the checkout lies. A test that needs the corpus is marked
`@pytest.mark.corpus` (or is parametrized by `corpus_files`), and is skipped where the variable is
not set: `tests/conftest.py` sees to that. `pytest -m corpus` runs these tests alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "LSTMCONVERT_CORPUS"
#: Without the variable a folder that does not exist: only tests that are skipped name files in it.
CORPUS = Path(os.environ.get(VARIABLE) or "corpus-is-not-here")
IS_HERE = bool(os.environ.get(VARIABLE))
#: The list of known attacks, which lies above the corpus.
ATTACKS = CORPUS.parent / "SECURITY.md"


def corpus_files(keep: Callable[[Path], bool]) -> list[Any]:
    """Return the files and folders at the top of the corpus that `keep` accepts, as parameters."""
    paths = sorted(CORPUS.iterdir()) if IS_HERE else []
    return [
        pytest.param(path, marks=pytest.mark.corpus, id=path.name) for path in paths if keep(path)
    ]

"""NumPy's linear algebra library, of which nothing large is asked here."""

from __future__ import annotations

import os


def single() -> None:
    """Let OpenBLAS start no threads when NumPy is imported, unless the user has set a number.

    They wait by spinning, which costs another processor 60 ms at each start: as much as the import.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

"""The command `lstmconvert`, also as `python -m lstmconvert`."""

from __future__ import annotations

import sys
from typing import NoReturn

from lstmconvert import blas
from lstmconvert.cli import INTERRUPTED


def main() -> NoReturn:
    """Run the command line. What workers need is imported while the command line is."""
    blas.single()
    try:
        if sys.argv[1:2] == ["batch"]:
            from lstmconvert.bulk import server

            server.begin()
        from lstmconvert.cli.main import main
    except KeyboardInterrupt:  # later ones are the command line's
        print("lstmconvert: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    main()


if __name__ == "__main__":
    main()

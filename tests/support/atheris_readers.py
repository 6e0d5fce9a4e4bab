"""Coverage-guided fuzzing of the readers below the containers, with Google's atheris.

    pip install atheris
    python tests/support/atheris_readers.py hdf5 [-max_total_time=600] [a folder of seeds]

The readers are `hdf5`, `zip`, `protobuf` and `pickle`. What a reader may do with bytes is to read
them, or to raise an error of ours. Without atheris the module can be imported, and `read` called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

if TYPE_CHECKING:
    from lstmconvert.tensors.tensor import SourceFile

# What is tried is imported when it is first needed: atheris counts what it has seen imported.


def _hdf5(source: SourceFile) -> None:
    from lstmconvert.hdf5.reading import read_tree

    for tensor in read_tree(source).tensors.values():
        tensor.read()


def _zip(source: SourceFile) -> None:
    from lstmconvert.files.zipmembers import ZipMembers

    members = ZipMembers(source)
    for name in members.names:
        window = members.open(name)
        window.source.read_at(window.offset, window.size)


def _protobuf(source: SourceFile) -> None:
    from lstmconvert.onnx import skeleton

    for proto in skeleton.read(source).proto.graph.initializer:
        assert proto.name is not None


def _pickle(source: SourceFile) -> None:
    from lstmconvert.files.opening import Window
    from lstmconvert.files.pickled import read_pickle

    read_pickle(Window(source), "here")


READERS: dict[str, Callable[[SourceFile], None]] = {
    "hdf5": _hdf5,
    "zip": _zip,
    "protobuf": _protobuf,
    "pickle": _pickle,
}


def read(name: str, data: bytes) -> str:
    """Give bytes to a reader. Returns `accepted` or `refused`; any other end is a fault."""
    from lstmconvert.errors import LSTMConvertError
    from lstmconvert.tensors.tensor import SourceFile

    descriptor = os.memfd_create("mutant")
    try:
        os.write(descriptor, data)
        READERS[name](SourceFile(Path("mutant"), descriptor))
    except LSTMConvertError as error:
        text = str(error)
        if "\n" in text or not text.isprintable():
            raise AssertionError(f"not one printable line: {text!r}") from None
        return "refused"
    finally:
        os.close(descriptor)
    return "accepted"


def main() -> None:
    """Run from the command line."""
    import atheris

    name = sys.argv.pop(1)
    if name not in READERS:
        sys.exit(f"no such reader: {name}; there are {', '.join(READERS)}")
    with atheris.instrument_imports(include=["lstmconvert"]):
        read(name, b"")
    atheris.Setup(sys.argv, lambda data: [read(name, data)].clear())  # it wants None
    atheris.Fuzz()


if __name__ == "__main__":
    main()

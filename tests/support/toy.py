"""A container that the package does not have: one row, and this module.

    TOY\\n, then a line for each array: name, dtype, shape, its bytes in hexadecimal; a line `# {…}`
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lstmconvert.containers import table
from lstmconvert.containers.modules import Arrays, Opened, Writing
from lstmconvert.containers.table import Container
from lstmconvert.pergate import metadata
from lstmconvert.tensors.dtypes import dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

ROW = Container(
    name="toy",
    title="a toy model (.toy)",
    suffixes=(".toy",),
    module=__name__,
    known=table.starts(b"TOY\n"),
    layouts=("torch",),
    default="torch",
    use="play",
    by="children",
    notes="hexadecimal numbers",
)
#: A kind of file that is written as a pickle, say, and refused.
FOREIGN = table.Foreign("a toy of another maker", table.starts(b"YOT\n"), "buy a toy")


def add() -> None:
    """Add the toy to the table, as one who edits it would."""
    table.CONTAINERS = (*table.CONTAINERS, ROW)
    table.FOREIGN = (*table.FOREIGN, FOREIGN)


def read(file: Opened) -> Arrays:
    tensors: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    for line in bytes(file.source.read_at(0, file.source.size)).decode().splitlines()[1:]:
        if line.startswith("# "):
            texts[metadata.KEY] = line[2:]
            continue
        name, dtype, shape, data = line.split()
        sizes = tuple(map(int, shape.split("x")))
        array = np.frombuffer(bytes.fromhex(data), dtype_of(dtype)).reshape(sizes)
        tensors[name] = ArrayTensor(array)
    return Arrays(tensors, texts)


def write(path: Path, content: Writing) -> None:
    lines = ["TOY"]
    for name, tensor in content.tensors.items():
        shape = "x".join(map(str, tensor.shape))
        lines.append(f"{name} {tensor.dtype.name} {shape} {tensor.read().tobytes().hex()}")
    lines.append(f"# {content.metadata()[metadata.KEY]}")
    path.write_text("\n".join(lines), encoding="utf-8")

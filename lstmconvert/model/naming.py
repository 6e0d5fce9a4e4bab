"""The canonical names of per-gate tensors, rendered and parsed in one place.

    <layer>[.<direction>][.cells.<k>].(<gate>_gate.<part> | <cell part>)

`lstm.forget_gate.recurrent_kernel`, `bidirectional.backward.output_gate.bias`,
`rnn.cells.1.input_gate.kernel`, `time_distributed/lstm.cell_gate.kernel`. Every tensor of the file
that belongs to no LSTM is `other/` and its full path in the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.model.gates import GATES
from lstmconvert.model.layer import CELL_PARTS, GATE_PARTS, LSTMLayer
from lstmconvert.tensors.tensor import Tensor

OTHER = "other/"

_AMBIGUOUS = re.compile(r"\.(forward|backward|cells\.\d+)$")
_TENSOR = (
    r"(?P<layer>.+?)(?:\.(?P<direction>forward|backward))?(?:\.cells\.(?P<index>\d+))?"
    rf"\.(?P<tensor>(?:{'|'.join(GATES)})_gate\.(?:{'|'.join(GATE_PARTS)})|{'|'.join(CELL_PARTS)})"
)


class TensorName(NamedTuple):
    """A parsed tensor name: layer, direction or None, number of the cell or None, and the name of
    the tensor in its cell (`forget_gate.kernel`, `projection`)."""

    layer: str
    direction: str | None
    cell: int | None
    tensor: str


def parse(name: str) -> TensorName | None:
    """Return the parts of a canonical tensor name; None if it is not one."""
    match = re.fullmatch(_TENSOR, name, re.DOTALL)
    if match is None or name.startswith(OTHER):
        return None
    index = match["index"]
    return TensorName(
        match["layer"], match["direction"], None if index is None else int(index), match["tensor"]
    )


def is_path(path: str) -> bool:
    """Whether the path of a tensor that belongs to no LSTM can follow `other/`.

    HDF5 allows names that are not paths. Other tools unpack the files below `assets/` of an
    archive, so their paths must not lead to a parent folder.
    """
    forbidden = {"", ".", ".."} if path.startswith("assets/") else {"", "."}
    return forbidden.isdisjoint(path.split("/")) and "\0" not in path


def other(path: str) -> str:
    """Return the name of a tensor that belongs to no LSTM.

    Raises:
        UnsupportedByTarget: it could not be read back: see `is_path`.
    """
    if not is_path(path):
        raise UnsupportedByTarget(
            "a tensor whose path no file can hold",
            where=repr(path)[:80],
            option="name",
            target="gates",
            hint="--lstm-only leaves the other tensors out",
        )
    return f"{OTHER}{path}"


def prefix(layer: LSTMLayer, direction: str, index: int) -> str:
    """Return what comes before `.forget_gate.kernel` for one cell of a layer."""
    name, half = layer.name, layer.forward
    if layer.backward is not None:
        name += f".{direction}"
        half = layer.backward if direction == "backward" else half
    return f"{name}.cells.{index}" if len(half.cells) > 1 else name


def tensors(layer: LSTMLayer) -> list[tuple[str, Tensor]]:
    """Return `(canonical name, tensor)` of every tensor of a layer."""
    pairs: list[tuple[str, Tensor]] = []
    for direction, index, cell in layer.cells():
        start = prefix(layer, direction, index)
        pairs += [(f"{start}.{name}", tensor) for name, tensor in cell.tensors()]
    return pairs


def layer_names(wanted: Iterable[str]) -> list[str]:
    """Return one unique, unambiguous layer name for each wanted one.

    A name that ends like a direction or a cell of a stack, or whose first path element is `other`,
    gets `_` appended there; a name that is taken already gets the next free number.
    """
    return unique([_unambiguous(name) for name in wanted])


def unique(wanted: Sequence[str]) -> list[str]:
    """Return the names, each taken one with the next free number appended."""
    taken: set[str] = set()
    spoken_for = set(wanted)
    last: dict[str, int] = {}
    result = []
    for name in wanted:
        unique, number = name, last.get(name, 0)
        while unique in taken or (number and unique in spoken_for):
            number += 1
            unique = f"{name}_{number}"
        last[name] = number
        taken.add(unique)
        result.append(unique)
    return result


def _unambiguous(name: str) -> str:
    name = name or "lstm"
    first, slash, rest = name.partition("/")
    if first == OTHER.rstrip("/"):
        name = f"{first}_{slash}{rest}"
    return f"{name}_" if "." in name and _AMBIGUOUS.search(name) else name

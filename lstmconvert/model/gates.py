"""The four gates of an LSTM, and all arithmetic on their order.

    i = recurrent_activation(x·K_i + h·R_i + b_i)          input gate
    f = recurrent_activation(x·K_f + h·R_f + b_f)          forget gate
    g = activation(x·K_c + h·R_c + b_c)                    cell gate (candidate, block input)
    o = recurrent_activation(x·K_o + h·R_o + b_o)          output gate
    c' = f * c + i * g          h' = o * activation(c')

Keras glues the gates side by side along the last axis, in the order of `GATES`
(keras/src/layers/rnn/lstm.py, `LSTMCell.call`): a kernel is (input_dim, 4 * units), and gate k
is its columns k * units up to (k + 1) * units.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lstmconvert.tensors.tensor import Tensor

# `tensors.views` brings NumPy with it, and is imported inside the functions that use it: a table
# of gate names and columns needs no NumPy.


class Gate(StrEnum):
    """One of the four gates; its value is its name in tensor names, JSON and messages."""

    INPUT = "input"
    FORGET = "forget"
    CELL = "cell"
    OUTPUT = "output"

    @property
    def letter(self) -> str:
        """`i`, `f`, `c` or `o`."""
        return self.value[0]


GATES: tuple[Gate, ...] = tuple(Gate)


def by_letters(order: str) -> tuple[Gate, ...]:
    """Return the gates of an order string such as `"iofc"`.

    Raises:
        ValueError: a letter is not that of a gate.
    """
    letters = {gate.letter: gate for gate in GATES}
    if not set(order) <= set(letters):
        raise ValueError(f"not an order of the gates i, f, c, o: {order!r}")
    return tuple(letters[letter] for letter in order)


def columns(
    gate: Gate, units: int, order: tuple[Gate, ...] = GATES
) -> tuple[int, int]:
    """Return the half-open range of `gate` along a fused axis of `len(order) * units`."""
    start = order.index(gate) * units
    return start, start + units


def blocks(tensor: Tensor, count: int) -> tuple[Tensor, ...]:
    """Cut a tensor into `count` equal blocks along its last axis. Each block is a view.

    Args:
        tensor: of shape (…, count * width).
        count: the number of blocks.

    Returns:
        `count` tensors of shape (…, width).

    Raises:
        ValueError: the last axis is not `count` equal blocks of at least one column.
    """
    from lstmconvert.tensors.views import equal_columns

    return tuple(equal_columns(tensor, width_of(tensor.shape, count), count))


def split(fused: Tensor, order: tuple[Gate, ...] = GATES) -> dict[Gate, Tensor]:
    """Cut a fused tensor (…, len(order) * units) into one view (…, units) for each gate.

    Raises:
        ValueError: the last axis is not `len(order)` equal blocks.
    """
    return dict(zip(order, blocks(fused, len(order)), strict=True))


def fuse(parts: Mapping[Gate, Tensor], order: tuple[Gate, ...] = GATES) -> Tensor:
    """Join one tensor for each gate along the last axis: the inverse of `split`, bit for bit."""
    from lstmconvert.tensors import views

    return views.side_by_side([parts[gate] for gate in order])


def entries(tensor: Tensor, count: int) -> tuple[Tensor, ...]:
    """Cut a tensor (count, …) along its first axis into `count` tensors (…). Each is a view.

    Raises:
        ValueError: the first axis does not have `count` entries, or there is no other axis.
    """
    from lstmconvert.tensors import views

    if len(tensor.shape) < 2 or tensor.shape[0] != count:
        raise ValueError(f"shape {tensor.shape} has no first axis of {count}")
    size = tensor.matrix_shape[0] // count
    return tuple(
        views.rows(tensor, k * size, (k + 1) * size, tensor.shape[1:]) for k in range(count)
    )


def split_first(tensor: Tensor, order: tuple[Gate, ...] = GATES) -> dict[Gate, Tensor]:
    """Cut a tensor (len(order), …), whose first axis is the gates, into one view for each gate.

    Raises:
        ValueError: the first axis does not have `len(order)` entries.
    """
    return dict(zip(order, entries(tensor, len(order)), strict=True))


def fuse_first(parts: Mapping[Gate, Tensor], order: tuple[Gate, ...] = GATES) -> Tensor:
    """Join one tensor for each gate along a new first axis: the inverse of `split_first`."""
    from lstmconvert.tensors import views

    return views.stacked([parts[gate] for gate in order])


def width_of(shape: tuple[int, ...], count: int) -> int:
    """Return the width of each of `count` equal blocks of the last axis.

    Raises:
        ValueError: it is not so many equal blocks of at least one column.
    """
    size = shape[-1] if shape else 0
    width, rest = divmod(size, count)
    if rest or not width:
        raise ValueError(f"an axis of length {size} does not hold {count} equal gates")
    return width

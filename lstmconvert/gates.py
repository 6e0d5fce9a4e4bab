"""The four gates of an LSTM, and the only arithmetic on their order.

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
    import numpy as np
    from numpy.typing import NDArray


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
        ValueError: a letter is no gate's.
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


def split(
    fused: NDArray[np.generic], order: tuple[Gate, ...] = GATES, axis: int = -1
) -> dict[Gate, NDArray[np.generic]]:
    """Cut a fused array into one view per gate along `axis`.

    Raises:
        ValueError: the axis is not `len(order)` equal blocks.
    """
    size = fused.shape[axis]
    units, rest = divmod(size, len(order))
    if rest:
        raise ValueError(f"axis of length {size} does not hold {len(order)} equal gates")
    selector: list[slice] = [slice(None)] * fused.ndim
    parts: dict[Gate, NDArray[np.generic]] = {}
    for gate in order:
        selector[axis] = slice(*columns(gate, units, order))
        parts[gate] = fused[tuple(selector)]
    return parts


def fuse(
    parts: Mapping[Gate, NDArray[np.generic]],
    order: tuple[Gate, ...] = GATES,
    axis: int = -1,
) -> NDArray[np.generic]:
    """Join one array per gate along `axis`: the inverse of `split`, bit for bit."""
    import numpy as np

    return np.concatenate([parts[gate] for gate in order], axis=axis)

"""Haiku cores and their parameters out of neutral layers, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lstmconvert.live import jax as shared
from lstmconvert.live.sources import built, imported, layers_of, value_of
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import Array

_ROW = "haiku"


def to_haiku(value: LSTMLayer | Model, *, allow_lossy: bool = False) -> Any:
    """Return `(transformed, params)`: `transformed.apply(params, x)` runs (batch, time, inputs).

    The parameters are those of one `hk.LSTM`, `{"lstm/linear": {"w", "b"}}`. Haiku adds 1 to the
    forget gate at run time, so 1 less is stored: it is rounded, with a warning.

    Args:
        value: a layer. A stack of cells gives a tuple of such pairs, a Bidirectional `Both`, a
            model a dict by layer name.
        allow_lossy: give a warning, not an error, for what Haiku cannot express.

    Raises:
        MissingPackage: Haiku is not installed.
        UnknownOption: Haiku's maths depend on an option that is unknown.
        UnsupportedByTarget: Haiku cannot express an option of a layer.
    """
    return built(value, _ROW, _core, allow_lossy=allow_lossy)


def _core(arrays: Mapping[str, Array]) -> Any:
    haiku, numpy = imported("haiku", shared.NEEDS), imported("jax.numpy", shared.NEEDS)
    linear = {name.removeprefix("linear."): shared.array(a) for name, a in arrays.items()}
    params = {"lstm/linear": linear}
    dtype, units = arrays["linear.b"].dtype, arrays["linear.b"].size // 4

    def forward(x: Any) -> Any:
        core = haiku.LSTM(units)
        state = haiku.LSTMState(*(numpy.zeros((x.shape[0], units), dtype) for _ in range(2)))
        return haiku.dynamic_unroll(core, x, state, time_major=False)[0]

    return haiku.without_apply_rng(haiku.transform(forward)), params


def from_haiku(params: Mapping[str, Any], *, name: str = "lstm") -> LSTMLayer | Model:
    """Return the layer of the parameters of a Haiku network; of several, a model.

    Args:
        params: what `transformed.init` gave, or training left: `{"lstm/linear": {"w", "b"}, …}`.
            Parameters called `linear` that are an LSTM's by their shapes are taken as one, so
            give no others that are alike.
        name: of the layer, where there is no module's name before `linear`.

    Raises:
        NoLSTM: there are no parameters of an `hk.LSTM` among them.
        CorruptFile: the shapes of some contradict each other.
    """
    cores = {
        f"{path}.{leaf}": array
        for path, leaves in params.items()
        if path.rpartition("/")[2] == "linear" and _is_lstm(leaves)
        for leaf, array in shared.flat(leaves).items()
    }
    return value_of(layers_of(cores, [_ROW], name), ", ".join(params)[:80] or "no parameters")


def _is_lstm(leaves: Any) -> bool:
    """Whether a Linear is an LSTM's: it has a bias, four gates, and more rows than units."""
    arrays = shared.flat(leaves)
    if set(arrays) != {"w", "b"} or arrays["w"].ndim != 2:
        return False
    rows, columns = arrays["w"].shape
    return bool(columns % 4 == 0 and rows > columns // 4)

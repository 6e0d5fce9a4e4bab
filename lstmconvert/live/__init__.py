"""Live objects of other frameworks, each imported when it is asked for.

One module for each framework, thin over what `sources` shares; `engines` runs them for `verify`.
Nothing below imports a framework, and nothing here opens a file. Start with `sources`.

`to_<framework>(layer)` makes one with the weights of a layer, `from_<framework>(object)` reads one:

>>> from lstmconvert import live
>>> import lstmconvert as lc
>>> lstm = lc.load("fixtures/keras-3.15.1/seed95.keras")["lstm"]
>>> cell = live.to_equinox(lstm)
>>> cell.weight_ih.shape
(8, 7)
>>> live.from_equinox(cell).forget_gate.kernel.shape
(7, 2)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstmconvert.live.equinox import from_equinox as from_equinox
    from lstmconvert.live.equinox import to_equinox as to_equinox
    from lstmconvert.live.flax import from_flax as from_flax
    from lstmconvert.live.flax import from_nnx as from_nnx
    from lstmconvert.live.flax import to_flax as to_flax
    from lstmconvert.live.flax import to_nnx as to_nnx
    from lstmconvert.live.haiku import from_haiku as from_haiku
    from lstmconvert.live.haiku import to_haiku as to_haiku
    from lstmconvert.live.mlx import from_mlx as from_mlx
    from lstmconvert.live.mlx import to_mlx as to_mlx
    from lstmconvert.live.tinygrad import from_tinygrad as from_tinygrad
    from lstmconvert.live.tinygrad import to_tinygrad as to_tinygrad
    from lstmconvert.live.torch import from_torch as from_torch
    from lstmconvert.live.torch import to_torch as to_torch

#: The framework in a function's name -> the module that has it.
FRAMEWORKS = {
    "equinox": "equinox",
    "flax": "flax",
    "haiku": "haiku",
    "mlx": "mlx",
    "nnx": "flax",
    "tinygrad": "tinygrad",
    "torch": "torch",
}

__all__ = [
    "from_equinox",
    "from_flax",
    "from_haiku",
    "from_mlx",
    "from_nnx",
    "from_tinygrad",
    "from_torch",
    "to_equinox",
    "to_flax",
    "to_haiku",
    "to_mlx",
    "to_nnx",
    "to_tinygrad",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{FRAMEWORKS[name.partition('_')[2]]}"), name)


def __dir__() -> list[str]:
    return list(__all__)

"""LSTM weights as named gates: out of every Keras file, into any framework, and back, bit for bit.

>>> import lstmconvert as lc
>>> model = lc.load("fixtures/keras-3.15.1/seed95.keras")
>>> model["lstm"].forget_gate.kernel.shape
(7, 2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstmconvert.api import convert as convert
    from lstmconvert.api import load as load
    from lstmconvert.api import save as save
    from lstmconvert.bulk.run import convert_many as convert_many
    from lstmconvert.compare import diff as diff
    from lstmconvert.errors import LSTMConvertError as LSTMConvertError
    from lstmconvert.gates import Gate as Gate
    from lstmconvert.keras.fromlive import from_keras as from_keras
    from lstmconvert.keras.rebuild import to_keras as to_keras
    from lstmconvert.layer import LSTMLayer as LSTMLayer
    from lstmconvert.layouts.plain import arrange as arrange
    from lstmconvert.layouts.plain import gather as gather
    from lstmconvert.live.torch import from_torch as from_torch
    from lstmconvert.live.torch import to_torch as to_torch
    from lstmconvert.model import Model as Model
    from lstmconvert.targets import Result as Result
    from lstmconvert.verification import verify as verify

__version__ = "0.1.0"

#: Public name -> the module that defines it, imported when the name is first used.
_HOMES = {
    "Gate": "gates",
    "LSTMConvertError": "errors",
    "LSTMLayer": "layer",
    "Model": "model",
    "Result": "targets",
    "arrange": "layouts.plain",
    "convert": "api",
    "convert_many": "bulk.run",
    "diff": "compare",
    "from_keras": "keras.fromlive",
    "from_torch": "live.torch",
    "gather": "layouts.plain",
    "load": "api",
    "save": "api",
    "to_keras": "keras.rebuild",
    "to_torch": "live.torch",
    "verify": "verification",
}

__all__ = [
    "Gate",
    "LSTMConvertError",
    "LSTMLayer",
    "Model",
    "Result",
    "arrange",
    "convert",
    "convert_many",
    "diff",
    "from_keras",
    "from_torch",
    "gather",
    "load",
    "save",
    "to_keras",
    "to_torch",
    "verify",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

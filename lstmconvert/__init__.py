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
    from lstmconvert.checks.compare import diff as diff
    from lstmconvert.checks.formats import formats as formats
    from lstmconvert.checks.inspection import Inspection as Inspection
    from lstmconvert.checks.inspection import inspect as inspect
    from lstmconvert.checks.verification import verify as verify
    from lstmconvert.conversion import Options as Options
    from lstmconvert.conversion import Result as Result
    from lstmconvert.errors import ConversionWarning as ConversionWarning
    from lstmconvert.errors import CorruptFile as CorruptFile
    from lstmconvert.errors import DestinationError as DestinationError
    from lstmconvert.errors import LimitExceeded as LimitExceeded
    from lstmconvert.errors import LSTMConvertError as LSTMConvertError
    from lstmconvert.errors import MissingPackage as MissingPackage
    from lstmconvert.errors import NoLSTM as NoLSTM
    from lstmconvert.errors import NotAModel as NotAModel
    from lstmconvert.errors import SourceError as SourceError
    from lstmconvert.errors import UnknownLayer as UnknownLayer
    from lstmconvert.errors import UnknownOption as UnknownOption
    from lstmconvert.errors import UnsupportedByTarget as UnsupportedByTarget
    from lstmconvert.errors import UsageError as UsageError
    from lstmconvert.layouts.plain import arrange as arrange
    from lstmconvert.layouts.plain import gather as gather
    from lstmconvert.live.keras import from_keras as from_keras
    from lstmconvert.live.keras import to_keras as to_keras
    from lstmconvert.live.torch import from_torch as from_torch
    from lstmconvert.live.torch import to_torch as to_torch
    from lstmconvert.model.gates import Gate as Gate
    from lstmconvert.model.layer import LSTMLayer as LSTMLayer
    from lstmconvert.model.model import Model as Model
    from lstmconvert.pictures.page import view as view
    from lstmconvert.pictures.plot import plot as plot

__version__ = "0.2.0"

#: Public name -> the module that defines it, imported when the name is first used.
_HOMES = {
    "ConversionWarning": "errors",
    "CorruptFile": "errors",
    "DestinationError": "errors",
    "Gate": "model.gates",
    "Inspection": "checks.inspection",
    "LSTMConvertError": "errors",
    "LSTMLayer": "model.layer",
    "LimitExceeded": "errors",
    "MissingPackage": "errors",
    "Model": "model.model",
    "NoLSTM": "errors",
    "NotAModel": "errors",
    "Options": "conversion",
    "Result": "conversion",
    "SourceError": "errors",
    "UnknownLayer": "errors",
    "UnknownOption": "errors",
    "UnsupportedByTarget": "errors",
    "UsageError": "errors",
    "arrange": "layouts.plain",
    "convert": "api",
    "convert_many": "bulk.run",
    "diff": "checks.compare",
    "formats": "checks.formats",
    "from_keras": "live.keras",
    "from_torch": "live.torch",
    "gather": "layouts.plain",
    "inspect": "checks.inspection",
    "load": "api",
    "plot": "pictures.plot",
    "save": "api",
    "to_keras": "live.keras",
    "to_torch": "live.torch",
    "verify": "checks.verification",
    "view": "pictures.page",
}

__all__ = [
    "ConversionWarning",
    "CorruptFile",
    "DestinationError",
    "Gate",
    "Inspection",
    "LSTMConvertError",
    "LSTMLayer",
    "LimitExceeded",
    "MissingPackage",
    "Model",
    "NoLSTM",
    "NotAModel",
    "Options",
    "Result",
    "SourceError",
    "UnknownLayer",
    "UnknownOption",
    "UnsupportedByTarget",
    "UsageError",
    "arrange",
    "convert",
    "convert_many",
    "diff",
    "formats",
    "from_keras",
    "from_torch",
    "gather",
    "inspect",
    "load",
    "plot",
    "save",
    "to_keras",
    "to_torch",
    "verify",
    "view",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

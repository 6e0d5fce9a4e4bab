"""Neutral layers out of live Keras objects: Keras's own writer, then our reader.

A live model is saved by its own library into a nameless temporary file, and read from there; what
we read is exactly what that Keras would have written, whatever its version and backend.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lstmconvert.errors import UsageError
from lstmconvert.jsontext import parse
from lstmconvert.keras import build, load
from lstmconvert.keras.era import Era
from lstmconvert.keras.nodes import node
from lstmconvert.keras.rebuild import import_library, live_cells, read_variable
from lstmconvert.keras.sketch import CellSketch, plan
from lstmconvert.keras.stored import ROLES, CellArrays, Stored
from lstmconvert.layer import LSTMLayer
from lstmconvert.model import Model
from lstmconvert.tensors import ArrayTensor, SourceFile

LIVE = "live"


def from_keras(value: Any) -> LSTMLayer | Model:
    """Return a live Keras layer as a neutral layer, a live model as a neutral model.

    Args:
        value: a built `keras` (Keras 3) or `tf_keras` layer or model.

    Raises:
        UsageError: it is neither, it is not built, or the layer is no LSTM.
        NoLSTM: the model has no LSTM layer.
    """
    library = _library(value)
    if isinstance(value, import_library(library).Model):
        return _model(value)
    return _layer(value, library)


def _library(value: Any) -> str:
    for kind in type(value).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in ("keras", "tf_keras"):
            return root
    raise UsageError(
        "not a live object of Keras 3 or tf_keras",
        found=f"{type(value).__module__}.{type(value).__name__}",
    )


def _model(value: Any) -> Model:
    if not value.built:
        raise UsageError("the model is not built: call it once on data, or build() it")
    handle, name = tempfile.mkstemp(suffix=".keras")
    os.close(handle)
    try:
        value.save(name)
        model = load.load_zip(SourceFile(Path(name)))
    finally:
        os.unlink(name)
    source = replace(model.source, container=LIVE, digest=lambda: None, check=lambda: None)
    return replace(model, source=source, container=LIVE)


def _layer(value: Any, library: str) -> LSTMLayer:
    if not value.built:
        raise UsageError("the layer is not built: call it once on data, or build() it")
    era = Era("keras3" if library == "keras" else "keras2", import_library(library).__version__)
    whole = parse(_config(value, library), f"live {type(value).__name__}")
    sketches = [s for s in plan(node(whole, "live")).layers if s.has_lstm]
    if len(sketches) != 1:
        raise UsageError(
            "not an LSTM layer",
            found=type(value).__name__,
            expected="LSTM, Bidirectional, RNN over LSTMCell, or a model",
        )
    found = dict(zip(map(id, sketches[0].cells), _stored(value, library), strict=True))

    def arrays(cell: CellSketch) -> CellArrays:
        return found[id(cell)]

    return build.layer(sketches[0], arrays, era, _name(value))


def _name(value: Any) -> str:
    """Return the path of a live layer below itself: a TimeDistributed is only a part of it."""
    if hasattr(value, "layer") and not hasattr(value, "forward_layer"):
        return f"{value.name}/{_name(value.layer)}"
    return str(value.name)


def _config(value: Any, library: str) -> str:
    config = import_library(library).saving.serialize_keras_object(value)
    return json.dumps(config)


def _stored(value: Any, library: str) -> Iterator[CellArrays]:
    for index, cell in enumerate(live_cells(value)):
        variables = [getattr(cell, role, None) for role in ROLES]
        yield CellArrays(
            {
                role: Stored(f"cells/{index}/{role}", ArrayTensor(read_variable(variable, library)))
                for role, variable in zip(ROLES, variables, strict=True)
                if variable is not None
            }
        )

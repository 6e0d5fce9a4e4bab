"""What the live frameworks share: the name of their container, and unique layer names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lstmconvert import naming
from lstmconvert.layer import LSTMLayer

LIVE = "live"


def renamed(layers: Sequence[LSTMLayer]) -> list[LSTMLayer]:
    """Return the layers, each with a name of its own."""
    names = naming.layer_names([layer.name for layer in layers])
    return [replace(layer, name=name) for layer, name in zip(layers, names, strict=True)]

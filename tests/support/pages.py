"""Pages to look at, taken apart: what a test wants to know of their HTML."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np

from lstmconvert.model.gates import Gate
from lstmconvert.model.layer import Cell, GateWeights, LSTMLayer
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import ArrayTensor


class Page(HTMLParser):
    """Every element of a page in order, with its attributes, and all text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.html = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._hidden = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """What a reader without pictures reads, blanks made one."""
        return " ".join("".join(self.texts).split())

    @property
    def boards(self) -> list[dict[str, Any]]:
        """The JSON objects that the script reads."""
        found = re.findall(r"class=data>(.*?)</script>", self.html, re.DOTALL)
        return [json.loads(text) for text in found]

    @property
    def pictures(self) -> list[bytes]:
        """The PNG files of the page."""
        found = re.findall(r'src="data:image/png;base64,([^"]*)"', self.html)
        return [base64.b64decode(text) for text in found]


def pixels(png: bytes) -> tuple[Array, bytes]:
    """Return the palette indices of a PNG, and its palette, read by the format's own rules."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, parts = 8, {}
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length)[0] == zlib.crc32(kind + body)
        parts[kind] = body
        at += length + 12
    width, height = struct.unpack_from(">II", parts[b"IHDR"])
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:], parts[b"PLTE"]


def arrays_of(cell: Cell) -> dict[Gate, dict[str, Array]]:
    """Return copies of a cell's gates, to change."""
    return {
        gate: {part: tensor.read().copy() for part, tensor in weights.tensors.items()}
        for gate, weights in cell.gates.items()
    }


def with_arrays(layer: LSTMLayer, arrays: dict[Gate, dict[str, Array]]) -> LSTMLayer:
    """Return a layer of one cell with other weights."""
    gates = {
        gate: GateWeights(gate, {part: ArrayTensor(array) for part, array in parts.items()})
        for gate, parts in arrays.items()
    }
    cell = replace(layer.cell, gates=gates)
    return replace(layer, forward=replace(layer.forward, cells=(cell,)))

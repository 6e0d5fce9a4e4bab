"""Flax's `.msgpack`, both ways, with Flax as the other side."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_tools import case, close
from neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import live
from lstmconvert.containers import msgpack as container
from lstmconvert.dtypes import same_bits

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from flax import linen, serialization


def test_flax_restores_what_we_write_and_answers_as_keras(tmp_path: Path) -> None:
    known, path = case("bidirectional"), tmp_path / "x.msgpack"
    result = lc.save(known.layer, path, bare=True)
    assert "no place for options" in result.warnings[0]
    params = serialization.msgpack_restore(path.read_bytes())
    rnns = [linen.RNN(linen.LSTMCell(known.layer.units)) for _ in range(2)]
    close(linen.Bidirectional(*rnns).apply({"params": params}, known.x), known.y)
    _, variables = live.to_flax(known.layer)
    serialization.from_bytes(variables["params"], path.read_bytes())


def test_what_flax_writes_is_read(tmp_path: Path) -> None:
    known, path = case("plain"), tmp_path / "x.msgpack"
    _, variables = live.to_flax(known.layer)
    path.write_bytes(serialization.to_bytes({"lstm": variables["params"], "step": 3}))
    layer = lc.load(path)["lstm"]
    assert same_bits(layer.forget_gate.kernel, known.layer.forget_gate.kernel)
    lc.convert(path, tmp_path / "gates.safetensors")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_dtype_and_chunks(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_CHUNK_BYTES", 16)
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2, dtype=dtype))
    lc.save(layer, tmp_path / "x.msgpack")
    found = lc.load(tmp_path / "x.msgpack")["lstm"]
    assert same_bits(found.forget_gate.kernel, layer.forget_gate.kernel)
    tree: Any = serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes())
    assert same_bits(np.asarray(tree["lstm"]["cell"]["if"]["kernel"]), layer.forget_gate.kernel)


DAMAGED = [b"\x01", b"\x81\xa1a", b"\xc1", b"\x81\xa1a\xc7\x01\x01\xc0", b"{}"]


@pytest.mark.parametrize("data", DAMAGED)
def test_damage_is_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.msgpack").write_bytes(data)
    with pytest.raises(lc.LSTMConvertError):
        lc.load(tmp_path / "x.msgpack")


def test_a_truncated_array_is_refused(tmp_path: Path) -> None:
    import msgpack

    inner = msgpack.packb(((2, 2), "float32", bytes(12)))
    data = msgpack.packb({"a": msgpack.ExtType(1, inner)})
    (tmp_path / "x.msgpack").write_bytes(data)
    with pytest.raises(lc.LSTMConvertError, match="not as long as its shape"):
        lc.load(tmp_path / "x.msgpack")
    inner = msgpack.packb(((1,), "object", bytes(8)))
    (tmp_path / "x.msgpack").write_bytes(msgpack.packb({"a": msgpack.ExtType(1, inner)}))
    with pytest.raises(lc.LSTMConvertError):
        lc.load(tmp_path / "x.msgpack")

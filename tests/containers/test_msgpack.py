"""Flax's `.msgpack`, both ways, with Flax as the other side."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.layout_tools import case, close
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import live
from lstmconvert.containers import msgpack as container
from lstmconvert.containers.modules import Opened, Writing
from lstmconvert.tensors.dtypes import same_bits
from lstmconvert.tensors.streaming import Sums
from lstmconvert.tensors.tensor import ArrayTensor

pytestmark = pytest.mark.engines

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


def _anything(random: np.random.Generator, depth: int) -> Any:
    """A value of any kind that msgpack has, of any length of its head."""
    sizes = (0, 1, 2, 4, 8, 15, 16, 31, 32, 255, 256, 70_000)
    size = int(random.choice(sizes))
    match int(random.integers(9 if depth else 7)):
        case 0:
            return [int(random.choice([-(2**63), -40_000, -200, -33, -1])), 2**64 - 1, 300, 70_000]
        case 1:
            return [None, True, False, 1.5]
        case 2:
            return bytes(size)
        case 3:
            return "x" * size
        case 4:
            import msgpack

            return msgpack.ExtType(5, bytes(size))
        case 5 | 6:
            return random.random((size % 50, int(random.integers(3)))).astype(np.float32)
        case 7:
            return [_anything(random, depth - 1) for _ in range(min(size, 20))]
    count = int(random.choice([0, 3, 20]))
    keys = [f"{number}" + "k" * (size % 300) for number in range(count)]
    return {key: _anything(random, depth - 1) for key in keys}


def _arrays(tree: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _arrays(value, f"{prefix}{key}.")
        elif isinstance(value, np.ndarray):
            found[f"{prefix}{key}"] = value
    return found


@pytest.mark.parametrize("seed", range(20))
def test_any_tree_is_read_as_the_library_reads_it(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    tree = {str(number): _anything(random, 3) for number in range(12)}
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    read = container.read(Opened(tmp_path / "x.msgpack")).tensors
    meant = _arrays(serialization.msgpack_restore((tmp_path / "x.msgpack").read_bytes()))
    assert read.keys() == meant.keys()
    assert all(same_bits(read[name].read(), array) for name, array in meant.items())


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 300])
def test_what_is_written_is_what_flax_writes(count: int, tmp_path: Path) -> None:
    """Lengths of every width, and payloads as long as the short extensions."""
    random = np.random.default_rng(count)
    shapes = [(), (1,), (2,), (3,), (130,), (300,), (200, 100), (1, 2, 3, 4)]
    named = {
        f"{'m' * (number % 40)}{number}.w": random.random(shapes[number % 8]).astype(
            ("float32", "float16", "uint8", "float64")[number % 4]
        )
        for number in range(count)
    }
    tensors = {name: ArrayTensor(named[name]) for name in sorted(named)}  # JAX sorts a tree
    content = Writing(tensors=tensors, texts=lambda _: {}, sums=Sums())
    container.write(tmp_path / "x.msgpack", content)
    tree = {name.removesuffix(".w"): {"w": array} for name, array in named.items()}
    assert (tmp_path / "x.msgpack").read_bytes() == serialization.msgpack_serialize(tree)

"""Keras 3's operations between layers, many in one model, against Keras in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.whole_tools import FLOAT32, distances, randomized

import lstmconvert as lc

pytestmark = pytest.mark.engines
#: Keras's `ops`, a value (batch, 6, 4) of numbers between -1 and 1, another -> what is computed.
Made = Callable[[Any, Any, Any], Any]
BOUNDS = np.array([-0.1, 0.1], "float32")

ELEMENTS: dict[str, Made] = {
    "log": lambda o, h, _: [o.log2(o.abs(h) + 1), o.log10(o.abs(h) + 1), o.exp2(h)],
    "pairs": lambda o, h, x: [o.logaddexp(h, x), o.hypot(h, x), o.divide_no_nan(h, o.relu(x))],
    "rest": lambda o, h, x: [h // 0.3, h % 0.3, o.mod(h, -0.3), h // x, o.argmax(h, -1) % 3],
    "angles": lambda o, h, x: [o.arctan2(h, x), o.arctan2(o.relu(h), o.relu(x) * 0.0),
                               o.cross(h[..., :3], x[..., :3]), o.fmod(h, 0.3)],
    "turning": lambda o, h, _: [o.tan(h), o.arctan(h), o.sinh(h), o.cosh(h), o.arcsin(h)],
    "unreal": lambda o, h, _: [
        o.isnan(h), o.isinf(o.log(o.relu(h))), o.isfinite(o.log(o.relu(h))),
        o.nan_to_num(o.log(o.relu(h))), o.nan_to_num(o.sqrt(h), nan=2.0),
    ],
    "rounding": lambda o, h, _: [o.trunc(h * 3), o.round(h * 3), o.sign(h), o.erf(h)],
    "shrinking": lambda o, h, _: [
        o.soft_shrink(h, 0.1), o.hard_shrink(h, 0.1), o.squareplus(h), o.glu(h),
        o.threshold(h, 0.1, 0.5), o.sparsemax(h),
    ],
    "logic": lambda o, h, x: [o.logical_xor(h > 0, x > 0), o.where(h > 0, h, 0.1 * h)],
}  # fmt: skip
SHAPES: dict[str, Made] = {
    "taking": lambda o, h, _: [
        o.take(h, [0, -1], axis=1), o.take(h, o.argmax(h, -1), axis=1),
        o.take_along_axis(h, o.argsort(h, -1), -1), *o.unstack(h, axis=1)[-2:],
    ],
    "order": lambda o, h, _: [
        o.sort(h, axis=1), *o.top_k(h, 2), o.median(h, axis=1), o.median(h[:, :3], axis=1),
        o.digitize(h, BOUNDS), o.ptp(h, axis=1),
    ],
    "hot": lambda o, h, _: [
        o.one_hot(o.argmax(h, -1) - 1, 4), o.one_hot(o.argmax(h, -1), 4, axis=1),
        o.multi_hot(o.argmax(h, -1), 4),
    ],
    "moving": lambda o, h, _: [
        o.roll(h, 7, axis=1), o.roll(h, -1, axis=2), o.moveaxis(h, 1, -1), o.diff(h, axis=1),
        o.repeat(h, 2, axis=1), o.repeat(h, [1, 0, 2, 1], axis=2), o.flip(h, 1),
    ],
    "sums": lambda o, h, _: [
        o.logsumexp(h, axis=1), o.norm(h, axis=-1), o.norm(h, ord=1, axis=-1),
        o.average(h, axis=1), o.count_nonzero(o.relu(h), axis=1), *o.moments(h, axes=[1]),
    ],
    "triangles": lambda o, h, _: [
        o.tril(o.matmul(h, o.swapaxes(h, 1, 2))), o.triu(o.matmul(h, o.swapaxes(h, 1, 2)), 1),
        o.trace(o.matmul(h, o.swapaxes(h, 1, 2)), axis1=1, axis2=2),
        o.diagonal(o.matmul(h, o.swapaxes(h, 1, 2)), axis1=1, axis2=2),
    ],
    "products": lambda o, h, x: [
        o.dot(h, np.ones((4, 2), "float32")), o.einsum("...tc,...sc->...ts", h, x),
        o.tensordot(h, np.ones((4, 2), "float32"), axes=1), o.matmul(h, np.ones(4, "float32")),
        o.matmul(np.ones((2, 6), "float32"), h),
    ],
    "joining": lambda o, h, x: [o.hstack([h, x]), o.full_like(h, 2.0), o.max_pool(h, 2)],
    "pooling": lambda o, h, _: [
        o.average_pool(h, 4, strides=5, padding="same"), o.adaptive_max_pool(h, (4,)),
        o.image.resize(o.expand_dims(h, -1), (3, 8)), o.fliplr(h),
        o.det(o.matmul(h, o.swapaxes(h, 1, 2))[:, :2, :2]),
    ],
    "attention": lambda o, h, x: [
        o.dot_product_attention(*[o.reshape(y, (-1, 6, 2, 2)) for y in (h, x, x)], is_causal=True),
        o.dot_product_attention(*[o.reshape(y, (-1, 6, 2, 2)) for y in (h, x, x)],
                                mask=o.expand_dims(o.matmul(h, o.swapaxes(x, 1, 2)) > 0, 1)),
    ],
}  # fmt: skip


def _model(keras: Any, rows: dict[str, Made]) -> Any:
    x = keras.Input((6, 4))
    h = keras.layers.LSTM(4, return_sequences=True)(x)
    made = [value for make in rows.values() for value in make(keras.ops, h, x)]
    return randomized(keras.Model(x, made))


@pytest.mark.parametrize("rows", [ELEMENTS, SHAPES], ids=["elements", "shapes"])
def test_operations(rows: dict[str, Made], tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = _model(keras, rows)
    apart = distances(model, tmp_path / "model.onnx", lengths=[6])
    assert len(apart) > 20
    assert {name: far for name, far in apart.items() if far > FLOAT32} == {}


def test_an_operation_without_operators_is_named(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = _model(keras, {"": lambda o, h, _: [o.fft((h, h))[0], o.cumprod(h, 1)]})
    model.save(tmp_path / "model.keras")
    with pytest.raises(lc.UnsupportedByTarget, match=r"cumprod \(Cumprod\), fft"):
        lc.convert(tmp_path / "model.keras", tmp_path / "model.onnx", whole=True)

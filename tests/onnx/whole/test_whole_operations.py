"""Keras 3's operations between layers, many in one model, against Keras in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.whole_tools import FLOAT32, distances, randomized

import lstmconvert as lc
from lstmconvert.keras.modern import operations
from lstmconvert.keras.modern.classes import CLASSES
from lstmconvert.onnx.whole import classes as whole_classes
from lstmconvert.onnx.whole import network
from lstmconvert.onnx.whole import operations as whole_operations

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
    "frequencies": lambda o, h, x: [
        *o.fft2((h, x)), *o.ifft2((h, x)), *o.rfft(h, 7), o.irfft((h, x), 5),
        *o.stft(h, 4, 2, 4), *o.stft(h, 3, 2, 4, window=None), o.extract_sequences(h, 3, 1),
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

RNG = np.random.default_rng(3)
KERNEL, NARROW, POINTS = (
    RNG.normal(size=shape).astype("float32") for shape in ((3, 4, 5), (3, 4, 2), (1, 8, 3))
)
VECTOR = np.abs(RNG.normal(size=(4, 4))).astype("float32")
EVEN = np.array([[4], [6]], "int32")
SHARES = np.array([0.1, 0.5, 1.0], "float32")


def _square(o: Any, h: Any) -> Any:
    """Matrices that have a Cholesky root."""
    return o.matmul(o.swapaxes(h, 1, 2), h) + np.eye(4, dtype="float32")


def _square_later(o: Any, h: Any) -> Any:
    """Matrices whose first column has its largest number below."""
    return h[:, :4] + 3 * np.eye(4, dtype="float32")[[3, 2, 0, 1]]


SYSTEMS: dict[str, Made] = {
    "systems": lambda o, h, x: [
        o.inv(_square_later(o, h)), o.solve(_square_later(o, h), h[:, 0]),
        o.solve(_square_later(o, h), x[:, :4, :3]), *o.slogdet(_square_later(o, h) * 1e15),
        o.linalg.solve_triangular(_square(o, h), x[:, :4], lower=True),
        o.linalg.cholesky_inverse(o.cholesky(_square(o, h))),
    ],
    "segments": lambda o, h, x: [
        f(o.reshape(h, (-1, 2, 2)), o.reshape(o.argmax(x, -1), (-1,)), 5)
        for f in (o.segment_sum, o.segment_max, o.segment_min, o.segment_prod)
    ],
    "sorted": lambda o, h, x: [
        o.segment_max(h[:, 0, 0], 2 * o.sort(o.argmax(x[:, 0], -1)), sorted=True),
    ],
    "signals": lambda o, h, x: [
        o.istft((h, x), 4, 2, 6), o.istft((h, x), 6, 5, 6, length=7, window=None),
        o.istft((h, x), 6, 6, 6, center=False),
    ],
    "losses": lambda o, h, x: [
        o.binary_crossentropy(o.sigmoid(x), h, from_logits=True),
        o.categorical_crossentropy(o.softmax(x), h, from_logits=True),
        o.sparse_categorical_crossentropy(o.argmax(x, -1), h, from_logits=True),
    ],
    "places": lambda o, h, x: [
        o.image.pad_images(o.reshape(h, (-1, 3, 2, 4)), 1, 2, target_height=5, target_width=6),
        o.image.crop_images(o.reshape(h, (-1, 3, 2, 4)), 1, 0, target_height=2, target_width=1),
        o.slice_update(h, [0, 1, 2], x[:, :2, :2]), o.in_top_k(o.argmax(x[:, 0], -1), h[:, 0], 2),
        o.signbit(h), o.left_shift(o.argmax(h, -1) - 2, np.int32(3)),
        o.right_shift(9 * o.argmax(h, -1) - 20, np.int32(2)), o.kron(h, KERNEL[0, :2, :2]),
        *o.unravel_index(o.argmax(h, -1) - 1, (2, 2)), o.bincount(o.argmax(h, -1), minlength=7),
    ],
}  # fmt: skip

LATER: dict[str, Made] = {
    "missing": lambda o, h, x: [
        o.nansum(o.sqrt(h), axis=1), o.nanprod(o.sqrt(h), axis=-1), o.nanmax(o.sqrt(h), axis=1),
        o.nanmin(o.sqrt(h), axis=-1), o.nanmean(o.sqrt(h), axis=1), o.nanvar(o.sqrt(h), axis=1),
        o.nanstd(o.sqrt(h), axis=-1, keepdims=True), o.nanargmax(o.sqrt(h), axis=1),
        o.nanargmin(o.sqrt(h), axis=-1), o.nancumsum(o.sqrt(h), axis=1),
        o.nancumprod(o.sqrt(h), axis=-1), o.fmax(o.sqrt(h), x), o.fmin(x, o.sqrt(h)),
    ],
    "elements": lambda o, h, x: [
        o.isclose(h, x, rtol=0.5), o.isclose(h, x, atol=1.0), o.allclose(h, x), o.allclose(h, h),
        o.heaviside(o.relu(h) - o.relu(x), np.float32(0.3)), o.sinc(h), o.sinc(o.relu(h)),
        o.angle(h), o.logaddexp2(h, x), o.ldexp(h, o.argmax(x, -1, keepdims=True)),
        o.real(h), o.conj(h), o.imag(h), o.isreal(h), o.saturate_cast(h * 300, "uint8"),
        o.saturate_cast(h * 1e10, "int32"), o.bitwise_and(o.argmax(h, -1), o.argmax(x, -1)),
        o.bitwise_xor(o.argmax(h, -1), np.int32(5)), o.bitwise_not(o.argmax(h, -1)),
    ],
    "axes": lambda o, h, x: [
        o.cumprod(h, axis=1), o.cumprod(x, axis=-1), o.quantile(h, 0.3, axis=1),
        o.quantile(h, SHARES, axis=1), o.percentile(h, 37.0, axis=2, keepdims=True),
        o.quantile(o.sqrt(h), 0.5, axis=1), o.append(h, x, axis=1),
        *o.array_split(h, 4, axis=1), *o.hsplit(h, 2), *o.dsplit(h, 2),
        *(o.rot90(h[:, :4], turns, axes=(1, 2)) for turns in (1, 2, -1)),
        o.rot90(h, 3, axes=(2, 1)), o.trapezoid(h, dx=0.5, axis=1), o.vdot(h, x),
    ],
    "choosing": lambda o, h, x: [
        o.select([h > 0.2, h < -0.2], [h, x], 0.0), o.isin(o.argmax(h, -1), [0, 2]),
        o.isin(o.argmax(h, -1), [1, 3], invert=True), o.size(h),
        o.searchsorted(BOUNDS, o.mean(h, axis=(1, 2))),
        o.searchsorted(BOUNDS, o.mean(h, axis=(1, 2)), side="right"),
        o.scatter_update(h, [[0, 1, 2], [0, 0, 0]], np.array([2.0, 3.0], "float32")),
    ],
    "layers": lambda o, h, x: [
        o.batch_normalization(h, *VECTOR[:2], -1, offset=VECTOR[2], scale=VECTOR[3]),
        o.layer_normalization(h, VECTOR[0], VECTOR[1]), o.layer_normalization(h, epsilon=0.1),
        o.rms_normalization(h, VECTOR[0]), o.rms_normalization(h), o.conv(h, KERNEL),
        o.conv(h, KERNEL, padding="same", strides=2), o.depthwise_conv(h, NARROW),
        o.separable_conv(h, NARROW, POINTS),
        o.depth_to_space(o.reshape(h, (-1, 3, 2, 4)), 2),
        o.space_to_depth(o.reshape(h, (-1, 6, 4, 1)), 2),
        o.image.extract_patches(o.reshape(h, (-1, 6, 4, 1)), (2, 2)),
        o.image.extract_patches(o.reshape(h, (-1, 6, 4, 1)), (3, 2), strides=1, padding="same"),
        o.cdist(h, x), o.psnr(h, x, 2.0), o.cholesky(_square(o, h)), o.logdet(_square(o, h)),
    ],
}  # fmt: skip

#: From where pixels are taken: none is near a half, where rounding would decide.
TRANSFORM = np.array([2.9, 0.7, -4.31, -0.53, 3.2, -2.17, 0.04, -0.07], "float32")
CORNERS = np.array([[0, 0], [4, 0], [0, 4], [4, 4]], "float32")
MOVED = np.array([[0.5, 0.3], [3.7, 0.6], [0.2, 3.9], [4.1, 3.6]], "float32")
PLACES = RNG.uniform(-3, 9, (4, 5)).round(1).astype("float32") + np.float32(0.03)
PLACES[0] = np.linspace(-0.7, 2.6, 5)  # the images of a batch of one or three
FIRST = {"data_format": "channels_first"}


def _last(o: Any, h: Any) -> Any:
    return o.reshape(h, (-1, 4, 3, 2))


def _first(o: Any, h: Any) -> Any:
    return o.reshape(h, (-1, 2, 4, 3))


def _flat(h: Any) -> Any:
    """Images of small slopes: eight equations are solved to a few last places only."""
    return h / 8 + 1.0


IMAGES: dict[str, Made] = {
    "transforms": lambda o, h, x: [
        *(o.image.affine_transform(_last(o, h), TRANSFORM, how, mode, 0.3)
          for how, mode in (("nearest", "constant"), ("bilinear", "nearest"), ("bilinear", "wrap"),
                            ("bilinear", "reflect"), ("nearest", "reflect"))),
        o.image.affine_transform(_first(o, h), TRANSFORM, **FIRST),
        o.image.affine_transform(h, TRANSFORM), o.image.affine_transform(
            _last(o, h), 2 * o.concatenate([h[:, 0], h[:, 1] * 0.05], -1)),
        o.image.perspective_transform(_last(o, _flat(h)), CORNERS, MOVED, fill_value=1.0),
        o.image.perspective_transform(
            _first(o, _flat(h)), *[o.reshape(y[:, :2], (-1, 4, 2)) * 0.1 + MOVED for y in (h, x)],
            fill_value=1.0, **FIRST),
    ],
    "coordinates": lambda o, h, _: [
        *(o.image.map_coordinates(_last(o, h), PLACES, order, mode, 0.4)
          for order, mode in ((1, "constant"), (0, "nearest"), (1, "wrap"))),
        o.image.map_coordinates(o.argmax(h, -1), PLACES[:2], 0, fill_value=7),
    ],
    "scales": lambda o, h, x: [
        *(o.image.scale_and_translate(_last(o, h), (None, 5, 7, 2), [1.3, 0.6], [0.4, -0.7], (1, 2),
                                      method, smooth)
          for method, smooth in (("linear", True), ("cubic", True), ("lanczos3", False))),
        o.image.scale_and_translate(h, (None, 8, 4), o.reshape(o.mean(o.abs(x)), (1,)) + 0.5,
                                    VECTOR[0, :1], (-2,), "lanczos5"),
    ],
    "filters": lambda o, h, x: [
        o.image.gaussian_blur(_last(o, h)), o.image.gaussian_blur(h, (5, 5), (2.0, 1.0)),
        o.image.gaussian_blur(_first(o, h), (4, 4), (0.7, 1.9), **FIRST),
        o.image.sobel_edges(_last(o, h)), o.image.sobel_edges(_first(o, h), **FIRST),
        o.image.ssim(_last(o, o.abs(x) + 0.2), _last(o, o.relu(x) + 0.3), filter_size=3),
        o.image.ssim(_first(o, o.abs(x) + 0.2), _first(o, o.relu(x) + 0.3), 2.0, 2, 0.9, 0.02, 0.05,
                     **FIRST),
    ],
    "colours": lambda o, _, x: [
        f(y, **more)
        for f in (o.image.rgb_to_hsv, o.image.hsv_to_rgb)
        for y, more in ((o.reshape(x, (-1, 2, 4, 3)), {}), (x[..., :3], {}),
                        (o.reshape(x, (-1, 3, 4, 2)), FIRST))
    ],
    "windows": lambda o, h, _: [
        o.nn.unfold(_first(o, h), 2), o.nn.unfold(_first(o, h), (3, 2), (1, 2), (1, 2), (2, 1)),
        o.nn.fold(o.reshape(h, (-1, 4, 6)), (6, 4), (2, 1), (2, 1), (1, 1), (2, 3)),
    ],
}  # fmt: skip


def _gaps(o: Any, h: Any) -> Any:
    """Numbers of which some rows have few."""
    return o.sqrt(h + 0.2)


COUNTED: dict[str, Made] = {
    "between": lambda o, h, x: [
        o.full((2, 6, 4), o.max(h)), o.full((6, 4), 9 * h[0], dtype="int32"), o.linspace(h, x, 5),
        o.linspace(h, 1.0, 1, axis=-1), o.linspace(h[0, 0], x, 4, endpoint=False, axis=1),
        o.linspace(9 * h, 7.5, 4, endpoint=False, axis=-1, dtype="int32"),
        o.logspace(h, 2.0, 3, base=3, axis=1), o.geomspace(h, 2 * h, 4),
        o.geomspace(h[0, 0], o.exp(x), 4, axis=2),
    ],
    "grids": lambda o, h, x: [
        *o.meshgrid(h[:, 0, 0], h[0, 0], x[0]), *o.meshgrid(h[0, 0], x[0], indexing="ij"),
        o.ndim(h), o.vander(h[:, 0, 0]), o.vander(h[0, 0], 3, True),
        o.vander(o.argmax(x, -1)[0], 3), o.diagflat(h[:, 0], -1), o.diag(h[:, 0, 0]),
        o.diag(h[0, 0] > 0, 2), o.diag(h[:, 0], 1), o.diag(h[0], -2), o.diag(h[:1, 0]),
        o.diagonal(h, 1, axis1=-1, axis2=1), o.diagonal(h, -2, axis1=1, axis2=2),
    ],
    "correlations": lambda o, h, x: [
        o.corrcoef(h[:, 0]), o.corrcoef(h[0]), o.corrcoef(o.relu(h[:, 0] - 0.9)),
        *(o.correlate(h[0, :, 0], x[0, 0], mode) for mode in ("valid", "same", "full")),
        *(o.correlate(x[0, 0], h[0, :, 0], mode) for mode in ("same", "full")),
    ],
    "series": lambda o, h, _: [
        o.erfinv(0.99 * h), o.erfinv(o.sign(h)), o.erfinv(2 * h),
        o.erfinv(0.003 * o.sigmoid(h) - 1), o.i0(h), o.i0(9 * h),
        o.i0(80 * h), o.i0(o.argmax(h, -1)),
    ],
    "divisors": lambda o, h, x: [
        f(12 * o.argmax(h, -1) - 12, o.cast(40 * x[..., 0], "int32")) for f in (o.gcd, o.lcm)
    ] + [o.gcd(30 * o.argmax(h, -1), 12), o.lcm(o.argmax(h, 1, keepdims=True), EVEN)],
    "quantiles": lambda o, h, x: [
        o.nanmedian(_gaps(o, h), axis=1), o.nanmedian(_gaps(o, h)),
        o.nanmedian(_gaps(o, h), axis=(0, 2), keepdims=True), o.nanmedian(o.sqrt(h - 2), axis=1),
        *(o.nanquantile(_gaps(o, h), 0.4, method=method)
          for method in ("lower", "higher", "nearest", "midpoint")),
        o.nanquantile(_gaps(o, h), [0.1, 0.7], keepdims=True),
        o.nanpercentile(_gaps(o, x), [10.0, 101.0], axis=(1, 2), keepdims=True),
        o.nanpercentile(_gaps(o, h), 50.0 * o.sigmoid(x[0, 0]), axis=1),
        o.median(h), o.median(_gaps(o, h), axis=1),
        o.median(o.argmax(h, -1), axis=0, keepdims=True),
        o.quantile(h, [0.2, 0.4], axis=(0, 2), keepdims=True), o.quantile(h, o.sigmoid(x[0, 0])),
        o.percentile(x, 37.0, axis=(0, 2), method="midpoint", keepdims=True),
    ],
    "places": lambda o, h, x: [
        *o.nonzero(o.relu(h)), o.take(h, o.nonzero(h[0, :, 0] + 2)[0], axis=1),
        o.scatter(np.array([[0], [2], [0]]), h[0, :3], (5, 4)),
        o.scatter(o.expand_dims(o.argmax(x[0], -1), -1), h[0], (5, 4)),
        o.unique(o.argmax(h, -1)), o.unique(h[:, :, 0], sorted=False),
        *o.unique(o.argmax(h, -1), return_index=True, return_inverse=True, return_counts=True,
                  size=3, fill_value=7),
        *o.unique(o.argmax(h, -1), sorted=False, return_index=True, return_inverse=True,
                  return_counts=True, size=7),
        *o.unique(o.sign(h), axis=2, return_index=True, return_inverse=True, return_counts=True),
        *o.unique(o.sign(h), axis=1, size=5, fill_value=0.5, return_counts=True),
    ],
}  # fmt: skip


def _model(keras: Any, rows: dict[str, Made]) -> Any:
    x = keras.Input((6, 4))
    h = keras.layers.LSTM(4, return_sequences=True)(x)
    made = [value for make in rows.values() for value in make(keras.ops, h, x)]
    return randomized(keras.Model(x, made))


@pytest.mark.parametrize(
    "rows",
    [ELEMENTS, SHAPES, LATER, SYSTEMS,
     *(pytest.param(rows, marks=pytest.mark.slow) for rows in (IMAGES, COUNTED))],
    ids=["elements", "shapes", "later", "systems", "images", "counted"],
)  # fmt: skip
def test_operations(rows: dict[str, Made], tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = _model(keras, rows)
    apart = distances(model, tmp_path / "model.onnx", lengths=[6])
    assert len(apart) > 20
    assert {name: far for name, far in apart.items() if far > FLOAT32} == {}


def test_what_has_no_operators_says_why() -> None:
    assert set(operations.BARE) - set(whole_operations.CLASSES) == set(whole_operations.UNSAID)
    named = set(CLASSES) - set(whole_classes.CLASSES) - set(network.PARTS)
    # Those become others before they come here.
    assert named - {"CuDNNGRU", "ThresholdedReLU"} == set(whole_classes.UNSAID)


def test_an_operation_without_operators_is_named(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = _model(keras, {"": lambda o, h, _: [
        *o.eigh(o.matmul(h, o.swapaxes(h, 1, 2))), o.bitwise_not(o.argmax(h, -1)),
        o.rot90(h, 2, axes=(1, 2)),
    ]})  # fmt: skip
    model.save(tmp_path / "model.keras")
    with pytest.raises(lc.UnsupportedByTarget) as caught:
        lc.convert(tmp_path / "model.keras", tmp_path / "model.onnx", whole=True, opset=14)
    for named in ("(opset 14)", "eigh (Eigh)", "(k 2)"):
        assert named in str(caught.value)


def test_what_keras_itself_computes_in_several_ways_is_refused(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = _model(keras, {"": lambda o, h, _: [
        o.image.gaussian_blur(_last(o, h), (3, 5)),
        o.image.map_coordinates(_last(o, h), PLACES, 1, "reflect"),
        o.image.sobel_edges(o.cast(_last(o, h), "int32")),
    ]})  # fmt: skip
    model.save(tmp_path / "model.keras")
    with pytest.raises(lc.UnsupportedByTarget) as caught:
        lc.convert(tmp_path / "model.keras", tmp_path / "model.onnx", whole=True)
    for named in ("(kernel_size [3, 5])", "(fill_mode reflect)", "(inputs int32)"):
        assert named in str(caught.value)


def test_two_dtypes_make_what_keras_makes_of_them() -> None:
    dtypes = pytest.importorskip("keras.src.backend.common.dtypes")
    whole = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    pairs = [*product(["bool", "bfloat16", "float16", "float32", "float64", *whole], repeat=2)]
    made = {pair: whole_operations._promoted(*pair) for pair in pairs}
    assert made == {pair: dtypes.result_type(*pair) for pair in pairs}

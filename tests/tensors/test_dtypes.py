"""Bits, byte order, and the dtypes that safetensors knows."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lstmconvert.errors import (
    UnsupportedByTarget,
)
from lstmconvert.tensors.dtypes import bits, dtype_of, little_endian, safetensors_name, same_bits


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_bits_see_what_numbers_do_not(name: str) -> None:
    zero, minus = (np.array([v]).astype(dtype_of(name)) for v in (0.0, -0.0))
    assert zero == minus
    assert not same_bits(zero, minus)
    size = zero.dtype.itemsize
    nans = [np.array([p], f"<u{size}").view(zero.dtype) for p in payloads(zero.dtype)]
    with np.errstate(invalid="ignore"):  # signalling NaNs, which ml_dtypes notices
        assert all(np.isnan(x).all() for x in nans)
    assert same_bits(nans[0], nans[0].copy())
    assert not same_bits(nans[0], nans[1])
    assert bits(zero).dtype.kind == "u"


def payloads(dtype: Any) -> tuple[int, int]:
    infinity = int(bits(np.array([np.inf]).astype(dtype))[0])
    return infinity + 1, infinity + 2


def test_same_bits_wants_one_dtype_and_shape() -> None:
    a = np.zeros(4, "f4")
    assert not same_bits(a, a.astype("f8"))
    assert not same_bits(a, a.reshape(2, 2))
    assert not same_bits(a.astype("f2"), np.zeros(4, ml_dtypes.bfloat16))
    assert same_bits(a.astype(">f4") + 1, a + 1)
    assert same_bits(np.zeros((0, 3)), np.zeros((0, 3)))
    assert same_bits(np.zeros((), "f4"), np.zeros((), "f4"))


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", "<f4"])
def test_little_endian_is_contiguous(dtype: str) -> None:
    whole = np.arange(24, dtype=dtype).reshape(4, 6)
    for view in (whole, whole.T, whole[::2, 1:3], whole[::-1], whole[1, 2]):
        result = little_endian(np.asarray(view))
        assert result.flags.c_contiguous
        assert result.dtype.byteorder in "<="
        assert result.shape == view.shape
        np.testing.assert_array_equal(result, view)


def test_a_dtype_that_safetensors_lacks() -> None:
    with pytest.raises(UnsupportedByTarget, match="cannot hold this dtype"):
        safetensors_name(np.dtype("S3"), "x")

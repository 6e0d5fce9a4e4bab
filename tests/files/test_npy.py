"""`.npy` members, bit for bit, and headers that NumPy does not write."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.npzfiles import npy, window
from support.thinned import each, rounds

from lstmconvert.errors import CorruptFile, LimitExceeded, SourceError
from lstmconvert.files.npy import read_tensor
from lstmconvert.files.opening import Window
from lstmconvert.tensors.dtypes import Array, same_bits
from lstmconvert.tensors.tensor import ArrayTensor, SourceFile

DTYPES = ["<f4", ">f4", "<f2", ">f2", "<f8", ">f8", "<i8", ">i2", "|u1", "|i1", "?", "<c8", ">u4"]


@settings(max_examples=rounds(150), deadline=None)
@given(st.data())
def test_npy_is_read_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    raw = data.draw(st.binary(min_size=0, max_size=64)) or b"\0"
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array = np.frombuffer((raw * (size // len(raw) + 1))[:size], dtype).reshape(shape)
    if dtype == "?":
        array = array.view("u1") % 2 == 1
    array = np.asarray(array, order=data.draw(st.sampled_from("CF")))
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, data.draw(st.sampled_from([(1, 0), (2, 0), (3, 0)])))
    path = tmp_path_factory.getbasetemp() / "h.npy"
    source = window(path, b"pad" + buffer.getvalue() + b"tail").source
    tensor = read_tensor(Window(source, 3, len(buffer.getvalue())), "h.npy")
    expected = ArrayTensor(array).read()
    assert same_bits(tensor.read(), expected)
    rows = [tensor.rows(a, b) for a, b in tensor.slabs(budget=24)] if expected.size else []
    assert not rows or same_bits(np.concatenate(rows).reshape(shape), expected)


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([None]), "Python objects"),
        (np.array([b"a"]), "byte strings"),
        (np.array(["a"]), "text"),
        (np.zeros(2, "V3"), "raw bytes"),
        (np.zeros(2, "M8[s]"), "dates"),
        (np.zeros(2, "m8[s]"), "time spans"),
        (np.zeros(2, "f16"), "unknown type"),
        (np.zeros(2, [("a", "<f4")]), "header that NumPy does not write"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_npy_of_no_numbers(tmp_path: Path, array: Array, kind: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SourceError, match=kind):
        read_tensor(Window(SourceFile(tmp_path / "a.npy")), "a.npy")


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    "header",
    [
        GOOD,
        GOOD + " " * 40 + "\n",
        "{'shape':(2,),'descr':'<f4','fortran_order':False}",
        GOOD.replace("(2,)", "(1, 2)"),
        GOOD.replace("(2,)", "(1, 2, )"),
        GOOD.replace("(2,)", "(1L, 2L)"),
    ],
)
def test_npy_headers_of_others(tmp_path: Path, header: str) -> None:
    assert read_tensor(window(tmp_path / "a", npy(header.encode(), b"abcdefgh")), "a").size == 2


@each(
    "header",
    [
        "",
        "{}",
        GOOD[:-1],
        GOOD.replace("'shape': (2,), ", ""),
        GOOD.replace("(2,)", "(2)"),
        GOOD.replace("(2,)", "(-2,)"),
        GOOD.replace("(2,)", "(2,,)"),
        GOOD.replace("(2,)", "[2]"),
        GOOD.replace("(2,)", "(2LL,)"),
        GOOD.replace("(2,)", "(L,)"),
        GOOD.replace("(2,)", "(\x1c2,)"),
        GOOD.replace("(2,)", "(2\n,)"),
        GOOD.replace("(2,)", "(3,)"),
        GOOD.replace("(2,)", "(1,)"),
        GOOD.replace("(2,)", "(1099511627776, 1099511627776)"),
        GOOD.replace("(2,)", "(" + "9" * 30 + ",)"),
        GOOD.replace("(2,)", "(1,1,1,1,1,1,1,1,2)"),
        GOOD.replace("False", "0"),
        GOOD.replace("<f4", "=f4"),
        GOOD.replace("<f4", "|f4"),
        GOOD.replace("<f4", "<f3"),
        GOOD.replace("<f4", "f4"),
        GOOD.replace("False", "__import__('os').system('true')"),
        GOOD.replace("}", "'shape': (2,), }"),
        GOOD.replace("}", "'more': 1, }"),
        GOOD + " + {}",
        "{" * 5000,
        GOOD + " " * 11_000,
    ],
)
def test_npy_headers_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises((CorruptFile, LimitExceeded)):
        read_tensor(window(tmp_path / "a", npy(header.encode(), b"abcdefgh")), "a")


def test_npy_cut_and_unknown(tmp_path: Path) -> None:
    whole = npy(GOOD.encode(), b"abcdefgh")
    for cut in range(len(whole)):
        with pytest.raises(CorruptFile):
            read_tensor(window(tmp_path / "a", whole[:cut]), "a")
        # A member does not reach into what follows it.
        with pytest.raises(CorruptFile, match="header is truncated" if 12 <= cut < 60 else None):
            read_tensor(Window(window(tmp_path / "a", whole + whole).source, 0, cut), "a")
    for data in (
        npy(GOOD.encode(), b"abcdefgh", (4, 0)),
        npy(GOOD.encode() + b"\xff", b"abcdefgh", (3, 0)),
        whole + b"x",
    ):
        with pytest.raises(CorruptFile):
            read_tensor(window(tmp_path / "a", data), "a")

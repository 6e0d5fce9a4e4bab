"""Views give the numbers that NumPy gives, by rows, columns, windows and blocks; and read once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.thinned import each, turns

from lstmconvert.tensors import tensor as tensors
from lstmconvert.tensors import views
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import (
    ArrayTensor,
    Cast,
    Columns,
    FileTensor,
    Retyped,
    SideBySide,
    SourceFile,
    Tensor,
)

ROWS, COLUMNS = 300, 520


@pytest.fixture
def array() -> Array:
    return np.random.default_rng(5).random((ROWS, COLUMNS)).astype("<f4")


@pytest.fixture
def file(array: Array, tmp_path: Path) -> FileTensor:
    path = tmp_path / "numbers"
    path.write_bytes(b"head" + array.tobytes())
    return FileTensor(SourceFile(path), 4, array.shape, array.dtype)


def quarters(tensor: Tensor) -> list[Tensor]:
    width = tensor.shape[-1] // 4
    return [views.columns(tensor, k * width, (k + 1) * width) for k in range(4)]


def quarters_below(tensor: Tensor) -> list[Tensor]:
    height = tensor.shape[0] // 4
    return [views.rows(tensor, k * height, (k + 1) * height) for k in range(4)]


def shuffled(array: Array) -> Array:
    a, b, c, d = np.split(array, 4, axis=-1)
    return np.concatenate([a, d, b, c], axis=-1)


def in_turn(array: Array, back: bool = False) -> Array:
    size = array.shape[-1] // 4
    split = array.reshape(len(array), *((size, 4) if back else (4, size)))
    return np.swapaxes(split, 1, 2).reshape(array.shape)


def _shuffled_view(tensor: Tensor) -> Tensor:
    a, b, c, d = quarters(tensor)
    return SideBySide((a, d, b, c))


#: Each view, and what NumPy does in its place.
VIEWS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Array], Array]]] = {
    "itself": (lambda x: x, lambda a: a),
    "transposed": (views.transposed, lambda a: a.T),
    "transposed twice": (lambda x: views.transposed(views.transposed(x)), lambda a: a),
    "columns": (lambda x: Columns(x, 7, 400), lambda a: a[:, 7:400]),
    "columns transposed": (
        lambda x: views.columns(views.transposed(x), 3, 90), lambda a: a.T[:, 3:90],
    ),
    "rows": (lambda x: views.rows(x, 10, 200), lambda a: a[10:200]),
    "rows transposed": (lambda x: views.rows(views.transposed(x), 10, 200), lambda a: a.T[10:200]),
    "shuffled": (_shuffled_view, shuffled),
    "shuffled, transposed": (
        lambda x: views.transposed(_shuffled_view(x)), lambda a: shuffled(a).T,
    ),
    "quarters turned, side by side": (
        lambda x: views.side_by_side([views.transposed(piece) for piece in quarters_below(x)]),
        lambda a: a.T,
    ),
    "stacked": (
        lambda x: views.concatenated([x, x]), lambda a: np.concatenate([a, a]),
    ),
    "stacked, transposed": (
        lambda x: views.transposed(views.concatenated([x, views.negated(x)])),
        lambda a: np.concatenate([a, -a]).T,
    ),
    "below a first axis": (
        lambda x: views.stacked([views.transposed(x), views.transposed(x)]),
        lambda a: np.stack([a.T, a.T]),
    ),
    "reshaped": (
        lambda x: views.Reshaped(views.transposed(x), (ROWS, COLUMNS)),
        lambda a: a.T.reshape(ROWS, COLUMNS),
    ),
    "in turn": (lambda x: views.interleaved(x, 4), in_turn),
    "in turn, and back": (lambda x: views.deinterleaved(x, 4), lambda a: in_turn(a, back=True)),
    "cast, transposed": (
        lambda x: views.transposed(Cast(x, np.dtype("<f2"))), lambda a: a.T.astype("<f2"),
    ),
    "transposed, cast": (
        lambda x: Cast(views.transposed(x), np.dtype("<f2")), lambda a: a.T.astype("<f2"),
    ),
    "negated": (lambda x: views.negated(views.transposed(x)), lambda a: -a.T),
    "retyped": (
        lambda x: Retyped(views.transposed(x), np.dtype("<u4")),
        lambda a: np.ascontiguousarray(a.T).view("<u4"),
    ),
    "added": (lambda x: views.Added(x, views.Added(x, 1.0)), lambda a: a + (a + np.float32(1))),
}


#: Those that hold the tensor twice.
TWICE = {"below a first axis", "stacked", "stacked, transposed", "added"}


@pytest.mark.parametrize(
    ("name", "panel"), [*turns(VIEWS, (1, 5000)), *((name, 1 << 26) for name in VIEWS)]
)
def test_a_view_is_what_numpy_makes(
    name: str, panel: int, file: FileTensor, array: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "PANEL", panel)
    monkeypatch.setattr(views, "_TURNED", panel)
    view_of, expected_of = VIEWS[name]
    for base in (file, ArrayTensor(array)):
        tensor, expected = view_of(base), expected_of(array)
        assert tensor.shape == expected.shape
        assert tensor.dtype == expected.dtype
        assert tensor.read().tobytes() == expected.tobytes()
        matrix = np.ascontiguousarray(expected).reshape(tensor.matrix_shape)
        budget = 3000
        flat = np.concatenate([block.reshape(-1) for block in tensor.blocks(budget)])
        assert flat.tobytes() == expected.tobytes()
        slabs = [tensor.rows(*slab) for slab in tensor.slabs(budget)]
        assert np.concatenate(slabs).tobytes() == expected.tobytes()
        end = min(150, tensor.shape[-1])
        assert tensor.columns(2, end).tobytes() == matrix[:, 2:end].tobytes()
        assert tensor.window(5, 130, 1, 77).tobytes() == matrix[5:130, 1:77].tobytes()
        assert tensor.window(5, 5, 1, 77).shape == (0, 76)
        assert tensor.window(5, 9, 3, 3).shape == (4, 0)
        assert tensor.elements(11, 999).tobytes() == matrix.reshape(-1)[11:999].tobytes()


@each("shape", [(1, 1), (1, 700), (700, 1), (256, 256), (257, 513), (0, 4)])
@each("dtype", ["<f2", "<f4", "<f8", "u1"])
def test_turning_is_transposing(shape: tuple[int, int], dtype: str) -> None:
    matrix = np.random.default_rng(1).integers(0, 255, shape).astype(dtype)
    turned = views.turned(matrix)
    assert turned.flags.c_contiguous
    assert turned.tobytes() == matrix.T.tobytes()
    assert views.turned(matrix[:, ::-1]).tobytes() == matrix[:, ::-1].T.tobytes()


def test_what_was_cut_and_turned_is_whole_again(file: FileTensor) -> None:
    turned = views.transposed(file)
    assert views.side_by_side([views.transposed(x) for x in quarters_below(file)]).base is file  # type: ignore[attr-defined]
    assert views.transposed(views.side_by_side(quarters(turned))) is file
    assert views.concatenated(quarters_below(file)) is file
    assert views.rows(file, 0, ROWS) is file
    parts = quarters_below(file)
    assert isinstance(views.concatenated([parts[1], parts[0]]), views.Stacked)


@pytest.mark.parametrize(
    ("name", "room"),
    turns(
        sorted(set(VIEWS) - TWICE - {"reshaped"}),
        ((1 << 22, (260, 1 << 14)), (1 << 26, (260, 1 << 14)), (1 << 26, (1024, 1024))),
    ),
)
def test_every_byte_is_read_once(
    name: str,
    room: tuple[int, tuple[int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    panel, shape = room
    monkeypatch.setattr(views, "PANEL", panel)
    path = tmp_path / "numbers"
    array = np.random.default_rng(5).random(shape).astype("<f4")
    path.write_bytes(array.tobytes())
    file = FileTensor(SourceFile(path), 0, array.shape, array.dtype)
    read = 0
    original = tensors.read_into

    def counted(descriptor: int, buffer: memoryview, offset: int) -> int:
        nonlocal read
        read += len(buffer)
        return original(descriptor, buffer, offset)

    monkeypatch.setattr(tensors, "read_into", counted)
    tensor = VIEWS[name][0](file)
    assert sum(block.nbytes for block in tensor.blocks()) == tensor.nbytes
    assert read <= array.nbytes

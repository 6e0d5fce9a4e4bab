"""The figure for a paper shows the file's numbers, and is vectors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.cli import KERAS, SEED95
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert.errors import MissingPackage, UsageError
from lstmconvert.model.gates import Gate

pytestmark = pytest.mark.slow


@pytest.fixture
def pyplot() -> Iterator[object]:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    yield plt
    plt.close("all")


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_the_meshes_hold_the_weights(pyplot: object) -> None:
    layer = lc.load(SEED95)["lstm"]
    ax = lc.plot(layer)
    meshes = [np.asarray(mesh.get_array()).reshape(-1, 2) for mesh in ax.collections]
    wanted = [
        array
        for gate in Gate
        for array in (
            layer.cell.gates[gate].kernel,
            layer.cell.gates[gate].recurrent_kernel,
            layer.cell.gates[gate].bias[None],
        )
    ]
    assert len(meshes) == 12
    assert all(np.array_equal(a, b) for a, b in zip(meshes, wanted, strict=True))
    texts = [text.get_text() for text in ax.texts]
    assert {"input 0:2", "forget 2:4", "cell 4:6", "output 6:8", "−0.73"} <= set(texts)
    lefts = [mesh.get_coordinates()[0, 0, 0] for mesh in ax.collections[::3]]
    assert lefts == sorted(lefts)


def test_a_small_figure_is_vectors_and_a_large_one_holds_pictures(
    pyplot: object, tmp_path: Path
) -> None:
    small = tmp_path / "small.svg"
    lc.plot(lc.load(SEED95)["lstm"]).figure.savefig(small)
    assert "<image" not in small.read_text().split("colorbar")[0].partition("QuadMesh")[2][:2000]
    large = make_layer(make_cell(rng(), 200, 120))
    ax = lc.plot(large)
    assert all(mesh.get_rasterized() for mesh in ax.collections)
    assert not any(mesh.get_rasterized() for mesh in lc.plot(lc.load(SEED95)["lstm"]).collections)
    path = tmp_path / "large.pdf"
    ax.figure.savefig(path)
    assert path.stat().st_size < 2_000_000


def test_it_draws_where_it_is_asked_to(pyplot: object) -> None:
    figure, axes = pyplot.subplots(1, 2)  # type: ignore[attr-defined]
    layer = lc.load(KERAS / "both_unlike.keras")["both"]
    assert lc.plot(layer.backward.cells[0], axes[1]) is axes[1]
    assert not axes[0].collections
    assert figure is axes[1].figure
    with pytest.raises(UsageError, match="several cells"):
        lc.plot(layer)


def test_other_parts_and_what_is_not_finite(pyplot: object) -> None:
    vectors = ("bias", "recurrent_bias", "peephole", "layer_norm")
    layer = make_layer(make_cell(rng(), 4, 3, gate_parts=vectors, input_forget=True))
    kernel = layer.forget_gate.kernel.copy()
    kernel[0, 0] = np.nan
    ax = lc.plot(layer.replacing({"forget_gate.kernel": kernel}))
    assert len(ax.collections) == 3 * 6 - 1  # the cell gate has no peephole
    assert np.ma.getmaskarray(ax.collections[0].get_array()).sum() == 1
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[-4:] == ["b", "b′", "p", "γ"]


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingPackage) as caught:
        lc.plot(lc.load(SEED95)["lstm"])
    assert caught.value.hint == "pip install 'lstmconvert[plot]'"

"""Equinox's `.eqx`, both ways, with Equinox as the other side."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from support.layout_tools import case
from support.neutral import make_cell, make_layer

import lstmconvert as lc
from lstmconvert import live
from lstmconvert.tensors.dtypes import same_bits

pytestmark = pytest.mark.engines

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import equinox
    import jax


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bias", [True, False])
def test_equinox_reads_what_we_write_and_we_what_it_writes(
    dtype: str, bias: bool, tmp_path: Path
) -> None:
    parts = ("bias",) if bias else ()
    layer = make_layer(make_cell(np.random.default_rng(1), 3, 2, dtype=dtype, gate_parts=parts))
    result = lc.save(layer, tmp_path / "x.eqx", bare=True)
    assert "no place for options" in result.warnings[0]
    like = equinox.nn.LSTMCell(
        3, 2, use_bias=bias, dtype=layer.dtype, key=jax.random.PRNGKey(3)
    )
    cell = equinox.tree_deserialise_leaves(tmp_path / "x.eqx", like)
    back = live.from_equinox(cell)
    equinox.tree_serialise_leaves(tmp_path / "y.eqx", cell)
    assert (tmp_path / "y.eqx").read_bytes() == (tmp_path / "x.eqx").read_bytes()
    read = lc.load(tmp_path / "y.eqx")["lstm"]
    for found in (back, read):
        for (name, a), (_, b) in zip(found.cell.tensors(), layer.cell.tensors(), strict=True):
            assert same_bits(a.read(), b.read()), name


def test_several_cells_among_others_are_numbered(tmp_path: Path) -> None:
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    tree = {
        "a": equinox.nn.LSTMCell(3, 2, key=keys[0]),
        "b": equinox.nn.Linear(2, 5, key=keys[1]),
        "c": equinox.nn.LSTMCell(5, 4, key=keys[2]),
    }
    equinox.tree_serialise_leaves(tmp_path / "x.eqx", tree)
    model = lc.load(tmp_path / "x.eqx")
    assert [layer.units for layer in model.values()] == [2, 4]
    assert len(model.other) == 2


def test_a_line_of_hyperparameters_before_the_arrays(tmp_path: Path) -> None:
    """As Equinox's documentation saves a model: json.dumps, a newline, tree_serialise_leaves."""
    cell = equinox.nn.LSTMCell(3, 2, key=jax.random.PRNGKey(4))
    with open(tmp_path / "x.eqx", "wb") as file:
        file.write(b'{"hidden": 2, "inputs": 3}\n')
        equinox.tree_serialise_leaves(file, cell)
    (layer,) = lc.load(tmp_path / "x.eqx").values()
    kernel = np.concatenate([gate.kernel for gate in layer.cell.gates.values()], 1)
    assert same_bits(kernel, np.ascontiguousarray(np.asarray(cell.weight_ih).T))
    (tmp_path / "y.eqx").write_bytes(b'{"hidden": 2}')
    with pytest.raises(lc.LSTMConvertError, match="no arrays behind"):
        lc.load(tmp_path / "y.eqx")


def test_folders_of_others_are_called_by_name(tmp_path: Path) -> None:
    (tmp_path / "manifest.ocdbt").write_text("{}")
    with pytest.raises(lc.LSTMConvertError, match="Orbax") as error:
        lc.load(tmp_path)
    assert error.value.hint


def test_what_has_no_names_holds_one_cell(tmp_path: Path) -> None:
    with pytest.raises(lc.LSTMConvertError, match="holds one cell"):
        lc.save(case("bidirectional").layer, tmp_path / "x.eqx", bare=True)
    assert not list(tmp_path.iterdir())


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    lc.save(case("plain").layer, tmp_path / "x.eqx", bare=True)
    data = (tmp_path / "x.eqx").read_bytes()
    for length in (len(data) - 1, 200, 60, 7):
        (tmp_path / "y.eqx").write_bytes(data[:length])
        with pytest.raises(lc.LSTMConvertError):
            lc.load(tmp_path / "y.eqx")

"""Every fixture that is read: gates are slices of what h5py sees, options what JSON says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import keras_tools as tools
from support.keras_tools import FIXTURES, LATEST, name_of
from support.thinned import each

import lstmconvert as lc
from lstmconvert.errors import CorruptFile, NoLSTM, SourceError, UnknownOption, UsageError
from lstmconvert.model.activations import KERAS2, KERAS3
from lstmconvert.model.gates import GATES
from lstmconvert.model.layer import Cell, LSTMLayer, OpaqueCell
from lstmconvert.model.options import unknown_names as unknown
from lstmconvert.tensors.dtypes import bits, same_bits

#: Those whose arrays h5py sees: all but the pickled ones.
seen = each("path", lambda: [p for p in tools.fused() if ".npz." not in p.name], name_of)
rearranged = [p for p in tools.fixtures() if tools.why_not(tools.REARRANGED, p)]
with_config = each(
    "path", lambda: [p for p in tools.fused() if tools.config_text(p) is not None], name_of
)
without_config = each(
    "path", lambda: [p for p in tools.fused() if tools.config_text(p) is None], name_of
)


@seen
def test_gates_are_slices_of_the_fused_arrays(path: Path) -> None:
    arrays = tools.stored(path)
    for layer in tools.model(path).layers:
        for _, _, cell in layer.cells():
            assert set(cell.places) == set(cell.gate_parts) != set()
            width = 4 * cell.units
            for part, place in cell.places.items():
                assert same_bits(cell.fused(part).read(), arrays[place])
                rows = {"kernel": cell.input_dim, "recurrent_kernel": cell.units}
                assert arrays[place].shape[-1] == width
                assert part not in rows or arrays[place].shape[-2] == rows[part]
                for index, gate in enumerate(GATES):
                    columns = slice(index * cell.units, (index + 1) * cell.units)
                    one = cell.gates[gate].tensors[part].read()
                    assert same_bits(one, arrays[place][..., columns]), (layer.name, gate, part)
                    assert one.flags.c_contiguous


@each("path", rearranged, ids=name_of)
def test_rearranged_arrays_keep_every_number(path: Path) -> None:
    """Each cell's numbers are those of its own arrays, moved about and not one bit changed."""
    arrays = tools.stored(path)
    for layer in tools.model(path).layers:
        for _, _, cell in layer.cells():
            places = set(cell.places.values())
            assert places
            wanted = np.concatenate([bits(arrays[place]).ravel() for place in places])
            found = np.concatenate([bits(t.read()).ravel() for _, t in cell.tensors()])
            np.testing.assert_array_equal(np.sort(found), np.sort(wanted))


@seen
def test_every_array_of_the_file_has_one_place(path: Path) -> None:
    model, arrays = tools.model(path), tools.stored(path)
    places = [p for la in model.layers for _, _, cell in la.cells() for p in cell.places.values()]
    listed = [*places, *model.other, *model.optimizer]
    assert sorted(listed) == sorted(arrays)
    for name, tensor in {**model.other, **model.optimizer}.items():
        assert same_bits(tensor.read(), arrays[name]), name
    assert all(name.startswith(("optimizer/", "optimizer_weights/")) for name in model.optimizer)
    assert not any(name.startswith("optimizer") for name in model.other)
    assert model.parameters["total"] == sum(
        a.size for name, a in arrays.items() if name not in model.optimizer
    )


def gated(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield `(layer, its recurrent arrays in order)` of a legacy file, by h5py alone."""
    found = tools.attributes(path)
    arrays = tools.stored(path)
    root = "model_weights/" if "model_weights" in found else ""
    for group, attrs in found.items():
        if "weight_names" not in attrs or group.startswith("optimizer_weights"):
            continue
        names = [n.decode() if isinstance(n, bytes) else n for n in attrs["weight_names"]]
        scopes = {n.rpartition("/")[0] for n in names if "recurrent_kernel" in n}
        yield (
            group.removeprefix(root),
            [
                arrays[f"{group}/{name}"]
                for name in names
                if name.rpartition("/")[0] in scopes
            ],
        )


@each("path", tools.fused("*.h5", "*.hdf5.keras"), ids=name_of)
def test_legacy_order(path: Path) -> None:
    """In a legacy file, the arrays of a layer's cells are those of its group, in its order."""
    if not any("layer_names" in attrs for attrs in tools.attributes(path).values()):
        assert ".weights.h5" in path.name
        return
    by_top: dict[str, list[Any]] = {}
    for layer in tools.model(path).layers:
        top = layer.name.rstrip("_").split("/")[0]
        for _, _, cell in layer.cells():
            by_top.setdefault(top, []).extend(cell.fused(p).read() for p in cell.gate_parts)
    wanted = {top: arrays for top, arrays in gated(path) if top in by_top}
    assert wanted.keys() == by_top.keys()
    for top, arrays in wanted.items():
        assert len(arrays) == len(by_top[top])
        for one, two in zip(by_top[top], arrays, strict=True):
            assert same_bits(one, two)


#: What each kind holds, written by hand from fixtures/builders/keras3.py:
#: stem -> [(name, class, [units of the forward cells], [of the backward ones])]; 0 is not an LSTM.
HOLDS: dict[str, list[tuple[str, str, list[int], list[int]]]] = {
    "options": [("opts", "LSTM", [3], [])],
    "no_bias": [("other_", "LSTM", [1], [])],
    "square": [("square", "LSTM", [5], [])],
    **{
        f"both_{mode}": [("both", "Bidirectional", [2], [2])]
        for mode in ("concat", "sum", "mul", "ave", "none", "last")
    },
    "both_unlike": [("both", "Bidirectional", [2], [3])],
    "both_gru": [("bidirectional", "Bidirectional", [3], [0])],
    "rnn_cell": [("rnn", "RNN", [3], [])],
    "rnn_stack": [("stack", "RNN", [2, 3], [])],
    "rnn_stack_gru": [("stack", "RNN", [2, 0, 3], [])],
    "both_rnn": [("b1", "Bidirectional", [2], [2]), ("b2", "Bidirectional", [2, 3], [2, 3])],
    "each": [
        ("each/deep", "LSTM", [2], []),
        ("each_both/bidirectional", "Bidirectional", [3], [3]),
    ],
    "nested": [
        ("mid/seq/lstm", "LSTM", [3], []),
        ("mid/lstm", "LSTM", [2], []),
        ("top/lstm", "LSTM", [1], []),
        ("lstm", "LSTM", [2], []),
    ],
    "several": [
        ("z_first", "LSTM", [2], []),
        ("a_second", "LSTM", [3], []),
        ("m_last", "LSTM", [5], []),
    ],
    "shared": [("twice", "LSTM", [3], [])],
    "names": [
        ("x.forward_", "LSTM", [1], []),
        ("a.cells.0_", "LSTM", [2], []),
        ("other_", "LSTM", [3], []),
    ],
    "subclassed": [
        ("block_b", "Bidirectional", [1], [1]),
        ("block_a", "LSTM", [2], []),
        ("enc_name", "LSTM", [3], []),
        ("head_l", "LSTM", [1], []),
        ("head_r", "LSTM", [4], []),
    ],
    "custom": [("first", "LSTM", [3], []), ("last", "LSTM", [3], [])],
    "embedding": [("first", "LSTM", [2], []), ("last", "LSTM", [3], [])],
    **{name: [("lstm", "LSTM", [3], [])] for name in ("float16", "bfloat16", "float64")},
    **{name: [("lstm", "LSTM", [2], [])] for name in ("mixed_float16", "mixed_bfloat16")},
    **{name: [("lstm", "LSTM", [2], [])] for name in ("fitted", "neighbours", "text", "seed95")},
    "conv_lstm1d": [("c1", "ConvLSTM1D", [2], []), ("c2", "ConvLSTM1D", [3], [])],
    "conv_lstm2d": [("c1", "ConvLSTM2D", [3], []), ("c2", "ConvLSTM2D", [1], [])],
    "conv_lstm3d": [("c", "ConvLSTM3D", [2], [])],
    "zoo": [
        ("enc", "LSTM", [3], []),
        ("hard", "LSTM", [1], []),
        ("no_bias", "LSTM", [2], []),
        ("both", "Bidirectional", [2], [2]),
        ("cell", "RNN", [4], []),
        ("stack", "RNN", [2, 3], []),
        ("each/lstm", "LSTM", [2], []),
        ("inner/inside", "LSTM", [3], []),
    ],
}
HOLDS["zoo_plain"] = [row for row in HOLDS["zoo"] if row[0] in ("enc", "hard", "no_bias")]
HOLDS["zoo_plain"].append(("each/lstm", "LSTM", [2], []))


def shape_of(layer: LSTMLayer) -> tuple[str, str, list[int], list[int]]:
    def widths(direction: Any) -> list[int]:
        return [c.units if isinstance(c, Cell) else 0 for c in direction.cells]

    backward = [] if layer.backward is None else widths(layer.backward)
    return layer.name, layer.class_name, widths(layer.forward), backward


@each("path", tools.fixtures("keras-3*"), ids=name_of)
def test_layers_by_hand(path: Path) -> None:
    wanted = HOLDS[tools.stem(path).name]
    found = [shape_of(layer) for layer in tools.model(path).layers]
    # Keras numbers the automatic names of a process: lstm, lstm_1, …
    found = [(re.sub(r"^each/lstm(_\d+)?$", "each/lstm", n), *rest) for n, *rest in found]
    assert found == wanted


@each("path", tools.fixtures("*zoo.*"), ids=name_of)
def test_zoo_by_hand(path: Path) -> None:
    found = {n.split("/")[0]: (c, f, b) for n, c, f, b in map(shape_of, tools.model(path).layers)}
    wanted = {n.split("/")[0]: (c, f, b) for n, c, f, b in HOLDS["zoo"]}
    if path.parent.name == "keras-2.0.8":  # no LSTMCell yet
        del wanted["cell"], wanted["stack"]
    assert found == wanted


# ---- configs -----------------------------------------------------------------------------------

CELLS = {"LSTM", "LSTMCell", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}


def cells_of_config(value: Any, top: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the config of every LSTM cell of a model, in order; a mirrored half twice."""
    if isinstance(value, list):
        for item in value:
            yield from cells_of_config(item, top)
    elif isinstance(value, dict):
        name = value.get("class_name")
        config = value.get("config")
        if "fixtures>" in str(value.get("registered_name")) and name != "Branches":
            return
        if name in CELLS and isinstance(config, dict):
            yield config
        elif name == "Bidirectional":
            yield from cells_of_config(config["layer"])
            backward = config.get("backward_layer")
            mirrored = [dict(c) for c in cells_of_config(config["layer"])]
            if config["layer"]["class_name"] != "RNN":
                for one in mirrored:
                    one["go_backwards"] = not one["go_backwards"]
            yield from cells_of_config(backward) if backward else mirrored
        else:
            for key, item in value.items():
                if key not in ("build_config", "compile_config", "registered_name"):
                    yield from cells_of_config(item)


FLAGS = ("use_bias", "unit_forget_bias", "dropout", "recurrent_dropout")
RUN = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")
OBJECTS = [
    f"{part}_{kind}"
    for part in ("kernel", "recurrent", "bias")
    for kind in ("initializer", "regularizer", "constraint")
]


@with_config
def test_options_are_those_of_the_config(path: Path) -> None:
    """Each cell has the units and options of its config, read with json alone."""
    model = tools.model(path)
    configs = list(cells_of_config(tools.config_of(path)))
    if tools.stem(path).name == "subclassed":
        assert not configs
        return
    cells = [(d, cell) for layer in model.layers for _, d in layer.directions for cell in d.cells]
    cells = [(d, cell) for d, cell in cells if isinstance(cell, Cell)]
    assert len(cells) == len(configs)
    table = KERAS3 if tools.is_keras3(path) else KERAS2
    for (direction, cell), config in zip(cells, configs, strict=True):
        assert cell.units == config.get("units", config.get("filters"))
        for name in FLAGS:
            assert getattr(cell.options, name) == config[name], name
        for name in ("activation", "recurrent_activation"):
            assert getattr(cell.options, name) == table[config[name]]
        for name in OBJECTS:
            assert_object(getattr(cell.options, name), config[name])
        for name in RUN:
            if name in config:
                assert getattr(direction.options, name) == config[name], name
        if "kernel_size" in config:
            kept = cell.options.convolution
            keys = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")
            assert kept == {key: config[key] for key in keys}
        if tools.is_keras3(path):
            assert cell.options.seed == config["seed"]
        policy = config.get("dtype")
        policy = policy["config"]["name"] if isinstance(policy, dict) else policy
        assert cell.options.policy == (policy or "float32")


def assert_object(found: Any, written: Any) -> None:
    if written is None:
        assert found is None
        return
    class_name = {"OrthogonalInitializer": "Orthogonal"}.get(
        written["class_name"], written["class_name"]
    )
    assert found["class_name"] == class_name
    # What is null is not said, and the dtype of TensorFlow 1's initializers does nothing.
    said = {k: v for k, v in written["config"].items() if v is not None and k != "dtype"}
    assert found["config"] == said


@with_config
def test_merge_modes_and_sources_own_config(path: Path) -> None:
    model = tools.model(path)
    found = list(tools.objects(tools.config_of(path)))
    for layer in model.layers:
        if layer.config is None:
            assert tools.stem(path).name == "subclassed"
            continue
        assert layer.config in found
        if layer.backward is not None:
            assert layer.options.merge_mode == layer.config["config"]["merge_mode"]
            assert layer.backward.options.go_backwards is not layer.forward.options.go_backwards
        elif "merge_mode" not in layer.config["config"]:
            assert layer.options.merge_mode is None


MASKED = {"embedding": True, "options": True, "seed95": False, "neighbours": False, "text": True}


@pytest.mark.parametrize("stem", MASKED)
def test_masks_that_reach_a_layer(stem: str) -> None:
    for layer in tools.model(FIXTURES / LATEST / f"{stem}.keras").layers:
        assert layer.options.masked is MASKED[stem]


@with_config
def test_texts_byte_for_byte(path: Path) -> None:
    model = tools.model(path)
    assert model.texts["model_config"] == tools.config_text(path)
    if model.container == "keras":
        assert json.loads(model.texts["archive_metadata"])["keras_version"] == (
            model.source.keras_version
        )
    written = tools.attributes(path)[""].get("training_config") if path.suffix == ".h5" else None
    written = written.decode() if isinstance(written, bytes) else written
    assert model.texts.get("training_config") == written


@with_config
def test_era_and_version(path: Path) -> None:
    source = tools.model(path).source
    assert source.era == ("keras3" if tools.is_keras3(path) else "keras2")
    version = {"tf_keras-2.21.0": "2.21.0", "tf-1.15.5": "2.2.4-tf"}.get(
        path.parent.name, path.parent.name.partition("-")[2]
    )
    # tf.keras calls itself after Keras, and lags a patch behind TensorFlow.
    assert source.keras_version is not None
    assert source.keras_version.rpartition(".")[0] == version.rpartition(".")[0]


# ---- weights without a config ------------------------------------------------------------------


@without_config
def test_weights_alone_say_nothing_but_numbers(path: Path) -> None:
    model = tools.model(path)
    assert model.source.era is None
    assert "model_config" not in model.texts
    for layer in model.layers:
        assert layer.config is None
        for _, direction in layer.directions:
            assert "return_sequences" in unknown(direction.options)
            for cell in direction.lstm_cells:
                assert {"activation", "recurrent_activation", "dropout"} <= {*unknown(cell.options)}
                assert cell.options.use_bias == cell.use_bias


def numbers(layer: LSTMLayer) -> list[Any]:
    return [tensor.read() for _, _, cell in layer.cells() for _, tensor in cell.tensors()]


def tables(model: lc.Model) -> list[Any]:
    return [
        (
            (layer.name, layer.class_name, layer.options),
            [direction.options for _, direction in layer.directions],
            [(c.options, c.units, c.input_dim) for _, _, c in layer.cells()],
        )
        for layer in model.layers
    ]


def configs_for(path: Path) -> list[Path]:
    found = [Path(f"{tools.stem(path)}{suffix}") for suffix in (".keras", ".h5", ".config.json")]
    return [config for config in found if config.exists()]


@each(
    "path, config",
    lambda: [
        (path, config)
        for path in tools.fused()
        if tools.config_text(path) is None
        for config in configs_for(path)
    ],
)
def test_weights_with_their_config(path: Path, config: Path) -> None:
    """With `config=`, weights alone are the layers that the whole model has."""
    whole = next(
        p
        for p in (Path(f"{tools.stem(path)}{s}") for s in (".keras", ".h5"))
        if p.exists()
    )
    model = lc.load(path, config=config)
    assert tables(model) == tables(tools.model(whole))
    for name, layer in model.items():
        wanted = numbers(tools.model(whole)[name])
        assert all(same_bits(a, b) for a, b in zip(numbers(layer), wanted, strict=True))


def test_config_of_another_model() -> None:
    weights = FIXTURES / LATEST / "seed95.weights.h5"
    with pytest.raises(CorruptFile):
        lc.load(weights, config=FIXTURES / LATEST / "several.keras")
    with pytest.raises(UsageError, match="weights and no config"):
        lc.load(weights, config=weights)


@pytest.mark.engines
def test_settings_fill_what_is_unknown() -> None:
    path = FIXTURES / LATEST / "both_concat.weights.h5"
    with pytest.raises(UnknownOption, match=r"unknown: .*recurrent_activation.*merge_mode"):
        lc.to_keras(tools.model(path)["both"])
    every = ["activation=tanh", "both.recurrent_activation=hard_sigmoid(alpha=0.2,beta=0.5)"]
    layer = lc.load(path, settings=[*every, "merge_mode=sum", "dropout=0.5", "seed=null"])["both"]
    assert layer.options.merge_mode == "sum"
    for _, _, cell in layer.cells():
        assert cell.options.recurrent_activation == KERAS2["hard_sigmoid"]
        assert (cell.options.dropout, cell.options.seed) == (0.5, None)


@pytest.mark.parametrize("value", [False, True])
def test_the_halves_of_a_bidirectional_are_set_to_run_opposite_ways(value: bool) -> None:
    path = FIXTURES / LATEST / "both_concat.weights.h5"
    layer = lc.load(path, settings=[f"go_backwards={str(value).lower()}"])["both"]
    ways = [direction.options.go_backwards for _, direction in layer.directions]
    assert ways == [value, not value]


def test_settings_do_not_contradict_the_file() -> None:
    path = FIXTURES / LATEST / "seed95.keras"
    assert lc.load(path, settings=["lstm.activation=tanh"])["lstm"].cell.options.seed is None
    with pytest.raises(UsageError, match="file says otherwise"):
        lc.load(path, settings=["activation=relu"])


# ---- what stays out ----------------------------------------------------------------------------

refused = [p for p in tools.candidates() if tools.why_not(tools.NOT_READ, p)]


@pytest.mark.parametrize("path", refused, ids=name_of)
def test_what_is_not_read_yet(path: Path) -> None:
    """A typed error, never a traceback. When this fails, a row of NOT_READ can go."""
    with pytest.raises(SourceError) as error:
        lc.load(path)
    if "no LSTM" in str(tools.why_not(tools.NOT_READ, path)):
        assert isinstance(error.value, NoLSTM)
        assert "gru (GRU)" in str(error.value.found)


def test_no_row_of_the_table_is_idle() -> None:
    for table in (tools.NOT_READ, tools.REARRANGED, tools.NOT_LOADED):
        found = {tools.why_not(table, path) for path in tools.candidates()}
        assert set(table.values()) <= found


def test_notes_name_what_is_left_alone() -> None:
    latest = FIXTURES / LATEST
    (custom,) = tools.model(latest / "custom.keras").notes
    assert "ScaledLSTM" in custom
    (half,) = tools.model(latest / "both_gru.keras").notes
    assert "backward" in half
    assert "GRU" in half
    backward = tools.model(latest / "both_gru.keras")["bidirectional"].backward
    assert backward is not None
    (opaque,) = backward.cells
    assert isinstance(opaque, OpaqueCell)
    arrays = tools.stored(latest / "both_gru.keras")
    assert all(
        same_bits(tensor.read(), arrays[path])
        for path, tensor in zip(opaque.paths, opaque.tensors, strict=True)
    )


def test_assets_are_bytes() -> None:
    import zipfile

    path = FIXTURES / LATEST / "text.keras"
    assets = tools.model(path).assets
    with zipfile.ZipFile(path) as archive:
        wanted = {n: archive.read(n) for n in archive.namelist() if n.startswith("assets/")}
    wanted = {name: data for name, data in wanted.items() if not name.endswith("/")}
    assert wanted
    assert {name: tensor.read().tobytes() for name, tensor in assets.items()} == wanted


FAMILY = [p for p in tools.fused("*/zoo.*") if not tools.is_keras3(p)]


@pytest.mark.parametrize("path", FAMILY, ids=name_of)
def test_every_keras_2_holds_the_same_zoo(path: Path) -> None:
    """The fixtures' weights are seeded by name and place: across versions they are the same, also
    in the files that no installed Keras loads."""
    oracle = tools.model(FIXTURES / "tf_keras-2.21.0" / "zoo.h5")
    model = tools.model(path)
    first = {layer.name.split("/")[0]: layer for layer in oracle.layers}
    compared = 0
    for layer in model.layers:
        if path.parent.name == "keras-2.0.8" and layer.name not in ("enc", "hard", "no_bias"):
            continue  # fewer layers before it: other places, other numbers
        wanted, found = numbers(first[layer.name.split("/")[0]]), numbers(layer)
        assert all(same_bits(a, b) for a, b in zip(found, wanted, strict=True)), layer.name
        compared += 1
    assert compared >= 3


def test_pickled_archive_holds_what_the_others_hold() -> None:
    """Keras writes weights_format="npz" as pickles, and cannot load them; we can, safely."""
    one, other = (tools.model(FIXTURES / LATEST / f"seed95{s}.keras") for s in ("", ".npz"))
    for (_, _, a), (_, _, b) in zip(one["lstm"].cells(), other["lstm"].cells(), strict=True):
        for (name, x), (same_name, y) in zip(a.tensors(), b.tensors(), strict=True):
            assert name == same_name
            assert same_bits(x.read(), y.read())


def test_shards_hold_what_the_whole_file_holds() -> None:
    sharded = tools.model(FIXTURES / LATEST / "seed95.weights.json")
    whole = tools.stored(FIXTURES / LATEST / "seed95.weights.h5")
    cell = sharded["lstm"].cell
    tools.assert_same_arrays(
        {**{p: cell.fused(r).read() for r, p in cell.places.items()},
         **{p: t.read() for p, t in sharded.other.items()}},
        whole,
    )


def test_pickled_and_sharded_are_covered() -> None:
    names = {p.name for p in tools.fixtures(f"{LATEST}/*")}
    assert {"seed95.npz.keras", "seed95.weights.json", "seed95.unzipped"} <= names

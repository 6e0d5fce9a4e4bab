"""Keras 3's `model.weights.npz`: real ones, and broken ones."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.npzfiles import HEADER, MEMBER, boxed, npy, of_pickle, opcodes, store, variable, window
from support.thinned import each

from lstmconvert.errors import CorruptFile, LimitExceeded, SourceError
from lstmconvert.files import zipmembers
from lstmconvert.files.opening import Window
from lstmconvert.files.zipmembers import ZipMembers
from lstmconvert.keras.stores.archive import read_zip
from lstmconvert.keras.stores.npzstore import read_tree
from lstmconvert.tensors.dtypes import Array, dtype_of, same_bits
from lstmconvert.tensors.tensor import FileTensor, SourceFile

FIXTURES = Path(__file__).parents[2] / "fixtures"


def model(dtype: str) -> Any:
    import keras

    zeros = {"recurrent_initializer": "zeros", "dtype": dtype}  # bfloat16 has no orthogonal one
    inner = [keras.layers.LSTMCell(3, name=f"c{k}", **zeros) for k in range(2)]
    built = keras.Sequential(
        [
            keras.Input((5, 4)),
            keras.layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True, **zeros)),
            keras.layers.RNN(inner, return_sequences=True),
            keras.layers.Dropout(0.5, seed=7),
            keras.layers.LSTM(2, name="plain", use_bias=False, **zeros),
            keras.layers.Normalization(),
        ]
    )
    built.compile("adam", "mse")
    built.optimizer.build(built.trainable_variables)
    random = np.random.default_rng(1)
    for weight in built.trainable_variables:
        weight.assign(random.standard_normal(weight.shape))
    odd = np.array(built.layers[0].get_weights()[2], np.float32)
    odd[:4] = [-0.0, np.inf, np.nan, 1e-40]
    built.layers[0].weights[2].assign(odd)
    return built


@pytest.mark.engines
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64", "mixed_float16"])
def test_npz_store_is_the_hdf5_store(tmp_path: Path, dtype: str) -> None:
    from keras.src.saving import saving_lib

    written = model(dtype)
    written.save(tmp_path / "h5.keras")
    with open(tmp_path / "npz.keras", "wb") as file:
        saving_lib._save_model_to_fileobj(written, file, weights_format="npz")
    expected = read_zip(SourceFile(tmp_path / "h5.keras")).tree
    found = read_zip(SourceFile(tmp_path / "npz.keras")).tree
    assert found.tensors.keys() == expected.tensors.keys()
    assert found.groups == expected.groups
    for path, tensor in expected.tensors.items():
        assert same_bits(found.tensors[path].read(), tensor.read()), path
        assert isinstance(found.tensors[path], FileTensor)  # in place: nothing was read yet
    live = {np.asarray(w.value).tobytes() for w in written.weights}
    kept = {t.read().tobytes() for p, t in found.tensors.items() if p.startswith("layers")}
    assert kept == live


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*/*.npz.keras")), ids=lambda p: p.name)
def test_fixture_is_its_hdf5_twin(path: Path) -> None:
    twin = path.with_name(path.name.replace(".npz", ""))
    found, expected = (read_zip(SourceFile(p)).tree for p in (path, twin))
    layers = [name for name in expected.tensors if name.startswith("layers")]
    assert layers
    for name in layers:
        assert same_bits(found.tensors[name].read(), expected.tensors[name].read()), name


def state_of(array: Array) -> Any:
    return array.__reduce__()[2]


def test_values_of_every_backend(tmp_path: Path) -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3) - 0.0
    _, shape, dtype, order, data = state_of(array)
    jax = (
        b"cjax._src.array\n_reconstruct_array\n(cnumpy._core.multiarray\n_reconstruct\n"
        + opcodes((np.ndarray, (0,), b"b"))
        + opcodes((1, shape, dtype, order, data))
        + b"}tR"
    )
    tensorflow = (
        b"cfunctools\npartial\nctensorflow.python.ops.resource_variable_ops\nResourceVariable\n"
        b"\x85R(N)}X\x0d\0\0\0initial_value" + opcodes(array) + b"sNtb)R"
    )
    for value in (opcodes(array), jax, tensorflow):
        for module in (b"keras.src.backend", b"keras.src.backend.tensorflow.core"):
            tree = of_pickle(tmp_path / "m.npz", variable(value, module))
            assert same_bits(tree.tensors["layers/lstm/cell/vars/0"].read(), array)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_of_every_kind(tmp_path: Path, protocol: int) -> None:
    values = {
        "c": np.arange(6, dtype="<f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(24, dtype="<f8").reshape(2, 3, 4)),
        "big": np.arange(3, dtype=">i4"),
        "scalar": np.float32(-0.0),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 4), "<f2"),
        "count": 7,
        "rate": 0.5,
        "flag": True,
    }
    box = np.empty((), object)
    box[()] = values
    data = pickle.dumps(box, protocol=protocol)
    if protocol == 2:  # has no bytes: NumPy's data is then text, and decoded by a call
        with pytest.raises(SourceError, match="not in the file as a NumPy array"):
            of_pickle(tmp_path / "m.npz", data)
        return
    tree = of_pickle(tmp_path / "m.npz", data)
    for key, value in values.items():
        assert same_bits(tree.tensors[f"layers/lstm/cell/vars/{key}"].read(), np.asarray(value))


def test_root_and_groups(tmp_path: Path) -> None:
    member = npy(HEADER, boxed({"0": np.ones(2)}))
    tree = store(tmp_path / "m.npz", {"__root__.npy": member, "a/b.npy": npy(HEADER, boxed({}))})
    assert list(tree.tensors) == ["vars/0"]
    assert tree.groups == {"", "vars", "a", "a/b", "a/b/vars"}


def test_deflated_and_nested_archives(tmp_path: Path) -> None:
    member = npy(HEADER, boxed({"0": np.arange(4.0)}))
    for inner in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for outer in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            store(tmp_path / "in.npz", {MEMBER: member}, inner)
            with zipfile.ZipFile(tmp_path / "out.zip", "w", outer) as archive:
                archive.writestr("pad", b"x" * 77)
                archive.write(tmp_path / "in.npz", "w.npz")
            tree = read_tree(ZipMembers(SourceFile(tmp_path / "out.zip")).open("w.npz"))
            found = tree.tensors["layers/lstm/cell/vars/0"].read()
            assert same_bits(found, np.arange(4.0))


def test_bfloat16_of_no_order(tmp_path: Path) -> None:
    data = boxed({"0": np.ones(2, dtype_of("bfloat16"))})
    assert of_pickle(tmp_path / "m.npz", data).tensors["layers/lstm/cell/vars/0"].read()[0] == 1
    with pytest.raises(CorruptFile, match="no plain numbers"):
        of_pickle(tmp_path / "m.npz", data.replace(b"\x8c\x01<", b"\x8c\x01>"))


@pytest.mark.slow
def test_every_cut_and_every_flip(tmp_path: Path) -> None:
    """Typed errors, or a result: nothing else, whatever byte is wrong."""
    whole = npy(HEADER, variable(opcodes(np.arange(4, dtype="<f4"))))
    assert len(store(tmp_path / "m.npz", {MEMBER: whole}).tensors) == 1
    read = 0
    for cut in range(len(whole)):
        with pytest.raises((CorruptFile, LimitExceeded)):
            store(tmp_path / "m.npz", {MEMBER: whole[:cut]})
        for bit in (1, 32, 128):
            broken = whole[:cut] + bytes([whole[cut] ^ bit]) + whole[cut + 1 :]
            try:
                tree = store(tmp_path / "m.npz", {MEMBER: broken})
                read += sum(tensor.read().size for tensor in tree.tensors.values())
            except SourceError:
                continue
    assert read  # some flips hit what does not matter, or a number


def test_cut_archives(tmp_path: Path) -> None:
    store(tmp_path / "m.npz", {MEMBER: npy(HEADER, boxed({"0": np.ones(9)}))})
    whole = (tmp_path / "m.npz").read_bytes()
    for cut in range(1, len(whole), 7):
        with pytest.raises(CorruptFile):
            read_tree(window(tmp_path / "cut.npz", whole[:cut]))


@each(
    "members",
    [
        {"a.txt": npy(HEADER, boxed({}))},
        {MEMBER: b""},
        {MEMBER: npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"abcd")},
        {MEMBER: npy(HEADER.replace(b"()", b"(1,)"), boxed({}))},
        {MEMBER: npy(HEADER, boxed([1]))},
        {MEMBER: npy(HEADER, boxed({"": 1}))},
        {MEMBER: npy(HEADER, boxed({"0": "text"}))},
        {MEMBER: npy(HEADER, boxed({"0": 1 << 70}))},
        {MEMBER: npy(HEADER, boxed({"0": None}))},
        {MEMBER: npy(HEADER, boxed({"0": np.array(["a"])}))},
        {MEMBER: npy(HEADER, boxed({"0": np.zeros(2, [("a", "<f4")])}))},
        {MEMBER: npy(HEADER, boxed({"0": np.array([None])}))},
        {"a.npy": npy(HEADER, boxed({"vars/0": 1})), "a/vars.npy": npy(HEADER, boxed({"0": 1}))},
        {"/a.npy": npy(HEADER, boxed({}))},
        {"a/" * 70 + "b.npy": npy(HEADER, boxed({}))},
    ],
)
def test_foreign_members(tmp_path: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(SourceError) as raised:
        store(tmp_path / "m.npz", members)
    assert "m.npz" in str(raised.value)


def test_members_that_overlap(tmp_path: Path) -> None:
    """One large member that the directory lists many times."""
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"x" * 10_000)
        for k in range(9):
            archive.filelist.append(archive.filelist[0])
            archive.NameToInfo[f"b{k}"] = archive.filelist[0]
    data = path.read_bytes()
    end = data.index(b"PK\1\2")
    entry = data[end : data.index(b"PK\5\6")]
    parts = entry.split(b"PK\1\2")[1:]
    renamed = b"".join(
        b"PK\1\2" + part.replace(b"a.npy", b"%d.npy" % k) for k, part in enumerate(parts)
    )
    with pytest.raises(CorruptFile, match="overlap"):
        ZipMembers(window(path, data[:end] + renamed + data[end + len(entry) :]).source)


def test_large_members_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipmembers, "_CHECK_NOW", 100)
    store(tmp_path / "m.npz", {MEMBER: npy(HEADER, boxed({"0": np.full(99, 7, "u1")}))})
    data = (tmp_path / "m.npz").read_bytes()
    with pytest.raises(CorruptFile, match="CRC"):
        read_tree(window(tmp_path / "m.npz", data.replace(b"\7" * 9, b"\7" * 8 + b"\6")))


def test_members_stay_inside_a_nested_archive(tmp_path: Path) -> None:
    store(tmp_path / "m.npz", {MEMBER: npy(HEADER, boxed({}))})
    data = bytearray((tmp_path / "m.npz").read_bytes())
    data[28:30] = b"\xff\xff"  # the local header's extra field: the data begins 64 KiB later
    source = window(tmp_path / "m.npz", bytes(data) + bytes(1 << 17)).source
    with pytest.raises(CorruptFile, match="runs into its directory"):
        read_tree(Window(source, 0, len(data)))

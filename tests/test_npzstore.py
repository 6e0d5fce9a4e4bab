"""`.npy` members, pickles read as data, and Keras 3's `model.weights.npz`."""

from __future__ import annotations

import gc
import io
import os
import pickle
import pickletools
import struct
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lstmconvert.dtypes import Array, dtype_of, same_bits
from lstmconvert.errors import CorruptFile, LimitExceeded, SourceError
from lstmconvert.files import Window
from lstmconvert.keras import zipmembers
from lstmconvert.keras.archive import read_zip
from lstmconvert.keras.hdf5 import Tree
from lstmconvert.keras.npzstore import read_tree
from lstmconvert.keras.pickled import OPCODES, Call, Symbol, read_pickle
from lstmconvert.keras.zipmembers import ZipMembers
from lstmconvert.npy import read_tensor
from lstmconvert.tensors import ArrayTensor, FileTensor, SourceFile

FIXTURES = Path(__file__).parents[1] / "fixtures"
HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
MEMBER = "layers/lstm/cell.npy"


def npy(header: bytes, data: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + size + header + data


def window(path: Path, data: bytes) -> Window:
    path.write_bytes(data)
    return Window(SourceFile(path))


def store(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Tree:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return read_tree(Window(SourceFile(path)))


def of_pickle(path: Path, data: bytes) -> Tree:
    return store(path, {MEMBER: npy(HEADER, data)})


def boxed(value: object) -> bytes:
    """`value` in an array of one object, pickled as NumPy's savez does."""
    box = np.empty((), object)
    box[()] = value
    return pickle.dumps(box, protocol=4)


# --- real files -----------------------------------------------------------------------------------


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
    for variable in built.trainable_variables:
        variable.assign(random.standard_normal(variable.shape))
    odd = np.array(built.layers[0].get_weights()[2], np.float32)
    odd[:4] = [-0.0, np.inf, np.nan, 1e-40]
    built.layers[0].weights[2].assign(odd)
    return built


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


def variable(value: bytes, module: bytes = b"keras.src.backend") -> bytes:
    """A Variable whose state has one `_value`, given as opcodes, in the object array of savez."""
    box = pickle.dumps(np.empty((), object), protocol=3)
    start = box.rindex(b"N")  # the array's one element, None
    made = b"c" + module + b"\nVariable\n)\x81}X\x06\0\0\0_value" + value + b"sb"
    return box[:start] + b"}X\x01\0\0\x000" + made + b"s" + box[start + 1 :]


def opcodes(value: object) -> bytes:
    """The opcodes of a value, without protocol and memo, to be put into a larger pickle."""
    data = pickletools.optimize(pickle.dumps(value, protocol=3))
    assert b"q" not in data[:4]
    return data[2:-1]


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


# --- pickles that mean harm -----------------------------------------------------------------------


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch {self.sentinel}",)


def test_sentinel_would_be_made(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "hit")))  # noqa: S301  # our own
    assert (tmp_path / "hit").exists()  # the attack is real: the tests below can fail


@pytest.mark.parametrize("place", ["array", "value", "inside"])
def test_nothing_is_called(tmp_path: Path, place: str) -> None:
    evil, sentinel = Evil(tmp_path / "hit"), tmp_path / "hit"
    data = {
        "array": pickle.dumps(evil, protocol=4),
        "value": boxed({"0": evil}),
        "inside": variable(opcodes(evil)),
    }[place]
    with pytest.raises(SourceError, match=r"layers/lstm/cell\.npy") as raised:
        of_pickle(tmp_path / "m.npz", data)
    assert place == "array" or raised.value.found == "posix.system"
    assert not sentinel.exists()


def test_calls_beside_the_numbers_are_inert(tmp_path: Path) -> None:
    array = np.arange(3.0)
    evil = opcodes(Evil(tmp_path / "hit"))
    data = variable(opcodes(array) + b"sX\x05\0\0\0other" + evil)
    tree = of_pickle(tmp_path / "m.npz", data)
    assert same_bits(tree.tensors["layers/lstm/cell/vars/0"].read(), array)
    assert not (tmp_path / "hit").exists()


def test_no_module_is_imported(tmp_path: Path) -> None:
    data = variable(b"cantigravity\nfly\n)R")
    with pytest.raises(SourceError, match=r"found antigravity\.fly"):
        of_pickle(tmp_path / "m.npz", data)
    assert "antigravity" not in sys.modules


def test_a_name_that_only_resembles(tmp_path: Path) -> None:
    whole = boxed({"0": np.ones(2)})
    of_pickle(tmp_path / "m.npz", whole)
    for old, new in ((b"_reconstruct", b"_reconstrucT"), (b"\x05dtype", b"\x05dtypE")):
        with pytest.raises(CorruptFile):
            of_pickle(tmp_path / "m.npz", whole.replace(old, new))
    with pytest.raises(SourceError, match="not in the file as a NumPy array"):
        of_pickle(tmp_path / "m.npz", variable(opcodes(np.ones(2)), b"mine"))


def test_bfloat16_of_no_order(tmp_path: Path) -> None:
    data = boxed({"0": np.ones(2, dtype_of("bfloat16"))})
    assert of_pickle(tmp_path / "m.npz", data).tensors["layers/lstm/cell/vars/0"].read()[0] == 1
    with pytest.raises(CorruptFile, match="no plain numbers"):
        of_pickle(tmp_path / "m.npz", data.replace(b"\x8c\x01<", b"\x8c\x01>"))


def test_huge_declared_shape(tmp_path: Path) -> None:
    small = opcodes(np.ones(2, "<f4"))
    assert small.count(b"K\x02\x85") == 1
    one_too_large = b"\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"\x85"
    negative = b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86"  # (-1, -2): two elements, as stored
    for shape in (one_too_large, negative, b"\x88K\x02\x86"):
        data = variable(small.replace(b"K\x02\x85", shape))
        tracemalloc.start()
        with pytest.raises((CorruptFile, LimitExceeded)):
            of_pickle(tmp_path / "m.npz", data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    many = variable(small.replace(b"K\x02\x85", b"(" + b"K\x01" * 9 + b"t"))
    with pytest.raises(LimitExceeded, match="axes"):
        of_pickle(tmp_path / "m.npz", many)


def test_lengths_beyond_the_end(tmp_path: Path) -> None:
    for code in (b"\x8e", b"\x8d", b"\x96"):
        for length in ((1 << 64) - 1, 1 << 62, 1 << 20):
            data = b"\x80\x04" + code + length.to_bytes(8, "little") + b"x."
            with pytest.raises((CorruptFile, LimitExceeded)):
                of_pickle(tmp_path / "m.npz", data)


@pytest.mark.parametrize(
    "body",
    [
        b"]" * 200_000 + b"a" * 199_999,
        b"(" * 200_000,
        b")" + b"\x85" * 200_000,
        b"cos\nsystem\n" + b")R" * 200_000,
        b"]q\0h\0a",  # a list that holds itself
        b"}q\0X\x01\0\0\x000h\0s",
    ],
    ids=["lists", "marks", "tuples", "calls", "own list", "own dict"],
)
def test_nesting_has_no_depth(tmp_path: Path, body: bytes) -> None:
    whole = variable(b"N")
    assert whole.count(b"_valueN") == 1
    for data in (b"\x80\x04" + body + b".", whole.replace(b"_valueN", b"_value" + body)):
        with pytest.raises((SourceError, LimitExceeded)):
            of_pickle(tmp_path / "m.npz", data)
    gc.collect()


def test_memo(tmp_path: Path) -> None:
    laughs = b")q\0" + b"".join(b"h%ch%c\x86q%c0" % (k, k, k + 1) for k in range(200))
    start = time.monotonic()
    read_pickle(window(tmp_path / "p", b"\x80\x04" + laughs + b"."), "p")
    assert time.monotonic() - start < 1
    tracemalloc.start()
    read_pickle(window(tmp_path / "p", b"\x80\x04Nr\xff\xff\xff\xff."), "p")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    for bad in (b"h\0.", b"Nq\0q\0.", b"j\xff\xff\xff\xff.", b"q\0.", b"(q\0."):
        with pytest.raises(CorruptFile):
            read_pickle(window(tmp_path / "p", b"\x80\x04" + bad), "p")


def test_opcodes_and_text_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = boxed({"0": np.ones(2)})
    of_pickle(tmp_path / "m.npz", data)
    for variable_ in ("PICKLE_OPCODES", "PICKLE_TEXT_BYTES", "NPY_HEADER_BYTES", "PATH_LENGTH"):
        with monkeypatch.context() as patch:
            patch.setenv(f"LSTMCONVERT_MAX_{variable_}", "20")
            with pytest.raises(LimitExceeded):
                of_pickle(tmp_path / "m.npz", data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\x80\x01N.", "protocol"),
        (b"(lp0\n.", "protocol"),
        (b"\x80\x04", "truncated"),
        (b"\x80\x04N", "truncated"),
        (b"\x80\x04.", "end"),
        (b"\x80\x04NN.", "end"),
        (b"\x80\x04(N.", "end"),
        (b"\x80\x04N.N", "end"),
        (b"\x80\x04N\x80\x04.", "opcode"),
        (b"\x80\x04NQ.", "opcode"),
        (b"\x80\x04Pid\n.", "opcode"),
        (b"\x80\x04\x82\x01.", "opcode"),
        (b"\x80\x04I1\n.", "opcode"),
        (b"\x80\x04(ios\nsystem\n.", "opcode"),
        (b"\x80\x04t.", "mark"),
        (b"\x80\x04a.", "empty stack"),
        (b"\x80\x04]N(a.", "empty stack"),  # nothing is taken from below a mark
        (b"\x80\x04NNa.", "no list"),
        (b"\x80\x04NNNs.", "no dict"),
        (b"\x80\x04}(Nu.", "key without"),
        (b"\x80\x04}(X\x01\0\0\x00aNX\x01\0\0\x00aNu.", "key twice"),
        (b"\x80\x04NNR.", "no function"),
        (b"\x80\x04NNb.", "state"),
        (b"\x80\x04ca\nb\n)R}b}b.", "state"),
        (b"\x80\x04NN\x93.", "no text"),
        (b"\x80\x04X\x01\0\0\x00\xff.", "UTF-8"),
        (b"\x80\x04c" + b"a" * 2000 + b"\nb\n.", "name does not end"),
    ],
)
def test_broken_pickles(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(CorruptFile, match=reason):
        read_pickle(window(tmp_path / "p", data), "p")


def test_long_names_do_not_multiply(tmp_path: Path) -> None:
    text = b"X" + struct.pack("<I", 5000) + b"a" * 5000 + b"q\0"
    with pytest.raises(CorruptFile, match="name"):
        read_pickle(window(tmp_path / "p", b"\x80\x04" + text + b"h\0\x93."), "p")


def test_opcodes_are_those_of_pickletools() -> None:
    names = {info.code: info.name for info in pickletools.opcodes}
    for code, (name, _) in OPCODES.items():
        assert names[chr(code)] == name


def test_machine_reads_what_pickletools_reads(tmp_path: Path) -> None:
    value: object = {
        "a": [1, 300, -5, 1 << 40, 2.5, None, True, (1, 2, 3, 4), {}],
        "b": ("ü" * 300,),
    }
    for protocol in range(2, 6):
        data = pickle.dumps(value, protocol=protocol)
        assert read_pickle(window(tmp_path / "p", data), "p") == value
    match read_pickle(window(tmp_path / "p", pickle.dumps({1, 2}, protocol=4)), "p"):
        case Call(Symbol(name="builtins.set"), ()):
            pass
        case other:
            pytest.fail(repr(other))


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


@pytest.mark.parametrize(
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
    ids=range(15),
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


# --- .npy -----------------------------------------------------------------------------------------

DTYPES = ["<f4", ">f4", "<f2", ">f2", "<f8", ">f8", "<i8", ">i2", "|u1", "|i1", "?", "<c8", ">u4"]


@settings(max_examples=150, deadline=None)
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
    with pytest.raises(CorruptFile, match=kind):
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
    ],
)
def test_npy_headers_of_others(tmp_path: Path, header: str) -> None:
    assert read_tensor(window(tmp_path / "a", npy(header.encode(), b"abcdefgh")), "a").size == 2


@pytest.mark.parametrize(
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
        with pytest.raises(CorruptFile):  # a member does not reach into what follows it
            read_tensor(Window(window(tmp_path / "a", whole + whole).source, 0, cut), "a")
    for data in (
        npy(GOOD.encode(), b"abcdefgh", (4, 0)),
        npy(GOOD.encode() + b"\xff", b"abcdefgh", (3, 0)),
        whole + b"x",
    ):
        with pytest.raises(CorruptFile):
            read_tensor(window(tmp_path / "a", data), "a")

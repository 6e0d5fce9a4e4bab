"""Pickles read as data: nothing they say is done, whatever it is."""

from __future__ import annotations

import gc
import os
import pickle
import pickletools
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.npzfiles import boxed, of_pickle, opcodes, variable, window
from support.thinned import each

from lstmconvert.errors import CorruptFile, LimitExceeded, SourceError
from lstmconvert.files.pickled import OPCODES, Call, Symbol, read_pickle
from lstmconvert.tensors.dtypes import same_bits


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch {self.sentinel}",)


def test_sentinel_would_be_made(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "hit")))  # our own
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


@pytest.mark.slow
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
    read_pickle(window(tmp_path / "p", b"\x80\x04" + laughs + b"."), "p")  # else it has no end
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
    limited = {"PICKLE_OPCODES": 20, "PICKLE_OBJECTS": 3, "PICKLE_TEXT_BYTES": 20}
    for name, most in {**limited, "NPY_HEADER_BYTES": 20, "PATH_LENGTH": 20}.items():
        with monkeypatch.context() as patch:
            patch.setenv(f"LSTMCONVERT_MAX_{name}", str(most))
            with pytest.raises(LimitExceeded):
                of_pickle(tmp_path / "m.npz", data)


@each("data, reason",
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
        (b"\x80\x04Q.", "empty stack"),
        (b"\x80\x04Pid\n.", "opcode"),
        (b"\x80\x04\x82\x01.", "opcode"),
        (b"\x80\x04I1\n.", "opcode"),
        (b"\x80\x04(ios\nsystem\n.", "opcode"),
        (b"\x80\x04t.", "mark"),
        (b"\x80\x04a.", "empty stack"),
        (b"\x80\x04]N(a.", "empty stack"),  # nothing is taken from below a mark
        (b"\x80\x04NNa.", "not a list"),
        (b"\x80\x04NNNs.", "not a dict"),
        (b"\x80\x04}(Nu.", "key without"),
        (b"\x80\x04}(X\x01\0\0\x00aNX\x01\0\0\x00aNu.", "key twice"),
        (b"\x80\x04NNR.", "not a function"),
        (b"\x80\x04NNb.", "state"),
        (b"\x80\x04ca\nb\n)R}b}b.", "state"),
        (b"\x80\x04NN\x93.", "not a text"),
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

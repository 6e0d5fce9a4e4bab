"""Which of many files are models, and where each goes."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.thinned import each, rounds

from lstmconvert.bulk.listing import _DATA, Listed, search
from lstmconvert.bulk.plan import Job, Places, Plan, shard_of
from lstmconvert.containers import table
from lstmconvert.containers.table import Container
from lstmconvert.errors import UsageError
from lstmconvert.targets import renamed


@each("names, found",
    [
        (["a.keras", "b/c.H5", "b/d.hdf5"], ["a.keras", "b/c.H5", "b/d.hdf5"]),
        (["notes.txt", ".hidden.keras", "x.h"], []),
        (["m/saved_model.pb", "m/variables/variables.index", "m/assets/x.h5"], ["m"]),
        (["saved_model.pb", "variables/variables.index"], ["."]),
        (["m/config.json", "m/model.weights.h5", "m/metadata.json"], ["m"]),
        (["m/config.json", "m/model.weights.npz"], ["m"]),
        (["w.weights.json", "w_00000.weights.h5", "w_00001.weights.h5"], ["w.weights.json"]),
        (["w_00000.weights.h5"], ["w_00000.weights.h5"]),
        (["checkpoint", "ckpt.index", "ckpt.data-00000-of-00001", "ckpt.meta"], ["ckpt"]),
        (["pages.index"], []),
        (["x.param", "x.bin", "y.onnx", "y.onnx.data"], ["x.param", "y.onnx"]),
    ],
)
def test_models_of_a_folder(names: list[str], found: list[str]) -> None:
    assert search(names).models == found


@each("row", table.read(), ids=lambda row: row.name)
def test_a_folder_is_searched_for_every_kind_of_file_that_is_read(row: Container) -> None:
    for suffix in row.suffixes:
        names = [f"a{suffix}", *([f"a{_DATA}00000-of-00001"] if suffix == ".index" else [])]
        folder = search(names)
        assert folder.models == [names[0].removesuffix(".index")]
        kinds = [other for other in table.read() if suffix in other.suffixes]
        assert folder.doubtful == (set(names) if all(x.ambiguous for x in kinds) else set())
        assert not folder.passed


def test_what_is_passed_over_is_counted_by_kind() -> None:
    names = ["a.h5", "notes.txt", "more/NOTES.TXT", "LICENSE", "pages.index", "b.bin", ".hidden"]
    assert search(names).passed == {".txt": 2, "no suffix": 1, ".index": 1, ".bin": 1}


def places(*sources: str, suffix: str = ".npz", **options: bool) -> list[str]:
    return [renamed(source, suffix, **options) for source in sources]


def test_a_destination_depends_on_its_source_alone() -> None:
    assert places("a.weights.h5", "x/b.keras", "C.H5") == ["a.npz", "x/b.npz", "C.npz"]
    assert places("run.v2", "run", "x.y/run") == ["run.v2.npz", "run.npz", "x.y/run.npz"]
    assert places(".keras", "x/.h5") == [".keras.npz", "x/.h5.npz"]
    assert places("m.keras", "m.h5", keep_suffix=True) == ["m.keras.npz", "m.h5.npz"]
    # What may as well be no model keeps its suffix, and so does not meet what is one.
    assert places("m.json", "m.npz", "m.weights.json") == ["m.json.npz", "m.npz.npz", "m.npz"]


def planned(*paths: str, out: str = "/out", **options: bool) -> Plan:
    todo = Plan(out, ".npz", **options)
    for path in paths:
        todo.add(Listed(*os.path.split(path)))
    return todo.settled()


def test_a_source_named_twice_is_one() -> None:
    todo = planned("/in/a.h5", "/in/b.h5", "/in/a.h5")
    assert list(todo) == [Job("/in/a.h5", "/out/a.npz"), Job("/in/b.h5", "/out/b.npz")]


@pytest.mark.parametrize(
    "paths",
    [
        ("/in/a.h5", "/in/a.keras"),
        ("/in/x/a.h5", "/in/y/a.h5"),
        ("/in/a.h5", "/in/A.keras"),  # one file where case is ignored
    ],
)
def test_two_sources_of_one_destination_are_refused(paths: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="one destination") as error:
        planned("/in/b.h5", *paths)
    assert f"{paths[0]} and {paths[1]}" in str(error.value)
    assert "--keep-suffix" in (error.value.hint or "")
    if not paths[1].endswith("y/a.h5"):
        assert len(planned(*paths, keep_suffix=True)) == 2


def test_collisions_are_counted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="and 7 more"):
        planned(*(f"/in/{n}.{kind}" for n in range(10) for kind in ("h5", "keras")))


def test_texts_of_equal_hashes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstmconvert.bulk.plan.hash", lambda _: 1, raising=False)
    assert len(planned("/in/a.h5", "/in/b.h5", "/in/a.h5", "/in/c.h5", "/in/b.h5")) == 3


def test_shards_share_the_sources() -> None:
    names = [f"{number}/m.keras" for number in range(1000)]
    shards = [shard_of(f"{number}/3") for number in (1, 2, 3)]
    parts = [[name for name in names if each and each.has(name)] for each in shards]
    assert sorted(itertools.chain(*parts)) == sorted(names)
    assert min(map(len, parts)) > 250
    # What is there besides changes nothing.
    assert all(shards[0].has(name) for name in parts[0])  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "a/b", "1/0", "-1/3", "1/3/5"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        shard_of(text)


@pytest.mark.slow
@settings(max_examples=rounds(100), deadline=None)
@given(st.lists(st.text(max_size=20)))
def test_compact_lists_hold_any_names(texts: list[str]) -> None:
    compact = Places()
    for text in texts:
        compact.append(text)
    assert list(compact) == texts


def test_a_name_that_is_no_unicode() -> None:
    compact = Places()
    compact.append("a\udcff.keras")
    assert compact[0] == "a\udcff.keras"

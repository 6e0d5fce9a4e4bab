"""Stores that are slow, that lie and that are busy; keys with any characters; what is fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import KERAS
from support.site import DATA, Server, serving

import lstmconvert as lc
from lstmconvert import limits
from lstmconvert.bulk import stores
from lstmconvert.bulk.report import NAME

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def site() -> Iterator[str]:
    with serving() as address:
        yield address


def outcome(url: str, out: Path) -> Any:
    (found,) = lc.convert_many([url], out)
    return found


def test_a_page_is_a_source_by_its_name_alone(site: str, tmp_path: Path) -> None:
    assert outcome(f"{site}/m.keras?download=true", tmp_path / "out")
    assert (tmp_path / "out" / "m.safetensors").is_file()
    assert len(Server.requests) == 2
    assert outcome(f"{site}/m.keras?download=true", tmp_path / "out").status == "skipped"
    assert len(Server.requests) == 3  # its ETag, and nothing else


def test_redirects_are_followed_and_loops_are_not(site: str, tmp_path: Path) -> None:
    assert outcome(f"{site}/moved.keras", tmp_path / "out")
    failed = outcome(f"{site}/round.keras", tmp_path / "out")
    assert failed.kind == "SourceError"
    assert f"{site}/round.keras" in failed.error


@pytest.mark.parametrize("name", ["none.keras", "short.keras"])
def test_what_is_not_whole_is_no_source(
    name: str, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limits.STORE_ATTEMPTS.variable, "1")
    failed = outcome(f"{site}/{name}", tmp_path / "out")
    assert failed.kind == "SourceError"
    assert f"{site}/{name}" in failed.error
    assert "/tmp" not in failed.error.replace(str(tmp_path), "")  # noqa: S108  # not written to
    assert [path.name for path in (tmp_path / "out").iterdir()] == [NAME]


def test_a_busy_store_is_asked_again(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(f"{site}/busy.keras", tmp_path / "out")
    monkeypatch.setenv(limits.STORE_ATTEMPTS.variable, "1")
    Server.requests = []
    failed = outcome(f"{site}/busy2.keras", tmp_path / "out")
    assert (failed.status, failed.may_pass) == ("failed", True)


@pytest.mark.slow
def test_a_download_that_stands_still_is_given_up(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limits.DOWNLOAD_STALL_SECONDS.variable, "1")
    failed = outcome(f"{site}/still.keras", tmp_path / "out")
    assert failed.kind == "LimitExceeded"
    assert limits.DOWNLOAD_STALL_SECONDS.variable in failed.hint


@pytest.mark.parametrize("limit", [limits.DOWNLOAD_BYTES, limits.TEMPORARY_BYTES])
def test_what_is_fetched_has_limits(
    limit: limits.Limit, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limit.variable, "10")
    monkeypatch.setattr("lstmconvert.bulk.scratch._used", lambda: 100)
    failed = outcome(f"{site}/m.keras", tmp_path / "out")
    assert failed.kind == "LimitExceeded"
    assert limit.variable in failed.hint


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


ODD = [
    "br[1].keras",
    "what?.keras",
    "a#b.keras",
    "a::b.keras",
    "1+1=2.keras",
    "ü ñ.keras",
    "%20.keras",
]


@pytest.mark.parametrize("name", ODD)
def test_keys_have_any_characters(name: str, memory: Any, tmp_path: Path) -> None:
    memory.pipe(f"/in/{name}", DATA)
    for source in ("memory://in", f"memory://in/{name}"):
        (done,) = lc.convert_many([source], f"memory://out{len(source)}")
        assert done, done.error
        assert memory.exists(f"/out{len(source)}/{name.removesuffix('.keras')}.safetensors")


def test_files_beside_the_source_are_fetched(memory: Any, tmp_path: Path) -> None:
    lc.convert(KERAS / "seed95.keras", tmp_path / "m.param", allow_lossy=True)
    for name in ("m.param", "m.bin"):
        memory.pipe(f"/in/{name}", (tmp_path / name).read_bytes())
    (done,) = lc.convert_many(["memory://in/m.param"], tmp_path / "out")
    assert done, done.error
    assert bool(lc.diff(tmp_path / "m.param", tmp_path / "out" / "m.safetensors"))


def test_of_two_files_the_leader_is_sent_last(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    real = type(memory).put_file

    def put(self: Any, local: str, remote: str, **options: Any) -> Any:
        sent.append(remote.rpartition("/")[2])
        return real(self, local, remote, **options)

    monkeypatch.setattr(type(memory), "put_file", put)
    (done,) = lc.convert_many(
        [KERAS / "seed95.keras"], "memory://out", suffix=".param", allow_lossy=True
    )
    assert done, done.error
    assert sent[:2] == ["seed95.bin", "seed95.param"]
    (again,) = lc.convert_many(
        [KERAS / "seed95.keras"], "memory://out", suffix=".param", allow_lossy=True
    )
    assert again.status == "skipped"


def test_a_report_in_a_store(memory: Any) -> None:
    source = KERAS / "seed95.keras"
    assert [o.status for o in lc.convert_many([source], "memory://out")] == ["written"]
    assert memory.exists(f"/out/{NAME}")
    assert [o.status for o in lc.convert_many([source], "memory://out")] == ["skipped"]
    memory.pipe("/out/seed95.safetensors", b"")
    assert [o.status for o in lc.convert_many([source], "memory://out")] == ["failed"]


def test_no_bucket_is_made() -> None:
    class Buckets:
        made: list[str] = []  # noqa: RUF012  # of this test

        def exists(self, path: str) -> bool:
            return path == "here"

        def makedirs(self, path: str, **_: Any) -> None:
            self.made.append(path)

    system = Buckets()
    assert not stores._make_folder(system, "misspelt/folder/m.npz")
    assert stores._make_folder(system, "here/folder/m.npz")
    assert system.made == ["here/folder"]


def test_names_of_urls() -> None:
    assert stores.name_of("https://a/b/m.keras?download=true#x") == "m.keras"
    assert stores.name_of("s3://b/what?.keras") == "what?.keras"
    assert stores.name_of("/a/b/m.keras") == "m.keras"
    assert os.path.basename(stores.name_of("s3://b/folder/")) == "folder"

"""Sources and destinations that fsspec reaches: in memory, and on a real server of S3."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import KERAS, run

import lstmconvert as lc
from lstmconvert.errors import MissingPackage

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty."""
    system = fsspec.filesystem("memory")
    for name in ("seed95.keras", "rnn_stack.keras"):
        system.pipe(f"/in/sub/{name}", (KERAS / name).read_bytes())
    yield system
    system.store.clear()


def test_memory_to_memory(memory: Any, tmp_path: Path) -> None:
    outcomes = lc.convert_many(["memory://in"], "memory://out", report=tmp_path / "report.jsonl")
    assert all(outcomes), [outcome.error for outcome in outcomes]
    assert memory.exists("/out/sub/seed95.safetensors")
    lc.convert(KERAS / "seed95.keras", tmp_path / "here.safetensors")
    made = memory.cat("/out/sub/seed95.safetensors")
    assert made == (tmp_path / "here.safetensors").read_bytes()
    again = lc.convert_many(["memory://in"], "memory://out", report=tmp_path / "report.jsonl")
    assert {outcome.status for outcome in again} == {"skipped"}
    unlisted = lc.convert_many(["memory://in/sub"], "memory://out/sub")
    assert {outcome.status for outcome in unlisted} == {"skipped"}


def test_globs_and_directories(memory: Any, tmp_path: Path) -> None:
    memory.put("fixtures/tf-2.15.1/seed95.savedmodel/", "/models/m/", recursive=True)
    outcomes = lc.convert_many(["memory://in/*/seed*.keras", "memory://models"], tmp_path / "out")
    assert all(outcomes), [outcome.error for outcome in outcomes]
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.safetensors")) == [
        "m.safetensors",
        "seed95.safetensors",
    ]


def test_what_is_not_there(memory: Any, tmp_path: Path) -> None:
    for url in ("memory://in/none.keras", "memory://in/*.none"):
        done = run("batch", url, "--out-dir", tmp_path / "out")
        assert done.code == 2
        assert len(done.err.splitlines()) == 2
        assert url in done.err


def test_without_fsspec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingPackage, match="fsspec"):
        lc.convert_many(["memory://in"], tmp_path / "out")


def test_google_storage(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named; and URLs of the kind go to whatever fsspec has for them."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    done = run("inspect", "gs://bucket/x.keras")
    assert done.code == 2
    assert "gcsfs" in done.err
    assert "pip install 'lstmconvert[gcs]'" in done.err

    class Google(type(memory)):  # type: ignore[misc]  # fsspec has no types
        protocol = "gs"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.removeprefix("gs://").strip("/")

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "gs", Google)
    memory.pipe("/bucket/m.keras", (KERAS / "seed95.keras").read_bytes())
    assert "95 parameters" in run("inspect", "gs://bucket/m.keras").out
    run("convert", "gs://bucket/m.keras", "gs://bucket/m.safetensors")
    lc.convert(KERAS / "seed95.keras", tmp_path / "m.safetensors")
    assert memory.cat("/bucket/m.safetensors") == (tmp_path / "m.safetensors").read_bytes()


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """A server of S3 on this machine: what its clients need in their environment."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        yield {
            "AWS_ENDPOINT_URL": server.stdout.readline().strip(),
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.communicate()  # the end of its input ends it


_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(f"http://{host}:{port}", flush=True)
sys.stdin.read()
server.stop()
"""

_CLIENT = """
import sys, fsspec
from lstmconvert.cli.main import program
system = fsspec.filesystem("s3")
system.mkdir("bucket")
system.put(sys.argv[1] + "/", "bucket/in/", recursive=True)
codes = []
for arguments in (
    ["s3://bucket/in", "--out-dir", "s3://bucket/out", "-j", "2", "--report", sys.argv[2]],
    ["s3://bucket/in", "--out-dir", "s3://bucket/out", "-j", "1", "--report", sys.argv[2]],
    ["s3://bucket/in", "--out-dir", "s3://bucket/out", "-j", "1", "--report", sys.argv[2] + "2"],
    ["s3://nowhere/in", "--out-dir", "s3://bucket/out"],
):
    try:
        program.main(["batch", *arguments])
    except SystemExit as end:
        codes.append(end.code)
print(codes)
print(*system.find("bucket/out"))
system.get("bucket/out/sub/seed95.safetensors", sys.argv[3])
"""


@pytest.mark.slow
def test_s3(bucket: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    shutil.copy(KERAS / "rnn_stack.keras", source)
    shutil.copy(KERAS / "seed95.keras", source / "sub")
    done = subprocess.run(
        [sys.executable, "-c", _CLIENT, source, tmp_path / "report", tmp_path / "back"],
        env={**os.environ, **bucket},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes, names = done.stdout.splitlines()
    assert codes == "[0, 0, 0, 2]", done.stderr
    assert names == "bucket/out/rnn_stack.safetensors bucket/out/sub/seed95.safetensors"
    assert "2 files: 2 written\n" in done.stderr
    # With the report, and without: then what would be written is compared with what is there.
    assert done.stderr.count("2 files: 2 done before\n") == 2
    lc.convert(KERAS / "seed95.keras", tmp_path / "here.safetensors")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "here.safetensors").read_bytes()


_VERSIONS = """
import sys, s3fs
from lstmconvert.cli.main import program
system = s3fs.S3FileSystem()
system.mkdir("kept")
system.make_bucket_versioned("kept")
for path in sys.argv[1:3]:
    system.put_file(path, "kept/m.keras")
listed = s3fs.S3FileSystem(version_aware=True).object_version_info("kept/m.keras")
first = min(listed, key=lambda entry: entry["LastModified"])
if first["IsLatest"]:
    first = next(entry for entry in listed if not entry["IsLatest"])
old = f"s3://kept/m.keras?versionId={first['VersionId']}"
codes = []
for arguments in (
    ["convert", old, sys.argv[3] + "/old.npz"],
    ["convert", "s3://kept/m.keras", sys.argv[3] + "/new.npz"],
    ["convert", old, "s3://kept/made/old.npz"],
    ["convert", old, "s3://kept/made/old.npz"],
    ["convert", old, "s3://misspelt/old.npz"],
    ["batch", old, "--out-dir", sys.argv[3] + "/out"],
    ["diff", old, "s3://kept/made/old.npz"],
    ["diff", old, "s3://kept/m.keras"],
    ["verify", old, "s3://kept/made/old.npz", "--engine", "numpy"],
    ["inspect", "s3://kept/none.keras"],
):
    try:
        program.main(arguments)
    except SystemExit as end:
        codes.append(end.code)
print(codes)
"""


@pytest.mark.slow
def test_versions_of_an_object_and_commands_on_s3(
    bucket: dict[str, str], tmp_path: Path
) -> None:
    first, second = KERAS / "seed95.keras", KERAS / "both_sum.keras"
    done = subprocess.run(
        [sys.executable, "-c", _VERSIONS, first, second, tmp_path],
        env={**os.environ, **bucket},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes = done.stdout.splitlines()[-1]
    assert codes == "[0, 0, 0, 2, 2, 0, 0, 1, 0, 2]", done.stderr
    assert lc.diff(tmp_path / "old.npz", first)
    assert lc.diff(tmp_path / "new.npz", second)
    (made,) = (tmp_path / "out").glob("*.safetensors")
    assert lc.diff(made, first)
    assert "s3://kept/made/old.npz: the destination exists" in done.stderr
    assert "s3://misspelt/old.npz" in done.stderr
    assert "s3://kept/none.keras: no such object" in done.stderr

"""The Hub: its own client, huggingface_hub, against an endpoint on this machine.

The endpoint answers what the Hub's API answers about one repository with two revisions
(https://huggingface.co/docs/hub/api): its info, the list of its files, their sizes, the files.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import pytest
from support.cli import KERAS
from support.site import serving

import lstmconvert as lc

pytestmark = pytest.mark.slow
pytest.importorskip("huggingface_hub")
pytest.importorskip("fsspec")

REPO = "team/models"
NEW, OLD = KERAS / "seed95.keras", KERAS / "both_sum.keras"
#: Revision -> path in the repository -> file.
FILES = {
    "main": {"seed95.keras": NEW, "sub/both.keras": OLD, "README.md": Path("README.md")},
    "v1": {"seed95.keras": OLD},
}
COMMITS = {name: hashlib.sha1(name.encode()).hexdigest() for name in FILES}  # noqa: S324  # a name


class Hub(http.server.BaseHTTPRequestHandler):
    """The endpoint."""

    requests: list[str] = []  # noqa: RUF012  # of one test each

    def _files(self, revision: str) -> dict[str, Path] | None:
        names = {commit: name for name, commit in COMMITS.items()}
        return FILES.get(names.get(revision, revision))

    def _entry(self, name: str, path: Path) -> dict[str, Any]:
        data = path.read_bytes()
        oid = hashlib.sha1(data).hexdigest()  # noqa: S324  # as git names it
        return {"type": "file", "oid": oid, "size": len(data), "path": name}

    def _entries(self, files: dict[str, Path], below: str, recursive: bool) -> list[Any]:
        start = f"{below}/" if below else ""
        entries: dict[str, Any] = {}
        for name, path in files.items():
            if not name.startswith(start):
                continue
            folder, slash, _ = name[len(start) :].partition("/")
            if slash:
                entries[start + folder] = {
                    "type": "directory", "oid": "0" * 40, "size": 0, "path": start + folder,
                }
            if not slash or recursive:
                entries[name] = self._entry(name, path)
        return list(entries.values())

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        url = urlparse(self.path)
        parts = unquote(url.path).strip("/").split("/")
        self.requests.append(f"{self.command} {unquote(self.path)}")
        api = ["api", "models", *REPO.split("/")]
        if parts[:4] == api:
            self._api(parts[4:], parse_qs(url.query), body)
        elif parts[:2] == REPO.split("/") and parts[2] == "resolve":
            self._file(parts[3], "/".join(parts[4:]))
        else:
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def _api(self, parts: list[str], query: dict[str, list[str]], body: bytes) -> None:
        revision = parts[1] if len(parts) > 1 else "main"
        files = self._files(revision)
        if files is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif not parts or parts[0] == "revision":
            info = {"id": REPO, "modelId": REPO, "sha": COMMITS.get(revision, revision),
                    "private": False, "tags": [], "siblings": []}
            self._send(200, json.dumps(info).encode())
        elif parts[0] == "tree":
            below = "/".join(parts[2:])
            entries = self._entries(files, below, query.get("recursive", [""])[0].lower() == "true")
            found = entries or not below
            answer = entries if found else {"error": "Entry not found"}
            headers = {} if found else {"X-Error-Code": "EntryNotFound"}
            self._send(200 if found else 404, json.dumps(answer).encode(), headers)
        else:  # paths-info
            text = body.decode()
            given = json.loads(text) if text.startswith("{") else parse_qs(text)
            named = [unquote(name) for name in given["paths"]]
            every = {entry["path"]: entry for entry in self._entries(files, "", True)}
            self._send(200, json.dumps([every[n] for n in named if n in every]).encode())

    def _file(self, revision: str, name: str) -> None:
        files = self._files(revision) or {}
        if name not in files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = files[name].read_bytes()
        whole = len(data)
        headers = {"X-Repo-Commit": COMMITS.get(revision, revision), "Accept-Ranges": "bytes",
                   "ETag": f'"{self._entry(name, files[name])["oid"]}"'}
        status, ranged = 200, self.headers.get("Range")
        if ranged:
            first, _, last = ranged.removeprefix("bytes=").partition("-")
            data = data[int(first) : int(last) + 1 if last else None]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(data) - 1}/{whole}"
            status = 206
        self._send(status, data, headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def command(address: str, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own: the client reads its endpoint once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "lstmconvert", *map(str, arguments)],
        env={**environment, "HF_ENDPOINT": address, "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_repository_is_converted_and_found_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving(Hub) as address:
        done = command(address, tmp_path, "batch", f"hf://{REPO}", "--out-dir", out)
        assert done.returncode == 0, done.stderr
        assert "2 files: 2 written" in done.stderr
        Hub.requests = []
        again = command(address, tmp_path, "batch", f"hf://{REPO}", "--out-dir", out)
        assert "2 files: 2 done before" in again.stderr, again.stderr
        assert not any("/resolve/" in request for request in Hub.requests)  # its hashes tell
    assert lc.diff(out / "seed95.safetensors", NEW)
    assert lc.diff(out / "sub" / "both.safetensors", OLD)


def test_commands_take_files_and_revisions_of_it(tmp_path: Path) -> None:
    with serving(Hub) as address:
        done = command(address, tmp_path, "inspect", f"hf://{REPO}/seed95.keras", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["source"]["name"] == "seed95.keras"
        old = tmp_path / "old.npz"
        done = command(address, tmp_path, "convert", f"hf://{REPO}@v1/seed95.keras", old)
        assert done.returncode == 0, done.stderr
        assert lc.diff(old, OLD)
        done = command(address, tmp_path, "diff", f"hf://{REPO}/sub/both.keras", OLD)
        assert done.returncode == 0, done.stderr
        for url in (f"hf://{REPO}/none.keras", "hf://team/nothing/m.keras"):
            failed = command(address, tmp_path, "inspect", url)
            assert failed.returncode == 2
            assert url in failed.stderr
            assert "Traceback" not in failed.stderr

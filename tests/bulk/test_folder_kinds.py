"""A folder that holds a file of every kind, and files that are not models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.cli import SEED95, run

import lstmconvert as lc
from lstmconvert.bulk.report import NAME
from lstmconvert.containers import table

pytest.importorskip("scipy")
pytest.importorskip("msgpack")
pytest.importorskip("ai_edge_litert")

#: Options that a container needs to hold this one layer.
NEEDED = {"eqx": {"bare": True}}


def written(folder: Path) -> list[str]:
    """Write a model of every kind that is written and read, each under a name of its own."""
    names = []
    for row in table.written():
        if row.known is None:
            continue
        layout = row.default or (row.layouts[0] if row.layouts else "torch")
        name = f"of-{row.name.replace('.', '-')}{row.suffixes[0]}"
        lc.convert(SEED95, folder / name, layout=layout, warn=False, **NEEDED.get(row.name, {}))
        names.append(name)
    return names


@pytest.mark.usefixtures("here")
def test_everything_that_convert_takes_is_taken(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = written(source)
    done = run("batch", source, "--out-dir", out, "-j", 1)
    assert done.code == 0, done.err
    assert done.err.splitlines()[0] == f"{len(names)} files: {len(names)} written"
    reported = [json.loads(line) for line in (out / NAME).read_text().splitlines()]
    assert sorted(Path(row["source"]).name for row in reported) == sorted(names)
    for row in reported:
        assert list(lc.load(row["destination"])) == ["lstm"]


#: Files that are not models, as they lie beside models.
NO_MODELS = {
    "config.json": b'{"architectures": ["x"], "hidden_size": 8}',
    "m.json": json.dumps({"class_name": "Sequential", "config": []}).encode(),
    "list.json": b"[1, 2, 3]",
    "notes.txt": b"notes",
    "plain.mat": b"no signature",
    "history.json": b'{"loss": [0.5, 0.25], "val_loss": [0.5, 0.5]}',
}


@pytest.mark.usefixtures("here")
def test_what_is_no_model_is_passed_over(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    lc.convert(SEED95, source / "m.safetensors")
    for name, content in NO_MODELS.items():
        (source / name).write_bytes(content)
    np.savez(source / "data.npz", x=np.zeros((3, 2)), y=np.zeros(3))
    np.savez(source / "texts.npz", names=np.array(["a", "b"]), anything=np.array([{}], object))
    done = run("batch", source, "--out-dir", out, "-j", 1, "--json")
    assert done.code == 0, done.err
    end = "1 file: 1 written; passed over: 4 .json, 1 .mat, 2 .npz, 1 .txt"
    assert done.err.splitlines() == [end, f"report: {out / NAME}"]
    rows = [json.loads(line) for line in done.out.splitlines()]
    status = {Path(row["source"]).name: row["status"] for row in rows}
    assert status.pop("m.safetensors") == "written"
    assert set(status.values()) == {"passed over"}
    assert (out / "m.safetensors").exists()
    # Named by itself, such a file has failed.
    done = run("batch", source / "config.json", "--out-dir", out, "-j", 1)
    assert done.code == 1
    assert "a JSON file, and no model" in done.err

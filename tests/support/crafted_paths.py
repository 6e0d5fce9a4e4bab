"""Attacks through paths: in directories, and in maps of shards."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from support.crafted import KERAS, SECRET, WEIGHTS, Bench, craft, members

# --- directories ----------------------------------------------------------------------------------


def _directory(bench: Bench) -> Path:
    path = bench.folder / "model"
    path.mkdir()
    for name, data in members(KERAS).items():
        (path / name).write_bytes(data)
    return path


@craft(None)
def directory(bench: Bench) -> Path:
    return _directory(bench)


@craft("a symbolic link")
def directory_with_a_linked_config(bench: Bench) -> Path:
    path = _directory(bench)
    shutil.move(path / "config.json", bench.victim)
    (path / "config.json").symlink_to(bench.victim)
    return path


@craft("a symbolic link")
def directory_with_a_linked_asset(bench: Bench) -> Path:
    path = _directory(bench)
    bench.victim.write_bytes(SECRET)
    (path / "assets").mkdir()
    (path / "assets" / "vocabulary.txt").symlink_to(bench.victim)
    return path


@craft("a symbolic link")
def directory_with_a_linked_directory(bench: Bench) -> Path:
    path = _directory(bench)
    (path / "assets").symlink_to("..")
    return path


@craft("holds no model")
def directory_with_a_pipe(bench: Bench) -> Path:
    path = _directory(bench)
    (path / "config.json").unlink()
    os.mkfifo(path / "config.json")
    return path


@craft("not a regular file")
def a_pipe(bench: Bench) -> Path:
    os.mkfifo(bench.folder / "model.keras")
    return bench.folder / "model.keras"


# --- shards ---------------------------------------------------------------------------------------


def _shards(bench: Bench, *names: object) -> Path:
    value = {"metadata": {}, "weight_map": {f"/layers/{n}": [x] for n, x in enumerate(names)}}
    return bench.write("model.weights.json", json.dumps(value).encode())


@craft(None)
def shards(bench: Bench) -> Path:
    bench.copy(WEIGHTS)
    return _shards(bench, WEIGHTS)


def _shard_attack(label: str, name: object) -> None:
    def make(bench: Bench) -> Path:
        shutil.copy(bench.copy(WEIGHTS), bench.victim)
        return _shards(bench, str(bench.victim) if name == "victim" else name)

    make.__name__ = f"shard_{label}"
    craft("must be a plain file name")(make)


_shard_attack("upwards", "../victim")
_shard_attack("absolute", "victim")
_shard_attack("url", "http://127.0.0.1/x.weights.h5")
_shard_attack("null", "a\0b")
_shard_attack("number", 7)
_shard_attack("empty", "")
_shard_attack("of_windows", "C:\\x")
_shard_attack("dots", "..")


@craft("a shard is a symbolic link")
def shard_is_a_link(bench: Bench) -> Path:
    shutil.copy(bench.copy(WEIGHTS), bench.victim)
    (bench.folder / "x.weights.h5").symlink_to(bench.victim)
    return _shards(bench, "x.weights.h5")


@craft("two shards hold one array")
def shards_of_one_array(bench: Bench) -> Path:
    shutil.copy(bench.copy(WEIGHTS), bench.folder / "b.weights.h5")
    return _shards(bench, WEIGHTS, "b.weights.h5")


@craft("No such file")
def shard_is_missing(bench: Bench) -> Path:
    bench.copy(WEIGHTS)
    return _shards(bench, WEIGHTS, "gone\x1b[2J.weights.h5")


@craft("the weight_map is empty")
def shards_of_nothing(bench: Bench) -> Path:
    return _shards(bench)


@craft("the JSON file is above the limit")
def json_file_of_a_terabyte(bench: Bench) -> Path:
    path = bench.write("model.weights.json", b'{"weight_map": {}, ')
    os.truncate(path, 1 << 40)
    return path

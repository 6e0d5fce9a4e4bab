"""The containers of other frameworks: a valid file of each, and attacks that change one thing."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import lstmconvert
from support.crafted import FIXTURES, KERAS, Bench, Craft
from support.crafted_safetensors import unsealed

#: Name -> content, the file that is converted first; a path is a symbolic link to it.
Files = dict[str, "bytes | Path"]
Change = Callable[[Files, Bench], None]

OTHERS: list[Craft] = []
TF = FIXTURES.parent / "tf-2.12.1"
_DATA = ".data-00000-of-00001"
#: What is attacked: file name -> layout and whether it is bare; made of one fixture.
_CONVERTED: dict[str, tuple[str, str | None, bool]] = {
    "npz": ("x.npz", None, False),
    "chainer": ("x.npz", "chainer", True),
    "params": ("x.params", "mxnet", False),
    "msgpack": ("x.msgpack", "flax", True),
    "eqx": ("x.eqx", "equinox", True),
    "mat": ("x.mat", None, False),
    "mlmodel": ("x.mlmodel", None, False),
    "rtneural": ("x.json", "rtneural", False),
    "tfjs": ("model.json", "tfjs", False),
    "json": ("x.json", "torch", False),
    "tflite": ("x.tflite", None, False),
    "ncnn": ("x.param", None, False),
}


@cache
def valid(kind: str) -> Files:
    """The files of a valid container."""
    if kind == "checkpoint":
        folder = TF / "seed95.tf_weights"
        return {f"x{end}": (folder / f"ckpt{end}").read_bytes() for end in (".index", _DATA)}
    if kind == "savedmodel":
        folder = TF / "seed95.savedmodel"
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {f"saved/{path.relative_to(folder)}": path.read_bytes() for path in paths}
    if kind == "fdeep":
        return {"x.json": _frugally_deep()}
    if kind == "pt":
        return {"x.pt": _torch()}
    name, layout, bare = _CONVERTED[kind]
    with tempfile.TemporaryDirectory() as text:
        lstmconvert.convert(FIXTURES / KERAS, Path(text, name), layout=layout, bare=bare)
        names = sorted((path.name for path in Path(text).iterdir()), key=lambda one: one != name)
        files = {name: Path(text, name).read_bytes() for name in names}
    return {"x.npz": _unsealed_npz(files["x.npz"])} if name == "x.npz" else files


def _unsealed_npz(data: bytes) -> bytes:
    """An archive of ours as it was before there were checksums."""
    arrays = dict(np.load(io.BytesIO(data)))
    value = unsealed(json.loads(arrays["__metadata__"].tobytes()))
    arrays["__metadata__"] = np.frombuffer(json.dumps(value).encode(), np.uint8)
    result = io.BytesIO()
    np.savez(result, **arrays)
    return result.getvalue()


def _arrays() -> dict[str, Any]:
    (layer,) = lstmconvert.load(FIXTURES / KERAS).values()
    return dict(lstmconvert.arrange(layer, "keras"))


def _frugally_deep() -> bytes:
    import base64

    from support.crafted import members

    arrays, config = _arrays(), json.loads(members()["config.json"])
    names = {"weights": "kernel", "recurrent_weights": "recurrent_kernel", "bias": "bias"}
    params = {
        there: [base64.b64encode(arrays[ours].astype("<f4").tobytes()).decode()]
        for there, ours in names.items()
    }
    value = {"architecture": config, "trainable_params": {"lstm": params}}
    return json.dumps(value).encode()


def _torch() -> bytes:
    import torch

    (layer,) = lstmconvert.load(FIXTURES / KERAS).values()
    arrays = lstmconvert.arrange(layer, "torch")
    buffer = io.BytesIO()
    state = {name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}
    torch.save(state, buffer)
    return buffer.getvalue()


def attack(kind: str, refused: str | None) -> Callable[[Change], Change]:
    """Register a change of a valid container's files."""

    def register(change: Change) -> Change:
        def make(bench: Bench) -> Path:
            found = dict(valid(kind))
            change(found, bench)
            return written(found, bench.folder)

        OTHERS.append(Craft(f"{kind}-{change.__name__}", make, refused))
        return change

    return register


def written(found: Files, folder: Path) -> Path:
    """Write files into a folder, and return what names the model."""
    for name, data in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, Path):
            path.symlink_to(data)
        else:
            path.write_bytes(data)
    first = next(iter(found))
    return folder / ("saved" if first.startswith("saved/") else first)


def main_of(found: Files) -> bytes:
    """The bytes of the file that is converted."""
    data = next(iter(found.values()))
    assert isinstance(data, bytes)
    return data


def put(found: Files, data: bytes) -> None:
    """Replace the file that is converted."""
    found[next(iter(found))] = data


def swapped(found: Files, old: bytes, new: bytes) -> None:
    """Replace bytes of the file that is converted, which must be there."""
    data = main_of(found)
    assert old in data, old
    put(found, data.replace(old, new, 1))


def edit(kind: str, refused: str | None) -> Callable[[Callable[[Any, Bench], Any]], Any]:
    """Register a change of the JSON value of the file that is converted."""

    def register(change: Callable[[Any, Bench], Any]) -> Callable[[Any, Bench], Any]:
        def edited(found: Files, bench: Bench) -> None:
            value = json.loads(main_of(found))
            result = change(value, bench)
            put(found, json.dumps(value if result is None else result).encode())

        edited.__name__ = change.__name__
        attack(kind, refused)(edited)
        return change

    return register


def plain(kind: str) -> None:
    """Register the valid file itself, from which all of its attacks differ."""

    def unchanged(found: Files, bench: Bench) -> None:
        pass

    attack(kind, None)(unchanged)

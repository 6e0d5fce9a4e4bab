"""The crafted files of other frameworks' containers, under guard, as those of Keras."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import (
    crafted_arrays,
    crafted_coreml,
    crafted_matlab,
    crafted_tensorflow,
    crafted_texts,
)
from support.crafted import SECRET, Bench, Craft
from support.crafted_others import OTHERS, valid, written
from support.jail import RESIDENT, ROOT, SECONDS, Jail, Run, Watch
from support.verdicts import check_refusal, lstm_numbers, numbers

MODULES = (crafted_arrays, crafted_coreml, crafted_matlab, crafted_texts, crafted_tensorflow)


def _jail(folder: Path, kinds: list[str], more: str = "") -> Jail:
    """A jail whose server has read valid files of these kinds, so that a fork imports nothing."""
    paths = [str(written(valid(kind), folder / kind)) for kind in kinds]
    (folder / "sitecustomize.py").write_text(
        f"import lstmconvert\n{more}\n"
        f"for number, path in enumerate({paths!r}):\n"
        f"    lstmconvert.convert(path, {str(folder)!r} + f'/{{number}}.safetensors')\n"
    )
    return Jail(PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)]))


@pytest.fixture(scope="module")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    kinds = sorted({craft.name.partition("-")[0] for craft in OTHERS} - {"pt"})
    with _jail(tmp_path_factory.mktemp("warm"), kinds) as one:
        yield one


@pytest.fixture(scope="module")
def torch_jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    """PyTorch alone takes some 300 MB, and seconds to import."""
    with _jail(tmp_path_factory.mktemp("warm"), ["pt"]) as one:
        yield one


def examine(craft: Craft, jail: Jail, folder: Path) -> tuple[Run, Path]:
    """Convert a crafted file under guard, and check what holds for all."""
    (folder / "in").mkdir()
    bench = Bench(folder / "in", folder / "victim", folder / "sentinel")
    source = craft.make(bench)
    destination = folder / "out" / "out.safetensors"
    destination.parent.mkdir()
    watches = [Watch(bench.victim)] if bench.victim.exists() else []
    run = jail.run("convert", source, destination, allow=[bench.folder])
    opened = [watch.opened() for watch in watches]
    for watch in watches:
        watch.close()
    assert not any(opened)
    assert not bench.sentinel.exists()
    assert run.code in (0, 2), run
    assert not run.events, run.events
    assert run.seconds < SECONDS, run
    assert "Traceback" not in run.stderr, run.stderr
    assert "a fault of lstmconvert itself" not in run.stderr, run.stderr
    assert all(char.isprintable() or char == "\n" for char in run.stderr + run.stdout), run
    if craft.refused is None:
        assert run.code == 0, run
        assert list(lstm_numbers(destination).values()) == list(numbers().values())
        assert SECRET not in destination.read_bytes()
    else:
        check_refusal(run, craft.refused)
        assert os.listdir(destination.parent) == []
    return run, destination


#: What takes seconds to refuse or to read.
SLOW = {"savedmodel-millions_of_objects", "mat-of_empty_arrays", "mat-bomb", "eqx-of_empty_arrays",
        "mlmodel-empty_layers", "msgpack-many_dicts_in_lists"}  # fmt: skip


@pytest.mark.parametrize(
    "craft",
    [
        pytest.param(c, id=c.name, marks=pytest.mark.slow if c.name in SLOW else ())
        for c in OTHERS
        if not c.name.startswith("pt-")
    ],
)
def test_crafted_file(craft: Craft, jail: Jail, tmp_path: Path) -> None:
    run, _ = examine(craft, jail, tmp_path)
    assert run.resident < RESIDENT, run


@pytest.mark.engines
@pytest.mark.parametrize(
    "craft", [c for c in OTHERS if c.name.startswith("pt-")], ids=lambda craft: craft.name
)
def test_crafted_pytorch_file(craft: Craft, torch_jail: Jail, tmp_path: Path) -> None:
    base = torch_jail.run("--version").resident
    run, _ = examine(craft, torch_jail, tmp_path)
    assert run.resident - base < RESIDENT, (run, base)

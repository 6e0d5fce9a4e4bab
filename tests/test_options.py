"""Every option, of every kind of source, to every kind of target: it has an effect, or is refused.

What an option does is tested where it is done. Here each is given, and the result has to differ
from the result without it (its bytes, its warnings, what it left out), or an error has to name it.
Where neither is so, `REASONS` says why.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.numpy import load_file, save_file
from support.cli import SEED95
from support.thinned import ALL

import lstmconvert as lc
from lstmconvert.containers import table
from lstmconvert.containers.table import Container
from lstmconvert.conversion import Request

pytest.importorskip("scipy")
pytest.importorskip("msgpack")
pytest.importorskip("ai_edge_litert")

CONFIG = Path("fixtures/keras-2.3.1/seed95.config.json")


def gates(folder: Path) -> Path:
    lc.convert(SEED95, folder / "gates.safetensors", warn=False)
    return folder / "gates.safetensors"


def torch(folder: Path) -> Path:
    """Arrays as PyTorch has them, without metadata of ours."""
    lc.convert(SEED95, folder / "ours.safetensors", layout="torch", bare=True, warn=False)
    save_file(load_file(folder / "ours.safetensors"), folder / "torch.safetensors")
    return folder / "torch.safetensors"


def onnx(folder: Path) -> Path:
    lc.convert(SEED95, folder / "own.onnx", warn=False)
    return folder / "own.onnx"


SOURCES: dict[str, Callable[[Path], Path]] = {
    "keras": lambda _: SEED95,
    "weights.h5": lambda _: SEED95.with_suffix(".weights.h5"),
    "h5": lambda _: Path("fixtures/keras-2.3.1/seed95.h5"),
    "two layers, optimizer": lambda _: Path("fixtures/keras-1.2.2/sequential.h5"),
    "savedmodel": lambda _: Path("fixtures/tf-2.12.1/seed95.savedmodel"),
    "gates": gates,
    "torch": torch,
    "onnx": onnx,
}
#: Option -> a value of it, of a source with these layers.
VALUES: dict[str, Callable[[list[str]], Any]] = {
    "layout": lambda _: "nowhere",
    "dtype": lambda _: "float16",
    "lstm_only": lambda _: True,
    "with_other": lambda _: True,
    "with_optimizer": lambda _: True,
    "bare": lambda _: True,
    "stacks": lambda names: [f"s={names[0]},{names[-1]}"],
    "rescale_hard_sigmoid": lambda _: True,
    "era": lambda _: "keras2",
    "for_keras": lambda _: "3.3",
    "keep_custom": lambda _: True,
    "weights_of": lambda _: ["Own=cell"],
    "replace": lambda _: ["nowhere=ops.exp(x)"],
    "no_compile": lambda _: True,
    "fused": lambda _: True,
    "chain": lambda _: True,
    "opset": lambda _: 17,
    "state_inputs": lambda _: True,
    "length_input": lambda _: True,
    "check": lambda _: True,
    "fold_batchnorm": lambda _: True,
    "prefix": lambda _: "amp",
    "weights": lambda _: "int8",
    "allow_lossy": lambda _: True,
    "dry_run": lambda _: True,
    "layers": lambda names: names[:1],
    "from_layout": lambda _: "torch",
    "config": lambda _: CONFIG,
    "into": lambda _: CONFIG,
    "settings": lambda _: ["return_sequences=true"],
}
#: Tried elsewhere: without `force` no destination is replaced (tests/files); `whole` and what it
#: refuses have tests of their own (tests/onnx/whole).
ELSEWHERE = {"force", "whole"}


def test_every_option_is_among_them() -> None:
    assert {field.name for field in fields(Request)} == VALUES.keys() | ELSEWHERE


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files do not say with which options they were made, as that alone is not an effect."""
    monkeypatch.setattr("lstmconvert.api.made_with", lambda _how: {})


class Case(NamedTuple):
    """One conversion: of what, to what, and how it went without the option."""

    option: str
    source: str
    target: Container
    names: list[str]
    plain: Outcome

    @property
    def says_no_option(self) -> bool:
        """Whether the file that is written has no place for how a layer is run."""
        is_weights = any("weights only" in text for text in self.plain.told)
        has_place = self.target.metadata or self.target.is_keras
        return not has_place or is_weights or self.target.name in ("weights.h5", "c")


class Outcome(NamedTuple):
    """What came of a conversion: files, and what the user was told; or an error."""

    written: dict[str, bytes]
    told: tuple[str, ...]
    error: str | None = None


#: Sources that say all of their layer, so that the config of the same model adds nothing.
WHOLE = {"keras", "h5", "savedmodel", "gates", "onnx"}
#: Option -> why it may have no effect and be no error, and when that is so.
REASONS: dict[str, tuple[str, Callable[[Case], bool]]] = {
    "check": ("a header says it always", lambda case: case.target.name == "c"),
    "allow_lossy": ("it permits a loss, and there is none", lambda _: True),
    "from_layout": ("the layout is found to be that", lambda case: case.source == "torch"),
    "config": (
        "the file says the same, or the target holds no options",
        lambda case: case.source in WHOLE or case.says_no_option,
    ),
    "settings": ("the target holds no options", lambda case: case.says_no_option),
    "layers": ("it is the only layer", lambda case: len(case.names) == 1),
    "for_keras": (
        "the file opens there anyhow, as it says",
        lambda case: "opens in Keras 3.3 and later" in case.plain.told,
    ),
    "era": ("the file goes back to that Keras anyhow", lambda case: case.source == "h5"),
    "lstm_only": (
        "the source has nothing else, or the target takes nothing else without --with-other",
        lambda case: case.source in ("torch", "onnx") or case.target.default != "gates",
    ),
    "with_other": (
        "they are carried by default, and nothing is left out",
        lambda case: not any("LeftOut" in text for text in case.plain.told),
    ),
}


def outcome(source: Path, target: Container, folder: Path, **options: Any) -> Outcome:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    layout = target.default or (target.layouts[0] if target.layouts else "torch")
    given = {"layout": layout, **options}
    try:
        result = lc.convert(source, folder / f"x{target.suffixes[0]}", warn=False, **given)
    except lc.LSTMConvertError as error:
        return Outcome({}, (), str(error))
    files = {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    told = (*result.warnings, *result.losses, *map(str, result.left_out), *result.notes)
    return Outcome(files, told)


def silent(source: str, targets: Iterable[Container], folder: Path) -> list[str]:
    """Return the options that have no effect on a source's conversions, without a reason."""
    path = SOURCES[source](folder)
    names = list(lc.load(path))
    silent = []
    for target in targets:
        plain = outcome(path, target, folder / "out")
        for option, value in VALUES.items():
            found = outcome(path, target, folder / "out", **{option: value(names)})
            case = Case(option, source, target, names, plain)
            is_effective = found.error is not None or found != plain
            _, is_so = REASONS.get(option, ("", lambda _: False))
            if plain.error is not None and found.error == plain.error:
                continue  # something else is in the way, and said
            if not is_effective and not is_so(case):
                silent.append(f"--{option} to {target.name}")
    return silent


@pytest.mark.parametrize("part", range(8) if ALL else [0])
@pytest.mark.parametrize("source", SOURCES)
def test_it_has_an_effect_or_is_refused(source: str, part: int, tmp_path: Path) -> None:
    """An eighth of the targets: over all sources each option goes to each of them."""
    place = [*SOURCES].index(source)
    targets = [*table.written()][(place + part) % 8 :: 8]
    assert not silent(source, targets, tmp_path)


def test_the_check_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstmconvert.api._without_effect", lambda _model, _how: [])
    (target,) = (row for row in table.written() if row.name == "safetensors")
    found = silent("torch", [target], tmp_path)
    assert "--with_optimizer to safetensors" in found

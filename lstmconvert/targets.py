"""What a conversion is asked for, what it answers, and which suffix names which kind of file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from lstmconvert.errors import DestinationError, UsageError
from lstmconvert.records import dataclass

GATES, KERAS, C_HEADER = "gates", "keras", "c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a model is written. See the command line's help for each.

    Fields: `layout` (None: the container's own), `dtype`, `lstm_only`, `with_other`,
    `with_optimizer`, `bare`, `stacks`, `rescale_hard_sigmoid`, `force`, `allow_lossy`, `dry_run`;
    for ONNX `fused`, `chain`, `opset`, `state_inputs`, `length_input`.
    """

    layout: str | None = None
    dtype: str | None = None
    lstm_only: bool = False
    with_other: bool = False
    with_optimizer: bool = False
    bare: bool = False
    stacks: Sequence[str] = ()
    rescale_hard_sigmoid: bool = False
    fused: bool = False
    chain: bool = False
    opset: int | None = None
    state_inputs: bool = False
    length_input: bool = False
    force: bool = False
    allow_lossy: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a conversion wrote, or with `dry_run` would write.

    Fields: `destination`; `container` and `layout`; `layers`, their names; `tensors`: how many
    were written; `whole_model`: whether a Keras file holds the whole model; `all_weights`:
    whether it holds at least all of the model's weights; `losses`: what is lost, declared;
    `warnings`: what the user should know.
    """

    destination: Path
    container: str
    layout: str
    layers: tuple[str, ...]
    tensors: int
    whole_model: bool = False
    all_weights: bool = False
    losses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    written: bool = field(default=True)


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of file to write: suffixes, name, default layout.

    Where there is no default, the user has to name one of `layouts`.
    """

    suffixes: tuple[str, ...]
    container: str
    default: str | None = None

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts that it holds, its default first."""
        from lstmconvert.layouts.rows import ROWS  # large, and the default is told without it

        rows = tuple(row.name for row in ROWS.values() if self.container in row.containers)
        return tuple(dict.fromkeys([self.default, *rows] if self.default else rows))

    @property
    def is_keras(self) -> bool:
        """Whether it is one of Keras's own files."""
        return self.default == KERAS

    def holds(self, layout: str | None) -> bool:
        """Whether it holds a layout, or for None has a default."""
        if layout is None:
            return self.default is not None
        return layout == self.default or layout in self.layouts


#: Longest suffix first.
TARGETS: tuple[Target, ...] = (
    Target((".weights.h5",), "weights.h5", KERAS),
    Target((".safetensors",), "safetensors", GATES),
    Target((".keras",), "keras", KERAS),
    Target((".h5", ".hdf5"), "h5", KERAS),
    Target((".onnx",), "onnx", GATES),
    Target((".npz",), "npz", GATES),
    Target((".json",), "json"),
    Target((".json",), "rtneural"),
    Target((".json",), "tfjs"),
    Target((".json",), "frugally-deep"),
    Target((".h",), "c", C_HEADER),
    Target((".params",), "params"),
    Target((".param",), "ncnn", "ncnn"),
    Target((".tflite",), "tflite", "tflite"),
    Target((".mlmodel",), "mlmodel", "coreml"),
    Target((".mat",), "mat", "matlab"),
    Target((".msgpack",), "msgpack", "flax"),
    Target((".eqx",), "eqx", "equinox"),
)


#: A `.pt` is a pickle, which we read through PyTorch alone and do not write.
_TORCH_HINT = "PyTorch takes .safetensors --to torch: safetensors.torch.load_file(path)"


def file_path(path: str | Path) -> Path:
    """Return a destination as a `Path`, which would forget a `/` at the end.

    Raises:
        DestinationError: it ends like a directory.
    """
    if isinstance(path, str) and path.endswith(("/", os.sep)):
        raise DestinationError(
            "the destination is named as a directory, and a file is written",
            where=path,
            hint=f"leave out the {path[-1]} at its end",
        )
    return Path(path)


def target_of(path: Path, layout: str | None) -> Target:
    """Return the target that a destination's suffix names, and a layout, where it is given.

    Raises:
        UsageError: no container has that suffix, or not that layout.
    """
    fitting = [target for target in TARGETS if path.name.lower().endswith(target.suffixes)]
    for target in fitting:
        if target.holds(layout):
            return target
    if not fitting:
        raise UsageError(
            "the destination's suffix names no container",
            where=path,
            found=path.suffix or "no suffix",
            expected=" ".join(dict.fromkeys(x for target in TARGETS for x in target.suffixes)),
            hint=_TORCH_HINT if path.suffix.lower() in (".pt", ".pth") else None,
        )
    layouts = ", ".join(dict.fromkeys(name for target in fitting for name in target.layouts))
    if layout is None:
        raise UsageError(
            f"{path.suffix} holds several layouts: name one with --to", where=path, expected=layouts
        )
    known = ", ".join(
        " ".join(target.suffixes) for target in TARGETS if layout in target.layouts
    )
    raise UsageError(
        f"{fitting[0].container} does not hold the layout {layout}",
        where=path,
        expected=layouts,
        hint=f"{layout} goes to {known}" if known else _unknown(layout),
    )


def _unknown(layout: str) -> str:
    from lstmconvert.layouts.rows import close_to

    return close_to(layout) or "lstmconvert formats lists the layouts"

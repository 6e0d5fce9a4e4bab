"""Writing a model in a framework's layout: arranged, written, read back, compared."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lstmconvert import readback, writing
from lstmconvert.containers import arrays
from lstmconvert.errors import UsageError
from lstmconvert.layouts import write
from lstmconvert.layouts.row import Row
from lstmconvert.model import Model

if TYPE_CHECKING:
    from lstmconvert.targets import Options, Result


#: Containers that hold more than arrays -> the module whose `write` makes one and reads it back.
_DOCUMENTS = {
    "c": "cheader",
    "frugally-deep": "fdeep",
    "mlmodel": "coreml",
    "tfjs": "tfjs",
    "tflite": "tflite",
}


def save(
    model: Model, path: Path, container: str, row: Row, how: Options, source: Path | None
) -> Result:
    """Write a file.

    Raises:
        UsageError, UnknownOption, UnsupportedByTarget: see `write.content`.
        DestinationError: see `writing.replacing`.
    """
    from lstmconvert.digest import Digest
    from lstmconvert.targets import Result

    _check_other(model, path, container, how)
    content = write.content(
        model,
        row,
        stacks=how.stacks,
        bare=how.bare,
        with_other=how.with_other,
        with_optimizer=how.with_optimizer,
        allow_lossy=how.allow_lossy,
        says_functions=container in _DOCUMENTS,
    )
    told = [f"{path.name} has no place for options: its arrays alone come back"] * (
        container in arrays.BARE
    )
    result = Result(
        destination=path,
        container=container,
        layout=row.name,
        layers=tuple(content.model),
        tensors=len(content.tensors),
        losses=content.model.losses,
        warnings=(*model.notes, *content.model.losses, *content.warnings, *told),
        written=not how.dry_run,
    )
    if how.dry_run:
        return result
    size = sum(tensor.nbytes for tensor in content.tensors.values())
    texts = partial(content.texts, Digest(model, size).texts)
    seconds = arrays.second(container, path)
    with writing.replacing_all([path, *seconds], force=how.force, source=source) as temporaries:
        temporary, beside = temporaries[0], arrays.beside(temporaries, seconds)
        try:
            if container in _DOCUMENTS:
                document = import_module(f"lstmconvert.layouts.{_DOCUMENTS[container]}")
                written = document.write(temporary, content, texts, beside)
                readback.check_written(content.tensors, written, path)
            else:
                arrays.write(container, temporary, content.tensors, texts, path, beside)
        finally:
            model.source.check()
    return result


def _check_other(model: Model, path: Path, container: str, how: Options) -> None:
    """Raise where a container has no place for the other tensors that were asked for."""
    if container in arrays.OPEN:
        return
    for option, tensors in (
        ("--with-other", {**model.other, **model.assets} if how.with_other else {}),
        ("--with-optimizer", model.optimizer if how.with_optimizer else {}),
    ):
        if tensors:
            raise UsageError(
                f"{option}: a {path.suffix} of this kind holds LSTMs alone",
                where=path,
                found=f"{len(tensors)} other tensors",
                hint=f"leave {option} away, or write a .safetensors",
            )

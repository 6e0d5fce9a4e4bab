"""The library's verbs: load, save, convert. The command line calls these and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lstmconvert import gatesfile, metadata, select, writing
from lstmconvert.containers import detect, safetensors
from lstmconvert.errors import UsageError
from lstmconvert.keras import load as keras_load
from lstmconvert.model import Model
from lstmconvert.settings import apply as apply_settings
from lstmconvert.tensors import Tensor

GATES, KERAS = "gates", "keras"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a model is written. See the command line's help for each.

    Fields: `layout` (None: the container's own), `dtype`, `lstm_only`, `with_optimizer`,
    `rescale_hard_sigmoid`, `force`, `allow_lossy`, `dry_run`.
    """

    layout: str | None = None
    dtype: str | None = None
    lstm_only: bool = False
    with_optimizer: bool = False
    rescale_hard_sigmoid: bool = False
    force: bool = False
    allow_lossy: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a conversion wrote, or with `dry_run` would write.

    Fields: `destination`; `container` and `layout`; `layers`, their names; `tensors`: how many
    were written; `whole_model`: whether a Keras file holds the whole model; `losses`: what is
    lost, declared; `warnings`: what the user should know.
    """

    destination: Path
    container: str
    layout: str
    layers: tuple[str, ...]
    tensors: int
    whole_model: bool = False
    losses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    written: bool = field(default=True)


def load(
    path: str | Path,
    *,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
) -> Model:
    """Open a file or directory as a model. Nothing is read but shapes, names and configs.

    Args:
        path: a `.keras` (zip or directory), `.weights.h5`, `.h5`, `.weights.json` or a per-gate
            file; recognised by its bytes.
        config: a file with the model's config, for weights that come without one.
        settings: `[LAYER.]OPTION=VALUE` texts, for options that no file says.

    Raises:
        SourceError: the file is missing, damaged, hostile or no model; `NoLSTM` if it has none.
        UsageError: `config` or `settings` do not fit.
    """
    given = keras_load.given_config(Path(config)) if config is not None else None
    model = detect.open_model(Path(path), given)
    return apply_settings(model, tuple(settings)) if settings else model


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    layers: Collection[str] = (),
    config: str | Path | None = None,
    settings: Sequence[str] = (),
    **options: object,
) -> Result:
    """Convert one file: `load`, then `save`. Arguments and errors are theirs.

    Args:
        source, destination: paths.
        layers: names of the layers to convert; all by default.
        config, settings: see `load`.
        options: see `save`.
    """
    destination = Path(destination)
    how = _options(options)
    target_of(destination, how.layout)
    writing.check_destination(destination, force=how.force, source=Path(source))
    model = load(source, config=config, settings=settings)
    for part in model.source.files:
        writing.check_destination(destination, force=how.force, source=part)
    if layers:
        model = select.layers(model, layers)
    return _save(model, destination, how, Path(source))


def save(model: Model, path: str | Path, **options: object) -> Result:
    """Write a model. The container is found by the suffix of `path`.

    What was written is read back and compared bit for bit before it takes the name.

    Args:
        model: the model; one layer is also taken.
        path: `.safetensors` and `.npz` (per gate), `.keras`, `.weights.h5`, `.h5`.
        options: the fields of `Options`.

    Raises:
        DestinationError: the destination exists (and no `force`), or cannot be written.
        UnsupportedByTarget: the target cannot express a layer's option, or a dtype.
        UnknownOption: the target needs an option that the source does not say.
    """
    return _save(model, Path(path), _options(options), None)


def _options(options: Mapping[str, object]) -> Options:
    try:
        return Options(**options)  # type: ignore[arg-type]  # the dataclass names a wrong one
    except TypeError as error:
        raise UsageError(f"no such option: {error}") from None


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of file to write: suffixes, name, layouts (the first is the default)."""

    suffixes: tuple[str, ...]
    container: str
    layouts: tuple[str, ...]


#: Longest suffix first.
TARGETS: tuple[Target, ...] = (
    Target((".weights.h5",), "weights.h5", (KERAS,)),
    Target((".safetensors",), "safetensors", (GATES,)),
    Target((".keras",), "keras", (KERAS,)),
    Target((".h5", ".hdf5"), "h5", (KERAS,)),
    Target((".npz",), "npz", (GATES,)),
)


def target_of(path: Path, layout: str | None) -> Target:
    """Return the target that a destination's suffix names.

    Raises:
        UsageError: no container has that suffix, or not that layout.
    """
    for target in TARGETS:
        if path.name.lower().endswith(target.suffixes):
            if layout is not None and layout not in target.layouts:
                raise UsageError(
                    f"{target.container} does not hold the layout {layout}",
                    where=path,
                    expected=", ".join(target.layouts),
                )
            return target
    raise UsageError(
        "the destination's suffix names no container",
        where=path,
        found=path.suffix or "no suffix",
        expected=" ".join(suffix for target in TARGETS for suffix in target.suffixes),
    )


def _save(model: Model, path: Path, how: Options, source: Path | None) -> Result:
    target = target_of(path, how.layout)
    if how.dtype is not None:
        model = select.cast(model, how.dtype)
    if how.lstm_only:
        model = select.lstm_only(model)
    if target.layouts[0] == KERAS:
        from lstmconvert.keras import write as keras_write

        return keras_write.save(model, path, target.container, how, source)
    tensors = gatesfile.tensors(
        model, lstm_only=how.lstm_only, with_optimizer=how.with_optimizer
    )
    result = Result(
        destination=path,
        container=target.container,
        layout=GATES,
        layers=tuple(model),
        tensors=len(tensors),
        losses=model.losses,
        warnings=(*model.notes, *model.losses),
        written=not how.dry_run,
    )
    if not how.dry_run:
        _write_gates(model, tensors, path, target.container, how, source)
    return result


def _write_gates(
    model: Model,
    tensors: Mapping[str, Tensor],
    path: Path,
    container: str,
    how: Options,
    source: Path | None,
) -> None:
    writer, reader = _container(container)
    digest = Digest(model)
    with writing.replacing(path, force=how.force, source=source) as temporary:
        writer(temporary, tensors, lambda: digest.texts(model))
        written = reader(temporary)
        try:
            writing.check_written(tensors, written, path)
        finally:
            model.source.check()


def _container(
    name: str,
) -> tuple[
    Callable[[Path, Mapping[str, Tensor], Callable[[], Mapping[str, str]]], None],
    Callable[[Path], Mapping[str, Tensor]],
]:
    from lstmconvert.tensors import SourceFile

    if name == "npz":
        from lstmconvert.containers import npz

        return npz.write, lambda path: npz.read(SourceFile(path))[0]
    return safetensors.write, lambda path: safetensors.read(SourceFile(path))[0]


class Digest:
    """The source's hash, taken in a thread while the tensors are written."""

    def __init__(self, model: Model) -> None:
        self._error: Exception | None = None
        self._value: str | None = metadata.NO_DIGEST
        self._asked = False
        self._model = model
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._model.source.sha256
        except Exception as error:  # raised anew where the digest is asked for
            self._error = error

    def texts(self, model: Model) -> dict[str, str]:
        """Return the metadata texts: the first time with a stand-in for the hash."""
        digest: str | None = metadata.NO_DIGEST
        if self._asked or model.source.container == "live":
            self._thread.join()
            if self._error is not None:
                raise self._error
            digest = self._value
        self._asked = True
        return {"format": "np", metadata.KEY: metadata.to_text(model, digest=digest)}

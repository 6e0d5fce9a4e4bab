"""The library's verbs: load, save, convert. The command line calls these and nothing else."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from lstmconvert import gatesfile, metadata, select, writing
from lstmconvert.containers import arrays, detect
from lstmconvert.errors import UsageError
from lstmconvert.jsontext import canonical
from lstmconvert.keras import load as keras_load
from lstmconvert.layer import LSTMLayer
from lstmconvert.model import Model, Source
from lstmconvert.records import dataclass
from lstmconvert.tensors import Tensor

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
    layout: str | None = None,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
) -> Model:
    """Open a file or directory as a model. Nothing is read but shapes, names and configs.

    Args:
        path: a `.keras` (zip or directory), `.weights.h5`, `.h5`, `.weights.json` or a per-gate
            file; recognised by its bytes.
        layout: how the file arranges the gates, where it does not say so itself: `torch`, ….
        config: a file with the model's config, for weights that come without one.
        settings: `[LAYER.]OPTION=VALUE` texts, for options that no file says.

    Raises:
        SourceError: the file is missing, damaged, hostile or no model; `NoLSTM` if it has none.
        UsageError: `config` or `settings` do not fit.
    """
    given = keras_load.given_config(Path(config)) if config is not None else None
    model = detect.open_model(Path(path), given, layout)
    _check_layout(model, layout, path)
    if settings:
        from lstmconvert.settings import apply  # as rare as other imports inside functions here

        model = apply(model, tuple(settings))
    return model


def _check_layout(model: Model, layout: str | None, path: str | Path) -> None:
    if layout is None:
        return
    from lstmconvert.describe import layout_of
    from lstmconvert.layouts.rows import row_of

    if layout == layout_of(model):
        return
    if layout != GATES:
        row_of(layout)
    raise UsageError(
        "the file is in another layout",
        where=path,
        found=layout_of(model),
        expected=layout,
        hint="leave --from away: the layout is found out",
    )


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    layers: Collection[str] = (),
    from_layout: str | None = None,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
    **options: object,
) -> Result:
    """Convert one file: `load`, then `save`. Arguments and errors are theirs.

    Args:
        source, destination: paths.
        layers: names of the layers to convert; all by default.
        from_layout: the layout of `source`; with `config` and `settings`, see `load`.
        options: see `save`.
    """
    _, result = converted(
        source,
        destination,
        layers=layers,
        from_layout=from_layout,
        config=config,
        settings=settings,
        **options,
    )
    return result


def converted(
    source: str | Path,
    destination: str | Path,
    *,
    layers: Collection[str] = (),
    from_layout: str | None = None,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
    **options: object,
) -> tuple[Model, Result]:
    """Do what `convert` does, and return what was read, too."""
    destination = Path(destination)
    how = _options(options)
    target_of(destination, how.layout)
    writing.check_destination(destination, force=how.force, source=Path(source))
    model = load(source, layout=from_layout, config=config, settings=settings)
    for part in model.source.files:
        writing.check_destination(destination, force=how.force, source=part)
    if layers:
        model = select.layers(model, layers)
    return model, _save(model, destination, how, Path(source))


def save(model: Model | LSTMLayer, path: str | Path, **options: object) -> Result:
    """Write a model. The container is found by the suffix of `path`.

    What was written is read back and compared bit for bit before it takes the name.

    Args:
        model: the model; one layer is also taken.
        path: `.safetensors` and `.npz` (per gate, or in a framework's layout), `.json`, `.keras`,
            `.weights.h5`, `.h5`, ….
        options: the fields of `Options`.

    Raises:
        DestinationError: the destination exists (and no `force`), or cannot be written.
        UnsupportedByTarget: the target cannot express a layer's option, or a dtype.
        UnknownOption: the target needs an option that the source does not say.
    """
    if isinstance(model, LSTMLayer):
        model = Model(layers=(model,), source=Source(container="live"), container="live")
    return _save(model, Path(path), _options(options), None)


def _options(options: Mapping[str, object]) -> Options:
    try:
        return Options(**options)  # type: ignore[arg-type]  # the dataclass names a wrong one
    except TypeError as error:
        raise UsageError(f"no such option: {error}") from None


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
    Target((".h",), "c", C_HEADER),
    Target((".params",), "params"),
    Target((".param",), "ncnn", "ncnn"),
    Target((".tflite",), "tflite", "tflite"),
    Target((".mlmodel",), "mlmodel", "coreml"),
    Target((".mat",), "mat", "matlab"),
    Target((".msgpack",), "msgpack", "flax"),
    Target((".eqx",), "eqx", "equinox"),
)


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
        hint=f"{layout} goes to {known}" if known else "lstmconvert formats lists the layouts",
    )


def _save(model: Model, path: Path, how: Options, source: Path | None) -> Result:
    target = target_of(path, how.layout)
    if how.dtype is not None:
        model = select.cast(model, how.dtype)
    if how.lstm_only:
        model = select.lstm_only(model)
    layout = how.layout or target.default
    if target.is_keras:
        from lstmconvert.keras import write as keras_write
        from lstmconvert.layouts import assume

        model = assume.model(model)
        return keras_write.save(model, path, target.container, how, source)
    if target.container == "onnx":
        from lstmconvert.onnx import write as onnx_write

        return onnx_write.save(model, path, how, source)
    if layout is not None and layout != GATES:
        from lstmconvert.layouts import save as layout_save
        from lstmconvert.layouts.rows import row_of

        return layout_save.save(model, path, target.container, row_of(layout), how, source)
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
    digest = Digest(model, sum(tensor.nbytes for tensor in tensors.values()))
    with writing.replacing(path, force=how.force, source=source) as temporary:
        try:
            arrays.write(container, temporary, tensors, lambda: digest.texts(model), path)
        finally:
            model.source.check()


class Digest:
    """The source's hash, taken in a thread while the tensors are written.

    Args:
        model: the model.
        size: how many bytes are written: of a few, the hash is taken when it is asked for.
    """

    def __init__(self, model: Model, size: int) -> None:
        self._error: Exception | None = None
        self._value: str | None = None
        self._text: str | None = None
        #: Stands where the hash will be; nobody can have written it into the file.
        self._stand_in = os.urandom(32).hex()
        self._model = model
        self._thread = threading.Thread(target=self._run, daemon=True)
        if size > writing.WORTH_A_THREAD:
            self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._model.source.sha256
        except Exception as error:  # raised anew where the digest is asked for
            self._error = error

    def texts(self, model: Model) -> dict[str, str]:
        """Return the metadata texts: the first time with a stand-in for the hash."""
        source = model.source
        if self._text is None:
            # Of what is not read from a file of its own kind, the hash is known, or there is none.
            is_known = source.container == "live" or source.container != model.container
            digest = self._joined() if is_known else self._stand_in
            self._text = metadata.to_text(model, digest=digest)
        elif self._stand_in in self._text:
            self._text = self._text.replace(f'"{self._stand_in}"', canonical(self._joined()))
        return {"format": "np", metadata.KEY: self._text}

    def _joined(self) -> str | None:
        if self._thread.ident is None:
            return self._model.source.sha256
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

"""The library's verbs: load, save, convert. The command line calls these and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lstmconvert import gatesfile, select, writing
from lstmconvert.containers import arrays, detect
from lstmconvert.digest import Digest
from lstmconvert.errors import UsageError
from lstmconvert.keras import load as keras_load
from lstmconvert.layer import LSTMLayer
from lstmconvert.model import Model, alone
from lstmconvert.targets import GATES, Options, Result, file_path, target_of
from lstmconvert.tensors import Tensor


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
    destination = file_path(destination)
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
        model = alone(model)
    return _save(model, file_path(path), _options(options), None)


def _options(options: Mapping[str, object]) -> Options:
    try:
        return Options(**options)  # type: ignore[arg-type]  # the dataclass names a wrong one
    except TypeError as error:
        raise UsageError(f"no such option: {error}") from None


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

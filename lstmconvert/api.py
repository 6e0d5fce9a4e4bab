"""The library's verbs: load, save, convert. The command line calls these and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from lstmconvert import opening
from lstmconvert.containers import table
from lstmconvert.containers.table import Container
from lstmconvert.conversion import (
    ConvertOptions,
    Draft,
    Options,
    Request,
    Result,
    SaveOptions,
    checked,
    left_out,
    made_with,
    takes,
)
from lstmconvert.errors import ConversionWarning, UnsupportedByTarget, UsageError
from lstmconvert.files import writing
from lstmconvert.files.jsontext import parse_object
from lstmconvert.model import edit
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import PER_GATE, Model, alone
from lstmconvert.targets import check_options, file_path, in_folder, target_of
from lstmconvert.tensors import progress


def load(
    path: str | Path,
    *,
    layout: str | None = None,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
) -> Model:
    """Open a file or directory as a model. Nothing is read but shapes, names and configs.

    Args:
        path: what to open, recognised by its bytes, then by its name. Keras: `.keras` (a file or
            an unpacked directory), `.weights.h5`, `.h5`, `.weights.json` with its shards.
            TensorFlow: a SavedModel directory, a checkpoint (its prefix, its `.index` or its
            directory), a frozen graph (`.pb`), `.tflite`, TensorFlow.js's `model.json`.
            Per-gate files and other named arrays: `.safetensors`, `.npz`, `.json`, `.onnx`. Other
            frameworks: `.onnx`, PyTorch's `.pt`, `.msgpack` (Flax), `.eqx` (Equinox), `.mlmodel`,
            `.mlpackage`, `.param` (ncnn), `.params` (MXNet), `.mat` (MATLAB), `.json` of RTNeural
            and frugally-deep, `.aidax` (AIDA-X), `.nam` (Neural Amp Modeler), the `.json` of guitar
            trainers and lwtnn. Pickled models and weights of Keras: `.pkl`, `.pickle`, `.joblib`.
        layout: how the file arranges the gates, where it does not say so itself: `torch`, …;
            `formats()` lists them.
        config: a file with the model's config, for what the file itself does not say: JSON of
            `to_json()`, YAML of `to_yaml()`, a `.keras`, a whole `.h5`, a SavedModel, or a file
            that was made here.
        settings: `[LAYER.]OPTION=VALUE` texts, for options that no file says.

    Raises:
        SourceError: the file is missing, damaged, hostile or no model; `NoLSTM` if it has none.
        UsageError: `config` or `settings` do not fit.
    """
    return opened(Path(path), layout=layout, config=config, settings=settings)


def opened(
    path: Path,
    *,
    layout: str | None = None,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
    any_model: bool = False,
) -> Model:
    """Do what `load` does; with `any_model`, open a whole Keras model without an LSTM, too."""
    stated = None if config is None else opening.read_config(Path(config))
    model = opening.open_model(path, layout, stated, any_model=any_model)
    _check_layout(model, layout, path)
    if settings:
        from lstmconvert.model.settings import apply  # rarely needed: start-up is faster without

        model = apply(model, tuple(settings))
    return model


def _check_layout(model: Model, layout: str | None, path: Path) -> None:
    if layout is None:
        return
    from lstmconvert.layouts.rows import row_of

    if layout == model.layout:
        return
    if layout != PER_GATE:
        row_of(layout)
    raise UsageError(
        "the file is in another layout",
        where=path,
        found=model.layout,
        expected=layout,
        hint="leave --from away: the layout is found out",
    )


@takes(Request)
def convert(
    source: str | Path,
    destination: str | Path,
    *,
    warn: bool = True,
    **options: Unpack[ConvertOptions],
) -> Result:
    """Convert one file: `load`, then `save`. Errors are theirs.

    Args:
        source: a file or directory that `load` opens.
        destination: the file to write, as for `save`; or a folder, for one that is named as the
            source.
        warn: give each of the result's warnings as a `ConversionWarning` too.
        options: `layers` (the names of those to convert), `from_layout`, `config` and `settings`
            (see `load`), and those of `save`.
    """
    _, result = converted(Path(source), destination, **options)
    if warn:
        _warn(result)
    return result


def _warn(result: Result) -> None:
    import warnings

    for text in result.warnings:
        # The caller of `save` or `convert` is two frames up.
        warnings.warn(text, ConversionWarning, stacklevel=3)


def converted(
    source: Path,
    destination: str | Path,
    *,
    with_lstm: bool = False,
    **options: Unpack[ConvertOptions],
) -> tuple[Model, Result]:
    """Do what `convert` does, and return what was read, too.

    `with_lstm`: refuse a whole model without an LSTM layer also where the target could hold it.
    """
    how = checked(Request, options)
    destination = in_folder(destination, source, how.layout, options)
    target = _check_target(destination, how)
    # A whole model is what these are made for: it need not have an LSTM.
    is_for_whole = target.is_keras or how.whole
    any_model = is_for_whole and not (with_lstm or how.lstm_only or how.layers)
    replaceable = target.replaceable
    writing.check_destination(
        destination, force=how.force, source=source, replaceable=replaceable
    )
    if how.into is not None:
        model, how = _into(source, Path(how.into), target, how)
        return model, _save(model, destination, target, how, source, whole=model)
    model = opened(
        source,
        layout=how.from_layout,
        config=how.config,
        settings=how.settings,
        any_model=any_model,
    )
    for part in model.source.files:
        writing.check_destination(
            destination, force=how.force, source=part, replaceable=replaceable
        )
    _check_unfilled(model, target, how)
    chosen = edit.only_layers(model, how.layers) if how.layers else model
    return model, _save(chosen, destination, target, how, source, whole=model)


def _into(
    source: Path, path: Path, target: Container, how: Request
) -> tuple[Model, Request]:
    """Return the model of `--into` with the source's weights, and how it is saved."""
    from lstmconvert.keras.writing import into  # rarely needed: start-up is faster without

    whole = load(path)
    config = path if "model_config" in whole.texts else None
    model = load(source, layout=how.from_layout, config=config, settings=how.settings)
    # Where the file goes back into its own kind, what only training needs does too.
    keeps = bool(whole.optimizer) and target is table.container(whole.container)
    return into.filled(whole, model, path.name), replace(how, with_optimizer=keeps)


def _check_unfilled(model: Model, target: Container, how: Request) -> None:
    """Raise `UsageError` where a Keras file is asked for of a model whose config was given, and the
    source does not hold the weights of all its layers."""
    is_wanted = target.is_keras and not (how.lstm_only or how.layers)
    if is_wanted and model.unfilled:
        raise UsageError(
            "the source does not hold the weights of every layer of the config",
            where=how.config,
            found=f"no arrays of {', '.join(model.unfilled[:6])}",
            expected="all weights of the model",
            hint="--lstm-only takes the LSTM layers alone",
        )


def check_target(destination: str | Path, **options: Unpack[ConvertOptions]) -> Container:
    """Return the container that a destination names, if the options fit it.

    Args:
        destination: a path; nothing is looked up there.
        options: those of `convert`.

    Raises:
        UsageError: no container has that suffix or layout; an option means nothing for it, or
            contradicts another.
    """
    return _check_target(file_path(destination), checked(Request, options))


def _check_target(destination: Path, how: Options) -> Container:
    target = target_of(destination, how.layout)
    check_options(how, target, destination)
    return target


@takes(Options)
def save(
    model: Model | LSTMLayer,
    path: str | Path,
    *,
    warn: bool = True,
    **options: Unpack[SaveOptions],
) -> Result:
    """Write a model. The container is found by the suffix of `path`.

    What was written is read back and compared before it takes the name.

    Args:
        model: the model; one layer is also taken.
        path: `.safetensors` and `.npz` (per gate, or in a framework's layout), `.json`, `.keras`,
            `.weights.h5`, `.h5`, …; `.mlpackage` is a folder.
        warn: give each of the result's warnings as a `ConversionWarning` too.
        options: `lstmconvert.Options` explains each.

    Raises:
        DestinationError: the destination exists (and no `force`), or cannot be written.
        UnsupportedByTarget: the target cannot express a layer's option, or a dtype.
        UnknownOption: the target needs an option that the source does not say.
        UsageError: an option is unknown, or its value is of the wrong type.
    """
    if isinstance(model, LSTMLayer):
        model = alone(model)
    how, destination = checked(Options, options), file_path(path)
    target = _check_target(destination, how)
    result = _save(model, destination, target, how, None, whole=model)
    if warn:
        _warn(result)
    return result


def _save(
    model: Model, path: Path, target: Container, how: Options, source: Path | None, *, whole: Model
) -> Result:
    """Write a model; `whole` is the one that it was chosen from, to tell what is left out."""
    if how.dtype is not None:
        model = edit.cast(model, how.dtype)
    if how.lstm_only:
        model = edit.lstm_only(model)
    if how.stacks:
        from lstmconvert.keras.configs import chain  # rarely needed: start-up is faster without

        chain.check_stacks(whole, how.stacks)
    # Where the file says how the gates are arranged, it need not say that it was asked for.
    decisive = {name: value for name, value in made_with(how).items() if name != "layout"}
    checked_by = model.answers
    if checked_by or model.made_with != decisive:
        model = replace(model, answers=(), made_with=decisive)
    layout = how.layout or target.default or PER_GATE
    try:
        draft = _draft(model, path, target, layout, how)
    except UnsupportedByTarget as error:
        # What was noted of this layer when the file was read may be why.
        start = f"{error.where}: "
        reasons = [text.removeprefix(start) for text in model.notes if text.startswith(start)]
        error.hint = "; ".join(text for text in (*reasons[:3], error.hint) if text) or None
        raise
    paths: list[Path] = []
    if not how.dry_run:
        paths = [path, *draft.more_files()]
        if progress.is_watched():
            progress.expect(2 * model.nbytes)  # written, and then read back
        replacing = writing.replacing_all(
            paths, force=how.force, source=source, replaceable=target.replaceable
        )
        with replacing as temporaries:
            draft.write(temporaries)
            model.source.check()
    return Result(
        destination=path,
        container=target.name,
        layout=layout,
        layers=draft.layers,
        tensors=draft.tensors,
        whole_model=draft.whole_model,
        all_weights=draft.all_weights,
        extent=draft.extent,
        losses=draft.losses,
        warnings=(
            *draft.warnings,
            *_without_effect(model, how),
            *_unsaid(model, target),
            *(_unchecked(model, target, how) if checked_by else ()),
        ),
        opens=draft.opens,
        custom_objects=draft.custom_objects,
        compiled=draft.compiled,
        left_out=left_out(whole, tuple(model), draft),
        written=not how.dry_run,
        files=tuple(paths),
        rounded=draft.rounded,
    )


def _unsaid(model: Model, target: Container) -> list[str]:
    """Return a note on what a source states besides its layers, if the target cannot hold it."""
    text = model.texts.get("document")
    if text is None:
        return []
    document = parse_object(text, "document")
    if target.has_place or document["program"] == target.program:
        return []
    names = ", ".join(document["keys"])
    return [f"left out, since {target.title} has no place for it: {names}"]


def _unchecked(model: Model, target: Container, how: Options) -> list[str]:
    """Return a note on a stored check that the file will not have: it was of the source."""
    if how.check or "document" in model.texts:  # of which it is a part
        return []
    again = ": --check stores a new one" if target.takes("check") else ""
    return [f"the check that the source has is left out{again}"]


def _without_effect(model: Model, how: Options) -> list[str]:
    """Say which options ask for what the model does not have."""
    absent = []
    if how.with_optimizer and not model.optimizer:
        absent.append("--with-optimizer: the source has no optimizer's slots")
    if how.with_other and not model.other and not model.assets:
        absent.append("--with-other: the source has no other tensors")
    return absent


def _draft(model: Model, path: Path, target: Container, layout: str, how: Options) -> Draft:
    if not target.arrays:
        return target.drafting_module().draft(model, path, target.name, how)
    from lstmconvert.containers import arrays  # imported late to keep start-up fast

    return arrays.draft(model, path, target, layout, how)

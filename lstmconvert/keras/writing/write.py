"""Writing Keras's files without Keras: the whole model where it is all there, else its LSTMs.

A model goes back whole into the kind of weight store that it came from, array by array to its old
place and with its own config, byte for byte. Otherwise the file holds the LSTM layers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from lstmconvert.conversion import DEFAULTED, Compiled, Draft, Options, Release
from lstmconvert.errors import UnknownOption, UnsupportedByTarget, UsageError
from lstmconvert.files import writing
from lstmconvert.files.jsontext import JsonObject, canonical, parse_object
from lstmconvert.hdf5 import write
from lstmconvert.hdf5.reading import read_tree
from lstmconvert.keras.configs import code, releases
from lstmconvert.keras.configs.values import policy
from lstmconvert.keras.modern import crossing, custom, replacing
from lstmconvert.keras.stores import archive, legacy, stored
from lstmconvert.keras.writing import emit, layerstore
from lstmconvert.keras.writing.emit import KerasFitter
from lstmconvert.model.activations import HARD_SIGMOID_KERAS2
from lstmconvert.model.model import Model, Structure
from lstmconvert.model.options import UNKNOWN
from lstmconvert.tensors.streaming import Sums
from lstmconvert.tensors.tensor import SourceFile, Tensor

#: The metadata of archives that we generate: no clock, and a version whose configs 3.3 opens.
_METADATA = {"keras_version": "3.3.0", "date_saved": "1980-01-01@00:00:00"}
#: The attributes of the legacy files that we generate.
_WRITER = {"keras_version": _METADATA["keras_version"], "backend": "tensorflow"}
#: The same of files for Keras 2.
_METADATA2 = {**_METADATA, "keras_version": "2.15.0"}
_WRITER2 = {**_WRITER, "keras_version": "2.15.0"}
_KEPT_ERA = (
    "the file is one of Keras 2 again, as its source is; --era keras3 writes it for Keras 3"
)
_NOT_RESCALED = (
    "--rescale-hard-sigmoid: nothing was rescaled, as no hard_sigmoid of Keras 2 goes to Keras 3"
)
_NOT_KEPT = (
    "--keep-custom: no config is written in which a class of your own had to be kept for Keras 3"
)
_NOT_COMPILED = "--no-compile: there is no optimizer, loss or metric to leave out"
_WEIGHTS_ONLY = "options are unknown, so the file holds weights only, without a config"


#: About how many bytes of an HDF5 file are not the numbers, for each tensor (measured).
_TREE_BYTES = 1024
_V3, _LEGACY = "v3", "legacy"
_KERAS2, _KERAS3 = "keras2", "keras3"
_ERA_NAMES = {"keras1": "Keras 1", _KERAS2: "Keras 2", _KERAS3: "Keras 3"}


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of Keras file.

    Fields: `container`; `store`: the kind of its weight store, as `Structure.kind` has it;
    `is_archive`: whether it is a zip file, with assets; `has_config`: whether it can hold the
    model's config.
    """

    container: str
    store: str
    is_archive: bool = False
    has_config: bool = True


_KINDS = {
    kind.container: kind
    for kind in (
        _Kind(crossing.ARCHIVE, _V3, is_archive=True),
        _Kind(crossing.WEIGHTS, _V3, has_config=False),
        _Kind(crossing.LEGACY, _LEGACY),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContent:
    """What a Keras file will hold.

    Fields: `tensors`: full path -> tensor; `attributes` of HDF5 groups; `config` and `metadata`,
    for an archive; `assets`; `layers`, their names; `whole`: whether it is the whole model, and
    `has_all_weights`, that without its config; `in_place`: whether every array is at its old
    place; `era` of the config; `custom_objects`: as in `Result`; `losses`, `warnings` and
    `compiled`, to tell the user.
    """

    tensors: Mapping[str, Tensor]
    attributes: write.GroupAttributes
    config: str = ""
    metadata: str = ""
    assets: Mapping[str, Tensor] = field(default_factory=dict)
    layers: tuple[str, ...]
    whole: bool
    has_all_weights: bool = False
    in_place: bool = False
    era: str = _KERAS3
    custom_objects: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    compiled: Compiled | None = None


def draft(model: Model, path: Path, container: str, how: Options) -> Draft:
    """Return what a Keras file of one kind will hold: `keras`, `weights.h5` or `h5`.

    Raises:
        UnsupportedByTarget: Keras, or this kind of file, cannot hold an option or a dtype.
        UnknownOption: the file's config would need an option that the source does not say.
        UsageError: the optimizer's slots are asked for, and have no place in the file.
    """
    kind = _KINDS[container]
    put = _put(how, path)
    release = _release(how, kind, path)
    if (release is not None or how.keep_custom) and kind.has_config:
        # Both write for Keras 3, whatever kind of file the source is.
        how = replace(how, era=_KERAS3 if "model_config" in model.texts else how.era)
    if release is not None:
        how = replace(
            how,
            rescale_hard_sigmoid=how.rescale_hard_sigmoid or _must_rescale(model, release),
        )
    content = _content(model, how, kind, put)
    if put is not None and (left := sorted(put.by_name.keys() - put.taken)):
        what = "--replace is for layers of a whole model with its config"
        raise UsageError(what, where=path, found=", ".join(left))
    if release is not None:
        content = _for_release(content, release, path, is_h5=kind.store == _LEGACY)
    has_all = content.whole or content.has_all_weights
    config = _config(content)
    parsed = parse_object(config, "model_config") if config else {}
    warnings = (*content.warnings, *_check_code(model, config, parsed, kind))
    if how.with_optimizer and model.optimizer and not content.in_place:
        raise UsageError(
            "--with-optimizer: the optimizer's slots go back into the kind of file that they are "
            "from, and into no other of Keras's",
            where=path,
            found=f"{len(model.optimizer)} slots",
            hint="leave --with-optimizer away, or write a .safetensors",
        )
    is_modern = content.era == _KERAS3 and bool(config)
    if how.keep_custom and not content.custom_objects:
        warnings += (_NOT_KEPT,)
    if how.rescale_hard_sigmoid and not any(emit.RESCALED in text for text in content.losses):
        warnings += (_NOT_RESCALED,)
    if how.no_compile and content.compiled is None:
        warnings += (_NOT_COMPILED,)

    def write_file(temporaries: Sequence[Path]) -> None:
        (temporary,) = temporaries
        sums = Sums()
        _write(content, temporary, kind, sums)
        with writing.flushing(temporary):
            written = _read_back(temporary, kind)
            writing.check_written({**content.tensors, **content.assets}, written, path, sums)

    return Draft(
        layers=content.layers,
        tensors=len(content.tensors),
        others=(*(model.other if has_all else ()), *content.assets),
        write=write_file,
        whole_model=content.whole,
        all_weights=has_all,
        extent=_extent(content, kind),
        losses=(*model.losses, *content.losses),
        warnings=(
            *model.notes,
            *model.losses,
            *content.losses,
            *warnings,
        ),
        custom_objects=content.custom_objects,
        opens=releases.opens(parsed, is_h5=kind.store == _LEGACY) if is_modern else None,
        compiled=content.compiled,
    )


def _release(how: Options, kind: _Kind, path: Path) -> Release | None:
    """Return the release of Keras 3 that a file is written for, None where none is asked for.

    Raises:
        UsageError: it is no such release, or the file is for another Keras, or has no config.
    """
    if how.for_keras is None:
        return None
    release = releases.number(how.for_keras)
    if how.era not in (None, _KERAS3):
        raise UsageError(f"--for-keras and --era {how.era} contradict each other", where=path)
    if not kind.has_config:
        raise _no_config(path)
    return release


def _put(how: Options, path: Path) -> replacing.Replacements | None:
    """Return what takes the place of layers.

    Raises:
        UsageError: that, or what is said of classes of the user's own, means nothing here.
    """
    for flag in ("keep_custom", "replace"):
        if getattr(how, flag) and how.era == _KERAS2:
            name = f"--{flag.replace('_', '-')}"
            raise UsageError(f"{name} writes for Keras 3, not for Keras 2", where=path)
    if how.weights_of and not how.keep_custom:
        raise UsageError("--weights-of is for --keep-custom", where=path)
    return replacing.read(how.replace)


def _no_config(path: Path) -> UsageError:
    return UsageError(
        "--for-keras: a file of weights alone has nothing that a release of Keras 3 lacks",
        where=path,
        hint="leave --for-keras away",
    )


def _must_rescale(model: Model, release: Release) -> bool:
    """Whether a release has no other way to Keras 2's hard_sigmoid than rescaled weights."""
    return release < releases.MODEL_AS_FUNCTION and _has_old_hard_sigmoid(model)


def _for_release(
    content: FileContent, release: Release, path: Path, *, is_h5: bool
) -> FileContent:
    """Return the content with its config as a release of Keras 3 opens it.

    Raises:
        UnsupportedByTarget: that release cannot.
        UsageError: the file has no config.
    """
    config = _config(content)
    if not config:
        raise _no_config(path)
    parsed = parse_object(config, "model_config")
    changed = canonical(releases.fitted(parsed, release, path, is_h5=is_h5))
    if canonical(parse_object(config, "model_config")) == changed:
        return content  # byte for byte as it was
    if content.config:
        return replace(content, config=changed)
    root = {**content.attributes[""], "model_config": changed}
    return replace(content, attributes={**content.attributes, "": root})


def _check_code(
    model: Model, config: str, parsed: JsonObject, kind: _Kind
) -> tuple[str, ...]:
    """Return a warning for a config that makes Keras run, import or fetch something, where it goes
    back into the kind of file that it came from, byte for byte.

    Args:
        model: the model.
        config: the config, as it is written.
        parsed: the same as JSON.
        kind: the kind of file.

    Raises:
        UnsupportedByTarget: it would go into another kind of file.
    """
    findings = code.findings(parsed)
    if not findings:
        return ()
    structure = model.source.structure
    # Legacy weights without a config have no root: theirs came from another file.
    came_with = kind.store != _LEGACY or (structure is not None and structure.root)
    is_kept = model.texts.get("model_config") == config and model.source.container == kind.container
    if not (is_kept and came_with):
        raise code.refused(*findings[0], f"a .{kind.container}")
    listed = "; ".join(f"{name}: Keras {what}" for name, what in findings[:3])
    more = f" (and {len(findings) - 3} more)" if len(findings) > 3 else ""
    return (f"as in the source, opening this file does more than compute: {listed}{more}",)


def _extent(content: FileContent, kind: _Kind) -> str:
    if content.whole and kind.has_config:
        return ", the whole model"
    if content.whole or content.has_all_weights:
        return ", all weights of the model"
    return " alone, not the whole model"


def _config(content: FileContent) -> str:
    """Return the model's config, where this kind of file holds one."""
    return content.config or str(content.attributes.get("", {}).get("model_config", ""))


def _write(content: FileContent, path: Path, kind: _Kind, sums: Sums) -> None:
    if not kind.is_archive:
        write.write(path, content.tensors, content.attributes, sums)
        return
    tensors = content.tensors
    size = sum(tensor.nbytes + _TREE_BYTES for tensor in tensors.values())
    weights = partial(write.write, tensors=tensors, attributes=content.attributes, sums=sums)
    archive.write(path, content.config, content.metadata, weights, size, content.assets)


def _read_back(path: Path, kind: _Kind) -> dict[str, Tensor]:
    if not kind.is_archive:
        return dict(read_tree(SourceFile(path)).tensors)
    # Its checksum was taken as it was read back (`ArchiveFile.add`).
    written = archive.read_zip(SourceFile(path))
    return {**written.tree.tensors, **written.assets}


# -- what the file will hold ------------------------------------------------------------------


def _content(
    model: Model, how: Options, kind: _Kind, put: replacing.Replacements | None
) -> FileContent:
    """Return what the file will hold: the whole model at its old places, or rebuilt; else its
    LSTM layers."""
    if kind.store == _LEGACY:
        _refuse_bfloat16(model)
    structure = model.source.structure
    if put is None and structure is not None and _goes_back(model, structure, how, kind):
        return _in_place(model, structure, how, kind)
    if how.era == _KERAS2 and kind.has_config and model.is_complete and not _is_recast(model):
        older = crossing.for_keras2(
            model, stored.tensors(model), kind.container, no_compile=how.no_compile
        )
        if older is not None:
            return replace(_rebuilt(model, older, kind, is_keras2=True), era=_KERAS2)
    _check_era(model, how)
    if model.is_complete:
        wanted = crossing.How(
            store=kind.container,
            rescale_hard_sigmoid=how.rescale_hard_sigmoid,
            recast=_is_recast(model),
            keep_custom=how.keep_custom,
            attributes=custom.attributes(how.weights_of),
            put=put,
            no_compile=how.no_compile,
        )
        whole = crossing.rebuilt(model, stored.tensors(model), wanted)
        if whole is not None:
            return _rebuilt(model, whole, kind)
    return _layers_alone(model, how, kind)


def _goes_back(model: Model, structure: Structure, how: Options, kind: _Kind) -> bool:
    """Whether a model goes back, as it is, into the kind of store that it came from."""
    if structure.kind != kind.store or not model.is_complete:
        return False
    cells = (cell for layer in model.layers for _, _, cell in layer.cells())
    if not all(map(stored.holds, cells)):
        return False
    is_modern = model.source.era == _KERAS3
    if how.era is not None and how.era != model.source.era:
        return False
    if not kind.has_config:
        return True
    if _is_recast(model) or (how.rescale_hard_sigmoid and _has_old_hard_sigmoid(model)):
        return False
    if kind.store == _LEGACY:
        return True
    # A legacy file's config has no modules, which an archive's needs. That of an older Keras is
    # kept where an archive goes back into one, and modernised where it comes from elsewhere.
    is_same = model.source.container == kind.container
    return _has_modules(model) and (is_modern or is_same)


def _check_era(model: Model, how: Options) -> None:
    """Raise `UnsupportedByTarget` where what is asked for cannot be: only a whole model
    with a config can be written for another Keras."""
    era = _ERA_NAMES.get(model.source.era or "", "an unknown Keras")
    if how.era is None or (how.era == _KERAS3 and "model_config" in model.texts):
        return
    if how.era == _KERAS3:
        raise UnsupportedByTarget(
            "weights without the model's config cannot be written for another Keras",
            where=model.container,
            option="era",
            target=how.era,
            found=era,
            hint="give the config with --config, or leave --era away",
        )
    raise UnsupportedByTarget(
        f"a file for {_ERA_NAMES[how.era]} holds a whole model: its config, and all of its weights "
        "as they are",
        where=model.container,
        option="era",
        target=how.era,
        found=f"{model.source.container} of {era}",
        hint="write a .keras or an .h5 of a whole model, or leave --era away",
    )


def _has_old_hard_sigmoid(model: Model) -> bool:
    return any(
        cell.options.recurrent_activation == HARD_SIGMOID_KERAS2
        for layer in model.layers
        for _, _, cell in layer.cells()
    )


def _in_place(model: Model, structure: Structure, how: Options, kind: _Kind) -> FileContent:
    """Every array at its old place, with the source's own config, byte for byte."""
    tensors = {**stored.tensors(model), **(model.optimizer if how.with_optimizer else {})}
    is_archive = kind.is_archive
    texts, compiled = model.texts, None
    if how.no_compile and kind.has_config:
        texts, compiled = crossing.without_compile_state(texts)
    is_whole = not kind.has_config or "model_config" in texts
    if kind.store == _LEGACY:
        # Weights that were given their config become a whole model.
        start = legacy.ROOT if is_whole and not structure.root else ""
        tensors = _below(start, tensors)
        attributes = _legacy_attributes(
            structure.root or start, structure.weights, structure.attributes, texts
        )
    else:
        attributes = _v3_attributes(structure.names)
    return FileContent(
        tensors=tensors,
        attributes=attributes,
        config=texts["model_config"] if is_archive else "",
        metadata=texts.get("archive_metadata", json.dumps(_METADATA)),
        assets=model.assets if is_archive else {},
        layers=tuple(model),
        whole=is_whole,
        has_all_weights=True,
        in_place=True,
        era=model.source.era or _KERAS3,
        warnings=(*_warn_bfloat16(model), *_warn_era(model, how)) if is_archive else (),
        compiled=compiled,
    )


def _rebuilt(
    model: Model, whole: crossing.WholeModel, kind: _Kind, *, is_keras2: bool = False
) -> FileContent:
    """The whole model out of another store, or on to today's Keras, or back to Keras 2."""
    is_archive = kind.is_archive
    metadata = json.dumps(_METADATA2 if is_keras2 else _METADATA)
    if model.source.era == (_KERAS2 if is_keras2 else _KERAS3):
        metadata = model.texts.get("archive_metadata", metadata)
    if kind.store == _LEGACY:
        tensors = _below(legacy.ROOT, whole.tensors)
        attributes = _legacy_attributes(
            legacy.ROOT,
            whole.weights,
            _WRITER2 if is_keras2 else _WRITER,
            {"model_config": whole.config, "training_config": whole.training},
        )
    else:
        tensors, attributes = dict(whole.tensors), _v3_attributes(whole.names)
    notices = (*_warn_bfloat16(model), *_warn_assumed(model)) if kind.has_config else ()
    return FileContent(
        tensors=tensors,
        attributes=attributes,
        config=whole.config if is_archive else "",
        metadata=metadata,
        assets=model.assets if is_archive else {},
        layers=tuple(model),
        whole=True,
        custom_objects=whole.custom_objects,
        losses=whole.losses,
        warnings=(*whole.warnings, *notices),
        compiled=whole.compiled,
    )


def _layers_alone(model: Model, how: Options, kind: _Kind) -> FileContent:
    """The LSTM layers and nothing else."""
    fitter = KerasFitter(
        emit.TARGET,
        rescale=how.rescale_hard_sigmoid,
        allow_lossy=how.allow_lossy,
        for_file=True,
    )
    config = ""
    warnings: tuple[str, ...] = ()
    if kind.has_config:
        try:
            named = layerstore.named([fitter.fit(layer) for layer in model.layers])
            config = canonical(layerstore.model_config(named))
            warnings = (*_warn_bfloat16(model), *_warn_assumed(model))
        except UnknownOption:
            if kind.store != _LEGACY:
                raise
            fitter.losses.clear()
            warnings = (_WEIGHTS_ONLY,)
    if not config:
        named = layerstore.named([fitter.fit_weights(layer) for layer in model.layers])
    if kind.store == _LEGACY:
        root = legacy.ROOT if config else ""
        texts = {"model_config": config} if config else {}
        tensors, weights = layerstore.legacy_store(named)
        tensors = _below(root, tensors)
        attributes = _legacy_attributes(root, weights, _WRITER, texts)
    else:
        tensors, names = layerstore.v3_store(named)
        attributes = _v3_attributes(names)
    return FileContent(
        tensors=tensors,
        attributes=attributes,
        config=config if kind.is_archive else "",
        metadata=json.dumps(_METADATA),
        layers=tuple(name for name, _ in named),
        whole=False,
        losses=tuple(fitter.losses),
        warnings=(*fitter.notes, *warnings) if config else warnings,
    )


def _has_modules(model: Model) -> bool:
    """Whether the config is spelled as in an archive, which names the module of each class."""
    text = model.texts.get("model_config")
    return text is not None and "module" in parse_object(text, "model_config")


def _is_recast(model: Model) -> bool:
    """Whether a layer's dtype policy is no longer the one that its config states (`--dtype`)."""
    for layer in model.layers:
        config = (layer.config or {}).get("config")
        stated = policy(config.get("dtype"), layer.name) if isinstance(config, dict) else UNKNOWN
        if isinstance(stated, str) and stated != layer.options.policy:
            return True
    return False


def _below(root: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{root}/{path}".strip("/"): tensor for path, tensor in tensors.items()}


def _v3_attributes(names: Mapping[str, str]) -> write.GroupAttributes:
    return {
        f"{group}/vars".strip("/"): {"name": name} if name else {} for group, name in names.items()
    }


def _legacy_attributes(
    root: str,
    weights: Mapping[str, tuple[str, ...]],
    writer: Mapping[str, str],
    texts: Mapping[str, str],
) -> write.GroupAttributes:
    listed = {
        **writer,
        "layer_names": tuple(name for name in weights if name != legacy.TOP_LEVEL),
    }
    groups: dict[str, Mapping[str, str | Sequence[str]]] = {root: listed}
    if root:
        configs = {k: texts[k] for k in ("model_config", "training_config") if texts.get(k)}
        groups[""] = {**writer, **configs}
    for layer, names in weights.items():
        groups[f"{root}/{layer}".strip("/")] = {"weight_names": names}
    return groups


# -- what the user should know of the file ------------------------------------------------------


_BFLOAT16 = (
    "bfloat16: Keras on TensorFlow cannot build such a layer with its default orthogonal "
    "initializer, nor load this file; Keras on JAX or PyTorch can"
)


def _warn_bfloat16(model: Model) -> tuple[str, ...]:
    """Return a warning if a layer is in bfloat16."""
    if not any(layer.dtype.name == "bfloat16" for layer in model.layers):
        return ()
    return (_BFLOAT16,)


def _refuse_bfloat16(model: Model) -> None:
    """Raise `UnsupportedByTarget` if a layer is in bfloat16, for a legacy `.h5`."""
    for layer in model.layers:
        if layer.dtype.name == "bfloat16":
            raise UnsupportedByTarget(
                "Keras cannot read bfloat16 back from a legacy .h5",
                where=layer.name,
                layer=layer.name,
                option="dtype",
                target="h5",
                found="bfloat16",
                hint="write .keras or .weights.h5, or cast with --dtype float32",
            )


def _warn_era(model: Model, how: Options) -> tuple[str, ...]:
    """Return a warning if an archive is one of Keras 2, and no one asked for that."""
    return (_KEPT_ERA,) if model.source.era != _KERAS3 and how.era is None else ()


def _warn_assumed(model: Model) -> tuple[str, ...]:
    """Return a warning that lists the unknown options, which get Keras's defaults."""
    from lstmconvert.model.options import unknown_names

    names: dict[str, None] = {}
    for layer in model.layers:
        for _, direction in layer.directions:
            names.update(dict.fromkeys(unknown_names(direction.options)))
            for cell in direction.lstm_cells:
                names.update(dict.fromkeys(unknown_names(cell.options)))
    names.pop("time_major", None)
    if not names:
        return ()
    return (f"{DEFAULTED}{', '.join(names)}",)

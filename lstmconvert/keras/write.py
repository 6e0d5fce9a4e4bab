"""Writing Keras's files without Keras: the whole model where it is all there, else its LSTMs.

A model goes back whole into the kind of weight store that it came from, array by array to its old
place and with its own config, byte for byte. Otherwise the file holds the LSTM layers.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from lstmconvert import readback, writing
from lstmconvert.errors import UnknownOption
from lstmconvert.jsontext import canonical, parse_object
from lstmconvert.keras import archive, emit, h5write, layerstore, legacy, notices, stored, zipwrite
from lstmconvert.keras.fit import Fitter
from lstmconvert.keras.hdf5 import read_tree
from lstmconvert.keras.modern import crossing
from lstmconvert.keras.values import policy
from lstmconvert.model import Model
from lstmconvert.options import UNKNOWN
from lstmconvert.records import dataclass
from lstmconvert.tensors import SourceFile, Tensor

if TYPE_CHECKING:
    from lstmconvert.targets import Options, Result

#: What the archives that we generate say of themselves. No clock; their configs open from 3.3 on.
_METADATA = {"keras_version": "3.3.0", "date_saved": "1980-01-01@00:00:00"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a Keras file will hold.

    Fields: `tensors`: full path -> tensor; `attributes` of HDF5 groups; `config` and `metadata`,
    for an archive; `assets`; `layers`, their names; `whole`: whether it is the whole model, and
    `has_all_weights`, that without its config; `losses` and `warnings`, to tell the user.
    """

    tensors: Mapping[str, Tensor]
    attributes: h5write.GroupAttributes
    config: str = ""
    metadata: str = ""
    assets: Mapping[str, Tensor] = field(default_factory=dict)
    layers: tuple[str, ...]
    whole: bool
    has_all_weights: bool = False
    losses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def save(
    model: Model, path: Path, container: str, how: Options, source: Path | None
) -> Result:
    """Write a Keras file of one kind: `keras`, `weights.h5` or `h5`.

    Raises:
        UnsupportedByTarget: Keras, or this kind of file, cannot hold an option or a dtype.
        UnknownOption: the file's config would need an option that the source does not say.
        DestinationError: see `writing.replacing`.
    """
    from lstmconvert.targets import KERAS, Result

    content = _CONTENT[container](model, how)
    result = Result(
        destination=path,
        container=container,
        layout=KERAS,
        layers=content.layers,
        tensors=len(content.tensors),
        whole_model=content.whole,
        all_weights=content.whole or content.has_all_weights,
        losses=(*model.losses, *content.losses),
        warnings=(
            *model.notes,
            *model.losses,
            *content.losses,
            *content.warnings,
            *notices.composed(_config(content)),
        ),
        written=not how.dry_run,
    )
    if not how.dry_run:
        with writing.replacing(path, force=how.force, source=source) as temporary:
            _write(content, temporary, container)
            written = _read_back(temporary, container)
            try:
                with writing.flushing(temporary):
                    readback.check_written({**content.tensors, **content.assets}, written, path)
            finally:
                model.source.check()
    return result


def _config(content: Content) -> str:
    """Return the model's config, where this kind of file holds one."""
    return content.config or str(content.attributes.get("", {}).get("model_config", ""))


def _write(content: Content, path: Path, container: str) -> None:
    if container != "keras":
        h5write.write(path, content.tensors, content.attributes)
        return
    # Nameless, and on the destination's disk: a killed process leaves nothing but `path`.
    with tempfile.TemporaryFile(dir=path.parent) as weights:
        h5write.write(weights, content.tensors, content.attributes)
        zipwrite.write(path, content.config, content.metadata, weights, content.assets)


def _read_back(path: Path, container: str) -> dict[str, Tensor]:
    if container != "keras":
        return dict(read_tree(SourceFile(path)).tensors)
    found = archive.read_zip(SourceFile(path))
    found.check()
    return {**found.tree.tensors, **found.assets}


def _archive(model: Model, how: Options) -> Content:
    structure = model.source.structure
    is_today = structure is not None and structure.kind == "v3" and _is_for_archives(model)
    if is_today and model.is_complete and not _is_recast(model):
        return Content(
            tensors=_in_place(model, how),
            attributes=_names(structure.names if structure else {}),
            config=model.texts["model_config"],
            metadata=model.texts.get("archive_metadata", json.dumps(_METADATA)),
            assets=model.assets,
            layers=tuple(model),
            whole=True,
            warnings=notices.bfloat16(model),
        )
    whole = _rebuilt(model, how, crossing.ARCHIVE)
    if whole is not None:
        return Content(
            tensors=whole.tensors,
            attributes=_names(whole.names),
            config=whole.config,
            metadata=model.texts.get("archive_metadata", json.dumps(_METADATA))
            if model.source.era == "keras3"
            else json.dumps(_METADATA),
            assets=model.assets,
            layers=tuple(model),
            whole=True,
            losses=whole.losses,
            warnings=(*whole.warnings, *notices.bfloat16(model), *notices.assumed(model)),
        )
    named, fitter = _fitted(model, how)
    tensors, names = layerstore.v3_store(named)
    return Content(
        tensors=tensors,
        attributes=_names(names),
        config=canonical(layerstore.model_config(named)),
        metadata=json.dumps(_METADATA),
        layers=tuple(name for name, _ in named),
        whole=False,
        losses=tuple(fitter.losses),
        warnings=(*notices.bfloat16(model), *notices.assumed(model)),
    )


def _weights(model: Model, how: Options) -> Content:
    structure = model.source.structure
    if structure is not None and structure.kind == "v3" and model.is_complete:
        return Content(
            tensors=_in_place(model, how),
            attributes=_names(structure.names),
            layers=tuple(model),
            whole=True,
        )
    whole = _rebuilt(model, how, crossing.WEIGHTS)
    if whole is not None:
        return Content(
            tensors=whole.tensors,
            attributes=_names(whole.names),
            layers=tuple(model),
            whole=True,
            losses=whole.losses,
        )
    fitter = _fitter(how)
    named = layerstore.named([fitter.fit_weights(layer) for layer in model.layers])
    tensors, names = layerstore.v3_store(named)
    return Content(
        tensors=tensors,
        attributes=_names(names),
        layers=tuple(name for name, _ in named),
        whole=False,
        losses=tuple(fitter.losses),
    )


def _legacy(model: Model, how: Options) -> Content:
    notices.refuse_bfloat16(model)
    structure = model.source.structure
    is_legacy = structure is not None and structure.kind == "legacy"
    if structure is not None and is_legacy and model.is_complete and not _is_recast(model):
        has_config = "model_config" in model.texts
        # Weights that were given their config become a whole model.
        start = legacy.ROOT if has_config and not structure.root else ""
        tensors = _in_place(model, how)
        return Content(
            tensors={f"{start}/{path}".strip("/"): tensor for path, tensor in tensors.items()},
            attributes=_legacy_attributes(
                structure.root or start, structure.weights, structure.attributes, model.texts
            ),
            layers=tuple(model),
            whole=has_config,
            has_all_weights=True,
        )
    writer = {"keras_version": _METADATA["keras_version"], "backend": "tensorflow"}
    whole = _rebuilt(model, how, crossing.LEGACY)
    if whole is not None:
        return Content(
            tensors={f"{legacy.ROOT}/{path}": tensor for path, tensor in whole.tensors.items()},
            attributes=_legacy_attributes(
                legacy.ROOT, whole.weights, writer, {"model_config": whole.config}
            ),
            layers=tuple(model),
            whole=True,
            losses=whole.losses,
            warnings=(*whole.warnings, *notices.assumed(model)),
        )
    try:
        named, fitter = _fitted(model, how)
        texts = {"model_config": canonical(layerstore.model_config(named))}
    except UnknownOption:
        fitter = _fitter(how)
        named = layerstore.named([fitter.fit_weights(layer) for layer in model.layers])
        texts = {}
    root = legacy.ROOT if texts else ""
    tensors, weights = layerstore.legacy_store(named)
    return Content(
        tensors={f"{root}/{path}".strip("/"): tensor for path, tensor in tensors.items()},
        attributes=_legacy_attributes(root, weights, writer, texts),
        layers=tuple(name for name, _ in named),
        whole=False,
        losses=tuple(fitter.losses),
        warnings=notices.assumed(model) if texts else (_WEIGHTS_ONLY,),
    )


_WEIGHTS_ONLY = "options are unknown, so the file holds weights only, without a config"
_CONTENT = {"keras": _archive, "weights.h5": _weights, "h5": _legacy}


def _fitted(model: Model, how: Options) -> tuple[layerstore.Named, Fitter]:
    fitter = _fitter(how)
    return layerstore.named([fitter.fit(layer) for layer in model.layers]), fitter


def _is_for_archives(model: Model) -> bool:
    """Whether the config is spelled as in an archive of Keras 3: a legacy file's has no modules."""
    text = model.texts.get("model_config")
    if model.source.era != "keras3" or text is None:
        return False
    return "module" in parse_object(text, "model_config")


def _rebuilt(model: Model, how: Options, store: str) -> crossing.Whole | None:
    if not model.is_complete:
        return None
    wanted = crossing.How(
        store=store,
        rescale_hard_sigmoid=how.rescale_hard_sigmoid,
        recast=_is_recast(model),
    )
    return crossing.rebuilt(model, _stored(model), wanted)


def _is_recast(model: Model) -> bool:
    """Whether a layer's dtype policy is no longer the one that its config states (`--dtype`)."""
    for layer in model.layers:
        config = (layer.config or {}).get("config")
        stated = policy(config.get("dtype"), layer.name) if isinstance(config, dict) else UNKNOWN
        if isinstance(stated, str) and stated != layer.options.policy:
            return True
    return False


def _in_place(model: Model, how: Options) -> dict[str, Tensor]:
    tensors = _stored(model)
    return {**tensors, **(model.optimizer if how.with_optimizer else {})}


def _stored(model: Model) -> dict[str, Tensor]:
    """Return every tensor but the optimizer's at the full path that the source gives it."""
    result = dict(model.other)
    for layer in model.layers:
        for _, _, cell in layer.cells():
            result.update(stored.places(cell))
    return result


def _names(names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {
        f"{group}/vars".strip("/"): {"name": name} if name else {} for group, name in names.items()
    }


def _legacy_attributes(
    root: str,
    weights: Mapping[str, tuple[str, ...]],
    writer: Mapping[str, str],
    texts: Mapping[str, str],
) -> h5write.GroupAttributes:
    listed = {
        **writer,
        "layer_names": tuple(name for name in weights if name != legacy.TOP_LEVEL),
    }
    groups: dict[str, Mapping[str, str | Sequence[str]]] = {root: listed}
    if root:
        configs = {k: texts[k] for k in ("model_config", "training_config") if k in texts}
        groups[""] = {**writer, **configs}
    for layer, names in weights.items():
        groups[f"{root}/{layer}".strip("/")] = {"weight_names": names}
    return groups


def _fitter(how: Options) -> Fitter:
    rescale, lossy = how.rescale_hard_sigmoid, how.allow_lossy
    return Fitter(emit.TARGET, rescale=rescale, allow_lossy=lossy)

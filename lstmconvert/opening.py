"""Opening a path as a model: which container it is, by its bytes first, and what opens that."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lstmconvert.containers import table
from lstmconvert.containers.modules import Asked, Opened
from lstmconvert.errors import NoLSTM, NotAModel, SourceError, UsageError
from lstmconvert.files import opening
from lstmconvert.files.jsontext import canonical
from lstmconvert.keras.reading.load import GivenConfig, neighbours
from lstmconvert.keras.stores import archive
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.model.options import UNKNOWN


class Config(NamedTuple):
    """A config that the user supplies with `--config`.

    Fields: `given`, where its file has the text of one; `layers` that it describes; `where`: the
    file, for errors; `absent`: where no LSTM layer is among them, the error that says so.
    """

    given: GivenConfig | None
    layers: tuple[LSTMLayer, ...]
    where: str
    absent: UsageError | None = None


def open_model(
    path: Path, layout: str | None = None, config: Config | None = None, *, any_model: bool = False
) -> Model:
    """Open a file or directory of any container.

    Args:
        path: what to open.
        layout: how its arrays are arranged, where the user says so.
        config: the config of its model, where the user supplies one.
        any_model: open a whole Keras model without an LSTM layer, too.

    Raises:
        SourceError: it is missing, unreadable, damaged, hostile, or no model.
        UsageError: the config is of another model, or says otherwise than the file.
    """
    lacks = None if config is None else config.absent
    if lacks is not None and not any_model:
        raise lacks
    model = _opened(Opened(path), Asked(layout, None if config is None else config.given))
    if lacks is not None and model.layers:
        raise lacks  # the weights are of a model that has one
    if model.absent is not None and not any_model:
        raise model.absent
    if model.describe is not neighbours:
        model = replace(model, describe=neighbours)
    if config is None:
        return model
    from lstmconvert.model import settings  # imported late to keep start-up fast

    model = settings.filled(model, config.layers, config.where)
    if config.given is None:
        return model
    from lstmconvert.layouts import home  # imported late, as above

    if model.source.structure is not None:
        home.check_alike(model, config.given)
        return model
    return home.completed(model, config.given)


def _opened(file: Opened, asked: Asked) -> Model:
    path = file.path
    try:
        row = table.recognised(file)
        if row is None:
            raise _foreign(file)
        if not row.arrays:
            return row.opening_module().open(file, asked)
        from lstmconvert.containers import arrays  # imported late to keep start-up fast

        return arrays.open_model(file, row, asked)
    except SourceError as error:
        # An error from deep inside names its place there. Which file it was, is known here.
        where = error.where or ""
        if not where.startswith(str(path)) and not os.path.lexists(where.partition(": ")[0]):
            error.where = f"{path}: {where}" if where else str(path)
        raise


_CONFIGS = (
    "the JSON of to_json(), the YAML of to_yaml(), or a file with a model's config: .keras, .h5, "
    "a SavedModel, a file of lstmconvert"
)


def read_config(path: Path) -> Config:
    """Read the config that a file holds: JSON or YAML of a config alone, or a model's file.

    Raises:
        UsageError: the file holds no config.
        SourceError: it cannot be read.
    """
    file = Opened(path)
    if table.recognised(file) is not None:
        return _config_of_model(file)
    given = _config_alone(file)
    if given is None:
        raise UsageError("no config is in it", where=path, expected=_CONFIGS)
    return _described(given)


def _config_of_model(file: Opened) -> Config:
    path = file.path
    try:
        model = _opened(file, Asked())
    except NoLSTM as error:
        raise UsageError(
            "the model of --config has no LSTM layer", where=path, found=error.found
        ) from None
    text = model.texts.get("model_config")
    if text is not None:
        version = model.source.keras_version or _VERSIONS.get(model.source.era or "")
        return _described(GivenConfig(text, version, f"{path}: model_config"))
    if all(cell.options.activation is UNKNOWN for x in model.layers for _, _, cell in x.cells()):
        raise UsageError("the file holds weights and no config", where=path, expected=_CONFIGS)
    return Config(None, model.layers, str(path))


#: A version of each era, for a config whose file says the era alone.
_VERSIONS = {"keras1": "1.2.2", "keras2": "2.15.0", "keras3": "3.15.1"}


def _config_alone(file: Opened) -> GivenConfig | None:
    """Return the config that a text is."""
    if isinstance(file.json, (dict, list)):
        text = opening.whole_text(file.source).decode("utf-8", "replace")
        return GivenConfig(text, None, str(file.path))
    data = b"" if file.is_folder else opening.whole_text(file.source)
    if b"class_name:" not in data:
        return None
    from lstmconvert.files import yamltext  # rarely needed

    value = yamltext.parse(data, file.path)
    return GivenConfig(canonical(value), None, str(file.path)) if isinstance(value, dict) else None


def _described(given: GivenConfig) -> Config:
    from lstmconvert.keras.reading import described  # imported late to keep start-up fast

    try:
        layers = described.layers(given.text, given.version, given.where)
    except UsageError as error:
        return Config(given, (), given.where, absent=error)
    return Config(given, layers, given.where)


def _foreign(file: Opened) -> NotAModel:
    """Return the error for a path that is of no container."""
    for row in table.FOREIGN:
        if row.known(file):
            return NotAModel(row.what, where=file.path, hint=row.hint, expected=row.expected)
    if file.is_folder:
        return NotAModel(
            "a directory that holds no model",
            where=file.path,
            expected=f"{archive.MEMBERS} (an unzipped .keras)",
            hint="give a file in it; lstmconvert batch takes whole folders",
        )
    if file.is_zip:
        return archive.not_an_archive(file.members, file.path)
    if file.json is not None:
        return _foreign_json(file)
    opened = file.source  # raises where nothing is there
    return NotAModel(
        "not a model file",
        where=opened.path,
        found=_what(file.head),
        expected=table.readable(),
    )


def _foreign_json(file: Opened) -> NotAModel:
    if isinstance(file.json, dict) and "class_name" in file.json:
        return NotAModel(
            "the architecture of a model, without weights",
            where=file.path,
            hint=f"give its weights as the source, and --config {file.path.name}",
        )
    return NotAModel("a JSON file, and no model", where=file.path, expected=table.readable())


def _what(head: bytes) -> str:
    for start, what in table.FOREIGN_BYTES.items():
        if head.startswith(start):
            return what
    is_text = all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head)
    return "text" if is_text else f"unknown bytes {head[:8].hex(' ')}"

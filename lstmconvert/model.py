"""A model: its LSTM layers in order, every other tensor of the file, and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Any

from lstmconvert.errors import UnknownLayer
from lstmconvert.layer import LSTMLayer, OpaqueCell
from lstmconvert.records import dataclass
from lstmconvert.tensors import Tensor

#: The structure of a TensorFlow 2 checkpoint.
OBJECTS = "objects"


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """How the source's weight store is laid out, beside the arrays: what it takes to write it anew.

    Fields: `kind`: `v3` (`layers/lstm/cell/vars/0`), `legacy` (`layer_names`, `weight_names`) or
    `objects` (a TensorFlow 2 checkpoint); `attributes`: root attributes of a legacy file that are
    not configs (`keras_version`, `backend`); `names`: v3 group path -> the `name` attribute of its
    `vars` group, or empty; of objects, `layers/lstm/cell/kernel` -> the full path of that array;
    `weights`: legacy layer name -> its weight names, both in file order; `root`: the group that
    holds the weights (`model_weights`, or empty for a weights-only file); `paths`: the full path of
    every array but the optimizer's: what must be there for the model to be whole.
    """

    kind: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    root: str = ""
    paths: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model came from. It survives further conversions.

    Fields: `container` (`keras`, `weights.h5`, `h5`, …; `live` for an object in memory);
    `keras_version`, as the file says it, or None; `era`, the spelling that its configs use:
    `keras1`, `keras2`, `keras3`, or None when the file does not tell; `digest`: computes the
    SHA-256 of the source's bytes (of a directory: over sorted lines `hash path`); `check`: raises
    `CorruptFile` if the file was written to since it was opened; `structure`: how its weight store
    is laid out; `files`: the files that it is made of, where a file names others.
    """

    container: str
    keras_version: str | None = None
    era: str | None = None
    digest: Callable[[], str | None] = field(default=lambda: None, compare=False, repr=False)
    check: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)
    structure: Structure | None = None
    files: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process there is no open file: its hash is taken along, as its arrays are.
        known = (self.container, self.keras_version, self.era, self.sha256, self.structure)
        return _unpickled, known

    @cached_property
    def sha256(self) -> str | None:
        """The SHA-256 of the source; None for a live object."""
        return self.digest()


def _unpickled(
    container: str,
    keras_version: str | None,
    era: str | None,
    digest: str | None,
    structure: Structure | None,
) -> Source:
    return Source(
        container=container,
        keras_version=keras_version,
        era=era,
        digest=lambda: digest,
        structure=structure,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Model(Mapping[str, LSTMLayer]):
    """The LSTM layers of a file by name, and all else that the file holds.

    Fields: `layers`, in the model's order; `other`: full path in the source -> tensor; `optimizer`:
    what only training needs, likewise: the optimizer's slots, and of a checkpoint also metrics,
    counters, seeds and the states of stateful layers; `assets`: the files under `assets/` of a
    `.keras`; `source`: where the model came from at first; `container`: the kind of file it is read
    from now; `layout`: how that file arranges the gates, where it is a framework's way; `texts`:
    the source's own JSON, byte for byte (`model_config`, `training_config`, `archive_metadata`; of
    a SavedModel, what its metadata says, with plain lists); `notes`: what a user should be told
    about this file; `losses`: what earlier conversions declared lost.

    Arrays are read from the file when they are touched. The mapping is from layer name to layer.
    """

    layers: tuple[LSTMLayer, ...]
    source: Source
    other: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    assets: Mapping[str, Tensor] = field(default_factory=dict)
    container: str = ""
    layout: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()

    @cached_property
    def _by_name(self) -> dict[str, LSTMLayer]:
        return {layer.name: layer for layer in self.layers}

    def __getitem__(self, name: str) -> LSTMLayer:
        try:
            return self._by_name[name]
        except KeyError:
            raise unknown_layer(name, self._by_name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def parameters(self) -> dict[str, int]:
        """`{"total", "lstm", "other"}`: the number of weights; assets and slots do not count."""
        lstm = sum(layer.parameters for layer in self.layers)
        other = sum(tensor.size for tensor in self.other.values())
        return {"total": lstm + other, "lstm": lstm, "other": other}

    @property
    def is_complete(self) -> bool:
        """Whether every tensor of the Keras file that this came from at first is there."""
        structure = self.source.structure
        if structure is None:
            return False
        cells = (cell for layer in self.layers for _, _, cell in layer.cells())
        placed = {path for cell in cells for path in cell.places.values()}
        return structure.paths <= placed | set(self.other)

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self.layers))
        return f"Model({self.source.container}, {len(self.other)} other tensors, [{layers}])"


def alone(layer: LSTMLayer) -> Model:
    """Return the model of one layer in memory, with the weights of what in it is no LSTM."""
    other: dict[str, Tensor] = {}
    for _, direction in layer.directions:
        for cell in direction.cells:
            if isinstance(cell, OpaqueCell):
                other.update(zip(cell.paths, cell.tensors, strict=False))
    return Model(layers=(layer,), source=Source(container="live"), container="live", other=other)


#: So many names fit an error's one line.
_SHOWN = 20


def unknown_layer(name: str, names: Mapping[str, object]) -> UnknownLayer:
    """Return the error for a layer name that the model does not have."""
    from difflib import get_close_matches  # only for the hint

    close = get_close_matches(name, names, n=1)
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return UnknownLayer(
        "no LSTM layer of that name",
        where=name,
        expected="one of " + ", ".join(list(names)[:_SHOWN]) + more,
        hint=f"did you mean {close[0]}?" if close else None,
    )

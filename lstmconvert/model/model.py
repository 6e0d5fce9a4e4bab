"""A model: its LSTM layers in order, every other tensor of the file, and where they came from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lstmconvert.errors import NoLSTM, UnknownLayer, close_to
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.model.layer import LSTMLayer, OpaqueCell
from lstmconvert.model.neighbours import Neighbour
from lstmconvert.tensors.tensor import Tensor

if TYPE_CHECKING:  # NumPy takes long to import it
    from numpy.typing import ArrayLike

    from lstmconvert.model.chain import Answer

#: The structure of a TensorFlow 2 checkpoint.
OBJECTS = "objects"
#: Two layouts that no row of `layouts` describes: one tensor a gate, and what Keras's files have.
PER_GATE, KERAS = "gates", "keras"


class Structure(NamedTuple):
    """How the source's weight store is laid out: the facts that writing it needs, but the arrays.

    Fields: `kind`: `v3` (`layers/lstm/cell/vars/0`), `legacy` (`layer_names`, `weight_names`) or
    `objects` (a TensorFlow 2 checkpoint); `attributes`: root attributes of a legacy file that are
    not configs (`keras_version`, `backend`); `names`: v3 group path -> the `name` attribute of its
    `vars` group, or empty; of objects, `layers/lstm/cell/kernel` -> the full path of that array;
    `weights`: legacy layer name -> its weight names, both in file order; `root`: the group that
    holds the weights (`model_weights`, or empty for a weights-only file); `paths`: the full path of
    every array but the optimizer's: what must be there for the model to be whole.
    """

    kind: str
    attributes: Mapping[str, str] = {}
    names: Mapping[str, str] = {}
    weights: Mapping[str, tuple[str, ...]] = {}
    root: str = ""
    paths: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model came from. It survives further conversions.

    Fields: `container` (`keras`, `weights.h5`, `h5`, …; `live` for an object in memory);
    `keras_version`, as the file says it, or None; `era`, the spelling that its configs use:
    `keras1`, `keras2`, `keras3`, or None when the file does not tell; `digest`: computes the
    SHA-256 of the source's bytes (of a directory: over sorted lines `hash path`), and is None for
    what never was a file; `is_recorded`: whether these facts are of another file, and were read
    from the metadata of one that was made from it; `check`: raises `CorruptFile` if the file was
    written to since it was opened; `structure`: how its weight store is laid out; `files`: the
    files that it is made of, where a file names others.
    """

    container: str
    keras_version: str | None = None
    era: str | None = None
    digest: Callable[[], str | None] | None = field(default=None, compare=False, repr=False)
    is_recorded: bool = field(default=False, compare=False)
    check: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)
    structure: Structure | None = None
    files: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process there is no open file: its hash is taken along, as its arrays are.
        origin = (self.container, self.keras_version, self.era, self.sha256, self.is_recorded)
        return _unpickled, (*origin, self.structure)

    def __deepcopy__(self, memo: object) -> Source:
        """Return the source itself: it is frozen, and holds open files."""
        return self

    @cached_property
    def sha256(self) -> str | None:
        """The SHA-256 of the source; None for a live object."""
        return None if self.digest is None else self.digest()


def _unpickled(
    container: str,
    keras_version: str | None,
    era: str | None,
    digest: str | None,
    is_recorded: bool,
    structure: Structure | None,
) -> Source:
    return Source(
        container=container,
        keras_version=keras_version,
        era=era,
        digest=None if digest is None else lambda: digest,
        is_recorded=is_recorded,
        structure=structure,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Model(Mapping[str, LSTMLayer]):
    """The LSTM layers of a file by name, and all else that the file holds.

    Fields: `layers`, in the model's order; `other`: full path in the source -> tensor; `optimizer`:
    what only training needs, in the same form: the optimizer's slots, and of a checkpoint also
    metrics, counters, seeds and the states of stateful layers; `assets`: the files under `assets/`
    of a `.keras`; `source`: where the model came from at first; `container`: the kind of file it is
    read from now; `layout`: how that file arranges the gates (`gates`, `keras`, or a framework's);
    `texts`: the JSON of the source, byte for byte (`model_config`, `training_config`,
    `archive_metadata`; of a SavedModel, what its metadata says, with plain lists), and `document`:
    what a file of another program says besides its layers, for that program; `notes`: what a
    user should be told about this file; `losses`: what earlier conversions declared lost;
    `describe`: finds the `neighbours` by the config, which takes reading Keras's; `absent`: of a
    whole model without an LSTM layer, the error for those who need one; `answers`: what the file
    states that the model gives for one input, by which `verify` checks it; `unfilled`: layers of
    the config that the user gave whose weights the file does not hold; `made_with`: the options
    that decided what a conversion wrote, as its file states them.

    Arrays are read from the file when they are touched. The mapping is from layer name to layer.
    """

    layers: tuple[LSTMLayer, ...]
    source: Source
    other: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    assets: Mapping[str, Tensor] = field(default_factory=dict)
    container: str = ""
    layout: str = KERAS
    texts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    unfilled: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    made_with: JsonObject = field(default_factory=dict)
    describe: Callable[[Model], Mapping[str, Neighbour]] | None = field(
        default=None, compare=False, repr=False
    )
    absent: NoLSTM | None = field(default=None, compare=False, repr=False)

    @cached_property
    def neighbours(self) -> Mapping[str, Neighbour]:
        """The layers beside the LSTMs by name, in the model's order, those without weights too.

        Empty where the file has no config that names them: their tensors are in `other` then.

        >>> import lstmconvert as lc
        >>> head = lc.load("fixtures/keras-3.15.1/seed95.keras").neighbours["dense"]
        >>> head.class_name, head.kernel.shape, head.bias.shape
        ('Dense', (2, 5), (5,))
        """
        return {} if self.describe is None else self.describe(self)

    @cached_property
    def _by_name(self) -> dict[str, LSTMLayer]:
        return {layer.name: layer for layer in self.layers}

    def __getitem__(self, name: str) -> LSTMLayer:
        """Return the layer of that name.

        Raises:
            UnknownLayer: no layer has that name. It is a `KeyError`, too.
        """
        layer = self._by_name.get(name) if isinstance(name, str) else None
        if layer is None:
            raise unknown_layer(name, self._by_name, self.other_layers)
        return layer

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def _ipython_key_completions_(self) -> list[str]:
        """Complete `model["` in IPython and notebooks, whose protocol this is."""
        return list(self._by_name)

    @property
    def other_layers(self) -> dict[str, int]:
        """The other layers, as far as the paths of their tensors tell: name -> number of weights.

        In the order of the file. Some may be parts of layers that have no name in the file.
        """
        from lstmconvert.model.neighbours import weights_by_layer

        return weights_by_layer(self.other, self.source.structure)

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
    def nbytes(self) -> int:
        """How many bytes the weights take, those of other layers among them."""
        cells = (cell for layer in self.layers for _, _, cell in layer.cells())
        lstm = sum(array.nbytes for cell in cells for array in cell.arrays())
        return lstm + sum(tensor.nbytes for tensor in self.other.values())

    @property
    def is_converted(self) -> bool:
        """Whether the file was made from another one, and says so."""
        return self.source.is_recorded

    @property
    def is_per_gate(self) -> bool:
        """Whether the file keeps one tensor for each gate, under our names."""
        return self.layout == PER_GATE

    @property
    def is_whole(self) -> bool:
        """Whether the file holds a model's config, and every tensor that the config's file had."""
        is_split = self.source.structure is not None and not self.is_complete
        return "model_config" in self.texts and not is_split

    @property
    def is_complete(self) -> bool:
        """Whether every tensor of the Keras file that this came from at first is there."""
        structure = self.source.structure
        if structure is None:
            return False
        cells = (cell for layer in self.layers for _, _, cell in layer.cells())
        placed = {path for cell in cells for path in cell.places.values()}
        return structure.paths <= placed | set(self.other)

    def replacing(self, arrays: Mapping[str, ArrayLike]) -> Model:
        """Return this model with other weights: the way to edit it. The model itself stays.

        All else of the file stays as it is, so that what is saved is the whole model, edited. A
        note says what was edited; it goes into the metadata of files that have them.

        >>> import lstmconvert as lc
        >>> model = lc.load("fixtures/keras-3.15.1/seed95.keras")
        >>> bias = model["lstm"].forget_gate.bias
        >>> edited = model.replacing({"lstm.forget_gate.bias": bias + 1})
        >>> edited.notes
        ('edited after it was read: lstm.forget_gate.bias',)

        Args:
            arrays: name -> array of the same shape and dtype. Names are those of the per-gate file:
                `lstm.forget_gate.kernel`, and `other/` with the path of any other tensor.

        Raises:
            UsageError: no weights have that name, or they have another shape or dtype.
        """
        from lstmconvert.model.edit import model_replacing

        return model_replacing(self, arrays)

    def _repr_html_(self) -> str:
        """Show it in a notebook, whose protocol this is."""
        from lstmconvert.pictures import notebook  # only notebooks need pictures

        return notebook.model(self)

    def __repr__(self) -> str:
        layers = ", ".join(map(repr, self.layers))
        return f"Model({self.source.container}, {len(self.other)} other tensors, [{layers}])"


def alone(layer: LSTMLayer) -> Model:
    """Return the model of one layer in memory, with the weights of its cells of other kinds."""
    other: dict[str, Tensor] = {}
    for _, direction in layer.directions:
        for cell in direction.cells:
            if isinstance(cell, OpaqueCell):
                other.update(zip(cell.paths, cell.tensors, strict=False))
    return Model(layers=(layer,), source=Source(container="live"), container="live", other=other)


#: How many names an error message lists.
_SHOWN = 20


def unknown_layer(
    name: object, names: Mapping[str, object], others: Collection[str] = ()
) -> UnknownLayer:
    """Return the error for a name that no LSTM layer of a model has.

    Args:
        name: what was asked for.
        names: the names of the LSTM layers.
        others: the names of the other layers.
    """
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    expected = "one of " + ", ".join(list(names)[:_SHOWN]) + more
    if not isinstance(name, str):
        return UnknownLayer(
            "layers are taken by name, not by number",
            found=repr(name),
            expected=expected,
            hint=f'model["{next(iter(names))}"], or by number: model.layers[0]',
        )
    if name in others:
        return UnknownLayer(
            "this layer is not an LSTM: its tensors are among model.other",
            where=name,
            expected=expected,
        )
    return UnknownLayer(
        "no LSTM layer of that name",
        where=name,
        expected=expected,
        hint=close_to(name, names),
    )

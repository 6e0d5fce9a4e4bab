"""Pickled Keras models and weights, of `pickle` and of joblib: read as data, never unpickled.

    a model of Keras 3               a call of its class's _unpickle_model with the bytes of a
                                     .keras (keras/src/saving/keras_saveable.py, `__reduce__`)
    a model of Keras 2.12 to 2.15    a call of deserialize_model_from_bytecode with the same
                                     (keras/saving/pickle_utils.py)
    get_weights()                    a list of arrays of NumPy; a text of to_json() beside it is
                                     the model's config

Such a value may lie in dictionaries, lists and objects, beside anything else. joblib writes the
bytes of an array into the stream behind what describes it (joblib/numpy_pickle.py), and may
compress the whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from lstmconvert import limits
from lstmconvert.containers import arrays, table
from lstmconvert.containers.modules import Arrays, Asked, Opened
from lstmconvert.errors import CorruptFile, NotAModel, SourceError
from lstmconvert.files import pickled
from lstmconvert.files.jsontext import canonical
from lstmconvert.files.opening import Window, pieces
from lstmconvert.files.pickled import Call, PickledBytes, Symbol, read_pickle
from lstmconvert.files.zipmembers import SIGNATURE as ZIP
from lstmconvert.files.zipmembers import Scratch
from lstmconvert.keras.reading import load
from lstmconvert.keras.reading.load import GivenConfig
from lstmconvert.model.model import Model
from lstmconvert.tensors.tensor import SourceFile, Tensor

_NAME = "pickle"
_FROM_BYTES = "pickle_utils.deserialize_model_from_bytecode"
_JOBLIB = "joblib.numpy_pickle.NumpyArrayWrapper"
_CHUNK = 1 << 20
#: `zlib.decompressobj`: take either header.
_EITHER_HEADER = 47


def open(file: Opened, asked: Asked) -> Model:  # noqa: A001  # what every such module calls it
    """Open a pickle as a model.

    Raises:
        NotAModel: it holds neither a Keras model nor arrays.
        SourceError: it holds several models, or one in a form that is not read.
        CorruptFile, LimitExceeded: it is damaged, or larger than the limits allow.
    """
    window = Window(file.source)
    if file.head.startswith(table.COMPRESSED):
        window = _unpacked(file.source)
    where = str(file.path)
    contents = _Contents(window.source, where)
    contents.search(read_pickle(window, where, inline=contents.inline))
    if contents.refused and not contents.archives:
        raise contents.refused
    if len(contents.archives) > 1:
        raise SourceError(
            "several models in one pickle",
            where=where,
            found=f"{len(contents.archives)} models",
            hint="save each by itself: model.save('name.keras')",
        )
    if contents.archives:
        model = load.load_zip(contents.archives[0], asked.config)
        source = replace(model.source, container=_NAME)
        notes = (*model.notes, *contents.notes())
        return replace(model, source=source, container=_NAME, notes=notes)
    if not contents.tensors:
        raise NotAModel(
            "a pickle that holds no Keras model and no arrays",
            where=where,
            found=", ".join(sorted(contents.passed)[:5]) or "plain values",
            expected="a pickled Keras model, or get_weights()",
        )
    row = table.container(_NAME)
    if row is None:
        raise AssertionError("the table has a row of this module")
    known = Arrays(contents.tensors, {}, notes=contents.notes())
    config = contents.config
    if asked.config is not None or config is None:
        return arrays.opened(known, file, row, asked)
    from lstmconvert.keras.reading import described  # rarely needed
    from lstmconvert.model import settings

    model = arrays.opened(known, file, row, asked._replace(config=config))
    layers = described.layers(config.text, config.version, config.where)
    return settings.filled(model, layers, config.where)


def _unpacked(source: SourceFile) -> Window:
    """Return what a compressed file holds, in a nameless file."""

    def inflated() -> Iterator[bytes]:
        decompressor, size = zlib.decompressobj(_EITHER_HEADER), 0
        for piece in pieces(source, 0, source.size):
            data = bytes(piece)
            while data and not decompressor.eof:
                chunk = decompressor.decompress(data, _CHUNK)
                data = decompressor.unconsumed_tail
                size += len(chunk)
                limits.check_expansion(size, source.size, source.path)
                yield chunk
        if not decompressor.eof:
            raise CorruptFile("the compressed file is truncated", where=source.path)

    try:
        return Scratch(source).add(inflated())
    except zlib.error as error:
        raise CorruptFile(f"not what joblib compresses: {error}", where=source.path) from None


class _Place(NamedTuple):
    """A value in a pickle, and the name of its place: keys and numbers, joined by dots."""

    value: object
    name: str


class _Contents:
    """What a pickle holds that means something here.

    Fields: `archives`: the bytes of each pickled model; `tensors`: each array by the name of its
    place, or as `np.savez` would name it, where all lie in lists; `config`, where there is a text
    of one; `passed`: the classes of other objects; `refused`: why a model cannot be read.
    """

    def __init__(self, source: SourceFile, where: str) -> None:
        self._source, self._where = source, where
        self._seen: set[int] = set()
        self._inlined: dict[int, Tensor] = {}
        self.archives: list[Window] = []
        self.tensors: dict[str, Tensor] = {}
        self.config: GivenConfig | None = None
        self.passed: set[str] = set()
        self.refused: SourceError | None = None

    def notes(self) -> tuple[str, ...]:
        """What is to be told of the objects that were passed over."""
        if not self.passed:
            return ()
        names = sorted(self.passed)
        more = f" and {len(names) - 3} more classes" if len(names) > 3 else ""
        return (f"other objects of the pickle are left out: {', '.join(names[:3])}{more}",)

    def inline(self, value: Call, offset: int) -> int:
        """Return how many bytes behind this object are not part of the pickle: joblib's arrays."""
        if not isinstance(value.function, Symbol) or value.function.name != _JOBLIB:
            return 0
        match value.state:
            case {"shape": tuple(shape), "order": str(order), "dtype": dtype, **rest}:
                aligned = isinstance(rest.get("numpy_array_alignment_bytes"), int)
                padding = 0
                if aligned:  # one byte says how many follow before the numbers
                    padding = 1 + self._source.read_at(offset, 1)[0]
                size = self._source.size - offset - padding
                tensor = pickled.array_from(
                    Window(self._source, offset + padding, max(size, 0)),
                    dtype,
                    shape,
                    order == "F",
                    self._where,
                )
                self._inlined[id(value)] = tensor
                return padding + tensor.nbytes
        raise CorruptFile("an array that joblib does not write", where=self._where)

    def search(self, value: object) -> None:
        """Look through a value. Parts of it may be shared, and hold themselves."""
        waiting = [_Place(value, "")]
        count = 0
        while waiting:
            place = waiting.pop()
            value = place.value
            if self.config is None:
                self._look_for_config(value)
            if not isinstance(value, (dict, list, tuple, Call)) or id(value) in self._seen:
                continue
            self._seen.add(id(value))
            count += 1
            limits.ARRAYS.check(count, self._where, "the number of objects")
            waiting.extend(reversed(list(self._inside(place))))
        names = list(self.tensors)
        if names and all(name.rpartition(".")[2].isdigit() for name in names):
            arrays_in_order = self.tensors.values()
            self.tensors = {f"arr_{n}": tensor for n, tensor in enumerate(arrays_in_order)}

    def _inside(self, place: _Place) -> Iterator[_Place]:
        value, prefix = place.value, f"{place.name}." if place.name else ""
        if isinstance(value, dict):
            yield from (_Place(item, f"{prefix}{key}") for key, item in value.items())
        elif isinstance(value, (list, tuple)):
            yield from (_Place(item, f"{prefix}{n}") for n, item in enumerate(value))
        elif isinstance(value, Call) and not self._is_model(value):
            tensor = self._inlined.get(id(value))
            if tensor is None:
                tensor = pickled.array_of(value, self._source, self._where)
            if tensor is not None:
                limits.PATH_LENGTH.check(len(place.name), self._where, "the length of a name")
                self.tensors[place.name or "0"] = tensor
                return
            function: object = value
            while isinstance(function, Call):
                function = function.function
            if isinstance(function, Symbol) and value.state is not None:
                self.passed.add(function.name[:80])
            yield from (_Place(part, place.name) for part in (value.state, value.items))

    def _is_model(self, value: Call) -> bool:
        """Whether a call makes a Keras model; its bytes are kept, or why they are not read."""
        match value:
            case Call(
                # In protocol 2 the module has its name in Python 2.
                Call(
                    Symbol(name="builtins.getattr" | "__builtin__.getattr"),
                    (Symbol(name=made), "_unpickle_model"),
                ),
                (Call(Symbol(name="_io.BytesIO"), _, (data, *_)),),
            ):
                self._keep(data, made)
            case Call(Symbol(name=made), (data,)) if made.endswith(_FROM_BYTES):
                self._keep(data, made)
            case Call(Symbol(name=made), state=dict()) if made.startswith(
                ("keras.engine.", "keras.models.")
            ):
                self._refuse(made)
            case _:
                return False
        return True

    def _keep(self, data: object, made: str) -> None:
        window = None
        match data:
            case PickledBytes():
                window = Window(self._source, data.offset, data.length)
            case Call(Symbol(name="_codecs.encode"), (str(text), "latin1")):
                # Protocol 2 has no bytes (Lib/pickle.py, `save_bytes`).
                window = Scratch(self._source).add(iter([text.encode("latin-1", "replace")]))
        if window is not None and window.source.peek(window.offset, len(ZIP)) == ZIP:
            self.archives.append(window)
        else:
            self._refuse(made)

    def _refuse(self, made: str) -> None:
        self.refused = SourceError(
            "a pickled model of a Keras before 2.12, which is not read",
            where=self._where,
            found=made[:80],
            hint="in the Keras that pickled it: pickle.load(…).save('model.h5')",
        )

    def _look_for_config(self, value: object) -> None:
        """Keep the text of `to_json()`, or what `get_config()` of a model gives."""
        text = None
        match value:
            case str() if value.startswith("{") and '"class_name"' in value:
                text = value
            case {"layers": [{"class_name": str(), "config": dict()}, *_], **rest}:
                kind = "Functional" if "input_layers" in rest else "Sequential"
                try:
                    text = canonical({"class_name": kind, "config": value})
                except (TypeError, ValueError, RecursionError):  # objects that JSON does not have
                    return
        if text is not None:
            self.config = GivenConfig(text, None, f"{self._where}: a model's config")

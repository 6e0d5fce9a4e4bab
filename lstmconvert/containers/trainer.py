"""The JSON of scripts that train guitar models: PyTorch's state_dict as nested lists.

    {"model_data": {"unit_type": "LSTM", "input_size": 1, "hidden_size": 32, "num_layers": 1,
                    "output_size": 1, "skip": 1, "bias_fl": true},
     "state_dict": {"rec.weight_ih_l0": [[…]], "rec.weight_hh_l0": [[…]], "rec.bias_ih_l0": […],
                    "rec.bias_hh_l0": […], "lin.weight": [[…]], "lin.bias": […]}}

The model is `lin(rec(x)) + x[..., :skip]` (Automated-GuitarAmpModelling, CoreAudioML/networks.py,
`SimpleRNN`). `rec` is PyTorch's LSTM, with the gates input, forget, cell, output, or its GRU, with
reset, update, new: Keras has update, reset, candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from lstmconvert import limits
from lstmconvert.containers import sequential
from lstmconvert.containers.jsonarrays import tensor_of
from lstmconvert.containers.modules import Arrays, KerasStore, Opened
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.model import edit
from lstmconvert.model.gates import GATES
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.tensors.dtypes import Array
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

DATA, STATE = "model_data", "state_dict"
_REC, _LIN = "rec", "lin"
#: unit_type -> the number of its gates.
_GATES = {"LSTM": 4, "GRU": 3}


def read(file: Opened) -> Arrays:
    """Read a file as the Keras model that it says.

    Raises:
        CorruptFile: its arrays are not those of the model that it says.
        SourceError: a unit that is neither LSTM nor GRU.
    """
    value, where = file.json, str(file.path)
    if not isinstance(value, dict) or not isinstance(value.get(STATE), dict):
        raise CorruptFile("not a model of a trainer", where=where)
    data, listed = value[DATA], value[STATE]
    limits.JSON_VALUES.check(len(listed), where, "the number of its arrays")
    kind = data.get("unit_type")
    if kind not in _GATES:
        raise SourceError(
            "a unit that is not read", where=f"{where}: {DATA}.unit_type", found=str(kind)[:40],
            expected=", ".join(_GATES),
        )  # fmt: skip
    arrays = {name: tensor_of(item, f"{where}: {name}").read() for name, item in listed.items()}
    model = _Model(data, arrays, kind, where)
    model.check()
    document = {key: item for key, item in value.items() if key not in (DATA, STATE)}
    return Arrays(
        {name: ArrayTensor(array) for name, array in arrays.items()},
        {},
        store=partial(_store, model),
        completed=model.with_both_biases,
        document={DATA: data, **document},
        notes=model.notes(),
    )


class _Model:
    """What a file says: its `data`, and its `arrays` by their names in PyTorch."""

    def __init__(
        self, data: JsonObject, arrays: Mapping[str, Array], kind: str, where: str
    ) -> None:
        self._data, self._arrays, self._kind, self._where = data, arrays, kind, where
        is_wide = any(array.dtype == np.float64 for array in arrays.values())
        self._dtype = np.dtype("float64" if is_wide else "float32")
        self.depth = self._size("num_layers", 1)
        self.inputs, self.units = self._size("input_size", 1), self._size("hidden_size")
        self.outputs = self._size("output_size", 1)
        self.names = sequential.names(
            [kind] * self.depth + ["Dense"],
            [*([_REC] if self.depth == 1 else [f"{_REC}_{k}" for k in range(self.depth)]), _LIN],
        )

    def _size(self, key: str, default: int | None = None, least: int = 1) -> int:
        size = self._data.get(key, default)
        if not isinstance(size, int) or isinstance(size, bool) or size < least:
            raise CorruptFile(
                "not a size", where=f"{self._where}: {DATA}.{key}", found=str(size)[:40]
            )
        limits.UNITS.check(size, self._where, key)
        return size

    @property
    def skip(self) -> int:
        """How many inputs are added to the outputs."""
        return self._size("skip", 0, least=0)

    @property
    def is_skipped(self) -> bool:
        """Whether a Keras model can say so: there are as many inputs as outputs."""
        return self.skip == self.inputs == self.outputs

    def notes(self) -> tuple[str, ...]:
        """Return what the Keras model does not say."""
        if self.skip and not self.is_skipped:
            what = f"skip={self.skip}: the first of {self.inputs} inputs are added to the outputs"
            return (f"{what}, which the model that was read does not say",)
        return ()

    def check(self) -> None:
        """Raise `CorruptFile` for an array that is missing, of another shape, or one too many."""
        expected = dict(self._shapes())
        for name, shape in expected.items():
            array = self._arrays.get(name)
            if array is None or array.shape != shape:
                raise CorruptFile(
                    "an array that is missing, or not of the size that the file says",
                    where=f"{self._where}: {STATE}.{name}",
                    found="nothing" if array is None else "×".join(map(str, array.shape)),
                    expected="×".join(map(str, shape)),
                )
        surplus = self._arrays.keys() - expected.keys()
        if surplus:
            raise CorruptFile(
                "an array that the file's own model does not have",
                where=f"{self._where}: {STATE}.{min(surplus)}",
            )

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        rows = _GATES[self._kind] * self.units
        has_bias = self._data.get("bias_fl", True)
        for k in range(self.depth):
            width = self.inputs if k == 0 else self.units
            yield f"{_REC}.weight_ih_l{k}", (rows, width)
            yield f"{_REC}.weight_hh_l{k}", (rows, self.units)
            if has_bias:
                yield f"{_REC}.bias_ih_l{k}", (rows,)
                yield f"{_REC}.bias_hh_l{k}", (rows,)
        yield f"{_LIN}.weight", (self.outputs, self.units)
        if has_bias:
            yield f"{_LIN}.bias", (self.outputs,)

    def _array(self, name: str) -> Array:
        array = self._arrays[name].astype(self._dtype)
        if self._kind == "GRU" and name.startswith(_REC):
            reset, update, new = np.split(array, 3)
            array = np.concatenate((update, reset, new))
        return array

    def steps(self) -> Iterator[sequential.SequentialLayer]:
        """Yield the layers."""
        has_bias = bool(self._data.get("bias_fl", True))
        for k, name in enumerate(self.names[:-1]):
            arrays = {
                "kernel": self._array(f"{_REC}.weight_ih_l{k}").T,
                "recurrent_kernel": self._array(f"{_REC}.weight_hh_l{k}").T,
            }
            if has_bias:
                pair = [self._array(f"{_REC}.bias_{side}_l{k}") for side in ("ih", "hh")]
                arrays["bias"] = np.stack(pair) if self._kind == "GRU" else pair[0] + pair[1]
            config: JsonObject = {
                "units": self.units,
                "activation": "tanh",
                "recurrent_activation": "sigmoid",
                "return_sequences": True,
                "use_bias": has_bias,
                **({"reset_after": True} if self._kind == "GRU" else {}),
            }
            yield sequential.SequentialLayer(self._kind, name, config, _tensors(arrays))
        arrays = {"kernel": self._array(f"{_LIN}.weight").T}
        if has_bias:
            arrays["bias"] = self._array(f"{_LIN}.bias")
        config = {"units": self.outputs, "activation": "linear", "use_bias": has_bias}
        yield sequential.SequentialLayer("Dense", self.names[-1], config, _tensors(arrays))

    def with_both_biases(self, layer: LSTMLayer) -> LSTMLayer:
        """Return a layer with PyTorch's two biases, of which a Keras model has the sum."""
        k = self.names.index(layer.name)
        if f"{_REC}.bias_ih_l{k}" not in self._arrays:
            return layer
        first, second = (
            np.split(self._array(f"{_REC}.bias_{side}_l{k}"), len(GATES)) for side in ("ih", "hh")
        )

        def both(gate: object, parts: edit.Parts) -> edit.Parts:
            index = [str(each) for each in GATES].index(str(gate))
            biases = {"bias": first[index], "recurrent_bias": second[index]}
            return {**parts, **_tensors(biases)}

        return edit.map_cells(layer, lambda _, __, cell: edit.map_gates(cell, both))


def _tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    return {role: ArrayTensor(np.ascontiguousarray(array)) for role, array in arrays.items()}


def _store(model: _Model) -> KerasStore:
    return sequential.store(model.inputs, list(model.steps()), skip=model.is_skipped)

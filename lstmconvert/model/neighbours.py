"""The layers beside the LSTMs: what each is, and its weights by the names that their class has.

Where no config describes them, `layers_of` tells from its path which layer a tensor belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lstmconvert.errors import UnknownLayer

if TYPE_CHECKING:
    from lstmconvert.files.jsontext import JsonObject
    from lstmconvert.model.model import Structure
    from lstmconvert.tensors.dtypes import Array
    from lstmconvert.tensors.tensor import Tensor



class NeighbourCell(NamedTuple):
    """One direction of a recurrent layer, or its only one.

    Fields: `prefix`: what stands before its weights' names; `class_name`: `GRU` or `SimpleRNN`;
    `config`, as that of the layer.
    """

    prefix: str
    class_name: str
    config: JsonObject


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A layer that holds no LSTM. Its arrays are read from the file when they are touched.

    `neighbour.kernel` reads one array, and so does `neighbour["kernel"]`; `tensors` gives them
    unread.

    Fields:
        name: as its config says it, after the names of the models and wrappers that it is in:
            `head`, `encoder/head`, `time_distributed/head`.
        class_name: of Keras 3: `Dense`.
        config: its keywords under the names of Keras 3, with the values that the file has; `{}`
            where it has none.
        path: where the file keeps it: the group of a `.keras`, or the layer of a legacy `.h5`.
        tensors: what its class calls a weight -> tensor, in the orientation of Keras 3, in the
            order in which Keras 3 lists them. Below a wrapper or a stack, the name says where:
            `forward.kernel`, `cells.1.bias`, `query_dense.kernel`.
        paths: the same names -> full paths in the source of the arrays that each is made of. Of a
            missing weight, where it would be, where that is known.
        unnamed: full path -> tensor: what the layer has, and its class does not name.
        missing: names of the weights that its class has, and the file does not hold.
        cells: of a recurrent layer whose class is known, its directions: one or two.
        inputs, outputs: how many features it takes and gives, where its weights show it.
        fed: how many features its config says that it was built for, where it does.
        rank: how many axes its input has, that of the batch included, where its config says it.
    """

    name: str
    class_name: str
    config: JsonObject = field(default_factory=dict)
    path: str = ""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unnamed: Mapping[str, Tensor] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    cells: tuple[NeighbourCell, ...] = ()
    inputs: int | None = None
    outputs: int | None = None
    fed: int | None = None
    rank: int | None = None

    def __getitem__(self, role: str) -> Array:
        """Read a weight.

        Raises:
            UnknownLayer: the layer has none of that name. It is a `KeyError`, too.
        """
        if role not in self.tensors:
            raise UnknownLayer(
                f"the layer {self.name} ({self.class_name}) has no such weight",
                where=self.name,
                found=str(role),
                expected=", ".join(self.tensors) or "no weights",
            )
        return self.tensors[role].read()

    def __getattr__(self, name: str) -> Array:
        # Only what no field is called comes here; copying asks before there are fields.
        tensors = self.__dict__.get("tensors", {})
        if name in tensors:
            return self[name]
        raise AttributeError(f"{type(self).__name__} has no {name}")

    @property
    def parameters(self) -> int:
        """The number of its weights, those that only training does not change included."""
        sizes = [tensor.size for tensor in (*self.tensors.values(), *self.unnamed.values())]
        return sum(sizes)

    @property
    def is_named(self) -> bool:
        """Whether every weight has a name, and is there."""
        return not self.unnamed and not self.missing

    def __repr__(self) -> str:
        return f"Neighbour({self.name}: {self.class_name}, {self.parameters} parameters)"


#: What TensorFlow 2 adds to the path of a variable in a checkpoint.
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def weights_by_layer(tensors: Mapping[str, Tensor], structure: Structure | None) -> dict[str, int]:
    """Return name of the layer -> how many weights it has, in the order of the file.

    Args:
        tensors: full path in the source -> tensor.
        structure: how the source's weight store is laid out, where that is known.
    """
    result: dict[str, int] = {}
    owners = layers_of(tensors, structure)
    for path, tensor in tensors.items():
        result[owners[path]] = result.get(owners[path], 0) + tensor.size
    return result


def layers_of(paths: Mapping[str, object], structure: Structure | None) -> dict[str, str]:
    """Return full path -> the name of the layer that the tensor belongs to."""
    kind = None if structure is None else structure.kind
    if structure is not None and kind == "v3":
        return {path: _of_v3(path, structure.names) for path in paths}
    known = {} if structure is None or kind != "legacy" else _of_legacy(structure)
    return {path: known.get(path) or _by_path(path) for path in paths}


def _of_v3(path: str, names: Mapping[str, str]) -> str:
    """Name a layer of Keras 3: `layers/model/layers/dense/vars/0` is of `model/dense`."""
    group = path.partition("/vars/")[0]
    parts = group.split("/")
    if "layers" not in parts[:-1]:
        return names.get(group) or group or path
    layer_names = [
        names.get("/".join(parts[: index + 1])) or part
        for index, part in enumerate(parts)
        if index and parts[index - 1] == "layers"
    ]
    return "/".join(layer_names)


def _of_legacy(structure: Structure) -> dict[str, str]:
    """Name the layers of an HDF5 file with `layer_names`; those of a nested model by both names.

    The weights of a layer `dense` are `dense/kernel:0`, or `sequential/dense/kernel`; those of a
    layer in a nested model `inner` are listed under `inner` as `dense/kernel:0`.
    """
    result = {}
    for layer, weights in structure.weights.items():
        for weight in weights:
            first, *rest = weight.split("/")
            path = "/".join(filter(None, (structure.root, layer, weight)))
            result[path] = f"{layer}/{first}" if rest and layer not in (first, *rest) else layer
    return result


def _by_path(path: str) -> str:
    """Name what a tensor is in: `head` for `head.weight`, `dense` for `dense/kernel:0`."""
    path = path.removesuffix(_VALUE)
    return path.rpartition("/")[0] or path.rpartition(".")[0] or path

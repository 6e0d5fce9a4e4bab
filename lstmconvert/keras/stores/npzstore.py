"""`model.weights.npz`: the weight store that Keras 3 writes with `weights_format="npz"`.

Each member is a path of the v3 store, `layers/lstm/cell.npy` (the root is `__root__.npy`), and
holds an array of one object: a dict of what the layer saved, `{"0": …, "1": …}`
(keras/src/saving/saving_lib.py, NpzIOStore). Objects are a pickle. It is read as data by
`lstmconvert.files.pickled`, and these calls in it mean numbers:

    array      numpy.core.multiarray._reconstruct (numpy._core since NumPy 2), _frombuffer, scalar
    variable   keras's Variable, its `_value` being
               an array                                                         NumPy
               functools.partial(ResourceVariable, initial_value=array, …)()    TensorFlow
               jax._src.array._reconstruct_array(…, the state of an array, …)   JAX

Layers save Variables, optimizers arrays, in every version from 3.0 to 3.15. PyTorch's values are in
a second pickle inside the first, and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.files.npy import OBJECT, read_header
from lstmconvert.files.opening import Window
from lstmconvert.files.pickled import (
    RECONSTRUCT,
    Call,
    Symbol,
    array_of,
    array_of_state,
    describe,
    read_pickle,
)
from lstmconvert.files.zipmembers import ZipMembers
from lstmconvert.hdf5.reading import StoredTree
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

ROOT, VARS = "__root__", "vars"
_SUFFIX = ".npy"

#: keras.src.backend.tensorflow.core.Variable up to 3.6, keras.src.backend.Variable since 3.8.
_VARIABLE_MODULE, _VARIABLE_CLASS = "keras.src.", ".Variable"
_TENSORFLOW = "tensorflow.python.ops.resource_variable_ops.ResourceVariable"  # its __reduce__
_JAX = "jax._src.array._reconstruct_array"  # jax/_src/array.py, ArrayImpl.__reduce__



def read_tree(window: Window) -> StoredTree:
    """Read the store that fills a window, as the HDF5 store would give it: `layers/lstm/vars/0`.

    Raises:
        CorruptFile: it is not a zip archive, is damaged, or has a member that no store has.
        SourceError: a value of the store whose numbers are not there as a NumPy array.
        LimitExceeded: it is larger, denser or longer than the limits allow.
    """
    members = ZipMembers(window)
    tensors: dict[str, Tensor] = {}
    groups = {""}
    for name in members.names:
        where = f"{window.source.path}: {name}"
        group = _group(name, where)
        groups.update(_upwards(group))
        for key, tensor in _Member(members.open(name), where).tensors():
            path = _checked(f"{group}/{key}", where)
            if path in tensors:
                raise CorruptFile("two arrays of one path", where=where, found=path)
            tensors[path] = tensor
            limits.HDF5_OBJECTS.check(len(tensors), window.source.path, "the number of arrays")
    members.check_large()
    return StoredTree(tensors, {}, frozenset(groups))


def _group(member: str, where: str) -> str:
    path = member.removesuffix(_SUFFIX)
    if path == member:
        raise CorruptFile("a member that is not an array", where=where, expected=_SUFFIX)
    return VARS if path == ROOT else _checked(f"{path}/{VARS}", where)


def _checked(path: str, where: str) -> str:
    """Refuse a path that an HDF5 store could not have."""
    limits.PATH_LENGTH.check(len(path), where, "the length of an array's path")
    limits.HDF5_DEPTH.check(path.count("/"), where, "the depth of an array's path")
    if "" in path.split("/"):
        raise CorruptFile("a path with an empty part", where=where, found=repr(path))
    return path


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


class _Member:
    """One member: its arrays by key. `where` names it in errors."""

    def __init__(self, window: Window, where: str) -> None:
        self.where, self.source = where, window.source
        header = read_header(window, where)
        if header.descr != OBJECT or header.shape:
            raise self.fail("a member that Keras does not write", f"{header.descr} {header.shape}")
        begin = window.offset + header.data
        self.pickle = Window(window.source, begin, window.size - header.data)

    def fail(self, message: str, found: object = None) -> CorruptFile:
        return CorruptFile(message, where=self.where, found=found)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what the layer saved, in its order."""
        match read_pickle(self.pickle, self.where):
            case Call(Symbol(name=name), _, (_, (), _, _, [dict(store)])) if name in RECONSTRUCT:
                for key, value in store.items():
                    yield key, self._tensor(value, f"{self.where}: {key}")
            case _:
                raise self.fail("a member that holds no dict of arrays, as Keras writes it")

    def _tensor(self, value: object, where: str) -> Tensor:
        inner = value
        match value:
            case bool() | float():
                return ArrayTensor(np.asarray(value))
            case int() if -(1 << 63) <= value < 1 << 63:
                return ArrayTensor(np.asarray(value, np.int64))
            case Call(Symbol(name=name), _, {"_value": inner}) if _is_variable(name):
                tensor = self._variable(inner, where)
            case _:
                tensor = array_of(value, self.source, where)
        if tensor is None:
            raise SourceError(
                "the numbers are not in the file as a NumPy array",
                where=where,
                found=describe(inner),
                expected="an array, or a Variable of Keras on TensorFlow, JAX or NumPy",
                hint="where the model still runs, save it with its weights as HDF5, the default",
            )
        return tensor

    def _variable(self, value: object, where: str) -> Tensor | None:
        match value:
            case Call(
                Call(
                    Symbol(name="functools.partial"),
                    (Symbol(name=made),),
                    (_, (), {"initial_value": inner}, _),
                ),
                (),
            ) if made == _TENSORFLOW:
                return array_of(inner, self.source, where)
            case Call(Symbol(name=made), (Symbol(name=name), _, tuple(state), _)) if (
                made == _JAX and name in RECONSTRUCT
            ):
                return array_of_state(state, self.source, where)
        return array_of(value, self.source, where)


def _is_variable(name: str) -> bool:
    return name.startswith(_VARIABLE_MODULE) and name.endswith(_VARIABLE_CLASS)

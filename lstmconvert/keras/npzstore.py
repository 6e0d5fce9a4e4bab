"""`model.weights.npz`: the weight store that Keras 3 writes with `weights_format="npz"`.

Each member is a path of the v3 store, `layers/lstm/cell.npy` (the root is `__root__.npy`), and
holds an array of one object: a dict of what the layer saved, `{"0": …, "1": …}`
(keras/src/saving/saving_lib.py, NpzIOStore). Objects are a pickle. It is read as data by
`lstmconvert.keras.pickled`, and these calls in it mean numbers:

    array      numpy.core.multiarray._reconstruct (numpy._core since NumPy 2), _frombuffer, scalar
    variable   keras's Variable, its `_value` being
               an array                                                         NumPy
               functools.partial(ResourceVariable, initial_value=array, …)()    TensorFlow
               jax._src.array._reconstruct_array(…, the state of an array, …)   JAX

Layers save Variables, optimizers arrays, in every version from 3.0 to 3.15. PyTorch's values lie in
a second pickle inside the first, and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lstmconvert import limits
from lstmconvert.dtypes import DType, dtype_of
from lstmconvert.errors import CorruptFile, SourceError
from lstmconvert.files import Window
from lstmconvert.keras.pickled import Call, Span, Symbol, read_pickle
from lstmconvert.keras.tree import Tree
from lstmconvert.keras.zipmembers import ZipMembers
from lstmconvert.npy import OBJECT, number_dtype, read_header, tensor_at
from lstmconvert.tensors import ArrayTensor, Shape, Tensor

ROOT, VARS = "__root__", "vars"
_SUFFIX = ".npy"

_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
#: keras.src.backend.tensorflow.core.Variable up to 3.6, keras.src.backend.Variable since 3.8.
_VARIABLE_MODULE, _VARIABLE_CLASS = "keras.src.", ".Variable"
_TENSORFLOW = "tensorflow.python.ops.resource_variable_ops.ResourceVariable"  # its __reduce__
_JAX = "jax._src.array._reconstruct_array"  # jax/_src/array.py, ArrayImpl.__reduce__

#: Number types that NumPy pickles by the class of ml_dtypes that adds them.
_ML_DTYPES = {f"ml_dtypes.{name}": name for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}


def read_tree(window: Window) -> Tree:
    """Read the store that fills a window, as the HDF5 store would give it: `layers/lstm/vars/0`.

    Raises:
        CorruptFile: no zip archive, damaged, or with a member that is none of the store's.
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
    return Tree(tensors, {}, frozenset(groups))


def _group(member: str, where: str) -> str:
    path = member.removesuffix(_SUFFIX)
    if path == member:
        raise CorruptFile("a member that is no array", where=where, expected=_SUFFIX)
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
            case Call(Symbol(name=name), _, (_, (), _, _, [dict(store)])) if name in _RECONSTRUCT:
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
                found = self._variable(inner, where)
            case _:
                found = self._array(value, where)
        if found is None:
            raise SourceError(
                "the numbers are not in the file as a NumPy array",
                where=where,
                found=_describe(inner),
                expected="an array, or a Variable of Keras on TensorFlow, JAX or NumPy",
                hint="where the model still runs, save it with its weights as HDF5, the default",
            )
        return found

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
                return self._array(inner, where)
            case Call(Symbol(name=made), (Symbol(name=name), _, tuple(state), _)) if (
                made == _JAX and name in _RECONSTRUCT
            ):
                return self._state(state, where)
        return self._array(value, where)

    def _array(self, value: object, where: str) -> Tensor | None:
        match value:
            case Call(Symbol(name=name), _, tuple(state)) if name in _RECONSTRUCT:
                return self._state(state, where)
            case Call(Symbol(name=name), (dtype, Span() as data)) if name in _SCALAR:
                return self._place(data, dtype, (), False, where)
            case Call(Symbol(name=name), (Span() as data, dtype, tuple(shape), str(order))) if (
                name in _FROM_BUFFER
            ):
                return self._place(data, dtype, shape, order == "F", where)
        return None

    def _state(self, state: tuple[object, ...], where: str) -> Tensor | None:
        """The state of an array: (version, shape, dtype, Fortran order, data)."""
        match state:
            case (_, tuple(shape), dtype, bool(fortran), Span() as data):
                return self._place(data, dtype, shape, fortran, where)
        return None

    def _place(
        self, data: Span, dtype: object, shape: tuple[object, ...], fortran: bool, where: str
    ) -> Tensor:
        window = Window(self.source, data.offset, data.length)
        return tensor_at(window, _dtype(dtype, where), _shape(shape, where), fortran, where)


def _is_variable(name: str) -> bool:
    return name.startswith(_VARIABLE_MODULE) and name.endswith(_VARIABLE_CLASS)


def _shape(sizes: tuple[object, ...], where: str) -> Shape:
    shape = tuple(n for n in sizes if isinstance(n, int) and not isinstance(n, bool) and n >= 0)
    if len(shape) != len(sizes):
        raise CorruptFile("an array whose shape is no tuple of sizes", where=where)
    return shape


def _dtype(value: object, where: str) -> DType:
    """The dtype of `numpy.dtype("f4", False, True)` with the state (3, "<", None, …)."""
    match value:
        case Call(
            Symbol(name="numpy.dtype"), (kind, *_), (_, str(order), None, None, None, *_)
        ) if order in ("<", ">", "|"):
            if isinstance(kind, str):
                return number_dtype(order + kind, where)
            if isinstance(kind, Symbol) and kind.name in _ML_DTYPES and order != ">":
                return dtype_of(_ML_DTYPES[kind.name])
    raise CorruptFile("an array of no plain numbers", where=where, found=_describe(value))


def _describe(value: object) -> str:
    while isinstance(value, Call):
        value = value.function
    return value.name if isinstance(value, Symbol) else type(value).__name__

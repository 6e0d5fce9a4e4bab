"""PyTorch's `.pt`, without PyTorch: its pickle is read as data, and nothing in it is called.

`torch.save` writes a zip of a pickle and one member for each storage; before 1.6 it wrote five
pickles and then the storages, one behind the other (torch/serialization.py, `_save`,
`_legacy_save`). In the pickle a tensor is a call of `torch._utils._rebuild_tensor_v2` with its
storage, offset, shape and strides. Dictionaries, lists and whole modules (their parameters, buffers
and modules inside them) lead to the tensors; every other object is passed over, and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TypeGuard

import numpy as np

from lstmconvert import limits
from lstmconvert.containers.modules import Arrays, Opened
from lstmconvert.errors import CorruptFile, NotAModel
from lstmconvert.files.npy import tensor_at
from lstmconvert.files.opening import Window
from lstmconvert.files.pickled import Call, Persistent, Symbol, read_pickle, read_pickle_at
from lstmconvert.files.zipmembers import ZipMembers
from lstmconvert.tensors.dtypes import DType, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, Shape, SourceFile, Tensor

#: Members that make an archive a TorchScript program (torch/csrc/jit/serialization/export.cpp).
_SCRIPT = re.compile(r"/code/|/constants\.pkl$")
#: `torch.serialization.set_crc32_options(False)` writes zero for each; before 1.6 there was none.
_NO_SUMS = "the .pt was saved without checksums: that it is whole cannot be told"
_PICKLE, _BYTE_ORDER = "data.pkl", "byteorder"
#: The version that every file before 1.6 states (torch/serialization.py, PROTOCOL_VERSION).
_OLD_VERSION = 1001
#: Bytes before each storage of a file before 1.6: how many elements it has.
_COUNT_BYTES = 8
#: Keys that are numbers are layers' or steps'.
_NUMBERS = 1 << 63

#: A storage's class, and the dtype of its elements (torch/__init__.py).
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
#: Dtypes without a storage class of their own: `_rebuild_tensor_v3` names them.
_DTYPES = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")
#: The functions that make a tensor of a storage: the number of its arguments at least, and whether
#: a dtype is among them (torch/_utils.py).
_TENSORS = {
    "torch._utils._rebuild_tensor": (4, False),
    "torch._utils._rebuild_tensor_v2": (6, False),
    "torch._utils._rebuild_tensor_v3": (7, True),
}
#: The functions that make a parameter of a tensor, their first argument.
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
#: The call that makes a tensor with attributes: a function, a class, the function's arguments,
#: attributes.
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"
_PLAIN_TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
#: Any other function that makes a tensor: sparse, quantized, on no device, nested.
_OTHER_TENSOR = re.compile(r"torch\._(utils|tensor)\._rebuild_")
#: Classes of dictionaries.
_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
#: The keys under which people save a state_dict beside an epoch and an optimizer.
_STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model_weights", "model", "net")
#: What DataParallel and torch.compile put before every name (torch/nn/parallel/data_parallel.py,
#: torch/_dynamo/eval_frame.py).
_WRAPPERS = ("module.", "_orig_mod.")
#: Names that people give the module inside a LightningModule, and the key by which Lightning's
#: checkpoints are known (lightning/pytorch/trainer/connectors/checkpoint_connector.py).
_OF_LIGHTNING, _LIGHTNING = ("model.", "net.", "network."), "pytorch-lightning_version"
#: What every optimizer's state_dict has (torch/optim/optimizer.py).
_OPTIMIZER = {"state", "param_groups"}
#: The most classes of objects passed over that a note names.
_NAMED = 3


def read(file: Opened) -> Arrays:
    """Read every tensor of a file by name, dictionaries inside it joined by dots.

    A dictionary that holds one state_dict beside numbers, options and an optimizer is that
    state_dict. The optimizer's tensors are left out, and counted in a note.

    Raises:
        NotAModel: it is a TorchScript archive.
        CorruptFile: it is damaged, a checksum is wrong, it holds no tensors, or one that is not a
            plain array.
        LimitExceeded: it holds more of them than the limits allow, or many on the same bytes.
    """
    archive = _Zip(file) if file.is_zip else _Old(file.source)
    walk = _Walk(archive)
    names = dict(walk.unique(walk.below(archive.root, "")))
    if not names:
        raise CorruptFile("no tensors in it", where=archive.where, expected="a state_dict")
    notes = walk.notes()
    for prefix, reason in _prefixes(archive.root):
        if all(name.startswith(prefix) and name != prefix for name in names):
            names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
            notes += (f"the names are without {prefix!r}, {reason}",)
    # A tensor may repeat one number a billion times, and a thousand may share their bytes.
    declared = sum(tensor.nbytes for tensor in names.values())
    limits.check_expansion(declared, file.source.size, archive.where)
    return Arrays(
        {name: tensor.read() for name, tensor in names.items()},
        {},
        check=archive.check,
        notes=notes + archive.notes,
    )


def _prefixes(root: object) -> Iterator[tuple[str, str]]:
    """Yield what may stand before every name and is not a module's name, and whose it is."""
    entries = entries_of(root) or {}
    for key in _STATE_KEYS:
        if entries_of(entries.get(key)) is not None:
            yield f"{key}.", "the key of the state_dict in this checkpoint"
    for wrapper in _WRAPPERS:
        yield wrapper, "which a wrapper of PyTorch's puts before each"
    for name in _OF_LIGHTNING if _LIGHTNING in entries else ():
        yield name, "the module inside the LightningModule"


# -- the two forms of a file -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Storage:
    """Bytes that tensors are in: where they are, the type of an element, how many there are."""

    window: Window
    dtype: DType
    count: int


class _Zip:
    """A file of PyTorch 1.6 and later."""

    def __init__(self, file: Opened) -> None:
        self.where = file.source.path
        if scripts := [name for name in file.names if _SCRIPT.search(name)]:
            raise NotAModel(
                "a TorchScript archive, which holds a program and is never opened",
                where=self.where,
                found=", ".join(sorted(scripts)[:3]),
                expected="a state_dict that torch.save wrote",
                hint="in PyTorch: torch.save(torch.jit.load(path).state_dict(), new_path)",
            )
        self._source = file.source
        self._members = ZipMembers(file.source, may_lack_sums=True)
        self._names = frozenset(self._members.names)
        self._folder = self._members.names[0].partition("/")[0]
        self.notes = (_NO_SUMS,) if self._members.lacks_sums else ()
        order = f"{self._folder}/{_BYTE_ORDER}"
        self._is_big = order in self._names and self._members.read(order) == b"big"

    def check(self) -> None:
        """Raise `CorruptFile` where a checksum is wrong, or the file changed meanwhile."""
        self._members.check_large()
        self._source.check_unchanged()

    @cached_property
    def root(self) -> object:
        """What the pickle describes."""
        name = f"{self._folder}/{_PICKLE}"
        return read_pickle(self._members.open(name), f"{self.where}: {name}")

    def storage(self, identity: object) -> _Storage:
        """Return the storage that a pickle names: ("storage", class, key, device, length)."""
        match identity:
            case ("storage", Symbol(name=kind), str(key), _, int(count)):
                dtype = _storage_dtype(kind, self._is_big, self.where)
                member = f"{self._folder}/data/{key}"
                if member not in self._names:
                    raise _damaged("a storage that is not in the archive", self.where, key)
                window = self._members.open(member)
                if window.size != count * dtype.itemsize:
                    raise _damaged("a storage of another length", member, window.size)
                return _Storage(window, dtype, count)
        raise _damaged("a storage that PyTorch does not write", self.where)


class _Old:
    """A file of PyTorch before 1.6: five pickles, and then the storages."""

    notes = (_NO_SUMS,)

    def __init__(self, source: SourceFile) -> None:
        self.where = source.path
        self._source = source
        _, place = read_pickle_at(source, 0, self.where)  # the number that it was known by
        version, place = read_pickle_at(source, place, self.where)
        system, place = read_pickle_at(source, place, self.where)
        if version != _OLD_VERSION or not isinstance(system, dict):
            raise _damaged("not a file that torch.save wrote", self.where, version)
        self._is_big = system.get("little_endian") is False
        self.root, place = read_pickle_at(source, place, self.where)
        keys, self._place = read_pickle_at(source, place, self.where)
        self._keys = self._texts(keys)
        self.check = source.check_unchanged

    def _texts(self, keys: object) -> list[str]:
        if isinstance(keys, list) and all(isinstance(key, str) for key in keys):
            return keys
        raise _damaged("its list of storages is not a list of texts", self.where)

    @cached_property
    def _storages(self) -> dict[str, _Storage]:
        """Every storage: they are one behind the other, so each one's type tells the next place."""
        kinds = dict(self._named(self.root))
        storages: dict[str, _Storage] = {}
        place = self._place
        for key in self._keys:
            if key not in kinds or key in storages:
                raise _damaged("a storage that no tensor names", self.where, key)
            kind, count = kinds[key]
            dtype = _storage_dtype(kind, self._is_big, self.where)
            stated = int.from_bytes(self._source.read_at(place, _COUNT_BYTES), "little")
            if stated != count:
                raise _damaged("a storage of another length", self.where, stated)
            window = Window(self._source, place + _COUNT_BYTES, count * dtype.itemsize)
            place += _COUNT_BYTES + window.size
            if place > self._source.size:
                raise _damaged("the file ends inside a storage", self.where, key)
            storages[key] = _Storage(window, dtype, count)
        if place != self._source.size:
            raise _damaged("bytes behind the last storage", self.where, self._source.size - place)
        return storages

    def _named(self, root: object) -> Iterator[tuple[str, tuple[str, int]]]:
        """Yield each storage that the pickle names: key, class, number of elements."""
        seen: set[int] = set()
        waiting = [root]
        while waiting:
            value = waiting.pop()
            if isinstance(value, Persistent):
                match value.identity:
                    case ("storage", Symbol(name=kind), str(key), _, int(count), *_):
                        yield key, (kind, count)
            elif isinstance(value, (dict, list, tuple, Call)) and id(value) not in seen:
                seen.add(id(value))
                waiting.extend(_parts(value))

    def storage(self, identity: object) -> _Storage:
        """Return the storage that a pickle names; before 1.6 a part of one could be named, too."""
        match identity:
            case ("storage", _, str(key), _, int(), *view) if key in self._storages:
                storage = self._storages[key]
                match view:
                    case [] | [None]:
                        return storage
                    case [(_, int(start), int(count))] if 0 <= start <= start + count:
                        if start + count > storage.count:
                            raise _damaged("a part beyond its storage", self.where, key)
                        size = storage.dtype.itemsize
                        place = storage.window.offset + start * size
                        return _Storage(
                            Window(self._source, place, count * size), storage.dtype, count
                        )
        raise _damaged("a storage that PyTorch does not write", self.where)


def _parts(value: dict[object, object] | list[object] | tuple[object, ...] | Call) -> list[object]:
    """What a value holds directly."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, Call):
        return [value.function, value.arguments, value.state, value.items]
    return list(value)


def _damaged(message: str, where: object, found: object = None) -> CorruptFile:
    return CorruptFile(message, where=where, found=None if found is None else str(found)[:80])


def _storage_dtype(kind: str, is_big: bool, where: object) -> DType:
    name = _STORAGES.get(kind.rpartition(".")[2]) if kind.startswith("torch.") else None
    if name is None:
        raise _damaged("a tensor of a type that is not a plain number", where, kind)
    return _dtype(name, is_big, where)


def _dtype(name: str, is_big: bool, where: object) -> DType:
    if name == "bfloat16" or name.startswith("float8"):
        if is_big and name == "bfloat16":
            raise _damaged("bfloat16 of a machine with the other byte order", where)
        return dtype_of(name)
    return np.dtype(name).newbyteorder(">" if is_big else "<")


# -- tensors ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Strided:
    """A tensor of the file: shape and strides in elements, and the bytes they count in."""

    name: str
    storage: _Storage
    start: int
    shape: Shape
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.storage.dtype.itemsize

    def read(self) -> Tensor:
        """Return it: read when it is touched where its elements are in order, else at once."""
        window, dtype = self.storage.window, self.storage.dtype
        size = dtype.itemsize
        begin = window.offset + self.start * size
        if not prod(self.shape):
            return ArrayTensor(np.zeros(self.shape, dtype.newbyteorder("<")))
        for fortran in (False, True):
            if self._lies_in_order(fortran):
                data = Window(window.source, begin, self.nbytes)
                return tensor_at(data, dtype, self.shape, fortran, self.name)
        count = self._reach() + 1
        numbers = np.frombuffer(window.source.read_at(begin, count * size), dtype)
        strides = tuple(stride * size for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(numbers, self.shape, strides, writeable=False)
        return ArrayTensor(view.astype(dtype.newbyteorder("<")))

    def _lies_in_order(self, fortran: bool) -> bool:
        expected = 1
        axes = zip(self.shape, self.strides, strict=True)
        for length, stride in axes if fortran else reversed(list(axes)):
            if length != 1 and stride != expected:
                return False
            expected *= length
        return True

    def _reach(self) -> int:
        """The place of the last element, counted from the first."""
        return sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))

    def checked(self, where: object) -> _Strided:
        limits.RANK.check(len(self.shape), where, "the number of a tensor's axes")
        limits.TENSOR_BYTES.check(self.nbytes, where, "a tensor")
        if prod(self.shape) and self.start + self._reach() >= self.storage.count:
            raise _damaged("a tensor beyond its storage", where, self.name)
        return self


def _sizes(value: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and all(type(n) is int and 0 <= n < _NUMBERS for n in value)


# -- from the pickle to its tensors ----------------------------------------------------------------


class _Walk:
    """Finds tensors. Values of a pickle may hold one another, and themselves."""

    def __init__(self, archive: _Zip | _Old) -> None:
        self._archive, self._where, self._count = archive, archive.where, 0
        self._storages: dict[int, _Storage] = {}
        self._passed: dict[str, int] = {}
        self._of_optimizers = 0

    def notes(self) -> tuple[str, ...]:
        """What is to be told of the objects that were passed over."""
        notes: tuple[str, ...] = ()
        if self._of_optimizers:
            notes = (f"left out: {self._of_optimizers} tensors of an optimizer's state",)
        if not self._passed:
            return notes
        names = sorted(self._passed, key=lambda name: -self._passed[name])
        more = f" and {len(names) - _NAMED} more classes" if len(names) > _NAMED else ""
        listed = ", ".join(name[:80] for name in names[:_NAMED])
        return (*notes, f"objects that are not tensors, dictionaries or modules: {listed}{more}")

    def unique(self, tensors: Iterator[_Strided]) -> Iterator[tuple[str, _Strided]]:
        """Yield name and tensor. Raises `CorruptFile` where two have one name."""
        names: set[str] = set()
        for tensor in tensors:
            if tensor.name in names:
                raise _damaged("two tensors of one name", self._where, tensor.name)
            names.add(tensor.name)
            yield tensor.name, tensor

    def below(self, value: object, prefix: str, depth: int = 0) -> Iterator[_Strided]:
        """Yield the tensors in a value, by name.

        Raises:
            CorruptFile: one is not a plain array.
            LimitExceeded: there are too many entries, they are too deep, or a name is too long.
        """
        limits.TREE_DEPTH.check(depth, self._where, "the depth of its dictionaries")
        tensor = self._tensor(value, prefix.removesuffix(".") or "tensor")
        if tensor is not None:
            yield tensor
            return
        entries = entries_of(value)
        if entries is None:
            self._pass_over(value)
            return
        if entries.keys() >= _OPTIMIZER:
            self._of_optimizers += sum(1 for _ in self._entries(entries, prefix, depth))
            return
        yield from self._entries(entries, prefix, depth)

    def _entries(
        self, entries: Mapping[str | int, object], prefix: str, depth: int
    ) -> Iterator[_Strided]:
        for key, item in entries.items():
            self._count += 1
            limits.ARRAYS.check(self._count, self._where, "the number of entries")
            name = f"{prefix}{key}."
            limits.PATH_LENGTH.check(len(name), self._where, "the length of a name")
            yield from self.below(item, name, depth + 1)

    def _pass_over(self, value: object) -> None:
        if isinstance(value, (Call, Symbol)):
            function: object = value
            while isinstance(function, Call):
                function = function.function
            name = function.name if isinstance(function, Symbol) else "an object"
            if isinstance(value, Call) and (value.state or value.items):
                self._passed[name] = self._passed.get(name, 0) + 1

    def _tensor(self, value: object, name: str) -> _Strided | None:
        if not isinstance(value, Call):
            return None
        match value:
            case Call(Symbol(name=function), (inner, *_)) if function in _PARAMETERS:
                return self._tensor(inner, name)
            case Call(Symbol(name=function), (Symbol() as maker, Symbol(name=kind), arguments, _)):
                if function == _OF_TYPE and kind in _PLAIN_TYPES and isinstance(arguments, tuple):
                    return self._tensor(Call(maker, arguments), name)
            case Call(Symbol(name=function), arguments) if function in _TENSORS:
                return self._strided(arguments, *_TENSORS[function], name)
        if isinstance(value.function, Symbol) and _OTHER_TENSOR.match(value.function.name):
            raise _damaged(
                f"{name}: a tensor that is not a plain array", self._where, value.function.name
            )
        return None

    def _strided(
        self, arguments: tuple[object, ...], least: int, has_dtype: bool, name: str
    ) -> _Strided:
        match arguments:
            case (Persistent(identity=identity), int(start), shape, strides, *rest) if (
                len(arguments) >= least
                and start >= 0
                and _sizes(shape := _size_of(shape))
                and _sizes(strides)
                and len(shape) == len(strides)
            ):
                storage = self._storage(arguments[0], identity)
                if has_dtype:
                    storage = self._retyped(storage, rest[2])
                # torch/_utils.py, get_tensor_metadata: views whose numbers are not as stored.
                attributes = rest[2 + has_dtype] if len(rest) > 2 + has_dtype else None
                if isinstance(attributes, dict) and any(
                    attributes.get(flag) for flag in ("conj", "neg")
                ):
                    raise _damaged(f"{name}: a negated or conjugated view", self._where)
                return _Strided(name, storage, start, shape, strides).checked(self._where)
        raise _damaged(f"{name}: a tensor that PyTorch does not write", self._where)

    def _storage(self, value: object, identity: object) -> _Storage:
        if id(value) not in self._storages:
            self._storages[id(value)] = self._archive.storage(identity)
        return self._storages[id(value)]

    def _retyped(self, storage: _Storage, dtype: object) -> _Storage:
        name = dtype.name.removeprefix("torch.") if isinstance(dtype, Symbol) else ""
        if name not in _DTYPES and name not in _STORAGES.values():
            raise _damaged("a tensor of a type that is not a plain number", self._where, name)
        kind = _dtype(name, storage.dtype.byteorder == ">", self._where)
        return replace(storage, dtype=kind, count=storage.window.size // kind.itemsize)


def _size_of(value: object) -> object:
    """The sizes in a `torch.Size`, or what is there instead."""
    match value:
        case Call(Symbol(name="torch.Size"), (tuple(sizes),)):
            return sizes
    return value


def entries_of(value: object) -> Mapping[str | int, object] | None:
    """Return what a dictionary, a list or a module holds, by name; None of anything else."""
    match value:
        case dict():
            return value
        case list() | tuple():
            return dict(enumerate(value))
        case Call(Symbol(name=name), arguments, _, items) if name in _DICTIONARIES:
            listed = _pairs(arguments)
            return listed if items is None else {**listed, **items}
        case Call(state={"_parameters": parameters, "_modules": modules, **rest}):
            kept: dict[str | int, object] = {}
            for part in (parameters, rest.get("_buffers"), modules):
                kept.update(entries_of(part) or {})
            left_out = _members(rest.get("_non_persistent_buffers_set"))
            return {name: item for name, item in kept.items() if name not in left_out}
    return None


def _pairs(arguments: tuple[object, ...]) -> dict[str | int, object]:
    """The entries that a dictionary is made of, as Python 2 pickled them: a list of pairs."""
    entries: dict[str | int, object] = {}
    for argument in arguments:
        for pair in argument if isinstance(argument, list) else ():
            match pair:
                case [str() as name, value]:
                    entries[name] = value
    return entries


def _members(value: object) -> list[object]:
    """What a set holds."""
    if isinstance(value, Call) and value.arguments and isinstance(value.arguments[0], list):
        return value.arguments[0]
    return []

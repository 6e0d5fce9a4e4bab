"""PyTorch's `.pt`: a zip of a pickle and its arrays, opened by torch itself and no other way.

`torch.load(weights_only=True)` builds tensors and plain containers and nothing else; without torch
such a file is not read at all.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Collection, Iterator
from typing import IO, Any

import numpy as np

from lstmconvert import limits
from lstmconvert.dtypes import Array, dtype_of
from lstmconvert.errors import CorruptFile, LSTMConvertError, MissingPackage
from lstmconvert.keras.zipmembers import ZipMembers
from lstmconvert.tensors import ArrayTensor, SourceFile, Tensor

_PICKLE = "data.pkl"
#: So deep lies a state_dict inside a checkpoint's own dictionaries.
_DEPTH = 8
_PIECE = 1 << 20
#: Keys that are numbers are layers' or steps'.
_NUMBERS = 1 << 63
#: `torch.serialization.set_crc32_options(False)` writes zero for each.
_NO_SUMS = "the .pt was saved without checksums: that it is whole cannot be told"
#: Where torch says what it found.
_UNPICKLER = re.compile(r"WeightsUnpickler error:\s+([^.\n]*(?:\.\w[^.\n]*)*)")


def is_torch(names: Collection[str]) -> bool:
    """Whether a zip's members are those of a file that `torch.save` wrote."""
    return any(name.rpartition("/")[2] == _PICKLE for name in names)


def read(source: SourceFile) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return every tensor of a file by name, dictionaries inside it joined by dots; and notes.

    Raises:
        MissingPackage: torch is not installed.
        CorruptFile: torch refuses the file, a checksum is wrong, or it holds no tensors.
        LimitExceeded: it holds more of them than the limits allow, or many on the same bytes.
    """
    try:
        import torch
    except ImportError:
        raise MissingPackage(
            "a .pt file is opened by PyTorch alone, which is not installed",
            where=source.path,
            hint="pip install torch, or save the weights with safetensors.torch.save_file",
        ) from None
    try:
        members = ZipMembers(source, may_lack_sums=True)
        with _packed_anew(members) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles: what cannot be read is an error
            found = torch.load(file, map_location="cpu", weights_only=True)
    except LSTMConvertError:
        raise
    except Exception as error:  # whatever torch makes of a file that is not its own
        raise CorruptFile(
            f"torch.load(weights_only=True) refuses it: {_reason(error)[:160]}",
            where=source.path,
            hint="save the module's state_dict(), not the module: torch.save(m.state_dict(), path)",
        ) from None
    named = dict(_Found(source.path).below(found, "", 0, torch))
    if not named:
        raise CorruptFile("no tensors in it", where=source.path, expected="a state_dict")
    # A tensor may repeat one number a billion times, and a thousand may share their bytes.
    declared = sum(tensor.numel() * tensor.element_size() for tensor in named.values())
    limits.check_expansion(declared, source.size, source.path)
    tensors: dict[str, Tensor] = {
        name: ArrayTensor(array_of(tensor)) for name, tensor in named.items()
    }
    return tensors, (_NO_SUMS,) if members.lacks_sums else ()


@contextlib.contextmanager
def _packed_anew(members: ZipMembers) -> Iterator[IO[bytes]]:
    """Yield the same members as an archive that is sound, in a nameless file.

    Where a checksum is wrong, or a member is said to be a folder, torch gives whatever lay in
    memory, and no error.
    """
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name in members.names:
                window, info = members.open(name), zipfile.ZipInfo(name)
                info.file_size = window.size
                with archive.open(info, "w") as target:
                    shutil.copyfileobj(io.BufferedReader(window), target, _PIECE)
        members.check_large()
        file.seek(0)
        yield file


def _reason(error: Exception) -> str:
    """What is wrong with a file, without torch's advice on how to open it all the same."""
    text = str(error)
    if "Weights only load failed" not in text:
        return text.splitlines()[0] if text else type(error).__name__
    found = _UNPICKLER.search(text)
    return found[1] if found else "it holds more than tensors"


class _Found:
    """The tensors of a file. Its dictionaries may hold one another, and themselves."""

    def __init__(self, where: object) -> None:
        self._where, self._count = where, 0

    def below(
        self, value: Any, prefix: str, depth: int, torch: Any
    ) -> Iterator[tuple[str, Any]]:
        """Yield those in a value, by name.

        Raises:
            LimitExceeded: there are too many entries, or a name is too long.
        """
        if isinstance(value, torch.Tensor):
            yield prefix.rstrip("."), value
        elif isinstance(value, dict) and depth < _DEPTH:
            for key, item in value.items():
                self._count += 1
                limits.ARRAYS.check(self._count, self._where, "the number of entries")
                if isinstance(key, str) or (isinstance(key, int) and abs(key) < _NUMBERS):
                    name = f"{prefix}{key}."
                    limits.PATH_LENGTH.check(len(name), self._where, "the length of a name")
                    yield from self.below(item, name, depth + 1, torch)


def array_of(tensor: Any) -> Array:
    """Return a torch tensor's numbers as an array of their own, bit for bit.

    Raises:
        CorruptFile: it is sparse, quantized or of a type that NumPy does not have.
    """
    import torch

    try:
        dense = tensor.detach().cpu().contiguous()
        if dense.dtype is torch.bfloat16:
            return np.array(dense.view(torch.int16).numpy()).view(dtype_of("bfloat16"))
        return np.array(dense.numpy())
    except (TypeError, RuntimeError) as error:
        raise CorruptFile(f"a tensor that is no plain array: {str(error)[:120]}") from None

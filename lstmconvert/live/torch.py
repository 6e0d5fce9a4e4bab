"""PyTorch modules out of neutral layers, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstmconvert.errors import CorruptFile, MissingPackage, UsageError, install
from lstmconvert.layouts.gather import ModuleStructure, gather
from lstmconvert.layouts.plain import arrange
from lstmconvert.layouts.row import Row
from lstmconvert.layouts.rows import TORCH, TORCH_CELL
from lstmconvert.live.sources import value_of
from lstmconvert.model import naming
from lstmconvert.model.layer import LSTMLayer
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import Array, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor


def to_torch(
    value: LSTMLayer | Model | Sequence[LSTMLayer], *, cell: bool = False, allow_lossy: bool = False
) -> Any:
    """Return a `torch.nn.LSTM` with the weights of a layer, fed (batch, time, inputs) as in Keras.

    Its answer is every hidden state, and the last hidden and cell states: what Keras gives with
    return_sequences and return_state.

    Args:
        value: a layer; several, as one module of as many `num_layers`; or a model: then a
            `torch.nn.ModuleDict` of its LSTMs, whose keys have `_` for what PyTorch does not allow
            in a name. The layers beside the LSTMs are in no module: `lc.arrange(model, "torch")`
            has their arrays too, for `load_state_dict` of a module of yours.
        cell: make a `torch.nn.LSTMCell` instead, for one step at a time.
        allow_lossy: give a warning, not an error, for what PyTorch cannot express.

    Raises:
        MissingPackage: PyTorch is not installed.
        UnknownOption: PyTorch's maths depend on an option that is unknown.
        UnsupportedByTarget: PyTorch cannot express an option of a layer.
    """
    torch = _import()
    if isinstance(value, Model):
        modules = {
            _key(name): to_torch(layer, cell=cell, allow_lossy=allow_lossy)
            for name, layer in value.items()
        }
        return torch.nn.ModuleDict(modules)
    row = TORCH_CELL if cell else TORCH
    arrays = arrange(value, row.name, allow_lossy=allow_lossy)
    tensors = {name: tensor_of(array) for name, array in arrays.items()}
    return (_cell if cell else _lstm)(tensors)


def _key(name: str) -> str:
    return name.replace("/", "_").replace(".", "_")


def _lstm(tensors: Mapping[str, Any]) -> Any:
    torch = _import()
    first, state = tensors["weight_ih_l0"], tensors["weight_hh_l0"]
    projection = tensors.get("weight_hr_l0")
    module = torch.nn.LSTM(
        input_size=first.shape[1],
        hidden_size=first.shape[0] // 4,
        num_layers=sum(name.startswith("weight_ih") for name in tensors)
        // (1 + ("weight_ih_l0_reverse" in tensors)),
        bias="bias_ih_l0" in tensors,
        batch_first=True,
        bidirectional="weight_ih_l0_reverse" in tensors,
        proj_size=0 if projection is None else state.shape[1],
        dtype=first.dtype,
    )
    module.load_state_dict(tensors)
    return module


def _cell(tensors: Mapping[str, Any]) -> Any:
    torch = _import()
    first = tensors.get("weight_ih")
    if first is None:
        raise UsageError("a cell is one step of one direction", found=", ".join(tensors))
    size = {"input_size": first.shape[1], "hidden_size": first.shape[0] // 4}
    module = torch.nn.LSTMCell(**size, bias="bias_ih" in tensors, dtype=first.dtype)
    module.load_state_dict(tensors)
    return module


def from_torch(module: Any, *, name: str = "lstm") -> LSTMLayer | Model:
    """Return the layer of a `torch.nn.LSTM` or `LSTMCell`; of a stack or any other module, a model.

    What PyTorch does not say is what Keras does by default: return_sequences is False, for one.

    Args:
        module: the module; every LSTM inside it is found.
        name: of the layer, where the module is itself the LSTM.

    Raises:
        MissingPackage: PyTorch is not installed.
        UsageError: it is not a module.
        NoLSTM: there is no LSTM in it.
    """
    torch = _import()
    if not isinstance(module, torch.nn.Module):
        raise UsageError("not a torch.nn.Module", found=type(module).__name__)
    layers: list[LSTMLayer] = []
    for path, child in module.named_modules():
        row = _row(child, torch)
        if row is not None:
            layers += _layers(child, row, path.replace(".", "/") or name)
    return value_of(layers, type(module).__name__)


def _row(module: Any, torch: Any) -> Row | None:
    if isinstance(module, torch.nn.LSTM):
        return TORCH
    return TORCH_CELL if isinstance(module, torch.nn.LSTMCell) else None


def _layers(module: Any, row: Row, name: str) -> Sequence[LSTMLayer]:
    arrays = {key: ArrayTensor(array_of(tensor)) for key, tensor in module.state_dict().items()}
    structure = ModuleStructure(
        depth=getattr(module, "num_layers", 1), both=getattr(module, "bidirectional", False)
    )
    return gather(arrays, row, structure, naming.layer_names([name])[0])[0]


def tensor_of(array: Array) -> Any:
    """Return an array as a torch tensor of its own memory, bit for bit."""
    import numpy as np

    torch = _import()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _import() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingPackage(f"PyTorch is not installed: {error}", hint=install("torch")) from None
    return torch


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
        raise CorruptFile(f"a tensor that is not a plain array: {str(error)[:120]}") from None

"""What a file is, in words: the kind of file, and the layout where that is a framework's."""

from __future__ import annotations

from lstmconvert.describe import is_converted, is_per_gate, is_whole, layout_of
from lstmconvert.model import Model
from lstmconvert.options import UNKNOWN

#: Container -> what people call it.
NAMES = {
    "keras": "a Keras archive (.keras)",
    "weights.h5": "a Keras weights file (.weights.h5)",
    "h5": "a legacy Keras file (.h5)",
    "savedmodel": "a SavedModel directory",
    "checkpoint": "a TensorFlow checkpoint",
    "safetensors": "a safetensors file",
    "npz": "a NumPy archive (.npz)",
    "onnx": "an ONNX model",
    "json": "arrays as JSON",
    "msgpack": "a msgpack file",
    "eqx": "an Equinox file (.eqx)",
    "pt": "a PyTorch file",
    "tflite": "a TensorFlow Lite model (.tflite)",
    "tfjs": "a TensorFlow.js model (model.json)",
    "rtneural": "an RTNeural model (.json)",
    "frugally-deep": "a frugally-deep model (.json)",
    "ncnn": "an ncnn model (.param)",
    "params": "an MXNet parameters file (.params)",
    "mat": "a MATLAB file (.mat)",
    "live": "a layer in memory",
    "arrays": "arrays in memory",
}
#: Keras's files that may hold weights without a config.
_STORES = ("h5", "weights.h5")
#: Containers that hold more layouts than one.
_SEVERAL = ("safetensors", "npz", "onnx", "json", "msgpack", "pt")


def facts(model: Model) -> str:
    """Return what a model's file is: its kind, what it was made from, how much of a model it holds,
    and by what it was written."""
    source = model.source
    version = f"Keras {source.keras_version}" if source.keras_version else ""
    if not version and source.era:
        version = source.era.replace("keras", "Keras ")
    parts = [
        _kind(model),
        f"made from {_name(source.container)}" if is_converted(model) else "",
        _extent(model),
        f"by {version}" if version else "",
    ]
    return ", ".join(filter(None, parts))


def _extent(model: Model) -> str:
    if is_whole(model):
        return "the whole model"
    cells = [cell.options for layer in model.layers for _, _, cell in layer.cells()]
    has_options = all(options.activation is not UNKNOWN for options in cells)
    if model.container in _STORES and "model_config" not in model.texts:
        has_options = False  # a CuDNNLSTM's are known, for it has no others
    return "the LSTM layers alone" if has_options else "weights only"


def _kind(model: Model) -> str:
    name = _name(model.container)
    if model.container in ("safetensors", "npz") and is_per_gate(model):
        return f"a per-gate file (.{model.container})"
    if model.container in _SEVERAL and not is_per_gate(model):
        return f"{name} in layout {layout_of(model)}"
    return name


def _name(container: str) -> str:
    return NAMES.get(container, container)

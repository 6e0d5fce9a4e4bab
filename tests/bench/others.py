"""What a user does without this package: scripts, which run beside ours in the same turn.

Each takes the source and the destination as its arguments.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import NamedTuple


class Script(NamedTuple):
    """A script: what it goes through, the packages that it needs, and its text."""

    title: str
    needs: tuple[str, ...]
    text: str

    def command(self, *arguments: str) -> list[str] | None:
        """Return the command that runs it; None where a package is not installed."""
        if any(find_spec(name) is None for name in self.needs):
            return None
        return [sys.executable, "-c", self.text, *arguments]


_LOAD = """
import sys
import keras, numpy, safetensors.numpy
model = keras.models.load_model(sys.argv[1])
lstms = [layer for layer in model.layers if isinstance(layer, keras.layers.LSTM)]
"""
#: The gates of every LSTM layer, cut out of its weights.
KERAS_SLICE = Script("Keras, numpy.split", ("keras",), _LOAD + """
gates = {}
for layer in lstms:
    for part, array in zip(("kernel", "recurrent_kernel", "bias"), layer.get_weights()):
        for gate, piece in zip("ifco", numpy.split(array, 4, axis=-1)):
            gates[f"{layer.name}.{gate}.{part}"] = numpy.ascontiguousarray(piece)
safetensors.numpy.save_file(gates, sys.argv[2])
""")
#: A PyTorch state_dict by hand.
KERAS_TORCH = Script("Keras, a state_dict by hand", ("keras", "torch"), _LOAD + """
import torch
import safetensors.torch
state = {}
for layer in lstms:
    kernel, recurrent, bias = (torch.from_numpy(array) for array in layer.get_weights())
    state[f"{layer.name}.weight_ih_l0"] = kernel.T.contiguous()
    state[f"{layer.name}.weight_hh_l0"] = recurrent.T.contiguous()
    state[f"{layer.name}.bias_ih_l0"] = bias
    state[f"{layer.name}.bias_hh_l0"] = torch.zeros_like(bias)
safetensors.torch.save_file(state, sys.argv[2])
""")
#: Arrays turned for a framework, by hand.
KERAS_TURN = Script("Keras, arrays turned by hand", ("keras",), _LOAD + """
arrays = {}
for layer in lstms:
    for part, array in zip(("Wx", "Wh", "bias"), layer.get_weights()):
        arrays[f"{layer.name}.{part}"] = numpy.ascontiguousarray(array.T)
safetensors.numpy.save_file(arrays, sys.argv[2])
""")
#: A state_dict back into a Keras model that is built for it.
TORCH_KERAS = Script("torch, Keras, set_weights by hand", ("keras", "torch"), """
import sys
import keras, torch, safetensors.torch
state = safetensors.torch.load_file(sys.argv[1])
names = dict.fromkeys(key.rpartition(".")[0] for key in state)
model = keras.Sequential([keras.Input((None, 4))])
for name in names:
    units = state[f"{name}.weight_hh_l0"].shape[1]
    model.add(keras.layers.LSTM(units, return_sequences=True, name=name))
    bias = state[f"{name}.bias_ih_l0"] + state[f"{name}.bias_hh_l0"]
    arrays = (state[f"{name}.weight_ih_l0"].T, state[f"{name}.weight_hh_l0"].T, bias)
    model.layers[-1].set_weights([array.numpy() for array in arrays])
model.save(sys.argv[2])
""")
KERAS_SAVE = Script("Keras, load and save", ("keras",), _LOAD + """
model.save(sys.argv[2])
""")
KERAS_EXPORT = Script("Keras's ONNX export", ("keras", "tf2onnx"), _LOAD + """
model(keras.ops.zeros([1, 3, *model.input_shape[2:]]))  # a model that was never called is refused
model.export(sys.argv[2], format="onnx", verbose=False)
""")
TF2ONNX = Script("tf2onnx", ("keras", "tensorflow", "tf2onnx"), _LOAD + """
import tensorflow, tf2onnx
model.output_names = ["y"]
given = [tensorflow.TensorSpec(x.shape, x.dtype, name="x") for x in model.inputs]
function = tensorflow.function(lambda x: {"y": model(x)})
tf2onnx.convert.from_function(function, input_signature=given, output_path=sys.argv[2])
""")
TFLITE = Script("TFLiteConverter", ("keras", "tensorflow"), _LOAD + """
import tensorflow
data = tensorflow.lite.TFLiteConverter.from_keras_model(model).convert()
open(sys.argv[2], "wb").write(data)
""")
TFJS = Script("tensorflowjs", ("keras", "tensorflowjs"), _LOAD + """
import os, tensorflowjs
tensorflowjs.converters.save_keras_model(model, os.path.dirname(sys.argv[2]))
""")
FLAX = Script("Keras, flax.serialization by hand", ("keras", "flax"), _LOAD + """
import flax.serialization
tree = {}
for layer in lstms:
    kernel, recurrent, bias = layer.get_weights()
    cell = tree[layer.name] = {}
    for at, gate in enumerate("ifgo"):
        cut = lambda array: numpy.ascontiguousarray(numpy.split(array, 4, axis=-1)[at])
        cell[f"i{gate}"] = {"kernel": cut(kernel)}
        cell[f"h{gate}"] = {"kernel": cut(recurrent), "bias": cut(bias)}
open(sys.argv[2], "wb").write(flax.serialization.msgpack_serialize(tree))
""")
#: And back into a Keras model that is built for it.
FLAX_KERAS = Script("flax.serialization, set_weights by hand", ("keras", "flax"), """
import sys
import keras, numpy, flax.serialization
tree = flax.serialization.msgpack_restore(open(sys.argv[1], "rb").read())
model = keras.Sequential([keras.Input((None, 4))])
for name, cell in tree.items():
    def joined(side, part):
        return numpy.concatenate([cell[side + gate][part] for gate in "ifgo"], axis=-1)
    units = joined("h", "bias").shape[0] // 4
    model.add(keras.layers.LSTM(units, return_sequences=True, name=name))
    arrays = joined("i", "kernel"), joined("h", "kernel"), joined("h", "bias")
    model.layers[-1].set_weights(arrays)
model.save(sys.argv[2])
""")
KERAS_TORCH_DIFF = Script("Keras, torch, torch.equal", ("keras", "torch"), _LOAD + """
import torch, safetensors.torch
state = safetensors.torch.load_file(sys.argv[2])
for layer in lstms:
    kernel, recurrent, bias = map(torch.from_numpy, layer.get_weights())
    assert torch.equal(state[f"{layer.name}.weight_ih_l0"], kernel.T)
    assert torch.equal(state[f"{layer.name}.weight_hh_l0"], recurrent.T)
    assert torch.equal(state[f"{layer.name}.bias_ih_l0"], bias)
""")
KERAS_DIFF = Script("Keras, array_equal", ("keras",), _LOAD + """
other = keras.models.load_model(sys.argv[2])
pairs = zip(model.get_weights(), other.get_weights(), strict=True)
assert all(numpy.array_equal(a, b) for a, b in pairs)
""")
KERAS_SHOW = Script("Keras, summary", ("keras",), _LOAD + """
model.summary()
for layer in lstms:
    for a in layer.get_weights():
        print(layer.name, a.shape, float(a.min()), float(a.max()), float(a.std()))
""")
KERAS_VERIFY = Script("Keras, two predictions", ("keras",), _LOAD + """
other = keras.models.load_model(sys.argv[2])
x = numpy.random.default_rng(0).random((2, 7, model.input_shape[-1]), numpy.float32)
assert numpy.allclose(model.predict(x, verbose=0), other.predict(x, verbose=0))
""")
#: And of many files, one after the other: TensorFlow is imported once.
KERAS_LOOP = Script("Keras in a loop", ("keras",), """
import glob, os, sys
import keras, numpy, safetensors.numpy
for source in sorted(glob.glob(os.path.join(sys.argv[1], "*.keras"))):
    gates = {}
    for layer in keras.models.load_model(source).layers:
        if isinstance(layer, keras.layers.LSTM):
            for part, array in zip(("kernel", "recurrent_kernel", "bias"), layer.get_weights()):
                for gate, piece in zip("ifco", numpy.split(array, 4, axis=-1)):
                    gates[f"{layer.name}.{gate}.{part}"] = numpy.ascontiguousarray(piece)
    name = os.path.basename(source).removesuffix(".keras")
    safetensors.numpy.save_file(gates, os.path.join(sys.argv[2], f"{name}.safetensors"))
""")

"""RTNeural's JSON: a list of layers in order, each with its weights as nested lists.

    {"in_shape": [null, null, 1], "layers": [
        {"type": "lstm", "activation": "tanh", "shape": [null, null, 8],
         "weights": [kernel, recurrent_kernel, bias]}, …]}

(RTNeural/model_loader.h, `parseJson`.) It reads no other keys of the file, so that a layer's `name`
and `dtype` and our metadata can be in it. The plug-in AIDA-X and the scripts that train for
it do: `in_skip`, `in_gain`, `out_gain`, `samplerate`, `metadata`, and `input_batch` with the
`output_batch` that the model answers (AIDA-X/src/aidadsp-plugin.cpp, `loadModelFromStream`). Every
key that is not of the layers is carried.

Its layers run step after step, and every step is given out. A Conv1D looks back, never ahead
(RTNeural/conv1d/conv1d.h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lstmconvert import limits
from lstmconvert.containers import sequential
from lstmconvert.containers.jsonarrays import numbers, tensor_of, typed
from lstmconvert.containers.modules import Arrays, KerasStore, Opened, Writing, check_finite
from lstmconvert.errors import CorruptFile, UnsupportedByTarget
from lstmconvert.files.jsontext import Json, JsonObject, canonical, parse_object
from lstmconvert.model.activations import TANH, Activation, Functions
from lstmconvert.model.chain import ROLES as LINK_ROLES
from lstmconvert.model.chain import Answer, Chain, Holds, Link
from lstmconvert.pergate import metadata
from lstmconvert.reference import chains
from lstmconvert.tensors.dtypes import Array, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, Tensor

#: The weights of an LSTM, in their order there.
ROLES = ("kernel", "recurrent_kernel", "bias")
#: Keys of a file that are its layers; every other one is carried as it is.
_OF_LAYERS = frozenset({"in_shape", "layers", metadata.KEY})
_LSTM = "lstm"
#: RTNeural/model_loader.h, `createActivation`.
_FUNCTIONS = ("tanh", "relu", "sigmoid", "softmax", "elu")

HOLDS = Holds(
    title="RTNeural",
    kinds=frozenset({"Dense", "Conv1D", "BatchNormalization", "PReLU", "Activation", "GRU"}),
    activations=Functions(
        (
            *map(Activation, ("tanh", "relu", "sigmoid", "softmax")),
            Activation("elu", {"alpha": 1.0}),
        )
    ),
    # RTNeural/gru/gru.h: the reset gate comes after the recurrent product.
    reset=(True,),
    groups=True,
    skip=True,
    every_step=True,
    # RTNeural/model_loader.h, `loadConv1D`, `loadGRU`, `createBatchNorm`, `loadPReLU`.
    roles={
        "Conv1D": (("kernel", "bias"),),
        "GRU": (ROLES,),
        "BatchNormalization": (
            LINK_ROLES["BatchNormalization"],
            LINK_ROLES["BatchNormalization"][2:],
        ),
    },
)


# ---- reading ------------------------------------------------------------------------------------


def read(file: Opened) -> Arrays:
    """Read a file: by our metadata, where it has them, else as the Keras model that it says.

    A file with layers that are not known here has its LSTMs read, `<name>.kernel` and so on, and
    the weights of others as `<number>.<type>.<n>`.

    Raises:
        CorruptFile: it is not of this format, or a layer's shape contradicts its arrays.
    """
    value, where = file.json, file.path
    if not isinstance(value, dict):
        raise CorruptFile("not a model of RTNeural", where=where)
    limits.JSON_VALUES.check(len(value["layers"]), where, "the number of layers")
    layers = [_Layer.of(item, number, where) for number, item in enumerate(value["layers"])]
    _check_widths(value.get("in_shape"), layers)
    document = {key: item for key, item in value.items() if key not in _OF_LAYERS}
    is_proof = all(isinstance(document.get(key), list) for key in _BATCH)
    proven = partial(_prove, document, where) if is_proof else None
    answers = _answers(document, where, layers) if is_proof and layers else ()
    if metadata.KEY in value:
        texts = {metadata.KEY: canonical(value[metadata.KEY])}
        return Arrays(
            _named(layers), texts, document=document, proven=proven, answers=answers
        )
    unknown = [layer for layer in layers if layer.kind not in _KERAS]
    if unknown:
        note = f"read without its other layers: {unknown[0].kind} is not known here"
        return Arrays(_named(layers), {}, document=document, notes=(note,))
    store = partial(_store, layers, document, where)
    return Arrays(
        _named(layers), {}, store=store, document=document, proven=proven, answers=answers
    )


class _Layer(NamedTuple):
    """One layer of a file: its `number`, `kind` (RTNeural's type), `name` where it says one,
    `arrays` in their order, `item` itself, and `where` it is."""

    number: int
    kind: str
    name: str | None
    arrays: tuple[Tensor, ...]
    item: JsonObject
    where: str

    @classmethod
    def of(cls, item: Json, number: int, where: object) -> _Layer:
        place = f"{where}: layers[{number}]"
        match item:
            case {"type": str(kind), "weights": [*weights]}:
                pass
            case {"type": str(kind)} if "weights" not in item:
                weights = []
            case _:
                raise CorruptFile("not a layer", where=place)
        if kind == _LSTM and len(weights) != len(ROLES):
            raise CorruptFile("an LSTM has three arrays", where=place, found=len(weights))
        arrays = (
            typed(tensor_of(data, f"{place}.weights[{index}]"), item.get("dtype"), where)
            for index, data in enumerate(weights)
        )
        name = item.get("name")
        return cls(
            number, kind, name if isinstance(name, str) else None, tuple(arrays), item, place
        )

    @property
    def size(self) -> int | None:
        """How many numbers it gives, by its shape, where it says one."""
        shape = self.item.get("shape")
        last = shape[-1] if isinstance(shape, list) and shape else None
        return last if isinstance(last, int) and not isinstance(last, bool) else None

    def number_of(self, key: str, default: int) -> int:
        """Return a whole number that RTNeural takes from the end of a list, or alone."""
        value = self.item.get(key, default)
        if isinstance(value, list) and value:
            value = value[-1]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CorruptFile("not a size", where=f"{self.where}.{key}", found=str(value)[:40])
        return value


#: RTNeural's type -> the number of the axis of its first array that is as long as its inputs, that
#: of its outputs, and how many times its units they are.
_AXES: Mapping[str, tuple[int | None, int, int]] = {
    _LSTM: (0, 1, 4),
    "gru": (0, 1, 3),
    "dense": (0, 1, 1),
    "time-distributed-dense": (0, 1, 1),
    "conv1d": (None, 2, 1),
    "batchnorm": (None, 0, 1),
}


def _check_widths(shape: Json, layers: Sequence[_Layer]) -> None:
    """Raise where `in_shape` or a layer's `shape` contradicts the arrays."""
    width = shape[-1] if isinstance(shape, list) and shape else None
    for layer in layers:
        if layer.kind not in _AXES:
            if layer.kind not in _KERAS:
                width = None  # a layer that is not known here: what it gives is not either
            continue
        inputs, outputs, times = _AXES[layer.kind]
        size = layer.arrays[0].shape if layer.arrays else ()
        if len(size) <= outputs or size[outputs] % times:
            raise CorruptFile("not the arrays of such a layer", where=layer.where, found=layer.kind)
        given = size[outputs] // times
        if layer.size is not None and layer.size != given:
            raise CorruptFile(
                "the shape of a layer contradicts its arrays",
                where=f"{layer.where}: {layer.kind}",
                found=f"shape {layer.item['shape']}",
                expected=f"{given} outputs, as its arrays have",
            )
        if inputs is not None and isinstance(width, int) and size[inputs] != width:
            raise CorruptFile(
                "the arrays of a layer do not take what comes before it",
                where=f"{layer.where}: {layer.kind}",
                found=f"{size[inputs]} inputs",
                expected=f"{width}",
            )
        width = given


#: Of outputs up to 1, so far may an answer be from that of the file: what trained the model
#: computed in float32, over thousands of steps, and on another processor.
_BOUND = 1e-3
_BATCH = ("input_batch", "output_batch")


def _prove(document: Mapping[str, Json], where: object, chain: Chain) -> None:
    """Raise `CorruptFile` if the layers do not answer `input_batch` with `output_batch`."""
    stated = _stated(document, where, chain.inputs)
    if stated is None or stated.y.shape[-1] != chain.outputs:
        raise CorruptFile(
            "its output_batch is not of its layers: it has another number of steps or outputs",
            where=where,
            hint=_WITHOUT,
        )
    distances = _distances(stated, chain)
    if not distances.max() <= stated.bound:
        step = int(np.argwhere(~(distances <= stated.bound))[0][1])
        raise CorruptFile(
            "its output_batch is not what its layers answer to its input_batch",
            where=where,
            found=f"a difference of {distances.max():.3g}, and the first at step {step}",
            expected=f"at most {stated.bound:.3g}",
            hint=_WITHOUT,
        )


_WITHOUT = (
    "weights or batches were changed since the file was written; without the key output_batch, it "
    "is read"
)


def _stated(document: Mapping[str, Json], where: object, inputs: int) -> Answer | None:
    """Return the input and output of a file, if the output has numbers for each step."""
    x, y = (tensor_of(document[key], f"{where}: {key}").read() for key in _BATCH)
    if not inputs or not x.size or x.size % inputs or not y.size or y.size % (x.size // inputs):
        return None
    x, y = x.astype(np.float64).reshape(1, -1, inputs), y.astype(np.float64)
    y = y.reshape(1, x.shape[1], -1)
    return Answer(x, y, _BOUND * max(1.0, float(abs(y).max())))


def _answers(
    document: Mapping[str, Json], where: object, layers: Sequence[_Layer]
) -> tuple[Answer, ...]:
    """Return the input and output of a file, if its layers are known and it has such."""
    if any(layer.kind not in _KERAS for layer in layers) or layers[0].kind not in _AXES:
        return ()
    try:
        stated = _stated(document, where, _inputs(layers[0]))
    except CorruptFile:  # of another program, and something else than numbers
        return ()
    return () if stated is None else (stated,)


def _distances(stated: Answer, chain: Chain) -> Array:
    """Return how far each output is from the stated one: (1, steps, outputs)."""
    distances: Array = abs(chains.answered(chain, stated) - stated.y)
    return distances


def carried(
    document: Mapping[str, Json], chain: Chain | None
) -> tuple[Mapping[str, Json], list[str]]:
    """Return what of a document is written again: its batches only if they are still the model's
    answer."""
    keys = dict(document)
    notes = []
    if chain is not None and document.get("in_skip") == 1 and not chain.skip:
        notes.append("in_skip=1 is kept: a plug-in adds the input to what the layers give")
    if not all(key in keys for key in _BATCH):
        return keys, notes
    if chain is None or not _fits(document, chain):
        for key in _BATCH:
            del keys[key]
        notes.append("input_batch and output_batch are left out: they are not of these layers")
    return keys, notes


def _fits(document: Mapping[str, Json], chain: Chain) -> bool:
    stated = _stated(document, "document", chain.inputs)
    if stated is None or stated.y.shape[-1] != chain.outputs:
        return False
    return bool(_distances(stated, chain).max() <= stated.bound)


def _names(layers: Sequence[_Layer]) -> list[str]:
    kinds = [_KERAS[layer.kind].class_name if layer.kind in _KERAS else "" for layer in layers]
    return sequential.names(kinds, [layer.name for layer in layers])


def _named(layers: Sequence[_Layer]) -> dict[str, Tensor]:
    """Return the arrays of a file by name."""
    tensors: dict[str, Tensor] = {}
    count = 0
    for layer in layers:
        prefix, roles = f"{layer.number}.{layer.kind}.", tuple(map(str, range(len(layer.arrays))))
        if layer.kind == _LSTM:
            counted = _LSTM if count == 0 else f"{_LSTM}_{count}"
            name = counted if layer.name is None else layer.name
            prefix, roles = f"{name}." if name else "", ROLES
            count += 1
        elif layer.name is not None and layer.kind in _KERAS:
            prefix, roles = f"{layer.name}.", tuple(_KERAS[layer.kind].roles(layer))
        for role, tensor in zip(roles, layer.arrays, strict=True):
            tensors[f"{prefix}{role}"] = tensor
    return tensors


class _Kind(NamedTuple):
    """What RTNeural's type is in Keras: its `class_name`, its `config`, and its `roles`."""

    class_name: str
    config: Callable[[_Layer], JsonObject]
    roles: Callable[[_Layer], Sequence[str]]


def _activation(layer: _Layer) -> str:
    """Return the function of a layer (RTNeural leaves out one that it does not know)."""
    value = layer.item.get("activation") or "linear"
    if value not in ("linear", *_FUNCTIONS):
        raise CorruptFile(
            "an activation that RTNeural does not have",
            where=layer.where,
            found=str(value)[:40],
            expected=", ".join(_FUNCTIONS),
        )
    return str(value)


def _units(layer: _Layer, key: str = "units") -> JsonObject:
    return {key: layer.arrays[0].shape[-1], "activation": _activation(layer)}


def _first(roles: Sequence[str]) -> Callable[[_Layer], Sequence[str]]:
    def of(layer: _Layer) -> Sequence[str]:
        if not 1 <= len(layer.arrays) <= len(roles):
            raise CorruptFile(
                "not the arrays of such a layer", where=layer.where, found=len(layer.arrays)
            )
        return roles[: len(layer.arrays)]

    return of


def _statistics(layer: _Layer) -> Sequence[str]:
    roles = LINK_ROLES["BatchNormalization"]
    if len(layer.arrays) not in (2, 4):
        raise CorruptFile("not two or four arrays", where=layer.where, found=len(layer.arrays))
    return roles[-len(layer.arrays) :]


def _use_bias(layer: _Layer) -> JsonObject:
    return {"use_bias": len(layer.arrays) > 1}


def _normalization(layer: _Layer) -> JsonObject:
    epsilon, is_affine = layer.item.get("epsilon"), len(layer.arrays) == 4
    if not isinstance(epsilon, (int, float)) or isinstance(epsilon, bool):
        raise CorruptFile("a batchnorm without its epsilon", where=layer.where)
    return {"epsilon": epsilon, "center": is_affine, "scale": is_affine}


def _convolution(layer: _Layer) -> JsonObject:
    return {
        **_units(layer, "filters"),
        **_use_bias(layer),
        "kernel_size": [layer.arrays[0].shape[0]],
        "dilation_rate": [layer.number_of("dilation", 1)],
        "groups": layer.number_of("groups", 1),
        "padding": "causal",
    }


def _recurrent(layer: _Layer, gates: int) -> JsonObject:
    shape = layer.item.get("shape")
    return {
        "units": layer.arrays[0].shape[-1] // gates,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        # (batch, units) is the last step alone; RTNeural itself gives every step.
        "return_sequences": not (isinstance(shape, list) and len(shape) == 2),
    }


_DENSE = _Kind(
    "Dense",
    lambda layer: {**_units(layer), **_use_bias(layer)},
    _first(LINK_ROLES["Dense"]),
)
_KERAS: Mapping[str, _Kind] = {
    _LSTM: _Kind("LSTM", lambda layer: _recurrent(layer, 4), _first(ROLES)),
    "gru": _Kind(
        "GRU", lambda layer: {**_recurrent(layer, 3), "reset_after": True}, _first(ROLES)
    ),
    "dense": _DENSE,
    "time-distributed-dense": _DENSE,
    "conv1d": _Kind("Conv1D", _convolution, _first(LINK_ROLES["Conv1D"])),
    "prelu": _Kind("PReLU", lambda _: {"shared_axes": [1]}, _first(LINK_ROLES["PReLU"])),
    "batchnorm": _Kind("BatchNormalization", _normalization, _statistics),
    "activation": _Kind(
        "Activation", lambda layer: {"activation": _activation(layer)}, lambda _: ()
    ),
}


def _store(layers: Sequence[_Layer], document: JsonObject, where: object) -> KerasStore:
    """Return the layers of a file as a Keras model. It has one dtype: that of its widest array."""
    is_wide = any(a.dtype.name == "float64" for layer in layers for a in layer.arrays)
    dtype = dtype_of("float64" if is_wide else "float32")
    steps = []
    for layer, name in zip(layers, _names(layers), strict=True):
        kind = _KERAS[layer.kind]
        arrays = {
            role: _shaped(role, tensor.read().astype(dtype))
            for role, tensor in zip(kind.roles(layer), layer.arrays, strict=True)
        }
        steps.append(sequential.SequentialLayer(kind.class_name, name, kind.config(layer), arrays))
    if not steps:
        raise CorruptFile("no layers", where=where)
    inputs = _inputs(layers[0])
    return sequential.store(inputs, steps, skip=_is_skipped(document, inputs, layers[-1]))


def _shaped(role: str, array: Array) -> Tensor:
    # RTNeural takes the innermost list of a PReLU; Keras has (1, channels) with shared_axes [1].
    return ArrayTensor(array.reshape(1, -1) if role == "alpha" else array)


def _inputs(layer: _Layer) -> int:
    inputs = _AXES.get(layer.kind, (None,))[0]
    shape = layer.arrays[0].shape if layer.arrays else (layer.size or 1,)
    if layer.kind == "conv1d":
        return int(shape[1]) * layer.number_of("groups", 1)
    return int(shape[-1] if inputs is None else shape[inputs])


def _is_skipped(document: Mapping[str, Json], inputs: int, last: _Layer) -> bool:
    """Whether a plug-in adds the input to the output, and a Keras model can say so."""
    return document.get("in_skip") == 1 and inputs == 1 and last.size == 1


# ---- writing ------------------------------------------------------------------------------------


def write(path: Path, content: Writing) -> None:
    """Write a file.

    Raises:
        UnsupportedByTarget: a layer does not take what the one before it gives; NaN or infinity.
    """
    chain, tensors = content.chain, content.tensors
    layers = list(_layers_alone(tensors) if chain is None else _layers_of_chain(chain, tensors))
    value: JsonObject = dict(content.document)
    if content.answer is not None:
        pair = (content.answer.x, content.answer.y)
        value |= {key: array.reshape(-1).tolist() for key, array in zip(_BATCH, pair, strict=True)}
    value |= {"in_shape": [None, None, layers[0].inputs], "layers": [x.item for x in layers]}
    if chain is not None and chain.skip:
        value["in_skip"] = 1
    final = content.metadata()
    if metadata.KEY in final:
        value[metadata.KEY] = parse_object(final[metadata.KEY], metadata.KEY)
    with open(path, "w", encoding="utf-8") as file:
        file.write(canonical(value))


class _Written(NamedTuple):
    inputs: int
    item: JsonObject


def _layers_alone(tensors: Mapping[str, Tensor]) -> Iterator[_Written]:
    """Yield the LSTM layers of a model that is not written as a chain."""
    width = 0
    for name in _prefixes(tensors):
        arrays = [tensors[f"{name}.{r}" if name else r].read() for r in ROLES]
        if width and arrays[0].shape[0] != width:
            raise UnsupportedByTarget(
                "the layers of RTNeural follow one another",
                where=name,
                layer=name,
                option="input_dim",
                target="rtneural",
                found=f"{arrays[0].shape[0]} inputs",
                expected=f"{width}",
                hint="convert one layer with --layer",
            )
        inputs, width = arrays[0].shape[0], arrays[1].shape[0]
        yield _Written(inputs, _layer(name, _LSTM, width, arrays, activation="tanh"))


#: Kind of a link -> RTNeural's type.
_TYPES: Mapping[str, str] = {
    "LSTM": _LSTM,
    "GRU": "gru",
    "Dense": "dense",
    "Conv1D": "conv1d",
    "BatchNormalization": "batchnorm",
    "PReLU": "prelu",
    "Activation": "activation",
}


def _layers_of_chain(chain: Chain, tensors: Mapping[str, Tensor]) -> Iterator[_Written]:
    for link in chain.links:
        roles = ROLES if link.layer is not None else tuple(link.arrays)
        arrays = [tensors[link.prefix + role].read() for role in roles]
        name = link.prefix.removesuffix(".")
        further = _further(link)
        yield _Written(
            link.inputs, _layer(name, _TYPES[link.kind], link.outputs, arrays, **further)
        )


def _further(link: Link) -> JsonObject:
    """Return the keys that only some kinds of layers have."""
    if link.kind == "LSTM":
        return {"activation": TANH.name}
    if link.kind == "BatchNormalization":
        return {"epsilon": link.epsilon}
    name = link.activation.name
    result: JsonObject = {"activation": "" if name == "linear" else name}
    if link.kind == "Conv1D":
        result |= {"kernel_size": [link.window], "dilation": [link.dilation]}
        result["groups"] = link.groups
    return result


def _layer(
    name: str, kind: str, outputs: int, weights: Sequence[Array], **further: Json
) -> JsonObject:
    for array in weights:
        check_finite(array, name, "RTNeural's JSON", "rtneural")
    result: JsonObject = {
        "name": name,
        "type": kind,
        "shape": [None, None, outputs],
        "weights": [numbers(array) for array in weights],
        **further,
    }
    return result | ({"dtype": weights[0].dtype.name} if weights else {})


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))

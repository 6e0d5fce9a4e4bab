"""From which release of Keras 3 on a config opens, and why: the table of what came later than 3.3.

A config names classes, their keywords, operations and functions. Each has been there since some
release, and an older Keras refuses a model that names it. The table was read from the sources of
Keras 3.3 to 3.15 (keras/src), and is tested with Keras 3.3, 3.6, 3.10 and 3.15. What is not in it
is in 3.3, the oldest release that is tested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lstmconvert.conversion import Opens, Reason, Release, shown
from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.files.jsontext import NESTED, Json, JsonObject
from lstmconvert.keras.configs.nodes import MODELS, own_name
from lstmconvert.keras.configs.spelling import COMPOSITION_NAME, OLDEST_NAMES

#: The oldest release that is tested.
OLDEST: Release = (3, 3)


def _since(table: Mapping[str, str]) -> dict[str, Release]:
    return {name: number(release) for release, names in table.items() for name in names.split()}


def number(text: str) -> Release:
    """Return a release as numbers: (3, 10) of `3.10` and of `3.10.0`.

    Raises:
        UsageError: it is not a release of Keras 3, or older than the oldest that is known.
    """
    match = re.fullmatch(r"3\.(\d{1,3})(\.\d+)*", text.strip())
    release = (3, int(match[1])) if match else None
    if release is None or release < OLDEST:
        raise UsageError(
            "no release of Keras 3 that files are written for",
            found=text,
            expected=f"{shown(OLDEST)} or later, as 3.10",
            hint="for Keras 2, say --era keras2" if text.startswith("2") else None,
        )
    return release


_LAYERS = _since({
    "3.6": "AutoContrast Pipeline RandomShear Solarization",
    "3.7": "MaxNumBoundingBoxes STFTSpectrogram",
    "3.8": "Equalization MixUp RandAugment RandomColorDegeneration RandomColorJitter "
           "RandomGrayscale RandomHue RandomPosterization RandomSaturation RandomSharpness",
    "3.9": "AugMix CutMix RMSNormalization RandomErasing RandomGaussianBlur RandomInvert "
           "RandomPerspective",
    "3.10": "RandomElasticTransform",
    "3.12": "ReversibleEmbedding",
    "3.13": "AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D "
            "AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D",
    "3.14": "ContrastLimitedAdaptiveHistogramEqualization",
})  # fmt: skip
#: Losses, optimizers and metrics, which a `.keras` of a compiled model has: opening it compiles it.
_COMPILED = _since({
    "3.5": "Lamb",
    "3.7": "Circle ConcordanceCorrelation PearsonCorrelation",
    "3.10": "CategoricalGeneralizedCrossEntropy Muon",
    "3.14": "ScheduleFreeAdamW",
})  # fmt: skip
_FUNCTIONS = _since({
    "3.7": "celu glu hard_shrink hard_tanh log_sigmoid soft_shrink squareplus tanh_shrink",
    "3.8": "sparse_plus sparsemax threshold",
    "3.10": "sparse_sigmoid",
})  # fmt: skip
_INITIALIZERS = _since({"3.4": "Orthogonal", "3.7": "STFT"})
_OPERATIONS = _since({
    "3.4": "Map Scan Switch HSVToRGB RGBToHSV Lstsq Argpartition",
    "3.5": "AssociativeScan SegmentReduction SearchSorted",
    "3.6": "SaturateCast Logdet DotProductAttention BitwiseAnd BitwiseInvert BitwiseLeftShift "
           "BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor Histogram LeftShift RightShift Trunc",
    "3.7": "ConvertToTensor IFFT2 Celu Glu HardShrink HardTanh SoftShrink Squareplus TanhShrink "
           "Exp2 Inner",
    "3.8": "SparsePlus Sparsemax Threshold Diagflat UnravelIndex",
    "3.9": "Rearrange GaussianBlur PerspectiveTransform Polar RMSNorm Rot90 Signbit",
    "3.10": "ElasticTransform ViewAsComplex ViewAsReal SparseSigmoid Angle",
    "3.11": "VectorizedMap LayerNorm Cbrt Corrcoef Deg2rad Heaviside",
    "3.12": "ScaleAndTranslate CholeskyInverse JVP Unfold Gcd Hypot IsIn Isneginf Isposinf "
            "Isreal Kron Lcm Logaddexp2 Trapezoid View",
    "3.13": "AdaptiveAveragePool AdaptiveMaxPool ArraySplit EmptyLike Ldexp Vander",
    "3.14": "DepthToSpace Fold SpaceToDepth AllClose Dstack Fliplr Flipud Fmod Geomspace Hsplit "
            "I0 Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean Nanmedian Nanmin Nanprod "
            "Nanquantile Nanstd Nansum Nanvar Nextafter Ptp Rad2deg Sinc Vsplit",
    "3.15": "SSIM SobelEdges MatrixRank Pinv CDist Erfc SegmentMin SegmentProd Dsplit Fabs Fmax "
            "Fmin Nanpercentile Percentile Unique",
})  # fmt: skip
#: Operations that take a name since 3.11, and none before.
_NAMED_SINCE: Release = (3, 11)
_NAMED = frozenset(_since({"3.11":
    "AssociativeScan Cast ConvertToTensor ForiLoop Map SaturateCast Scan StopGradient Unstack "
    "WhileLoop AffineTransform CropImages ElasticTransform ExtractPatches GaussianBlur HSVToRGB "
    "MapCoordinates PadImages PerspectiveTransform RGBToGrayscale RGBToHSV Resize Cholesky Det "
    "Eig Eigh Inv Lstsq LuFactor Norm Qr SVD Solve SolveTriangular ExtractSequences FFT FFT2 "
    "IFFT2 IRFFT ISTFT InTopK Logdet Logsumexp RFFT STFT SegmentReduction TopK AveragePool "
    "BatchNorm BinaryCrossentropy CTCDecode CTCLoss CategoricalCrossentropy Celu Conv "
    "ConvTranspose DepthwiseConv DotProductAttention Elu Gelu Glu HardShrink HardTanh LeakyRelu "
    "LogSoftmax MaxPool Moments Normalize OneHot PSNR Polar RMSNorm SeparableConv SoftShrink "
    "Softmax SparseCategoricalCrossentropy Sparsemax Squareplus TanhShrink Threshold All Amax "
    "Amin Any Append Argmax Argmin Argpartition Argsort Average Bincount BitwiseAnd BitwiseInvert "
    "BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo Clip "
    "Concatenate Correlate CountNonzero Cross Cumprod Cumsum Diag Diagflat Diagonal Diff Einsum "
    "ExpandDims Flip Histogram LeftShift Linspace Logspace Max Mean Median Meshgrid Min Moveaxis "
    "NanToNum Pad Prod Quantile Repeat Reshape RightShift Roll Rot90 Round Select Slogdet Sort "
    "Split Squeeze Stack Std Sum Swapaxes Take TakeAlongAxis Tensordot Tile Trace Transpose Tril "
    "Triu Trunc UnravelIndex Var"
}))  # fmt: skip


class _Keyword(NamedTuple):
    """A keyword that came later: since when; the values at which it says nothing that an older
    Keras does not do, and can be left out; whether any value can (what training alone needs)."""

    since: Release
    idle: tuple[Json, ...] = ()
    is_idle: bool = False


def _keywords(since: str, names: str, *idle: Json, any_value: bool = False) -> dict[str, _Keyword]:
    return {name: _Keyword(number(since), idle, any_value) for name in names.split()}


_SCALED = "GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform VarianceScaling"
#: `Class.keyword` -> since when, of layers, initializers, operations, losses and optimizers.
_KEYWORDS = {
    **_keywords("3.4", "Dice.axis", None),
    **_keywords("3.8", "Tversky.axis", None),
    **_keywords("3.13", "Muon.adam_weight_decay Muon.rms_rate"),
    **_keywords("3.4", "MultiHeadAttention.seed", any_value=True),
    **_keywords("3.5", "ZeroPadding1D.data_format", None, "channels_last"),
    **_keywords("3.6", "RandomFlip.data_format", any_value=True),
    **_keywords("3.6", "Normalize.epsilon"),
    **_keywords("3.7", "GroupedQueryAttention.seed", any_value=True),
    # Before, it is joined to a shape of another type.
    **_keywords("3.7", "MultiHeadAttention.output_shape", None),
    **_keywords(
        "3.7", "GroupedQueryAttention.flash_attention MultiHeadAttention.flash_attention",
        None, False, True, any_value=True,
    ),
    **_keywords("3.8", "RandomContrast.value_range", any_value=True),
    **_keywords("3.9", "Resizing.antialias", False),
    **_keywords("3.10", "Dense.lora_alpha EinsumDense.lora_alpha Embedding.lora_alpha", None),
    **_keywords("3.12", "EinsumDense.gptq_unpacked_column_size", None),
    **_keywords(
        "3.13",
        "Dense.quantization_config EinsumDense.quantization_config Embedding.quantization_config",
        None,
    ),
    **_keywords("3.14", "BatchNormalization.renorm", False),
    **_keywords(
        "3.14", "BatchNormalization.renorm_clipping BatchNormalization.renorm_momentum",
        any_value=True,  # without renorm they say nothing
    ),
    **_keywords("3.14", "IntegerLookup.oov_method StringLookup.oov_method", None, "floormod"),
    **_keywords("3.14", "IntegerLookup.salt StringLookup.salt", None),
    **_keywords("3.14", "GroupedQueryAttention.use_gate MultiHeadAttention.use_gate", False),
    **_keywords(
        "3.15", "GroupedQueryAttention.sliding_window MultiHeadAttention.sliding_window", None
    ),
    **_keywords(
        "3.15",
        " ".join(f"{name}.{axes}_axes" for name in _SCALED.split() for axes in ("input", "output")),
        any_value=True,  # an initializer changes no number of a trained model
    ),
    **_keywords(
        "3.11",
        "AssociativeScan.axis ConvertToTensor.ragged Scan.length Scatter.shape Slice.shape "
        "DotProductAttention.attn_logits_soft_cap DotProductAttention.flash_attention "
        "Threshold.default_value Threshold.threshold Arange.dtype Array.dtype Full.dtype "
        "Full.shape FullLike.dtype OnesLike.dtype SearchSorted.side ZerosLike.dtype",
        None,
    ),
    **_keywords("3.11", "Isclose.equal_nan", False),
}  # fmt: skip
#: A model as an activation, as Keras 2's hard_sigmoid is written: Keras 3.9.2 does not load it.
MODEL_AS_FUNCTION: Release = (3, 10)
#: A model whose one input or output is not a list: keras/src/models/functional.py of 3.6.
_UNLISTED: Release = (3, 6)
#: A model in a TimeDistributed: keras/src/models/sequential.py, `compute_output_shape`.
_MODEL_OVER_TIME: Release = (3, 4)
#: Calls that stand before those that they need, in the form of Keras 3: before 3.7,
#: keras/src/models/functional.py, `convert_revived_tensor`, raised what no one caught.
_ANY_ORDER: Release = (3, 7)
#: Before, a Normalization that was adapted got its numbers from an `.h5`, and did not use them:
#: keras/src/legacy/saving/legacy_h5_format.py, `finalize_state`.
_ADAPTED_IN_H5: Release = (3, 6)
_ENDS = ("input_layers", "output_layers")
_ACTIVATIONS = ("activation", "recurrent_activation")
#: The keywords that may matter: thousands of layers have forty others each.
_WATCHED = {*_ENDS, *_ACTIVATIONS, *(name.partition(".")[2] for name in _KEYWORDS)}


def opens(config: JsonObject, *, is_h5: bool = False) -> Opens:
    """Return from which release of Keras 3 on a model opens, and what stops an older one.

    Args:
        config: the model's, as Keras 3 spells it.
        is_h5: whether it is that of a legacy `.h5`.

    Returns:
        `reasons` are those for that release: the latest things in the config.
    """
    every = list(_Walk(None, is_h5).reasons(config))
    release = max((reason.release for reason in every), default=OLDEST)
    return Opens(release, tuple(dict.fromkeys(r for r in every if r.release == release)))


def fitted(
    config: JsonObject, release: Release, path: object, *, is_h5: bool = False
) -> JsonObject:
    """Return a config that a release of Keras 3 opens: without the later keywords that say nothing
    there, and with its names.

    Args:
        config: the model's, as Keras 3 spells it. It is changed.
        release: the release.
        path: to name in an error.
        is_h5: whether it is that of a legacy `.h5`.

    Raises:
        UnsupportedByTarget: something that release does not have.
    """
    for reason in _Walk(release, is_h5).reasons(config):
        if reason.release > release:
            raise UnsupportedByTarget(
                f"Keras {shown(release)} does not open the model: {reason.layer} has "
                f"{reason.what}, which needs Keras {shown(reason.release)}",
                where=path,
                layer=reason.layer,
                option="for_keras",
                target=f"Keras {shown(release)}",
                hint=f"--for-keras {shown(reason.release)}, or leave it away",
            )
    return config


class _Walk:
    """Walks through a config; with a release, it takes out what can be done without.

    Args:
        release: the one that the config is fitted to; None: it stays as it is.
        is_h5: whether it is that of a legacy `.h5`.
    """

    def __init__(self, release: Release | None, is_h5: bool) -> None:
        self._release, self._is_h5 = release, is_h5

    def reasons(self, config: Json) -> Iterator[Reason]:
        """Yield every thing in a config that is younger than the oldest release."""
        waiting: list[tuple[Json, str]] = [(config, "the model")]
        while waiting:
            value, name = waiting.pop()
            inside: Iterable[Json] = value
            if isinstance(value, dict):
                inner = value.get("config")
                if isinstance(inner, dict) and isinstance(value.get("class_name"), str):
                    name = _name(inner.get("name")) or _name(value.get("name")) or name
                    yield from self._object(value, inner, name)
                inside = value.values()
            nested = [(item, name) for item in inside if type(item) in NESTED and item]
            nested.reverse()
            waiting += nested

    def _object(self, whole: JsonObject, config: JsonObject, name: str) -> Iterator[Reason]:
        class_name = own_name(whole["class_name"])
        module = str(whole.get("module") or "keras.layers")
        if not module.startswith("keras") or ("module" in whole and whole["module"] is None):
            return  # a class of the user's own
        if module.startswith("keras.initializers"):
            if self._is_older(_INITIALIZERS.get(class_name)) and class_name in OLDEST_NAMES:
                class_name = whole["class_name"] = OLDEST_NAMES[class_name]
            kind, since = f"the initializer {class_name}", _INITIALIZERS.get(class_name)
        elif module.startswith(("keras.src.ops", "keras.ops")):
            kind, since = f"the operation {class_name}", _OPERATIONS.get(class_name)
            if "name" in config and class_name in _NAMED:
                if self._is_older(_NAMED_SINCE):
                    del config["name"]
                else:
                    yield Reason(name, f"an operation {class_name} with a name", _NAMED_SINCE)
        else:
            since = _LAYERS.get(class_name) or _COMPILED.get(class_name)
            kind = f"the class {class_name}"
            yield from self._structure(class_name, config, name)
        if since is not None:
            yield Reason(name, kind, since)
        if not _WATCHED.isdisjoint(config):
            for key in [key for key in config if key in _WATCHED]:
                yield from self._keyword(class_name, config, key, name)

    def _structure(self, class_name: str, config: JsonObject, name: str) -> Iterator[Reason]:
        inner = config.get("layer")
        inner_class = inner.get("class_name") if isinstance(inner, dict) else None
        if class_name == "TimeDistributed" and inner_class in MODELS:
            yield Reason(name, "a model in a TimeDistributed", _MODEL_OVER_TIME)
        if class_name == "Normalization" and self._is_h5 and config.get("mean") is None:
            yield Reason(name, "the numbers of an adapted Normalization", _ADAPTED_IN_H5)
        if isinstance(config.get("layers"), list) and "input_layers" in config:
            if self._is_older(_ANY_ORDER):
                _list_calls(config)
            if (late := _out_of_order(config)) is not None:
                what = "a call that stands before one that it needs"
                yield Reason(late, what, _ANY_ORDER)

    def _keyword(
        self, class_name: str, config: JsonObject, key: str, name: str
    ) -> Iterator[Reason]:
        value = config[key]
        known = _KEYWORDS.get(f"{class_name}.{key}")
        if known is not None:
            if self._is_older(known.since) and (known.is_idle or value in known.idle):
                del config[key]
            else:
                yield Reason(name, f"the keyword {key} of {class_name}", known.since)
        if key in _ACTIVATIONS:
            if isinstance(value, str) and value in _FUNCTIONS:
                yield Reason(name, f"the function {value}", _FUNCTIONS[value])
            elif isinstance(value, dict) and value.get("class_name") == "Sequential":
                yield Reason(name, _composed(value, key), MODEL_AS_FUNCTION)
        is_end = key in _ENDS and isinstance(value, list) and bool(value)
        if is_end and isinstance(value[0], str):
            if self._is_older(_UNLISTED):
                config[key] = [value]
            else:
                yield Reason(name, f"{key} that are not a list", _UNLISTED)

    def _is_older(self, since: Release | None) -> bool:
        return self._release is not None and since is not None and self._release < since


def _name(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _calls(config: JsonObject) -> Iterator[tuple[str, list[Json]]]:
    """Yield each layer of a functional model by name, with its calls."""
    for layer in config["layers"]:
        if isinstance(layer, dict) and isinstance(layer.get("inbound_nodes"), list):
            yield str(layer.get("name")), layer["inbound_nodes"]


def _tensors(value: Json) -> Iterator[tuple[str, int, int]]:
    """Yield the tensors in a part of a call, as `(layer, call, output)`."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        inner = value.get("config")
        history = inner.get("keras_history") if isinstance(inner, dict) else None
        if isinstance(history, list) and len(history) == 3:
            yield from _tensor(history)
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _tensor(value: list[Json]) -> Iterator[tuple[str, int, int]]:
    """Yield the tensor that a list begins with: a layer, its call, an output. A config that is out
    of order, and is not followed, says nothing of it."""
    name, call, output, *_ = value
    if isinstance(name, str) and type(call) is int and type(output) is int:
        yield name, call, output


def _listed(value: Json) -> Iterator[tuple[str, int, int]]:
    """Yield the tensors of a call in the form of Keras 2."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, list) and len(item) >= 3:
            yield from _tensor(item)


def _list_calls(config: JsonObject) -> None:
    """Spell the calls of a functional model as Keras 2 did, where it had a form for them: Keras 3
    reads that in every release and in any order."""
    for _, calls in _calls(config):
        for index, call in enumerate(calls):
            given = call.get("args") if isinstance(call, dict) else None
            keywords = call.get("kwargs", {}) if isinstance(call, dict) else {}
            if not isinstance(given, list) or len(given) != 1 or any(_tensors(keywords)):
                continue
            inputs = given[0] if isinstance(given[0], list) else [given[0]]
            each = [list(_tensors(item)) for item in inputs]
            is_plain = all(
                isinstance(item, dict) and item.get("class_name") == "__keras_tensor__"
                for item in inputs
            )
            # A list of one tensor is not the tensor itself.
            is_same = not isinstance(given[0], list) or len(inputs) > 1
            if is_plain and is_same and all(len(tensors) == 1 for tensors in each):
                calls[index] = [[*tensors[0], dict(keywords)] for tensors in each]


def _out_of_order(config: JsonObject) -> str | None:
    """Return the name of a layer at whose call a Keras before 3.7 stops: it goes through the layers
    in their order, again and again, and makes each call whose inputs are there; at one of Keras 3's
    own form it does not wait."""
    waiting = {name: list(calls) for name, calls in _calls(config)}
    # A layer that no call makes is an input.
    inner = {name for name, calls in waiting.items() if calls}
    made = dict.fromkeys(waiting, 0)
    is_going = True
    while is_going:
        is_going = False
        for name, calls in waiting.items():
            while calls:
                own_form = isinstance(calls[0], dict)
                needed = _tensors(calls[0]) if own_form else _listed(calls[0])
                if any(call >= made[layer] for layer, call, _ in needed if layer in inner):
                    if own_form:
                        return name
                    break
                calls.pop(0)
                made[name] += 1
                is_going = True
    return None


def _composed(value: JsonObject, key: str) -> str:
    config = value.get("config")
    is_ours = isinstance(config, dict) and config.get("name") == COMPOSITION_NAME
    return "Keras 2's hard_sigmoid as layers" if is_ours else f"a model as its {key}"

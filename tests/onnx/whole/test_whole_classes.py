"""Each class of a whole model, over its options, in ONNX Runtime and in the Keras of its era.

Every model has an LSTM beside the layers, as one without it is not a source here. Several classes
are in one model, each with inputs and an output of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.thinned import groups
from support.whole_tools import FLOAT32, Shape, beside_lstm, distances, randomized

Make = Callable[[Any], Any]
#: (name, what makes the layer out of `keras.layers`, the shapes that it is given, their dtype).
CASES: list[tuple[str, Make, list[Shape], str]] = []
#: Names of those that Keras 3, or tf_keras, does not have.
KERAS3_ALONE: set[str] = set()
TF_KERAS_ALONE: set[str] = set()


def case(
    name: str, make: Make, *shapes: Shape, dtype: str = "float32", alone: str = ""
) -> None:
    CASES.append((name, make, list(shapes), dtype))
    if alone:
        (KERAS3_ALONE if alone == "keras" else TF_KERAS_ALONE).add(name)


for units in ((4,), (None, 4), (3, None, 4)):
    case(f"dense-{len(units)}", lambda m: m.Dense(3), units)
case("dense-bare", lambda m: m.Dense(3, use_bias=False, activation="tanh"), (4,))
case("dense-softmax", lambda m: m.Dense(3, activation="softmax"), (None, 4))
case("embedding", lambda m: m.Embedding(6, 3), (None,), dtype="int32")
case("embedding-2", lambda m: m.Embedding(6, 3), (None, 2), dtype="int32")
for function in (
    *("linear", "relu", "sigmoid", "tanh", "elu", "selu", "softplus", "softsign", "exponential"),
    *("softmax", "hard_sigmoid", "swish", "gelu"),
):
    case(f"activation-{function}", lambda m, f=function: m.Activation(f), (None, 4))
for function in (
    *("silu", "hard_silu", "mish", "relu6", "leaky_relu", "celu", "log_sigmoid", "log_softmax"),
    *("hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink", "squareplus", "sparse_plus"),
    *("sparse_sigmoid", "sparsemax", "glu"),
):
    case(f"activation-{function}", lambda m, f=function: m.Activation(f), (None, 4), alone="keras")
case("relu", lambda m: m.ReLU(), (None, 4))
case("relu-max", lambda m: m.ReLU(max_value=0.7), (None, 4))
case("relu-slope", lambda m: m.ReLU(negative_slope=0.2), (None, 4))
case("relu-all", lambda m: m.ReLU(max_value=0.9, negative_slope=0.2, threshold=0.3), (None, 4))
case("relu-threshold", lambda m: m.ReLU(threshold=0.3), (None, 4))
case("leaky-relu", lambda m: m.LeakyReLU(), (None, 4))
case("elu", lambda m: m.ELU(0.7), (None, 4))
case("thresholded", lambda m: m.ThresholdedReLU(0.4), (None, 4), alone="tf_keras")
case("prelu", lambda m: m.PReLU(), (3, 4))
case("prelu-shared", lambda m: m.PReLU(shared_axes=[1]), (None, 4))
case("softmax", lambda m: m.Softmax(), (None, 4))
case("softmax-1", lambda m: m.Softmax(axis=1), (None, 4))
case("softmax-several", lambda m: m.Softmax(axis=[1, 3]), (3, None, 4))
for name in ("Dropout", "SpatialDropout1D", "GaussianDropout", "AlphaDropout"):
    case(name.lower(), lambda m, n=name: getattr(m, n)(0.4), (None, 4))
case("gaussiannoise", lambda m: m.GaussianNoise(0.4), (None, 4))
case("activityregularization", lambda m: m.ActivityRegularization(0.1), (None, 4))

# ---- normalization -------------------------------------------------------------------------------

for shape in ((4,), (None, 4), (3, 5, 4)):
    case(f"batchnorm-{len(shape)}", lambda m: m.BatchNormalization(), shape)
case("batchnorm-axis-1", lambda m: m.BatchNormalization(axis=1), (3, None, 4))
case("batchnorm-bare", lambda m: m.BatchNormalization(scale=False, center=False), (None, 4))
case("batchnorm-epsilon", lambda m: m.BatchNormalization(epsilon=0.1, scale=False), (None, 4))
case("layernorm", lambda m: m.LayerNormalization(), (None, 4))
case("layernorm-axis-1", lambda m: m.LayerNormalization(axis=1), (3, 4))
case("layernorm-axes", lambda m: m.LayerNormalization(axis=[1, 2]), (3, 4))
case("layernorm-mixed-axes", lambda m: m.LayerNormalization(axis=[1, 3]), (3, None, 4))
case("layernorm-bare", lambda m: m.LayerNormalization(scale=False, center=False), (None, 4))
case("layernorm-epsilon", lambda m: m.LayerNormalization(epsilon=0.2, center=False), (None, 4))
case("unitnorm", lambda m: m.UnitNormalization(), (None, 4))
case("unitnorm-axis-1", lambda m: m.UnitNormalization(axis=1), (None, 4))
case("rmsnorm", lambda m: m.RMSNormalization(), (None, 4), alone="keras")
case("groupnorm", lambda m: m.GroupNormalization(2), (None, 4))
case("groupnorm-image", lambda m: m.GroupNormalization(3, epsilon=0.1), (3, None, 6))
case("groupnorm-each", lambda m: m.GroupNormalization(-1, scale=False), (None, 4))
case("groupnorm-axis-1", lambda m: m.GroupNormalization(2, axis=1), (4, None))
case("normalization", lambda m: m.Normalization(), (None, 4))
case("normalization-axes", lambda m: m.Normalization(axis=(1, 2)), (3, 4))
case("normalization-given", lambda m: m.Normalization(mean=1.5, variance=2.0), (None, 4))
case("normalization-lists", lambda m: m.Normalization(mean=[1.0, 2], variance=[2.0, 0]), (None, 2))
case("normalization-one", lambda m: m.Normalization(axis=None), (None, 4))
case("normalization-invert", lambda m: m.Normalization(invert=True), (None, 4))
case("rescaling", lambda m: m.Rescaling(0.5, 2.0), (None, 4))
case("rescaling-int", lambda m: m.Rescaling(0.5), (None, 4), dtype="int32")
case("rescaling-list", lambda m: m.Rescaling([0.5, 2.0], [1.0, 3.0]), (None, 2))

# ---- convolution and pooling ---------------------------------------------------------------------

for padding in ("valid", "same", "causal"):
    for stride, dilation in ((1, 1), (2, 1), (3, 1), (1, 2)):
        case(
            f"conv1d-{padding}-{stride}-{dilation}",
            lambda m, p=padding, s=stride, d=dilation: m.Conv1D(
                3, 3 if s < 3 else 2, padding=p, strides=s, dilation_rate=d, activation="relu"
            ),
            (None, 4),
        )
for padding in ("valid", "same"):
    for stride, dilation in ((1, 1), (2, 1), (1, 2)):
        case(
            f"conv2d-{padding}-{stride}-{dilation}",
            lambda m, p=padding, s=stride, d=dilation: m.Conv2D(
                3, (2, 3), padding=p, strides=s, dilation_rate=d
            ),
            (7, None, 4),
        )
        case(
            f"conv2d-transpose-{padding}-{stride}-{dilation}",
            lambda m, p=padding, s=stride, d=dilation: m.Conv2DTranspose(
                3, (2, 3), padding=p, strides=s, dilation_rate=d
            ),
            (5, 6, 4),
        )
        case(
            f"depthwise2d-{padding}-{stride}-{dilation}",
            lambda m, p=padding, s=stride, d=dilation: m.DepthwiseConv2D(
                2, padding=p, strides=s, dilation_rate=d, depth_multiplier=2, activation="tanh"
            ),
            (7, 8, 3),
        )
    case(f"conv3d-{padding}", lambda m, p=padding: m.Conv3D(
        2, 2, padding=p, strides=2), (5, 6, 5, 2))  # fmt: skip
    case(f"conv1d-transpose-{padding}", lambda m, p=padding: m.Conv1DTranspose(
        3, 4, padding=p, strides=3, use_bias=False), (None, 4))  # fmt: skip
    case(f"conv1d-transpose-narrow-{padding}", lambda m, p=padding: m.Conv1DTranspose(
        3, 2, padding=p, strides=3), (5, 4))  # fmt: skip
    case(f"conv3d-transpose-{padding}", lambda m, p=padding: m.Conv3DTranspose(
        2, 2, padding=p, strides=2), (3, 4, 3, 2))  # fmt: skip
    case(f"depthwise1d-{padding}", lambda m, p=padding: m.DepthwiseConv1D(
        3, padding=p, depth_multiplier=2), (None, 3))  # fmt: skip
    case(f"separable1d-{padding}", lambda m, p=padding: m.SeparableConv1D(
        5, 3, padding=p, strides=2, depth_multiplier=2, activation="relu"), (None, 3))  # fmt: skip
    case(f"separable2d-{padding}", lambda m, p=padding: m.SeparableConv2D(
        5, 3, padding=p, dilation_rate=2), (7, 8, 3))  # fmt: skip
    for size, stride in ((2, None), (3, 2), (2, 3)):
        for kind in ("Max", "Average"):
            case(
                f"{kind}pool1d-{padding}-{size}-{stride}".lower(),
                lambda m, k=kind, p=padding, n=size, s=stride: getattr(m, f"{k}Pooling1D")(
                    n, s, padding=p
                ),
                (None, 3),
            )
            case(
                f"{kind}pool2d-{padding}-{size}-{stride}".lower(),
                lambda m, k=kind, p=padding, n=size, s=stride: getattr(m, f"{k}Pooling2D")(
                    n, s, padding=p
                ),
                (7, 8, 3),
            )
    case(f"averagepool3d-{padding}", lambda m, p=padding: m.AveragePooling3D(
        2, 2, padding=p), (5, 4, 5, 2))  # fmt: skip
    case(f"maxpool3d-{padding}", lambda m, p=padding: m.MaxPooling3D(
        2, 3, padding=p), (5, 4, 5, 2))  # fmt: skip
case("conv1d-groups", lambda m: m.Conv1D(4, 3, groups=2, padding="same"), (None, 6))
for rank, shape in ((1, (None, 3)), (2, (4, None, 3)), (3, (3, 4, 2, 3))):
    for kind in ("Max", "Average"):
        for keep in (False, True):
            case(
                f"global{kind}{rank}d-{keep}".lower(),
                lambda m, k=kind, r=rank, keep=keep: getattr(m, f"Global{k}Pooling{r}D")(
                    keepdims=keep
                ),
                shape,
            )
case("global-average-first", lambda m: m.GlobalAveragePooling1D("channels_first"), (3, None))
case("global-max-2d-first", lambda m: m.GlobalMaxPooling2D("channels_first"), (3, 4, 5))

for padding in ("same", "valid"):
    for size, stride, extra in ((3, 2, 0), (3, 2, 1), (2, 3, 1), (1, 2, 1), (4, 3, 2)):
        case(f"transposed-output-{padding}-{size}-{stride}-{extra}", lambda m, p=padding, k=size,
             s=stride, e=extra: m.Conv2DTranspose(2, k, strides=s, padding=p, output_padding=e),
             (4, 5, 3))  # fmt: skip
case("transposed-output-1d", lambda m: m.Conv1DTranspose(
    2, 3, strides=2, padding="same", output_padding=1), (7, 3))  # fmt: skip

# ---- shapes --------------------------------------------------------------------------------------

case("flatten", lambda m: m.Flatten(), (3, 4))
case("flatten-vector", lambda m: m.Flatten(), (4,))
case("flatten-first", lambda m: m.Flatten("channels_first"), (3, 4, 5))
case("reshape", lambda m: m.Reshape((2, -1)), (3, 4))
case("reshape-dynamic", lambda m: m.Reshape((-1, 2)), (None, 4))
case("permute", lambda m: m.Permute((2, 1)), (None, 4))
case("permute-3", lambda m: m.Permute((3, 1, 2)), (3, None, 4))
case("repeat", lambda m: m.RepeatVector(3), (4,))
case("zeropadding1d", lambda m: m.ZeroPadding1D((1, 2)), (None, 3))
case("zeropadding2d", lambda m: m.ZeroPadding2D(((1, 0), (2, 3))), (4, None, 3))
case("zeropadding2d-first", lambda m: m.ZeroPadding2D(1, data_format="channels_first"), (3, 4, 5))
case("zeropadding3d", lambda m: m.ZeroPadding3D(1), (3, 4, 3, 2))
case("cropping1d", lambda m: m.Cropping1D((1, 0)), (None, 3))
case("cropping2d", lambda m: m.Cropping2D(((1, 0), (2, 1))), (5, None, 3))
case("cropping2d-first", lambda m: m.Cropping2D(1, data_format="channels_first"), (3, 4, 5))
case("cropping3d", lambda m: m.Cropping3D(1), (4, 5, 4, 2))
case("upsampling1d", lambda m: m.UpSampling1D(3), (None, 3))
case("upsampling2d", lambda m: m.UpSampling2D((2, 3)), (4, None, 3))
case("upsampling2d-bilinear", lambda m: m.UpSampling2D(2, interpolation="bilinear"), (4, 5, 3))
for how in ("bicubic", "lanczos3", "lanczos5"):
    for factor in (2, 3, (4, 1)):
        case(f"upsampling2d-{how}-{factor}", lambda m, h=how, f=factor: m.UpSampling2D(
            f, interpolation=h), (4, 5, 3))  # fmt: skip
case("upsampling2d-bicubic-first", lambda m: m.UpSampling2D(
    2, interpolation="bicubic", data_format="channels_first"), (3, 4, 7))  # fmt: skip
case("upsampling3d", lambda m: m.UpSampling3D(2), (3, 2, 3, 2))

# ---- several inputs ------------------------------------------------------------------------------

for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"):
    case(name.lower(), lambda m, n=name: getattr(m, n)(), (None, 3), (None, 3))
for name in ("Add", "Multiply", "Average", "Maximum", "Minimum"):
    case(f"{name}-three".lower(), lambda m, n=name: getattr(m, n)(), (3,), (3,), (3,))
    case(f"{name}-ranks".lower(), lambda m, n=name: getattr(m, n)(), (4, 3), (3,))
case("add-broadcast", lambda m: m.Add(), (4, 3), (1, 3))
case("concatenate", lambda m: m.Concatenate(), (None, 3), (None, 4))
case("concatenate-1", lambda m: m.Concatenate(axis=1), (None, 3), (2, 3))
case("dot", lambda m: m.Dot(axes=1), (4,), (4,))
case("dot-cosine", lambda m: m.Dot(axes=1, normalize=True), (4,), (4,))
case("dot-2", lambda m: m.Dot(axes=2), (5, 3), (4, 3))
case("dot-pair", lambda m: m.Dot(axes=(2, 1), normalize=True), (None, 3), (3, 4))
case("dot-vector", lambda m: m.Dot(axes=(2, 1)), (None, 3), (3,))
for scale in (False, True):
    for score in ("dot", "concat"):
        case(f"attention-{score}-{scale}", lambda m, u=scale, s=score: m.Attention(
            use_scale=u, score_mode=s), (None, 3), (4, 3))  # fmt: skip
    case(f"additive-{scale}", lambda m, u=scale: m.AdditiveAttention(
        use_scale=u), (None, 3), (4, 3))  # fmt: skip
case("attention-key", lambda m: m.Attention(), (None, 3), (4, 5), (4, 3))

pytestmark = pytest.mark.engines
ERAS = ("keras", "tf_keras")


def of_era(library: str, name: str) -> bool:
    return name not in (TF_KERAS_ALONE if library == "keras" else KERAS3_ALONE)


#: So many classes are in one model: what a model costs does not grow with each.
SIZE = 40


def cases_of(library: str) -> list[Any]:
    names = [row[0] for row in CASES if of_era(library, row[0])]
    return [
        pytest.param(library, *group.values, id=f"{library}, {group.id}")
        for group in groups(names, SIZE)
    ]


@pytest.mark.parametrize(("library", "names"), [row for era in ERAS for row in cases_of(era)])
def test_class(library: str, names: list[str], tmp_path: Path) -> None:
    keras = pytest.importorskip(library)
    layers = importlib.import_module(f"{library}.layers")
    every: list[Any] = []
    outputs = []
    for _, make, shapes, dtype in (row for row in CASES if row[0] in names):
        inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
        outputs.append(make(layers)(inputs if len(inputs) > 1 else inputs[0]))
        every += inputs
    model = randomized(beside_lstm(keras, every, outputs))
    far = distances(model, tmp_path / "model.onnx").values()
    worst = {name: value for name, value in zip(names, far, strict=True) if not value < FLOAT32}
    assert not worst

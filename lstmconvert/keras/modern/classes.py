"""The closed table of layer classes that cross: their keywords, weights and parts in Keras 3.

Keywords are those of Keras 3.3 (keras/src/layers), so that what is written opens from there on.
An older keyword is renamed; left out where it has no effect on a trained model's numbers; left
out at the one value at which it changes none, and refused at any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from lstmconvert.files.jsontext import Json, JsonObject

#: A keyword, its default in Keras 3, and the value at which a weight exists, or `ANY`.
Condition = tuple[str, Json, Json]
#: Any value but None.
ANY: Json = "any value"


class Weight(NamedTuple):
    """One variable of a layer.

    Fields: `role`, its name in Keras 3; `when`: the keyword that it depends on; `also`: its names
    in older files; `trainable`: whether training changes it; `unless`: a keyword and the value at
    which it does not exist.
    """

    role: str
    when: Condition | None = None
    also: tuple[str, ...] = ()
    trainable: bool = True
    unless: tuple[str, Json] | None = None

    def exists(self, config: JsonObject) -> bool:
        """Whether a layer of that config has this variable."""
        if self.unless is not None and config.get(self.unless[0]) == self.unless[1]:
            return False
        if self.when is None:
            return True
        keyword, default, wanted = self.when
        value = config.get(keyword)
        if wanted == ANY:
            return value is not None
        return bool((default if value is None else value) == wanted)


class KerasClass(NamedTuple):
    """One class.

    Fields: `keywords` that Keras 3 takes as they are; `weights`, trainable ones first, in the order
    in which the layer makes them; `parts`: attribute of each sub-layer -> its weights (each has the
    weights of an EinsumDense); `renamed`: old keyword -> today's; `neutral`: old keyword -> the
    values at which it changes nothing; `dropped`: keywords that change no number of a trained
    model; `today`: the class in Keras 3, if another; `choices`: keyword -> the only values that
    Keras 3 takes; `stated`: keywords whose default is another in Keras 3 than it was -> that.
    """

    keywords: frozenset[str] = frozenset()
    weights: tuple[Weight, ...] = ()
    parts: tuple[str, ...] = ()
    renamed: Mapping[str, str] = {}
    neutral: Mapping[str, tuple[Json, ...]] = {}
    dropped: frozenset[str] = frozenset()
    today: str | None = None
    choices: Mapping[str, tuple[Json, ...]] = {}
    stated: Mapping[str, Json] = {}

    def renamed_in(self, config: JsonObject) -> JsonObject:
        """Return a layer's keywords under today's names."""
        return {self.renamed.get(key, key): value for key, value in config.items()}


def _row(
    keywords: str,
    *weights: Weight,
    objects: str = "",
    dropped: str = "",
    parts: tuple[str, ...] = (),
    renamed: Mapping[str, str] | None = None,
    neutral: Mapping[str, tuple[Json, ...]] | None = None,
    today: str | None = None,
    choices: Mapping[str, tuple[Json, ...]] | None = None,
    stated: Mapping[str, Json] | None = None,
) -> KerasClass:
    kinds = ("initializer", "regularizer", "constraint")
    spelled = {f"{part}_{kind}" for part in objects.split() for kind in kinds}
    if objects:
        spelled.add("activity_regularizer")
    return KerasClass(
        frozenset(keywords.split()) | spelled,
        weights,
        parts,
        renamed or {},
        neutral or {},
        frozenset(dropped.split()),
        today,
        choices or {},
        stated or {},
    )


#: Defaults of keywords that a config may leave out: `epsilon` of layers that normalize by a mean
#: and a variance (keras/src/layers/normalization), and `negative_slope` of LeakyReLU.
EPSILON, LEAK = 1e-3, 0.3
#: Keywords of any layer that name its input, which InputLayer does in Keras 3.
INPUT_KEYWORDS = frozenset({"batch_input_shape", "batch_shape", "input_dtype", "input_shape"})
#: Keywords of any layer that are written separately.
COMMON_KEYWORDS = frozenset({"name", "trainable", "dtype"})

_KERNEL = Weight("kernel", also=("W", "depthwise_kernel"))
_RECURRENT = Weight("recurrent_kernel", also=("U",))
_BIAS = Weight("bias", ("use_bias", True, True), also=("b",))
_GAMMA = Weight("gamma", ("scale", True, True))
_BETA = Weight("beta", ("center", True, True))
_MEAN = Weight("moving_mean", also=("running_mean",), trainable=False)
_VARIANCE = Weight("moving_variance", also=("running_std",), trainable=False)
_DEPTHWISE, _POINTWISE = Weight("depthwise_kernel"), Weight("pointwise_kernel")

_CONV = "filters kernel_size strides padding data_format dilation_rate activation use_bias"
_DEPTH = (
    "kernel_size strides padding depth_multiplier data_format dilation_rate activation use_bias"
)
_ONE_GROUP: Mapping[str, tuple[Json, ...]] = {"groups": (1,)}
_POOL = "pool_size strides padding data_format"
_RNN = "return_sequences return_state go_backwards stateful unroll"
_CELL = "units activation use_bias dropout recurrent_dropout seed"
_NOT_TIME_MAJOR: Mapping[str, tuple[Json, ...]] = {
    "time_major": (False,),
    "zero_output_for_mask": (False,),
    "num_constants": (0,),
}
_OLD_CELL = "implementation consume_less forget_bias_init"
_THREE = "kernel recurrent bias"
#: Keywords that Keras 2's depthwise layers inherit and never use.
_UNUSED = "kernel_initializer kernel_regularizer kernel_constraint"

#: Image layers of tf_keras have the channels last, whatever Keras's own setting is.
_IMAGES: Mapping[str, Json] = {"data_format": "channels_last"}
_RANDOM = "fill_mode fill_value interpolation seed data_format"
_RESIZES: Mapping[str, tuple[Json, ...]] = {
    "interpolation": ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")
}
_LOOKUP = (
    "max_tokens num_oov_indices mask_token oov_token vocabulary idf_weights invert output_mode "
    "pad_to_max_tokens sparse"
)
#: Classes whose vocabulary may lie in a file of its own.
LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "TextVectorization"})
#: Layers without weights of Keras 3 whose config stays as it is in files of Keras 3; older ones do
#: not have them, or compute otherwise (`REFUSED`).
_NEW = (
    *(f"Adaptive{kind}Pooling{rank}D" for kind in ("Average", "Max") for rank in (1, 2, 3)),
    *("AugMix", "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix"),
    *("Equalization", "MaxNumBoundingBoxes", "MelSpectrogram", "MixUp", "RandAugment"),
    "RandomCrop",
    *("RandomColorDegeneration", "RandomColorJitter", "RandomElasticTransform", "RandomErasing"),
    *("RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective"),
    *("RandomPosterization", "RandomSaturation", "RandomSharpness", "RandomShear", "Solarization"),
)

CLASSES: Mapping[str, KerasClass] = {
    **dict.fromkeys(_NEW, _row("")),
    "Resizing": _row(
        "height width interpolation crop_to_aspect_ratio data_format",
        choices=_RESIZES, stated=_IMAGES,
    ),
    "CenterCrop": _row("height width data_format", stated=_IMAGES),
    "RandomFlip": _row("mode seed", dropped="rng_type"),
    "RandomRotation": _row(f"factor {_RANDOM}", dropped="rng_type", stated=_IMAGES),
    "RandomZoom": _row(
        f"height_factor width_factor {_RANDOM}", dropped="rng_type", stated=_IMAGES
    ),
    "RandomTranslation": _row(
        f"height_factor width_factor {_RANDOM}", dropped="rng_type", stated=_IMAGES
    ),
    "RandomContrast": _row("factor seed", dropped="rng_type"),
    "RandomBrightness": _row("factor value_range seed", dropped="rng_type"),
    "CategoryEncoding": _row(
        "num_tokens output_mode sparse",
        renamed={"max_tokens": "num_tokens"},
        choices={"output_mode": ("one_hot", "multi_hot", "count")},
    ),
    "Hashing": _row("num_bins mask_value salt output_mode sparse"),
    "HashedCrossing": _row("num_bins output_mode sparse"),
    "Discretization": _row("bin_boundaries num_bins epsilon output_mode sparse"),
    "StringLookup": _row(f"{_LOOKUP} encoding", dropped="vocabulary_size vocab_size"),
    "IntegerLookup": _row(
        f"{_LOOKUP} vocabulary_dtype",
        dropped="vocabulary_size vocab_size",
        # TensorFlow before 2.5.
        renamed={
            "max_values": "max_tokens", "mask_value": "mask_token", "oov_value": "oov_token"
        },
    ),
    "TextVectorization": _row(
        "max_tokens standardize split ngrams output_mode output_sequence_length pad_to_max_tokens "
        "vocabulary idf_weights sparse ragged encoding",
        dropped="vocabulary_size vocab_size",
        choices={
            "standardize": (None, "lower_and_strip_punctuation", "lower", "strip_punctuation"),
            "split": (None, "whitespace", "character"),
        },
    ),
    "Dense": _row("units activation use_bias", _KERNEL, _BIAS, objects="kernel bias"),
    "EinsumDense": _row(
        "equation output_shape activation bias_axes",
        _KERNEL,
        Weight("bias", ("bias_axes", None, ANY)),
        objects="kernel bias",
    ),
    "Embedding": _row(
        "input_dim output_dim mask_zero",
        Weight("embeddings", also=("W",)),
        objects="embeddings",
        dropped="input_length activity_regularizer",
        neutral={"sparse": (False,)},
    ),
    "Dropout": _row("rate noise_shape seed"),
    "SpatialDropout1D": _row("rate seed", dropped="noise_shape"),
    "SpatialDropout2D": _row("rate data_format seed", dropped="noise_shape"),
    "SpatialDropout3D": _row("rate data_format seed", dropped="noise_shape"),
    "GaussianNoise": _row("stddev seed"),
    "GaussianDropout": _row("rate seed"),
    "AlphaDropout": _row("rate noise_shape seed"),
    "ActivityRegularization": _row("l1 l2"),
    "Activation": _row("activation"),
    "ReLU": _row("max_value negative_slope threshold"),
    "LeakyReLU": _row("negative_slope", renamed={"alpha": "negative_slope"}),
    "PReLU": _row("shared_axes", Weight("alpha", also=("alphas",)), objects="alpha"),
    "ELU": _row("alpha"),
    "ThresholdedReLU": _row("threshold", renamed={"theta": "threshold"}, today="ReLU"),
    "Softmax": _row("axis"),
    "BatchNormalization": _row(
        "axis momentum epsilon center scale moving_mean_initializer moving_variance_initializer",
        _GAMMA,
        _BETA,
        _MEAN,
        _VARIANCE,
        objects="beta gamma",
        dropped="fused renorm_clipping renorm_momentum activity_regularizer",
        neutral={
            "renorm": (False,),
            "virtual_batch_size": (None,),
            "synchronized": (False,),
            "mode": (0,),
        },
    ),
    "Normalization": _row(
        "axis mean variance invert",
        Weight("mean", ("mean", None, None), also=("adapt_mean",), trainable=False),
        Weight("variance", ("variance", None, None), also=("adapt_variance",), trainable=False),
        Weight("count", ("mean", None, None), trainable=False),
        neutral={"invert": (False,)},
    ),
    "LayerNormalization": _row(
        "axis epsilon center scale", _GAMMA, _BETA, objects="beta gamma",
        neutral={"rms_scaling": (False,)},
    ),
    "UnitNormalization": _row("axis"),
    "RMSNormalization": _row("axis epsilon", Weight("scale")),
    "GroupNormalization": _row(
        "groups axis epsilon center scale", _GAMMA, _BETA, objects="beta gamma"
    ),
    "Conv1D": _row(f"{_CONV} groups", _KERNEL, _BIAS, objects="kernel bias"),
    "Conv2D": _row(f"{_CONV} groups", _KERNEL, _BIAS, objects="kernel bias"),
    "Conv3D": _row(f"{_CONV} groups", _KERNEL, _BIAS, objects="kernel bias"),
    "Conv1DTranspose": _row(
        _CONV, _KERNEL, _BIAS, objects="kernel bias",
        neutral={**_ONE_GROUP, "output_padding": (None,)},
    ),
    "Conv2DTranspose": _row(
        _CONV, _KERNEL, _BIAS, objects="kernel bias",
        neutral={**_ONE_GROUP, "output_padding": (None,)},
    ),
    "Conv3DTranspose": _row(
        _CONV, _KERNEL, _BIAS, objects="kernel bias",
        neutral={**_ONE_GROUP, "output_padding": (None,)},
    ),
    "SeparableConv1D": _row(
        f"filters {_DEPTH}", _DEPTHWISE, _POINTWISE, _BIAS,
        objects="depthwise pointwise bias", dropped=_UNUSED, neutral=_ONE_GROUP,
    ),
    "SeparableConv2D": _row(
        f"filters {_DEPTH}", _DEPTHWISE, _POINTWISE, _BIAS,
        objects="depthwise pointwise bias", dropped=_UNUSED, neutral=_ONE_GROUP,
    ),
    "DepthwiseConv1D": _row(
        _DEPTH, _KERNEL, _BIAS, objects="depthwise bias", dropped=_UNUSED, neutral=_ONE_GROUP
    ),
    "DepthwiseConv2D": _row(
        _DEPTH, _KERNEL, _BIAS, objects="depthwise bias", dropped=_UNUSED, neutral=_ONE_GROUP
    ),
    "MaxPooling1D": _row(_POOL),
    "MaxPooling2D": _row(_POOL),
    "MaxPooling3D": _row(_POOL),
    "AveragePooling1D": _row(_POOL),
    "AveragePooling2D": _row(_POOL),
    "AveragePooling3D": _row(_POOL),
    "GlobalMaxPooling1D": _row("data_format keepdims"),
    "GlobalMaxPooling2D": _row("data_format keepdims"),
    "GlobalMaxPooling3D": _row("data_format keepdims"),
    "GlobalAveragePooling1D": _row("data_format keepdims"),
    "GlobalAveragePooling2D": _row("data_format keepdims"),
    "GlobalAveragePooling3D": _row("data_format keepdims"),
    "UpSampling1D": _row("size"),
    "UpSampling2D": _row("size data_format interpolation"),
    "UpSampling3D": _row("size data_format"),
    "ZeroPadding1D": _row("padding", neutral={"data_format": ("channels_last",)}),
    "ZeroPadding2D": _row("padding data_format"),
    "ZeroPadding3D": _row("padding data_format"),
    "Cropping1D": _row("cropping"),
    "Cropping2D": _row("cropping data_format"),
    "Cropping3D": _row("cropping data_format"),
    "Identity": _row(""),
    "Flatten": _row("data_format"),
    "Reshape": _row("target_shape"),
    "Permute": _row("dims"),
    "RepeatVector": _row("n"),
    "Masking": _row("mask_value"),
    "Rescaling": _row("scale offset"),
    "Add": _row(""),
    "Subtract": _row(""),
    "Multiply": _row(""),
    "Average": _row(""),
    "Maximum": _row(""),
    "Minimum": _row(""),
    "Concatenate": _row("axis"),
    "Dot": _row("axes normalize"),
    "MultiHeadAttention": _row(
        "num_heads key_dim value_dim dropout use_bias output_shape attention_axes seed",
        parts=("query_dense", "key_dense", "value_dense", "output_dense"),
        objects="kernel bias",
        dropped="query_shape key_shape value_shape",
        neutral={
            "softmax_robust_masking": (False,),
            "use_gate": (False,),
            "flash_attention": (None, False),
            "sliding_window": (None,),
        },
    ),
    "Attention": _row(
        "use_scale score_mode dropout seed",
        Weight("scale", ("use_scale", False, True)),
        Weight("concat_score_weight", ("score_mode", "dot", "concat")),
        neutral={"causal": (False,)},
    ),
    "AdditiveAttention": _row(
        "use_scale dropout",
        Weight("scale", ("use_scale", True, True)),
        neutral={"causal": (False,), "score_mode": ("dot",)},
        dropped="seed",
    ),
    "GRUCell": _row(
        f"{_CELL} recurrent_activation reset_after", _KERNEL, _RECURRENT, _BIAS,
        objects=_THREE, dropped=_OLD_CELL,
    ),
    "SimpleRNNCell": _row(
        _CELL, _KERNEL, _RECURRENT, _BIAS, objects=_THREE, dropped=_OLD_CELL
    ),
    "GRU": _row(
        f"{_CELL} {_RNN} recurrent_activation reset_after", _KERNEL, _RECURRENT, _BIAS,
        objects=_THREE, dropped=_OLD_CELL, neutral=_NOT_TIME_MAJOR,
    ),
    "CuDNNGRU": _row(
        "units return_sequences return_state go_backwards stateful",
        _KERNEL, _RECURRENT, _BIAS,
        objects=_THREE, neutral=_NOT_TIME_MAJOR, today="GRU",
    ),
    "SimpleRNN": _row(
        f"{_CELL} {_RNN}", _KERNEL, _RECURRENT, _BIAS,
        objects=_THREE, dropped=_OLD_CELL, neutral=_NOT_TIME_MAJOR,
    ),
    "RNN": _row(
        f"{_RNN} zero_output_for_mask cell",
        dropped="activity_regularizer",
        neutral={"time_major": (False,), "num_constants": (0,)},
    ),
    "StackedRNNCells": _row("cells", neutral={"reverse_state_order": (False,)}),
    "TimeDistributed": _row("layer"),
    "Bidirectional": _row("layer backward_layer merge_mode", neutral={"num_constants": (0,)}),
    "InputLayer": _row("", neutral={"ragged": (False,)}, dropped="sparse optional"),
}


class Sizes(NamedTuple):
    """Where the sizes of a layer are seen in one of its weights.

    Fields: `role` of the weight; `inputs` and `outputs`: its axes that are as long as there are
    features going in and coming out, None where none is; `keyword` of the config that states the
    outputs, empty if none does; `grouped`: whether the axis of inputs is that of one group.
    """

    role: str
    inputs: int | None
    outputs: int | None
    keyword: str = ""
    grouped: bool = False


_OF_CONVOLUTION = Sizes("kernel", -2, -1, "filters", grouped=True)
_OF_CELL = Sizes("recurrent_kernel", None, 0, "units")
#: Class -> where its sizes are seen. Kernels have inputs before outputs, and a window first, except
#: for transposed convolutions.
SIZES: Mapping[str, Sizes] = {
    "Dense": Sizes("kernel", -2, -1, "units"),
    "Embedding": Sizes("embeddings", None, -1, "output_dim"),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _OF_CONVOLUTION),
    **dict.fromkeys(
        ("Conv1DTranspose", "Conv2DTranspose"), Sizes("kernel", -1, -2, "filters")
    ),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D"), Sizes("pointwise_kernel", None, -1, "filters")
    ),
    **dict.fromkeys(("GRUCell", "SimpleRNNCell", "GRU", "SimpleRNN"), _OF_CELL),
    **dict.fromkeys(("BatchNormalization", "GroupNormalization"), Sizes("gamma", 0, 0)),
    "LayerNormalization": Sizes("gamma", -1, -1),
}

#: Classes of tf.keras that represent a function between layers: see `operations`.
FUNCTIONS = frozenset({"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})
#: Classes that hold their weights in a cell of that class, under the attribute `cell`.
IN_A_CELL: Mapping[str, str] = {
    "GRU": "GRUCell",
    "CuDNNGRU": "GRUCell",
    "SimpleRNN": "SimpleRNNCell",
    "LSTM": "LSTMCell",
}
#: Classes whose arrays the neutral model has, as rows for where it does not: an LSTM that the user
#: puts in another layer's place.
PLAIN: Mapping[str, KerasClass] = {
    "LSTM": _row(
        f"{_CELL} {_RNN} recurrent_activation unit_forget_bias", _KERNEL, _RECURRENT, _BIAS,
        objects=_THREE, dropped=_OLD_CELL, neutral=_NOT_TIME_MAJOR,
    )
}
#: Classes with weights that cross to no Keras, for targets that take them (`Leave.classes`).
UNCROSSED: Mapping[str, KerasClass] = {
    "SpectralNormalization": _row(
        "layer", Weight("vector_u", also=("sn_u",), trainable=False), dropped="power_iterations"
    ),
    "ReversibleEmbedding": _row(
        "input_dim output_dim mask_zero tie_weights reverse_dtype logit_soft_cap",
        Weight("embeddings"),
        Weight("reverse_embeddings", ("tie_weights", True, False)),
        objects="embeddings",
    ),
    # A .keras calls it by its public name, an .h5 by its own.
    **dict.fromkeys(
        ("GroupQueryAttention", "GroupedQueryAttention"),
        _row(
            "head_dim num_query_heads num_key_value_heads dropout use_bias use_gate sliding_window",
            parts=("query_dense", "key_dense", "value_dense", "output_dense"),
            objects="kernel bias",
            dropped="flash_attention seed",
        ),
    ),
    "STFTSpectrogram": _row(
        "mode frame_length frame_step fft_length window periodic scaling padding expand_dims "
        "data_format",
        Weight("real_kernel", unless=("mode", "imag")),
        Weight("imag_kernel", unless=("mode", "real")),
    ),
    **dict.fromkeys(
        ("LocallyConnected1D", "LocallyConnected2D"),
        _row("filters kernel_size strides padding data_format activation use_bias implementation",
             _KERNEL, _BIAS, objects="kernel bias"),
    ),
}  # fmt: skip
#: Those that wrap one layer, whose first weight a v3 store holds once more before their own.
WRAPPERS = frozenset({"SpectralNormalization"})
#: The weights of each part of a MultiHeadAttention: an EinsumDense.
PART_WEIGHTS: tuple[Weight, ...] = (_KERNEL, _BIAS)
#: Classes that run over time and take their initial states when they are called.
RECURRENT = frozenset({"RNN", "GRU", "SimpleRNN", "Bidirectional", "CuDNNGRU"})
_WEIGHTS = [w for row in (*CLASSES.values(), *UNCROSSED.values()) for w in row.weights]
#: What Keras 3 calls the weights of its own layers.
ROLES = frozenset(weight.role for weight in _WEIGHTS)
#: The same, with what older Keras called them.
ROLES_OF_ALL_ERAS = ROLES.union(*(weight.also for weight in _WEIGHTS))
#: Layers that convolve with their first weight, which Theano flips.
CONVOLUTIONS = frozenset({"Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose"})

#: Class -> why it does not cross, where more can be said than that it has no row.
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("AbstractRNNCell", "InputSpec", "Layer", "Wrapper"),
        "it is a base of classes, and no layer of a model",
    ),
    "DenseFeatures": "Keras 3 has no feature columns: Normalization, StringLookup, Embedding and "
                     "their like replace them",
    "SequenceFeatures": "Keras 3 has no feature columns",
    **dict.fromkeys(
        ("LocallyConnected1D", "LocallyConnected2D"),
        "Keras 3 has no layer whose kernel is another at each place",
    ),
    **dict.fromkeys(
        ("RandomHeight", "RandomWidth"),
        "Keras 3 has no layer that changes the size of an image at random",
    ),
    "RandomCrop": "Keras 3 leaves an image as it is when it predicts, and Keras 2 cuts it to size",
    "CategoryCrossing": "it joins texts as they are, and Keras 3's HashedCrossing gives numbers",
    "Deconvolution2D": "Keras 3's Conv2DTranspose gives an output of another size than it states",
    "SReLU": "Keras 3 has no activation of four trained numbers for each feature",
    "ParametricSoftplus": "Keras 3 has no softplus with trained numbers",
    "Lambda": "it runs Python code that the file holds",
    "TFSMLayer": "it opens a SavedModel that the file names, and runs it",
    "TorchModuleWrapper": "it unpickles a PyTorch module that the file holds",
    "JaxLayer": "it runs functions that the file names",
    "FlaxLayer": "it runs a module that the file names",
    "SpectralNormalization": "its weights are stored differently in each kind of file",
    **dict.fromkeys(
        ("GroupQueryAttention", "GroupedQueryAttention"),
        "its weights are stored differently in each kind of file",
    ),
    "ReversibleEmbedding": "its weights are stored differently in each kind of file",
    "STFTSpectrogram": "its weights are computed by Keras when it is made",
    "Pipeline": "it holds layers in a list of its own",
    **dict.fromkeys(
        ("QuantizeWrapper", "QuantizeWrapperV2", "QuantizeLayer", "QuantizeAnnotate"),
        "it rounds as model-optimization's quantization does, which Keras 3 has no layer for",
    ),
    "ClusterWeights": "strip_clustering of model-optimization gives the layer that is in it",
    "PruneLowMagnitude": "it is taken away where a model is read; in another wrapper, "
                         "strip_pruning of model-optimization does",
}  # fmt: skip


def in_order(roles: Collection[str]) -> list[str] | None:
    """Return the weights of one of Keras's own layers in the order in which it makes them.

    Args:
        roles: the weights' names in Keras 3.

    Returns:
        The same names. None: no class has all of them, or two that have them differ.
    """
    orders = {
        tuple(weight.role for weight in row.weights if weight.role in roles)
        for row in (*CLASSES.values(), *UNCROSSED.values())
        if {weight.role for weight in row.weights}.issuperset(roles)
    }
    return list(orders.pop()) if len(orders) == 1 else None

"""The table of layer classes: what writes each.

What becomes of a mask behind a layer is told by the tables of `keras.modern.masking`, those of
Keras 2 for models of Keras 1 and 2, and of today's for those of Keras 3; or the function that
writes the layer decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lstmconvert.keras.configs.nodes import IDLE, MERGING
from lstmconvert.keras.modern import masking
from lstmconvert.keras.modern.classes import UNCROSSED, KerasClass
from lstmconvert.onnx.whole import (
    attention,
    basic,
    convolution,
    images,
    merging,
    normalization,
    preprocessing,
    recurrent,
    shaping,
    signals,
    wrappers,
)
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import Value

if TYPE_CHECKING:
    from lstmconvert.onnx.whole.network import Network


class OnnxClass(NamedTuple):
    """One class.

    Fields: `write`; `decides`: whether that sets the mask of what it returns; `wraps`: whether it
    writes layers inside, and takes the network for that.
    """

    write: Callable[..., Any]
    decides: bool = False
    wraps: bool = False

    def run(self, site: Site, network: Network) -> Any:
        """Write a call of the layer, with the mask of what it returns."""
        result = self.write(site, network) if self.wraps else self.write(site)
        if site.part.class_name in WIDE and site.policy == "float16":
            result = site.writer.cast(result, site.policy)
        if self.decides or not isinstance(result, Value):
            return result
        rules = masking.TODAY if site.is_modern else masking.OLD
        name = site.part.class_name
        if name not in masking.PASSING or name in rules.stopping:
            result.mask = None
        elif result.mask is None:  # Keras sets none where there is one already
            result.mask = site.passing
        return result


def _each(names: str, row: OnnxClass) -> dict[str, OnnxClass]:
    return dict.fromkeys(names.split(), row)


CLASSES: Mapping[str, OnnxClass] = {
    "Dense": OnnxClass(basic.dense),
    "Embedding": OnnxClass(basic.embedding, decides=True),
    "ReversibleEmbedding": OnnxClass(basic.reversible_embedding, decides=True),
    "Masking": OnnxClass(basic.masking, decides=True),
    "Activation": OnnxClass(basic.activation),
    "ReLU": OnnxClass(basic.relu),
    "LeakyReLU": OnnxClass(basic.leaky_relu),
    "ELU": OnnxClass(basic.elu),
    "PReLU": OnnxClass(basic.prelu),
    "Softmax": OnnxClass(basic.softmax),
    **dict.fromkeys(IDLE, OnnxClass(shaping.kept)),
    **dict.fromkeys(images.IDLE, OnnxClass(images.idle)),
    "RandomCrop": OnnxClass(images.random_crop),
    "CenterCrop": OnnxClass(images.center_crop),
    "Resizing": OnnxClass(images.resizing),
    "CategoryEncoding": OnnxClass(preprocessing.category_encoding),
    "Discretization": OnnxClass(preprocessing.discretization),
    "StringLookup": OnnxClass(preprocessing.string_lookup),
    "IntegerLookup": OnnxClass(preprocessing.integer_lookup),
    "TextVectorization": OnnxClass(preprocessing.text_vectorization),
    "EinsumDense": OnnxClass(basic.einsum_dense),
    "BatchNormalization": OnnxClass(normalization.batch),
    "LayerNormalization": OnnxClass(normalization.layer),
    "RMSNormalization": OnnxClass(normalization.rms),
    "GroupNormalization": OnnxClass(normalization.group),
    "UnitNormalization": OnnxClass(normalization.unit),
    "Normalization": OnnxClass(normalization.adapted),
    "Rescaling": OnnxClass(normalization.rescaling),
    **_each("Conv1D Conv2D Conv3D", OnnxClass(convolution.convolution)),
    **_each("LocallyConnected1D LocallyConnected2D", OnnxClass(convolution.locally_connected)),
    "STFTSpectrogram": OnnxClass(signals.stft_spectrogram),
    "MelSpectrogram": OnnxClass(signals.mel_spectrogram),
    "AutoContrast": OnnxClass(images.auto_contrast),
    "ContrastLimitedAdaptiveHistogramEqualization": OnnxClass(images.contrast_limited),
    **_each("DepthwiseConv1D DepthwiseConv2D", OnnxClass(convolution.depthwise)),
    **_each("SeparableConv1D SeparableConv2D", OnnxClass(convolution.separable)),
    **_each("Conv1DTranspose Conv2DTranspose Conv3DTranspose", OnnxClass(convolution.transposed)),
    **_each(
        "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D",
        OnnxClass(convolution.pooling),
    ),
    **_each(
        "AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D AdaptiveAveragePooling1D "
        "AdaptiveAveragePooling2D AdaptiveAveragePooling3D",
        OnnxClass(convolution.adaptive_pooling),
    ),
    **_each(
        "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D "
        "GlobalAveragePooling2D GlobalAveragePooling3D",
        OnnxClass(convolution.global_pooling),
    ),
    **_each("UpSampling1D UpSampling2D UpSampling3D", OnnxClass(shaping.upsampling)),
    **_each("ZeroPadding1D ZeroPadding2D ZeroPadding3D", OnnxClass(shaping.zero_padding)),
    **_each("Cropping1D Cropping2D Cropping3D", OnnxClass(shaping.cropping)),
    "Flatten": OnnxClass(shaping.flatten),
    "Reshape": OnnxClass(shaping.reshape),
    "Permute": OnnxClass(shaping.permute),
    "RepeatVector": OnnxClass(shaping.repeat),
    **_each(
        "Add Subtract Multiply Average Maximum Minimum",
        OnnxClass(merging.elementwise, decides=True),
    ),
    "Concatenate": OnnxClass(merging.concatenate, decides=True),
    "Dot": OnnxClass(merging.dot),
    **_each("Attention AdditiveAttention", OnnxClass(attention.attention, decides=True)),
    "MultiHeadAttention": OnnxClass(attention.multihead, decides=True),
    **_each(
        "GroupQueryAttention GroupedQueryAttention", OnnxClass(attention.grouped, decides=True)
    ),
    "TimeDistributed": OnnxClass(wrappers.time_distributed, decides=True, wraps=True),
    "SpectralNormalization": OnnxClass(wrappers.spectral, decides=True, wraps=True),
    **_each("GRU SimpleRNN RNN", OnnxClass(recurrent.gated, decides=True)),
    "Bidirectional": OnnxClass(recurrent.bidirectional, decides=True),
}

#: Classes without weights that are not rows of the table of `keras.modern` -> the keywords that are
#: read here, or do not change what a model computes; None: none of the layer's keywords does.
WITHOUT_WEIGHTS: Mapping[str, frozenset[str] | None] = {
    **dict.fromkeys((*images.IDLE, "RandomCrop")),
    **{name: frozenset(f"{words} data_format rng_type seed".split()) for name, words in {
        "CenterCrop": "height width",
        "Resizing": "height width interpolation crop_to_aspect_ratio pad_to_aspect_ratio fill_mode "
                    "fill_value antialias",
        "AutoContrast": "value_range",
        "ContrastLimitedAdaptiveHistogramEqualization": "value_range clip_limit tile_grid_size",
        "MelSpectrogram": "fft_length sequence_stride sequence_length window sampling_rate "
                          "num_mel_bins min_freq max_freq power_to_db top_db mag_exp min_power "
                          "ref_power",
        "CategoryEncoding": "num_tokens output_mode sparse",
        "Discretization": "bin_boundaries num_bins epsilon output_mode sparse",
        "StringLookup": "invert max_tokens num_oov_indices oov_token mask_token output_mode sparse "
                        "pad_to_max_tokens vocabulary vocabulary_size encoding oov_method salt",
        "IntegerLookup": "invert max_tokens num_oov_indices oov_token mask_token output_mode "
                         "sparse pad_to_max_tokens vocabulary_dtype vocabulary vocabulary_size "
                         "oov_method salt",
    }.items()},
    **dict.fromkeys(
        (f"Adaptive{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)),
        frozenset({"output_size", "data_format"}),
    ),
}  # fmt: skip
#: Class that crosses from one Keras to another -> why it has no row above.
UNSAID: Mapping[str, str] = dict.fromkeys(
    ("HashedCrossing", "Hashing"), "ONNX has no hash of a text, as which Keras hashes a number too"
)


def why_not(name: str) -> str:
    """Return why a class has no row here."""
    why = f"no operators of ONNX are known for the class {name}"
    return f"{why}: {UNSAID[name]}" if name in UNSAID else why


#: Classes without a row of `keras.modern`, or whose weights go to no other Keras.
WITHOUT_ROW: Mapping[str, KerasClass] = {
    **dict.fromkeys(WITHOUT_WEIGHTS, KerasClass()),
    **UNCROSSED,
}
#: Classes whose call takes a list of values.
TAKES_LIST = MERGING | {"Attention", "AdditiveAttention"}
#: Classes that Keras computes in float32 whatever their dtype, and casts at the end.
WIDE = frozenset(
    {"BatchNormalization", "LayerNormalization", "RMSNormalization", "GroupNormalization"}
)
#: Keywords that a class takes beside those of Keras's table.
TAKEN: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("GRU", "SimpleRNN", "RNN", "CuDNNGRU"),
                    frozenset({"time_major", "zero_output_for_mask"})),
    **dict.fromkeys(("Attention", "AdditiveAttention"), frozenset({"causal"})),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
                    frozenset({"output_padding"})),
    "LayerNormalization": frozenset({"rms_scaling"}),
    "Normalization": frozenset({"invert"}),
    "MultiHeadAttention": frozenset({"softmax_robust_masking", "use_gate", "sliding_window"}),
    "Softmax": frozenset({"robust_masking"}),
}  # fmt: skip

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
from lstmconvert.keras.modern.classes import UNCROSSED
from lstmconvert.keras.modern.classes import Row as KerasRow
from lstmconvert.onnx.whole import (
    attention,
    basic,
    convolution,
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


class Row(NamedTuple):
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


def _each(names: str, row: Row) -> dict[str, Row]:
    return dict.fromkeys(names.split(), row)


CLASSES: Mapping[str, Row] = {
    "Dense": Row(basic.dense),
    "Embedding": Row(basic.embedding, decides=True),
    "ReversibleEmbedding": Row(basic.reversible_embedding, decides=True),
    "Masking": Row(basic.masking, decides=True),
    "Activation": Row(basic.activation),
    "ReLU": Row(basic.relu),
    "LeakyReLU": Row(basic.leaky_relu),
    "ELU": Row(basic.elu),
    "PReLU": Row(basic.prelu),
    "Softmax": Row(basic.softmax),
    **dict.fromkeys(IDLE, Row(shaping.kept)),
    **dict.fromkeys(preprocessing.IDLE, Row(preprocessing.idle)),
    "RandomCrop": Row(preprocessing.random_crop),
    "CenterCrop": Row(preprocessing.center_crop),
    "Resizing": Row(preprocessing.resizing),
    "CategoryEncoding": Row(preprocessing.category_encoding),
    "Discretization": Row(preprocessing.discretization),
    "StringLookup": Row(preprocessing.string_lookup),
    "IntegerLookup": Row(preprocessing.integer_lookup),
    "TextVectorization": Row(preprocessing.text_vectorization),
    "EinsumDense": Row(basic.einsum_dense),
    "BatchNormalization": Row(normalization.batch),
    "LayerNormalization": Row(normalization.layer),
    "RMSNormalization": Row(normalization.rms),
    "GroupNormalization": Row(normalization.group),
    "UnitNormalization": Row(normalization.unit),
    "Normalization": Row(normalization.adapted),
    "Rescaling": Row(normalization.rescaling),
    **_each("Conv1D Conv2D Conv3D", Row(convolution.convolution)),
    **_each("LocallyConnected1D LocallyConnected2D", Row(convolution.locally_connected)),
    "STFTSpectrogram": Row(signals.stft_spectrogram),
    "MelSpectrogram": Row(signals.mel_spectrogram),
    "AutoContrast": Row(preprocessing.auto_contrast),
    "ContrastLimitedAdaptiveHistogramEqualization": Row(preprocessing.contrast_limited),
    **_each("DepthwiseConv1D DepthwiseConv2D", Row(convolution.depthwise)),
    **_each("SeparableConv1D SeparableConv2D", Row(convolution.separable)),
    **_each("Conv1DTranspose Conv2DTranspose Conv3DTranspose", Row(convolution.transposed)),
    **_each(
        "MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D "
        "AveragePooling3D",
        Row(convolution.pooling),
    ),
    **_each(
        "AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D AdaptiveAveragePooling1D "
        "AdaptiveAveragePooling2D AdaptiveAveragePooling3D",
        Row(convolution.adaptive_pooling),
    ),
    **_each(
        "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D "
        "GlobalAveragePooling2D GlobalAveragePooling3D",
        Row(convolution.global_pooling),
    ),
    **_each("UpSampling1D UpSampling2D UpSampling3D", Row(shaping.upsampling)),
    **_each("ZeroPadding1D ZeroPadding2D ZeroPadding3D", Row(shaping.zero_padding)),
    **_each("Cropping1D Cropping2D Cropping3D", Row(shaping.cropping)),
    "Flatten": Row(shaping.flatten),
    "Reshape": Row(shaping.reshape),
    "Permute": Row(shaping.permute),
    "RepeatVector": Row(shaping.repeat),
    **_each(
        "Add Subtract Multiply Average Maximum Minimum", Row(merging.elementwise, decides=True)
    ),
    "Concatenate": Row(merging.concatenate, decides=True),
    "Dot": Row(merging.dot),
    **_each("Attention AdditiveAttention", Row(attention.attention, decides=True)),
    "MultiHeadAttention": Row(attention.multihead, decides=True),
    **_each(
        "GroupQueryAttention GroupedQueryAttention", Row(attention.grouped, decides=True)
    ),
    "TimeDistributed": Row(wrappers.time_distributed, decides=True, wraps=True),
    "SpectralNormalization": Row(wrappers.spectral, decides=True, wraps=True),
    **_each("GRU SimpleRNN RNN", Row(recurrent.gated, decides=True)),
    "Bidirectional": Row(recurrent.bidirectional, decides=True),
}

#: Classes without weights that are not rows of the table of `keras.modern` -> the keywords that are
#: read here, or do not change what a model computes; None: none of the layer's keywords does.
WITHOUT_WEIGHTS: Mapping[str, frozenset[str] | None] = {
    **dict.fromkeys((*preprocessing.IDLE, "RandomCrop")),
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
WITHOUT_ROW: Mapping[str, KerasRow] = {**dict.fromkeys(WITHOUT_WEIGHTS, KerasRow()), **UNCROSSED}
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

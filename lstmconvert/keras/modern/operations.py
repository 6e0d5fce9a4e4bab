"""TensorFlow's functions between the layers of a functional model, as Keras 3's operations.

`x[:, -1] + y` in a model of tf.keras leaves a `SlicingOpLambda` and a `TFOpLambda` in its config,
which name the function and hold its arguments where the call is; TensorFlow 2.0 to 2.3 left a
`TensorFlowOpLayer`, which holds an operator of TensorFlow's graphs. Keras 3 has an
operation for most (keras/src/ops); some are several operations, one after the other. The table is
closed: any other function is refused by name, and so is an argument at a value that the operation
does not have.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.keras.configs.nodes import snake_case
from lstmconvert.keras.configs.spelling import LAYERS, serialized
from lstmconvert.keras.modern.parts import Part, unsupported

GETITEM = "__operators__.getitem"
_OPS = "keras.src.ops."
_NUMPY, _NN, _MATH, _CORE = f"{_OPS}numpy", f"{_OPS}nn", f"{_OPS}math", f"{_OPS}core"

#: Every operation of Keras 3.15 that computes by itself, by module (keras/src/ops). Left out are
#: those that hold functions of the user's own (Map, Scan, Cond and their like).
_BARE = {
    "core": (
        "Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient "
        "Unstack"
    ),
    "image": (
        "AffineTransform CropImages ElasticTransform ExtractPatches GaussianBlur HSVToRGB "
        "MapCoordinates PadImages PerspectiveTransform RGBToGrayscale RGBToHSV Resize SSIM "
        "ScaleAndTranslate SobelEdges"
    ),
    "linalg": (
        "Cholesky CholeskyInverse Det Eig Eigh Inv Lstsq LuFactor MatrixRank Norm Pinv Qr SVD "
        "Solve SolveTriangular"
    ),
    "math": (
        "CDist Erf Erfc Erfinv ExtractSequences FFT FFT2 IFFT2 IRFFT ISTFT InTopK Logdet Logsumexp "
        "RFFT Rsqrt STFT SegmentMax SegmentMin SegmentProd SegmentSum TopK ViewAsComplex ViewAsReal"
    ),
    "nn": (
        "AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm BinaryCrossentropy CTCDecode "
        "CTCLoss CategoricalCrossentropy Celu Conv ConvTranspose DepthToSpace DepthwiseConv "
        "DotProductAttention Elu Fold Gelu Glu HardShrink HardSigmoid HardSilu HardTanh LayerNorm "
        "LeakyRelu LogSigmoid LogSoftmax MaxPool Moments MultiHot Normalize OneHot PSNR Polar "
        "RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu SoftShrink Softmax Softplus Softsign "
        "SpaceToDepth SparseCategoricalCrossentropy SparsePlus SparseSigmoid Sparsemax Squareplus "
        "TanhShrink Threshold Unfold"
    ),
    "numpy": (
        "Abs Absolute Add All AllClose Amax Amin Angle Any Append Arange Arccos Arccosh Arcsin "
        "Arcsinh Arctan Arctan2 Arctanh Argmax Argmin Argpartition Argsort Array ArraySplit "
        "Average Bincount BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr "
        "BitwiseRightShift BitwiseXor BroadcastTo Cbrt Ceil Clip Concatenate Conj Conjugate Copy "
        "Corrcoef Correlate Cos Cosh CountNonzero Cross Cumprod Cumsum Deg2rad Diag Diagflat "
        "Diagonal Diff Digitize Divide DivideNoNan Dot Dsplit Dstack Einsum EmptyLike Equal Exp "
        "Exp2 ExpandDims Expm1 Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin Fmod Full "
        "FullLike Gcd Geomspace GetItem Greater GreaterEqual Heaviside Histogram Hsplit Hstack "
        "Hypot I0 Imag Inner IsIn Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal Kron Lcm "
        "Ldexp LeftShift Less LessEqual Linspace Log Log10 Log1p Log2 Logaddexp Logaddexp2 "
        "LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Matmul Max Maximum Mean Median "
        "Meshgrid Min Minimum Mod Moveaxis Multiply NanToNum Nanargmax Nanargmin Nancumprod "
        "Nancumsum Nanmax Nanmean Nanmedian Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum "
        "Nanvar Ndim Negative Nextafter Nonzero NotEqual OnesLike Outer Pad Percentile Power Prod "
        "Ptp Quantile Rad2deg Ravel Real Reciprocal Repeat Reshape RightShift Roll Rot90 Round "
        "SearchSorted Select Sign Signbit Sin Sinc Sinh Size Slogdet Sort Split Sqrt Square "
        "Squeeze Stack Std Subtract Sum Swapaxes Take TakeAlongAxis Tan Tanh Tensordot Tile Trace "
        "Transpose Trapezoid Tril Triu TrueDivide Trunc Unique UnravelIndex Vander Var Vdot View "
        "Vsplit Vstack Where ZerosLike"
    ),
}
#: Bare operation of Keras 3 -> the module of its class.
BARE: Mapping[str, str] = {
    name: f"{_OPS}{module}" for module, names in _BARE.items() for name in names.split()
}

#: Operations that give truth values, and those that give indices.
_TRUTHS = frozenset(
    {
        *("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual", "Any", "All"),
        *("LogicalAnd", "LogicalOr", "LogicalNot", "LogicalXor", "Isnan", "Isinf", "Isfinite"),
    }
)
_INDICES = frozenset({"Argmax", "Argmin", "Argsort", "CountNonzero"})


@dataclass(frozen=True, slots=True)
class Applied:
    """An operation, or a layer without weights, of Keras 3 on its arguments.

    Fields: `module`, `class_name` and `config`, without a name, of the operation; `arguments`:
    tensors, plain values, lists of both, and what other operations give; `leads`: whether the first
    axis is known to be that of the samples.
    """

    module: str
    class_name: str
    config: Mapping[str, Json]
    arguments: tuple[Any, ...]
    leads: bool = False

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer, and no bare operation."""
        return self.module == LAYERS

    def tensors(self) -> Iterable[Any]:
        """Yield the tensors and operations among the arguments."""
        for argument in self.arguments:
            for item in argument if isinstance(argument, list) else [argument]:
                if isinstance(item, (tuple, Applied)):
                    yield item


def serialized_operation(
    module: str, class_name: str, config: Mapping[str, Json], name: str, names: Iterable[str]
) -> JsonObject:
    """Return an operation as Keras 3 serializes it.

    Most operations take no name in Keras 3.10, and do in 3.15; they get none, unless the one that
    Keras makes up could be that of a layer.
    """
    made_up = snake_case(class_name)
    stated: JsonObject = dict(config)
    if any(other.startswith(made_up) for other in names):
        stated = {"name": name, **config}
    return {**serialized(module, class_name, stated), "registered_name": class_name}


class Unstacked:
    """A function of several outputs, each of which is an operation.

    Args:
        output: gives the operation of the output of that number.
    """

    def __init__(self, output: Callable[[int], Applied]) -> None:
        self.output = output


class Size:
    """A length that only the data has: what a function of a tensor's shape gives."""

    def __repr__(self) -> str:
        return "a size that only the data has"


class Shape(Size):
    """The lengths of all axes of a tensor, or of some; `tensor` is None where it is not all."""

    def __init__(self, tensor: Any = None) -> None:
        self.tensor = tensor


class BatchSize(Size):
    """The number of samples of a batch: the length of the first axis of a tensor."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __repr__(self) -> str:
        return "the number of samples"


@dataclass(slots=True, eq=False)
class FunctionCall:
    """A call of a function.

    Fields: `part`: the function's; `function`: its name, without `tf`; `first`: its first argument:
    a tensor, a plain value, or a list of both; `keywords`: its other arguments; `dtype_of`: returns
    the dtype of a tensor, None if it is not known; `leads`: whether the first axis of a tensor is
    that of the samples; `taken`: the keywords that were asked for.
    """

    part: Part
    function: str
    first: Any
    keywords: Mapping[str, Any]
    dtype_of: Callable[[Any], str | None]
    leads: Callable[[Any], bool]
    taken: set[str] = field(default_factory=set)

    def get(self, name: str, turn: Callable[[Json], Json], default: Json = None) -> Json:
        """Return a plain argument as Keras 3 takes it; the default if the call leaves it out.

        Raises:
            UnsupportedByTarget: Keras 3 does not have the value.
        """
        self.taken.add(name)
        value = self.keywords.get(name)
        if value is None:
            return default
        turned = turn(value)
        if turned is None:
            raise self.refused(name, value)
        return turned

    def only(self, name: str, *values: Json) -> None:
        """Check that an argument is left out, or has a value at which it changes nothing."""
        self.taken.add(name)
        value = self.keywords.get(name)
        is_plain = value is None or isinstance(value, (bool, int, float, str, list))
        if value is not None and not (is_plain and value in values):
            raise self.refused(name, value)

    def operand(self, name: str) -> Any:
        """Return an argument that is a tensor, a number, or an array of numbers."""
        self.taken.add(name)
        return self.constant(self.keywords.get(name), name)

    def constant(self, value: Any, name: str, like: Any = None) -> Any:
        """Return a tensor or number as it is, and a list of numbers as an array of the dtype that
        the tensor of the call has, since TensorFlow promotes nothing.

        Args:
            value: the argument.
            name: of the argument.
            like: the tensor whose dtype an array gets, if not the first one of the call.
        """
        if isinstance(value, tuple) or _scalar(value) is not None:
            return value
        if not isinstance(value, list) or not _is_array(value):
            raise self.refused(name, value)
        tensor = like or next(iter(self._tensors()), None)
        dtype = None if tensor is None else self.dtype_of(tensor)
        if dtype is None:
            raise self.refused(name, "an array of a dtype that the config does not say")
        return array(value, dtype)

    def _tensors(self) -> Iterable[Any]:
        for value in (self.first, *self.keywords.values()):
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, tuple):
                    yield item

    def tensor(self) -> Any:
        """Return the first argument, which is a tensor, a number or an array of numbers."""
        return self.constant(self.first, "inputs")

    def check(self) -> None:
        """Check that every argument was asked for.

        Raises:
            UnsupportedByTarget: one was not.
        """
        for name, value in self.keywords.items():
            if name not in self.taken and name != "name" and value is not None:
                raise self.refused(name, value)

    def refused(self, argument: str, value: Any, why: str = "") -> UnsupportedByTarget:
        """Return the error for an argument that the operation does not have."""
        what = why or f"Keras 3's operation for tf.{self.function} has no such {argument}"
        return unsupported(what, self.part.name, argument, str(value)[:80])


def array(value: Json, dtype: str) -> JsonObject:
    """Return an array as Keras 3 serializes it among the arguments of a call."""
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


# -- values ------------------------------------------------------------------------------------


def _is_int(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _scalar(value: Json) -> Json:
    return value if isinstance(value, (bool, int, float)) else None


def _is_array(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_array, value))
    return _scalar(value) is not None


def _one_int(value: Json) -> Json:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if _is_int(value) else None


def _ints(value: Json) -> Json:
    return value if isinstance(value, list) and all(map(_is_int, value)) else None


def _int_or_ints(value: Json) -> Json:
    return value if _is_int(value) else _ints(value)


def _pairs(value: Json) -> Json:
    is_list = isinstance(value, list) and all(_ints(pair) for pair in value)
    return value if is_list else None


def _flag(value: Json) -> Json:
    return value if isinstance(value, bool) else None


def _number(value: Json) -> Json:
    return value if _is_int(value) or isinstance(value, float) else None


def _dtype(value: Json) -> Json:
    return value if isinstance(value, str) and value.isalnum() else None


def _word(*words: str) -> Callable[[Json], Json]:
    return lambda value: value.lower() if isinstance(value, str) and value in words else None


def _sections(value: Json) -> Json:
    """Sizes of the pieces, as the places to cut at; the last piece may be what is left."""
    if isinstance(value, list) and value and _ints(value):
        before, last = value[:-1], value[-1]
        if min(before, default=1) > 0 and (last > 0 or last == -1):
            return list(accumulate(before))
        return None
    return value if _is_int(value) else None


def _axes(value: Json) -> Json:
    """Tensordot's: a count, or the axes of each tensor."""
    if isinstance(value, list) and len(value) == 2:
        if all(_is_int(item) for item in value):
            return [[value[0]], [value[1]]]
        return value if all(_ints(item) for item in value) else None
    return value if _is_int(value) else None


# -- functions that are one operation ----------------------------------------------------------

Function = Callable[[FunctionCall], Applied | Unstacked]


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A function that is one operation of Keras 3.

    Fields: `module` and `class_name`; `others`: the function's arguments after the first that are
    arguments of the call here too; `keywords`: argument -> (keyword of the class, what turns its
    value into the class's, or returns None); `fixed`: what keywords are unless the call says
    otherwise; `neutral`: argument -> the values at which it changes nothing; `needed`: a keyword
    without which the operation is another; `lists`: whether it takes a list of tensors.
    """

    module: str
    class_name: str
    others: tuple[str, ...] = ()
    keywords: Mapping[str, tuple[str, Callable[[Json], Json]]] = field(default_factory=dict)
    fixed: Mapping[str, Json] = field(default_factory=dict)
    neutral: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)
    needed: str = ""
    lists: bool = False

    def __call__(self, given: FunctionCall) -> Applied:
        """Return the operation on a call's arguments.

        Raises:
            UnsupportedByTarget: the operation does not have an argument, or not this value.
        """
        config: JsonObject = dict(self.fixed)
        for argument, (keyword, turn) in self.keywords.items():
            value = given.get(argument, turn)
            if value is not None:
                config[keyword] = value
        for argument, values in self.neutral.items():
            given.only(argument, *values)
        if self.needed and self.needed not in config:
            raise given.refused(self.needed, None)
        if self.lists:
            first: Any = [given.constant(item, "inputs") for item in given.first]
        else:
            first = given.tensor()
        others = tuple(given.operand(name) for name in self.others)
        return Applied(self.module, self.class_name, config, (first, *others))


def _numpy(class_name: str, *others: str, **neutral: tuple[Json, ...]) -> Operation:
    return Operation(_NUMPY, class_name, others, neutral=neutral)


def _nn(class_name: str) -> Operation:
    return Operation(_NN, class_name)


def _shaping(
    class_name: str, argument: str, keyword: str, turn: Callable[[Json], Json],
    *, lists: bool = False, **fixed: Json,
) -> Operation:
    """An operation with one keyword; `fixed`: what it is where the argument is left out, without
    which it is needed."""
    keywords = {argument: (keyword, turn)}
    needed = "" if fixed else keyword
    return Operation(
        _NUMPY, class_name, (), keywords, fixed, needed=needed, lists=lists
    )  # fmt: skip


def _reducing(class_name: str, module: str = _NUMPY) -> Operation:
    keywords = {"axis": ("axis", _int_or_ints), "keepdims": ("keepdims", _flag)}
    return Operation(module, class_name, (), keywords)


def _apply(module: str, class_name: str, *arguments: Any, **config: Json) -> Applied:
    return Applied(module, class_name, config, arguments)


def _identity(value: Any) -> Applied:
    return _apply(_NUMPY, "Multiply", value, 1)  # as Keras 3 has no operation that does nothing


def _cast(value: Any, dtype: Json) -> Applied:
    return _apply(_CORE, "Cast", value, dtype=dtype)


_TRANSPOSE = Operation(
    _NUMPY, "Transpose", (), {"perm": ("axes", _ints)}, neutral={"conjugate": (False,)}
)
_EXPAND = _shaping("ExpandDims", "axis", "axis", _one_int)
_RESIZED = _word("bilinear", "nearest", "bicubic")


# -- functions that are several ----------------------------------------------------------------


def _matmul(given: FunctionCall) -> Applied:
    """Transposes are operations of their own: Keras 3's product has none."""
    given.only("a_is_sparse", False)
    given.only("b_is_sparse", False)
    given.only("output_type")
    given.only("grad_a", False)
    given.only("grad_b", False)
    operands = [given.tensor(), given.operand("b")]
    for index, name in enumerate("ab"):
        names = (f"transpose_{name}", f"adjoint_{name}")  # of real numbers they are the same
        flags = [given.get(each, _flag, False) for each in names]
        if True in flags:
            operands[index] = _apply(_NUMPY, "Swapaxes", operands[index], axis1=-2, axis2=-1)
    return _apply(_NUMPY, "Matmul", *operands)


def _get_item(given: FunctionCall) -> Applied:
    given.taken.add("slice_spec")
    spec = given.keywords.get("slice_spec")
    listed = spec if isinstance(spec, list) else [spec]
    return picked(given.tensor(), [_index(given, item) for item in listed])


def picked(tensor: Any, key: list[Json]) -> Applied:
    """Return a tensor at an index, as Keras 3 writes it. A whole axis backwards is an operation of
    its own: PyTorch has no steps below 0."""
    spec: list[Json] = []
    axis: int | None = 0
    for item in key:
        if isinstance(item, dict) and item.get("config") == _BACKWARDS and axis is not None:
            tensor = _apply(_NUMPY, "Flip", tensor, axis=axis)
            spec.extend(_slices([(None, None, None)]))
        else:
            spec.append(item)
        is_rest = isinstance(item, dict) and item.get("class_name") == "__ellipsis__"
        if is_rest or axis is None:
            axis = None
        elif item is not None:
            axis += 1
    return _apply(_NUMPY, "GetItem", tensor, spec)


def _index(given: FunctionCall, value: Any) -> Json:
    """One index as Keras 3 writes it (keras/src/saving/serialization_lib.py)."""
    if value is None or _is_int(value):
        index: Json = value
        return index
    if isinstance(value, dict) and value.get("class_name") == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    is_slice = isinstance(value, dict) and value.keys() == {"start", "stop", "step"}
    if is_slice and all(item is None or _is_int(item) for item in value.values()):
        return {"class_name": "__slice__", "config": value}
    raise given.refused("slice_spec", value)


_BACKWARDS: JsonObject = {"start": None, "stop": None, "step": -1}


def _slices(ranges: Iterable[tuple[Json, Json, Json]]) -> list[Json]:
    return [
        {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": step}}
        for start, stop, step in ranges
    ]


def _sliced(given: FunctionCall) -> Applied:
    begin, size = given.get("begin", _ints), given.get("size", _ints)
    if not isinstance(begin, list) or not isinstance(size, list) or len(begin) != len(size):
        raise given.refused("begin", given.keywords.get("begin"))
    ends = [None if n == -1 else start + n for start, n in zip(begin, size, strict=True)]
    spec = _slices((start, end, None) for start, end in zip(begin, ends, strict=True))
    return _apply(_NUMPY, "GetItem", given.tensor(), spec)


def _strided(given: FunctionCall) -> Applied:
    return picked(given.tensor(), _strided_key(given))


def _strided_key(given: FunctionCall) -> list[Json]:
    """Return the index that an operator has as lists of numbers.

    Masks are bits: of axes that begin or end where the tensor does, that are new, or taken by
    one index (tensorflow/core/ops/array_ops.cc, StridedSlice)."""
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    begins, ends, rest, new, taken = (int(given.get(name, _one_int, 0)) for name in names)
    starts, stops = given.get("begin", _ints), given.get("end", _ints)
    steps = given.get("strides", _ints)
    given.only("var")
    if not isinstance(starts, list) or not isinstance(stops, list) or len(starts) != len(stops):
        raise given.refused("begin", given.keywords.get("begin"))
    steps = steps if isinstance(steps, list) else [1] * len(starts)
    spec: list[Json] = []
    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        bit = 1 << axis
        if rest & bit:
            spec.append({"class_name": "__ellipsis__", "config": {}})
        elif new & bit:
            spec.append(None)
        elif taken & bit:
            spec.append(start)
        else:
            place = (None if begins & bit else start, None if ends & bit else stop, step)
            spec.extend(_slices([place]))
    return spec


def _where(given: FunctionCall) -> Applied:
    given.only("condition")
    if given.keywords.get("x") is None or given.keywords.get("y") is None:
        raise given.refused("x", None, "the places where a condition holds are of no fixed number")
    values = [given.keywords["x"], given.keywords["y"]]
    given.taken.update("xy")
    like = next((value for value in values if isinstance(value, tuple)), None)
    branches = [given.constant(v, name, like) for v, name in zip(values, "xy", strict=True)]
    return _apply(_NUMPY, "Where", given.tensor(), *branches)


def _gather(given: FunctionCall) -> Applied:
    given.only("batch_dims", 0)
    given.only("validate_indices", True, False)
    axis = given.get("axis", _one_int, 0)
    indices = given.keywords.get("indices")
    given.taken.add("indices")
    if isinstance(indices, list):
        if not _is_array(indices):
            raise given.refused("indices", indices)
        indices = array(indices, "int32")
    elif not isinstance(indices, tuple) and not _is_int(indices):
        raise given.refused("indices", indices)
    table = given.first
    if isinstance(table, list):
        if not _is_array(table):
            raise given.refused("params", "a list of tensors")
        numbers = list(_flat(table))
        table = array(table, "int32" if all(map(_is_int, numbers)) else "float32")
    return _apply(_NUMPY, "Take", table, indices, axis=axis)


def _einsum(given: FunctionCall) -> Applied:
    """Of an operator; a function of tf.keras has no operands in a file."""
    equation = given.get("equation", lambda value: value if isinstance(value, str) else None)
    if equation is None:
        raise given.refused("inputs", given.first, _LOST.format("einsum"))
    return _apply(_NUMPY, "Einsum", *given.first, subscripts=equation)


#: Why a function of any number of arguments is refused: only the first is in a file.
_LOST = "the files of its Keras do not hold what tf.{} is called with, and no Keras reads them"


def _flat(value: Any) -> Iterable[Any]:
    for item in value:
        yield from _flat(item) if isinstance(item, list) else [item]


def _split(given: FunctionCall) -> Applied:
    given.only("num")
    sections = given.get("num_or_size_splits", _sections)
    if sections is None:
        raise given.refused("num_or_size_splits", None)
    axis = given.get("axis", _one_int, 0)
    config = {"indices_or_sections": sections, "axis": axis}
    return Applied(_NUMPY, "Split", config, (given.tensor(),))


def _unstack(given: FunctionCall) -> Unstacked:
    axis, tensor = given.get("axis", _one_int, 0), given.tensor()
    given.get("num", _one_int)
    if not isinstance(axis, int):
        raise given.refused("axis", axis)

    def output(number: int) -> Applied:
        if axis < 0:
            return _apply(_NUMPY, "Take", tensor, number, axis=axis)
        before = _slices([(None, None, None)] * axis)
        return _apply(_NUMPY, "GetItem", tensor, [*before, number])

    return Unstacked(output)


def _running(class_name: str) -> Function:
    def function(given: FunctionCall) -> Applied:
        given.only("exclusive", False)
        axis, is_reversed = given.get("axis", _one_int, 0), given.get("reverse", _flag, False)
        value = given.tensor()
        if is_reversed:
            value = _apply(_NUMPY, "Flip", value, axis=axis)
        value = _apply(_NUMPY, class_name, value, axis=axis)
        return _apply(_NUMPY, "Flip", value, axis=axis) if is_reversed else value

    return function


def _place(class_name: str) -> Function:
    def function(given: FunctionCall) -> Applied:
        axis = given.get("dimension", _one_int, given.get("axis", _one_int, 0))
        wanted = given.get("output_type", _dtype, "int64")
        return _cast(_apply(_NUMPY, class_name, given.tensor(), axis=axis), wanted)

    return function


def _sorting(class_name: str) -> Function:
    def function(given: FunctionCall) -> Applied:
        axis = given.get("axis", _one_int, -1)
        order = given.get("direction", _word("ASCENDING", "DESCENDING"), "ascending")
        given.only("stable", False, True)
        value = given.tensor()
        if order == "ascending":
            return _apply(_NUMPY, class_name, value, axis=axis)
        if class_name == "Sort":
            return _apply(_NUMPY, "Flip", _apply(_NUMPY, "Sort", value, axis=axis), axis=axis)
        return _apply(_NUMPY, class_name, _apply(_NUMPY, "Negative", value), axis=axis)

    return function


def _like(class_name: str) -> Function:
    def function(given: FunctionCall) -> Applied:
        given.only("optimize", True, False)
        dtype, value = given.get("dtype", _dtype), _apply(_NUMPY, class_name, given.tensor())
        return value if dtype is None else _cast(value, dtype)

    return function


def _summed(given: FunctionCall) -> Applied:
    given.only("shape")
    given.only("tensor_dtype")
    together = _apply(_NUMPY, "Stack", [given.constant(x, "inputs") for x in given.first], axis=0)
    return _apply(_NUMPY, "Sum", together, axis=0)


def _squared_difference(given: FunctionCall) -> Applied:
    unlike = _apply(_NUMPY, "Subtract", given.tensor(), given.operand("y"))
    return _apply(_NUMPY, "Square", unlike)


def _exclusive_or(given: FunctionCall) -> Applied:
    return _apply(_NUMPY, "NotEqual", given.tensor(), given.operand("y"))


def _counted(given: FunctionCall) -> Applied:
    given.only("keepdims", False)
    axis, dtype = given.get("axis", _int_or_ints), given.get("dtype", _dtype, "int64")
    return _cast(_apply(_NUMPY, "CountNonzero", given.tensor(), axis=axis), dtype)


def _length(given: FunctionCall) -> Applied:
    """The length of a vector, by any of three norms."""
    order = given.keywords.get("ord", "euclidean")
    given.taken.add("ord")
    axis, is_kept = given.get("axis", _one_int), given.get("keepdims", _flag, False)
    keywords = {"axis": axis, "keepdims": is_kept}
    size = _apply(_NUMPY, "Absolute", given.tensor())
    if order == 1:
        return Applied(_NUMPY, "Sum", keywords, (size,))
    if order != "euclidean" and not (order == 2 and axis is not None):
        raise given.refused("ord", order)
    square = Applied(_NUMPY, "Sum", keywords, (_apply(_NUMPY, "Square", given.tensor()),))
    return _apply(_NUMPY, "Sqrt", square)


def _one_hot(given: FunctionCall) -> Applied:
    given.only("on_value", 1, 1.0, True)
    given.only("off_value", 0, 0.0, False)
    depth = given.get("depth", _one_int)
    axis, dtype = given.get("axis", _one_int, -1), given.get("dtype", _dtype, "float32")
    if depth is None:
        raise given.refused("depth", given.keywords.get("depth"))
    return _apply(_NN, "OneHot", given.tensor(), num_classes=depth, axis=axis, dtype=dtype)


def _padded(given: FunctionCall) -> Applied:
    width = given.get("paddings", _pairs)
    if width is None:
        raise given.refused("paddings", given.keywords.get("paddings"))
    mode = given.get("mode", _word("CONSTANT", "REFLECT", "SYMMETRIC"), "constant")
    value = given.get("constant_values", _number, 0)
    rest = (value,) if value and mode == "constant" else ()
    return _apply(_NUMPY, "Pad", given.tensor(), *rest, pad_width=width, mode=mode)


def _squeezed(given: FunctionCall) -> Applied:
    axis = given.get("squeeze_dims", _int_or_ints, given.get("axis", _int_or_ints))
    value = given.tensor()
    if not isinstance(axis, list) or not axis:
        return _apply(_NUMPY, "Squeeze", value, axis=None if isinstance(axis, list) else axis)
    if min(axis) < 0 <= max(axis):
        raise given.refused("axis", axis)
    # From the side on which the numbers of the other axes stay as they are.
    for number in sorted(axis, key=abs, reverse=True):
        value = _apply(_NUMPY, "Squeeze", value, axis=number)
    return value  # type: ignore[no-any-return]  # `_apply` gives any operation


def _banded(given: FunctionCall) -> Applied:
    lower, upper = given.get("num_lower", _one_int), given.get("num_upper", _one_int)
    value = given.tensor()
    if (lower, upper) == (-1, 0):
        return _apply(_NUMPY, "Tril", value)
    if (lower, upper) == (0, -1):
        return _apply(_NUMPY, "Triu", value)
    raise given.refused("num_lower", [lower, upper])


def _sequence_mask(given: FunctionCall) -> Applied:
    length, dtype = given.get("maxlen", _one_int), given.get("dtype", _dtype, "bool")
    if not isinstance(length, int):
        raise given.refused("maxlen", given.keywords.get("maxlen"))
    ends = _apply(_NUMPY, "ExpandDims", given.tensor(), axis=-1)
    kind = given.dtype_of(given.first)
    if kind is None:
        raise given.refused("lengths", "a dtype that the config does not say")
    mask = _apply(_NUMPY, "Greater", ends, array(list(range(length)), kind))
    return mask if dtype == "bool" else _cast(mask, dtype)


def _converted(given: FunctionCall) -> Applied:
    given.taken.update(("dtype_hint", "preferred_dtype"))
    dtype = given.get("dtype", _dtype)
    return _identity(given.tensor()) if dtype is None else _cast(given.tensor(), dtype)


def _repeated(given: FunctionCall) -> Applied:
    """Counts of their own for each place are places to take: JAX takes no list of counts."""
    counts, axis = given.get("repeats", _int_or_ints), given.get("axis", _one_int)
    if isinstance(counts, list) and axis is not None and min(counts, default=0) >= 0:
        if sum(counts) > _MOST_PLACES:
            raise given.refused("repeats", sum(counts))
        places: Json = [at for at, count in enumerate(counts) for _ in range(count)]
        return _apply(_NUMPY, "Take", given.tensor(), array(places, "int32"), axis=axis)
    if not _is_int(counts):
        raise given.refused("repeats", given.keywords.get("repeats"))
    return _apply(_NUMPY, "Repeat", given.tensor(), repeats=counts, axis=axis)


#: The most places in the config of a layer.
_MOST_PLACES = 100_000


def _ensured(given: FunctionCall) -> Applied:
    given.taken.add("shape")  # checked by TensorFlow, and nothing more
    return _identity(given.tensor())


def _both_signs(given: FunctionCall) -> Applied:
    value, axis = given.tensor(), given.get("axis", _one_int, -1)
    halves: list[Any] = [
        _apply(_NN, "Relu", value), _apply(_NN, "Relu", _apply(_NUMPY, "Negative", value))
    ]  # fmt: skip
    return _apply(_NUMPY, "Concatenate", halves, axis=axis)


def _division(given: FunctionCall) -> Applied:
    """TensorFlow divides whole numbers of 32 and 64 bits as float64, Keras 3 as float32."""
    value, other = given.tensor(), given.operand("y")
    tensor = value if isinstance(value, tuple) else other
    kind = given.dtype_of(tensor) if isinstance(tensor, tuple) else None
    if kind is not None and "int" in kind:
        wide = "float32" if kind.endswith(("int8", "int16")) else "float64"
        value = _cast(value, wide) if isinstance(value, tuple) else value
        other = _cast(other, wide) if isinstance(other, tuple) else other
    return _apply(_NUMPY, "TrueDivide", value, other)


def _reshaped(given: FunctionCall) -> Applied:
    shape, value = given.keywords.get("shape"), given.tensor()
    given.taken.add("shape")
    if _ints(shape) is not None:
        return _apply(_NUMPY, "Reshape", value, newshape=shape)
    sizes = shape if isinstance(shape, list) else [shape]
    unknown = [size for size in sizes if isinstance(size, Size)]
    plain = all(isinstance(size, Size) or _is_int(size) for size in sizes)
    plain = plain and not any(isinstance(size, Shape) for size in unknown)
    is_of_samples = bool(sizes) and isinstance(sizes[0], BatchSize)
    if plain and len(unknown) == 1 and -1 not in sizes:
        # One length that follows from the others.
        free: Json = [-1 if isinstance(size, Size) else size for size in sizes]
        return Applied(_NUMPY, "Reshape", {"newshape": free}, (value,), leads=is_of_samples)
    if plain and len(unknown) == 1 and is_of_samples and given.leads(value):
        return Applied(LAYERS, "Reshape", {"target_shape": sizes[1:]}, (value,), leads=True)
    raise given.refused(
        "shape", shape, "its shape depends on lengths that only the data has"
    )  # fmt: skip


def _filled(fill: float | None) -> Function:
    """A tensor of one value with a row for each sample: what an array of it and a column of zeros
    make together."""

    def function(given: FunctionCall) -> Applied:
        value = fill if fill is not None else given.get("value", _number)
        dtype = given.get("dtype", _dtype, "float32" if isinstance(value, float) else "int32")
        sizes = given.first
        first = sizes[0] if isinstance(sizes, list) and sizes else None
        is_plain = isinstance(sizes, list) and _ints(sizes[1:]) is not None
        if not isinstance(first, BatchSize) or not is_plain or min(sizes[1:], default=1) < 1:
            raise given.refused("shape", sizes)
        like = first.tensor
        row = _full(sizes[1:], value)
        # A column of zeros, one for each sample, whatever shape the tensor has.
        flat = _apply(LAYERS, "Flatten", like)
        column = _apply(_NUMPY, "GetItem", flat, _slices([(None, None, None), (None, 1, None)]))
        zeros = _cast(_apply(_NUMPY, "ZerosLike", column), dtype)
        shaped = _apply(_NUMPY, "Reshape", zeros, newshape=[-1, *[1] * len(sizes[1:])])
        filled = array(row, str(dtype))
        return Applied(_NUMPY, "Add", {}, (shaped, filled), leads=True)

    return function


def _full(sizes: Sequence[int], value: Json) -> Json:
    return [_full(sizes[1:], value) for _ in range(sizes[0])] if sizes else value


def _pooled(class_name: str, ranks: int) -> Function:
    def sizes(value: Json) -> Json:
        """Sizes of the window, of which those of samples and channels are 1."""
        if isinstance(value, list) and len(value) == ranks + 2:
            if value[0] != 1 or value[-1] != 1:
                return None
            value = value[1:-1]
        if isinstance(value, list) and _ints(value) is not None:  # JAX adds tuples to it
            return value[0] if len(set(value)) == 1 else {"class_name": "__tuple__", "items": value}
        return value if _is_int(value) else None

    def function(given: FunctionCall) -> Applied:
        given.only("data_format", "NWC", "NHWC", "NDHWC")
        config = {
            "pool_size": given.get("ksize", sizes),
            "strides": given.get("strides", sizes),
            "padding": given.get("padding", _word("SAME", "VALID"), "valid"),
            "data_format": "channels_last",
        }
        return Applied(_NN, class_name, config, (given.tensor(),))

    return function


def _resized(given: FunctionCall) -> Applied:
    given.only("preserve_aspect_ratio", False)
    given.only("antialias", False)
    size, method = given.get("size", _ints), given.get("method", _RESIZED, "bilinear")
    if size is None:
        raise given.refused("size", given.keywords.get("size"))
    config = {"size": size, "interpolation": method, "data_format": "channels_last"}
    return Applied(f"{_OPS}image", "Resize", config, (given.tensor(),))


_ONE_AXIS = {"axis": ("axis", _one_int)}
_SOFTMAX = Operation(_NN, "Softmax", (), _ONE_AXIS, {"axis": -1}, {"dim": ()})
#: min(1 / sqrt(sum), 1 / 1e-6) there is 1 / sqrt(max(sum, 1e-12)) here.
_UNIT = Operation(
    _NN, "Normalize", (), _ONE_AXIS, {"order": 2, "epsilon": 1e-6},
    {"epsilon": (1e-12,), "dim": ()}, "axis",
)  # fmt: skip
_FLOOR_DIVISION = _numpy("FloorDivide", "y")
_ADD = _numpy("Add", "y")
_BIAS = Operation(_NUMPY, "Add", ("bias",), neutral={"data_format": ("NHWC", "NWC", "N...C")})

#: Function -> what it is in Keras 3. Keywords and defaults: tensorflow/python/ops and
#: keras/src/ops. What of `compat.v1` has the same arguments is found without that prefix.
OPERATIONS: Mapping[str, Function] = {
    GETITEM: _get_item,
    "slice": _sliced,
    "strided_slice": _strided,
    "__operators__.add": _ADD,
    "math.add": _ADD,
    "math.subtract": _numpy("Subtract", "y"),
    "math.multiply": _numpy("Multiply", "y"),
    "math.truediv": _division,
    "math.divide": _division,
    "math.divide_no_nan": _numpy("DivideNoNan", "y"),
    "math.floordiv": _FLOOR_DIVISION,
    "floor_div": _FLOOR_DIVISION,
    "math.floormod": _numpy("Mod", "y"),
    "math.mod": _numpy("Mod", "y"),
    "math.pow": _numpy("Power", "y"),
    "math.maximum": _numpy("Maximum", "y"),
    "math.minimum": _numpy("Minimum", "y"),
    "math.atan2": _numpy("Arctan2", "x"),
    "math.squared_difference": _squared_difference,
    "math.add_n": _summed,
    "math.accumulate_n": _summed,
    "__operators__.eq": _numpy("Equal", "other"),
    "__operators__.ne": _numpy("NotEqual", "other"),
    **{f"math.{name}": _numpy(class_name, "y") for name, class_name in {
        "equal": "Equal", "not_equal": "NotEqual", "greater": "Greater",
        "greater_equal": "GreaterEqual", "less": "Less", "less_equal": "LessEqual",
        "logical_and": "LogicalAnd", "logical_or": "LogicalOr",
    }.items()},
    "math.logical_not": _numpy("LogicalNot"),
    "math.logical_xor": _exclusive_or,
    "where": _where,
    "linalg.matmul": _matmul,
    "linalg.matrix_transpose": Operation(
        _NUMPY, "Swapaxes", (), {}, {"axis1": -2, "axis2": -1}, {"conjugate": (False,)}
    ),
    "linalg.band_part": _banded,
    "linalg.diag_part": Operation(_NUMPY, "Diagonal", (), {}, {"axis1": -2, "axis2": -1}),
    "linalg.trace": Operation(_NUMPY, "Trace", (), {}, {"axis1": -2, "axis2": -1}),
    "linalg.cross": _numpy("Cross", "b"),
    "linalg.cholesky": Operation(f"{_OPS}linalg", "Cholesky"),
    "linalg.det": Operation(f"{_OPS}linalg", "Det"),
    "linalg.inv": Operation(f"{_OPS}linalg", "Inv", neutral={"adjoint": (False,)}),
    "tensordot": Operation(_NUMPY, "Tensordot", ("b",), {"axes": ("axes", _axes)}, needed="axes"),
    **{f"math.{name}": _numpy(class_name) for name, class_name in {
        "abs": "Absolute", "acos": "Arccos", "acosh": "Arccosh", "asin": "Arcsin",
        "asinh": "Arcsinh", "atan": "Arctan", "atanh": "Arctanh", "ceil": "Ceil", "cos": "Cos",
        "cosh": "Cosh", "exp": "Exp", "expm1": "Expm1", "floor": "Floor", "is_finite": "Isfinite",
        "is_inf": "Isinf", "is_nan": "Isnan", "log": "Log", "log1p": "Log1p",
        "negative": "Negative", "reciprocal": "Reciprocal", "rint": "Round", "round": "Round",
        "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "square": "Square",
        "tan": "Tan", "tanh": "Tanh",
    }.items()},
    "math.erf": Operation(_MATH, "Erf"),
    "math.rsqrt": Operation(_MATH, "Rsqrt"),
    "math.sigmoid": _nn("Sigmoid"),
    "math.log_sigmoid": _nn("LogSigmoid"),
    "math.softplus": _nn("Softplus"),
    "nn.bias_add": _BIAS,
    "nn.crelu": _both_signs,
    "nn.elu": _nn("Elu"),
    "nn.gelu": Operation(
        _NN, "Gelu", (), {"approximate": ("approximate", _flag)}, {"approximate": False}
    ),
    "nn.leaky_relu": Operation(
        _NN, "LeakyRelu", (), {"alpha": ("negative_slope", _number)}, {"negative_slope": 0.2}
    ),
    "nn.log_softmax": Operation(
        _NN, "LogSoftmax", (), _SOFTMAX.keywords, _SOFTMAX.fixed, _SOFTMAX.neutral
    ),
    "nn.relu": _nn("Relu"),
    "nn.relu6": _nn("Relu6"),
    "nn.selu": _nn("Selu"),
    "nn.silu": Operation(_NN, "Silu", neutral={"beta": (1, 1.0)}),
    "nn.softmax": _SOFTMAX,
    "nn.softsign": _nn("Softsign"),
    **{f"nn.{kind}_pool{rank}d": _pooled(class_name, rank)
       for kind, class_name in {"max": "MaxPool", "avg": "AveragePool"}.items()
       for rank in (1, 2, 3)},
    **{f"math.reduce_{name}": _reducing(name.capitalize())
       for name in ("all", "any", "max", "mean", "min", "prod", "std", "sum")},
    "math.reduce_variance": _reducing("Var"),
    "math.reduce_logsumexp": _reducing("Logsumexp", _MATH),
    "math.reduce_euclidean_norm": _length,
    "norm": _length,
    "math.count_nonzero": _counted,
    "math.cumsum": _running("Cumsum"),
    "math.cumprod": _running("Cumprod"),
    "math.argmax": _place("Argmax"),
    "math.argmin": _place("Argmin"),
    "math.top_k": Operation(
        _MATH, "TopK", (), {"k": ("k", _one_int), "sorted": ("sorted", _flag)},
        {"k": 1, "sorted": True}, {"index_type": ("int32",)},
    ),
    "argsort": _sorting("Argsort"),
    "sort": _sorting("Sort"),
    "cast": Operation(_CORE, "Cast", (), {"dtype": ("dtype", _dtype)}, needed="dtype"),
    "clip_by_value": Operation(
        _NUMPY, "Clip", (),
        {"clip_value_min": ("x_min", _number), "clip_value_max": ("x_max", _number)},
    ),
    "concat": _shaping("Concatenate", "axis", "axis", _one_int, lists=True),
    "convert_to_tensor": _converted,
    "einsum": _einsum,
    "ensure_shape": _ensured,
    "expand_dims": _EXPAND,
    "fill": _filled(None),
    "gather": _gather,
    "identity": _converted,
    "image.resize": _resized,
    "keras.backend.batch_flatten": Operation(LAYERS, "Flatten"),
    **{f"{where}.l2_normalize": _UNIT for where in ("linalg", "math", "nn")},
    "one_hot": _one_hot,
    "ones": _filled(1.0),
    "ones_like": _like("OnesLike"),
    "pad": _padded,
    "repeat": _repeated,
    "reshape": _reshaped,
    "reverse": _shaping("Flip", "axis", "axis", _one_int),
    "roll": Operation(
        _NUMPY, "Roll", (), {"shift": ("shift", _one_int), "axis": ("axis", _one_int)},
        needed="axis",
    ),
    "sequence_mask": _sequence_mask,
    "split": _split,
    "squeeze": _squeezed,
    "stack": _shaping("Stack", "axis", "axis", _one_int, lists=True, axis=0),
    "stop_gradient": Operation(_CORE, "StopGradient"),
    "tile": _shaping("Tile", "multiples", "repeats", _ints),
    "transpose": _TRANSPOSE,
    "unstack": _unstack,
    "broadcast_to": _shaping("BroadcastTo", "shape", "shape", _ints),
    "zeros": _filled(0.0),
    "zeros_like": _like("ZerosLike"),
}  # fmt: skip
#: Functions that take a list of tensors, or of lengths.
LISTING = frozenset(
    {"concat", "einsum", "fill", "math.accumulate_n", "math.add_n", "ones", "stack", "zeros"}
)
#: Functions that take a shape, whose lengths may be those of the data.
_SIZED = frozenset({"reshape", "zeros", "ones", "fill"})
#: Names that mean something else in `compat.v1`.
_NOT_V1 = frozenset({"where", "math.reduce_sum"})
_V1 = "compat.v1."

#: Function -> why it is refused, where more can be said than that no operation is known for it.
REFUSED: Mapping[str, str] = {
    "meshgrid": _LOST,
    **dict.fromkeys(
        ("boolean_mask", "unique", "dynamic_partition"),
        "what tf.{} gives has a length that depends on the numbers",
    ),
    **dict.fromkeys(
        ("nn.dropout", "random.normal", "random.uniform", "random.truncated_normal"),
        "tf.{} gives other numbers with each run, when the model predicts too",
    ),
    "nn.embedding_lookup": (
        "tf.{} takes one table or the pieces of one, and the file does not say which"
    ),
    **dict.fromkeys(
        ("range", "linspace"), "tf.{} gives a row of numbers whose length only the data has"
    ),
    **dict.fromkeys(
        ("map_fn", "while_loop", "cond", "scan", "vectorized_map", "py_function",
         "numpy_function", "foldl", "foldr"),
        "tf.{} runs a function of the user's own",
    ),
}  # fmt: skip


def function_of(part: Part) -> str:
    """Return the name of a part's function, without `tf`; empty if its config has none."""
    function = part.node.config.get("function")
    return function if isinstance(function, str) else ""


def plain_name(function: str) -> str:
    """Return a function's name as the table has it: without `compat.v1`, if it is the same."""
    short = function.removeprefix(_V1)
    return function if short in _NOT_V1 else short


def read(given: FunctionCall) -> Applied | Unstacked:
    """Return what a call of a function is in Keras 3.

    Args:
        given: the call; its function is named as `plain_name` does.

    Raises:
        UnsupportedByTarget: Keras 3 does not have the function, or not with this argument.
    """
    function = OPERATIONS.get(given.function)
    if function is None:
        default = "no operation of Keras 3 is known for tf.{}"
        why = REFUSED.get(given.function, default).format(given.function)
        raise unsupported(why, given.part.name, "function")
    if isinstance(given.first, list) and given.function not in LISTING:
        is_tensors = not _is_array(given.first)
        if is_tensors:
            raise given.refused("inputs", "a list")
    elif not isinstance(given.first, list) and given.function in LISTING:
        raise given.refused("inputs", "no list")
    if given.function not in _SIZED:
        for size in sizes_in((given.first, *given.keywords.values())):
            raise given.refused("inputs", size, "it computes with a length that only the data has")
    result = function(given)
    given.check()
    return result


def sizes_in(value: Any) -> Iterable[Size]:
    """Yield the lengths that only the data has, in a structure."""
    if isinstance(value, Size):
        yield value
    elif isinstance(value, dict):
        yield from sizes_in(list(value.values()))
    elif isinstance(value, list) or type(value) is tuple:
        for item in value:
            yield from sizes_in(item)


# -- lengths -----------------------------------------------------------------------------------

#: Functions of one length that give that length again.
_SAME = frozenset({"cast", "identity", "convert_to_tensor"})


def symbol(given: FunctionCall) -> Any:
    """Return what a function of lengths gives: a length, or a list of lengths and integers; None
    of any other function."""
    if given.function in ("shape", "shape_n") and isinstance(given.first, tuple):
        return Shape(given.first)
    if given.function in ("size", "rank"):
        return Size()
    values = [given.first, *given.keywords.values()]
    if not any(True for _ in sizes_in(values)) or given.function in _SIZED:
        return None
    if any(isinstance(item, tuple) for value in values for item in _listed(value)):
        return None  # a tensor among them
    if given.function == GETITEM:
        return _length_at(given, given.first, given.keywords.get("slice_spec"))
    if given.function == "strided_slice":
        key: Any = _strided_key(given)
        is_slice = len(key) == 1 and isinstance(key[0], dict)
        return _length_at(given, given.first, key[0]["config"] if is_slice else key)
    if given.function == "unstack" and isinstance(given.first, Shape):
        shape = given.first
        return Unstacked(lambda number: _length_at(given, shape, number))
    if given.function == "stack" and given.keywords.get("axis") in (None, 0):
        return list(given.first)
    if given.function == "concat":
        is_lists = all(isinstance(item, list) for item in given.first)
        return [size for item in given.first for size in item] if is_lists else Shape()
    if given.function in _SAME:
        return given.first
    return Size() if given.function.startswith("math.") else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _length_at(given: FunctionCall, shape: Any, spec: Any) -> Any:
    if isinstance(spec, list) and len(spec) == 1:
        spec = spec[0]
    if isinstance(shape, list) and _is_int(spec) and -len(shape) <= spec < len(shape):
        return shape[spec]
    if _is_int(spec):
        tensor = shape.tensor if isinstance(shape, Shape) else None
        return BatchSize(tensor) if spec == 0 and tensor and given.leads(tensor) else Size()
    if isinstance(spec, dict) and spec.get("start") in (None, 0) and spec.get("step") is None:
        stop = spec.get("stop")
        if isinstance(stop, int) and 0 < stop < _MOST_AXES and isinstance(shape, Shape):
            return [_length_at(given, shape, number) for number in range(stop)]
    return Shape()


#: No tensor of TensorFlow has more axes (tensorflow/core/framework/tensor_shape.h).
_MOST_AXES = 255


def dtype_of(value: Any, of_tensor: Callable[[Any], str | None]) -> str | None:
    """Return the dtype of what an operation gives; None if it is not known.

    Args:
        value: an operation, or a tensor.
        of_tensor: returns the dtype of a tensor.
    """
    if not isinstance(value, Applied):
        return of_tensor(value)
    if value.class_name in _TRUTHS:
        return "bool"
    if value.class_name in _INDICES:
        return "int32"
    stated = value.config.get("dtype")
    if isinstance(stated, str):
        return stated
    operands = list(value.tensors())
    if value.class_name == "Where":
        operands = operands[1:] or operands
    known = [dtype_of(operand, of_tensor) for operand in operands]
    return known[0] if known else None


def leads(value: Applied, of_tensor: Callable[[Any], bool]) -> bool:
    """Return whether the first axis of what an operation gives is that of the samples, as far as
    that is certain without shapes.

    Args:
        value: an operation.
        of_tensor: returns it of a tensor.
    """
    if value.leads:
        return True
    first, *others = value.arguments
    second = others[0] if value.class_name == "Matmul" else None
    if isinstance(second, Applied) and not isinstance(first, Applied):
        # If both lead, so does their product with the second one turned, of two axes too.
        return all(map(of_tensor, (first, second.arguments[0])))
    operands = list(value.tensors())
    is_shallow = not any(_depth(item) > 1 for item in others) or value.class_name == "GetItem"
    if not operands or not is_shallow:
        return False
    for operand in operands:
        if not (leads(operand, of_tensor) if isinstance(operand, Applied) else of_tensor(operand)):
            return False
    return _keeps_first(value)


def _depth(value: Any) -> int:
    if isinstance(value, dict) and value.get("class_name") == "__numpy__":
        config = value["config"]
        return _depth(config["value"]) if isinstance(config, dict) else 0
    return 1 + _depth(value[0]) if isinstance(value, list) and value else 0


_MOVING = frozenset(
    {"Reshape", "Swapaxes", "BroadcastTo", "Tensordot", "Diagonal", "Trace", "Tril", "Triu"}
)


def _keeps_first(value: Applied) -> bool:
    config = value.config
    if value.is_layer:
        return True
    if value.class_name in _MOVING:
        return False
    if value.class_name == "Transpose":
        axes = config.get("axes")
        return isinstance(axes, list) and axes[:1] == [0]
    if value.class_name == "GetItem":
        spec = value.arguments[1][0] if value.arguments[1] else None
        whole: Json = {"start": None, "stop": None, "step": None}
        return isinstance(spec, dict) and spec.get("config") in (whole, {})
    if value.class_name == "Tile":
        repeats = config.get("repeats")
        return isinstance(repeats, list) and repeats[:1] == [1]
    if value.class_name == "Pad":
        width = config.get("pad_width")
        return isinstance(width, list) and width[:1] == [[0, 0]]
    if "axis" in config:
        axis = config["axis"]
        axes = axis if isinstance(axis, list) else [axis]
        return all(isinstance(item, int) and (item > 0 or item == -1) for item in axes)
    return value.class_name not in _REDUCING


#: Operations that leave one number where no axis is named.
_REDUCING = frozenset(
    {"Sum", "Mean", "Max", "Min", "Prod", "Std", "Var", "Any", "All", "Logsumexp", "CountNonzero",
     "Squeeze", "Repeat"}
)


# -- operators of TensorFlow's graphs ----------------------------------------------------------

#: Operator -> the function, and what its inputs are there: "" is the first argument, "*" the list
#: of it, "-" is left out (tensorflow/core/ops).
OPERATORS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    **{name: (f"math.{function}", ("", "y")) for name, function in {
        "Add": "add", "AddV2": "add", "Sub": "subtract", "Mul": "multiply", "RealDiv": "truediv",
        "DivNoNan": "divide_no_nan", "FloorDiv": "floordiv",
        "FloorMod": "floormod", "Pow": "pow", "Maximum": "maximum", "Minimum": "minimum",
        "SquaredDifference": "squared_difference", "Equal": "equal", "NotEqual": "not_equal",
        "Greater": "greater", "GreaterEqual": "greater_equal", "Less": "less",
        "LessEqual": "less_equal", "LogicalAnd": "logical_and", "LogicalOr": "logical_or",
    }.items()},
    **{name: (f"math.{function}", ("",)) for name, function in {
        "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh",
        "Atan": "atan", "Atanh": "atanh", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh",
        "Erf": "erf", "Exp": "exp", "Expm1": "expm1", "Floor": "floor", "IsFinite": "is_finite",
        "IsInf": "is_inf", "IsNan": "is_nan", "Log": "log", "Log1p": "log1p",
        "LogicalNot": "logical_not", "Neg": "negative", "Reciprocal": "reciprocal",
        "Rint": "rint", "Round": "round", "Rsqrt": "rsqrt", "Sigmoid": "sigmoid",
        "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Softplus": "softplus", "Sqrt": "sqrt",
        "Square": "square", "Tan": "tan", "Tanh": "tanh",
    }.items()},
    **{name: (f"math.reduce_{name.lower()}", ("", "axis"))
       for name in ("All", "Any", "Max", "Mean", "Min", "Prod", "Sum")},
    **{name: (f"nn.{function}", ("",)) for name, function in {
        "Elu": "elu", "LeakyRelu": "leaky_relu", "LogSoftmax": "log_softmax", "Relu": "relu",
        "Relu6": "relu6", "Selu": "selu", "Softmax": "softmax", "Softsign": "softsign",
    }.items()},
    "AddN": ("math.add_n", ("*",)),
    "ArgMax": ("math.argmax", ("", "axis")),
    "ArgMin": ("math.argmin", ("", "axis")),
    "BatchMatMul": ("linalg.matmul", ("", "b")),
    "BatchMatMulV2": ("linalg.matmul", ("", "b")),
    "BatchMatMulV3": ("linalg.matmul", ("", "b")),
    "BiasAdd": ("nn.bias_add", ("", "bias")),
    "BroadcastTo": ("broadcast_to", ("", "shape")),
    "Cast": ("cast", ("",)),
    "ClipByValue": ("clip_by_value", ("", "clip_value_min", "clip_value_max")),
    "ConcatV2": ("concat", ("*", "axis")),
    "Cumprod": ("math.cumprod", ("", "axis")),
    "Cumsum": ("math.cumsum", ("", "axis")),
    "Einsum": ("einsum", ("*",)),
    "ExpandDims": ("expand_dims", ("", "axis")),
    "Fill": ("fill", ("", "value")),
    "Gather": ("gather", ("", "indices")),
    "GatherV2": ("gather", ("", "indices", "axis")),
    "Identity": ("identity", ("",)),
    "MatMul": ("linalg.matmul", ("", "b")),
    "MirrorPad": ("pad", ("", "paddings")),
    "OneHot": ("one_hot", ("", "depth", "on_value", "off_value")),
    "OnesLike": ("ones_like", ("",)),
    "Pack": ("stack", ("*",)),
    "Pad": ("pad", ("", "paddings")),
    "PadV2": ("pad", ("", "paddings", "constant_values")),
    "Reshape": ("reshape", ("", "shape")),
    "ReverseV2": ("reverse", ("", "axis")),
    "Roll": ("roll", ("", "shift", "axis")),
    "SelectV2": ("where", ("", "x", "y")),
    "Shape": ("shape", ("",)),
    "Slice": ("slice", ("", "begin", "size")),
    "Split": ("split", ("axis", "")),
    "SplitV": ("split", ("", "num_or_size_splits", "axis")),
    "Squeeze": ("squeeze", ("",)),
    "StopGradient": ("stop_gradient", ("",)),
    "StridedSlice": ("strided_slice", ("", "begin", "end", "strides")),
    "Tile": ("tile", ("", "multiples")),
    "TopKV2": ("math.top_k", ("", "k")),
    "Transpose": ("transpose", ("", "perm")),
    "Unpack": ("unstack", ("",)),
    "ZerosLike": ("zeros_like", ("",)),
}  # fmt: skip
#: Attribute of an operator -> the keyword of its function; empty: it says nothing of its own.
_ATTRIBUTES: Mapping[str, str] = {
    **dict.fromkeys(
        ("T", "Tidx", "Tindices", "Tparams", "Tshape", "Tperm", "Taxis", "Tdim", "Index", "N", "TI",
         "SrcT", "Truncate", "Tpaddings", "Tmultiples", "Tlen", "Tshift", "validate_indices",
         "num_split", "num", "index_type", "out_type", "incompatible_shape_error", "batch_dims",
         "grad_a", "grad_b", "grad_x", "grad_y", "Ta", "Tb", "Tk", "Tout", "Tcond"),
        "",
    ),
    **{name: name for name in ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask",
                               "shrink_axis_mask", "transpose_a", "transpose_b", "axis", "alpha",
                               "exclusive", "reverse", "sorted", "data_format", "batch_dims",
                               "output_type", "squeeze_dims", "mode")},
    "DstT": "dtype", "adj_x": "adjoint_a", "adj_y": "adjoint_b", "keep_dims": "keepdims",
    "num_split": "num_or_size_splits",
}  # fmt: skip


def of_operator(part: Part, tensors: Sequence[Any]) -> tuple[str, Any, JsonObject]:
    """Return an operator of a graph as a function: its name, first argument and keywords.

    Args:
        part: of a TensorFlowOpLayer (tf_keras/src/engine/base_layer.py).
        tensors: what it is called with; its constants are in the config.

    Raises:
        UnsupportedByTarget: no function is known for the operator.
    """
    config = part.node.config
    definition, constants = config.get("node_def"), config.get("constants") or {}
    operator = definition.get("op") if isinstance(definition, dict) else None
    if not isinstance(operator, str) or operator not in OPERATORS:
        what = f"no operation of Keras 3 is known for TensorFlow's operator {operator}"
        raise unsupported(what, part.name, "node_def")
    function, roles = OPERATORS[operator]
    inputs = list(tensors)
    numbered = sorted((int(at), value) for at, value in constants.items() if at.isdecimal())
    for index, value in numbered if isinstance(constants, dict) else ():
        inputs.insert(index, value)
    first: Any = None
    if roles[0] == "*":
        rest = len(inputs) - (len(roles) - 1)
        first, inputs, roles = inputs[:rest], inputs[rest:], roles[1:]
    if len(inputs) > len(roles):
        raise unsupported("an operator of other inputs", part.name, "node_def", operator)
    keywords: JsonObject = {}
    for role, value in zip(roles, inputs, strict=False):
        if role:
            keywords[role] = value
        else:
            first = value
    attributes = definition.get("attr") if isinstance(definition, dict) else None
    if operator == "OneHot" and isinstance(attributes, dict) and "T" in attributes:
        keywords["dtype"] = _attribute(part, "T", attributes["T"])
    for name, stated in (attributes if isinstance(attributes, dict) else {}).items():
        keyword = _ATTRIBUTES.get(name, None if name.startswith("_") else name)
        if keyword and keyword not in keywords:
            keywords[keyword] = _attribute(part, name, stated)
    return function, first, keywords


def _attribute(part: Part, name: str, stated: Json) -> Json:
    """Return an attribute's value, as protobuf's JSON has it."""
    if isinstance(stated, dict) and len(stated) == 1:
        kind, value = next(iter(stated.items()))
        if kind == "i" and isinstance(value, (str, int)) and str(value).lstrip("-").isdecimal():
            return int(value)
        if kind == "type" and isinstance(value, str) and value.startswith("DT_"):
            return _TYPES.get(value, value.removeprefix("DT_").lower())
        if kind in ("b", "f"):
            return value
        if kind == "s" and isinstance(value, str):
            return base64.b64decode(value).decode("ascii", "replace")
        if kind == "list" and isinstance(value, dict):
            return [int(item) for item in value.get("i", [])]
    raise unsupported("an attribute of an operator in another form", part.name, name, str(stated))


_TYPES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}

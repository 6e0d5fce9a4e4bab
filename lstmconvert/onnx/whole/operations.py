"""Functions between layers: Keras 3's operations, which TensorFlow's are turned into by the tree.

An operation drops the masks of what it is given.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.modern.classes import Weight
from lstmconvert.keras.modern.parts import Part
from lstmconvert.model.activations import HARD_SIGMOID_KERAS3, Activation
from lstmconvert.onnx.messages import NUMBERS, Axis, Body, Declared
from lstmconvert.onnx.whole import (
    activations,
    basic,
    convolution,
    images,
    merging,
    signals,
)
from lstmconvert.onnx.whole.cells import inside, name_inside
from lstmconvert.onnx.whole.normalization import axis_of, unit_length
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import BEFORE, END, FLOATS, Shape, Value
from lstmconvert.tensors.dtypes import Array, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor

#: keras.config.epsilon().
_EPSILON = 1e-7
_INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")


def write(site: Site, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Write one call of an operation.

    Raises:
        UnsupportedByTarget: no operators of ONNX are known for it, or for an argument.
    """
    name = site.part.class_name
    function = CLASSES.get(name)
    if function is None:
        why = f"no operators of ONNX are known for the operation {name}"
        reason = UNSAID.get(name)
        raise site.refused(name, why=f"{why}: {reason}" if reason else why)
    items, names = list(arguments), _NAMES.get(name, ())
    for key, value in keywords.items():
        if value is None:
            continue
        if key not in names:
            raise site.refused(key, value, why=f"the operation {name} is called with {key}")
        place = names.index(key)
        items.extend([None] * (place + 1 - len(items)))
        items[place] = value
    site.arguments = items
    return function(site, items)


def is_operation(part: Part) -> bool:
    """Whether a part is a bare operation, in a config that does not say its module: Keras 3's in
    an .h5. A layer of the same name says whether it is trainable."""
    whole = part.node.whole
    return (
        part.node.class_name in CLASSES
        and part.layer is None
        and "module" not in whole
        and "trainable" not in part.node.config
        and any(isinstance(call, dict) for call in whole.get("inbound_nodes") or [])
    )


# ---- arguments -----------------------------------------------------------------------------------


def _value(site: Site, item: Any) -> Value:
    """Return a value, which a constant of the config is made."""
    if isinstance(item, Value):
        return item
    if item is None:
        raise site.refused("inputs", "an argument that is missing")
    constant = _constant(site, item)
    dtype = "bool" if isinstance(constant, bool) else _dtype_of_constant(constant)
    return Value(_placed(site, constant, dtype), dtype, np.shape(constant))


def _dtype_of_constant(constant: Any) -> str:
    if isinstance(constant, np.ndarray):
        return str(constant.dtype.name)
    return "int32" if isinstance(constant, int) else "float32"


def _float(site: Site, item: Any) -> Value:
    """Return a value of real numbers: Keras makes float32 of integers."""
    value = _value(site, item)
    site.compute = value.dtype if value.dtype in FLOATS else "float32"
    if site.compute == "bfloat16":
        site.compute = "float32"
    return site.writer.cast(value, site.compute)


def _constant(site: Site, item: Json) -> Any:
    """Return a constant of the config as numbers."""
    if isinstance(item, dict) and isinstance(item.get("config"), dict):
        config = item["config"]
        kind = item.get("class_name")
        if kind in ("__tensor__", "__numpy__"):
            return np.asarray(config.get("value"), dtype_of(str(config.get("dtype", "float32"))))
        raise site.refused("inputs", kind)
    if isinstance(item, (bool, int, float)):
        return item
    try:
        array = np.asarray(item)
    except ValueError:
        raise site.refused("inputs", item) from None
    if array.dtype.kind not in "bif":
        raise site.refused("inputs", item)
    # Lists of Python's numbers are of Keras's float type, or int32.
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def _together(site: Site, items: Sequence[Any]) -> tuple[list[str], list[Value], str]:
    """Return values and constants in one dtype, as Keras promotes them: their names, the values
    that there are, and the dtype."""
    values = [item for item in items if isinstance(item, Value)]
    dtype = _common_dtype(site, items)
    names = [
        site.writer.form(site.writer.cast(item, dtype))
        if isinstance(item, Value)
        else _placed(site, _constant(site, item), dtype)
        for item in items
    ]
    return names, values, dtype


def _common_dtype(site: Site, items: Sequence[Any]) -> str:
    """Return the dtype that Keras promotes values and constants to."""
    values = [item for item in items if isinstance(item, Value)]
    if not values:
        raise site.refused("inputs", "constants alone")
    dtype = values[0].dtype
    for value in values[1:]:
        dtype = _promoted(dtype, value.dtype)
    for item in items:
        if not isinstance(item, Value):
            dtype = _promoted_by_constant(dtype, _constant(site, item))
    return dtype


def _placed(site: Site, constant: Any, dtype: str) -> str:
    array = np.asarray(constant, dtype_of(dtype))
    if array.ndim == 0:
        return site.writer.number(array.item(), dtype)
    return site.constant(array, "constant")


def _promoted(first: str, second: str) -> str:
    """Return the dtype of what two values make (keras/src/backend/common/dtypes.py)."""
    floats = {dtype for dtype in (first, second) if dtype in FLOATS}
    if len(floats) == 2:
        return "float64" if "float64" in floats else "float32"
    if floats:
        return floats.pop()
    made = str(np.promote_types(first, second).name)
    # Keras has float32 where NumPy has float64, for uint64 and a signed one, and no uint64 at all.
    return {"float64": "float32", "uint64": "uint32"}.get(made, made)


def _promoted_by_constant(dtype: str, constant: Any) -> str:
    if isinstance(constant, np.ndarray):
        return _promoted(dtype, constant.dtype.name)
    if isinstance(constant, float) and dtype not in FLOATS:
        return "float32"
    if isinstance(constant, int) and not isinstance(constant, bool) and dtype == "bool":
        return "int32"
    return dtype


def _shapes(site: Site, items: Sequence[Any]) -> list[Shape]:
    return [
        item.shape if isinstance(item, Value) else np.shape(_constant(site, item))
        for item in items
    ]


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    rank = max(len(shape) for shape in shapes)
    return merging.broadcast([(*[1] * (rank - len(shape)), *shape) for shape in shapes])


# ---- element by element --------------------------------------------------------------------------


def _binary(operator: str, *, result: str = "", real: bool = False) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        if len(items) != 2:
            raise site.refused("inputs", f"{len(items)} arguments")
        if real:
            items = [_float(site, item) if isinstance(item, Value) else item for item in items]
        names, _, dtype = _together(site, items)
        wide = "float32" if dtype == "bfloat16" else dtype
        if wide != dtype:
            names = [site.op("Cast", [name], "wide", to=NUMBERS[wide]) for name in names]
        if dtype == "bool" and operator in ("Add", "Mul"):
            raise site.refused("inputs", "bool")
        made = Value(
            site.op(operator, names), result or wide, _broadcast(_shapes(site, items))
        )
        return made if result else site.writer.cast(made, dtype)

    return run


def _divided(site: Site, items: list[Any]) -> Value:
    return _binary("Div", real=True)(site, items)


def _logical(operator: str) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        values = [site.writer.cast(_value(site, item), "bool") for item in items]
        names = [site.writer.form(value) for value in values]
        made = site.op(operator, names)
        return Value(made, "bool", _broadcast([value.shape for value in values]))

    return run


def _not_equal(site: Site, items: list[Any]) -> Value:
    equal = _binary("Equal", result="bool")(site, items)
    return Value(site.op("Not", [site.writer.form(equal)]), "bool", equal.shape)


def _unary(operator: str) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        value = _float(site, items[0])
        return site.map(value, lambda name, _: site.op(operator, [name]))

    return run


def _any_type(operator: str) -> Callable[..., Value]:
    """An operator that takes whole numbers too."""

    def run(site: Site, items: list[Any]) -> Value:
        value = _value(site, items[0])
        if value.dtype not in _INTEGERS:
            return _unary(operator)(site, items)
        return site.map(value, lambda name, _: site.op(operator, [name]))

    return run


def _function(function: Activation) -> Callable[..., Value]:
    return lambda site, items: activations.apply(site, _float(site, items[0]), function)


def _square(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    return site.map(value, lambda name, _: site.op("Mul", [name, name], "square"))


def _rsqrt(site: Site, items: list[Any]) -> Value:
    value = _float(site, items[0])
    return site.map(
        value, lambda name, _: site.op("Reciprocal", [site.op("Sqrt", [name])], "rsqrt")
    )


def _exact(function: Callable[[Site, str], str]) -> Callable[..., Value]:
    return lambda site, items: site.map(
        _float(site, items[0]), lambda name, _: function(site, name)
    )


def _gelu(site: Site, items: list[Any]) -> Value:
    is_near = bool(site.config.get("approximate", True))
    return site.map(
        _float(site, items[0]), lambda name, _: activations.gelu(site, name, approximate=is_near)
    )


def _leaky(site: Site, items: list[Any]) -> Value:
    slope = site.real("negative_slope", 0.2)
    return site.map(
        _float(site, items[0]), lambda name, _: activations.leaky(site, name, slope)
    )


def _with_alpha(name: str, default: float) -> Callable[..., Value]:
    return lambda site, items: activations.apply(
        site,
        _float(site, items[0]),
        Activation(name, {"alpha": site.real("alpha", default)}),
    )


def _rows(name: str) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        value = _float(site, items[0])
        axis = axis_of(site, site.config.get("axis", -1), value.rank)
        return activations.rows(site, value, name, axis)

    return run


def _clip(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    low, high = (site.option(key) for key in ("x_min", "x_max"))
    dtype = value.dtype
    if any(isinstance(bound, float) for bound in (low, high)):
        value = _float(site, value)
        dtype = value.dtype
    bounds = ["" if bound is None else site.writer.number(bound, dtype) for bound in (low, high)]
    return site.map(value, lambda name, _: site.op("Clip", [name, *bounds]))


def _cast(site: Site, items: list[Any]) -> Value:
    dtype = site.option("dtype")
    if dtype not in NUMBERS:
        raise site.refused("dtype", dtype)
    value = _value(site, items[0])
    if value.dtype == dtype:
        return value.again()
    return site.map(value, lambda name, _: site.op("Cast", [name], to=NUMBERS[dtype]), dtype=dtype)


def _like(number: int) -> Callable[..., Value]:
    """ZerosLike and OnesLike: bool is what masks ask for."""

    def run(site: Site, items: list[Any]) -> Value:
        value = _value(site, items[0])
        dtype = site.config.get("dtype") or (items[1] if len(items) > 1 else None) or value.dtype
        if dtype not in NUMBERS:
            raise site.refused("dtype", dtype)
        shape = site.op("Shape", [site.writer.form(value)])
        made = site.op("Expand", [site.writer.number(number, dtype), shape])
        return Value(made, dtype, value.shape)

    return run


def _where(site: Site, items: list[Any]) -> Value:
    if len(items) != 3:
        raise site.refused("inputs", f"{len(items)} arguments")
    condition = site.writer.cast(_value(site, items[0]), "bool")
    names, values, dtype = _together(site, items[1:])
    made = site.op("Where", [site.writer.form(condition), *names])
    return Value(made, dtype, _broadcast([condition.shape, *(v.shape for v in values)]))


# ---- element by element: what takes several operators --------------------------------------------


def _scaled(factor: float) -> Callable[[Site, str], str]:
    return lambda site, name: site.op("Mul", [name, site.number(factor)], "scaled")


def _log_of(base: float) -> Callable[[Site, str], str]:
    """The logarithm to another base, as Keras computes it on TensorFlow: a ratio of two."""
    return lambda site, name: site.op(
        "Div", [site.op("Log", [name]), site.number(math.log(base))], "log"
    )


def _exp2(site: Site, name: str) -> str:
    return site.op("Pow", [site.number(2.0), name], "exp2")


def _cube_root(site: Site, name: str) -> str:
    root = site.op("Pow", [site.op("Abs", [name]), site.number(1 / 3)], "root")
    return site.op("Mul", [site.op("Sign", [name]), root], "cbrt")


def _erfc(site: Site, name: str) -> str:
    return site.op("Sub", [site.number(1.0), site.op("Erf", [name])], "erfc")


def _truncated(site: Site, name: str) -> str:
    """Toward zero."""
    is_below = site.op("Less", [name, site.number(0.0)])
    return site.op("Where", [is_below, site.op("Ceil", [name]), site.op("Floor", [name])], "trunc")


def _with_constants(name: str, *keys: str) -> Callable[..., Value]:
    """An activation whose constants are keywords of the operation."""

    def run(site: Site, items: list[Any]) -> Value:
        constants = {key: site.real(key, 0.0) for key in keys if site.option(key) is not None}
        return activations.apply(site, _float(site, items[0]), Activation(name, constants))

    return run


def _glu(site: Site, items: list[Any]) -> Value:
    value = _float(site, items[0])
    if axis_of(site, site.config.get("axis", -1), value.rank) != value.rank - 1:
        raise site.refused("axis", site.config.get("axis"))
    return basic.glu(site, value)


def _threshold(site: Site, items: list[Any]) -> Value:
    limit, default = site.real("threshold", 0.0), site.real("default_value", 0.0)

    def write(name: str, _: Any) -> str:
        is_above = site.op("Greater", [name, site.number(limit)])
        return site.op("Where", [is_above, name, site.number(default)], "threshold")

    return site.map(_float(site, items[0]), write)


def _is_nan(site: Site, items: list[Any]) -> Value:
    value = _float(site, items[0])
    return site.map(value, lambda name, _: site.op("IsNaN", [name]), dtype="bool")


def _is_infinite(**signs: int) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        value = _float(site, items[0])
        return site.map(value, lambda name, _: _infinite(site, name, **signs), dtype="bool")

    return run


def _infinite(site: Site, name: str, **signs: Any) -> str:
    if site.compute == "float16":  # which the operator takes from opset 20 on
        name = site.to(name, "float32")
    return site.op("IsInf", [name], **signs)


def _is_finite(site: Site, items: list[Any]) -> Value:
    def write(name: str, _: Any) -> str:
        either = site.op("Or", [site.op("IsNaN", [name]), _infinite(site, name)])
        return site.op("Not", [either], "is_finite")

    return site.map(_float(site, items[0]), write, dtype="bool")


def _nan_to_num(site: Site, items: list[Any]) -> Value:
    """Finite numbers in the place of NaN and the infinities: the largest ones by default."""
    value = _float(site, items[0])
    top = float(np.finfo(dtype_of(site.compute)).max)
    numbers = [site.real("nan", 0.0), site.real("posinf", top), site.real("neginf", -top)]
    nan, above, below = (site.number(number) for number in numbers)

    def write(name: str, _: Any) -> str:
        high = _infinite(site, name, detect_negative=0)
        low = _infinite(site, name, detect_positive=0)
        made = site.op("Where", [site.op("IsNaN", [name]), nan, name], "without_nan")
        made = site.op("Where", [high, above, made], "below_infinity")
        return site.op("Where", [low, below, made], "finite")

    return site.map(value, write)


def _real_pair(site: Site, items: Sequence[Any]) -> tuple[str, str, Shape, str]:
    """Return two values of real numbers in one dtype: their names, the shape that both are
    broadcast to, and the dtype, which is computed in from here on."""
    pair = [_float(site, item) if isinstance(item, Value) else item for item in items]
    names, _, dtype = _together(site, pair)
    if dtype == "bfloat16" or len(names) != 2:
        raise site.refused("inputs", dtype)
    site.compute = dtype
    return names[0], names[1], _broadcast(_shapes(site, pair)), dtype


def _of_pair(steps: Callable[[Site, str, str], str]) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        first, second, shape, dtype = _real_pair(site, items)
        return Value(steps(site, first, second), dtype, shape)

    return run


def _log_add_exp(site: Site, first: str, second: str) -> str:
    top = site.op("Max", [first, second])
    far = site.op("Abs", [site.op("Sub", [first, second])], "distance")
    return site.op("Add", [top, activations.log1p(site, site.op("Exp", [site.op("Neg", [far])]))])


def _hypotenuse(site: Site, first: str, second: str) -> str:
    squares = [site.op("Mul", [name, name], "square") for name in (first, second)]
    return site.op("Sqrt", [site.op("Add", squares)], "hypot")


def _divided_or_zero(site: Site, first: str, second: str) -> str:
    zero = site.number(0.0)
    is_zero = site.op("Equal", [second, zero])
    return site.op("Where", [is_zero, zero, site.op("Div", [first, second])], "divide_no_nan")


def _remainder(site: Site, items: list[Any]) -> Value:
    """The rest with the sign of the divisor, as Python's and TensorFlow's."""
    if _common_dtype(site, items) in _INTEGERS:
        return _binary("Mod")(site, items)
    first, second, shape, dtype = _real_pair(site, items)
    return Value(_rest(site, first, second), dtype, shape)


def _rest(site: Site, first: str, second: str) -> str:
    zero = site.number(0.0)
    rest = site.op("Mod", [first, second], fmod=1)
    differs = site.op(
        "Xor", [site.op("Less", [rest, zero]), site.op("Less", [second, zero])], "other_sign"
    )
    is_zero = site.op("Equal", [rest, zero])
    is_off = site.op("And", [differs, site.op("Not", [is_zero])], "is_off")
    return site.op("Where", [is_off, site.op("Add", [rest, second]), rest], "rest")


def _floor_divided(site: Site, items: list[Any]) -> Value:
    """The quotient, rounded down."""
    if _common_dtype(site, items) in _INTEGERS:
        names, _, dtype = _together(site, items)
        shapes = _shapes(site, items)
        rest = site.op("Mod", names)
        made = site.op("Div", [site.op("Sub", [names[0], rest]), names[1]], "floor_divide")
        return Value(made, dtype, _broadcast(shapes))
    first, second, shape, dtype = _real_pair(site, items)
    return Value(site.op("Floor", [site.op("Div", [first, second])]), dtype, shape)


# ---- products ------------------------------------------------------------------------------------


def _matmul(site: Site, items: list[Any]) -> Value:
    """Matrices, batches of them, and vectors."""
    first, second = _alike(site, items)
    if min(first.rank, second.rank) < 1:
        raise site.refused("inputs", "a number")
    made = site.op("MatMul", [site.writer.form(value) for value in (first, second)])
    outer: Shape = ()
    if max(first.rank, second.rank) > 2:
        outer = _broadcast([first.shape[:-2], second.shape[:-2]])
    rows = first.shape[-2:-1] if first.rank > 1 else ()
    columns = second.shape[-1:] if second.rank > 1 else ()
    return Value(made, first.dtype, (*outer, *rows, *columns))


def _alike(site: Site, items: Sequence[Any]) -> list[Value]:
    """Return values of real numbers in one dtype, the one that is computed in from here on."""
    values = [_float(site, item) for item in items]
    dtype = values[0].dtype
    for value in values[1:]:
        dtype = _promoted(dtype, value.dtype)
    site.compute = dtype
    return [site.writer.cast(value, dtype) for value in values]


def _einsum(site: Site, items: list[Any]) -> Value:
    equation = site.option("subscripts")
    values = _alike(site, items)
    if not isinstance(equation, str):
        raise site.refused("subscripts", equation)
    joined, _, kept = equation.replace(" ", "").partition("->")
    if "->" not in equation:  # every letter that stands once, in the order of the alphabet
        kept = "".join(x for x in sorted(set(joined)) if x.isalpha() and joined.count(x) == 1)
        kept = "..." + kept if "..." in joined else kept
    terms = joined.split(",")
    if len(terms) != len(values):
        raise CorruptFile("not a term for each value", where=site.label, found=equation[:40])
    # The axes of an Ellipsis get letters of their own, from the last one on.
    free = [x for x in string.ascii_letters if x not in equation]
    counts = [value.rank + 3 - len(term) if "..." in term else 0
              for term, value in zip(terms, values, strict=True)]  # fmt: skip
    letters = "".join(free[: max(counts, default=0)])
    terms = [term.replace("...", letters[len(letters) - count :] if count > 0 else "")
             for term, count in zip(terms, counts, strict=True)]  # fmt: skip
    return _summed(site, values, terms, kept.replace("...", letters))


def _summed(site: Site, values: Sequence[Value], terms: Sequence[str], kept: str) -> Value:
    """Return sums of products of values whose axes have letters."""
    sizes: dict[str, Axis] = {}
    for term, value in zip(terms, values, strict=True):
        if len(term) != value.rank:
            raise CorruptFile("not a letter for each axis", where=site.label, found=term)
        for letter, size in zip(term, value.shape, strict=True):
            if sizes.get(letter) is None:
                sizes[letter] = size
    names = [site.writer.form(value) for value in values]
    made = site.op("Einsum", names, equation=f"{','.join(terms)}->{kept}")
    return Value(made, values[0].dtype, tuple(sizes[letter] for letter in kept))


def _contracted(
    site: Site, items: Sequence[Any], left: Sequence[int], right: Sequence[int]
) -> Value:
    """Return the sums of products over axes of two values: the other axes of the first, then
    those of the second."""
    first, second = _alike(site, items)
    letters = string.ascii_letters
    one_term = list(letters[: first.rank])
    other_term = list(letters[first.rank : first.rank + second.rank])
    for at, other in zip(left, right, strict=True):
        other_term[other] = one_term[at]
    summed = {one_term[at] for at in left}
    kept = "".join(x for x in (*one_term, *other_term) if x not in summed)
    return _summed(site, [first, second], ["".join(one_term), "".join(other_term)], kept)


def _dot(site: Site, items: list[Any]) -> Value:
    """As NumPy's dot: the last axis of the first with the last but one of the second."""
    first, second = (_value(site, item) for item in items)
    if not first.rank or not second.rank:
        return _binary("Mul", real=True)(site, items)
    return _contracted(site, items, [first.rank - 1], [max(second.rank - 2, 0)])


def _inner(site: Site, items: list[Any]) -> Value:
    first, second = (_value(site, item) for item in items)
    return _contracted(site, items, [first.rank - 1], [second.rank - 1])


def _outer(site: Site, items: list[Any]) -> Value:
    flat = [_ravel(site, [item]) for item in items]
    return _contracted(site, flat, [], [])


def _cross(site: Site, items: list[Any]) -> Value:
    """The product of vectors of three numbers, along one axis."""
    first, second = _alike(site, items)
    stated = {site.config.get(key, -1) for key in ("axisa", "axisb", "axisc")}
    axis = site.config.get("axis")
    axis = stated.pop() if axis is None and len(stated) == 1 else axis
    at = axis_of(site, axis, first.rank)
    if first.rank != second.rank or first.shape[at] != 3 or second.shape[at] != 3:
        raise site.refused("inputs", "other than two vectors of three numbers")

    def picked(value: Value, *places: int) -> str:
        ints = site.ints(*places)
        return site.op("Gather", [site.writer.form(value), ints], "turned", axis=at)

    left = site.op("Mul", [picked(first, 1, 2, 0), picked(second, 2, 0, 1)])
    right = site.op("Mul", [picked(first, 2, 0, 1), picked(second, 1, 2, 0)])
    made = site.op("Sub", [left, right], "cross")
    return Value(made, first.dtype, _broadcast([first.shape, second.shape]))


def _determinant(site: Site, items: list[Any]) -> Value:
    value = _float(site, items[0])
    return Value(site.op("Det", [site.writer.form(value)]), value.dtype, value.shape[:-2])


def _tensordot(site: Site, items: list[Any]) -> Value:
    first, second = (_value(site, item) for item in items)
    axes = site.option("axes", 2)
    if isinstance(axes, int):
        left, right = list(range(first.rank - axes, first.rank)), list(range(axes))
    elif isinstance(axes, list) and len(axes) == 2:
        sides = [axis if isinstance(axis, list) else [axis] for axis in axes]
        left, right = (
            [axis_of(site, axis, value.rank) for axis in side]
            for side, value in zip(sides, (first, second), strict=True)
        )
    else:
        raise site.refused("axes", axes)
    if len(left) != len(right):
        raise CorruptFile("not as many axes of each", where=site.label, found=str(axes)[:40])
    return _contracted(site, items, left, right)


def _attended(site: Site, items: list[Any]) -> Value:
    """DotProductAttention: queries, keys and values of (batch, time, heads, size)."""
    bias, mask, scale = (items[at] if at < len(items) else None for at in (3, 4, 5))
    if site.option("attn_logits_soft_cap"):
        raise site.refused("attn_logits_soft_cap", site.option("attn_logits_soft_cap"))
    query, key, value = _alike(site, items[:3])
    if query.rank != 4 or site.compute not in ("float32", "float64"):
        raise site.refused("inputs", f"{query.dtype} of {query.rank} axes")
    size = query.static(-1)
    if scale is None and size is None:
        raise site.refused("scale", None)
    factor = 1 / math.sqrt(size or 1) if scale is None else _constant(site, scale)
    scores = _summed(site, [query, key], ["btnh", "bsnh"], "bnts")
    name = site.op("Mul", [site.writer.form(scores), site.number(float(factor))], "scaled")
    if bias is not None:
        name = site.op("Add", [name, site.writer.form(_float(site, bias))], "biased")
    # Keras puts this in the place of a score (keras/src/backend/tensorflow/nn.py, `_apply_masks`).
    low = site.number(0.7 * float(np.finfo(dtype_of(site.compute)).min))
    if mask is not None:
        counts = site.writer.form(site.writer.cast(_value(site, mask), "bool"))
        name = site.op("Where", [counts, name, low], "masked")
    if site.flag("is_causal", False):
        ones = site.op("Equal", [name, name])  # False for NaN alone
        ones = site.op("Or", [ones, site.op("Not", [ones])], "all")
        lower = site.op("Trilu", [site.to(ones, "int32")], "causal", upper=0)
        name = site.op("Where", [site.to(lower, "bool"), name, low], "causally_masked")
    shares = Value(site.op("Softmax", [name], axis=-1), site.compute, scores.shape)
    return _summed(site, [shares, value], ["bnts", "bsnh"], "btnh")


# ---- reductions ----------------------------------------------------------------------------------


def _axes(site: Site, value: Value) -> list[int]:
    axis_option = site.config.get("axis")
    if axis_option is None:
        return list(range(value.rank))
    listed = axis_option if isinstance(axis_option, list) else [axis_option]
    return sorted(axis_of(site, axis, value.rank) for axis in listed)


def _along(site: Site, value: Value) -> tuple[Value, int]:
    """Return a value and the axis of the operation; without one, all numbers are along one."""
    if site.config.get("axis") is None:
        return _ravel(site, [value]), 0
    return value, axis_of(site, site.config.get("axis"), value.rank)


def _reduced(shape: Shape, axes: Sequence[int], *, keep: bool) -> Shape:
    return tuple(
        1 if axis in axes else size
        for axis, size in enumerate(shape)
        if keep or axis not in axes
    )


def _reduction(operator: str, *, real: bool = False) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        value = _float(site, items[0]) if real else _value(site, items[0])
        if value.dtype == "bool":
            raise site.refused("inputs", "bool")
        return _reduce(site, operator, value)

    return run


def _reduce(site: Site, operator: str, value: Value) -> Value:
    axes, keep = _axes(site, value), site.flag("keepdims", False)
    made = site.reduce(operator, site.writer.form(value), axes, keep=keep)
    return Value(made, value.dtype, _reduced(value.shape, axes, keep=keep))


def _any_of(operator: str) -> Callable[..., Value]:
    """Any and All: the largest or the least of ones and zeros."""

    def run(site: Site, items: list[Any]) -> Value:
        flags = site.writer.cast(_value(site, items[0]), "bool")
        numbers = site.writer.cast(flags, "int32")
        return site.writer.cast(_reduce(site, operator, numbers), "bool")

    return run


def _variance(*, root: bool) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        value = _float(site, items[0])
        axes, keep = _axes(site, value), site.flag("keepdims", False)
        name = site.writer.form(value)
        mean = site.reduce("ReduceMean", name, axes, "mean", keep=True)
        centred = site.op("Sub", [name, mean], "centred")
        squared = site.op("Mul", [centred, centred], "squared")
        made = site.reduce("ReduceMean", squared, axes, "variance", keep=keep)
        made = site.op("Sqrt", [made]) if root else made
        return Value(made, value.dtype, _reduced(value.shape, axes, keep=keep))

    return run


def _log_sum_exp(site: Site, items: list[Any]) -> Value:
    """The logarithm of the sum of exponentials, with the largest taken out before."""
    value = _float(site, items[0])
    axes, keep = _axes(site, value), site.flag("keepdims", False)
    name, zero = site.writer.form(value), site.number(0.0)
    top = site.reduce("ReduceMax", name, axes, "largest", keep=True)
    top = site.op("Where", [_infinite(site, top), zero, top], "finite_largest")
    powers = site.op("Exp", [site.op("Sub", [name, top])])
    total = site.op("Log", [site.reduce("ReduceSum", powers, axes, keep=True)])
    made = site.op("Add", [total, top], "logsumexp")
    if not keep:
        made = site.op("Squeeze", [made, site.ints(*axes)])
    return Value(made, value.dtype, _reduced(value.shape, axes, keep=keep))


def _norm(site: Site, items: list[Any]) -> Value:
    """The length of vectors. Of matrices the one that is the root of the sum of squares."""
    value, order = _float(site, items[0]), site.option("ord")
    axes, keep = _axes(site, value), site.flag("keepdims", False)
    is_vector = len(axes) == 1 or site.option("axis") is None
    name = site.writer.form(value)
    if order in (None, "fro", "euclidean") or (order == 2 and is_vector):
        squares = site.op("Mul", [name, name], "squares")
        total = site.reduce("ReduceSum", squares, axes, keep=keep)
        made = site.op("Sqrt", [total], "norm")
    elif is_vector and len(axes) == 1 and order in (1, "inf", float("inf")):
        operator = "ReduceSum" if order == 1 else "ReduceMax"
        made = site.reduce(operator, site.op("Abs", [name]), axes, "norm", keep=keep)
    else:
        raise site.refused("ord", order)
    return Value(made, value.dtype, _reduced(value.shape, axes, keep=keep))


def _average(site: Site, items: list[Any]) -> Value:
    """The mean, or that of a sum with weights: of the value's shape, or along the axis."""
    value = _float(site, items[0])
    axes = _axes(site, value)
    if len(items) < 2 or items[1] is None:
        return _reduce(site, "ReduceMean", value)
    value, weights = _alike(site, [value, items[1]])
    if weights.rank == 1 and len(axes) == 1 and value.rank > 1:
        shape = [1] * value.rank
        shape[axes[0]] = -1
        made = site.op("Reshape", [site.writer.form(weights), site.ints(*shape)], "weights")
        sizes: list[Axis] = [1] * value.rank
        sizes[axes[0]] = weights.shape[0]
        weights = Value(made, value.dtype, tuple(sizes))
    if weights.rank != value.rank:
        raise site.refused("weights", f"of {weights.rank} axes")
    names = [site.writer.form(weights), site.writer.form(value)]
    total = site.reduce("ReduceSum", site.op("Mul", names), axes, "total")
    count = site.reduce("ReduceSum", names[0], axes, "weight")
    return Value(
        site.op("Div", [total, count]), value.dtype, _reduced(value.shape, axes, keep=False)
    )


def _pool(site: Site, items: list[Any]) -> Value:
    site.arguments = [_float(site, items[0])]
    return convolution.pooling(site)


def _adaptive_pool(site: Site, items: list[Any]) -> Value:
    site.arguments = [_float(site, items[0])]
    return convolution.adaptive_pooling(site)


def _resize(site: Site, items: list[Any]) -> Value:
    """Resize: what the layer Resizing does."""
    size = site.option("size")
    if not isinstance(size, list) or len(size) != 2:
        raise site.refused("size", size)
    site.config.update(height=size[0], width=size[1])
    site.arguments = [_value(site, items[0])]
    return images.resizing(site)


def _flipped(axis: int) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        site.config["axis"] = axis
        return _flip(site, items)

    return run


def _grayscale(site: Site, items: list[Any]) -> Value:
    """The weighted sum of red, green and blue (keras/src/backend/tensorflow/image.py)."""
    value = _float(site, items[0])
    first = site.option("data_format", "channels_last") == "channels_first"
    weights = site.constant(
        np.asarray([0.2989, 0.587, 0.114], dtype_of(site.compute)), "shares"
    )
    axis = value.rank - 3 if first else value.rank - 1
    if value.shape[axis] != 3:
        raise site.refused("inputs", f"{value.shape[axis]} channels")
    term = list(string.ascii_letters[: value.rank])
    made = site.op(
        "Einsum",
        [site.writer.form(value), weights],
        "gray",
        equation=f"{''.join(term)},{term[axis]}->{''.join(x for x in term if x != term[axis])}",
    )
    shape = (*value.shape[:axis], 1, *value.shape[axis + 1 :])
    return Value(site.op("Unsqueeze", [made, site.ints(axis)], "channel"), value.dtype, shape)


def _count_nonzero(site: Site, items: list[Any]) -> Value:
    flags = site.writer.cast(_value(site, items[0]), "bool")
    return _reduce(site, "ReduceSum", site.writer.cast(flags, "int32"))


def _range_of(site: Site, items: list[Any]) -> Value:
    """Ptp: from the least to the largest."""
    value = _value(site, items[0])
    ends = [_reduce(site, operator, value) for operator in ("ReduceMax", "ReduceMin")]
    made = site.op("Sub", [site.writer.form(end) for end in ends], "ptp")
    return Value(made, value.dtype, ends[0].shape)


def _moments(site: Site, items: list[Any]) -> list[Value]:
    site.config.setdefault("axis", site.option("axes"))
    mean = _reduction("ReduceMean", real=True)(site, items)
    return [mean, _variance(root=False)(site, items)]


# ---- orders --------------------------------------------------------------------------------------


def _length(site: Site, value: Value, axis: int) -> str:
    """Return the length of an axis as (1,)."""
    size = value.static(axis)
    if size is not None:
        return site.ints(size)
    shape = site.op("Shape", [site.writer.form(value)])
    return site.op("Gather", [shape, site.ints(axis)], "length", axis=0)


def _ordered(site: Site, value: Value, axis: int) -> list[str]:
    """Return the numbers along an axis from the least on, and their places."""
    inputs = [site.writer.form(value), _length(site, value, axis)]
    return site.ops("TopK", inputs, 2, "sorted", axis=axis, largest=0)


def _sort(place: int) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        value = _value(site, items[0])
        if value.dtype in ("bool", "bfloat16") or site.config.get("axis", -1) is None:
            raise site.refused("inputs", value.dtype)
        axis = axis_of(site, site.config.get("axis", -1), value.rank)
        made = _ordered(site, value, axis)[place]
        if place == 0:
            return Value(made, value.dtype, value.shape)
        return site.writer.cast(Value(made, "int64", value.shape), "int32")

    return run


def _top(site: Site, items: list[Any]) -> list[Value]:
    value, count = _value(site, items[0]), site.integer("k")
    names = site.ops("TopK", [site.writer.form(value), site.ints(count)], 2, "top")
    shape = (*value.shape[:-1], count)
    places = Value(names[1], "int64", shape)
    return [Value(names[0], value.dtype, shape), site.writer.cast(places, "int32")]


def _digitize(site: Site, items: list[Any]) -> Value:
    """The number of bounds that are not above: they are in order."""
    value, bounds = _alike(site, items)
    if bounds.rank != 1:
        raise site.refused("inputs", "bounds that are not a list")
    column = site.op("Unsqueeze", [site.writer.form(value), site.ints(-1)], "column")
    reached = site.op("GreaterOrEqual", [column, site.writer.form(bounds)], "reached")
    made = site.reduce("ReduceSum", site.to(reached, "int32"), [value.rank], "count")
    return Value(made, "int32", value.shape)


# ---- places --------------------------------------------------------------------------------------


def _indices(site: Site, item: Any) -> Value:
    value = _value(site, item)
    return value if value.dtype == "int64" else site.writer.cast(value, "int32")


def _long(site: Site, item: Any) -> Value:
    return site.writer.cast(_value(site, item), "int64")


def _take(site: Site, items: list[Any]) -> Value:
    value, axis = _along(site, _value(site, items[0]))
    places = _indices(site, items[1])
    made = site.op("Gather", [site.writer.form(value), site.writer.form(places)], axis=axis)
    shape = (*value.shape[:axis], *places.shape, *value.shape[axis + 1 :])
    return Value(made, value.dtype, shape)


def _take_along(site: Site, items: list[Any]) -> Value:
    value, places = _value(site, items[0]), _indices(site, items[1])
    if site.config.get("axis") is None or value.rank != places.rank:
        raise site.refused("axis", site.config.get("axis"))
    axis = axis_of(site, site.config.get("axis"), value.rank)
    for at, (size, other) in enumerate(zip(value.shape, places.shape, strict=True)):
        if at != axis and size != other:
            raise site.refused("inputs", "indices of another shape")
    names = [site.writer.form(value), site.writer.form(places)]
    return Value(site.op("GatherElements", names, axis=axis), value.dtype, places.shape)


def _hot(site: Site, value: Value, count: int) -> Value:
    """Return one at each number's place on a new last axis; none where there is no such place."""
    places = site.constant(np.arange(count, dtype=dtype_of(value.dtype)), "places")
    column = site.op("Unsqueeze", [site.writer.form(value), site.ints(-1)], "column")
    made = site.op("Equal", [column, places], "one_hot")
    return Value(made, "bool", (*value.shape, count))


def _hot_dtype(site: Site) -> str:
    if site.option("sparse"):
        raise site.refused("sparse", True)
    dtype = site.option("dtype", "float32")
    if dtype not in NUMBERS:
        raise site.refused("dtype", dtype)
    return str(dtype)


def _one_hot(site: Site, items: list[Any]) -> Value:
    value, dtype = _indices(site, items[0]), _hot_dtype(site)
    axis = axis_of(site, site.config.get("axis", -1), value.rank + 1)
    hot = site.writer.cast(_hot(site, value, site.integer("num_classes")), dtype)
    return _moved(site, hot, [hot.rank - 1], [axis])


def _multi_hot(site: Site, items: list[Any]) -> Value:
    """Whether each number is there, along the second axis."""
    value, dtype = _indices(site, items[0]), _hot_dtype(site)
    if site.config.get("axis", -1) not in (-1, value.rank):
        raise site.refused("axis", site.config.get("axis"))
    hot = site.writer.cast(_hot(site, value, site.integer("num_classes")), "int32")
    axis = 1 if value.rank > 1 else 0
    made = site.reduce("ReduceMax", site.writer.form(hot), [axis], "multi_hot")
    shape = (*hot.shape[:axis], *hot.shape[axis + 1 :])
    return site.writer.cast(Value(made, "int32", shape), dtype)


def _place(operator: str) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        value, axis = _along(site, _float(site, items[0]))
        keep = site.flag("keepdims", False)
        made = site.op(operator, [site.writer.form(value)], axis=axis, keepdims=int(keep))
        indices = Value(made, "int64", _reduced(value.shape, [axis], keep=keep))
        return site.writer.cast(indices, "int32")

    return run


def _cumsum(site: Site, items: list[Any]) -> Value:
    value, axis = _along(site, _value(site, items[0]))
    made = site.op("CumSum", [site.writer.form(value), site.writer.place(axis)])
    return Value(made, value.dtype, value.shape)


# ---- shapes --------------------------------------------------------------------------------------


def _get_item(site: Site, items: list[Any]) -> Value:
    """x[…]: numbers, slices, new axes and an Ellipsis."""
    value = _value(site, items[0])
    spec = items[1] if isinstance(items[1], list) else [items[1]]
    entries = _full(site, spec, value.rank)
    axis, cuts, picked, grown = 0, list[tuple[int, int, int, int]](), list[int](), list[int]()
    shape: list[Axis] = []
    kept: list[Axis] = []
    for entry in entries:
        if entry is None:
            grown.append(len(shape))
            shape.append(1)
            continue
        size = value.shape[axis]
        if isinstance(entry, int):
            picked.append(axis)
            cuts.append((axis, entry, entry + 1 if entry != -1 else END, 1))
        else:
            start, stop, step = entry
            if (start, stop, step) != (None, None, None):
                cuts.append((axis, *_bounds(start, stop, step)))
            shape.append(_cut(size, entry))
            kept.append(shape[-1])
        axis += 1
    name = site.writer.form(value)
    if len(cuts) == 1 and picked:
        name = site.op("Gather", [name, site.writer.place(cuts[0][1])], "picked", axis=picked[0])
    elif cuts:
        columns = list(zip(*cuts, strict=True))
        axes, starts, ends, steps = (site.ints(*column) for column in columns)
        name = site.op("Slice", [name, starts, ends, axes, steps])
        if picked:
            name = site.op("Squeeze", [name, site.ints(*picked)], "picked")
    if grown:
        name = site.op("Unsqueeze", [name, site.ints(*grown)])
    if name == site.writer.form(value):
        return value.again()
    return Value(name, value.dtype, tuple(shape))


def _full(site: Site, spec: Sequence[Json], rank: int) -> list[Any]:
    """Return one entry for each axis: a number, None for a new one, or (start, stop, step)."""
    entries: list[Any] = []
    for item in spec:
        kind = item.get("class_name") if isinstance(item, dict) else None
        if item is None or (isinstance(item, int) and not isinstance(item, bool)):
            entries.append(item)
        elif kind == "__slice__":
            config = item["config"]
            entry = tuple(config.get(key) for key in ("start", "stop", "step"))
            if not all(part is None or isinstance(part, int) for part in entry):
                raise site.refused("slice", entry)
            entries.append(entry)
        elif kind == "__ellipsis__" or item == "...":
            entries.append("…")
        else:
            raise site.refused("index", item)
    taken = sum(entry is not None and entry != "…" for entry in entries)
    if taken > rank or entries.count("…") > 1:
        raise CorruptFile("more indices than axes", where=site.label)
    whole = (None, None, None)
    at = entries.index("…") if "…" in entries else len(entries)
    return [*entries[:at], *[whole] * (rank - taken), *entries[at + 1 :]]


def _bounds(start: int | None, stop: int | None, step: int | None) -> tuple[int, int, int]:
    step = 1 if step is None else step
    if step > 0:
        return start or 0, END if stop is None else stop, step
    return -1 if start is None else start, BEFORE if stop is None else stop, step


def _cut(size: Axis, entry: tuple[int | None, int | None, int | None]) -> Axis:
    if entry == (None, None, None):
        return size
    return len(range(*slice(*entry).indices(size))) if isinstance(size, int) else None


def _reshape(site: Site, items: list[Any]) -> Value:
    value, target = _value(site, items[0]), site.option("newshape")
    if not isinstance(target, list) or target.count(None) + target.count(-1) > 1:
        raise site.refused("newshape", target)
    sizes = [-1 if size is None else size for size in target]
    if not all(isinstance(size, int) and size for size in sizes):
        raise site.refused("newshape", target)
    made = site.op("Reshape", [site.writer.form(value), site.ints(*sizes)])
    return Value(made, value.dtype, _inferred(value.shape, sizes))


def _inferred(shape: Shape, sizes: Sequence[int]) -> Shape:
    """Return a shape whose -1 is the rest, where that is known: the batch axis, for one."""
    unknown = [size for size in shape if not isinstance(size, int)]
    known = math.prod(size for size in shape if isinstance(size, int))
    rest = math.prod(size for size in sizes if size != -1)
    left: Axis = None
    if not unknown and rest:
        left = known // rest
    elif len(unknown) == 1 and known == rest:
        left = unknown[0]
    return tuple(left if size == -1 else size for size in sizes)


def _transpose(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    axes_option = site.option("axes") or list(reversed(range(value.rank)))
    order = [axis_of(site, axis, value.rank) for axis in axes_option]
    return _reordered(site, value, order)


def _reordered(site: Site, value: Value, order: Sequence[int]) -> Value:
    if sorted(order) != list(range(value.rank)):
        raise CorruptFile("not an order of axes", where=site.label, found=str(order))
    name, stored = site.writer.native(value)
    result = Value("", value.dtype, tuple(value.shape[axis] for axis in order))
    result.forms[tuple(list(order).index(axis) for axis in stored)] = name
    return result


def _swapped(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    first, second = (axis_of(site, site.option(key), value.rank) for key in ("axis1", "axis2"))
    order = list(range(value.rank))
    order[first], order[second] = second, first
    return _reordered(site, value, order)


def _squeeze(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    if site.config.get("axis") is None:
        if any(size is None or isinstance(size, str) for size in value.shape[1:]):
            raise site.refused("axis", None)
        axes = [axis for axis, size in enumerate(value.shape) if size == 1]
    else:
        axes = _axes(site, value)
    made = site.op("Squeeze", [site.writer.form(value), site.ints(*axes)])
    return Value(made, value.dtype, _reduced(value.shape, axes, keep=False))


def _expand_dims(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    axis_option = site.option("axis")
    listed = axis_option if isinstance(axis_option, list) else [axis_option]
    rank = value.rank + len(listed)
    axes = sorted(axis_of(site, axis, rank) for axis in listed)
    made = site.op("Unsqueeze", [site.writer.form(value), site.ints(*axes)])
    sizes = iter(value.shape)
    return Value(
        made, value.dtype, tuple(1 if axis in axes else next(sizes) for axis in range(rank))
    )


def _listed(site: Site, items: list[Any]) -> tuple[list[Value], str]:
    given = items[0] if len(items) == 1 and isinstance(items[0], list) else items
    values = [_value(site, item) for item in given]
    dtype = values[0].dtype
    for value in values[1:]:
        dtype = _promoted(dtype, value.dtype)
    return [site.writer.cast(value, dtype) for value in values], dtype


def _concatenate(site: Site, items: list[Any]) -> Value:
    values, dtype = _listed(site, items)
    axis = axis_of(site, site.config.get("axis", -1), values[0].rank)
    made = site.op("Concat", [site.writer.form(value) for value in values], axis=axis)
    shape = list(merging.broadcast([(*v.shape[:axis], 1, *v.shape[axis + 1 :]) for v in values]))
    sizes = [value.shape[axis] for value in values]
    whole = [size for size in sizes if isinstance(size, int)]
    shape[axis] = sum(whole) if len(whole) == len(sizes) else None
    return Value(made, dtype, tuple(shape))


def _stack(site: Site, items: list[Any]) -> Value:
    values, dtype = _listed(site, items)
    axis = axis_of(site, site.config.get("axis", 0), values[0].rank + 1)
    rows = [site.op("Unsqueeze", [site.writer.form(v), site.ints(axis)]) for v in values]
    shape = list(values[0].shape)
    shape.insert(axis, len(values))
    return Value(site.op("Concat", rows, axis=axis), dtype, tuple(shape))


def _split(site: Site, items: list[Any]) -> list[Value]:
    value = _value(site, items[0])
    axis = axis_of(site, site.config.get("axis", 0), value.rank)
    cuts, size = site.option("indices_or_sections"), value.static(axis)
    if size is None:
        raise site.refused("axis", site.config.get("axis"))
    if isinstance(cuts, int):
        if cuts < 1 or size % cuts:
            raise CorruptFile("an axis that cannot be split so", where=site.label, found=cuts)
        sizes = [size // cuts] * cuts
    elif isinstance(cuts, list) and all(isinstance(index, int) for index in cuts):
        sizes = [after - before for before, after in pairwise([0, *cuts, size])]
    else:
        raise site.refused("indices_or_sections", cuts)
    if min(sizes) < 0:
        raise CorruptFile("an axis that cannot be split so", where=site.label, found=str(cuts))
    inputs = [site.writer.form(value), site.ints(*sizes)]
    names = site.ops("Split", inputs, len(sizes), axis=axis)
    return [
        Value(name, value.dtype, (*value.shape[:axis], part, *value.shape[axis + 1 :]))
        for name, part in zip(names, sizes, strict=True)
    ]


def _tile(site: Site, items: list[Any]) -> Value:
    value, repeats_option = _value(site, items[0]), site.option("repeats")
    repeats = repeats_option if isinstance(repeats_option, list) else [repeats_option]
    if len(repeats) != value.rank or not all(isinstance(count, int) for count in repeats):
        raise site.refused("repeats", repeats_option)
    made = site.op("Tile", [site.writer.form(value), site.ints(*repeats)])
    return Value(made, value.dtype, _times(value.shape, repeats))


def _times(shape: Shape, counts: Sequence[int]) -> Shape:
    return tuple(
        size * count if isinstance(size, int) else size if count == 1 else None
        for size, count in zip(shape, counts, strict=True)
    )


def _repeat(site: Site, items: list[Any]) -> Value:
    """Repeat: each element along an axis, one after another."""
    value, axis = _along(site, _value(site, items[0]))
    counts, size = site.option("repeats"), value.static(axis)
    if isinstance(counts, list) and len(counts) == 1:
        counts = counts[0]
    if isinstance(counts, int):
        count = site.writer.place(counts)
        length = site.op("Squeeze", [_length(site, value, axis)], "length_as_number")
        total = site.op("Mul", [length, count], "longer")
        each = site.op("Range", [site.writer.place(0), total, site.writer.place(1)], "each")
        places = site.op("Div", [each, count], "places")
        size = None if size is None else size * counts
    elif isinstance(counts, list) and len(counts) == size and all(
        type(count) is int and count >= 0 for count in counts
    ):
        places = site.constant(np.repeat(np.arange(size), counts), "places")
        size = sum(counts)
    else:
        raise site.refused("repeats", counts)
    made = site.op("Gather", [site.writer.form(value), places], axis=axis)
    return Value(made, value.dtype, (*value.shape[:axis], size, *value.shape[axis + 1 :]))


def _flip(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    axes = _axes(site, value)
    count = len(axes)
    ints = [site.ints(*[-1] * count), site.ints(*[BEFORE] * count), site.ints(*axes)]
    made = site.op("Slice", [site.writer.form(value), *ints, site.ints(*[-1] * count)])
    return Value(made, value.dtype, value.shape)


def _pad(site: Site, items: list[Any]) -> Value:
    value, widths = _value(site, items[0]), site.option("pad_width")
    mode = site.word("mode", "constant", "constant", "reflect")
    if isinstance(widths, int):
        widths = [[widths, widths]] * value.rank
    if not isinstance(widths, list) or len(widths) != value.rank:
        raise site.refused("pad_width", widths)
    pairs = [pair if isinstance(pair, list) else [pair, pair] for pair in widths]
    if not all(isinstance(size, int) and size >= 0 for pair in pairs for size in pair):
        raise site.refused("pad_width", widths)
    pads = site.ints(*(pair[0] for pair in pairs), *(pair[1] for pair in pairs))
    made = site.op("Pad", [site.writer.form(value), pads], mode=mode)
    shape = tuple(
        size + sum(pair) if isinstance(size, int) else size if not any(pair) else None
        for size, pair in zip(value.shape, pairs, strict=True)
    )
    return Value(made, value.dtype, shape)


def _ravel(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    made = site.op("Reshape", [site.writer.form(value), site.ints(-1)], "flat")
    return Value(made, value.dtype, _inferred(value.shape, [-1]))


def _move_axis(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    sides = []
    for key in ("source", "destination"):
        axes = site.option(key)
        listed = axes if isinstance(axes, list) else [axes]
        sides.append([axis_of(site, axis, value.rank) for axis in listed])
    return _moved(site, value, *sides)


def _moved(site: Site, value: Value, source: Sequence[int], target: Sequence[int]) -> Value:
    order = [axis for axis in range(value.rank) if axis not in source]
    for to, axis in sorted(zip(target, source, strict=True)):
        order.insert(to, axis)
    return _reordered(site, value, order)


def _roll(site: Site, items: list[Any]) -> Value:
    """Each step moves on, and the last ones come first."""
    value = _value(site, items[0])
    shifts, axes = site.option("shift"), site.option("axis")
    if axes is None:
        raise site.refused("axis", None)
    pairs = zip(
        shifts if isinstance(shifts, list) else [shifts],
        axes if isinstance(axes, list) else [axes],
        strict=True,
    )
    for shift, axis in pairs:
        if isinstance(shift, bool) or not isinstance(shift, int):
            raise site.refused("shift", shift)
        at = axis_of(site, axis, value.rank)
        length = site.op("Squeeze", [_length(site, value, at)], "steps")
        places = site.op("Range", [site.writer.place(0), length, site.writer.place(1)], "places")
        before = site.op("Sub", [places, site.writer.place(shift)], "before")
        before = site.op("Mod", [before, length], "before_in_turn")
        made = site.op("Gather", [site.writer.form(value), before], "rolled", axis=at)
        value = Value(made, value.dtype, value.shape)
    return value


def _difference(site: Site, items: list[Any]) -> Value:
    """Diff: each step less the one before."""
    value, axis_option = _value(site, items[0]), site.config.get("axis", -1)
    axis = axis_of(site, axis_option, value.rank)
    for _ in range(site.integer("n", 1)):
        name, size = site.writer.form(value), value.shape[axis]
        later = site.op("Slice", [name, site.ints(1), site.ints(END), site.ints(axis)], "later")
        earlier = site.op("Slice", [name, site.ints(0), site.ints(-1), site.ints(axis)], "earlier")
        shape = list(value.shape)
        shape[axis] = size - 1 if isinstance(size, int) else None
        value = Value(site.op("Sub", [later, earlier], "diff"), value.dtype, tuple(shape))
    return value


def _unstack(site: Site, items: list[Any]) -> list[Value]:
    value = _value(site, items[0])
    axis = axis_of(site, site.config.get("axis", 0), value.rank)
    count = site.option("num") or value.static(axis)
    if not isinstance(count, int):
        raise site.refused("axis", site.config.get("axis", 0))
    shape = (*value.shape[:axis], *value.shape[axis + 1 :])
    name = site.writer.form(value)
    return [
        Value(site.op("Gather", [name, site.writer.place(i)], "row", axis=axis), value.dtype, shape)
        for i in range(count)
    ]


def _joined_along(axis: int) -> Callable[..., Value]:
    """Hstack and Vstack, of values that have the axis."""

    def run(site: Site, items: list[Any]) -> Value:
        values, _ = _listed(site, items)
        if min(value.rank for value in values) <= axis:
            raise site.refused("inputs", "vectors")
        site.config["axis"] = axis
        return _concatenate(site, items)

    return run


def _triangle(*, upper: bool) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        value = _value(site, items[0])
        diagonal = site.writer.place(site.integer("k", 0, low=BEFORE))
        made = site.op("Trilu", [site.writer.form(value), diagonal], upper=int(upper))
        return Value(made, value.dtype, value.shape)

    return run


def _broadcast_to(site: Site, items: list[Any]) -> Value:
    value, shape = _value(site, items[0]), site.option("shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise site.refused("shape", shape)
    made = site.op("Expand", [site.writer.form(value), site.ints(*shape)], "broadcast")
    return Value(made, value.dtype, tuple(shape))


def _full_like(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    filling = _value(site, items[1])
    dtype = site.option("dtype", value.dtype)
    if dtype not in NUMBERS or filling.rank:
        raise site.refused("dtype", dtype)
    filling = site.writer.cast(filling, str(dtype))
    shape = site.op("Shape", [site.writer.form(value)])
    return Value(site.op("Expand", [site.writer.form(filling), shape]), str(dtype), value.shape)


def _slice(site: Site, items: list[Any]) -> Value:
    """Slice: a part of a known size, from a known start."""
    value, starts, sizes = _value(site, items[0]), items[1], site.option("shape")
    for numbers in (starts, sizes):
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            raise site.refused("shape", numbers)
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    ints = [site.ints(*starts), site.ints(*ends), site.ints(*range(value.rank))]
    return Value(site.op("Slice", [site.writer.form(value), *ints]), value.dtype, tuple(sizes))


def _normalize(site: Site, items: list[Any]) -> Value:
    value = _float(site, items[0])
    if site.option("order", 2) != 2:
        raise site.refused("order", site.option("order"))
    epsilon = site.real("epsilon", _EPSILON)
    axes = [axis_of(site, site.config.get("axis", -1), value.rank)]
    return unit_length(site, value, axes, epsilon if site.is_modern else epsilon * epsilon)


def _identity(site: Site, items: list[Any]) -> Value:
    return _value(site, items[0]).again()


def _as_tensor(site: Site, items: list[Any]) -> Value:
    """ConvertToTensor, which Keras 3 puts where it makes a mask."""
    if site.option("dtype") is None:
        return _identity(site, items)
    return _cast(site, items)


def _power(site: Site, items: list[Any]) -> Value:
    return _binary("Pow")(site, items)


# ---- numbers that may be missing -----------------------------------------------------------------


def _no_numbers(site: Site, value: Value) -> str:
    return site.op("IsNaN", [site.writer.form(value)], "is_nan")


def _without_nan(site: Site, value: Value, filling: float) -> Value:
    names = [_no_numbers(site, value), site.number(filling), site.writer.form(value)]
    return Value(site.op("Where", names, "without_nan"), value.dtype, value.shape)


def _nan_reduction(operator: str, filling: float, *, empty: bool) -> Callable[..., Value]:
    """A reduction of what is a number; `empty`: whether none at all gives NaN."""

    def run(site: Site, items: list[Any]) -> Value:
        if _value(site, items[0]).dtype not in FLOATS:
            return _reduction(operator)(site, items)
        value = _float(site, items[0])
        result = _reduce(site, operator, _without_nan(site, value, filling))
        if not empty:
            return result
        names = [_none_at_all(site, value), site.number(math.nan), site.writer.form(result)]
        return Value(site.op("Where", names, "or_nan"), result.dtype, result.shape)

    return run


def _none_at_all(site: Site, value: Value) -> str:
    """Return whether all along the axes is NaN."""
    flags = Value(_no_numbers(site, value), "bool", value.shape)
    every = _reduce(site, "ReduceMin", site.writer.cast(flags, "int32"))
    return site.writer.form(site.writer.cast(every, "bool"))


def _counted(site: Site, value: Value, *, keep: bool) -> str:
    """Return how many along the axes are numbers."""
    flags = site.to(site.op("Not", [_no_numbers(site, value)], "is_number"), site.compute)
    return site.reduce("ReduceSum", flags, _axes(site, value), "count", keep=keep)


def _nan_mean(site: Site, items: list[Any]) -> Value:
    value = _float(site, items[0])
    total = _reduce(site, "ReduceSum", _without_nan(site, value, 0.0))
    count = _counted(site, value, keep=site.flag("keepdims", False))
    made = site.op("Div", [site.writer.form(total), count], "nanmean")
    return Value(made, value.dtype, total.shape)


def _nan_variance(*, root: bool) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        value = _float(site, items[0])
        axes, keep = _axes(site, value), site.flag("keepdims", False)
        known = site.writer.form(_without_nan(site, value, 0.0))
        total = site.reduce("ReduceSum", known, axes, "total", keep=True)
        mean = site.op("Div", [total, _counted(site, value, keep=True)], "mean")
        centred = site.op("Sub", [site.writer.form(value), mean], "centred")
        centred = site.op("Where", [_no_numbers(site, value), site.number(0.0), centred])
        squares = site.reduce(
            "ReduceSum", site.op("Mul", [centred, centred], "squares"), axes, keep=keep
        )
        made = site.op("Div", [squares, _counted(site, value, keep=keep)], "nanvar")
        made = site.op("Sqrt", [made]) if root else made
        return Value(made, value.dtype, _reduced(value.shape, axes, keep=keep))

    return run


def _nan_place(operator: str, filling: float) -> Callable[..., Value]:
    """The place of the largest or the least; -1 where there is no number."""

    def run(site: Site, items: list[Any]) -> Value:
        value, axis = _along(site, _float(site, items[0]))
        site.config["axis"] = axis
        places = _place(operator)(site, [_without_nan(site, value, filling)])
        names = [_none_at_all(site, value), site.writer.number(-1, "int32")]
        made = site.op("Where", [*names, site.writer.form(places)], "place")
        return Value(made, "int32", places.shape)

    return run


def _accumulated_without_nan(function: Callable[..., Value], nan: float) -> Callable[..., Value]:
    """NaN is put aside before, and what is infinite becomes finite, as Keras does it."""

    def run(site: Site, items: list[Any]) -> Value:
        site.config["nan"] = nan
        return function(site, [_nan_to_num(site, items)])

    return run


def _larger_number(*, largest: bool) -> Callable[..., Value]:
    """Fmax and Fmin: NaN loses against a number."""

    def run(site: Site, items: list[Any]) -> Value:
        operator = "Max" if largest else "Min"
        if _common_dtype(site, items) in _INTEGERS:
            return _binary(operator)(site, items)
        first, second, shape, dtype = _real_pair(site, items)
        made = site.op(operator, [first, second])
        for other, name in ((second, first), (first, second)):
            made = site.op("Where", [site.op("IsNaN", [name]), other, made], "number")
        return Value(made, dtype, shape)

    return run


# ---- pairs of numbers, and what becomes of single ones -------------------------------------------


def _is_near(site: Site, items: list[Any]) -> Value:
    """Isclose: within 1e-8, or a part of the second."""
    constants = [
        default if len(items) <= at or items[at] is None else float(_constant(site, items[at]))
        for at, default in ((2, 1e-5), (3, 1e-8))
    ]
    return _near(site, items[:2], *constants)


def _near(site: Site, items: Sequence[Any], relative: float, absolute: float) -> Value:
    if _common_dtype(site, items) in _INTEGERS:
        return _binary("Equal", result="bool")(site, list(items))
    first, second, shape, _ = _real_pair(site, items)
    distance = site.op("Abs", [site.op("Sub", [first, second])], "distance")
    share = site.op("Mul", [site.number(relative), site.op("Abs", [second])], "share")
    allowed = site.op("Add", [site.number(absolute), share], "allowed")
    made = site.op("LessOrEqual", [distance, allowed], "is_close")
    if site.flag("equal_nan", False):
        both = site.op("And", [site.op("IsNaN", [first]), site.op("IsNaN", [second])])
        made = site.op("Or", [made, both], "is_close_or_nan")
    return Value(made, "bool", shape)


def _all_near(site: Site, items: list[Any]) -> Value:
    near = _near(site, items, site.real("rtol", 1e-5), site.real("atol", 1e-8))
    name = site.writer.form(near)
    if _common_dtype(site, items) not in _INTEGERS:
        first, second, _, _ = _real_pair(site, items)
        # Two infinities are equal, and not near.
        finite = [site.op("Not", [_infinite(site, x)], "finite") for x in (first, second)]
        name = site.op("And", [name, site.op("And", finite)], "near_and_finite")
        name = site.op("Or", [name, site.op("Equal", [first, second])], "near_or_equal")
    every = site.reduce("ReduceMin", site.to(name, "int32"), range(near.rank), "all_near")
    return site.writer.cast(Value(every, "int32", ()), "bool")


def _step(site: Site, items: list[Any]) -> Value:
    """Heaviside: nothing below zero, one above, the second at zero itself."""
    first, second, shape, dtype = _real_pair(site, items)
    zero, full = site.number(0.0), site.number(1.0)
    above = site.op("Where", [site.op("Greater", [first, zero]), full, second], "above")
    made = site.op("Where", [site.op("Less", [first, zero]), zero, above], "heaviside")
    return Value(made, dtype, shape)


def _sinc(site: Site, name: str) -> str:
    turns = site.op("Mul", [name, site.number(math.pi)], "turns")
    is_zero = site.op("Equal", [name, site.number(0.0)])
    share = site.op("Div", [site.op("Sin", [turns]), turns], "share")
    return site.op("Where", [is_zero, site.number(1.0), share], "sinc")


def _log_add_exp2(site: Site, first: str, second: str) -> str:
    ln2 = site.number(math.log(2.0))
    distance = site.op("Sub", [first, second], "distance")
    far = site.op("Mul", [site.op("Neg", [site.op("Abs", [distance])]), ln2], "power")
    rest = site.op("Div", [activations.log1p(site, site.op("Exp", [far])), ln2], "rest")
    total = site.op("Add", [site.op("Max", [first, second]), rest], "logaddexp2")
    sums = site.op("Add", [first, second], "sum")
    return site.op("Where", [site.op("IsNaN", [distance]), sums, total], "logaddexp2")


def _scaled_by_power(site: Site, items: list[Any]) -> Value:
    """Ldexp: times two to the power of a whole number."""
    first, second, shape, dtype = _real_pair(site, items)
    power = site.op("Pow", [site.number(2.0), second], "power")
    is_zero = site.op("Equal", [first, site.number(0.0)])
    kept = site.op("Or", [_infinite(site, first), is_zero], "is_kept")
    made = site.op("Where", [kept, first, site.op("Mul", [first, power])], "ldexp")
    return Value(made, dtype, shape)


def _of_frequencies(write: Callable[..., Any], parts: int) -> Function:
    """Return what writes a function of real numbers, or of complex ones in two parts."""
    def run(site: Site, items: list[Any]) -> Any:
        given = items[0] if isinstance(items[0], list) else [items[0]]
        if len(given) != parts:
            raise site.refused("inputs", f"{len(given)} arguments")
        values = [_float(site, item) for item in given]
        if any(value.shape != values[0].shape for value in values):
            raise site.refused("inputs", "parts of other shapes")
        return write(site, *values)

    return run


def _windows(site: Site, items: list[Any]) -> Value:
    """ExtractSequences: windows that move along the last axis."""
    value = _value(site, items[0])
    return signals.windows(
        site, value, site.integer("sequence_length"), site.integer("sequence_stride")
    )


def _angle_of_real(site: Site, name: str) -> str:
    is_below = site.op("Less", [name, site.number(0.0)])
    return site.op("Where", [is_below, site.number(math.pi), site.number(0.0)], "angle")


def _truth(value: bool) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        given = _value(site, items[0])
        shape = site.op("Shape", [site.writer.form(given)])
        made = site.op("Expand", [site.writer.number(value, "bool"), shape])
        return Value(made, "bool", given.shape)

    return run


def _within_and_cast(site: Site, items: list[Any]) -> Value:
    """SaturateCast: within what the other type has."""
    value, dtype = _value(site, items[0]), site.option("dtype")
    if value.dtype == "bool" or dtype not in NUMBERS or dtype in ("bool", "bfloat16"):
        raise site.refused("dtype", dtype)
    given, wanted = (
        np.finfo(dtype_of(name)) if name in FLOATS else np.iinfo(name)
        for name in (value.dtype, str(dtype))
    )
    kind = dtype_of(value.dtype).type
    low, high = kind(max(given.min, wanted.min)), kind(min(given.max, wanted.max))
    if low < wanted.min:
        low = np.nextafter(low, kind(0))
    if high > wanted.max:
        high = np.nextafter(high, kind(0))
    bounds = [site.writer.number(x.item(), value.dtype) for x in (low, high)]
    made = site.op("Clip", [site.writer.form(value), *bounds], "within")
    return site.writer.cast(Value(made, value.dtype, value.shape), str(dtype))


#: Operation -> its operator, and the opset that they came with.
BITWISE: Mapping[str, str] = {
    "BitwiseAnd": "BitwiseAnd", "BitwiseOr": "BitwiseOr", "BitwiseXor": "BitwiseXor",
    "BitwiseNot": "BitwiseNot", "BitwiseInvert": "BitwiseNot",
}  # fmt: skip
BITS_SINCE = 18


def _bitwise(operator: str) -> Callable[..., Value]:
    def run(site: Site, items: list[Any]) -> Value:
        if site.writer.opset < BITS_SINCE:
            raise site.refused("opset", site.writer.opset, f"{operator} came with opset "
                               f"{BITS_SINCE}: leave --opset away")  # fmt: skip
        if operator == "BitwiseNot":
            value = _value(site, items[0])
            if value.dtype not in _INTEGERS or value.dtype == "bool":
                raise site.refused("inputs", value.dtype)
            return Value(site.op(operator, [site.writer.form(value)]), value.dtype, value.shape)
        names, _, dtype = _together(site, items)
        if dtype not in _INTEGERS or dtype == "bool":
            raise site.refused("inputs", dtype)
        return Value(site.op(operator, names), dtype, _broadcast(_shapes(site, items)))

    return run


# ---- along axes ----------------------------------------------------------------------------------


def _cumprod(site: Site, items: list[Any]) -> Value:
    """The products up to each place: no operator has them, and of each row all are taken."""
    value, axis = _along(site, _value(site, items[0]))
    dtype = site.option("dtype", "int32" if value.dtype == "bool" else value.dtype)
    if dtype not in ("float32", "float64", "int32", "int64"):
        raise site.refused("dtype", dtype)
    value = site.writer.cast(value, str(dtype))
    order = (*(i for i in range(value.rank) if i != axis), axis)
    rows = site.op("Unsqueeze", [site.writer.form(value, order), site.ints(-2)], "rows")
    length = site.op("Squeeze", [_length(site, value, axis)], "steps")
    places = site.op("Range", [site.writer.place(0), length, site.writer.place(1)], "places")
    column = site.op("Unsqueeze", [places, site.ints(1)], "column")
    reached = site.op("GreaterOrEqual", [column, places], "reached")
    factors = site.op("Where", [reached, rows, site.writer.number(1, str(dtype))], "factors")
    made = site.reduce("ReduceProd", factors, [value.rank], "cumprod")
    return Value(made, value.dtype, value.shape, order)


def _append(site: Site, items: list[Any]) -> Value:
    if site.config.get("axis") is None:
        site.config["axis"] = 0
        return _concatenate(site, [_ravel(site, [item]) for item in items])
    return _concatenate(site, items)


def _split_evenly(site: Site, items: list[Any]) -> list[Value]:
    """ArraySplit: the first parts are one longer where the axis cannot be split evenly."""
    value, count = _value(site, items[0]), site.option("indices_or_sections")
    axis = axis_of(site, site.config.get("axis", 0), value.rank)
    size = value.static(axis)
    if not isinstance(count, int) or size is None or count < 1:
        raise site.refused("indices_or_sections", count)
    sizes = [size // count + (index < size % count) for index in range(count)]
    site.config["indices_or_sections"] = np.cumsum(sizes)[:-1].tolist()
    return _split(site, items)


def _split_along(axis: int) -> Callable[..., list[Value]]:
    def run(site: Site, items: list[Any]) -> list[Value]:
        site.config["axis"] = min(axis, _value(site, items[0]).rank - 1)
        return _split(site, items)

    return run


def _rotated(site: Site, items: list[Any]) -> Value:
    """Rot90: quarter turns in the plane of two axes."""
    value = _value(site, items[0])
    stated = site.option("axes", [0, 1])
    if not isinstance(stated, list) or len(stated) != 2:
        raise site.refused("axes", stated)
    first, second = (axis_of(site, axis, value.rank) for axis in stated)
    order = list(range(value.rank))
    order[first], order[second] = second, first
    turns = site.integer("k", 1, low=BEFORE) % 4
    if turns == 2 and (value.static(first) is None or value.shape[first] != value.shape[second]):
        # Keras 3.15 on TensorFlow gives the numbers of such a plane in another order than on JAX.
        raise site.refused("k", 2, "Keras turns a plane that is not square otherwise on each of "
                           "its backends")  # fmt: skip
    for _ in range(turns):
        ints = [site.ints(-1), site.ints(BEFORE), site.ints(second), site.ints(-1)]
        name = site.op("Slice", [site.writer.form(value), *ints], "turned")
        value = _reordered(site, Value(name, value.dtype, value.shape), order)
    return value.again()


def _trapezoids(site: Site, items: list[Any]) -> Value:
    value = _float(site, items[0])
    if site.option("x") is not None:
        raise site.refused("x", "places that are not a number apart")
    axis, name = axis_of(site, site.config.get("axis", -1), value.rank), site.writer.form(value)
    later = site.op("Slice", [name, site.ints(1), site.ints(END), site.ints(axis)], "later")
    earlier = site.op("Slice", [name, site.ints(0), site.ints(-1), site.ints(axis)], "earlier")
    heights = site.op("Mul", [site.number(0.5), site.op("Add", [later, earlier])], "heights")
    areas = site.op("Mul", [heights, site.number(site.real("dx", 1.0))], "areas")
    made = site.reduce("ReduceSum", areas, [axis], "trapezoid")
    return Value(made, value.dtype, _reduced(value.shape, [axis], keep=False))


def _flat_product(site: Site, items: list[Any]) -> Value:
    """Vdot: the sum of all products."""
    flat = [_ravel(site, [item]) for item in _alike(site, items)]
    return _contracted(site, flat, [0], [0])


def _selected(site: Site, items: list[Any]) -> Value:
    """Select: of each element the first choice whose condition holds."""
    conditions, choices = items[0], items[1]
    default = items[2] if len(items) > 2 and items[2] is not None else 0
    if not isinstance(conditions, list) or not isinstance(choices, list):
        raise site.refused("inputs", "other than lists")
    made: Any = default
    for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
        made = _where(site, [condition, choice, made])
    return made if isinstance(made, Value) else _value(site, made)


def _is_in(site: Site, items: list[Any]) -> Value:
    value, listed = _value(site, items[0]), _ravel(site, [items[1]])
    dtype = _promoted(value.dtype, listed.dtype)
    value, listed = site.writer.cast(value, dtype), site.writer.cast(listed, dtype)
    column = site.op("Unsqueeze", [site.writer.form(value), site.ints(-1)], "column")
    equal = site.op("Equal", [column, site.writer.form(listed)], "equal")
    hits = site.reduce("ReduceMax", site.to(equal, "int32"), [value.rank], "is_in")
    made = site.to(hits, "bool")
    made = site.op("Not", [made]) if site.flag("invert", False) else made
    return Value(made, "bool", value.shape)


def _searched(site: Site, items: list[Any]) -> Value:
    """SearchSorted: how many of a list in order are below each value, or are not above it."""
    bounds, value = _alike(site, items)
    if bounds.rank != 1:
        raise site.refused("inputs", "bounds that are not a list")
    side = site.word("side", "left", "left", "right")
    column = site.op("Unsqueeze", [site.writer.form(value), site.ints(-1)], "column")
    operator = "Greater" if side == "left" else "GreaterOrEqual"
    reached = site.op(operator, [column, site.writer.form(bounds)], "reached")
    made = site.reduce("ReduceSum", site.to(reached, "int32"), [value.rank], "count")
    return Value(made, "int32", value.shape)


def _size(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    made = site.op("Size", [site.writer.form(value)])
    return site.writer.cast(Value(made, "int64", ()), "int32")


def _updated(site: Site, items: list[Any]) -> Value:
    """ScatterUpdate: other numbers at some places, or more, or the larger or smaller ones."""
    value, places = _value(site, items[0]), site.writer.cast(_value(site, items[1]), "int64")
    updates = site.writer.cast(_value(site, items[2]), value.dtype)
    how = site.option("reduction")
    attributes: dict[str, Any] = {}
    if how is not None:
        since = {"add": 16, "mul": 16, "max": 18, "min": 18}.get(str(how))
        if since is None or site.writer.opset < since:
            raise site.refused("reduction", how, "" if since is None else
                               f"it came with opset {since}: ask for it with --opset {since}")
        attributes["reduction"] = how
    names = [site.writer.form(x) for x in (value, places, updates)]
    return Value(site.op("ScatterND", names, **attributes), value.dtype, value.shape)


# ---- normalizations, convolutions and distances as functions -------------------------------------


def _at(items: Sequence[Any], index: int) -> Any:
    return items[index] if index < len(items) else None


def _along_axis(site: Site, item: Any, axis: int, rank: int) -> str:
    """Return a vector along one axis of a value, as one that is broadcast to it."""
    vector = _float(site, item)
    if vector.rank != 1:
        return site.writer.form(vector)
    shape = [1] * rank
    shape[axis] = -1
    return site.op("Reshape", [site.writer.form(vector), site.ints(*shape)], "spread")


def _batch_norm(site: Site, items: list[Any]) -> Value:
    value = _float(site, items[0])
    axis = axis_of(site, site.config.get("axis", -1), value.rank)
    names = [
        None if _at(items, at) is None else _along_axis(site, items[at], axis, value.rank)
        for at in range(1, 5)
    ]
    mean, variance, offset, scale = names
    if mean is None or variance is None:
        raise site.refused("inputs", "no mean or variance")
    more = site.op("Add", [variance, site.number(site.real("epsilon", 1e-3))])
    factor = site.op("Reciprocal", [site.op("Sqrt", [more])], "factor")
    factor = factor if scale is None else site.op("Mul", [factor, scale], "factor")
    rest = site.op("Neg", [site.op("Mul", [mean, factor])], "rest")
    rest = rest if offset is None else site.op("Add", [offset, rest], "rest")
    made = site.op("Add", [site.op("Mul", [site.writer.form(value), factor]), rest], "normal")
    return Value(made, value.dtype, value.shape)


def _layer_norm(site: Site, items: list[Any]) -> Value:
    """LayerNorm, and with a root of mean squares alone RMSNorm."""
    value = _float(site, items[0])
    if site.compute == "float16":
        raise site.refused("inputs", "float16")
    is_root = site.part.class_name == "RMSNorm"
    config_axis = site.config.get("axis", -1)
    listed = config_axis if isinstance(config_axis, list) else [config_axis]
    axes = sorted(axis_of(site, axis, value.rank) for axis in listed)
    if axes != list(range(value.rank - len(axes), value.rank)):
        raise site.refused("axis", config_axis)
    name, centred = site.writer.form(value), site.writer.form(value)
    is_scaling = site.flag("rms_scaling", False)
    if not is_root:
        mean = site.reduce("ReduceMean", name, axes, "mean", keep=True)
        centred = site.op("Sub", [name, mean], "centred")
    squares = site.op("Mul", [centred, centred], "squares")
    variance = site.reduce("ReduceMean", squares, axes, "variance", keep=True)
    more = site.op("Add", [variance, site.number(site.real("epsilon", _EPSILON))])
    deviation = site.op("Sqrt", [more], "deviation")
    made = site.op("Div", [name if is_scaling else centred, deviation], "normalized")
    for operator, at in (("Mul", 1), ("Add", 2)):
        if _at(items, at) is not None and not (is_scaling and operator == "Add"):
            made = site.op(operator, [made, site.writer.form(_float(site, items[at]))])
    return Value(made, value.dtype, value.shape)


def _convolved(kind: str, *roles: str) -> Callable[..., Value]:
    """Conv and its like with constant kernels: what the layers do."""

    def run(site: Site, items: list[Any]) -> Value:
        value = _float(site, items[0])
        if value.rank not in (3, 4, 5) or any(isinstance(item, Value) for item in items[1:]):
            raise site.refused("kernel", "one that is not a constant")
        kernels = [np.asarray(_constant(site, item), dtype_of(site.compute)) for item in items[1:]]
        if len(kernels) != len(roles) or kernels[0].ndim != value.rank:
            raise site.refused("kernel", f"of {kernels[0].ndim} axes")
        rank, part = value.rank - 2, site.part
        part.class_name = f"{kind}{rank}D"
        part.weights = tuple(Weight(role) for role in roles)
        part.arrays = [ArrayTensor(kernel) for kernel in kernels]
        config = {key: v for key, v in site.config.items() if v is not None}
        first = config.get("data_format") == "channels_first"
        channels = value.static(1 if first else -1)
        site.config.clear()
        site.config.update(config, kernel_size=list(kernels[0].shape[:-2]))
        if kind == "Conv" and channels is not None:
            site.config["groups"] = channels // kernels[0].shape[-2]
        site.arguments = [value]
        return _CONVOLUTIONS[kind](site)

    return run


_CONVOLUTIONS: Mapping[str, Callable[[Site], Value]] = {
    "Conv": convolution.convolution,
    "DepthwiseConv": convolution.depthwise,
    "SeparableConv": convolution.separable,
}


def _blocks(operator: str) -> Callable[..., Value]:
    """DepthToSpace and SpaceToDepth: blocks of pixels as channels."""

    def run(site: Site, items: list[Any]) -> Value:
        value, size = _float(site, items[0]), site.integer("block_size")
        first = site.option("data_format", "channels_last") == "channels_first"
        order = value.straight if first else (0, 3, 1, 2)
        if value.rank != 4:
            raise site.refused("inputs", f"{value.rank} axes")
        made = site.op(operator, [site.writer.form(value, order)], blocksize=size)
        is_space = operator == "DepthToSpace"
        shape = list(value.shape)
        channels, *spaces = order[1:]
        for axis in spaces:
            shape[axis] = _times_or_part(value.shape[axis], size, grows=is_space)
        shape[channels] = _times_or_part(value.shape[channels], size * size, grows=not is_space)
        return Value(made, value.dtype, tuple(shape), order)

    return run


def _times_or_part(size: Axis, count: int, *, grows: bool) -> Axis:
    if not isinstance(size, int):
        return None
    return size * count if grows else size // count


def _patches(site: Site, items: list[Any]) -> Value:
    """ExtractPatches: a convolution with ones at each place of the window."""
    value, size = _float(site, items[0]), site.option("size")
    if not isinstance(size, list) or len(size) != 2 or value.rank != 4:
        raise site.refused("size", size)
    first = site.option("data_format", "channels_last") == "channels_first"
    channels = value.static(1 if first else -1)
    if channels is None:
        raise site.refused("inputs", "an unknown number of channels")
    count = math.prod(size) * channels
    kernel = np.eye(count, dtype=dtype_of(site.compute)).reshape(*size, channels, count)
    strides = site.option("strides", size)
    site.config["strides"] = strides
    return _convolved("Conv", "kernel")(site, [value, kernel])


def _distances(site: Site, items: list[Any]) -> Value:
    """CDist: from each row of the first to each of the second."""
    first, second = _alike(site, items)
    rows = site.op("Unsqueeze", [site.writer.form(first), site.ints(-2)], "rows")
    columns = site.op("Unsqueeze", [site.writer.form(second), site.ints(-3)], "columns")
    distance = site.op("Sub", [rows, columns], "distance")
    squares = site.op("Mul", [distance, distance], "squares")
    rank = max(first.rank, second.rank) + 1
    total = site.reduce("ReduceSum", squares, [rank - 1], "total")
    outer = _broadcast([first.shape[:-2], second.shape[:-2]]) if rank > 3 else ()
    made = site.op("Sqrt", [total], "cdist")
    return Value(made, first.dtype, (*outer, first.shape[-2], second.shape[-2]))


def _signal_to_noise(site: Site, items: list[Any]) -> Value:
    first, second, shape, dtype = _real_pair(site, items)
    distance = site.op("Sub", [first, second], "distance")
    squares = site.op("Mul", [distance, distance], "squares")
    mean = site.reduce("ReduceMean", squares, range(len(shape)), "mean")
    log = _log_of(10.0)(site, mean)
    noise = site.op("Mul", [site.number(10.0), log], "noise")
    top = 20 * math.log10(site.real("max_val", 1.0))
    return Value(site.op("Sub", [site.number(top), noise], "psnr"), dtype, ())


def _lower_root(site: Site, items: list[Any]) -> Value:
    """Cholesky, row by row: of matrices of a known size."""
    value = _float(site, items[0])
    if site.flag("upper", False):
        raise site.refused("upper", True)
    rows, count = _root_rows(site, value)
    zero = site.op("Sub", [rows[0][0], rows[0][0]], "zero")
    full = [entry for row in rows for entry in (*row, *[zero] * (count - len(row)))]
    flat = [site.op("Unsqueeze", [entry, site.ints(-1)], "entry") for entry in full]
    joined = site.op("Concat", flat, "entries", axis=-1)
    shape = site.op("Shape", [site.writer.form(value)])
    return Value(site.op("Reshape", [joined, shape], "cholesky"), value.dtype, value.shape)


def _root_rows(site: Site, value: Value) -> tuple[list[list[str]], int]:
    count = value.static(-1)
    if count is None or count > _LARGEST_ROOT or value.static(-2) != count:
        raise site.refused("inputs", f"matrices of {count} rows")
    given = [[_entry(site, value, i, j) for j in range(i + 1)] for i in range(count)]
    rows: list[list[str]] = []
    for i in range(count):
        row: list[str] = []
        for j in range(i + 1):
            other = row if i == j else rows[j]
            rest = given[i][j]
            for k in range(j):
                rest = site.op("Sub", [rest, site.op("Mul", [row[k], other[k]])], "rest")
            row.append(site.op("Sqrt", [rest]) if i == j else
                       site.op("Div", [rest, rows[j][j]], "below"))  # fmt: skip
        rows.append(row)
    return rows, count


def _entry(site: Site, value: Value, row: int, column: int) -> str:
    name = site.op("Gather", [site.writer.form(value), site.writer.place(row)], "row", axis=-2)
    return site.op("Gather", [name, site.writer.place(column)], "entry", axis=-1)


#: Matrices up to this many rows are taken distance by a node for each product.
_LARGEST_ROOT = 8


def _log_determinant(site: Site, items: list[Any]) -> Value:
    """Logdet, of matrices that have a Cholesky root, as Keras takes it."""
    rows, _ = _root_rows(site, value := _float(site, items[0]))
    total = ""
    for index, row in enumerate(rows):
        log = site.op("Log", [row[index]])
        total = log if not index else site.op("Add", [total, log], "sum")
    made = site.op("Mul", [site.number(2.0), total], "logdet")
    return Value(made, value.dtype, value.shape[:-2])


# ---- systems of equations ------------------------------------------------------------------------


def _rows_of(site: Site, value: Value) -> int:
    count = value.static(-2)
    if count is None or value.static(-1) != count:
        raise site.refused("inputs", f"matrices of {value.shape[-2:]}",
                           "it takes square matrices whose size is known")  # fmt: skip
    return count


def _eliminated(site: Site, name: str, rank: int, count: int) -> list[str]:
    """Return (…, rows, columns) with its first columns made those of a unit matrix, the pivots
    (rows, …, 1, 1), and whether each was in its own row (rows, …, 1): Gauss and Jordan's steps with
    the largest number of a column as its pivot, in a Loop."""
    every = site.constant(np.arange(count), "rows")
    column = site.constant(np.arange(count)[:, None], "row_numbers")
    with inside(site) as nodes:
        at, goes_on, old = (name_inside(site, what) for what in ("at", "goes_on", "matrix"))
        place = site.op("Reshape", [at, site.ints(1)], "place")
        sizes = site.op("Abs", [site.op("Gather", [old, at], "column", axis=-1)], "sizes")
        is_above = site.op("Less", [every, at], "is_above")
        sizes = site.op("Where", [is_above, site.number(-1.0), sizes], "sizes_below")
        largest = site.op("ArgMax", [sizes], "largest", axis=-1)
        is_at, is_largest = (site.op("Equal", [every, row], "is_row") for row in (at, largest))
        order = site.op("Where", [is_largest, at, every], "order")
        order = site.op("Where", [is_at, largest, order], "exchanged")
        wanted = site.op("Unsqueeze", [order, site.ints(-1)], "wanted")
        permutation = site.to(site.op("Equal", [wanted, every], "is_taken"), site.compute)
        matrix = site.op("MatMul", [permutation, old], "matrix_in_order")
        row = site.op("Gather", [matrix, place], "row", axis=rank - 2)
        pivot = site.op("Gather", [row, place], "pivot", axis=rank - 1)
        row = site.op("Div", [row, pivot], "unit_row")
        factors = site.op("Gather", [matrix, place], "factors", axis=rank - 1)
        rest = site.op("Sub", [matrix, site.op("Mul", [factors, row], "multiples")], "rest")
        is_row = site.op("Equal", [column, at], "is_this_row")
        new = site.op("Where", [is_row, row, rest], "next")
        is_own = site.op("Equal", [largest, at], "is_own")
        ends = [site.op("Identity", [goes_on], "still"), new,
                site.op("Identity", [pivot], "pivot_out"), is_own]  # fmt: skip
    shape, flags = [None] * rank, [None] * (rank - 1)
    dtype = site.compute
    inputs = [Declared(at, "int64", []), Declared(goes_on, "bool", []), Declared(old, dtype, shape)]
    kinds = [("bool", []), (dtype, shape), (dtype, shape), ("bool", flags)]
    outputs = [Declared(end, *kind) for end, kind in zip(ends, kinds, strict=True)]
    body = Body(f"{site.label}.body", nodes, inputs, outputs)
    return site.ops("Loop", [site.writer.place(count), "", name], 3, "eliminated", body=body)


def _solved(site: Site, matrix: Value, name: str, sides: str) -> str:
    """Return what a matrix makes the right sides (…, rows, columns)."""
    count = _rows_of(site, matrix)
    both = site.op("Concat", [name, sides], "both_sides", axis=matrix.rank - 1)
    made = _eliminated(site, both, matrix.rank, count)[0]
    return site.op("Slice", [made, site.ints(count), site.ints(END), site.ints(-1)], "solution")


def _inverse(site: Site, items: list[Any]) -> Value:
    """Inv; CholeskyInverse, that of a matrix whose root is given."""
    value = _float(site, items[0])
    name = site.writer.form(value)
    shape = site.op("Shape", [name], "shape")
    unit = site.constant(np.eye(_rows_of(site, value), dtype=dtype_of(site.compute)), "unit")
    unit = site.op("Expand", [unit, shape], "units")
    is_root = site.part.class_name == "CholeskyInverse"
    is_upper = site.flag("upper", False)
    name = _half(site, name, upper=is_upper) if is_root else name
    made = _solved(site, value, name, unit)
    if is_root:
        axes = list(range(value.rank))
        turned = site.op("Transpose", [made], perm=[*axes[:-2], axes[-1], axes[-2]])
        pair = [made, turned] if is_upper else [turned, made]
        made = site.op("MatMul", pair, "inverse")
    return Value(made, value.dtype, value.shape)


def _half(site: Site, name: str, *, upper: bool) -> str:
    return site.op("Trilu", [name], "triangle", upper=int(upper))


def _solution(site: Site, items: list[Any]) -> Value:
    """Solve, and SolveTriangular, which reads one half of the matrix alone."""
    matrix, side = _alike(site, items)
    name, right = site.writer.form(matrix), site.writer.form(side)
    is_vector = side.rank == matrix.rank - 1
    if side.rank != matrix.rank and not is_vector:
        raise site.refused("inputs", f"matrices of {matrix.rank} axes, sides of {side.rank}")
    if site.part.class_name == "SolveTriangular":
        name = _half(site, name, upper=not site.flag("lower", False))
    right = site.op("Unsqueeze", [right, site.ints(-1)], "column") if is_vector else right
    made = _solved(site, matrix, name, right)
    made = site.op("Squeeze", [made, site.ints(-1)], "vector") if is_vector else made
    return Value(made, matrix.dtype, side.shape)


def _sign_and_log(site: Site, items: list[Any]) -> list[Value]:
    """Slogdet: from the pivots, whose product may be more than a float holds."""
    value = _float(site, items[0])
    count = _rows_of(site, value)
    _, pivots, in_place = _eliminated(site, site.writer.form(value), value.rank, count)
    flat = site.op("Squeeze", [pivots, site.ints(-2, -1)], "pivots")
    minus, plus = site.number(-1.0), site.number(1.0)
    stays = site.op("Squeeze", [in_place, site.ints(-1)], "in_place")
    turns = site.op("Where", [stays, plus, minus], "turns")
    signs = site.op("Mul", [site.op("Sign", [flat]), turns], "signs")
    sign = site.reduce("ReduceProd", signs, [0], "sign")
    logs = site.op("Log", [site.op("Abs", [flat])], "logs")
    total = site.reduce("ReduceSum", logs, [0], "log_of_size")
    return [Value(name, value.dtype, value.shape[:-2]) for name in (sign, total)]


# ---- segments ------------------------------------------------------------------------------------


def _segments(operator: str) -> Callable[..., Value]:
    """SegmentSum and its like: each segment's rows of the first axis."""

    def run(site: Site, items: list[Any]) -> Value:
        value, numbers = _value(site, items[0]), _long(site, items[1])
        count, is_sorted = site.option("num_segments"), site.flag("sorted", False)
        if numbers.rank != 1 or value.dtype == "bool":
            raise site.refused("inputs", f"{value.dtype}, numbers of {numbers.rank} axes")
        ids = site.writer.form(numbers)
        if isinstance(count, int):
            segments = site.constant(np.arange(count), "segments")
        else:
            top = site.reduce("ReduceMax", ids, [0], "last")
            end = site.op("Add", [top, site.writer.place(1)], "count")
            segments = site.op("Range", [site.writer.place(0), end, site.writer.place(1)],
                               "segments")  # fmt: skip
        behind = range(2, value.rank + 1)
        column = site.op("Unsqueeze", [segments, site.ints(1)], "segment_numbers")
        member = site.op("Equal", [column, ids], "is_member")
        spread = site.op("Unsqueeze", [member, site.ints(*behind)], "spread") if behind else member
        info = np.finfo if value.dtype in FLOATS else np.iinfo
        bounds: Any = info(dtype_of(value.dtype))
        filling = {"ReduceSum": 0, "ReduceProd": 1, "ReduceMax": bounds.min,
                   "ReduceMin": bounds.max}[operator]  # fmt: skip
        neutral = site.writer.number(filling, value.dtype)
        rows = site.op("Where", [spread, site.writer.form(value), neutral], "rows_of_segments")
        made = site.reduce(operator, rows, [1], "segment")
        if is_sorted and operator in ("ReduceMax", "ReduceMin"):  # a gap is zero then
            flags = site.op("Cast", [spread], "flags", to=NUMBERS["int32"])
            is_there = site.reduce("ReduceMax", flags, [1], "is_there")
            is_there = site.to(is_there, "bool")
            made = site.op("Where", [is_there, made, site.writer.number(0, value.dtype)], "or_zero")
        return Value(made, value.dtype, (count if isinstance(count, int) else None,
                                         *value.shape[1:]))  # fmt: skip

    return run


# ---- losses --------------------------------------------------------------------------------------


def _check_logits(site: Site) -> None:
    if not site.flag("from_logits", False):
        raise site.refused("from_logits", False, "Keras computes a loss of what a sigmoid or a "
                           "softmax gives otherwise on each backend")  # fmt: skip


def _binary_loss(site: Site, items: list[Any]) -> Value:
    _check_logits(site)
    target, output, shape, dtype = _real_pair(site, items)
    far = site.op("Exp", [site.op("Neg", [site.op("Abs", [output])])], "far")
    above = site.op("Sub", [site.op("Relu", [output]), site.op("Mul", [output, target])])
    return Value(site.op("Add", [above, activations.log1p(site, far)], "loss"), dtype, shape)


def _categorical_loss(site: Site, items: list[Any]) -> Value:
    """CategoricalCrossentropy, and the sparse one, whose targets are places of the last axis."""
    _check_logits(site)
    output = _float(site, items[1])
    axis = axis_of(site, site.config.get("axis", -1), output.rank)
    if site.part.class_name.startswith("Sparse"):
        target = _long(site, items[0])
        name, depth = site.writer.form(target), output.static(-1)
        if depth is None:
            raise site.refused("inputs", "an unknown number of classes")
        if target.rank < output.rank:
            name = site.op("Unsqueeze", [name, site.ints(-1)], "column")
        every = site.constant(np.arange(depth), "classes")
        shares = site.to(site.op("Equal", [name, every], "is_target"), site.compute)
    else:
        shares = site.writer.form(site.writer.cast(_float(site, items[0]), output.dtype))
    logs = site.op("LogSoftmax", [site.writer.form(output)], axis=axis)
    total = site.reduce("ReduceSum", site.op("Mul", [shares, logs]), [axis], "sum")
    made = site.op("Neg", [total], "loss")
    return Value(made, output.dtype, (*output.shape[:axis], *output.shape[axis + 1 :]))


# ---- images --------------------------------------------------------------------------------------


def _of_images(write: Callable[..., Value], count: int = 1) -> Callable[..., Value]:
    """Return what writes an operation of so many tensors."""

    def run(site: Site, items: list[Any]) -> Value:
        if len(items) != count:
            raise site.refused("inputs", f"{len(items)} arguments")
        return write(site, *[_value(site, item) for item in items])

    return run


def _perspective(site: Site, value: Value, start: Value, end: Value) -> Value:
    """PerspectiveTransform: from where four points are to where they come."""
    matrix, side = images.homography(site, start, end)
    transform = _solved(site, matrix, site.writer.form(matrix), side)
    return images.projected(site, value, transform, "constant")


def _scaled_and_moved(site: Site, items: list[Any]) -> Value:
    value, shape, *factors = items
    if not isinstance(shape, list) or len(factors) != 2:
        raise site.refused("output_shape", shape)
    values = [_value(site, item) for item in (value, *factors)]
    return images.scale_and_translate(site, values[0], shape, *values[1:])


# ---- places and counts ---------------------------------------------------------------------------


def _frame(site: Site, value: Value) -> list[tuple[int, int, int]]:
    """Return, for the rows and columns of images, their axis and how much is added, or taken with
    less than zero, before and behind."""
    crops = site.part.class_name == "CropImages"
    word = "cropping" if crops else "padding"
    last = site.option("data_format", "channels_last") == "channels_last"
    start = value.rank - (3 if last else 2)
    frame = []
    for axis, sides, key in ((start, ("top", "bottom"), "target_height"),
                             (start + 1, ("left", "right"), "target_width")):  # fmt: skip
        ends = [site.option(f"{side}_{word}") for side in sides]
        if None in ends:
            size, target = value.static(axis), site.integer(key)
            if size is None or ends == [None, None]:
                raise site.refused(key, "of an image whose size is not known")
            rest = size - target if crops else target - size
            ends = [rest - int(str(ends[1 - i])) if end is None else end
                    for i, end in enumerate(ends)]  # fmt: skip
        before, behind = (int(str(end)) for end in ends)
        frame.append((axis, -before, -behind) if crops else (axis, before, behind))
    return frame


def _framed(site: Site, items: list[Any]) -> Value:
    """PadImages and CropImages."""
    value = _value(site, items[0])
    if value.rank not in (3, 4) or value.dtype == "bool":
        raise site.refused("inputs", f"{value.dtype} of {value.rank} axes")
    pads, shape = [0] * (2 * value.rank), list(value.shape)
    for axis, before, behind in _frame(site, value):
        pads[axis], pads[axis + value.rank] = before, behind
        size = value.static(axis)
        shape[axis] = None if size is None else size + before + behind
    zero = site.writer.number(0, value.dtype)
    name = site.op("Pad", [site.writer.form(value), site.ints(*pads), zero], "framed")
    return Value(name, value.dtype, tuple(shape))


def _part_replaced(site: Site, items: list[Any]) -> Value:
    """SliceUpdate: another tensor in the place of a part."""
    value, starts = _value(site, items[0]), _constant(site, items[1])
    new = site.writer.cast(_value(site, items[2]), value.dtype)
    if value.dtype == "bool" or np.shape(starts) != (value.rank,):
        raise site.refused("start_indices", np.shape(starts))
    before = site.ints(*(int(start) for start in starts))
    name = site.writer.form(new)
    sizes = [site.op("Shape", [x], "sizes") for x in (site.writer.form(value), name)]
    behind = site.op("Sub", [site.op("Sub", [sizes[0], before]), sizes[1]], "behind")
    pads = site.op("Concat", [before, behind], "pads", axis=0)
    zero = site.writer.number(0, value.dtype)
    placed = site.op("Pad", [name, pads, zero], "placed")
    ones = site.op("Expand", [site.writer.number(1.0, "float32"), sizes[1]], "ones")
    inside = site.op("Pad", [ones, pads], "is_there_as_number")
    names = [site.to(inside, "bool"), placed, site.writer.form(value)]
    return Value(site.op("Where", names, "updated"), value.dtype, value.shape)


def _is_among_first(site: Site, items: list[Any]) -> Value:
    """InTopK: whether less than k numbers of a row are larger than the one at a place."""
    target, value = _long(site, items[0]), _float(site, items[1])
    name = site.writer.form(value)
    column = site.op("Unsqueeze", [site.writer.form(target), site.ints(-1)], "column")
    number = site.op("GatherElements", [name, column], "number", axis=-1)
    larger = site.op("Cast", [site.op("Greater", [name, number])], "is_larger", to=NUMBERS["int32"])
    count = site.reduce("ReduceSum", larger, [value.rank - 1], "larger")
    limit = site.writer.number(site.integer("k"), "int32")
    made = site.op("Less", [count, limit], "is_among_first")
    flat = site.op("Squeeze", [number, site.ints(-1)], "number_at_target")
    is_number = site.op("Not", [site.op("Or", [site.op("IsNaN", [flat]), _infinite(site, flat)])])
    return Value(site.op("And", [made, is_number], "in_top_k"), "bool", target.shape)


def _is_negative(site: Site, name: str) -> str:
    """Signbit: what divides one to minus infinity is minus zero."""
    zero = site.number(0.0)
    turned = site.op("Less", [site.op("Reciprocal", [name]), zero], "is_minus_zero")
    return site.op("Or", [site.op("Less", [name, zero]), turned], "signbit")


def _sign_bit(site: Site, items: list[Any]) -> Value:
    value = _value(site, items[0])
    if value.dtype in FLOATS:
        return site.map(_float(site, value), lambda name, _: _is_negative(site, name), dtype="bool")
    zero = site.writer.number(0, value.dtype)
    return site.map(value, lambda name, _: site.op("Less", [name, zero], "signbit"), dtype="bool")


def _shifted(*, left: bool) -> Callable[..., Value]:
    """Bits moved, as a product with a power of two, or a quotient rounded down."""

    def run(site: Site, items: list[Any]) -> Value:
        dtype = _common_dtype(site, items)
        if dtype not in ("int8", "int16", "int32", "int64"):
            raise site.refused("inputs", dtype)
        values = [site.writer.cast(_value(site, item), "int64") for item in items]
        names = [site.writer.form(value) for value in values]
        power = site.op("Pow", [site.writer.place(2), names[1]], "power")
        if left:
            made = site.op("Mul", [names[0], power], "shifted")
        else:
            rest = site.op("Mod", [names[0], power], "rest")
            made = site.op("Div", [site.op("Sub", [names[0], rest]), power], "shifted")
        shape = _broadcast([value.shape for value in values])
        return site.writer.cast(Value(made, "int64", shape), dtype)

    return run


def _unravelled(site: Site, items: list[Any]) -> list[Value]:
    """UnravelIndex: the place along each axis of a flat index."""
    value, shape = _value(site, items[0]), site.option("shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise site.refused("shape", shape)
    sizes = [int(str(size)) for size in shape]
    total, name = math.prod(sizes), site.writer.form(value)
    whole = site.writer.number(total, value.dtype)
    is_below = site.op("Less", [name, site.writer.number(0, value.dtype)], "is_from_end")
    name = site.op("Where", [is_below, site.op("Add", [name, whole]), name], "flat_index")
    made = []
    for at, size in enumerate(sizes):
        step = site.writer.number(math.prod(sizes[at + 1 :]), value.dtype)
        part = site.op("Div", [name, step], "quotient")
        part = site.op("Mod", [part, site.writer.number(size, value.dtype)], "index")
        made.append(Value(part, value.dtype, value.shape))
    return made


def _kronecker(site: Site, items: list[Any]) -> Value:
    """Kron: each number of the first times the whole of the second."""
    first, second = _alike(site, items)
    rank = max(first.rank, second.rank)
    names, shapes = [], []
    for value, offset in ((first, 1), (second, 0)):
        name, lost = site.writer.form(value), rank - value.rank
        axes = [2 * at + offset for at in range(rank)]
        axes += [2 * at + 1 - offset for at in range(lost)]
        names.append(site.op("Unsqueeze", [name, site.ints(*sorted(axes))], "spread"))
        shapes.append((1,) * lost + tuple(value.shape))
    product = site.op("Mul", names, "products")
    sizes = [site.op("Shape", [x], "sizes") for x in (site.writer.form(first),
                                                      site.writer.form(second))]  # fmt: skip
    for at, value in enumerate((first, second)):
        if value.rank < rank:
            ones = site.ints(*[1] * (rank - value.rank))
            sizes[at] = site.op("Concat", [ones, sizes[at]], "sizes", axis=0)
    target = site.op("Mul", sizes, "target")
    shape = tuple(
        first_size * size if isinstance(first_size, int) and isinstance(size, int) else None
        for first_size, size in zip(*shapes, strict=True)
    )
    return Value(site.op("Reshape", [product, target], "kron"), first.dtype, shape)


def _counts(site: Site, items: list[Any]) -> Value:
    """Bincount: how often each whole number up to the largest is there, in each row."""
    if site.flag("sparse", False) or site.option("weights") is not None:
        raise site.refused("sparse" if site.option("sparse") else "weights")
    value = _long(site, items[0])
    if value.rank not in (1, 2):
        raise site.refused("inputs", f"{value.rank} axes")
    name = site.writer.form(value)
    top = site.reduce("ReduceMax", name, range(value.rank), "largest")
    end = site.op("Add", [top, site.writer.place(1)], "end")
    end = site.op("Max", [end, site.writer.place(site.integer("minlength", 0, low=0))], "length")
    every = site.op("Range", [site.writer.place(0), end, site.writer.place(1)], "every")
    column = site.op("Unsqueeze", [name, site.ints(-1)], "column")
    number = site.to(site.op("Equal", [column, every], "is_number"), "int32")
    made = site.reduce("ReduceSum", number, [value.rank - 1], "bincount")
    return Value(made, "int32", (*value.shape[:-1], None))


# ---- numbers between two, and grids --------------------------------------------------------------


def _filled(site: Site, items: list[Any]) -> Value:
    """Full: one tensor broadcast to a shape."""
    dtype = site.option("dtype", "float32")
    if dtype not in NUMBERS:
        raise site.refused("dtype", dtype)
    return _broadcast_to(site, [site.writer.cast(_value(site, items[0]), str(dtype))])


def _with_axis(site: Site, value: Value, rank: int, axis: int) -> str:
    """Return a value with as many axes as `rank`, the missing ones first, and then with a new
    one."""
    axes = {axis, *(at + (at >= axis) for at in range(rank - value.rank))}
    return site.op("Unsqueeze", [site.writer.form(value), site.ints(*sorted(axes))], "end")


def _between(site: Site, items: list[Any]) -> Value:
    """Linspace: steps from the first to the second, as tf.linspace computes them."""
    count, dtype = site.option("num", 50), site.option("dtype")
    if not isinstance(count, int) or count < 1:
        raise site.refused("num", count)
    if site.flag("retstep", False):
        raise site.refused("retstep", True)
    if dtype is None:
        names = _real_pair(site, items)[:2]
        pair = [Value(name, site.compute, shape)
                for name, shape in zip(names, _shapes(site, items), strict=True)]  # fmt: skip
    elif dtype in ("float16", "float32", "float64", "int32", "int64"):
        pair = [site.writer.cast(_value(site, item), str(dtype)) for item in items]
        # TensorFlow divides whole numbers in float64.
        site.compute = str(dtype) if dtype in FLOATS else "float64"
        pair = [site.writer.cast(value, site.compute) for value in pair]
    else:
        raise site.refused("dtype", dtype)
    rank = max(value.rank for value in pair)
    axis = axis_of(site, site.config.get("axis", 0), rank + 1)
    first, last = (_with_axis(site, value, rank, axis) for value in pair)
    if not site.flag("endpoint", True) and count > 1:
        step = site.op("Sub", [last, first], "distance")
        step = site.op("Div", [step, site.number(float(count))], "step")
        last = site.op("Sub", [last, step], "last")
    distance = site.op("Sub", [last, first], "distance")
    delta = site.op("Div", [distance, site.number(float(max(count - 1, 1)))], "delta")
    numbers = np.arange(count).reshape([count if at == axis else 1 for at in range(rank + 1)])
    places = site.constant(numbers.astype(dtype_of(site.compute)), "places")
    made = site.op("Add", [first, site.op("Mul", [delta, places])], "steps")
    if count > 1:
        is_last = site.constant(numbers == count - 1, "is_last")
        made = site.op("Where", [is_last, last, made], "linspace")
    shape = list(_broadcast([value.shape for value in pair]))
    shape.insert(axis, count)
    if dtype in ("int32", "int64"):
        made = site.op("Floor", [made])
        return site.writer.cast(Value(made, site.compute, tuple(shape)), str(dtype))
    return Value(made, site.compute, tuple(shape))


def _powers_between(site: Site, items: list[Any]) -> Value:
    """Logspace: a base to the power of what Linspace gives."""
    if site.option("dtype") in ("int32", "int64"):
        raise site.refused("dtype", site.option("dtype"))
    steps = _between(site, items)
    base = site.number(site.real("base", 10.0))
    made = site.op("Pow", [base, site.writer.form(steps)], "logspace")
    return Value(made, steps.dtype, steps.shape)


def _ratios_between(site: Site, items: list[Any]) -> Value:
    """Geomspace: powers of ten between two logarithms, with the sign of the first."""
    dtype = site.option("dtype", "float32")
    if dtype not in ("float16", "float32", "float64"):
        raise site.refused("dtype", dtype)
    site.compute = str(dtype)
    pair = [site.writer.cast(_value(site, item), site.compute) for item in items]
    logs = [
        Value(_log_of(10.0)(site, site.op("Abs", [site.writer.form(value)])), value.dtype,
              value.shape) for value in pair
    ]  # fmt: skip
    made = _powers_between(site, logs)
    sign = Value(site.op("Sign", [site.writer.form(pair[0])]), site.compute, pair[0].shape)
    rank = made.rank - 1
    signs = _with_axis(site, sign, rank, axis_of(site, site.config.get("axis", 0), rank + 1))
    name = site.op("Mul", [site.writer.form(made), signs], "geomspace")
    return Value(name, made.dtype, made.shape)


def _grids(site: Site, items: list[Any]) -> list[Value]:
    """Meshgrid: each list of numbers along an axis of its own, repeated along the others."""
    values = [_ravel(site, [item]) for item in items]
    if values[0].dtype == "bool" or len({value.dtype for value in values}) > 1:
        raise site.refused("inputs", ", ".join(value.dtype for value in values))
    order = list(range(len(values)))
    if site.word("indexing", "xy", "xy", "ij") == "xy":
        order[:2] = order[:2][::-1]
    lengths = [_length(site, values[number], 0) for number in order]
    target = site.op("Concat", lengths, "sizes", axis=0)
    shape = tuple(values[number].shape[0] for number in order)
    made = []
    for number, value in enumerate(values):
        behind = len(values) - 1 - order.index(number)
        sizes = site.ints(-1, *[1] * behind)
        along = site.op("Reshape", [site.writer.form(value), sizes], "along")
        made.append(Value(site.op("Expand", [along, target], "grid"), value.dtype, shape))
    return made


def _rank(site: Site, items: list[Any]) -> Value:
    """Ndim: a constant."""
    rank = site.writer.number(_value(site, items[0]).rank, "int32")
    return Value(site.op("Identity", [rank], "ndim"), "int32", ())


# ---- diagonals and correlations ------------------------------------------------------------------


def _off_main(site: Site, value: Value, offset: int) -> Value:
    """Return a diagonal of the last two axes, as a new last one."""
    rows, columns = (
        site.op("Squeeze", [_length(site, value, axis)], "length")
        for axis in (value.rank - 2, value.rank - 1)
    )
    below, right = max(-offset, 0), max(offset, 0)
    counts = [
        site.op("Sub", [size, site.writer.place(less)], "rest") if less else size
        for size, less in ((rows, below), (columns, right))
    ]
    count = site.op("Max", [site.op("Min", counts, "shorter"), site.writer.place(0)], "count")
    every = site.op("Range", [site.writer.place(0), count, site.writer.place(1)], "every")
    step = site.op("Add", [columns, site.writer.place(1)], "step")
    places = site.op("Mul", [every, step], "places")
    start = site.writer.place(right)
    start = site.op("Mul", [columns, site.writer.place(below)], "start") if below else start
    places = site.op("Add", [places, start], "places_from_start") if offset else places
    sizes = site.ints(*[0] * (value.rank - 2), -1)
    flat = site.op("Reshape", [site.writer.form(value), sizes], "flat")
    made = site.op("Gather", [flat, places], "diagonal", axis=value.rank - 2)
    height, width = value.static(value.rank - 2), value.static(value.rank - 1)
    known = None if height is None or width is None else min(height - below, width - right)
    return Value(made, value.dtype, (*value.shape[:-2], None if known is None else max(known, 0)))


def _diagonal(site: Site, items: list[Any]) -> Value:
    """A diagonal of two axes, as a new last one."""
    value = _value(site, items[0])
    axes = [
        axis_of(site, site.config.get(key, default), value.rank)
        for key, default in (("axis1", 0), ("axis2", 1))
    ]
    moved = _moved(site, value, axes, [value.rank - 2, value.rank - 1])
    return _off_main(site, moved, site.integer("offset", 0, low=BEFORE))


def _trace(site: Site, items: list[Any]) -> Value:
    diagonal = _diagonal(site, items)
    dtype = "int32" if diagonal.dtype in ("bool", "uint8", "int8", "int16") else diagonal.dtype
    diagonal = site.writer.cast(diagonal, dtype)
    made = site.reduce("ReduceSum", site.writer.form(diagonal), [diagonal.rank - 1], "trace")
    return Value(made, dtype, diagonal.shape[:-1])


def _as_diagonal(site: Site, items: list[Any]) -> Value:
    """Diag: a matrix with a vector as its diagonal, or the diagonal of a matrix."""
    value, offset = _value(site, items[0]), site.integer("k", 0, low=BEFORE)
    if value.rank == 2:
        return _off_main(site, value, offset)
    if value.rank != 1:
        raise site.refused("inputs", f"{value.rank} axes")
    given = site.writer.cast(value, _OTHER_TYPES.get(value.dtype, value.dtype))
    name, zero = site.writer.form(given), site.writer.number(0, given.dtype)
    length = site.op("Squeeze", [_length(site, given, 0)], "length")
    if offset:
        length = site.op("Add", [length, site.writer.place(abs(offset))], "longer")
        name = site.op("Pad", [name, site.ints(0, abs(offset)), zero], "padded")
    every = site.op("Range", [site.writer.place(0), length, site.writer.place(1)], "columns")
    rows = site.op("Unsqueeze", [every, site.ints(1)], "rows")
    rows = site.op("Add", [rows, site.writer.place(offset)], "moved_rows") if offset else rows
    is_there = site.op("Equal", [rows, every], "is_on_diagonal")
    spread = site.op("Unsqueeze", [name, site.ints(int(offset >= 0))], "spread")
    made = site.op("Where", [is_there, spread, zero], "diag")
    size = value.static(0)
    sides = [None if size is None else size + abs(offset)] * 2
    return site.writer.cast(Value(made, given.dtype, tuple(sides)), value.dtype)


#: What ONNX Runtime has too few operators of -> what stands for it without a loss.
_OTHER_TYPES = {"bool": "int32", "bfloat16": "float32"}


def _flat_as_diagonal(site: Site, items: list[Any]) -> Value:
    return _as_diagonal(site, [_ravel(site, items)])


def _powers_of_each(site: Site, items: list[Any]) -> Value:
    """Vander: the powers of each number, the highest first."""
    value, count = _value(site, items[0]), site.option("N")
    site.compute = "float64" if value.dtype == "float64" else "float32"
    rises = site.flag("increasing", False)
    if count is None:
        length = site.op("Squeeze", [_length(site, value, 0)], "length")
        last = site.op("Sub", [length, site.writer.place(1)], "last")
        ends = [site.writer.place(0), length, site.writer.place(1)]
        ends = ends if rises else [last, site.writer.place(-1), site.writer.place(-1)]
        powers = site.to(site.op("Range", ends, "powers"), site.compute)
        count = value.static(0)
    elif isinstance(count, int) and count > 0:
        numbers = np.arange(count, dtype=dtype_of(site.compute))
        powers = site.constant(numbers if rises else numbers[::-1].copy(), "powers")
    else:
        raise site.refused("N", count)
    number = site.writer.form(site.writer.cast(value, site.compute))
    column = site.op("Unsqueeze", [number, site.ints(-1)], "column")
    made = Value(site.op("Pow", [column, powers], "vander"), site.compute, (*value.shape, count))
    return site.writer.cast(made, value.dtype)


def _correlations(site: Site, items: list[Any]) -> Value:
    """Corrcoef, of the rows of a matrix."""
    value = _value(site, items[0])
    if value.rank != 2 or value.dtype == "int64":  # of which TensorFlow takes a whole mean
        raise site.refused("inputs", f"{value.dtype} of {value.rank} axes")
    value = _float(site, value)
    name = site.writer.form(value)
    mean = site.reduce("ReduceMean", name, [1], "mean", keep=True)
    centred = site.op("Sub", [name, mean], "centred")
    turned = site.op("Transpose", [centred], "turned", perm=[1, 0])
    # The number of columns that they are divided by is in numerator and denominator.
    covariance = site.op("MatMul", [centred, turned], "products")
    sides = (value.shape[0], value.shape[0])
    variance = site.writer.form(_off_main(site, Value(covariance, value.dtype, sides), 0))
    deviation = site.op("Sqrt", [variance], "deviation")
    pair = [site.op("Unsqueeze", [deviation, site.ints(axis)], "spread") for axis in (1, 0)]
    share = site.op("Div", [covariance, site.op("Mul", pair, "scale")], "share")
    bounds = [site.number(-1.0), site.number(1.0)]
    within = site.op("Clip", [share, *bounds], "within")
    made = site.op("Where", [site.op("IsNaN", [share]), share, within], "corrcoef")
    return Value(made, value.dtype, sides)


def _correlated(site: Site, items: list[Any]) -> Value:
    """Correlate: a convolution, in which the second list moves along the first."""
    if _common_dtype(site, items) == "int64":
        items = [site.writer.cast(_value(site, item), "float64") for item in items]
    names = _real_pair(site, items)[:2]
    sizes = [shape[0] if len(shape) == 1 else None for shape in _shapes(site, items)]
    size, length = (axis if isinstance(axis, int) else None for axis in sizes)
    if size is None or length is None:
        raise site.refused("inputs", "other than two lists of a known length")
    mode = site.word("mode", "valid", "valid", "same", "full")
    if mode == "valid" and length > size:
        raise site.refused("mode", mode, "Keras on TensorFlow stops where the second list is the "
                           "longer one")  # fmt: skip
    pad = 0 if mode == "valid" else length - 1
    first, kernel = (site.op("Reshape", [name, site.ints(1, 1, -1)], "row") for name in names)
    made = site.op("Conv", [first, kernel], kernel_shape=[length], pads=[pad, pad])
    made = site.op("Reshape", [made, site.ints(-1)], "correlate")
    total = size + 2 * pad - length + 1
    if mode == "same":
        kept = max(size, length)
        start = (total - kept) // 2
        ints = [site.ints(start), site.ints(start + kept), site.ints(0)]
        made, total = site.op("Slice", [made, *ints], "same"), kept
    return Value(made, site.compute, (total,))


# ---- series --------------------------------------------------------------------------------------


def _polynomial(site: Site, name: str, factors: Sequence[float]) -> str:
    """Return the sum of powers of a value, the highest first."""
    made = site.number(factors[0])
    for factor in factors[1:]:
        product = site.op("Mul", [made, name], "product")
        made = site.op("Add", [product, site.number(factor)], "sum")
    return made


#: M. Giles, "Approximating the erfinv function" (GPU Computing Gems, 2012), table 5, for float32.
_ERFINV_MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip
#: Abramowitz and Stegun, "Handbook of Mathematical Functions", 9.8.1 and 9.8.2.
_I0_NEAR = (
    0.0045813, 0.0360768, 0.2659732, 1.2067492, 3.0899424, 3.5156229, 1.0,
)  # fmt: skip
_I0_FAR = (
    0.00392377, -0.01647633, 0.02635537, -0.02057706, 0.00916281, -0.00157565, 0.00225319,
    0.01328592, 0.39894228,
)  # fmt: skip
_I0_LIMIT = 3.75


def _in_float32(steps: Callable[[Site, str], str]) -> Callable[..., Value]:
    """A sum that is good to the digits of float32, and so not to those of float64."""

    def run(site: Site, items: list[Any]) -> Value:
        value = _value(site, items[0])
        if value.dtype in ("float64", "int64"):
            raise site.refused("inputs", value.dtype, "ONNX has no such function, and the sum of "
                               "its operators is good to seven digits alone")  # fmt: skip
        site.compute = "float32"
        made = site.map(
            site.writer.cast(value, "float32"), lambda name, _: steps(site, name)
        )
        return site.writer.cast(made, value.dtype if value.dtype in FLOATS else "float32")

    return run


def _erf_inverse(site: Site, name: str) -> str:
    """Erfinv. Keras on TensorFlow is off by more near 1, where it halves 1 + x first."""
    unit = site.number(1.0)
    ends = [site.op(operator, [unit, name], "from_end") for operator in ("Sub", "Add")]
    log = site.op("Neg", [site.op("Log", [site.op("Mul", ends, "product")])], "w")
    middle = site.op("Sub", [log, site.number(2.5)], "from_middle")
    tail = site.op("Sub", [site.op("Sqrt", [log]), site.number(3.0)], "from_tail")
    parts = [_polynomial(site, middle, _ERFINV_MIDDLE), _polynomial(site, tail, _ERFINV_TAIL)]
    is_middle = site.op("Less", [log, site.number(5.0)], "is_middle")
    factor = site.op("Where", [is_middle, *parts], "factor")
    is_end = site.op("Equal", [site.op("Abs", [name]), unit], "is_end")
    factor = site.op("Where", [is_end, site.number(math.inf), factor], "or_infinite")
    return site.op("Mul", [factor, name], "erfinv")


def _bessel(site: Site, name: str) -> str:
    """I0, the modified Bessel function of order zero."""
    size, limit = site.op("Abs", [name]), site.number(_I0_LIMIT)
    share = site.op("Div", [size, limit], "share")
    near = _polynomial(site, site.op("Mul", [share, share], "square"), _I0_NEAR)
    far = _polynomial(site, site.op("Div", [limit, size], "part"), _I0_FAR)
    growth = site.op("Div", [site.op("Exp", [size]), site.op("Sqrt", [size])], "growth")
    far = site.op("Mul", [growth, far], "far")
    is_near = site.op("Less", [size, limit], "is_near")
    return site.op("Where", [is_near, near, far], "i0")


# ---- divisors ------------------------------------------------------------------------------------


def _divisor(site: Site, first: str, second: str, rank: int) -> str:
    """Return the greatest common divisor of whole numbers from 0 on: Euclid's steps in a Loop."""
    zero, unit = site.writer.place(0), site.writer.place(1)
    with inside(site) as nodes:
        at, goes_on, old, rest = (
            name_inside(site, what) for what in ("at", "goes_on", "number", "rest")
        )
        is_done = site.op("Equal", [rest, zero], "is_done")
        safe = site.op("Where", [is_done, unit, rest], "safe")
        left = site.op("Where", [is_done, zero, site.op("Mod", [old, safe])], "left")
        kept = site.op("Where", [is_done, old, rest], "kept")
        flat = site.op("Reshape", [left, site.ints(-1)], "flat")
        largest = site.reduce("ReduceMax", flat, [0], "largest")
        ends = [site.op("Greater", [largest, zero], "still"), kept, left]
    shape = [None] * rank
    inputs = [Declared(at, "int64", []), Declared(goes_on, "bool", []),
              Declared(old, "int64", shape), Declared(rest, "int64", shape)]  # fmt: skip
    outputs = [Declared(ends[0], "bool", []), *(Declared(end, "int64", shape) for end in ends[1:])]
    body = Body(f"{site.label}.body", nodes, inputs, outputs)
    # The operands are as long as their result before the first step too.
    full = [
        site.op("Add", [name, site.op("Mul", [other, zero], "none")], "as_long")
        for name, other in ((first, second), (second, first))
    ]
    start = site.writer.number(True, "bool")
    return site.ops("Loop", ["", start, *full], 2, "divisor", body=body)[0]


def _common(*, multiple: bool) -> Callable[..., Value]:
    """Gcd and Lcm."""

    def run(site: Site, items: list[Any]) -> Value:
        values = [_value(site, item) for item in items]
        dtype = _promoted(values[0].dtype, values[1].dtype)
        if dtype not in ("int8", "int16", "int32", "int64", "uint8"):
            raise site.refused("inputs", dtype)
        sizes = [
            site.op("Abs", [site.writer.form(site.writer.cast(value, "int64"))])
            for value in values
        ]
        shape = _broadcast([value.shape for value in values])
        made = _divisor(site, sizes[0], sizes[1], len(shape))
        if multiple:
            zero, unit = site.writer.place(0), site.writer.place(1)
            is_zero = site.op("Equal", [made, zero], "is_zero")
            divisor = site.op("Where", [is_zero, unit, made], "safe_divisor")
            part = site.op("Div", [sizes[1], divisor], "part")
            made = site.op("Mul", [sizes[0], part], "lcm")
        return site.writer.cast(Value(made, "int64", shape), dtype)

    return run


# ---- quantiles -----------------------------------------------------------------------------------


def _quantile(share: float, *, skips: bool) -> Callable[..., Value]:
    """Quantile and Percentile, and Median, whose share is a half; `skips`: of what is a number,
    where NaN gives NaN otherwise."""

    def run(site: Site, items: list[Any]) -> Value:
        value = _value(site, items[0])
        if (skips and value.dtype not in FLOATS) or site.config.get("axis") == []:
            raise site.refused("inputs", value.dtype)
        method = site.word("method", "linear", "linear", "lower", "higher", "nearest", "midpoint")
        if site.part.class_name == "Quantile":
            method = "linear"  # Keras 3.15 computes that one whatever a Quantile's method is
        value = _float(site, value)
        axes, keep = _axes(site, value), site.flag("keepdims", False)
        others = [axis for axis in range(value.rank) if axis not in axes]
        last, name = len(others), site.writer.form(value, (*others, *axes))
        size = [value.static(axis) for axis in axes]
        if len(axes) > 1:
            name = site.op("Reshape", [name, site.ints(*[0] * last, -1)], "flat")
        shares, asked = _shares(site, items[1] if len(items) > 1 else 0.5, share)
        missing = site.op("IsNaN", [name], "is_nan")
        filled = site.op("Where", [missing, site.number(math.inf), name], "nan_at_end")
        whole = math.prod(length or 0 for length in size) or None
        row = Value(filled, value.dtype, (*(value.shape[axis] for axis in others), whole))
        ordered = _ordered(site, row, last)[0]
        if skips:
            flags = site.to(site.op("Not", [missing], "is_number"), "int64")
            count = site.reduce("ReduceSum", flags, [last], "count", keep=True)
            is_nan = site.op("Equal", [count, site.ints(0)], "is_none")
        else:
            count = _length(site, row, last)
            flags = site.reduce("ReduceMax", site.to(missing, "int32"), [last], "any", keep=True)
            is_nan = site.to(flags, "bool")
        top = site.op("Sub", [count, site.ints(1)], "top")
        exact = site.op("Mul", [site.to(top, "float64"), shares], "exact")

        def place(operator: str) -> str:
            rounded = site.to(site.op(operator, [exact]), "int64")
            rounded = site.op("Min", [rounded, top], "below_top")
            return site.op("Max", [rounded, site.writer.place(0)], "place")

        def picked(places: str) -> str:
            operator = "GatherElements" if skips else "Gather"
            return site.op(operator, [ordered, places], "picked", axis=last)

        operators = {"lower": "Floor", "higher": "Ceil", "nearest": "Round"}
        if method in operators:
            made = picked(place(operators[method]))
        elif method == "midpoint":
            pair = [picked(place(operator)) for operator in ("Floor", "Ceil")]
            made = site.op("Mul", [site.number(0.5), site.op("Add", pair)], "midpoint")
        else:
            lower = site.op("Sub", [place("Ceil"), site.writer.place(1)], "before")
            lower = site.op("Max", [lower, site.writer.place(0)], "lower")
            upper = site.op("Add", [lower, site.writer.place(1)], "after")
            upper = site.op("Min", [upper, top], "upper")
            upper = site.op("Max", [upper, site.writer.place(0)], "upper_from_0")
            far = site.op("Sub", [site.to(upper, "float64"), exact], "distance")
            far = site.to(far, site.compute)
            near = site.op("Sub", [site.number(1.0), far], "rest")
            parts = [site.op("Mul", [picked(places), factor], "part")
                     for places, factor in ((upper, near), (lower, far))]  # fmt: skip
            made = site.op("Add", parts, "quantiles")
        made = site.op("Where", [is_nan, site.number(math.nan), made], "or_nan")
        shape: Shape = row.shape[:-1]
        if asked:
            perm = [last, *range(last)]
            made = site.op("Transpose", [made], "by_share", perm=perm) if last else made
            shape = (asked[0], *shape)
        else:
            made = site.op("Squeeze", [made, site.ints(-1)], "quantile")
        if keep:
            places = [axis + len(asked) for axis in axes]
            made = site.op("Unsqueeze", [made, site.ints(*places)], "kept")
            sizes = iter(shape)
            total = range(len(shape) + len(axes))
            shape = tuple(1 if axis in places else next(sizes) for axis in total)
        return Value(made, value.dtype, shape)

    return run


def _shares(site: Site, item: Any, share: float) -> tuple[str, Shape]:
    """Return the shares of quantiles in float64, as (1,) or a list, and their shape."""
    if not isinstance(item, Value):
        numbers = np.asarray(_constant(site, item), np.float32) / np.float32(share)
        if numbers.ndim > 1:
            raise site.refused("q", f"{numbers.ndim} axes")
        return site.constant(np.atleast_1d(numbers).astype(np.float64), "shares"), numbers.shape
    if item.rank > 1:
        raise site.refused("q", f"{item.rank} axes")
    name = site.writer.form(site.writer.cast(item, "float32"))
    if share != 1.0:
        name = site.op("Div", [name, site.writer.number(share, "float32")], "shares")
    return site.op("Reshape", [site.to(name, "float64"), site.ints(-1)], "list"), item.shape


# ---- places and numbers that only the data has ---------------------------------------------------


def _not_zero(site: Site, items: list[Any]) -> list[Value]:
    """Nonzero: along each axis the places of what is not zero."""
    value = site.writer.cast(_value(site, items[0]), "bool")
    if not value.rank:
        raise site.refused("inputs", "a number")
    places = site.to(site.op("NonZero", [site.writer.form(value)]), "int32")
    return [
        Value(site.op("Gather", [places, site.writer.place(axis)], "along"), "int32", (None,))
        for axis in range(value.rank)
    ]


def _scattered(site: Site, items: list[Any]) -> Value:
    """Scatter: values at some places among zeros; what comes to one place is summed."""
    value, shape = _value(site, items[1]), site.option("shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise site.refused("shape", shape)
    if value.dtype not in ("float32", "float64", "int32", "int64"):
        raise site.refused("inputs", value.dtype)
    attributes: dict[str, Any] = {}
    if isinstance(items[0], Value) or _has_twice(np.asarray(_constant(site, items[0]))):
        if site.writer.opset < SUMS_SINCE:
            raise site.refused("opset", site.writer.opset, "ScatterND sums from opset "
                               f"{SUMS_SINCE} on: leave --opset away")  # fmt: skip
        attributes["reduction"] = "add"
    zero = site.writer.number(0, value.dtype)
    zeros = site.op("Expand", [zero, site.ints(*(int(str(size)) for size in shape))], "zeros")
    names = [zeros, site.writer.form(_long(site, items[0])), site.writer.form(value)]
    return Value(site.op("ScatterND", names, **attributes), value.dtype, tuple(shape))


#: The opset that ScatterND's sums came with.
SUMS_SINCE = 16


def _has_twice(places: Array) -> bool:
    rows = places.reshape(-1, places.shape[-1])
    return len(np.unique(rows, axis=0)) < len(rows)


def _distinct(site: Site, items: list[Any]) -> Any:
    """Unique: each number once, or each slice of an axis; in order, or as they come."""
    value, axis_option = _value(site, items[0]), site.config.get("axis")
    kind = "float64" if value.dtype == "float64" else "int64"
    kind = "float32" if value.dtype in FLOATS - {"float64"} else kind
    order = list(value.straight)
    attributes: dict[str, Any] = {"sorted": int(site.flag("sorted", True))}
    if axis_option is not None:
        # Keras compares slices with the first axis in the place of theirs.
        attributes["axis"] = 0
        axis = axis_of(site, axis_option, value.rank)
        order[0], order[axis] = axis, 0
    given = site.writer.form(site.writer.cast(value, kind), tuple(order))
    numbers, firsts, inverse, counts = site.ops("Unique", [given], 4, "unique", **attributes)
    size, rank = site.option("size"), 1 if axis_option is None else value.rank
    if size is not None:
        length = site.op("Shape", [firsts], "length")
        filling = site.real("fill_value", 0.0)
        filling = int(filling) if kind == "int64" else filling
        numbers = _of_length(site, numbers, kind, length, rank, filling)
        firsts = _of_length(site, firsts, "int64", length, 1, 1)
        counts = _of_length(site, counts, "int64", length, 1, 0)
    count = size if isinstance(size, int) else None
    if axis_option is None:
        made = [Value(numbers, kind, (count,))]
        shape = site.op("Shape", [given], "shape")
        inverse = site.op("Reshape", [inverse, shape], "inverse")
        places = Value(inverse, "int64", value.shape)
    else:
        whole = list(value.shape)
        whole[axis] = count
        made = [Value(numbers, kind, tuple(whole), tuple(order))]
        places = Value(inverse, "int64", (value.shape[axis],))
    made = [site.writer.cast(made[0], value.dtype)]
    for key, other in (("return_index", Value(firsts, "int64", (count,))),
                       ("return_inverse", places),
                       ("return_counts", Value(counts, "int64", (count,)))):  # fmt: skip
        if site.flag(key, False):
            made.append(site.writer.cast(other, "int32"))
    return made if len(made) > 1 else made[0]


def _of_length(
    site: Site, name: str, dtype: str, length: str, rank: int, filling: float
) -> str:
    """Return as much of the first axis as Unique's `size` says, filled up at its end."""
    size = site.integer("size")
    rest = site.op("Sub", [site.ints(size), length], "rest")
    rest = site.op("Max", [rest, site.ints(0)], "missing")
    pads = [site.ints(*[0] * rank), rest, *([site.ints(*[0] * (rank - 1))] if rank > 1 else [])]
    name = site.op("Slice", [name, site.ints(0), site.ints(size), site.ints(0)], "cut")
    pads_name = site.op("Concat", pads, "pads", axis=0)
    return site.op("Pad", [name, pads_name, site.writer.number(filling, dtype)], "filled")


Function = Callable[[Site, list[Any]], Any]

#: Class of Keras 3 (keras/src/ops) -> what writes it.
CLASSES: Mapping[str, Function] = {
    "Add": _binary("Add"),
    "Subtract": _binary("Sub"),
    "Multiply": _binary("Mul"),
    "Divide": _divided,
    "TrueDivide": _divided,
    "Power": _power,
    "Maximum": _binary("Max"),
    "Minimum": _binary("Min"),
    "Equal": _binary("Equal", result="bool"),
    "NotEqual": _not_equal,
    "Greater": _binary("Greater", result="bool"),
    "GreaterEqual": _binary("GreaterOrEqual", result="bool"),
    "Less": _binary("Less", result="bool"),
    "LessEqual": _binary("LessOrEqual", result="bool"),
    "LogicalAnd": _logical("And"),
    "LogicalOr": _logical("Or"),
    "LogicalNot": _logical("Not"),
    "Matmul": _matmul,
    "Einsum": _einsum,
    "Absolute": _any_type("Abs"),
    "Abs": _any_type("Abs"),
    "Negative": _any_type("Neg"),
    "Sign": _any_type("Sign"),
    "Square": _square,
    **{name: _unary(operator) for name, operator in {
        "Cos": "Cos", "Exp": "Exp", "Floor": "Floor", "Ceil": "Ceil", "Log": "Log",
        "Reciprocal": "Reciprocal", "Sin": "Sin", "Sqrt": "Sqrt", "Tanh": "Tanh",
        "Sigmoid": "Sigmoid", "Erf": "Erf", "Round": "Round",
    }.items()},
    "Rsqrt": _rsqrt,
    "Expm1": _exact(activations.expm1),
    "Log1p": _exact(activations.log1p),
    **{name: _function(Activation(function)) for name, function in {
        "Relu": "relu", "Softplus": "softplus", "Softsign": "softsign", "Silu": "silu",
        "Selu": "selu", "LogSigmoid": "log_sigmoid", "HardSilu": "hard_silu",
        "HardTanh": "hard_tanh", "Mish": "mish", "TanhShrink": "tanh_shrink",
        "SparsePlus": "sparse_plus", "SparseSigmoid": "sparse_sigmoid",
    }.items()},
    "Relu6": _function(Activation("relu", {"max_value": 6.0})),
    "HardSigmoid": _function(HARD_SIGMOID_KERAS3),
    "Elu": _with_alpha("elu", 1.0),
    "Celu": _with_alpha("celu", 1.0),
    "Gelu": _gelu,
    "LeakyRelu": _leaky,
    "Softmax": _rows("softmax"),
    "LogSoftmax": _rows("log_softmax"),
    "Clip": _clip,
    "Cast": _cast,
    "ZerosLike": _like(0),
    "OnesLike": _like(1),
    "Where": _where,
    "Sum": _reduction("ReduceSum"),
    "Mean": _reduction("ReduceMean", real=True),
    "Max": _reduction("ReduceMax"),
    "Min": _reduction("ReduceMin"),
    "Amax": _reduction("ReduceMax"),
    "Amin": _reduction("ReduceMin"),
    "Prod": _reduction("ReduceProd"),
    "Var": _variance(root=False),
    "Std": _variance(root=True),
    "Any": _any_of("ReduceMax"),
    "All": _any_of("ReduceMin"),
    "Logsumexp": _log_sum_exp,
    "Norm": _norm,
    "Average": _average,
    "Median": _quantile(1.0, skips=False),
    "Moments": _moments,
    "CountNonzero": _count_nonzero,
    "Ptp": _range_of,
    "Sort": _sort(0),
    "Argsort": _sort(1),
    "TopK": _top,
    "Digitize": _digitize,
    "Take": _take,
    "TakeAlongAxis": _take_along,
    "OneHot": _one_hot,
    "MultiHot": _multi_hot,
    "Ravel": _ravel,
    "Moveaxis": _move_axis,
    "Roll": _roll,
    "Diff": _difference,
    "Unstack": _unstack,
    "Hstack": _joined_along(1),
    "Vstack": _joined_along(0),
    "Dstack": _joined_along(2),
    "Tril": _triangle(upper=False),
    "Triu": _triangle(upper=True),
    "Diagonal": _diagonal,
    "Trace": _trace,
    "BroadcastTo": _broadcast_to,
    "FullLike": _full_like,
    "EmptyLike": _like(0),
    "Slice": _slice,
    "Dot": _dot,
    "Inner": _inner,
    "Outer": _outer,
    "Tensordot": _tensordot,
    "DotProductAttention": _attended,
    "Mod": _remainder,
    "FloorDivide": _floor_divided,
    "LogicalXor": _logical("Xor"),
    "Logaddexp": _of_pair(_log_add_exp),
    "Hypot": _of_pair(_hypotenuse),
    "DivideNoNan": _of_pair(_divided_or_zero),
    "Isnan": _is_nan,
    "Isinf": _is_infinite(),
    "Isposinf": _is_infinite(detect_negative=0),
    "Isneginf": _is_infinite(detect_positive=0),
    "Isfinite": _is_finite,
    "NanToNum": _nan_to_num,
    **{name: _unary(operator) for name, operator in {
        "Tan": "Tan", "Arcsin": "Asin", "Arccos": "Acos", "Arctan": "Atan", "Sinh": "Sinh",
        "Cosh": "Cosh", "Arcsinh": "Asinh", "Arccosh": "Acosh", "Arctanh": "Atanh",
        "Fabs": "Abs",
    }.items()},
    **{name: _exact(steps) for name, steps in {
        "Log2": _log_of(2.0), "Log10": _log_of(10.0), "Exp2": _exp2, "Cbrt": _cube_root,
        "Erfc": _erfc, "Trunc": _truncated, "Deg2rad": _scaled(math.pi / 180),
        "Rad2deg": _scaled(180 / math.pi),
    }.items()},
    "Glu": _glu,
    "Threshold": _threshold,
    "SoftShrink": _with_constants("soft_shrink", "threshold"),
    "HardShrink": _with_constants("hard_shrink", "threshold"),
    "Squareplus": _with_constants("squareplus", "b"),
    "Sparsemax": _rows("sparsemax"),
    "AdaptiveMaxPool": _adaptive_pool,
    "AdaptiveAveragePool": _adaptive_pool,
    "Resize": _resize,
    "Flipud": _flipped(0),
    "Fliplr": _flipped(1),
    "Cross": _cross,
    "Det": _determinant,
    "Arctan2": _of_pair(signals.angle),
    "Fmod": _of_pair(lambda site, first, second: site.op("Mod", [first, second], fmod=1)),
    "Nansum": _nan_reduction("ReduceSum", 0.0, empty=False),
    "Nanprod": _nan_reduction("ReduceProd", 1.0, empty=False),
    "Nanmax": _nan_reduction("ReduceMax", -math.inf, empty=True),
    "Nanmin": _nan_reduction("ReduceMin", math.inf, empty=True),
    "Nanmean": _nan_mean,
    "Nanvar": _nan_variance(root=False),
    "Nanstd": _nan_variance(root=True),
    "Nanargmax": _nan_place("ArgMax", -math.inf),
    "Nanargmin": _nan_place("ArgMin", math.inf),
    "Nancumsum": _accumulated_without_nan(_cumsum, 0.0),
    "Nancumprod": _accumulated_without_nan(_cumprod, 1.0),
    "Cumprod": _cumprod,
    "Fmax": _larger_number(largest=True),
    "Fmin": _larger_number(largest=False),
    "Isclose": _is_near,
    "AllClose": _all_near,
    "Heaviside": _step,
    "Sinc": _exact(_sinc),
    "Angle": _exact(_angle_of_real),
    "FFT": _of_frequencies(signals.fft, 2),
    "FFT2": _of_frequencies(signals.fft2, 2),
    "IFFT2": _of_frequencies(signals.ifft2, 2),
    "RFFT": _of_frequencies(signals.rfft, 1),
    "IRFFT": _of_frequencies(signals.irfft, 2),
    "STFT": _of_frequencies(signals.stft, 1),
    "ISTFT": _of_frequencies(signals.istft, 2),
    "ExtractSequences": _windows,
    "Logaddexp2": _of_pair(_log_add_exp2),
    "Ldexp": _scaled_by_power,
    "Isreal": _truth(True),
    "Real": _identity,
    "Conj": _identity,
    "Conjugate": _identity,
    "Imag": _like(0),
    "SaturateCast": _within_and_cast,
    **{name: _bitwise(operator) for name, operator in BITWISE.items()},
    "Quantile": _quantile(1.0, skips=False),
    "Percentile": _quantile(100.0, skips=False),
    "Append": _append,
    "ArraySplit": _split_evenly,
    "Vsplit": _split_along(0),
    "Hsplit": _split_along(1),
    "Dsplit": _split_along(2),
    "Rot90": _rotated,
    "Trapezoid": _trapezoids,
    "Vdot": _flat_product,
    "Select": _selected,
    "IsIn": _is_in,
    "SearchSorted": _searched,
    "Size": _size,
    "ScatterUpdate": _updated,
    "BatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _layer_norm,
    "Conv": _convolved("Conv", "kernel"),
    "DepthwiseConv": _convolved("DepthwiseConv", "kernel"),
    "SeparableConv": _convolved("SeparableConv", "depthwise_kernel", "pointwise_kernel"),
    "DepthToSpace": _blocks("DepthToSpace"),
    "SpaceToDepth": _blocks("SpaceToDepth"),
    "ExtractPatches": _patches,
    "CDist": _distances,
    "PSNR": _signal_to_noise,
    "Cholesky": _lower_root,
    "Logdet": _log_determinant,
    "Inv": _inverse,
    "CholeskyInverse": _inverse,
    "Solve": _solution,
    "SolveTriangular": _solution,
    "Slogdet": _sign_and_log,
    **{f"Segment{kind}": _segments(f"Reduce{kind}") for kind in ("Sum", "Prod", "Max", "Min")},
    "BinaryCrossentropy": _binary_loss,
    "CategoricalCrossentropy": _categorical_loss,
    "SparseCategoricalCrossentropy": _categorical_loss,
    "PadImages": _framed,
    "CropImages": _framed,
    "AffineTransform": _of_images(images.affine_transform, 2),
    "PerspectiveTransform": _of_images(_perspective, 3),
    "MapCoordinates": _of_images(images.map_coordinates, 2),
    "ScaleAndTranslate": _scaled_and_moved,
    "GaussianBlur": _of_images(images.gaussian_blur),
    "SobelEdges": _of_images(images.sobel_edges),
    "SSIM": _of_images(images.similarity, 2),
    "Fold": _of_images(images.fold),
    "Unfold": _of_images(images.unfold),
    "RGBToHSV": _of_images(images.rgb_to_hsv),
    "HSVToRGB": _of_images(images.hsv_to_rgb),
    "SliceUpdate": _part_replaced,
    "InTopK": _is_among_first,
    "Signbit": _sign_bit,
    **dict.fromkeys(("LeftShift", "BitwiseLeftShift"), _shifted(left=True)),
    **dict.fromkeys(("RightShift", "BitwiseRightShift"), _shifted(left=False)),
    "UnravelIndex": _unravelled,
    "Kron": _kronecker,
    "Bincount": _counts,
    "Full": _filled,
    "Linspace": _between,
    "Logspace": _powers_between,
    "Geomspace": _ratios_between,
    "Meshgrid": _grids,
    "Ndim": _rank,
    "Diag": _as_diagonal,
    "Diagflat": _flat_as_diagonal,
    "Vander": _powers_of_each,
    "Corrcoef": _correlations,
    "Correlate": _correlated,
    "Erfinv": _in_float32(_erf_inverse),
    "I0": _in_float32(_bessel),
    "Gcd": _common(multiple=False),
    "Lcm": _common(multiple=True),
    "Nanmedian": _quantile(1.0, skips=True),
    "Nanquantile": _quantile(1.0, skips=True),
    "Nanpercentile": _quantile(100.0, skips=True),
    "Nonzero": _not_zero,
    "Scatter": _scattered,
    "Unique": _distinct,
    "Array": _identity,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "RGBToGrayscale": _grayscale,
    "Argmax": _place("ArgMax"),
    "Argmin": _place("ArgMin"),
    "Cumsum": _cumsum,
    "GetItem": _get_item,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Swapaxes": _swapped,
    "Squeeze": _squeeze,
    "ExpandDims": _expand_dims,
    "Concatenate": _concatenate,
    "Stack": _stack,
    "Split": _split,
    "Tile": _tile,
    "Repeat": _repeat,
    "Flip": _flip,
    "Pad": _pad,
    "Normalize": _normalize,
    "Identity": _identity,
    "ConvertToTensor": _as_tensor,
    "StopGradient": _identity,
    "Copy": _identity,
}  # fmt: skip
#: Operation that crosses from one Keras to another -> why it has no row above.
UNSAID: Mapping[str, str] = {
    **dict.fromkeys(("Eig", "Polar", "ViewAsComplex", "ViewAsReal"),
                    "ONNX Runtime has no complex numbers"),
    **dict.fromkeys(("Nextafter", "View"),
                    "no operator of ONNX reads the bits of a number before opset 26"),
    **dict.fromkeys(("Eigh", "Lstsq", "MatrixRank", "Pinv", "SVD"),
                    "ONNX has no operator for eigenvalues or singular values"),
    **dict.fromkeys(("LuFactor", "Qr"), "ONNX has no operator that factors a matrix"),
    **dict.fromkeys(("CTCDecode", "CTCLoss"),
                    "ONNX has no operator for the paths of a text through time"),
    "ElasticTransform": "it moves pixels at random",
    **dict.fromkeys(("Arange", "ConvTranspose", "Histogram"),
                    "Keras 3.15 itself stops where a model makes or runs it"),
    "Argpartition": "Keras 3.15 orders the two parts otherwise on each of its backends, and on "
                    "TensorFlow cuts numbers to whole ones before",
}  # fmt: skip
#: Operation -> the names of the arguments of its call, where a config may give some by name.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "DotProductAttention": ("query", "key", "value", "bias", "mask", "scale"),
    "Average": ("x", "weights"),
    "Where": ("condition", "x1", "x2"),
    "Take": ("x", "indices"),
    "TakeAlongAxis": ("x", "indices"),
    "Isclose": ("x1", "x2", "rtol", "atol"),
    **dict.fromkeys(("Quantile", "Percentile", "Nanquantile", "Nanpercentile"), ("x", "q")),
    **dict.fromkeys(("Linspace", "Logspace", "Geomspace"), ("start", "stop")),
    **dict.fromkeys(("Gcd", "Lcm", "Correlate"), ("x1", "x2")),
    "Scatter": ("indices", "values"),
    "Select": ("condlist", "choicelist", "default"),
    "SearchSorted": ("sorted_sequence", "values"),
    "ScatterUpdate": ("inputs", "indices", "updates"),
    "SliceUpdate": ("inputs", "start_indices", "updates"),
    "Solve": ("a", "b"),
    "SolveTriangular": ("a", "b"),
    "InTopK": ("targets", "predictions"),
    **dict.fromkeys(("BinaryCrossentropy", "CategoricalCrossentropy",
                     "SparseCategoricalCrossentropy"), ("target", "output")),
    **dict.fromkeys(("SegmentSum", "SegmentProd", "SegmentMax", "SegmentMin"),
                    ("data", "segment_ids")),
    "BatchNorm": ("x", "mean", "variance", "offset", "scale"),
    "LayerNorm": ("x", "gamma", "beta"),
    "RMSNorm": ("x", "scale"),
    "Conv": ("inputs", "kernel"),
    "DepthwiseConv": ("inputs", "kernel"),
    "SeparableConv": ("inputs", "depthwise_kernel", "pointwise_kernel"),
}  # fmt: skip

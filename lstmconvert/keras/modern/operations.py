"""TensorFlow's functions between the layers of a functional model, as Keras 3's operations.

`x[:, -1] + y` in a model of tf.keras leaves a `SlicingOpLambda` and a `TFOpLambda` in its config,
which name the function and hold its arguments where the call is; Keras 3 has an operation for each
that it can say (keras/src/ops). The table is closed: any other function is refused by name, and so
is an argument at a value that the operation does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.jsontext import Json, JsonObject
from lstmconvert.keras.modern.objects import serialized
from lstmconvert.keras.modern.parts import Part, unsupported
from lstmconvert.keras.nodes import snake_case
from lstmconvert.records import dataclass

GETITEM = "__operators__.getitem"
_OPS = "keras.src.ops."


@dataclass(frozen=True, slots=True)
class Operation:
    """What stands for a function in Keras 3.

    Fields: `module` and `class_name`; `others`: the arguments that it is called with beside the
    first; `keywords`: argument -> keyword of the class; `fixed`: what keywords and arguments are
    unless the call says otherwise; `neutral`: argument -> the values at which it changes nothing;
    `values`: argument -> what turns its value into the class's, or returns None.
    """

    module: str
    class_name: str
    others: tuple[str, ...] = ()
    keywords: tuple[tuple[str, str], ...] = ()
    fixed: tuple[tuple[str, Json], ...] = ()
    neutral: tuple[tuple[str, tuple[Json, ...]], ...] = ()
    values: tuple[tuple[str, Callable[[Json], Json]], ...] = ()

    def serialized(self, name: str, config: JsonObject, names: Iterable[str]) -> JsonObject:
        """Return it as Keras 3 serializes it.

        Most operations take no name in Keras 3.10, and do in 3.15; they get none, unless the one
        that Keras makes up could be that of a layer.
        """
        made_up = snake_case(self.class_name)
        if any(other.startswith(made_up) for other in names):
            config = {"name": name, **config}
        return {**serialized(self.module, self.class_name, config),
                "registered_name": self.class_name}  # fmt: skip


def _is_int(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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


def _sections(value: Json) -> Json:
    """Sizes of the pieces, as the places to cut at."""
    if isinstance(value, list) and _ints(value) and min(value, default=0) > 0:
        return list(accumulate(value))[:-1]
    return value if _is_int(value) else None


def _numpy(class_name: str, *others: str, **neutral: tuple[Json, ...]) -> Operation:
    return Operation(f"{_OPS}numpy", class_name, others, neutral=tuple(neutral.items()))


def _nn(class_name: str, *keywords: tuple[str, str], **fixed: Json) -> Operation:
    values = tuple((name, _number) for name, _ in keywords)
    fixed_keywords = tuple(fixed.items())
    return Operation(f"{_OPS}nn", class_name, (), keywords, fixed_keywords, values=values)


def _shaping(
    class_name: str, argument: str, keyword: str, turn: Callable[[Json], Json], **more: Json
) -> Operation:
    """An operation with one keyword; `more`: what it is where the argument is left out."""
    return Operation(
        f"{_OPS}numpy", class_name, (), ((argument, keyword),), tuple(more.items()),
        values=((argument, turn),),
    )  # fmt: skip


def _reducing(class_name: str) -> Operation:
    return Operation(
        f"{_OPS}numpy", class_name, (), (("axis", "axis"), ("keepdims", "keepdims")),
        values=(("axis", _int_or_ints), ("keepdims", _flag)),
    )  # fmt: skip


_TRANSPOSE = Operation(
    f"{_OPS}numpy", "Transpose", (), (("perm", "axes"),),
    neutral=(("conjugate", (False,)),), values=(("perm", _ints),),
)  # fmt: skip
_SQUEEZE = _shaping("Squeeze", "axis", "axis", _one_int)
_PAD = Operation(
    f"{_OPS}numpy", "Pad", (), (("paddings", "pad_width"),), (("mode", "constant"),),
    (("mode", ("CONSTANT",)), ("constant_values", (0, 0.0))), (("paddings", _pairs),),
)  # fmt: skip
#: min(1 / sqrt(sum), 1 / 1e-6) there is 1 / sqrt(max(sum, 1e-12)) here.
_UNIT = Operation(
    f"{_OPS}nn", "Normalize", (), (("axis", "axis"),), (("order", 2), ("epsilon", 1e-6)),
    (("epsilon", (1e-12,)),), (("axis", _one_int),),
)  # fmt: skip
_NO_MATRIX = dict.fromkeys(
    ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse"), (False,)
)
_SOFTMAX = Operation(
    f"{_OPS}nn", "Softmax", (), (("axis", "axis"),), (("axis", -1),), (), (("axis", _one_int),)
)

#: Function -> operation. Keywords and defaults: tensorflow/python/ops and keras/src/ops.
OPERATIONS: Mapping[str, Operation] = {
    GETITEM: _numpy("GetItem", "slice_spec"),
    "__operators__.add": _numpy("Add", "y"),
    "math.add": _numpy("Add", "y"),
    "math.subtract": _numpy("Subtract", "y"),
    "math.multiply": _numpy("Multiply", "y"),
    "math.truediv": _numpy("TrueDivide", "y"),
    "math.divide": _numpy("TrueDivide", "y"),
    "math.pow": _numpy("Power", "y"),
    "math.maximum": _numpy("Maximum", "y"),
    "math.minimum": _numpy("Minimum", "y"),
    "linalg.matmul": _numpy("Matmul", "b", **_NO_MATRIX),
    **{f"math.{name}": _numpy(class_name) for name, class_name in {
        "abs": "Absolute", "cos": "Cos", "exp": "Exp", "expm1": "Expm1", "floor": "Floor",
        "log": "Log", "log1p": "Log1p", "negative": "Negative", "reciprocal": "Reciprocal",
        "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt", "square": "Square", "tanh": "Tanh",
    }.items()},
    "math.rsqrt": Operation(f"{_OPS}math", "Rsqrt"),
    "math.sigmoid": _nn("Sigmoid"),
    "math.softplus": _nn("Softplus"),
    "nn.elu": _nn("Elu"),
    "nn.gelu": Operation(
        f"{_OPS}nn", "Gelu", (), (("approximate", "approximate"),), (("approximate", False),),
        values=(("approximate", _flag),),
    ),
    "nn.leaky_relu": _nn("LeakyRelu", ("alpha", "negative_slope"), negative_slope=0.2),
    "nn.log_softmax": Operation(
        f"{_OPS}nn", "LogSoftmax", (), _SOFTMAX.keywords, _SOFTMAX.fixed, (), _SOFTMAX.values
    ),
    "nn.relu": _nn("Relu"),
    "nn.relu6": _nn("Relu6"),
    "nn.selu": _nn("Selu"),
    "nn.silu": Operation(f"{_OPS}nn", "Silu", neutral=(("beta", (1, 1.0)),)),
    "nn.softmax": _SOFTMAX,
    "nn.softsign": _nn("Softsign"),
    **{f"math.reduce_{name}": _reducing(name.capitalize())
       for name in ("max", "mean", "min", "prod", "sum")},
    "cast": Operation(
        f"{_OPS}core", "Cast", (), (("dtype", "dtype"),), values=(("dtype", _dtype),)
    ),
    "clip_by_value": Operation(
        f"{_OPS}numpy", "Clip", (), (("clip_value_min", "x_min"), ("clip_value_max", "x_max")),
        values=(("clip_value_min", _number), ("clip_value_max", _number)),
    ),
    "compat.v1.squeeze": _SQUEEZE,
    "compat.v1.transpose": _TRANSPOSE,
    "concat": _shaping("Concatenate", "axis", "axis", _one_int),
    "expand_dims": _shaping("ExpandDims", "axis", "axis", _one_int),
    "identity": Operation(f"{_OPS}numpy", "Multiply", ("y",), fixed=(("y", 1),)),
    "linalg.l2_normalize": _UNIT,
    "math.l2_normalize": _UNIT,
    "nn.l2_normalize": _UNIT,
    "compat.v1.pad": _PAD,
    "pad": _PAD,
    "reshape": _shaping("Reshape", "shape", "newshape", _ints),
    "reverse": _shaping("Flip", "axis", "axis", _one_int),
    "split": Operation(
        f"{_OPS}numpy", "Split", (),
        (("num_or_size_splits", "indices_or_sections"), ("axis", "axis")), (("axis", 0),), (),
        (("num_or_size_splits", _sections), ("axis", _one_int)),
    ),
    "squeeze": _SQUEEZE,
    "stack": _shaping("Stack", "axis", "axis", _one_int, axis=0),
    "tile": _shaping("Tile", "multiples", "repeats", _ints),
    "transpose": _TRANSPOSE,
}  # fmt: skip
#: Operations that take a list of tensors.
LISTING = frozenset({"concat", "stack"})
#: Keywords without which an operation is another.
_NEEDED = {
    "Concatenate": "axis", "ExpandDims": "axis", "Flip": "axis", "Reshape": "newshape",
    "Pad": "pad_width", "Tile": "repeats", "Split": "indices_or_sections", "Cast": "dtype",
    "Normalize": "axis",
}  # fmt: skip


def function_of(part: Part) -> str:
    """Return the name of a part's function, without `tf`; empty if its config has none."""
    function = part.node.config.get("function")
    return function if isinstance(function, str) else ""


def read(
    part: Part, first: Json, keywords: Mapping[str, Json], names: Iterable[str]
) -> list[Json]:
    """Read a call of a function: set the part's `operation`, and return its arguments.

    Args:
        part: the function's.
        first: its first argument: a tensor, a list of them, or a number.
        keywords: its other arguments, tensors among them.
        names: of the model's layers.

    Raises:
        UnsupportedByTarget: Keras 3 has no such function, or not with such an argument.
    """
    function = function_of(part)
    operation = OPERATIONS.get(function)
    if operation is None:
        what = f"no operation of Keras 3 is known for tf.{function}"
        raise unsupported(what, part.name, "function")
    if isinstance(first, list) != (function in LISTING):
        raise _refused(part, function, "inputs", "a list" if isinstance(first, list) else "no list")
    turned, neutral = dict(operation.values), dict(operation.neutral)
    config: JsonObject = {}
    for argument, keyword in operation.keywords:
        value = keywords.get(argument)
        if value is not None:
            config[keyword] = turned[argument](value)
            if config[keyword] is None:
                raise _refused(part, function, argument, value)
    for argument, value in keywords.items():
        is_known = argument in operation.others or argument in dict(operation.keywords)
        is_idle = is_known or argument == "name" or value is None
        if not is_idle and value not in neutral.get(argument, ()):
            raise _refused(part, function, argument, value)
    needed = _NEEDED.get(operation.class_name)
    if needed is not None and needed not in config:
        raise _refused(part, function, needed, None)
    given = {**dict(operation.fixed), **keywords}
    others = [_argument(part, function, name, given.get(name)) for name in operation.others]
    fixed = {key: value for key, value in operation.fixed if key not in operation.others}
    part.operation = operation.serialized(part.name, {**fixed, **config}, names)
    return [first, *others]


def _argument(part: Part, function: str, name: str, value: Json) -> Json:
    if function == GETITEM:
        spec = value if isinstance(value, list) else [value]
        return [_index(part, item) for item in spec]
    if isinstance(value, tuple) or (_number(value) is not None):
        return value
    raise _refused(part, function, name, value)


def _index(part: Part, value: Json) -> Json:
    """One index as Keras 3 writes it (keras/src/saving/serialization_lib.py)."""
    if value is None or _is_int(value):
        return value
    if isinstance(value, dict) and value.get("class_name") == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    is_slice = isinstance(value, dict) and value.keys() == {"start", "stop", "step"}
    if is_slice and all(item is None or _is_int(item) for item in value.values()):
        return {"class_name": "__slice__", "config": value}
    raise _refused(part, GETITEM, "slice_spec", value)


def _refused(part: Part, function: str, argument: str, found: Json) -> UnsupportedByTarget:
    what = f"Keras 3's operation for tf.{function} has no such {argument}"
    return unsupported(what, part.name, argument, str(found)[:80])

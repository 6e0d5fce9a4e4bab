"""What a Lambda computes, by `--replace`, as Keras 3's operations.

The grammar is closed: `x`, numbers, slices, arithmetic, comparisons, and the functions of
`keras.ops` in the table below, by their names and arguments there. Python's parser makes a tree of
the text, and this module walks over it; nothing is run.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lstmconvert.errors import UsageError, close_to
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.modern import operations
from lstmconvert.keras.modern.operations import BARE, Applied
from lstmconvert.keras.modern.replacing import Expression

#: Numbers and exponents in an expression of numbers alone are no larger.
_LARGEST, _HIGHEST = 1e30, 64
_A_LIST = "x is a list of tensors here: x[0] is the first"
#: The most operations inside one another.
_DEEPEST = 100
_ARITHMETIC: Mapping[type[ast.AST], str] = {
    ast.Add: "Add", ast.Sub: "Subtract", ast.Mult: "Multiply", ast.Div: "TrueDivide",
    ast.FloorDiv: "FloorDivide", ast.Mod: "Mod", ast.Pow: "Power", ast.MatMult: "Matmul",
    ast.Gt: "Greater", ast.GtE: "GreaterEqual", ast.Lt: "Less", ast.LtE: "LessEqual",
    ast.Eq: "Equal", ast.NotEq: "NotEqual",
}  # fmt: skip
_OF_NUMBERS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b, ast.FloorDiv: lambda a, b: a // b, ast.Mod: lambda a, b: a % b,
    ast.Pow: lambda a, b: a**b,
}  # fmt: skip


class OpsFunction(NamedTuple):
    """A function of `keras.ops`.

    Fields: `class_name` of the operation; `tensors`: its arguments that are tensors or numbers, in
    order; `others`: those that are plain values, which come after; `stated`: what a plain argument
    is where the expression leaves it out; `lists`: whether the first argument is a list of tensors;
    `needed`: plain arguments without which it is another function.
    """

    class_name: str
    tensors: tuple[str, ...] = ("x",)
    others: tuple[str, ...] = ()
    stated: Mapping[str, Json] = {}
    lists: bool = False
    needed: tuple[str, ...] = ()


def _named(names: str, *others: str, tensors: str = "x", **stated: Json) -> dict[str, OpsFunction]:
    """Functions that are named as their operations are: `log_softmax`, LogSoftmax."""
    return {
        name: OpsFunction(
            "".join(part.capitalize() for part in name.split("_")),
            tuple(tensors.split()),
            others,
            stated,
        )
        for name in names.split()
    }


_TWO = "x1 x2"
#: Name in `keras.ops` -> the function. Arguments and defaults: keras/src/ops.
FUNCTIONS: Mapping[str, OpsFunction] = {
    **_named(
        "abs absolute arccos arccosh arcsin arcsinh arctan arctanh ceil cos cosh exp expm1 floor "
        "isfinite isinf isnan log log10 log1p log2 logical_not negative ones_like reciprocal sign "
        "sin sinh sqrt square tan tanh zeros_like erf rsqrt log_sigmoid relu relu6 selu sigmoid "
        "silu softplus softsign"
    ),
    **_named(
        "add arctan2 divide equal floor_divide greater greater_equal less less_equal logical_and "
        "logical_or logical_xor maximum minimum mod multiply not_equal power subtract true_divide",
        tensors=_TWO,
    ),
    **_named("matmul", tensors=_TWO),
    **_named("tensordot", "axes", tensors=_TWO, axes=2),
    **_named("sum mean max min prod std var all any", "axis", "keepdims",
             axis=None, keepdims=False),
    **_named("logsumexp", "axis", "keepdims", axis=None, keepdims=False),
    **_named("argmax argmin", "axis", "keepdims", axis=None, keepdims=False),
    **_named("cumsum cumprod", "axis", axis=None),
    **_named("softmax log_softmax", "axis", axis=-1),
    **_named("elu", "alpha", alpha=1.0),
    **_named("leaky_relu", "negative_slope", negative_slope=0.2),
    **_named("gelu", "approximate", approximate=True),
    **_named("normalize", "axis", "order", "epsilon", axis=-1, order=2),
    **_named("sort argsort", "axis", axis=-1),
    **_named("flip squeeze", "axis", axis=None),
    **_named("round", "decimals", decimals=0),
    **_named("stop_gradient", tensors="variable"),
    "expand_dims": OpsFunction("ExpandDims", others=("axis",), needed=("axis",)),
    "reshape": OpsFunction("Reshape", others=("newshape",), needed=("newshape",)),
    "transpose": OpsFunction("Transpose", others=("axes",), stated={"axes": None}),
    "swapaxes": OpsFunction("Swapaxes", others=("axis1", "axis2"), needed=("axis1", "axis2")),
    "moveaxis": OpsFunction(
        "Moveaxis", others=("source", "destination"), needed=("source", "destination")
    ),
    "repeat": OpsFunction("Repeat", others=("repeats", "axis"), stated={"axis": None},
                       needed=("repeats",)),
    "tile": OpsFunction("Tile", others=("repeats",), needed=("repeats",)),
    "roll": OpsFunction("Roll", others=("shift", "axis"), stated={"axis": None}, needed=("shift",)),
    "pad": OpsFunction("Pad", others=("pad_width", "mode"), stated={"mode": "constant"},
                    needed=("pad_width",)),
    "clip": OpsFunction("Clip", others=("x_min", "x_max"), needed=("x_min", "x_max")),
    "cast": OpsFunction("Cast", others=("dtype",), needed=("dtype",)),
    "one_hot": OpsFunction(
        "OneHot", others=("num_classes", "axis", "dtype"),
        stated={"axis": -1, "dtype": "float32"}, needed=("num_classes",),
    ),
    "take": OpsFunction("Take", ("x", "indices"), ("axis",), {"axis": None}),
    "where": OpsFunction("Where", ("condition", "x1", "x2")),
    "concatenate": OpsFunction("Concatenate", ("xs",), ("axis",), {"axis": 0}, lists=True),
    "stack": OpsFunction("Stack", ("x",), ("axis",), {"axis": 0}, lists=True),
}  # fmt: skip


def written(expression: Expression, name: str, x: Any) -> Applied:
    """Return an expression as operations of Keras 3.

    Args:
        expression: what the user wrote.
        name: of the layer, for errors.
        x: what `x` stands for: a tensor, or a list of tensors.

    Raises:
        UsageError: something in it is outside of the grammar.
    """
    result = _Walk(expression, name, x).value(expression.tree)
    if isinstance(result, Applied):
        return result
    if isinstance(result, tuple):  # x itself: Keras 3 has no operation that does nothing
        return Applied(BARE["Multiply"], "Multiply", {}, (result, 1))
    if result is x:
        raise UsageError(f"--replace: {_A_LIST}", where=name, found=expression.text)
    raise UsageError(
        "--replace: the expression is not a tensor", where=name, found=expression.text,
        expected="something of x",
    )


class _Walk:
    """Walks over the tree of one expression."""

    def __init__(self, expression: Expression, name: str, x: Any) -> None:
        self._expression, self._name, self._x = expression, name, x
        self._depth = 0

    def value(self, tree: ast.expr) -> Any:
        """Return a tensor, an operation, a list of both, or a plain value."""
        if self._depth == _DEEPEST:
            raise self._refused(tree, "operations in operations, too deep")
        self._depth += 1
        value = self._value(tree)
        self._depth -= 1
        return value

    def _value(self, tree: ast.expr) -> Any:
        match tree:
            case ast.Name(id="x"):
                return self._x
            case ast.Constant(value=bool() | int() | float() | None | str() as constant):
                return constant
            case ast.Tuple(elts=items) | ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                return self._signed(self.value(operand), isinstance(sign, ast.USub), tree)
            case ast.BinOp(left=left, op=operator, right=right):
                return self._arithmetic(operator, self._operand(left), self._operand(right), tree)
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                values = (self._operand(left), self._operand(right))
                if not any(map(_is_tensor, values)):
                    raise self._refused(tree, "a comparison without x")
                return self._applied(operator, values, tree)
            case ast.Subscript(value=inner, slice=key):
                return self._item(self.value(inner), key, tree)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="ops"), attr=name)):
                return self._call(name, tree)
        raise self._refused(tree, "outside of the grammar")

    def _refused(self, tree: ast.AST, why: str, hint: str | None = None) -> UsageError:
        return UsageError(
            f"--replace: {why}",
            where=self._name,
            found=ast.get_source_segment(self._expression.text, tree) or self._expression.text,
            expected="x, numbers, slices, arithmetic, and functions of keras.ops as ops.NAME(…): "
            "the guide's page on Keras lists them",
            hint=hint,
        )

    def _operand(self, tree: ast.expr) -> Any:
        """Return an argument that is a tensor or a number."""
        value = self.value(tree)
        if not _is_tensor(value) and not isinstance(value, (bool, int, float)):
            is_x = value is self._x
            raise self._refused(tree, _A_LIST if is_x else "neither a tensor nor a number")
        return value

    def _signed(self, value: Any, is_negative: bool, tree: ast.expr) -> Any:
        if _is_tensor(value):
            return _apply("Negative", value) if is_negative else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refused(tree, "neither a tensor nor a number")
        return -value if is_negative else value

    def _arithmetic(self, operator: ast.operator, left: Any, right: Any, tree: ast.AST) -> Any:
        if _is_tensor(left) or _is_tensor(right):
            return self._applied(operator, (left, right), tree)
        function = _OF_NUMBERS.get(type(operator))
        is_high = isinstance(operator, ast.Pow) and abs(right) > _HIGHEST
        if function is None or is_high or max(abs(left), abs(right)) > _LARGEST:
            raise self._refused(tree, "outside of the grammar")
        try:
            result = function(left, right)
        except (ArithmeticError, ValueError):
            result = None
        if not isinstance(result, (int, float)) or not abs(result) < _LARGEST:
            raise self._refused(tree, "not a number of a common size")
        return result

    def _applied(self, operator: ast.AST, values: Sequence[Any], tree: ast.AST) -> Applied:
        name = _ARITHMETIC.get(type(operator))
        if name is None:
            raise self._refused(tree, "outside of the grammar")
        return _apply(name, *values)

    # -- slices ------------------------------------------------------------------------------

    def _item(self, value: Any, key: ast.expr, tree: ast.expr) -> Any:
        if isinstance(value, list):
            number = self.value(key)
            if type(number) is not int or not -len(value) <= number < len(value):
                raise self._refused(tree, f"there are {len(value)} tensors")
            return value[number]
        if not _is_tensor(value):
            raise self._refused(tree, "a slice of something that is not a tensor")
        items = key.elts if isinstance(key, ast.Tuple) else [key]
        return operations.picked(value, [self._index(item) for item in items])

    def _index(self, tree: ast.expr) -> Json:
        match tree:
            case ast.Slice(lower=lower, upper=upper, step=step):
                ends = [None if end is None else self._whole(end) for end in (lower, upper, step)]
                names = ("start", "stop", "step")
                return {"class_name": "__slice__", "config": dict(zip(names, ends, strict=True))}
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=value) if value is ...:
                return {"class_name": "__ellipsis__", "config": {}}
        return self._whole(tree)

    def _whole(self, tree: ast.expr) -> int:
        value = self.value(tree)
        if type(value) is not int:
            raise self._refused(tree, "not a whole number")
        return value

    # -- functions ---------------------------------------------------------------------------

    def _call(self, name: str, tree: ast.Call) -> Applied:
        function = FUNCTIONS.get(name)
        if function is None:
            raise self._refused(
                tree, f"ops.{name} is not among the functions", close_to(name, FUNCTIONS)
            )
        names = (*function.tensors, *function.others)
        if len(tree.args) > len(names) or any(isinstance(arg, ast.Starred) for arg in tree.args):
            raise self._refused(tree, f"ops.{name} has the arguments {', '.join(names)}")
        given = dict(zip(names, tree.args, strict=False))
        for keyword in tree.keywords:
            if keyword.arg not in names or keyword.arg in given:
                raise self._refused(tree, f"ops.{name} has the arguments {', '.join(names)}")
            given[str(keyword.arg)] = keyword.value
        for needed in (*function.tensors, *function.needed):
            if needed not in given:
                raise self._refused(tree, f"ops.{name} needs {needed}")
        if function.lists:
            listed = self.value(given[function.tensors[0]])
            if not isinstance(listed, list) or not listed or not all(map(_is_tensor, listed)):
                raise self._refused(tree, f"ops.{name} takes a list of tensors")
            arguments: list[Any] = [listed]
        else:
            arguments = [self._argument(given[each]) for each in function.tensors]
            if not any(map(_is_tensor, arguments)):
                raise self._refused(tree, f"ops.{name} of no tensor")
        config = dict(function.stated)
        for other in function.others:
            if other in given:
                config[other] = self._plain(given[other])
        return Applied(BARE[function.class_name], function.class_name, config, tuple(arguments))

    def _argument(self, tree: ast.expr) -> Any:
        """Return a tensor, a number, or whole numbers as an array: places to take."""
        if isinstance(tree, (ast.List, ast.Tuple)):
            numbers = self._plain(tree)
            if isinstance(numbers, list) and all(type(item) is int for item in numbers):
                return operations.array(numbers, "int32")
        return self._operand(tree)

    def _plain(self, tree: ast.expr) -> Json:
        value = self.value(tree)
        if not _is_plain(value):
            raise self._refused(tree, "not a plain value")
        plain: Json = value
        return plain


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (tuple, Applied))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _apply(class_name: str, *arguments: Any) -> Applied:
    return Applied(BARE[class_name], class_name, {}, arguments)

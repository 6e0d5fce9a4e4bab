"""Dense, Embedding, Masking and the layers of activations."""

from __future__ import annotations

import re
import string

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.modern.classes import LEAK
from lstmconvert.model.activations import Activation
from lstmconvert.onnx.messages import NUMBERS, Axis
from lstmconvert.onnx.whole import activations
from lstmconvert.onnx.whole.attention import large_of_softmax
from lstmconvert.onnx.whole.normalization import axis_of
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import Value


def dense(site: Site) -> Value:
    """Dense: the last axis times a matrix."""
    value = site.given(site.arguments[0])
    name, order = site.writer.native(value, last=True)
    kernel, units = site.weight("kernel"), site.part.arrays[0].shape[-1]
    has_bias = site.tensor("bias") is not None
    if value.rank == 2 and has_bias:
        made = site.op("Gemm", [name, kernel, site.weight("bias")])
    else:
        made = site.op("MatMul", [name, kernel])
        if has_bias:
            made = site.op("Add", [made, site.weight("bias")])
    result = site.made(made, (*value.shape[:-1], units), order)
    return activations.apply(site, result, site.activation())


def einsum_dense(site: Site) -> Value:
    """EinsumDense: a product by an equation, whose Ellipsis stands for the axes that are left."""
    value, kernel = site.given(site.arguments[0]), site.needed("kernel")
    equation = site.option("equation")
    match = _EQUATION.fullmatch(equation) if isinstance(equation, str) else None
    if match is None:
        raise CorruptFile("not an equation of two terms", where=f"{site.label}.equation",
                          found=str(equation)[:40])  # fmt: skip
    given, weights, result = match.groups()
    if "..." in given:
        free = [x for x in string.ascii_letters if x not in str(equation)]
        more = "".join(free[: value.rank - len(given) + 3])
        given, result = given.replace("...", more), result.replace("...", more)
    sizes: dict[str, Axis] = {**dict(zip(weights, kernel.shape, strict=True))}
    sizes.update((x, n) for x, n in zip(given, value.shape, strict=True) if x not in sizes)
    name, order = site.writer.native(value)
    given = "".join(given[axis] for axis in order)
    equation = f"{given},{weights}->{result}"
    name = site.op("Einsum", [name, site.weight("kernel")], equation=equation)
    bias = site.tensor("bias")
    if bias is not None:
        # Its axes are some of the result's, the others are of length 1.
        axes = str(site.option("bias_axes"))
        start = min(result.index(axis) for axis in axes)
        shape = [int(str(sizes[x])) if x in axes else 1 for x in result[start:]]
        is_plain = tuple(shape) == bias.shape
        name = site.op("Add", [name, site.weight("bias", shape=None if is_plain else shape)])
    made = site.made(name, tuple(sizes[x] for x in result))
    return activations.apply(site, made, site.activation())


_EQUATION = re.compile(r"((?:\.\.\.)?[a-zA-Z]+(?:\.\.\.)?),([a-zA-Z]+)->"
                       r"((?:\.\.\.)?[a-zA-Z]+(?:\.\.\.)?)")  # fmt: skip


def embedding(site: Site) -> Value:
    """Embedding: rows of a table. The mask is of the numbers as they are given."""
    value: Value = site.arguments[0]
    name, order = site.writer.native(value)
    ids = name
    if value.dtype not in ("int32", "int64"):
        ids = site.op("Cast", [name], "ids", to=NUMBERS["int32"])
    table = site.weight("embeddings", dtype=site.part.arrays[0].dtype.name)
    made = site.op("Gather", [table, ids])
    width = site.part.arrays[0].shape[-1]
    result = site.made(
        made, (*value.shape, width), (*order, value.rank), site.part.arrays[0].dtype.name
    )
    result = site.writer.cast(result, site.compute)
    if site.flag("mask_zero", False):
        zero = site.number(0, value.dtype)
        is_zero = site.op("Equal", [name, zero], "is_zero")
        mask = Value(site.op("Not", [is_zero], "mask"), "bool", value.shape, order)
        result = result.again()
        result.mask = mask
    return result


def reversible_embedding(site: Site) -> Value:
    """ReversibleEmbedding: rows of a table, or the product of each row with what is given."""
    if not site.keywords.get("reverse"):
        return embedding(site)
    if site.option("reverse_dtype") is not None:
        raise site.refused("reverse_dtype", site.option("reverse_dtype"))
    value: Value = site.arguments[0]
    value = site.given(value)
    name, order = site.writer.native(value, last=True)
    table = site.needed("embeddings")
    if site.tensor("reverse_embeddings") is not None:
        kernel = site.weight("reverse_embeddings")
    else:
        weight = site.weight("embeddings", dtype=table.dtype.name)
        kernel = site.op("Transpose", [weight], "embeddings_turned", perm=[1, 0])
        if table.dtype.name != site.compute:
            kernel = site.to(kernel, site.compute)
    made = site.op("MatMul", [name, kernel], "scores")
    cap = site.option("logit_soft_cap")
    if cap is not None:
        limit = site.number(site.real("logit_soft_cap", 1.0))
        made = site.op("Mul", [site.op("Tanh", [site.op("Div", [made, limit])]), limit], "capped")
    return site.made(made, (*value.shape[:-1], table.shape[0]), order)


def masking(site: Site) -> Value:
    """Masking: a step counts if any of its numbers is another than the mask's."""
    value = site.given(site.arguments[0])
    name, order = site.writer.native(value, last=True)
    last = value.rank - 1
    equal = site.op("Equal", [name, site.number(site.real("mask_value", 0.0))], "is_masked")
    lowest = site.op("Cast", [equal], "is_masked_int", to=NUMBERS["int32"])
    lowest = site.reduce("ReduceMin", lowest, [last], "is_masked_all", keep=True)
    kept = site.op("Equal", [lowest, site.writer.number(0, "int32")], "counts")
    made = site.op("Where", [kept, name, site.number(0.0)], "chosen")
    result = site.made(made, value.shape, order)
    mask = site.op("Squeeze", [kept, site.ints(last)], "mask")
    result.mask = Value(mask, "bool", value.shape[:-1], order[:-1])
    return result


def activation(site: Site) -> Value:
    """Activation."""
    value = site.given(site.arguments[0])
    if site.config.get("activation") == "glu":
        return glu(site, value)
    function = site.activation()
    if function.name == "linear":
        return site.arguments[0] if value is site.arguments[0] else value
    return activations.apply(site, value, function)


def glu(site: Site, value: Value) -> Value:
    """Return one half of the last axis times the sigmoid of the other."""
    width = value.static(-1)
    if width is None or width % 2:
        raise CorruptFile("glu of an axis that has no halves", where=site.label)
    name, order = site.writer.native(value, last=True)
    half = width // 2
    left, right = site.ops(
        "Split", [name, site.ints(half, half)], 2, "halves", axis=value.rank - 1
    )
    made = site.op("Mul", [left, site.op("Sigmoid", [right])], "glu")
    return site.made(made, (*value.shape[:-1], half), order)


def relu(site: Site) -> Value:
    """ReLU and ThresholdedReLU, which the tree says as ReLU."""
    value = site.given(site.arguments[0])
    ceiling = site.option("max_value")
    slope, threshold = site.real("negative_slope", 0.0), site.real("threshold", 0.0)
    top = None if ceiling is None else site.real("max_value", 0.0)
    return site.map(value, lambda name, _: activations.relu(site, name, top, slope, threshold))


def leaky_relu(site: Site) -> Value:
    """LeakyReLU; the layer's slope is another than the function's by default."""
    slope = site.real("negative_slope", LEAK)
    return _applied(site, Activation("leaky_relu", {"negative_slope": slope}))


def elu(site: Site) -> Value:
    """ELU."""
    return _applied(site, Activation("elu", {"alpha": site.real("alpha", 1.0)}))


def _applied(site: Site, function: Activation) -> Value:
    return activations.apply(site, site.given(site.arguments[0]), function)


def prelu(site: Site) -> Value:
    """PReLU: a slope for each place, or one shared along axes."""
    value = site.given(site.arguments[0])
    name = site.writer.form(value)
    if site.compute == "float64":
        slope, zero = site.weight("alpha"), site.number(0.0)
        below = site.op("Mul", [name, slope])
        made = site.op("Where", [site.op("Less", [name, zero]), below, name], "prelu")
    else:
        made = site.op("PRelu", [name, site.weight("alpha")])
    return site.made(made, value.shape)


def softmax(site: Site) -> Value:
    """Softmax, along one axis or several."""
    value = site.given(site.arguments[0])
    axis_option = site.option("axis", -1)
    axes = sorted({axis_of(site, axis, value.rank) for axis in _listed(axis_option)})
    mask = site.mask
    if mask is not None:
        value = _masked(site, value, mask)
    if len(axes) == 1:
        result = activations.rows(site, value, "softmax", axes[0])
    else:
        result = _over_several(site, value, axes)
    if mask is not None and site.is_modern:
        name = site.op("Where", [site.writer.form(mask), site.writer.form(result),
                                 site.number(0.0)], "masked")  # fmt: skip
        result = site.made(name, value.shape)
    return result


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _masked(site: Site, value: Value, mask: Value) -> Value:
    fits = mask.rank <= value.rank and all(
        size == 1 or other is None or size is None or size == other or isinstance(size, str)
        for size, other in zip(mask.shape[::-1], value.shape[::-1], strict=False)
    )
    if not fits:
        raise site.refused("mask", why="Keras itself takes no mask of steps here")
    name, large = site.writer.form(value), large_of_softmax(site)
    if site.is_modern:
        lowered = site.number(-large)
    else:
        lowered = site.op("Add", [name, site.number(-large)], "lowered")
    made = site.op("Where", [site.writer.form(mask), name, lowered], "lowered_masked")
    return site.made(made, value.shape)


def _over_several(site: Site, value: Value, axes: list[int]) -> Value:
    """A softmax over several axes is one over all of them as one."""
    others = [axis for axis in range(value.rank) if axis not in axes]
    order = (*others, *axes)
    name = site.writer.form(value, order)
    flat = site.op("Flatten", [name], "flat", axis=len(others))
    made = site.op("Softmax", [flat], axis=1)
    made = site.op("Reshape", [made, site.op("Shape", [name])], "shaped")
    return site.made(made, value.shape, order)

"""Activations as operators: functions with their constants, whatever Keras called them.

ONNX Runtime has no float64 kernel for some of the operators (Elu, Selu, HardSigmoid, Softplus,
Softsign, …): in float64 those are made of others that it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from lstmconvert.model.activations import HARD_SIGMOID_KERAS3, LINEAR, Activation
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import Value

#: Constants of selu (keras/src/backend/numpy/nn.py, `selu`).
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def apply(site: Site, value: Value, activation: Activation) -> Value:
    """Return an activation of a value.

    Raises:
        UnsupportedByTarget: no operators compute it.
    """
    if activation == LINEAR:
        return value
    if activation.name in ROWS:
        return rows(site, value, activation.name, -1)
    return site.map(value, lambda name, _: element(site, name, activation))


def element(site: Site, name: str, activation: Activation) -> str:
    """Return an activation of the single elements of a stored array.

    Raises:
        UnsupportedByTarget: no operators compute it, or it is one of rows.
    """
    if activation == LINEAR:
        return name
    write = _ELEMENTS.get(activation.name)
    if write is None or activation.custom:
        raise site.refused("activation", activation)
    return write(site, name, activation.constants)


def rows(site: Site, value: Value, name: str, axis: int) -> Value:
    """Return softmax, log_softmax or sparsemax along one axis of Keras's."""
    axis %= value.rank
    start, order = site.writer.native(value)
    made = ROWS[name](site, start, order.index(axis))
    return Value(made, value.dtype, value.shape, order)


def _sparsemax(site: Site, name: str, axis: int) -> str:
    """As Keras computes it (keras/src/backend/tensorflow/nn.py, `sparsemax`): its threshold is made
    of the sums of the sums, where the projection onto the simplex has those of the numbers."""
    shape = site.op("Shape", [name])
    size = site.op("Gather", [shape, site.ints(axis)], "size")
    ordered = site.ops("TopK", [name, size], 2, "sorted", axis=axis)[0]
    total = site.op("CumSum", [ordered, site.writer.place(axis)], "sums")
    unity = site.number(1.0)
    ones = site.op("CumSum", [site.op("Add", [site.op("Mul", [ordered, site.number(0.0)]), unity]),
                              site.writer.place(axis)], "counts")  # fmt: skip
    above = site.op("Add", [site.op("Mul", [ones, ordered]), unity], "above")
    inside = site.op("Greater", [above, total], "inside")
    kept = site.op("Where", [inside, total, site.number(0.0)], "kept")
    count = site.reduce("ReduceSum", site.op("Cast", [inside], "inside_as_number",
                        to=_number_of(site)), [axis], "count", keep=True)  # fmt: skip
    sums = site.reduce("ReduceSum", kept, [axis], "sum", keep=True)
    threshold = site.op("Div", [site.op("Sub", [sums, unity]), count], "threshold")
    return site.op("Relu", [site.op("Sub", [name, threshold])], "sparsemax")


def _number_of(site: Site) -> int:
    from lstmconvert.onnx.messages import NUMBERS

    return NUMBERS[site.compute]


#: Activations of whole rows -> what writes one along an axis of a stored array.
ROWS: Mapping[str, Callable[[Site, str, int], str]] = {
    "softmax": lambda site, name, axis: site.op("Softmax", [name], axis=axis),
    "log_softmax": lambda site, name, axis: site.op("LogSoftmax", [name], axis=axis),
    "sparsemax": _sparsemax,
}

Constants = Mapping[str, float]
Write = Callable[[Site, str, Constants], str]


def _plain(operator: str) -> Write:
    return lambda site, name, _: site.op(operator, [name])


def _is_wide(site: Site) -> bool:
    return site.compute == "float64"


def clip(site: Site, name: str, low: float | None, high: float | None) -> str:
    """Return a value within bounds; None is no bound."""
    bounds = ["" if bound is None else site.number(bound) for bound in (low, high)]
    while bounds and not bounds[-1]:
        bounds.pop()
    return site.op("Clip", [name, *bounds])


def _hard_sigmoid(site: Site, name: str, constants: Constants) -> str:
    alpha, beta = constants["alpha"], constants["beta"]
    if not _is_wide(site):
        return site.op("HardSigmoid", [name], alpha=float(alpha), beta=float(beta))
    line = site.op("Add", [site.op("Mul", [name, site.number(alpha)]), site.number(beta)])
    return clip(site, line, 0.0, 1.0)


def _hard_silu(site: Site, name: str, _: Constants) -> str:
    gate = _hard_sigmoid(site, name, HARD_SIGMOID_KERAS3.constants)
    return site.op("Mul", [name, gate], "hard_silu")


def softplus(site: Site, name: str, _: Constants | None = None) -> str:
    """Return log(1 + exp(x))."""
    if not _is_wide(site):
        return site.op("Softplus", [name])
    small = site.op("Exp", [site.op("Neg", [site.op("Abs", [name])])])
    return site.op("Add", [site.op("Relu", [name]), log1p(site, small)], "softplus")


def log1p(site: Site, name: str) -> str:
    """Return log(1 + x), exact near zero: log(u) · x / (u - 1), where u is 1 + x as rounded."""
    unity, zero = site.number(1.0), site.number(0.0)
    u = site.op("Add", [name, unity], "one_more")
    less = site.op("Sub", [u, unity], "rounded")
    log = site.op("Log", [u])
    ratio = site.op("Div", [site.op("Mul", [log, name]), less])
    return site.op("Where", [site.op("Equal", [less, zero]), name, ratio], "log1p")


def expm1(site: Site, name: str) -> str:
    """Return exp(x) - 1, exact near zero: 2 t / (1 - t), where t is tanh(x / 2)."""
    unity, two = site.number(1.0), site.number(2.0)
    t = site.op("Tanh", [site.op("Div", [name, two])])
    near = site.op("Div", [site.op("Mul", [t, two]), site.op("Sub", [unity, t])], "near_zero")
    far = site.op("Sub", [site.op("Exp", [name]), unity], "far_from_zero")
    is_near = site.op("Less", [site.op("Abs", [name]), unity], "is_near_zero")
    return site.op("Where", [is_near, near, far], "expm1")


def _elu(site: Site, name: str, constants: Constants) -> str:
    alpha = float(constants.get("alpha", 1.0))
    if not _is_wide(site):
        return site.op("Elu", [name], alpha=alpha)
    return _bent(site, name, alpha, 1.0)


def _bent(site: Site, name: str, alpha: float, scale: float) -> str:
    """scale · x above zero, scale · alpha · (exp(x) - 1) below."""
    zero = site.number(0.0)
    below = expm1(site, site.op("Min", [name, zero]))
    below = site.op("Mul", [below, site.number(alpha)])
    both = site.op("Where", [site.op("Greater", [name, zero]), name, below])
    return both if scale == 1.0 else site.op("Mul", [both, site.number(scale)], "scaled")


def _celu(site: Site, name: str, constants: Constants) -> str:
    alpha = float(constants.get("alpha", 1.0))
    if alpha == 1.0:
        return _elu(site, name, {"alpha": 1.0})
    if site.compute == "float32":
        return site.op("Celu", [name], alpha=alpha)
    zero = site.number(0.0)
    below = expm1(site, site.op("Div", [site.op("Min", [name, zero]), site.number(alpha)]))
    below = site.op("Mul", [below, site.number(alpha)])
    return site.op("Where", [site.op("Greater", [name, zero]), name, below], "celu")


def _selu(site: Site, name: str, _: Constants) -> str:
    if _is_wide(site):
        return _bent(site, name, _SELU_ALPHA, _SELU_SCALE)
    return site.op("Selu", [name], alpha=_SELU_ALPHA, gamma=_SELU_SCALE)


def _silu(site: Site, name: str, _: Constants) -> str:
    return site.op("Mul", [name, site.op("Sigmoid", [name])], "silu")


def gelu(site: Site, name: str, *, approximate: bool) -> str:
    """Return x times the normal distribution's share below x, exact or by tanh."""
    if site.writer.opset >= 20 and not _is_wide(site):
        return site.op("Gelu", [name], approximate="tanh" if approximate else "none")
    half, unity = site.number(0.5), site.number(1.0)
    if approximate:
        cubed = site.op("Mul", [site.op("Mul", [name, name]), name], "cubed")
        inner = site.op("Add", [name, site.op("Mul", [cubed, site.number(0.044715)])])
        share = site.op("Tanh", [site.op("Mul", [inner, site.number(math.sqrt(2 / math.pi))])])
    elif _is_wide(site):
        raise site.refused("activation", "gelu in float64, which needs Erf in float64")
    else:
        share = site.op("Erf", [site.op("Mul", [name, site.number(math.sqrt(0.5))])])
    share = site.op("Add", [share, unity])
    return site.op("Mul", [site.op("Mul", [name, half]), share], "gelu")


def _gelu(site: Site, name: str, constants: Constants) -> str:
    return gelu(site, name, approximate=bool(constants.get("approximate", 0)))


def _mish(site: Site, name: str, _: Constants) -> str:
    return site.op("Mul", [name, site.op("Tanh", [softplus(site, name)])], "mish")


def _softsign(site: Site, name: str, _: Constants) -> str:
    if not _is_wide(site):
        return site.op("Softsign", [name])
    return site.op("Div", [name, site.op("Add", [site.op("Abs", [name]), site.number(1.0)])])


def _log_sigmoid(site: Site, name: str, _: Constants) -> str:
    return site.op("Neg", [softplus(site, site.op("Neg", [name]))], "log_sigmoid")


def leaky(site: Site, name: str, slope: float) -> str:
    """Return x, or slope · x below zero."""
    if not _is_wide(site):
        return site.op("LeakyRelu", [name], alpha=float(slope))
    zero = site.number(0.0)
    below = site.op("Mul", [name, site.number(slope)])
    return site.op("Where", [site.op("Less", [name, zero]), below, name], "leaky_relu")


def _relu(site: Site, name: str, constants: Constants) -> str:
    ceiling = constants.get("max_value")
    slope, threshold = constants.get("negative_slope", 0.0), constants.get("threshold", 0.0)
    return relu(site, name, ceiling, slope, threshold)


def relu(
    site: Site, name: str, ceiling: float | None, slope: float, threshold: float
) -> str:
    """Return Keras's relu with its three constants (keras/src/activations/activations.py)."""
    if slope == 0 and threshold == 0:
        return site.op("Relu", [name]) if ceiling is None else clip(site, name, 0.0, ceiling)
    if threshold == 0 and ceiling is None:
        return leaky(site, name, slope)
    limit = site.number(threshold)
    above = name if ceiling is None else site.op("Min", [name, site.number(ceiling)])
    below = site.number(0.0)
    if slope:
        below = site.op("Mul", [site.op("Sub", [name, limit]), site.number(slope)])
    return site.op("Where", [site.op("Greater", [name, limit]), above, below], "relu")


def _hard_shrink(site: Site, name: str, constants: Constants) -> str:
    limit = site.number(constants.get("threshold", 0.5))
    is_far = site.op("Greater", [site.op("Abs", [name]), limit])
    return site.op("Where", [is_far, name, site.number(0.0)], "hard_shrink")


def _soft_shrink(site: Site, name: str, constants: Constants) -> str:
    limit = float(constants.get("threshold", 0.5))
    return site.op("Shrink", [name], bias=limit, lambd=limit)


def _tanh_shrink(site: Site, name: str, _: Constants) -> str:
    return site.op("Sub", [name, site.op("Tanh", [name])], "tanh_shrink")


def _squareplus(site: Site, name: str, constants: Constants) -> str:
    squared = site.op("Mul", [name, name])
    root = site.op("Sqrt", [site.op("Add", [squared, site.number(constants.get("b", 4.0))])])
    return site.op("Div", [site.op("Add", [name, root]), site.number(2.0)], "squareplus")


def _sparse_plus(site: Site, name: str, _: Constants) -> str:
    unity, least, zero = site.number(1.0), site.number(-1.0), site.number(0.0)
    more = site.op("Add", [name, unity])
    bent = site.op("Mul", [site.op("Mul", [more, more]), site.number(0.25)])
    low = site.op("Where", [site.op("LessOrEqual", [name, least]), zero, bent])
    return site.op("Where", [site.op("GreaterOrEqual", [name, unity]), name, low], "sparse_plus")


def _sparse_sigmoid(site: Site, name: str, _: Constants) -> str:
    return _hard_sigmoid(site, name, {"alpha": 0.5, "beta": 0.5})


def _hard_tanh(site: Site, name: str, _: Constants) -> str:
    return clip(site, name, -1.0, 1.0)


def _thresholded(site: Site, name: str, constants: Constants) -> str:
    return relu(site, name, None, 0.0, float(constants.get("alpha", 1.0)))


def _leaky_relu(site: Site, name: str, constants: Constants) -> str:
    return leaky(site, name, float(constants.get("negative_slope", 0.2)))


_ELEMENTS: Mapping[str, Write] = {
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "exponential": _plain("Exp"),
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "thresholded_relu": _thresholded,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "softplus": softplus,
    "softsign": _softsign,
    "elu": _elu,
    "selu": _selu,
    "celu": _celu,
    "silu": _silu,
    "gelu": _gelu,
    "mish": _mish,
    "log_sigmoid": _log_sigmoid,
    "hard_tanh": _hard_tanh,
    "hard_shrink": _hard_shrink,
    "soft_shrink": _soft_shrink,
    "tanh_shrink": _tanh_shrink,
    "squareplus": _squareplus,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _sparse_sigmoid,
}

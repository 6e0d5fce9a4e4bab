"""Activations are functions with their constants, not names.

`hard_sigmoid` is clip(0.2 x + 0.5) in Keras 1, Keras 2, tf_keras and TF.js
(tf_keras/src/backend.py, `hard_sigmoid`), and clip(x / 6 + 0.5) in Keras 3
(keras/src/backend/numpy/nn.py, `hard_sigmoid`). The neutral model therefore records
`hard_sigmoid` with `alpha` and `beta`, and the same layer means the same thing everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

#: Slope of hard_sigmoid in Keras 3, and in earlier versions.
KERAS3_HARD_SIGMOID_ALPHA = 1 / 6
KERAS2_HARD_SIGMOID_ALPHA = 0.2


class _Constants(dict[str, float]):
    """The constants of a function, which nobody changes: they are shared by many layers.

    It is a dict, not a proxy of one, because `copy.deepcopy` and `dataclasses.asdict` take it.
    """

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("the constants of an activation cannot be changed: make another Activation")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of one variable (or of a row, for softmax) with its constants.

    Fields: `name`, the usual one; `constants`: all of them, including those at their default;
    `custom`: whether it is a user's function. Of that only the name is known: it is kept and
    reported, and never computed or guessed. Two activations are equal if the functions are.
    """

    name: str
    constants: Mapping[str, float] = field(default_factory=dict)
    custom: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "constants", _Constants(self.constants))

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.constants.items()))))

    def __reduce__(self) -> tuple[Any, ...]:
        return Activation, (self.name, dict(self.constants), self.custom)

    def __str__(self) -> str:
        if not self.constants:
            return self.name
        return f"{self.name}({', '.join(f'{k}={v:.6g}' for k, v in self.constants.items())})"

    def to_json(self) -> dict[str, Any]:
        """Return `{"name": …, …constants…}`."""
        mark = {"custom": True} if self.custom else {}
        return {"name": self.name, **self.constants, **mark}


@dataclass(frozen=True, slots=True)
class Functions:
    """The activations that a target computes.

    Fields: `exact`: functions, each with these constants and no others; `families`: pairs of a name
    and the names of its constants, which can be any numbers; `is_any`: every function, also a
    user's own, because the target's user passes one in code.
    """

    exact: tuple[Activation, ...] = ()
    families: tuple[tuple[str, tuple[str, ...]], ...] = ()
    is_any: bool = False

    def __contains__(self, activation: object) -> bool:
        if self.is_any:
            return True
        if not isinstance(activation, Activation) or activation.custom:
            return False
        names = tuple(sorted(activation.constants))
        return activation in self.exact or (activation.name, names) in self.families

    def names(self) -> list[str]:
        """Return each function with its constants, or with the names of those that are free."""
        families = [f"{name}({', '.join(names)})" for name, names in self.families]
        return [*map(str, self.exact), *families]

    def __str__(self) -> str:
        return "any function" if self.is_any else ", ".join(self.names())


SIGMOID = Activation("sigmoid")
TANH = Activation("tanh")
LINEAR = Activation("linear")
HARD_SIGMOID_KERAS2 = Activation(
    "hard_sigmoid", {"alpha": KERAS2_HARD_SIGMOID_ALPHA, "beta": 0.5}
)
HARD_SIGMOID_KERAS3 = Activation(
    "hard_sigmoid", {"alpha": KERAS3_HARD_SIGMOID_ALPHA, "beta": 0.5}
)


#: Keras's names of activations that make sense in an LSTM, with the constants that a name without
#: constants implies (keras/src/activations/activations.py, default arguments).
_SHARED: dict[str, Activation] = {
    "linear": LINEAR,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "relu": Activation("relu"),
    "relu6": Activation("relu", {"max_value": 6.0}),
    "leaky_relu": Activation("leaky_relu", {"negative_slope": 0.2}),
    "elu": Activation("elu", {"alpha": 1.0}),
    "selu": Activation("selu"),
    "celu": Activation("celu", {"alpha": 1.0}),
    "gelu": Activation("gelu"),
    "softplus": Activation("softplus"),
    "softsign": Activation("softsign"),
    "exponential": Activation("exponential"),
    "silu": Activation("silu"),
    "swish": Activation("silu"),
    "hard_silu": Activation("hard_silu"),
    "hard_swish": Activation("hard_silu"),
    "hard_tanh": Activation("hard_tanh"),
    "hard_shrink": Activation("hard_shrink", {"threshold": 0.5}),
    "soft_shrink": Activation("soft_shrink", {"threshold": 0.5}),
    "tanh_shrink": Activation("tanh_shrink"),
    "squareplus": Activation("squareplus", {"b": 4.0}),
    "sparse_plus": Activation("sparse_plus"),
    "sparse_sigmoid": Activation("sparse_sigmoid"),
    "log_sigmoid": Activation("log_sigmoid"),
    "mish": Activation("mish"),
    "softmax": Activation("softmax"),
    "log_softmax": Activation("log_softmax"),
    "sparsemax": Activation("sparsemax"),
}

#: The meaning of a name without constants in Keras 3, and in every earlier Keras.
KERAS3: Mapping[str, Activation] = MappingProxyType(
    _SHARED | {"hard_sigmoid": HARD_SIGMOID_KERAS3}
)
KERAS2: Mapping[str, Activation] = MappingProxyType(
    _SHARED | {"hard_sigmoid": HARD_SIGMOID_KERAS2}
)

#: The name of every function that is known here, Keras's and other frameworks'.
MATHS_NAMES: frozenset[str] = frozenset(
    {activation.name for activation in KERAS3.values()}
    | {"affine", "scaled_tanh", "thresholded_relu", "threshold"}
)

#: The functions of a framework that leaves its user no choice.
ONLY_TANH, ONLY_SIGMOID = Functions((TANH,)), Functions((SIGMOID,))
#: The functions of a framework whose user passes one in code.
ANY = Functions(is_any=True)

"""Activations are maths, not names: a function with its constants.

`hard_sigmoid` is clip(0.2 x + 0.5) in Keras 1, Keras 2, tf_keras and TF.js
(tf_keras/src/backend.py, `hard_sigmoid`), and clip(x / 6 + 0.5) in Keras 3
(keras/src/backend/numpy/nn.py, `hard_sigmoid`). The neutral model therefore records
`hard_sigmoid` with `alpha` and `beta`, and the same layer means the same thing everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any

from lstmconvert.records import dataclass

#: Slope of hard_sigmoid in Keras 3, and before.
KERAS3_HARD_SIGMOID_ALPHA = 1 / 6
KERAS2_HARD_SIGMOID_ALPHA = 0.2


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of one variable (or of a row, for softmax) with its constants.

    Fields: `name`, as in the field's standard terms; `constants`, all of them, also those at their
    default; `custom`: a user's own function, which is only a name to us: kept and reported, never
    computed or guessed. Two activations are equal if they are the same function.
    """

    name: str
    constants: Mapping[str, float] = field(default_factory=dict)
    custom: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))

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


SIGMOID = Activation("sigmoid")
TANH = Activation("tanh")
LINEAR = Activation("linear")
HARD_SIGMOID_KERAS2 = Activation(
    "hard_sigmoid", {"alpha": KERAS2_HARD_SIGMOID_ALPHA, "beta": 0.5}
)
HARD_SIGMOID_KERAS3 = Activation(
    "hard_sigmoid", {"alpha": KERAS3_HARD_SIGMOID_ALPHA, "beta": 0.5}
)


#: Names that Keras gives to activations which make sense in an LSTM, with the constants that a
#: bare name implies (keras/src/activations/activations.py, default arguments).
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

#: What a bare name means to Keras 3, and to every Keras before it.
KERAS3: Mapping[str, Activation] = MappingProxyType(
    _SHARED | {"hard_sigmoid": HARD_SIGMOID_KERAS3}
)
KERAS2: Mapping[str, Activation] = MappingProxyType(
    _SHARED | {"hard_sigmoid": HARD_SIGMOID_KERAS2}
)

#: Every name of a function that is known here as maths, Keras's and other frameworks'.
MATHS_NAMES: frozenset[str] = frozenset(
    {activation.name for activation in KERAS3.values()}
    | {"affine", "scaled_tanh", "thresholded_relu", "threshold"}
)

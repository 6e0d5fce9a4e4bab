"""One call of one layer: what its class's function is given to write it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lstmconvert.errors import CorruptFile, UnknownOption, UnsupportedByTarget
from lstmconvert.files.jsontext import Json, JsonObject
from lstmconvert.keras.configs import values as configvalues
from lstmconvert.keras.modern.parts import Part
from lstmconvert.model.activations import Activation
from lstmconvert.onnx.messages import NUMBERS
from lstmconvert.onnx.whole import kept
from lstmconvert.onnx.whole.writer import (
    GraphWriter,
    Order,
    Shape,
    Value,
)
from lstmconvert.tensors.dtypes import Array, dtype_of
from lstmconvert.tensors.tensor import Tensor
from lstmconvert.tensors.views import Reshaped

TARGET = "ONNX"
HINT = "leave --whole away: the LSTM layers alone go to ONNX without it"


#: Operators that ONNX Runtime's CPU has in float32 alone (1.32, each tried at opsets 14 to 22).
_NOT_IN_FLOAT64 = frozenset(
    {
        *("AveragePool", "Celu", "Conv", "ConvTranspose", "Elu", "Erf", "Gelu", "HardSigmoid"),
        *("HardSwish", "InstanceNormalization", "Mish", "Resize", "Selu", "Softplus", "Softsign"),
    }
)


class Site:
    """A layer at one of its calls.

    Fields: `writer`; `part`; `label`: what the names of its nodes begin with; `path`: what those of
    its weights begin with; `era` of the source; `policy`: the dtype that Keras computes in here;
    `compute`: the one that the nodes compute in: float32 where Keras computes in bfloat16, of which
    ONNX Runtime has few operators; `arguments` and `keywords` of the call, with values where the
    config has tensors; `mask`: what Keras hands the layer as its mask, or None; `passing`: the mask
    that the layer may pass on.
    """

    def __init__(
        self,
        writer: GraphWriter,
        part: Part,
        label: str,
        path: str,
        *,
        era: str,
        policy: str,
        origins: Mapping[int, str],
    ) -> None:
        self.writer, self.part, self.label, self.path = writer, part, label, path
        self.era, self.policy, self.origins = era, policy, origins
        self.variables = policy
        self.compute = "float32" if policy == "bfloat16" else policy
        self.arguments: list[Any] = []
        self.keywords: dict[str, Any] = {}
        self.mask: Any = None
        self.passing: Any = None

    def below(self, part: Part, what: str) -> Site:
        """Return the site of a part inside this one."""
        site = Site(
            self.writer, part, f"{self.label}.{what}", f"{self.path}.{what}",
            era=self.era, policy=self.policy, origins=self.origins,
        )  # fmt: skip
        site.variables = self.variables
        return site

    @property
    def config(self) -> JsonObject:
        return self.part.config

    @property
    def is_modern(self) -> bool:
        """Whether Keras 3 wrote the model."""
        return self.writer.is_modern

    # ---- nodes -------------------------------------------------------------------------------

    def op(self, operator: str, inputs: Sequence[str], what: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        label = f"{self.label}.{what or operator.lower()}"
        if self.compute == "float64" and operator in _NOT_IN_FLOAT64:
            self.writer.warn(
                f"{self.label}: ONNX Runtime has no {operator} in float64 and refuses the graph; "
                "run it in another engine, or save the model in float32"
            )
        return self.writer.op(operator, inputs, label, **attributes)

    def ops(
        self, operator: str, inputs: Sequence[str], count: int, what: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs, and return their names."""
        label = f"{self.label}.{what or operator.lower()}"
        return self.writer.ops(operator, inputs, label, count, **attributes)

    def reduce(
        self, operator: str, name: str, axes: Sequence[int], what: str = "", *, keep: bool = False
    ) -> str:
        """Add a reduction over axes of the stored array."""
        label = f"{self.label}.{what or operator.lower()}"
        return self.writer.reduce(operator, name, axes, label, keep=keep)

    def number(self, value: float, dtype: str | None = None) -> str:
        """Return the name of a constant (), of the dtype that is computed in by default."""
        return self.writer.number(value, dtype or self.compute)

    def ints(self, *values: int) -> str:
        """Return the name of a constant (n,) of int64."""
        return self.writer.ints(*values)

    def constant(self, array: Array, what: str) -> str:
        """Return the name of a small constant of this layer."""
        return self.writer.graph.constant(array, f"{self.path}.{what}")

    def to(self, name: str, dtype: str) -> str:
        """Add a Cast."""
        return self.op("Cast", [name], f"{name.rpartition('.')[2]}_{dtype}", to=NUMBERS[dtype])

    def asset(self, name: str) -> str | None:
        """Return a text file that a .keras has of this layer, or None."""
        tensor = self.writer.assets.get(f"assets/{self.part.group}/{name}")
        if tensor is None:
            return None
        try:
            return tensor.read().tobytes().decode()
        except UnicodeDecodeError:
            raise CorruptFile("not a text", where=f"{self.label}: {name}") from None

    # ---- values ------------------------------------------------------------------------------

    def given(self, value: Value) -> Value:
        """Return what a layer of numbers is given: Keras casts it to the layer's dtype."""
        return self.writer.cast(value, self.compute)

    def map(
        self, value: Value, change: Callable[[str, Order], str], *, dtype: str | None = None
    ) -> Value:
        """Return what a function of single elements makes of a value, in the order that it has."""
        name, order = self.writer.native(value)
        return Value(change(name, order), dtype or value.dtype, value.shape, order)

    def made(
        self, name: str, shape: Shape, order: Order | None = None, dtype: str | None = None
    ) -> Value:
        """Return a value that a node has made."""
        return Value(name, dtype or self.compute, shape, order)

    # ---- weights -----------------------------------------------------------------------------

    def weight(
        self,
        role: str,
        axes: Sequence[int] | None = None,
        shape: Sequence[int] | None = None,
        *,
        name: str = "",
        dtype: str | None = None,
    ) -> str:
        """Return the name of one of the layer's own weights.

        Args:
            role: as its class's row calls it.
            axes: how its axes are turned, if they are.
            shape: what it is reshaped to after that, if it is.
            name: what it is called, if not by its role.
            dtype: what it is wanted in, if not in what is computed in.
        """
        return self.stored(self.needed(role), name or role, axes, shape, dtype)

    def needed(self, role: str) -> Tensor:
        """Return one of the layer's own weights.

        Raises:
            CorruptFile: it has none of that role.
        """
        tensor = self.tensor(role)
        if tensor is None:
            raise CorruptFile("a layer without a weight", where=self.label, found=role)
        return tensor

    def tensor(self, role: str) -> Tensor | None:
        """Return one of the layer's own weights, or None if it has none of that role."""
        for weight, tensor in zip(self.part.weights, self.part.arrays, strict=True):
            if weight.role == role:
                return tensor
        return None

    def stored(
        self,
        tensor: Tensor,
        name: str,
        axes: Sequence[int] | None = None,
        shape: Sequence[int] | None = None,
        dtype: str | None = None,
    ) -> str:
        """Add a weight, and return its name, or that of what casts it."""
        dtype = dtype or self.compute
        path = self.origins.get(id(tensor))
        turned, axes = tensor, None if axes is None else tuple(axes)
        if axes is not None and axes != tuple(range(len(axes))):
            turned = kept.turned(tensor, axes)
        if shape is not None:
            turned = Reshaped(turned, tuple(shape))
        full = f"{self.path}.{name}"
        origin = None if path is None else (path, axes, tensor.shape)
        if full in self.writer.graph.weights:
            pass  # a layer that is called twice
        else:
            self.writer.weight(full, turned, origin)
        stored = tensor.dtype.name
        if stored == dtype:
            return full
        return str(
            self.writer.cached(
                ("weight", full, dtype),
                lambda: self.writer.op("Cast", [full], f"{full}.{dtype}", to=NUMBERS[dtype]),
            )
        )

    # ---- options -----------------------------------------------------------------------------

    def option(self, key: str, default: Json = None) -> Json:
        """Return a keyword of the layer; Keras's default where its config has none."""
        value = self.config.get(key)
        return default if value is None else value

    def flag(self, key: str, default: bool) -> bool:
        """Return a keyword that is true or false.

        Raises:
            CorruptFile: it is neither.
        """
        return configvalues.flag(self.option(key, default), f"{self.label}.{key}")

    def real(self, key: str, default: float) -> float:
        """Return a keyword that is a number.

        Raises:
            CorruptFile: it is none.
        """
        return configvalues.number(self.option(key, default), f"{self.label}.{key}")

    def integer(self, key: str, default: int | None = None, low: int = 1) -> int:
        """Return a keyword that is an integer.

        Raises:
            CorruptFile: it is none, or below `low`.
        """
        return configvalues.integer(self.option(key, default), f"{self.label}.{key}", low)

    def word(self, key: str, default: str, *allowed: str) -> str:
        """Return a keyword that is one of a few words.

        Raises:
            UnsupportedByTarget: it is another.
        """
        value = self.option(key, default)
        if not isinstance(value, str) or value not in allowed:
            raise self.refused(key, value)
        return value

    def sizes(self, key: str, rank: int, default: Json = None, low: int = 1) -> tuple[int, ...]:
        """Return a keyword that is one integer for each axis of a window, or one for all.

        Raises:
            CorruptFile: it is neither.
        """
        value = self.option(key, default)
        where = f"{self.label}.{key}"
        if not isinstance(value, list):
            value = [value] * rank
        if len(value) != rank:
            raise CorruptFile("not a size for each axis", where=where, found=str(value)[:60])
        return tuple(configvalues.integer(size, where, low) for size in value)

    def activation(self, key: str = "activation", default: Json = "linear") -> Activation:
        """Return an activation by its meaning in the Keras that wrote the model.

        Raises:
            UnsupportedByTarget: it is a user's own.
        """
        value = self.config.get(key, default)
        function = configvalues.activation(value, self.era, f"{self.label}.{key}")
        if function.custom:
            raise self.refused(key, function)
        return function

    def refused(self, option: str, found: object = None, why: str = "") -> UnsupportedByTarget:
        """Return the error for what ONNX cannot say."""
        return UnsupportedByTarget(
            why or f"{TARGET} has no expression for this {option}",
            where=self.label,
            layer=self.label,
            option=option,
            target=TARGET,
            found=None if found is None else str(found)[:80],
            hint=HINT,
        )

    def unknown(self, option: str) -> UnknownOption:
        """Return the error for what the file does not say."""
        return UnknownOption(
            f"the file does not say {option}, and the graph depends on it",
            where=self.label,
            hint=f"say it with --set {self.label}.{option}=…",
        )

    def filled(self, shape: Sequence[int], value: float, what: str) -> str:
        """Return the name of a constant of one value."""
        return self.constant(np.full(shape, value, dtype_of(self.compute)), what)

"""Layers of a user's own classes, as public models have them, for tf_keras and for Keras 3."""

from __future__ import annotations

from typing import Any

#: What Keras 3's recurrent layers no longer take, and the configs of Keras 2's have.
_GONE = ("time_major", "implementation", "zero_output_for_mask")


def classes(keras: Any) -> dict[str, Any]:
    """Return the classes by name, as one of the two libraries has them."""
    import tensorflow as tf

    is_new = hasattr(keras, "ops")
    ops: Any = keras.ops if is_new else tf
    total = ops.sum if is_new else tf.reduce_sum
    largest = ops.max if is_new else tf.reduce_max
    softmax = ops.softmax if is_new else tf.nn.softmax

    class AttentionWithContext(keras.layers.Layer):  # type: ignore[misc]
        """That of cbaziotis: three weights of its own."""

        def build(self, shape: Any) -> None:
            width, make = shape[-1], self.add_weight
            self.W = make(name=f"{self.name}_W", shape=(width, width), initializer="ones")
            self.b = make(name=f"{self.name}_b", shape=(width,), initializer="ones")
            self.u = make(name=f"{self.name}_u", shape=(width,), initializer="ones")
            super().build(shape)

        def call(self, x: Any) -> Any:
            seen = ops.tanh(ops.tensordot(x, self.W, 1) + self.b)
            weights = softmax(ops.tensordot(seen, self.u, 1), axis=1)
            return total(x * ops.expand_dims(weights, -1), 1)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape[0], shape[-1]

    class BahdanauAttention(keras.layers.Layer):  # type: ignore[misc]
        """That of TensorFlow's tutorials: three layers inside, called with a query by name."""

        def __init__(self, units: int, **keywords: Any) -> None:
            super().__init__(**keywords)
            self.units = units
            self.W1 = keras.layers.Dense(units)
            self.W2 = keras.layers.Dense(units)
            self.V = keras.layers.Dense(1)

        def get_config(self) -> Any:
            return {**super().get_config(), "units": self.units}

        def build(self, shape: Any) -> None:
            if is_new:
                self.W1.build(shape)
                self.W2.build((shape[0], shape[-1]))
                self.V.build((*shape[:-1], self.units))
            super().build(shape)

        def call(self, values: Any, query: Any = None) -> Any:
            score = self.V(ops.tanh(self.W1(values) + self.W2(ops.expand_dims(query, 1))))
            return total(softmax(score, axis=1) * values, 1)

        def compute_output_shape(self, shape: Any, *_: Any, **__: Any) -> Any:
            return shape[0], shape[-1]

    class CRF(keras.layers.Layer):  # type: ignore[misc]
        """That of keras-contrib, as far as the forward sums of its best tags."""

        def __init__(self, units: int, **keywords: Any) -> None:
            super().__init__(**keywords)
            self.units = units

        def get_config(self) -> Any:
            return {**super().get_config(), "units": self.units}

        def build(self, shape: Any) -> None:
            units, make = self.units, self.add_weight
            self.kernel = make(name="kernel", shape=(shape[-1], units), initializer="ones")
            self.chain = make(name="chain_kernel", shape=(units, units), initializer="ones")
            self.bias = make(name="bias", shape=(units,), initializer="ones")
            self.left = make(name="left_boundary", shape=(units,), initializer="ones")
            self.right = make(name="right_boundary", shape=(units,), initializer="ones")
            super().build(shape)

        def call(self, x: Any) -> Any:
            energy = ops.tensordot(x, self.kernel, 1) + self.bias
            best = energy[:, 0] + self.left
            for step in range(1, x.shape[1]):
                moves = ops.expand_dims(best, -1) + self.chain
                best = largest(moves, 1) + energy[:, step]
            return best + self.right

        def compute_output_shape(self, shape: Any) -> Any:
            return shape[0], self.units

    class ScaledLSTM(keras.layers.LSTM):  # type: ignore[misc]
        """An LSTM whose outputs are multiplied."""

        def __init__(self, units: int, scale: float = 1.0, **keywords: Any) -> None:
            for name in _GONE if is_new else ():
                keywords.pop(name, None)
            super().__init__(units, **keywords)
            self.scale = scale

        def get_config(self) -> Any:
            return {**super().get_config(), "scale": self.scale}

        def call(
            self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False
        ) -> Any:
            given = {"initial_state": initial_state, "mask": mask, "training": training}
            return super().call(sequences, **given) * self.scale

    class MinimalCell(keras.layers.Layer):  # type: ignore[misc]
        """The cell of Keras's own page on RNN."""

        def __init__(self, units: int, **keywords: Any) -> None:
            super().__init__(**keywords)
            self.units = self.state_size = self.output_size = units

        def get_config(self) -> Any:
            return {**super().get_config(), "units": self.units}

        def build(self, shape: Any) -> None:
            make, units = self.add_weight, self.units
            self.kernel = make(name="kernel", shape=(shape[-1], units), initializer="ones")
            self.recurrent = make(name="recurrent", shape=(units, units), initializer="ones")
            super().build(shape)

        def call(self, x: Any, states: Any) -> Any:
            out = ops.tanh(ops.matmul(x, self.kernel) + ops.matmul(states[0], self.recurrent))
            return out, [out]

    made = (AttentionWithContext, BahdanauAttention, CRF, ScaledLSTM, MinimalCell)
    return {each.__name__: each for each in made}

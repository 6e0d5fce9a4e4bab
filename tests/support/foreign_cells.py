"""Cells that are not a plain LSTM, as users and TensorFlow Addons make them, for either Keras.

`cells(keras)` makes the classes for one of the two libraries: each is a layer that that library
trains, saves and computes. Nothing of them is ours but their text.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def cells(keras: Any) -> SimpleNamespace:
    """Return classes of cells, of an RNN (`QLSTM`) and of an LSTM (`Gated`), made for one Keras.

    PeepholeLSTMCell and LayerNormLSTMCell compute as TensorFlow Addons' classes of these names do,
    and name their weights alike (tensorflow_addons/rnn). QLSTM is built as qkeras' QLSTM is.
    """
    import tensorflow as tf

    base = keras.layers.LSTMCell

    def gates(cell: Any, inputs: Any, states: Any) -> Any:
        z = tf.matmul(inputs, tf.convert_to_tensor(cell.kernel))
        z += tf.matmul(states[0], tf.convert_to_tensor(cell.recurrent_kernel))
        return tf.split(z + tf.convert_to_tensor(cell.bias), 4, axis=1)

    class PeepholeLSTMCell(base):  # type: ignore[misc,valid-type]
        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            for gate in ("input", "forget", "output"):
                name = f"{gate}_gate_peephole_weights"
                initializer = keras.initializers.RandomUniform(-1, 1, seed=len(gate))
                weight = self.add_weight(
                    shape=(self.units,), name=name, initializer=initializer
                )
                setattr(self, name, weight)

        def call(self, inputs: Any, states: Any, **_: Any) -> Any:
            carry = states[1]
            i, f, c, o = gates(self, inputs, states)
            peepholes = [
                tf.convert_to_tensor(getattr(self, f"{gate}_gate_peephole_weights"))
                for gate in ("input", "forget", "output")
            ]
            i = self.recurrent_activation(i + peepholes[0] * carry)
            f = self.recurrent_activation(f + peepholes[1] * carry)
            carry = f * carry + i * self.activation(c)
            o = self.recurrent_activation(o + peepholes[2] * carry)
            hidden = o * self.activation(carry)
            return hidden, [hidden, carry]

    class LayerNormLSTMCell(base):  # type: ignore[misc,valid-type]
        def __init__(self, units: int, **more: Any) -> None:
            super().__init__(units, **more)
            for name in ("kernel_norm", "recurrent_norm", "state_norm"):
                setattr(self, name, keras.layers.LayerNormalization(epsilon=1e-3, name=name))

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            scope = tf.name_scope if "tf_keras" in keras.__name__ else keras.name_scope
            wide = {"kernel_norm": 4, "recurrent_norm": 4, "state_norm": 1}
            for name, times in wide.items():
                with scope(name):
                    getattr(self, name).build((input_shape[0], times * self.units))

        def call(self, inputs: Any, states: Any, **_: Any) -> Any:
            z = self.kernel_norm(tf.matmul(inputs, tf.convert_to_tensor(self.kernel)))
            recurrent = tf.matmul(states[0], tf.convert_to_tensor(self.recurrent_kernel))
            z += self.recurrent_norm(recurrent) + tf.convert_to_tensor(self.bias)
            i, f, c, o = tf.split(z, 4, axis=1)
            carry = self.recurrent_activation(f) * states[1]
            carry = self.state_norm(carry + self.recurrent_activation(i) * self.activation(c))
            hidden = self.recurrent_activation(o) * self.activation(carry)
            return hidden, [hidden, carry]

    class AttentionLSTMCell(base):  # type: ignore[misc,valid-type]
        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self.attention_kernel = self.add_weight(
                shape=(self.units, self.units), name="attention_kernel", initializer="ones"
            )

        def call(self, inputs: Any, states: Any, training: Any = None) -> Any:
            kernel = tf.convert_to_tensor(self.attention_kernel)
            score = tf.nn.softmax(tf.matmul(states[0], kernel))
            return super().call(inputs, [states[0] * score, states[1]], training=training)

    class ScaledLSTMCell(base):  # type: ignore[misc,valid-type]
        def call(self, inputs: Any, states: Any, training: Any = None) -> Any:
            return super().call(2.0 * inputs, states, training=training)

    class QLSTM(keras.layers.RNN):  # type: ignore[misc]
        def __init__(self, units: int, **more: Any) -> None:
            super().__init__(ScaledLSTMCell(units, name="qlstm_cell"), **more)
            self.units = units

        def get_config(self) -> dict[str, Any]:
            config = super().get_config()
            config.pop("cell", None)
            return {**config, "units": self.units}

    class Gated(keras.layers.LSTM):  # type: ignore[misc]
        def call(
            self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False
        ) -> Any:
            more = {"initial_state": initial_state, "mask": mask, "training": training}
            return super().call(2.0 * sequences, **more)

    return SimpleNamespace(
        PeepholeLSTMCell=PeepholeLSTMCell,
        LayerNormLSTMCell=LayerNormLSTMCell,
        AttentionLSTMCell=AttentionLSTMCell,
        ScaledLSTMCell=ScaledLSTMCell,
        QLSTM=QLSTM,
        Gated=Gated,
    )

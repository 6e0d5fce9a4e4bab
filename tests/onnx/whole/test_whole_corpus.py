"""Every public whole model of the corpus, in ONNX Runtime, Keras 3 and, where it is, tf_keras."""

from __future__ import annotations

import pytest
from support.corpus import CORPUS

import lstmconvert as lc

pytestmark = [pytest.mark.corpus, pytest.mark.engines, pytest.mark.slow]
#: Of Keras 2: tf_keras is a judge too.
KERAS2 = (
    *("dl4j__bidirectional_lstm_tensorflow_2.h5", "dl4j__convlstm2d_0.h5"),
    *("dl4j__convlstm2d_16.h5", "dl4j__lstm_functional_tf_keras_2.h5"),
    *("dl4j__masking_two_lstm.h5", "iteam1__lstm_model"),
    *(f"dl4j__rnn_{number}.h5" for number in (4, 12, 20, 28, 100, 116, 148, 172)),
    "dl4j__simple_flatten_lstm_tf_keras_2_model.h5",
    "dl4j__simple_lstm_tf_keras_2_model.h5",
    "umbertogriffo_Predictive-Maintenance-using-LSTM__regression_model.h5",
)
#: Of Keras 1, which tf_keras is not asked about.
OTHERS = (
    *("dl4j__bidirectional_lstm_tensorflow_1.h5", "dl4j__bidirectional_lstm_theano_1.h5"),
    *("dl4j__embedding_lstm_theano_1.h5", "dl4j__lstm_tensorflow_1.h5", "dl4j__lstm_tf_model.h5"),
    *("dl4j__simple_lstm_tf_keras_1_model.h5", "dl4j__simple_lstm_th_keras_1_model.h5"),
)


@pytest.mark.parametrize("name", [*KERAS2, *OTHERS])
def test_a_public_whole_model(name: str) -> None:
    pytest.importorskip("keras")
    pytest.importorskip("onnxruntime")
    report = lc.verify(CORPUS / name, whole=True)
    assert report, repr(report.lines)
    judges = {line.against for line in report.lines if line.is_compared}
    assert judges == ({"keras", "tf_keras"} if name in KERAS2 else {"keras"})

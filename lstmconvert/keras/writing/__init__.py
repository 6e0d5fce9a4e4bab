"""From a model to a Keras file: the LSTM layers in Keras's spelling, or the source's file edited.

Knows how Keras 3 and tf_keras spell a layer; whole models of older eras are rebuilt by `modern`.
Start with `write`.
"""

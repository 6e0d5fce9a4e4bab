"""TensorFlow's files, read without TensorFlow: checkpoints, SavedModels and what they are made of.

This package knows files, not LSTMs: keys, tensors, the graph of objects and Keras's metadata come
out as data. Nothing is executed, and no path that a file names is followed.
"""

"""TensorFlow's files, read without TensorFlow: checkpoints, SavedModels and what they are made of.

Knows no LSTM. Start with `checkpoint`.
"""

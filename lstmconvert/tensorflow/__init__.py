"""TensorFlow's own files as models: which variables are LSTM cells, and of what kind.

`formats` reads the bytes. Nothing in a file is executed. Start with `load`.
"""

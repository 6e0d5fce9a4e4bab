"""ONNX both ways: graphs that compute what Keras's layers compute, and any graph's LSTM nodes.

The onnx library is imported by the modules of this package, and they only when a path is an ONNX
file: everything else of lstmconvert runs without it.
"""

"""LSTM cells in graphs that have no LSTM operator: found by how data flows, and proved.

It knows no format: readers of ONNX, TFLite and TensorFlow graphs make a `Flow` of what they read.
"""

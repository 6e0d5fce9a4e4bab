"""Whole models as ONNX: the runnable graph of every layer, out of the tree that `keras/modern`
builds of any era's config.

    network.py       what the file will hold, and refusals; the walk over the tree: which layer is
                     called on what, with which mask
    kept.py          the map of weights that reads them back
    classes.py       the table: class -> what writes it, and what becomes of a mask
    site.py          one call of one layer, as the functions of the classes see it
    writer.py        nodes, constants, types, and turns of axes
    masks.py         masks joined, and sequences without their masked steps
    recurrent.py, cells.py                            recurrent layers
    basic.py, activations.py, attention.py, convolution.py, images.py, merging.py, normalization.py,
    preprocessing.py, shaping.py, signals.py, wrappers.py, operations.py    everything else

It knows what Keras computes, and writes it with operators of opset 14 to 22. It parses no config.
"""

"""Whole models onward to today's Keras: other eras' spelling, and from one weight store to another.

    objects.py   initializers, regularizers, constraints, activations, dtypes in Keras 3's spelling
    classes.py   the closed table of layer classes: keywords, weights, parts
    keras1.py    Keras 1's keywords and classes under today's names
    parts.py     a model's config as a tree of parts that hold weights
    operations.py  TensorFlow's functions between layers, as Keras 3's operations
    graph.py     how the layers of a functional model are called
    sources.py   the parts' arrays, out of any weight store
    kernels.py   axes in the order that Keras 3 has them
    emission.py  a part as Keras 3 serializes it
    stores.py    the parts' arrays, into either weight store
    crossing.py  all of it: a model that is rebuilt whole
"""

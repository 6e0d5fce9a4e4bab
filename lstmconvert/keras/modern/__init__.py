"""Whole models onward to today's Keras: other eras' spelling, and from one weight store to another.

    classes.py      the closed table of layer classes: keywords, weights, parts
    parts.py        a model's config as a tree of parts that hold weights
    operations.py   TensorFlow's functions between layers, as Keras 3's operations
    graph.py        how the layers of a functional model are called
    masking.py      masks, written into the calls where one Keras hands them on and another does not
    weights.py      the parts' arrays, out of any weight store and into either one of Keras 3
    emission.py     the config of a model for Keras 3: spelled anew, or kept
    neighbours.py   the layers other than LSTMs, with the names of their weights
    chains.py       models that are a chain of layers, for formats that hold no more
    compiled.py     what a model was compiled with: optimizer, losses, metrics
    custom.py       classes of the user's own: `--keep-custom`, `--weights-of`
    replacing.py    what the user puts in a layer's place: `--replace`
    expressions.py  what a Lambda computes, by `--replace`, as Keras 3's operations
    crossing.py     all of it: a model that is rebuilt whole
"""

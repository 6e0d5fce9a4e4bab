"""From a Keras file to a model: the config's layers, each with its arrays from the weight store.

Knows how configs and stores belong together, and writes nothing. Start with `load`.
"""

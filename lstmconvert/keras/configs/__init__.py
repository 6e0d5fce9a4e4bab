"""What Keras's configs say: eras, layers, options, masks. Knows no array.

Start with `nodes`, then `era`.
"""

"""Where Keras's files keep their arrays, and which of them are LSTM cells.

Start with `stored`, the forms of one cell, then `v3store` and `legacy`.
"""

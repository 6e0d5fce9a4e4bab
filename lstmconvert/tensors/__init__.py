"""Arrays that are read when they are touched, and views of them that cost nothing.

Knows no LSTM. Start with `tensor`; `streaming` moves numbers through a few megabytes of memory.
"""

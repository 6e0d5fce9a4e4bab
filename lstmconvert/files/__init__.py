"""Bytes: opening, writing, reading back, and the small formats that others are made of.

Knows no model. Start with `opening` for what is read, `writing` for what is written.
"""

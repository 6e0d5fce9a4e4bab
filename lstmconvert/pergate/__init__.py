"""The per-gate file: one tensor for each gate and part, and the metadata to come back by.

Knows no container: it takes and gives named arrays. Start with `gatesfile`.
"""

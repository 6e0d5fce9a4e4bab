"""Reports on models and files: described, counted, compared, verified.

Writes no file. Start with `compare` for `diff`, `verification` for `verify`, `inspection` for
`inspect`.
"""

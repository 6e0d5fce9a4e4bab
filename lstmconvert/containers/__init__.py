"""The kinds of files that are read and written: one row of `table` and one module each.

A module reads a file as named arrays, or opens it as a model, and writes one. What the arrays mean
is not its business: `arrays` finds that out, by layouts. Start with `table`, then `modules`, which
says what a module has to have; `ncnn` is a short example.
"""

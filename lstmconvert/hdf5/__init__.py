"""HDF5 as Keras and h5py write it, read as a tree of tensors and texts, and written.

Knows no Keras. `reading` walks over a file; `structures` are the headers, their messages, the heaps
and trees that it is made of. `write` goes through h5py.
"""

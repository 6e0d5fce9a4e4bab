"""HDF5 files, as Keras and everybody else writes them.

What Keras writes, and has ever written, is a small and plain part of HDF5: `hdf5plain` reads it, in
a tenth of the time that the HDF5 library takes to be loaded and to walk over it. What is in any way
different (compressed, damaged, of a later format) is left to the library, and to the guards around
it in `hdf5lib`.
"""

from __future__ import annotations

from lstmconvert.files import Window
from lstmconvert.keras import hdf5plain
from lstmconvert.keras.hdf5text import signatures
from lstmconvert.keras.tree import Tree
from lstmconvert.tensors import SourceFile


def is_hdf5(source: SourceFile) -> bool:
    """Whether an HDF5 signature lies at byte 0, or behind a user block (512, 1024, 2048, …)."""
    return any(True for _ in signatures(Window(source)))


def read_tree(source: SourceFile, offset: int = 0, size: int | None = None) -> Tree:
    """Walk the HDF5 file that lies at bytes `offset` to `offset + size` of an open file.

    Raises:
        CorruptFile: HDF5 cannot parse it, or it holds a link, external storage, a virtual dataset,
            a foreign filter, or a dataset without stored data.
        LimitExceeded: it is deeper, larger or denser than the limits allow.
    """
    tree = hdf5plain.read(Window(source, offset, size))
    if tree is None:
        from lstmconvert.keras import hdf5lib  # the library is large, and rarely needed

        tree = hdf5lib.read(source, offset, size)
    return tree

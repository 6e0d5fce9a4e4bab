"""What a weight store holds, whatever file it lies in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from lstmconvert.records import dataclass
from lstmconvert.tensors import Tensor

Attributes = Mapping[str, "str | list[str]"]


@dataclass(frozen=True, slots=True)
class Tree:
    """All that an HDF5 file holds: full path -> tensor, and full group path -> text attributes.

    The root group's path is empty.
    """

    tensors: Mapping[str, Tensor]
    attributes: Mapping[str, Attributes]
    groups: frozenset[str] = field(default_factory=frozenset)

"""Layers that merge several values into one, and what their masks become."""

from __future__ import annotations

import string
from collections.abc import Sequence

from lstmconvert.errors import CorruptFile
from lstmconvert.onnx.messages import Axis
from lstmconvert.onnx.whole import masks
from lstmconvert.onnx.whole.normalization import axis_of, unit_length
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import Shape, Value

_OPERATORS = {"Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Average": "Add",
              "Maximum": "Max", "Minimum": "Min"}  # fmt: skip
#: 1 / 1e-7: the largest factor of a normalized Dot (keras/src/utils/numerical_utils.py and
#: keras.config.epsilon()); of older ones, see `unit_length`.
_DOT_EPSILON, _OLD_DOT_EPSILON = 1e-7, 1e-12


def _values(site: Site) -> list[Value]:
    given = site.arguments[0]
    values = [given] if isinstance(given, Value) else list(given)
    if not values or not all(isinstance(value, Value) for value in values):
        raise CorruptFile("a layer that merges inputs other than values", where=site.label)
    return [site.given(value) for value in values]


def elementwise(site: Site) -> Value:
    """Add, Subtract, Multiply, Average, Maximum, Minimum."""
    values, kind = _values(site), site.part.class_name
    rank, masks_of_inputs = max(value.rank for value in values), [value.mask for value in values]
    values = [_raised(site, value, rank) for value in values]
    chosen = _masked(site, kind, values)
    _, order = site.writer.native(chosen[0])
    names = [site.writer.form(value, order) for value in chosen]
    name = names[0]
    for other in names[1:]:
        name = site.op(_OPERATORS[kind], [name, other])
    if kind == "Average":
        name = site.op("Div", [name, site.number(float(len(names)))], "average")
    marked = [value.mask for value in values if value.mask is not None]
    if kind == "Multiply" and site.is_modern and len(marked) == len(masks_of_inputs):
        both = masks.either(site, marked)
        column = site.op("Unsqueeze", [site.writer.form(both), site.ints(rank - 1)])
        name = site.writer.form(Value(name, site.compute, values[0].shape, order))
        name = site.op("Where", [column, name, site.number(0.0)], "masked")
        order = tuple(range(rank))
    result = site.made(name, broadcast([value.shape for value in values]), order)
    result.mask = masks.joined(site, masks_of_inputs)
    return result


def _raised(site: Site, value: Value, rank: int) -> Value:
    """Return a value with axes of length 1 after the batch: so Keras merges unlike ranks."""
    if value.rank == rank:
        return value
    count = rank - value.rank
    name = site.writer.form(value)
    name = site.op("Unsqueeze", [name, site.ints(*range(1, 1 + count))], "raised")
    # The mask is not on what Keras 3 makes of it, either.
    return Value(name, value.dtype, (value.shape[0], *[1] * count, *value.shape[1:]))


def _masked(site: Site, kind: str, values: list[Value]) -> list[Value]:
    """Put what changes nothing in the place of masked steps, as Keras 3 does (keras/src/layers/
    merging/multiply.py and base_merge.py): in a product 1, in a maximum the other's value."""
    if not site.is_modern or kind not in ("Multiply", "Maximum", "Minimum"):
        return values
    if kind != "Multiply":
        return _extreme(site, values)
    result = []
    for value in values:
        if value.mask is None:
            result.append(value)
            continue
        column = _column(site, value.mask)
        name = site.op("Where", [column, site.writer.form(value), site.number(1.0)], "without")
        result.append(Value(name, value.dtype, value.shape))
    return result


def _extreme(site: Site, values: list[Value]) -> list[Value]:
    """Keras merges the first two, then the result and the third: see `_apply_merge_op_and_or_mask`.
    """
    if all(value.mask is None for value in values):
        return values
    operator = _OPERATORS[site.part.class_name]
    first = values[0]
    for second in values[1:]:
        left, right = site.writer.form(first), site.writer.form(second)
        if second.mask is not None:
            right = site.op("Where", [_column(site, second.mask), right, left], "second")
        if first.mask is not None:
            left = site.op("Where", [_column(site, first.mask), left, right], "first")
        merged = site.made(site.op(operator, [left, right]), broadcast([first.shape, second.shape]))
        merged.mask = masks.joined(site, [first.mask, second.mask])
        first = merged
    return [first]


def _column(site: Site, mask: Value) -> str:
    """Return a mask with one more axis at its end."""
    name = site.writer.form(mask)
    return str(
        site.writer.cached(
            ("column", name),
            lambda: site.op("Unsqueeze", [name, site.ints(mask.rank)], "mask_column"),
        )
    )


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that shapes of one rank are broadcast to."""
    result: list[Axis] = []
    for sizes in zip(*shapes, strict=True):
        known = [size for size in sizes if size != 1]
        fixed = [size for size in known if isinstance(size, int)]
        result.append((fixed or known or [1])[0])
    return tuple(result)


def concatenate(site: Site) -> Value:
    """Concatenate."""
    values = _values(site)
    rank = values[0].rank
    if any(value.rank != rank for value in values):
        raise CorruptFile("values of unlike rank cannot be joined", where=site.label)
    axis = axis_of(site, site.option("axis", -1), rank)
    _, order = site.writer.native(values[0])
    names = [site.writer.form(value, order) for value in values]
    result = names[0]
    if len(names) > 1:
        result = site.op("Concat", names, axis=order.index(axis))
    shape = list(broadcast([_without(value.shape, axis) for value in values]))
    sizes = [value.shape[axis] for value in values]
    whole = [size for size in sizes if isinstance(size, int)]
    shape.insert(axis, sum(whole) if len(whole) == len(sizes) else None)
    made = site.made(result, tuple(shape), order)
    made.mask = _joined_mask(site, values, axis)
    return made


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


def _joined_mask(site: Site, values: Sequence[Value], axis: int) -> Value | None:
    """Return the mask of values joined along an axis (keras/src/layers/merging/concatenate.py,
    `compute_mask`, and tf_keras's): along the last one, a step counts if it counts in any; an
    unmasked value counts throughout."""
    known = [value.mask for value in values if value.mask is not None]
    rank = values[0].rank
    if not known:
        return None
    if any(mask.rank != rank - 1 for mask in known):
        raise site.refused("mask", why="it joins values whose masks lack some of their axes")
    if axis == rank - 1:
        if site.is_modern:
            return None if len(known) < len(values) else masks.either(site, known)
        return masks.joined(site, [value.mask for value in values])
    names = [site.writer.form(v.mask) if v.mask else _all(site, v) for v in values]
    shape = list(known[0].shape)
    shape[axis] = None
    return Value(site.op("Concat", names, "mask", axis=axis), "bool", tuple(shape))


def _all(site: Site, value: Value) -> str:
    """Return True for every step of a value: (batch, time, …) without the last axis."""
    shape = site.op("Shape", [site.writer.form(value)])
    ints = [site.ints(0), site.ints(value.rank - 1)]
    steps = site.op("Slice", [shape, *ints], "steps")
    return site.op("Expand", [site.writer.number(True, "bool"), steps], "all_steps")


def dot(site: Site) -> Value:
    """Dot: the sums of products along one axis of each, for each row of the batch."""
    values = _values(site)
    if len(values) != 2:
        raise CorruptFile("a Dot of other than two values", where=site.label)
    axes_option = site.option("axes", -1)
    pair = axes_option if isinstance(axes_option, list) else [axes_option, axes_option]
    if len(pair) != 2:
        raise CorruptFile("not the axes of a Dot", where=site.label, found=str(axes_option)[:40])
    axes = [axis_of(site, axis, value.rank) for axis, value in zip(pair, values, strict=True)]
    if 0 in axes:
        raise site.refused("axes", axes_option)
    if site.flag("normalize", False):
        epsilon = _DOT_EPSILON if site.is_modern else _OLD_DOT_EPSILON
        values = [
            unit_length(site, value, [axis], epsilon)
            for value, axis in zip(values, axes, strict=True)
        ]
    return summed(site, values[0], values[1], axes)


def summed(site: Site, first: Value, second: Value, axes: Sequence[int]) -> Value:
    """Return the sums of products along one axis of each: first without it, second without it."""
    letters = iter(string.ascii_lowercase)
    left = [next(letters) for _ in range(first.rank)]
    right = [left[0], *(next(letters) for _ in range(second.rank - 1))]
    right[axes[1]] = left[axes[0]]
    kept = [x for i, x in enumerate(left) if i != axes[0]]
    kept += [x for i, x in enumerate(right) if i not in (0, axes[1])]
    names, terms = [], []
    for value, term in ((first, left), (second, right)):
        name, order = site.writer.native(value)
        names.append(name)
        terms.append("".join(term[axis] for axis in order))
    made = site.op("Einsum", names, equation=f"{','.join(terms)}->{''.join(kept)}")
    shape: Shape = (
        *_without(first.shape, axes[0]), *_without(_without(second.shape, axes[1]), 0),
    )  # fmt: skip
    if len(kept) == 1:
        made, shape = site.op("Unsqueeze", [made, site.ints(1)]), (*shape, 1)
    return site.made(made, shape)


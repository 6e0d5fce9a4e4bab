"""Attention layers: scores of queries and keys, a softmax over them, and the sums of values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.keras.modern.parts import Part
from lstmconvert.onnx.messages import Axis
from lstmconvert.onnx.whole.normalization import axis_of
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import Shape, Value

#: The number that Keras subtracts from a masked score; of float16, its largest number
#: (keras/src/layers/attention/attention.py, `_apply_scores`).
_LARGE, _LARGE_HALF = 1e9, 65504.0


def _large(site: Site) -> float:
    return _LARGE_HALF if site.policy == "float16" else _LARGE


def _causal(site: Site, scores: str, rank: int) -> str:
    """Return which keys a query may see: those up to its own place, (queries, keys) bool."""
    column, keys = _places(site, scores, rank)
    return site.op("LessOrEqual", [keys, column], "causal")


def _near(site: Site, scores: str, window: int) -> str:
    """Return which keys are less than a number of steps from a query, (queries, keys) bool."""
    column, keys = _places(site, scores, 4)
    distance = site.op("Abs", [site.op("Sub", [keys, column], "steps")], "distance")
    return site.op("Less", [distance, site.writer.place(window)], "near")


def _places(site: Site, scores: str, rank: int) -> tuple[str, str]:
    """Return the places of the queries, as a column, and of the keys."""
    shape = site.op("Shape", [scores])
    numbers = []
    for axis, what in ((rank - 2, "queries"), (rank - 1, "keys")):
        size = site.op("Gather", [shape, site.writer.place(axis)], f"{what}_count")
        ints = [site.writer.place(0), size, site.writer.place(1)]
        numbers.append(site.op("Range", ints, what))
    return site.op("Unsqueeze", [numbers[0], site.ints(1)], "query_column"), numbers[1]


# ---- Attention, AdditiveAttention ----------------------------------------------------------------


def attention(site: Site) -> Value | list[Value]:
    """Attention and AdditiveAttention."""
    given = site.arguments[0]
    if not isinstance(given, list) or len(given) not in (2, 3):
        raise CorruptFile("an Attention on other than queries, values and keys", where=site.label)
    values = [site.given(value) for value in given]
    if any(value.rank != 3 for value in values):
        raise site.refused("inputs", f"values of {values[0].rank} axes")
    query, value = values[:2]
    key = values[2] if len(values) == 3 else value
    masks_given = site.mask if isinstance(site.mask, list) else [None, None]
    query_mask, value_mask = [*masks_given, None, None][:2]
    scores = _additive(site, query, key) if _is_additive(site) else _product(site, query, key)
    allowed = _allowed(site, scores, value_mask)
    if allowed:
        less = site.op("Sub", [scores, site.number(_large(site))], "lowered")
        scores = site.op("Where", [allowed, scores, less], "masked_scores")
    shares = site.op("Softmax", [scores], "shares", axis=-1)
    name = site.op("MatMul", [shares, site.writer.form(value)], "mixed")
    if query_mask is not None:
        column = site.op("Unsqueeze", [site.writer.form(query_mask), site.ints(2)], "query_mask")
        name = site.op("Where", [column, name, site.number(0.0)], "masked")
    result = site.made(name, (*query.shape[:-1], value.shape[-1]))
    result.mask = query_mask
    if site.keywords.get("return_attention_scores"):
        return [result, site.made(shares, (query.shape[0], query.shape[1], key.shape[1]))]
    return result


def _is_additive(site: Site) -> bool:
    return (
        site.part.class_name == "AdditiveAttention"
        or site.word("score_mode", "dot", "dot", "concat") == "concat"
    )


def _product(site: Site, query: Value, key: Value) -> str:
    scores = site.op("MatMul", [site.writer.form(query), site.writer.form(key, (0, 2, 1))])
    if site.tensor("scale") is None:
        return scores
    return site.op("Mul", [scores, site.weight("scale")], "scaled")


def _additive(site: Site, query: Value, key: Value) -> str:
    """The sums of tanh(query + key), weighted, (batch, queries, keys)."""
    queries = site.op("Unsqueeze", [site.writer.form(query), site.ints(2)], "queries")
    keys = site.op("Unsqueeze", [site.writer.form(key), site.ints(1)], "keys")
    both = site.op("Add", [queries, keys], "both")
    is_scaled = site.tensor("scale") is not None
    if site.part.class_name == "AdditiveAttention":
        bent = site.op("Tanh", [both])
        bent = site.op("Mul", [bent, site.weight("scale")], "scaled") if is_scaled else bent
        return site.reduce("ReduceSum", bent, [3], "scores")
    both = site.op("Mul", [both, site.weight("scale")], "scaled") if is_scaled else both
    scores = site.reduce("ReduceSum", site.op("Tanh", [both]), [3], "sums")
    return site.op("Mul", [scores, site.weight("concat_score_weight")], "scores")


def _allowed(site: Site, scores: str, value_mask: Value | None) -> str:
    allowed = ""
    if value_mask is not None:
        name = site.writer.form(value_mask)
        allowed = site.op("Unsqueeze", [name, site.ints(1)], "value_mask")
    if site.keywords.get("use_causal_mask") or site.flag("causal", False):
        causal = _causal(site, scores, 3)
        allowed = site.op("And", [allowed, causal], "allowed") if allowed else causal
    return allowed


# ---- MultiHeadAttention --------------------------------------------------------------------------


def multihead(site: Site) -> Value | list[Value]:
    """MultiHeadAttention."""
    given = {"query": site.arguments[0], **site.keywords}
    if not isinstance(given.get("value"), Value) or not isinstance(given["query"], Value):
        raise CorruptFile("a MultiHeadAttention without queries or values", where=site.label)
    originals = [given[name] for name in ("query", "value", "key") if given.get(name) is not None]
    known = {f"{name}_mask": _mask_of(given, name) for name in ("query", "value", "key")}
    if site.is_modern:
        # Keras 3 takes the masks off what it is given, for whatever else that is given to.
        for original in originals:
            original.mask = None
    query, value = site.given(given["query"]), site.given(given["value"])
    key = site.given(given["key"]) if given.get("key") is not None else value
    if query.rank != value.rank or query.rank < 3:
        raise site.refused("inputs", f"queries of {query.rank} axes, values of {value.rank}")
    axes = _attention_axes(site, query.rank)
    ran = _Heads(site, query, value, key, axes).run(known, given)
    ran[0].mask = known["query_mask"]
    return ran if given.get("return_attention_scores") else ran[0]


def _mask_of(given: dict[str, object], name: str) -> Value | None:
    value = given.get(name)
    stated = given.get(f"{name}_mask")
    if isinstance(stated, Value) and name != "query":  # Keras 3 takes the query's own
        return stated
    return value.mask if isinstance(value, Value) else None


def grouped(site: Site) -> Value | list[Value]:
    """GroupQueryAttention: several heads of the queries look at one of the keys."""
    given = {"query": site.arguments[0], **site.keywords}
    if not isinstance(given.get("value"), Value) or not isinstance(given["query"], Value):
        raise CorruptFile("an attention without queries or values", where=site.label)
    known: dict[str, Value | None] = {}
    for name in ("query", "value", "key"):
        stated, value = given.get(f"{name}_mask"), given.get(name)
        attached = value.mask if isinstance(value, Value) else None
        known[f"{name}_mask"] = stated if isinstance(stated, Value) else attached
    query, value = site.given(given["query"]), site.given(given["value"])
    key = site.given(given["key"]) if given.get("key") is not None else value
    if query.rank != 3 or value.rank != 3 or key.rank != 3:
        raise site.refused("inputs", f"queries of {query.rank} axes, values of {value.rank}")
    ran = _Heads(site, query, value, key, (1,)).run(known, given)
    ran[0].mask = given["query"].mask
    return ran if given.get("return_attention_scores") else ran[0]


def _attention_axes(site: Site, rank: int) -> tuple[int, ...]:
    axes = site.option("attention_axes")
    if axes is None:
        return tuple(range(1, rank - 1))
    listed = axes if isinstance(axes, list) else [axes]
    return tuple(axis_of(site, axis, rank) for axis in listed)


class _Heads:
    """One call of a MultiHeadAttention, over the axes that are attended along."""

    def __init__(
        self, site: Site, query: Value, value: Value, key: Value, axes: Sequence[int]
    ) -> None:
        self._site, self._query, self._value, self._key = site, query, value, key
        self._axes = axes
        parts = dict(site.part.children)
        self._heads = parts["query_dense"].arrays[0].shape[1]
        self._parts: dict[str, Part] = parts
        self._width = parts["query_dense"].arrays[0].shape[-1]
        #: The axes that are neither batch, attended along, nor features: each is one more batch.
        self._rest = [axis for axis in range(1, query.rank - 1) if axis not in axes]

    def run(self, masks: dict[str, Value | None], given: dict[str, object]) -> list[Value]:
        """Return the output and the scores."""
        site = self._site
        size = self._parts["query_dense"].arrays[0].shape[-1]
        scale = site.number(1.0 / math.sqrt(float(size)))
        query = site.op("Mul", [self._projected("query", self._query), scale], "scaled")
        query = self._by_head(query, self._query, "query")
        key = self._by_head(self._projected("key", self._key), self._key, "key", turned=True)
        value = self._by_head(self._projected("value", self._value), self._value, "value")
        scores = site.op("MatMul", [query, key], "scores")
        allowed = self._allowed(scores, masks, given)
        shares = self._shares(scores, allowed, given)
        mixed = site.op("MatMul", [shares, value], "mixed")
        return [self._output(mixed), self._scores_value(shares)]

    def _projected(self, name: str, value: Value) -> str:
        """Return queries, keys or values of all heads side by side, (batch, …, heads · size)."""
        part, site = self._parts[f"{name}_dense"], self._site
        below = site.below(part, name)
        kernel = part.arrays[0]
        inputs, heads, size = kernel.shape
        matrix = below.weight("kernel", None, (inputs, heads * size))
        made = site.op("MatMul", [site.writer.form(value), matrix], f"{name}_product")
        if len(part.arrays) < 2:
            return made
        bias = below.weight("bias", None, (heads * size,))
        return site.op("Add", [made, bias], f"{name}_projected")

    def _by_head(self, name: str, value: Value, what: str, *, turned: bool = False) -> str:
        """Return (batch, rest…, heads, attended, size), and with `turned` its last two exchanged;
        several axes that are attended along become one."""
        site, rank = self._site, value.rank
        count, size = self._parts[f"{what}_dense"].arrays[0].shape[1:]
        if not self._rest and rank > 3:  # all axes between are attended along: one after another
            name = site.op("Reshape", [name, site.ints(0, -1, count * size)], f"{what}_flat")
            rank = 3
        middle = [0] * (rank - 2)
        split = site.op("Reshape", [name, site.ints(0, *middle, count, size)], f"{what}_heads")
        if count != self._heads:  # several heads of the queries look at each
            each = np.repeat(np.arange(count), self._heads // count)
            places = site.constant(each, "heads_of_queries")
            split = site.op("Gather", [split, places], f"{what}_repeated", axis=rank - 1)
        heads, last = rank - 1, rank
        attended = [1] if rank == 3 else list(self._axes)
        if len(attended) > 1:
            raise site.refused("attention_axes", list(self._axes))
        order = [0, *self._rest, heads, *([last, *attended] if turned else [*attended, last])]
        return site.op("Transpose", [split], f"{what}_by_head", perm=order)

    def _output(self, mixed: str) -> Value:
        """Return (batch, …, features) of what each head has mixed."""
        site, query = self._site, self._query
        rank = 3 if not self._rest else query.rank
        part = self._parts["output_dense"]
        heads, size = part.arrays[0].shape[:2]
        outer = part.arrays[0].shape[2:]
        # (batch, rest…, heads, attended, size) back to (batch, …, heads, size)
        now = [0, *self._rest, "heads", *([1] if rank == 3 else self._axes), "size"]
        wanted = [0, *range(1, rank - 1), "heads", "size"]
        perm = [now.index(axis) for axis in wanted]
        turned = site.op("Transpose", [mixed], "heads_last", perm=perm)
        middle = [0] * (rank - 2)
        flat = site.op("Reshape", [turned, site.ints(0, *middle, heads * size)], "heads_joined")
        if "gate_dense" in self._parts:
            if rank != query.rank:
                raise site.refused("use_gate", "several axes that are attended along")
            opened = site.op("Sigmoid", [self._projected("gate", query)], "gate")
            flat = site.op("Mul", [flat, opened], "gated")
        below = site.below(part, "output")
        width = math.prod(outer)
        matrix = below.weight("kernel", None, (heads * size, width))
        made = site.op("MatMul", [flat, matrix], "output_product")
        if len(part.arrays) > 1:
            made = site.op("Add", [made, below.weight("bias", None, (width,))], "output")
        made = self._shaped(made, rank, outer)
        return site.made(made, (*query.shape[:-1], *outer))

    def _shaped(self, made: str, rank: int, outer: Sequence[int]) -> str:
        """Return the output with the query's own axes, and the features' shape."""
        site, query = self._site, self._query
        if rank == query.rank and len(outer) == 1:
            return made
        if rank == query.rank:
            return site.op("Reshape", [made, site.ints(*[0] * (rank - 1), *outer)], "shaped")
        shape = site.op("Shape", [site.writer.form(query)], "query_shape")
        ints = [site.ints(0), site.ints(query.rank - 1)]
        before = site.op("Slice", [shape, *ints], "query_axes")
        full = site.op("Concat", [before, site.ints(*outer)], "output_shape", axis=0)
        return site.op("Reshape", [made, full], "shaped")

    def _scores_value(self, shares: str) -> Value:
        site, query, value = self._site, self._query, self._value
        rest: Shape = tuple(query.shape[axis] for axis in self._rest)
        if not self._rest and query.rank > 3:  # of several axes at once
            return Value("", site.compute, (None,) * (2 * query.rank - 2))
        sizes: list[Axis] = [query.shape[axis] for axis in self._axes]
        sizes += [value.shape[axis] for axis in self._axes]
        return site.made(shares, (query.shape[0], *rest, self._heads, *sizes))

    # ---- masks -------------------------------------------------------------------------------

    def _allowed(
        self, scores: str, masks: dict[str, Value | None], given: dict[str, object]
    ) -> str:
        """Return which keys each query may see, to be broadcast over the scores; empty: all."""
        site = self._site
        names: list[str] = []
        for name, axis in (("query_mask", 2), ("value_mask", 1), ("key_mask", 1)):
            mask = masks[name]
            if mask is None:
                continue
            if self._query.rank != 3 or mask.rank != 2:
                raise site.refused(name, f"a mask of {mask.rank} axes")
            names.append(site.op("Unsqueeze", [site.writer.form(mask), site.ints(axis)], name))
        if given.get("use_causal_mask"):
            if self._query.rank != 3:
                raise site.refused("use_causal_mask", "more than one axis to attend along")
            names.append(_causal(site, scores, 4))
        window = site.option("sliding_window")
        if window is not None:
            if self._query.rank != 3 or not isinstance(window, int):
                raise site.refused("sliding_window", window)
            names.append(_near(site, scores, window))
        bare = bool(given.get("use_causal_mask")) + (window is not None)
        stated = given.get("attention_mask")
        if stated is not None:
            if not isinstance(stated, Value) or self._query.rank != 3 or stated.rank not in (3, 4):
                raise site.refused("attention_mask", stated)
            names.append(site.writer.form(site.writer.cast(stated, "bool")))
            if stated.rank == 4:
                return self._with_heads(names)
        if not names:
            return ""
        allowed = names[0]
        for other in names[1:]:
            allowed = site.op("And", [allowed, other], "allowed")
        if len(names) == bare:
            return allowed
        return site.op("Unsqueeze", [allowed, site.ints(1)], "each_head")

    def _with_heads(self, names: Sequence[str]) -> str:
        *others, allowed = names
        for other in others:
            wide = self._site.op("Unsqueeze", [other, self._site.ints(1)], "each_head")
            allowed = self._site.op("And", [allowed, wide], "allowed")
        return allowed

    def _shares(self, scores: str, allowed: str, given: dict[str, object]) -> str:
        """Return the softmax over the keys that may be seen.

        Of a query that may see none, Keras gives all keys equal shares where it takes its fused
        kernel, and none where it does not (keras/src/layers/attention/multi_head_attention.py,
        `_compute_attention`, and activations/softmax.py).
        """
        site = self._site
        if not allowed:
            return site.op("Softmax", [scores], "shares", axis=-1)
        large = site.number(-large_of_softmax(site))
        if site.is_modern or site.flag("softmax_robust_masking", False):
            lowered = site.op("Where", [allowed, scores, large], "masked_scores")
        else:
            less = site.op("Add", [scores, large], "lowered")
            lowered = site.op("Where", [allowed, scores, less], "masked_scores")
        shares = site.op("Softmax", [lowered], "shares", axis=-1)
        is_fused = (
            site.real("dropout", 0.0) == 0
            and not given.get("return_attention_scores")
            and self._query.rank == 3
        )
        if site.is_modern and not is_fused:
            shares = site.op("Where", [allowed, shares, site.number(0.0)], "shares_masked")
        return shares


def large_of_softmax(site: Site) -> float:
    """What stands for infinity (keras/src/layers/activations/softmax.py,
    `_large_negative_number`; tf_keras has float16's largest number)."""
    if site.policy != "float16":
        return _LARGE
    return 3e4 if site.is_modern else _LARGE_HALF


"""Layers that prepare what a model is given: numbers and texts as categories."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import numpy as np

from lstmconvert.errors import CorruptFile
from lstmconvert.files.jsontext import Json
from lstmconvert.onnx.messages import NUMBERS, Body, Declared
from lstmconvert.onnx.whole.cells import inside, name_inside
from lstmconvert.onnx.whole.site import Site
from lstmconvert.onnx.whole.writer import Value
from lstmconvert.tensors.dtypes import dtype_of

#: The opset whose operators take texts apart and put them together.
TEXTS_SINCE = 20


# ---- categories ----------------------------------------------------------------------------------


def _encoded(site: Site, places: Value, depth: int, dtype: str, mode: str = "") -> Value:
    """Return places as Keras encodes them (keras/src/utils/numerical_utils.py,
    `encode_categorical_inputs`).

    Args:
        site: the layer.
        places: whole numbers, (batch, …).
        depth: how many places there are.
        dtype: of the result.
        mode: `int`, `one_hot`, `multi_hot` or `count`; the layer's own if it is empty.
    """
    mode = mode or _mode(site, "multi_hot")
    if site.option("sparse"):
        raise site.refused("sparse", True)
    if mode == "int":
        return site.writer.cast(places, dtype)
    name, shape = site.writer.form(places), places.shape
    if mode == "one_hot" and places.rank > 1 and shape[-1] == 1:
        name = site.op("Squeeze", [name, site.ints(places.rank - 1)], "places")
        shape = shape[:-1]
    if mode != "one_hot" and places.rank < 2:
        raise site.refused("output_mode", f"{mode} of a batch of numbers")
    column = site.op("Unsqueeze", [name, site.ints(-1)], "column")
    all_places = site.constant(np.arange(depth, dtype=dtype_of(places.dtype)), "categories")
    is_there = Value(site.op("Equal", [column, all_places], "is_there"), "bool", (*shape, depth))
    if mode == "one_hot":
        return site.writer.cast(is_there, dtype)
    numbers = site.writer.form(site.writer.cast(is_there, "float32"))
    weights = site.keywords.get("count_weights")
    if weights is not None:
        given = site.writer.form(site.writer.cast(weights, "float32"))
        numbers = site.op("Mul", [numbers, site.op("Unsqueeze", [given, site.ints(-1)])])
    made = site.reduce("ReduceSum", numbers, [1], mode)
    if mode == "multi_hot":  # the largest of no numbers would be an infinity
        made = site.op("Min", [made, site.writer.number(1.0, "float32")], "multi_hot")
    return site.writer.cast(Value(made, "float32", (shape[0], *shape[2:], depth)), dtype)


_MODES = ("int", "one_hot", "multi_hot", "count")
_OLD_MODES: Mapping[str, str] = {"binary": "multi_hot"}


def _mode(site: Site, default: str) -> str:
    mode = site.word("output_mode", default, *_MODES, *_OLD_MODES)
    return _OLD_MODES.get(mode, mode)


def category_encoding(site: Site) -> Value:
    """CategoryEncoding: whole numbers as ones at their places."""
    value: Value = site.arguments[0]
    places = value if value.dtype in ("int32", "int64") else site.writer.cast(value, "int32")
    return _encoded(site, places, site.integer("num_tokens"), site.policy)


def discretization(site: Site) -> Value:
    """Discretization: the number of bounds that are not above a number."""
    bounds = _numbers(site, "bin_boundaries")
    value = site.writer.cast(site.arguments[0], "float32")
    column = site.op("Unsqueeze", [site.writer.form(value), site.ints(-1)], "column")
    limits = site.constant(np.asarray(bounds, np.float32), "bin_boundaries")
    reached = site.op("GreaterOrEqual", [column, limits], "reached")
    made = site.op("Cast", [reached], "reached_as_number", to=NUMBERS["int32"])
    count = site.reduce("ReduceSum", made, [value.rank], "bin")
    mode = _mode(site, "int")
    whole = "int32" if site.is_modern else "int64"
    dtype = whole if mode == "int" else site.policy
    return _encoded(site, Value(count, "int32", value.shape), len(bounds) + 1, dtype, mode)


def _numbers(site: Site, key: str) -> list[float]:
    """Return a keyword that is a list of numbers.

    Raises:
        UnsupportedByTarget: the config has none.
        CorruptFile: it is another thing.
    """
    value: Json = site.option(key)
    if value is None:
        raise site.refused(key, why=f"the config does not have the {key}")
    is_list = isinstance(value, list) and all(
        isinstance(item, (int, float)) and not isinstance(item, bool) for item in value
    )
    if not is_list or not isinstance(value, list):
        raise CorruptFile("not a list of numbers", where=f"{site.label}.{key}",
                          found=str(value)[:40])  # fmt: skip
    return [item for item in value if isinstance(item, (int, float))]


def integer_lookup(site: Site) -> Value:
    """IntegerLookup: the place of a whole number in a list; one that is not there is at the first
    places, by its rest."""
    mode = _mode(site, "int")
    mask_token, outside = site.option("mask_token"), site.integer("num_oov_indices", 1, low=0)
    if outside > 1 and site.option("oov_method", "floormod") != "floormod":
        raise site.refused("oov_method", site.option("oov_method"))
    first = int(mask_token is not None and mode == "int")
    listed = [int(number) for number in _vocabulary(site)]
    special = [mask_token] * first + [site.option("oov_token", -1)] * outside
    tokens = listed[len(special) :] if listed[: len(special)] == special else listed
    value = site.writer.cast(site.arguments[0], "int64")
    known = site.constant(np.asarray([*special, *tokens], np.int64), "vocabulary")
    if site.flag("invert", False):
        made = site.op("Gather", [known, site.writer.form(value)], "token")
        return Value(made, "int64", value.shape)
    name, depth = site.writer.form(value), len(special) + len(tokens)
    column = site.op("Unsqueeze", [name, site.ints(-1)], "column")
    keys = site.constant(np.asarray(tokens, np.int64), "tokens")
    is_token = site.op("Equal", [column, keys], "is_token")
    numbers = site.op("Cast", [is_token], "is_token_as_number", to=NUMBERS["int32"])
    at = site.op("ArgMax", [numbers], "place", axis=-1, keepdims=0)
    at = site.op("Add", [at, site.writer.place(len(special))], "place_behind_special")
    is_known = site.reduce("ReduceMax", numbers, [value.rank], "is_known")
    is_known = site.op("Cast", [is_known], "is_known_as_bool", to=NUMBERS["bool"])
    # Keras stops at a number that is not in the list if it has no place for it: an Embedding does
    # so here.
    elsewhere = site.writer.place(first if outside else depth)
    if outside > 1:
        rest = site.op("Mod", [name, site.writer.place(outside)], "rest")
        elsewhere = site.op("Add", [rest, elsewhere], "outside")
    places = site.op("Where", [is_known, at, elsewhere], "index")
    if mask_token is not None:
        is_mask = site.op("Equal", [name, site.writer.place(int(str(mask_token)))], "is_mask")
        at = site.writer.place(0 if first else _NOWHERE)
        places = site.op("Where", [is_mask, at, places], "index_or_mask")
    return _as_wanted(site, Value(places, "int64", value.shape), depth, mode)


def string_lookup(site: Site) -> Value:
    """StringLookup: the place of a text in a list, or the text at a place."""
    mode = _mode(site, "int")
    mask_token, outside = site.option("mask_token"), site.integer("num_oov_indices", 1, low=0)
    if outside > 1:
        raise site.refused("num_oov_indices", outside, "ONNX has no hash of a text")
    mask = None if mask_token is None else str(mask_token)
    unknown = str(site.option("oov_token", "[UNK]"))
    value: Value = site.arguments[0]
    if site.flag("invert", False):
        tokens = _tokens(site, mode, mask, outside, unknown)
        value = site.writer.cast(value, "int64")
        made = site.op("LabelEncoder", [site.writer.form(value)], "token",
                       keys_int64s=list(range(len(tokens))), values_strings=tokens,
                       default_string=unknown)  # fmt: skip
        return Value(made, "string", value.shape)
    if value.dtype != "string":
        raise site.refused("inputs", value.dtype)
    made, depth = _placed(site, site.writer.form(value), mode, mask, outside, unknown)
    return _as_wanted(site, Value(made, "int64", value.shape), depth, mode)


def _tokens(site: Site, mode: str, mask: str | None, outside: int, unknown: str) -> list[str]:
    """Return the texts that have places, in their order."""
    special = [mask] * (mode == "int" and mask is not None) + [unknown] * outside
    listed = _texts(site)
    known = listed[len(special) :] if listed[: len(special)] == special else listed
    return [str(token) for token in (*special, *known)]


def _placed(
    site: Site, name: str, mode: str, mask: str | None, outside: int, unknown: str
) -> tuple[str, int]:
    """Return the places of texts, and how many there are. The mask has one only among numbers."""
    tokens = _tokens(site, mode, mask, outside, unknown)
    places = {token: place for place, token in enumerate(tokens)}
    if mode != "int" and mask is not None:
        places[mask] = _NOWHERE
    # Keras stops at a text that is not in the list if it has no place for it: an Embedding does
    # so here.
    elsewhere = tokens.index(unknown) if outside else len(tokens)
    made = site.op("LabelEncoder", [name], "index", keys_strings=list(places),
                   values_int64s=list(places.values()), default_int64=elsewhere)  # fmt: skip
    return made, len(tokens)


def _as_wanted(site: Site, places: Value, depth: int, mode: str) -> Value:
    """Return places in a list as a lookup gives them."""
    if site.flag("pad_to_max_tokens", False):
        depth = site.integer("max_tokens")
    dtype = "int64" if mode == "int" or site.is_modern else site.policy
    return _encoded(site, places, depth, dtype, mode)


#: A place that no category is at.
_NOWHERE = -1


def text_vectorization(site: Site) -> Value:
    """TextVectorization: the places of a text's words in a list, a row for each text."""
    split, mode = site.config.get("split", "whitespace"), _mode(site, "int")
    if site.option("ragged"):
        raise site.refused("ragged", site.option("ragged"))
    widths = _widths(site)
    if split not in (None, "whitespace"):
        raise site.refused("split", split, "ONNX has no operator that takes a text apart into "
                           "characters")  # fmt: skip
    value: Value = site.arguments[0]
    if value.dtype != "string":
        raise site.refused("inputs", value.dtype)
    name, shape = site.writer.form(value), value.shape
    if split is not None and value.rank > 1:
        name, shape = site.op("Squeeze", [name, site.ints(-1)], "texts"), shape[:-1]
    if split is not None and len(shape) != 1:
        raise site.refused("inputs", f"texts of {value.rank} axes")
    flat = name if len(shape) == 1 else site.op("Reshape", [name, site.ints(-1)], "flat_texts")
    standard = _standardized(site, flat)
    if standard != flat and len(shape) != 1:
        sizes = site.op("Shape", [name], "sizes")
        standard = site.op("Reshape", [standard, sizes], "standard_texts")
    name = standard if standard != flat else name
    counts = ""
    if split is not None:
        name, shape = _split(site, [*string.whitespace], name, " "), (*shape, None)
        name, counts = site.ops("StringSplit", [name], 2, "words", delimiter="")
    has_ngrams = ""
    if widths:
        if len(shape) != 2:
            raise site.refused("inputs", f"texts of {value.rank} axes", "they become ngrams")
        name, has_ngrams = _ngrams(site, name, counts, widths)
        shape = (shape[0], None)
    made, depth = _placed(site, name, mode, "", 1, "[UNK]")
    if has_ngrams and mode == "int":  # those that a text has come first; TopK keeps their order
        size = site.op("Gather", [site.op("Shape", [made], "sizes"), site.ints(1)], "size", axis=0)
        order = site.ops("TopK", [site.to(has_ngrams, "int64"), size], 2, "order", axis=1)[1]
        made = site.op("GatherElements", [made, order], "in_order", axis=1)
    length = site.option("output_sequence_length")
    if mode == "int" and length is not None:
        most, before = site.integer("output_sequence_length"), [0] * (len(shape) - 1)
        pads = site.ints(*before, 0, *before, most)
        filled = site.op("Pad", [made, pads], "filled")
        ends = [site.ints(0), site.ints(most), site.ints(len(shape) - 1)]
        made, shape = site.op("Slice", [filled, *ends], "row"), (*shape[:-1], most)
    return _as_wanted(site, Value(made, "int64", shape), depth, mode)


def _widths(site: Site) -> list[int]:
    """Return how many words are taken together, each in turn: none where each stands alone."""
    stated = site.option("ngrams")
    if stated is None:
        return []
    widths = list(range(1, stated + 1)) if type(stated) is int else stated
    if not (isinstance(widths, list) and widths and all(type(w) is int and w > 0 for w in widths)):
        raise site.refused("ngrams", str(stated))
    return widths


def _ngrams(site: Site, words: str, counts: str, widths: Sequence[int]) -> tuple[str, str]:
    """Return neighbouring words (n, length) joined by spaces, those of each width behind those of
    the one before, and which of them a text has; "" where each has them all.

    Args:
        site: the layer.
        words: (n, length), empty past the end of a text.
        counts: (n,): how many words each text has; "" where all have the same number.
        widths: how many words are joined.
    """
    _check_opset(site, "StringConcat")
    space = site.op("Constant", [], "space", value_strings=[" "])
    if counts:
        counts = site.op("Unsqueeze", [counts, site.ints(1)], "counts")
    ngrams, has_them = list[str](), list[str]()
    for width in widths:
        made = ""
        for place in range(width):
            end = place + 1 - width or np.iinfo(np.int64).max
            word = site.op("Slice", [words, site.ints(place), site.ints(end), site.ints(1)], "word")
            made = site.op("StringConcat", [made, space], "spaced") if made else ""
            made = site.op("StringConcat", [made, word], "ngram") if made else word
        ngrams.append(made)
        if counts:
            size = site.op("Gather", [site.op("Shape", [made], "sizes"), site.writer.place(1)],
                           "size", axis=0)  # fmt: skip
            places = site.op("Range", [site.writer.place(0), size, site.writer.place(1)], "places")
            last = site.op("Sub", [counts, site.ints(width - 1)], "last")
            has_them.append(site.op("Less", [places, last], "has_ngram"))
    made = site.op("Concat", ngrams, "ngrams", axis=1)
    if not counts:
        return made, ""
    has_ngrams = site.op("Concat", has_them, "has_ngrams", axis=1)
    nothing = site.op("Constant", [], "nothing", value_strings=[""])
    return site.op("Where", [has_ngrams, made, nothing], "ngrams_of_each"), has_ngrams


def _standardized(site: Site, name: str) -> str:
    """Return texts (n,) in the form that the layer makes them: ASCII's letters alone are made
    small, as TensorFlow makes them, which is what the locale C has."""
    default = "lower_and_strip_punctuation"
    if "standardize" in site.config and site.config["standardize"] is None:
        return name
    how = site.word("standardize", default, default, "lower", "strip_punctuation")
    if how != "strip_punctuation":
        name = site.op("StringNormalizer", [name], "lower", case_change_action="LOWER", locale="C")
    return name if how == "lower" else _split(site, [*string.punctuation], name, "")


def _split(site: Site, marks: Sequence[str], name: str, between: str) -> str:
    """Return texts (n,) with another text in the place of each of some marks."""
    _check_opset(site, "StringSplit")
    empty = site.op("Constant", [], "empty", value_strings=[""])
    empty = site.op("Expand", [empty, site.op("Shape", [name], "count")], "empty_texts")
    joint = site.op("Constant", [], "between", value_strings=[between]) if between else ""
    for mark in marks:
        if mark == between:
            continue
        pieces, _ = site.ops("StringSplit", [name], 2, "pieces", delimiter=mark)
        with inside(site) as nodes:
            place, goes_on, state = (
                name_inside(site, what) for what in ("place", "goes_on", "state")
            )
            piece = site.op("Gather", [pieces, place], "piece", axis=1)
            joined = site.op("StringConcat", [state, piece], "joined")
            if joint:
                joined = site.op("StringConcat", [joined, joint], "joined")
            still = site.op("Identity", [goes_on], "still")
        # No Scan: ONNX Runtime 1.32 appends there to the text of two steps before.
        body = Body(f"{site.label}.join", nodes,
                    [Declared(place, "int64", []), Declared(goes_on, "bool", []),
                     Declared(state, "string", [None])],
                    [Declared(still, "bool", []), Declared(joined, "string", [None])])  # fmt: skip
        sizes = site.op("Shape", [pieces], "sizes")
        times = site.op("Gather", [sizes, site.writer.place(1)], "times", axis=0)
        name = site.op("Loop", [times, "", empty], "without_mark", body=body)
    return name


def _check_opset(site: Site, operator: str) -> None:
    if site.writer.opset < TEXTS_SINCE:
        raise site.refused("opset", site.writer.opset, f"{operator} came with opset {TEXTS_SINCE}:"
                           f" say --opset {TEXTS_SINCE}")  # fmt: skip


def _texts(site: Site) -> list[str]:
    """Return the list of the config, or that of the file that a .keras has of the layer."""
    stated = site.option("vocabulary")
    if stated is None:
        text = site.asset("vocabulary.txt")
        if text is None:
            raise site.refused("vocabulary", why="the file does not have the layer's vocabulary")
        return text.split("\n")
    if not isinstance(stated, list) or not all(isinstance(token, str) for token in stated):
        raise site.refused("vocabulary", str(stated))
    return [str(token) for token in stated]


def _vocabulary(site: Site) -> list[float]:
    """Return the list of the config, or that of the file that a .keras has of the layer."""
    if site.option("vocabulary") is not None:
        return _numbers(site, "vocabulary")
    text = site.asset("vocabulary.txt")
    if text is None:
        raise site.refused("vocabulary", why="the file does not have the layer's vocabulary")
    try:
        return [int(line) for line in text.split("\n")]
    except ValueError:
        raise CorruptFile("not a list of whole numbers", where=site.label) from None

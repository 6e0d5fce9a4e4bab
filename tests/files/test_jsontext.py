"""JSON text: what is refused, its limits, its canonical form."""

from __future__ import annotations

import pytest

from lstmconvert import limits
from lstmconvert.errors import (
    CorruptFile,
    LimitExceeded,
)
from lstmconvert.files.jsontext import canonical, parse, parse_object

BAD_JSON = {
    "NaN": "[NaN]",
    "Infinity": '{"a": -Infinity}',
    "a key twice": '{"a": 1, "b": {"c": 1, "c": 1}}',
    "too large a number": "[1e400]",
    "an integer of a thousand digits": "[" + "1" * 1000 + "]",
    "half a surrogate pair": '["\\ud800"]',
    "no JSON": "{",
    "two values": "1 2",
    "brackets": "[" * 100_000,
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_json_that_is_refused(what: str) -> None:
    with pytest.raises((CorruptFile, LimitExceeded)):
        parse(BAD_JSON[what], "here")


def test_json_that_is_no_text() -> None:
    with pytest.raises(CorruptFile):
        parse(b'"\xff"', "here")
    with pytest.raises(CorruptFile, match="not an object"):
        parse_object("[]", "here")


def test_json_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, text in (
        (limits.JSON_BYTES, '"' + "x" * 50 + '"'),
        (limits.JSON_VALUES, "[1,2,3,4,5,6,7,8,9,10,11,12]"),
        (limits.JSON_DEPTH, "[" * 12 + "]" * 12),
    ):
        parse(text, "here")
        monkeypatch.setenv(limit.variable, "10")
        with pytest.raises(LimitExceeded):
            parse(text, "here")
        monkeypatch.delenv(limit.variable)


def _layer(name: str, *, more: str = "", keys: str = "") -> str:
    inner = '{"class_name": "Zeros", "config": {"gain": 1.0, "of": [1, true, null]}}'
    return (
        f'{{"class_name": "LSTM", "config": {{"name": "{name}", "init": {inner}{more}}}, '
        f'"name":"{name}"{keys}}}'
    )


#: Items of a list behind two alike: others of their kind, and what is nearly one.
NEARLY = {
    "alike": _layer("c"),
    "another name inside": _layer("c").replace('"name":"c"', '"name":"d"'),
    "the name is a key": _layer("c", keys=', "c": 1'),
    "another key": _layer("c", keys=', "d": 1'),
    "the name is a value": _layer("c", more=', "units": "c"'),
    "a number for a flag": _layer("c").replace("true", "1"),
    "an escape": _layer("c\\u0041"),
    "half an escape": _layer("c\\"),
    "a control character": _layer("c\x01"),
    "half a surrogate pair": _layer("\\ud800"),
    "a key twice": _layer("c", keys=', "name": "c"'),
    "a layer inside": _layer("c", more=', "layer": {"config": {"name": "x"}}'),
    "a number": "1",
    "no comma": _layer("c") + _layer("d"),
    "a comma too many": _layer("c") + ", ",
    "deep": _layer("c", more=', "x": ' + "[" * 300 + "]" * 300),
    "punctuation": _layer(", "),
    "a name as long as no other": _layer("c" * 500),
    **BAD_JSON,
}


def _outcome(text: str, nesting: frozenset[str] | None) -> str:
    try:
        return repr(parse(text, "here", nesting))
    except (CorruptFile, LimitExceeded) as error:
        return f"{type(error).__name__}: {error}"


def test_objects_that_share_what_is_equal_are_what_they_are_otherwise() -> None:
    nesting = frozenset({"layer"})
    start = ", ".join(map(_layer, ["a", "b", *map(str, range(600))]))
    for what, item in NEARLY.items():
        again = item.replace('"c"', '"e"')
        items = f"{start} ,{item}, {again}"
        text = f'{{"config": {{"layers": [ {items}\n] }}, "x": [[1], 2], "y": {{}}}}'
        assert len(text) > 1 << 16, "a short text is parsed at once"
        assert _outcome(text, nesting) == _outcome(text, None), what
    first, second, *_ = parse(text := f"[{start}]", "here", nesting)
    assert first["config"]["init"] is second["config"]["init"]
    assert first is not second
    assert first["config"] is not second["config"]
    nested = ", ".join([_layer("c", more=', "layer": {"config": {"name": "x"}}')] * 600)
    first, second, *_ = parse(f"[{nested}]", "here", nesting)
    assert first["config"]["layer"] is not second["config"]["layer"]


def test_canonical_json() -> None:
    value = {"b": [1, None, True], "a": {"ü": 0.1}}
    text = canonical(value)
    assert text == '{"a":{"ü":0.1},"b":[1,null,true]}'
    assert parse(text, "here") == value
    with pytest.raises(ValueError, match="Out of range"):
        canonical(float("nan"))

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


def test_canonical_json() -> None:
    value = {"b": [1, None, True], "a": {"ü": 0.1}}
    text = canonical(value)
    assert text == '{"a":{"ü":0.1},"b":[1,null,true]}'
    assert parse(text, "here") == value
    with pytest.raises(ValueError, match="Out of range"):
        canonical(float("nan"))

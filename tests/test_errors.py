"""The errors: pickled, drawn, and in one line."""

from __future__ import annotations

import pickle

from support.thinned import each

from lstmconvert import errors
from lstmconvert.errors import (
    CorruptFile,
    LSTMConvertError,
    UnknownLayer,
    UnsupportedByTarget,
)


def error_classes() -> list[type[LSTMConvertError]]:
    def below(kind: type[LSTMConvertError]) -> list[type[LSTMConvertError]]:
        return [kind, *(c for sub in kind.__subclasses__() for c in below(sub))]

    return [kind for kind in below(LSTMConvertError) if kind.__module__ == errors.__name__]


@each("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_errors_survive_pickling(kind: type[LSTMConvertError]) -> None:
    extra = {"layer": "lstm", "option": "clip", "target": "Keras 3"}
    more = extra if kind is UnsupportedByTarget else {}
    error = kind("what went wrong", where="a/b", found=3, expected=(4,), hint="do that", **more)
    again = pickle.loads(pickle.dumps(error))  # our own bytes
    assert type(again) is kind
    assert str(again) == str(error) == "a/b: what went wrong; found 3; expected (4,)"
    assert again.__dict__ == error.__dict__
    assert (again.hint, again.message, again.where) == ("do that", "what went wrong", "a/b")
    assert again.args == ("what went wrong",)
    for name, value in more.items():
        assert getattr(again, name) == value


def test_the_tree_is_drawn_where_it_is_defined() -> None:
    drawing = str(errors.__doc__)
    for kind in error_classes():
        assert kind.__name__ in drawing
        assert kind.__doc__


def test_an_error_is_one_line() -> None:
    text = str(CorruptFile("bad", where="a\nb\x1b[31m\u202e", found="\ud800"))
    assert text == "a\\nb\\x1b[31m\\u202e: bad; found \\ud800"
    assert issubclass(UnknownLayer, KeyError)
    assert "\n" not in str(UnknownLayer("no\nlayer"))

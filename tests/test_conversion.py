"""The options of `save`, `convert` and `convert_many`: seen before a call, and checked in it."""

from __future__ import annotations

import inspect
import pydoc
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from support.cli import SEED95, run
from support.neutral import make_cell, make_layer
from support.thinned import each
from support.write_guide import OPTIONS, renewed

import lstmconvert as lc
from lstmconvert.conversion import ConvertOptions, Options, Request, SaveOptions
from lstmconvert.model.model import Source

VERBS: list[Callable[..., Any]] = [lc.save, lc.convert, lc.convert_many]
SNIPPET = """
import lstmconvert as lc

lc.save(lc.load("a"), "b", layout="torch", force=True)
lc.convert("a", "b", layers=["lstm"], opset=17, config="c", warn=False)
lc.convert_many(["a"], "b", workers=2, dtype="float16")
lc.save(lc.load("a"), "b", layot="torch")
lc.save(lc.load("a"), "b", force="yes")
lc.convert("a", "b", layot="torch")
lc.convert("a", "b", force="yes")
lc.convert_many(["a"], "b", layot="torch")
lc.convert_many(["a"], "b", force="yes")
lc.load("a", layot="torch")
"""
FIRST_WRONG = 7  # the line of the snippet


def test_the_typed_dictionaries_are_made_from_the_data_classes() -> None:
    """`python tests/support/write_guide.py` makes them so."""
    text = OPTIONS.read_text(encoding="utf-8")
    assert renewed(text) == text
    assert get_type_hints(SaveOptions) == get_type_hints(Options)
    assert get_type_hints(ConvertOptions) == get_type_hints(Request)
    older = text.replace("    dry_run: bool\n", "")
    assert older != text
    assert renewed(older) == text


@pytest.mark.parametrize("kind", [Options, Request])
def test_each_option_is_explained(kind: type) -> None:
    doc = f"{Options.__doc__}{Request.__doc__}" if kind is Request else str(kind.__doc__)
    for field in fields(kind):
        assert f"\n        {field.name}: " in doc, field.name


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_help_and_completion_see_every_option(verb: Callable[..., Any]) -> None:
    kind = Options if verb is lc.save else Request
    shown = inspect.signature(verb).parameters
    for field in fields(kind):
        assert shown[field.name].default == field.default
        assert f"{field.name}: " in pydoc.render_doc(verb, renderer=pydoc.plaintext)
    assert not any(p.kind is p.VAR_KEYWORD for p in shown.values())


@pytest.mark.slow
def test_mypy_sees_every_option(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    how = ["--strict", "--follow-imports=silent", "--no-error-summary", "--config-file="]
    out, err, _ = api.run([*how, str(snippet)])
    wrong = {int(line.split(":")[1]) for line in out.splitlines() if ": error:" in line}
    last = len(SNIPPET.splitlines())
    assert wrong == set(range(FIRST_WRONG, last + 1)), out + err


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"layot": "torch"}, "no such option; found layot; expected ", "did you mean layout?"),
        ({"quite_wrong": 1}, "no such option; found quite_wrong; expected ", None),
        (
            {"force": "yes"},
            "the option force is of another type; found 'yes'; expected True or False",
            None,
        ),
        ({"force": 1}, "force is of another type; found 1; expected True or False", None),
        (
            {"opset": True},
            "opset is of another type; found True; expected a whole number or None",
            None,
        ),
        (
            {"stacks": "deep=a,b"},
            "stacks is of another type; found 'deep=a,b'; expected several texts, as a list",
            None,
        ),
        ({"layout": 7}, "layout is of another type; found 7; expected a text or None", None),
    ],
)
def test_a_wrong_option_is_refused(
    options: dict[str, Any], message: str, hint: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "lstm.safetensors"
    calls: list[Callable[[], object]] = [
        lambda: lc.save(lc.load(SEED95), path, **options),
        lambda: lc.convert(SEED95, path, **options),
        lambda: lc.convert_many([SEED95], tmp_path / "out", **options),
    ]
    for call in calls:
        with pytest.raises(lc.UsageError) as caught:
            call()
        assert message in str(caught.value)
        assert caught.value.hint == hint
    assert not any(tmp_path.iterdir())


def test_the_result_prints_what_the_command_prints(tmp_path: Path) -> None:
    source, path = "fixtures/keras-3.15.1/bfloat16.keras", tmp_path / "lstm.keras"
    result = lc.convert(source, path, warn=False)
    assert result.warnings
    assert f"{result}\n" == run("convert", source, path, "--force").err
    assert result.to_json()["warnings"] == list(result.warnings)


def test_warnings_reach_scripts_where_they_call(tmp_path: Path) -> None:
    source = "fixtures/keras-3.15.1/bfloat16.keras"
    model = lc.load(source)
    calls: list[Callable[[], lc.Result]] = [
        lambda: lc.convert(source, tmp_path / "a.keras"),
        lambda: lc.save(model, tmp_path / "b.keras"),
    ]
    for call in calls:
        with pytest.warns(lc.ConversionWarning) as caught:
            result = call()
        assert [str(each.message) for each in caught] == list(result.warnings)
        assert {each.filename for each in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lc.convert(source, tmp_path / "c.keras", warn=False)
        lc.save(model, tmp_path / "d.keras", warn=False)


# ---- what is left out ---------------------------------------------------------------------------

NEIGHBOURS = "fixtures/keras-3.15.1/neighbours.keras"
#: Name of the layer -> weights, counted by Keras.
BESIDE = {
    "batch_normalization": 12,
    "conv1d": 33,
    "dense": 6,
    "gru": 72,
    "layer_normalization": 6,
    "simple_rnn": 10,
}


@each("name, options, left_out",
    [
        ("x.safetensors", {}, {}),
        ("x.npz", {}, {}),
        ("x.keras", {}, {}),
        ("x.h5", {}, {}),
        ("x.weights.h5", {}, {}),
        ("x.safetensors", {"layout": "torch", "with_other": True}, {}),
        ("x.onnx", {"with_other": True}, {}),
        ("x.safetensors", {"layout": "torch"}, {}),
        ("x.safetensors", {"layout": "torch", "lstm_only": True}, BESIDE),
        ("x.safetensors", {"layout": "tinygrad"}, {"gru": 72, "simple_rnn": 10}),
        ("x.safetensors", {"layout": "burn"}, BESIDE),
        ("x.onnx", {}, BESIDE),
        ("x.msgpack", {}, {}),
        ("x.h", {"lstm_only": True}, BESIDE),
        ("x.safetensors", {"lstm_only": True}, BESIDE),
        ("x.keras", {"lstm_only": True}, BESIDE),
        ("x.keras", {"dtype": "float64"}, {}),
        ("x.weights.h5", {"layers": ["lstm"]}, BESIDE),
    ],
)
def test_what_is_left_out_is_said(
    name: str, options: dict[str, Any], left_out: dict[str, int], tmp_path: Path
) -> None:
    model = lc.load(NEIGHBOURS)
    result = lc.convert(NEIGHBOURS, tmp_path / name, warn=False, **options)
    back = lc.load(tmp_path / name) if not name.endswith(".h") else None
    assert dict(result.left_out) == left_out
    if back is not None and result.layout in ("gates", "keras"):  # others add zeros of their own
        gone = model.parameters["other"] - back.parameters["other"]
        assert sum(left_out.values()) == gone
    assert result.to_json()["left_out"] == [
        {"name": name, "parameters": count} for name, count in left_out.items()
    ]


def test_layers_that_were_not_chosen_are_left_out(tmp_path: Path) -> None:
    source = "fixtures/keras-3.15.1/several.keras"
    model = lc.load(source)
    first, *rest = model
    result = lc.convert(source, tmp_path / "x.safetensors", layers=[first])
    assert {each.name for each in result.left_out} >= set(rest)
    assert all(each.parameters == model[each.name].parameters for each in result.left_out[:1])


def test_layers_that_a_target_cannot_take_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    plain = make_layer(make_cell(rng, 3, 2), name="plain")
    normed = make_layer(make_cell(rng, 3, 2, gate_parts=("bias", "layer_norm")), name="normed")
    model = lc.Model(layers=(plain, normed), source=Source(container="live"), container="live")
    result = lc.save(model, tmp_path / "x.onnx", allow_lossy=True, warn=False)
    assert result.layers == tuple(lc.load(tmp_path / "x.onnx")) == ("plain",)
    assert result.left_out == (("normed", normed.parameters),)


def test_the_command_says_it_too(tmp_path: Path) -> None:
    done = run("convert", SEED95, tmp_path / "x.safetensors", "--to", "burn")
    assert "note: left out: dense (15 parameters)\n" in done.err
    shown = run("convert", SEED95, tmp_path / "x.npz", "--to", "burn", "--json").json
    assert shown["left_out"] == [{"name": "dense", "parameters": 15}]
    many = run("convert", NEIGHBOURS, tmp_path / "y.safetensors", "--lstm-only", "--dry-run")
    assert "left out: batch_normalization (12 parameters), conv1d (33 parameters)" in many.err

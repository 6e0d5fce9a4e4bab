"""The JSON Schemas that the guide ships: every report fits its schema, and has no other key.

What the schemas promise is that keys stay; new ones may come, so a reader has to pass over those
that it does not know. Here they are closed, so that a new key is written down too.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from safetensors import safe_open
from support.cli import FIXTURES, KERAS, SEED95, run

import lstmconvert as lc
from lstmconvert import guide

NAMES = [topic.removeprefix("schemas/") for topic in guide.topics() if topic.startswith("schemas/")]


def closed(schema: Any) -> Any:
    """Return a schema that allows no key but those that it names."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    # A dict of schemas has keys that are names, and may have one called `properties`.
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        result.setdefault("additionalProperties", "additionalProperties" in schema)
    return result


@functools.cache
def validator(name: str) -> Any:
    schema = json.loads(guide.text(f"schemas/{name}"))
    return jsonschema.Draft202012Validator(closed(schema))


def check(name: str, value: object) -> None:
    validator(name).validate(value)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_schema(name: str) -> None:
    schema = json.loads(guide.text(f"schemas/{name}"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"]


def test_a_key_that_no_schema_names_is_seen() -> None:
    value = run("formats", "torch", "--json").json
    check("formats", value)
    with pytest.raises(jsonschema.ValidationError, match="'more' was unexpected"):
        check("formats", {**value, "more": 1})
    del value["layouts"][0]["hint"]
    with pytest.raises(jsonschema.ValidationError, match="'hint' is a required property"):
        check("formats", value)


SOURCES = (
    *(KERAS / f"{name}.keras" for name in ("zoo", "both_gru", "rnn_stack_gru", "conv_lstm2d")),
    *(KERAS / f"{name}.keras" for name in ("bfloat16", "options", "each", "custom", "names")),
    KERAS / "seed95.weights.h5",
    FIXTURES / "keras-2.2.4" / "cudnn.h5",
    FIXTURES / "keras-1.2.2" / "sequential.h5",
    FIXTURES / "tf-1.15.5-cells" / "layer_norm",
    FIXTURES / "tf-1.15.5-cells" / "multi",
    FIXTURES / "torch-2.13.0" / "chain.json",
    FIXTURES / "rtneural-keras-3.15.1" / "lstm.json",
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_inspect_convert_and_metadata(source: Path, tmp_path: Path) -> None:
    check("inspect", run("inspect", source, "--json").json)
    check("inspect", run("inspect", source, "--json", "--stats", "--values").json)
    path = tmp_path / "a.safetensors"
    check("convert", run("convert", source, path, "--json").json)
    check("explain", run("convert", source, path, "--json", "--explain").json)
    with safe_open(path, "np") as file:
        check("metadata", json.loads(file.metadata()["lstmconvert"]))


def test_what_costs_and_what_checks(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    check("convert", run("convert", SEED95, tmp_path / "a.h", "--weights", "int8", "--json").json)
    run("convert", SEED95, path, "--check")
    with safe_open(path, "np") as file:
        value = json.loads(file.metadata()["lstmconvert"])
    assert value["check"][0]["layer"] is None
    check("metadata", value)
    done = run("verify", path, "--engine", "numpy", "--json")
    assert done.json["stored"] == 1
    check("verify", done.json)


@pytest.mark.parametrize(
    ("b", "options"),
    [
        (KERAS / "seed95.h5", []),
        (KERAS / "square.keras", []),
        (KERAS / "float16.keras", ["--rtol", "0.1"]),
        (KERAS / "both_concat.keras", ["--weights-only"]),
        (FIXTURES / "keras-2.0.8" / "seed95.h5", []),
        (KERAS / "seed95.weights.h5", []),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else " ".join(value),
)
def test_diff(b: Path, options: list[str]) -> None:
    check("diff", run("diff", SEED95, b, "--json", *options).json)


def test_verify() -> None:
    for more in ([], [SEED95], ["--rtol", "1e-30", "--atol", "0"]):
        check("verify", run("verify", SEED95, *more, "--engine", "numpy", "--json").json)


def test_formats() -> None:
    check("formats", run("formats", "--json").json)


@pytest.mark.usefixtures("here")
def test_batch(tmp_path: Path) -> None:
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no model")
    sources = [SEED95, KERAS / "gru_only.keras", KERAS / "each.keras", broken]
    for options in ([], ["--skip-without-lstm"]):
        done = run("batch", *sources, "--out-dir", tmp_path / "out", "--json", "-j", "1", *options)
        for line in done.out.splitlines():
            check("batch", json.loads(line))
    report = (tmp_path / "out" / "lstmconvert-batch.jsonl").read_text(encoding="utf-8")
    for line in report.splitlines():
        check("batch", json.loads(line))


def test_results_of_the_library_are_those_of_the_command(tmp_path: Path) -> None:
    check("convert", lc.convert(SEED95, tmp_path / "a.npz").to_json())
    check("diff", lc.diff(SEED95, tmp_path / "a.npz").to_json())

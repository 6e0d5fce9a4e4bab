"""Attacks through a model's config: SECURITY section 1, and the JSON rows of section 2."""

from __future__ import annotations

import base64
import json
import marshal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.crafted import (
    KERAS,
    Bench,
    config_attack,
    craft,
    json_attack,
    members,
    rezipped,
    with_config,
)

MIB = 1 << 20


def _code(bench: Bench) -> str:
    source = f"lambda x: open({str(bench.sentinel)!r}, 'w').write('ran')"
    return base64.b64encode(marshal.dumps(compile(source, "m", "eval"))).decode()


def _add(config: dict[str, Any], entry: dict[str, Any]) -> None:
    config["config"]["layers"].append({"inbound_nodes": [], "registered_name": None, **entry})


# --- code -----------------------------------------------------------------------------------------


@config_attack(None)
def lambda_layer(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    function = {"class_name": "__lambda__", "config": {"code": _code(bench), "closure": None}}
    inner = {"name": "evil", "function": function}
    _add(config, {"module": "keras.layers", "class_name": "Lambda", "config": inner})


@config_attack(None)
def lambda_of_keras_2(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    inner = {"name": "evil", "function": [_code(bench), None, None], "function_type": "lambda"}
    _add(config, {"class_name": "Lambda", "config": inner})


@config_attack(None)
def lambda_as_activation(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    lstm["config"]["activation"] = {
        "class_name": "__lambda__",
        "config": {"code": _code(bench)},
    }


@config_attack(None)
def function_of_any_module(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    call = {"args": [["touch", str(bench.sentinel)]], "kwargs": {}}
    _add(config, {"module": "subprocess", "class_name": "run", "config": {"name": "x"}, **call})
    _add(config, {"module": "antigravity", "class_name": "fly", "config": {"name": "y"}})


@config_attack(None)
def activation_of_any_module(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    lstm["config"]["recurrent_activation"] = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }


@config_attack(None)
def unsafe_deserialization(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    module = "keras.config"
    inner = {"name": "z"}
    _add(config, {"module": module, "class_name": "enable_unsafe_deserialization", "config": inner})


@config_attack(None)
def initializer_of_any_module(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    lstm["config"]["kernel_initializer"] = {
        "module": "builtins",
        "class_name": "eval",
        "config": {"source": f"open({str(bench.sentinel)!r}, 'w')"},
        "registered_name": None,
    }


# --- paths ----------------------------------------------------------------------------------------


@config_attack(None)
def vocabulary_is_a_file(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    bench.victim.write_text("a\nb\n")
    inner = {"name": "lookup", "vocabulary": str(bench.victim)}
    _add(config, {"module": "keras.layers", "class_name": "StringLookup", "config": inner})


@config_attack(None)
def vocabulary_is_a_url(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    inner = {"name": "lookup", "vocabulary": f"http://127.0.0.1:{bench.port}/x"}
    _add(config, {"module": "keras.layers", "class_name": "StringLookup", "config": inner})


@config_attack(None)
def saved_model_layer(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    bench.victim.write_text("model")
    inner = {"name": "tfsm", "filepath": str(bench.victim), "call_endpoint": "serve"}
    _add(config, {"module": "keras.layers", "class_name": "TFSMLayer", "config": inner})


@config_attack(None)
def torch_module(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    inner = {"name": "t", "module": {"class_name": "__bytes__", "config": "gASVAAAA"}}
    _add(config, {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": inner})


def _name_attack(label: str, name: str) -> None:
    def attack(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
        lstm["config"]["name"] = lstm["name"] = name

    def archive(bench: Bench) -> Path:
        text = members()["config.json"].decode()
        config = json.loads(text)
        entry = next(x for x in config["config"]["layers"] if x["class_name"] == "LSTM")
        attack(config, entry, bench)
        return rezipped(bench, {"config.json": json.dumps(config).encode()})

    archive.__name__ = f"layer_name_{label}"
    craft(None)(archive)  # a legacy file is keyed by the name, so this one is a `.keras` only


_name_attack("upwards", "../../x")
_name_attack("absolute", "/etc/passwd")
_name_attack("of_windows", "C:\\x")
_name_attack("null", "a\0b")
_name_attack("long", "n" * 300)
_name_attack("right_to_left", "\u202ecod.exe")
_name_attack("escape", "\x1b[2J\x1b]0;pwned\x07")
_name_attack("newline", "a\nlstmconvert: error: b")
_name_attack("other", "other/x")
_name_attack("ambiguous", "a.backward")
_name_attack("metadata", "__metadata__")
_name_attack("empty", "")


# --- values ---------------------------------------------------------------------------------------


def _units(label: str, value: object) -> None:
    def attack(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
        lstm["config"]["units"] = value

    attack.__name__ = f"units_{label}"
    config_attack("units")(attack)


_units("true", True)
_units("negative", -2)
_units("zero", 0)
_units("of_a_petabyte", 1 << 50)
_units("text", "2")
_units("list", [2])
_units("null", None)
_units("half", 2.5)
_units("wrong", 3)


def _value(label: str, key: str, value: object) -> None:
    def attack(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
        lstm["config"][key] = value

    attack.__name__ = f"{key}_{label}"
    config_attack(key)(attack)


_value("number", "activation", 3)
_value("list", "activation", ["tanh"])
_value("text", "use_bias", "false")
_value("false", "use_bias", False)
_value("text", "dropout", "0.1")
_value("huge", "dropout", 10**399)
_value("list", "kernel_initializer", [1])
_value("huge", "seed", 10**30)
_value("number", "dtype", 7)
_value("dict", "return_sequences", {})


def _shape(label: str, refused: str, change: Any) -> None:
    def attack(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
        change(config, lstm)

    attack.__name__ = f"config_{label}"
    config_attack(refused)(attack)


_shape("layers_is_a_dict", "layers are not a list", lambda c, _: c["config"].update(layers={}))
_shape("layer_is_a_number", "without a class_name", lambda c, _: c["config"]["layers"].append(1))
_shape("class_is_a_list", "without a class_name", lambda _, x: x.update(class_name=["LSTM"]))
_shape("no_lstm", "no LSTM layer", lambda _, x: x.update(class_name="GRU"))


@config_attack("")
def cells_are_a_number(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    cell = {"class_name": "StackedRNNCells", "config": {"cells": 5}}
    lstm.update(class_name="RNN", config={"name": "lstm", "cell": cell})


@config_attack("nest")
def models_in_models(config: Any, lstm: dict[str, Any], bench: Bench) -> None:
    inner: dict[str, Any] = dict(lstm)
    for _ in range(90):
        inner = {"class_name": "Sequential", "config": {"name": "s", "layers": [inner]}}
    _add(config, inner)


# --- text -----------------------------------------------------------------------------------------


def _text(label: str, refused: str, change: Any) -> None:
    def attack(text: str) -> str:
        return str(change(text))

    attack.__name__ = f"json_{label}"
    json_attack(refused)(attack)


def _with(value: str) -> Any:
    return lambda text: text.replace('"units": 2', f'"units": 2, "extra": {value}', 1)


_text("nested", "nest", lambda _: "[" * 100_000)
_text("nested_and_closed", "nest", _with("[" * 900 + "]" * 900))
_text("not_a_number", "NaN", _with("NaN"))
_text("infinity", "Infinity", _with("-Infinity"))
_text("too_large", "too large", _with("1e400"))
_text("digits", "digits", _with("9" * 5000))
_text("duplicate", "appears twice", lambda t: t.replace('"units": 2', '"units": 2, "units": 3', 1))
_text("surrogate", "surrogates", _with('"\\ud800"'))
_text("surrogate_key", "surrogates", _with('{"\\udfff": 1}'))
_text("cut", "not valid JSON", lambda t: t[:-10])
_text("list", "", lambda _: "[1, 2]")
_text("number", "", lambda _: "7")
_text("text", "", lambda _: '"model"')
_text("null", "", lambda _: "null")
_text("empty", "", lambda _: "")
_text("comment", "not valid JSON", lambda t: f"/* */{t}")
_text("two", "not valid JSON", lambda t: t + t)


def _large(
    label: str, refused: str, text: Callable[[], str], method: int = zipfile.ZIP_STORED
) -> None:
    """The text is made when it is needed: together they take hundreds of megabytes."""

    def make(bench: Bench) -> Path:
        return rezipped(bench, {"config.json": text().encode()}, method)

    make.__name__ = f"json_of_{label}"
    craft(refused)(make)


def _keys(count: int) -> str:
    return '{"' + '":0,"'.join(map(str, range(count))) + '":0}'


_PACKED = "beyond the archive is above the limit"
_DENSE = "the number of keys and lists beyond one in 16 bytes of JSON is above the limit"
_large("ten_million_lists", _PACKED, lambda: "[" + "[],[]," * (5 * MIB), zipfile.ZIP_DEFLATED)
_large("many_keys_packed", _PACKED, lambda: _keys(700_000), zipfile.ZIP_DEFLATED)
_large("many_lists_packed", _DENSE, lambda: "[" + "[]," * MIB + "0]", zipfile.ZIP_DEFLATED)
_large("sixty_megabytes", "is above the limit", lambda: '["' + "a" * (60 * MIB) + '"]', 8)
_large("nine_million_numbers", "JSON values is above the limit",
       lambda: "[" + "0," * 9_000_000 + "0]")  # fmt: skip
_large("a_million_objects", _DENSE, lambda: "[" + '{"a":0},' * 1_000_000 + "0]")
_large("two_million_keys", _DENSE, lambda: _keys(2_000_000))


@craft("appears twice")
def json_with_a_late_duplicate(bench: Bench) -> Path:
    keys = ",".join(f'"{n}":0' for n in range(60_000))
    return rezipped(bench, {"config.json": f'{{{keys},"59999":1}}'.encode()}, 8)


@craft("not UTF-8")
def json_of_sixteen_bits(bench: Bench) -> Path:
    text = members(KERAS)["config.json"].decode()
    return rezipped(bench, {"config.json": text.encode("utf-16")})


@craft("not valid JSON")
def json_with_a_byte_order_mark(bench: Bench) -> Path:
    text = members(KERAS)["config.json"].decode()
    return rezipped(bench, {"config.json": text.encode("utf-8-sig")})


@craft("")
def metadata_is_a_list(bench: Bench) -> Path:
    return rezipped(bench, {"metadata.json": b"[]"})


@craft("")
def config_of_invalid_bytes(bench: Bench) -> Path:
    return with_config(bench, b'{"class_name": "\xff\xfe"}')

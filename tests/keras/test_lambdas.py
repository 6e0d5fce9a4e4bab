"""What a Lambda says of itself: names in its code, read as data and never run."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import pytest
from support.cli import SEED95, failure

from lstmconvert.keras.configs import code

#: Python -> `lambda x: [tf.abs(y) for y in K.sum(x, axis=1)]`, as its marshal writes it.
CODES = {
    "2.7": (
        "YwEAAAACAAAABQAAAEMAAABzLwAAAGcAAHQAAGoBAHwAAGQBAGQCAIMBAURdFQB9AQB0AgBqAwB8AQCDAQBe"
        "AgBxFgBTKAMAAABOdAQAAABheGlzaQEAAAAoBAAAAHQBAAAAS3QDAAAAc3VtdAIAAAB0ZnQDAAAAYWJzKAIA"
        "AAB0AQAAAHh0AQAAAHkoAAAAACgAAAAAcwQAAABtLnB5dAgAAAA8bGFtYmRhPgEAAAB0AAAAAA=="
    ),
    "3.6": (
        "4wEAAAAAAAAAAQAAAAUAAABDAAAAcxgAAABkAWQChAB0AGoBfABkA2QEjQJEAIMBUwApBU5jAQAAAAAAAAAC"
        "AAAABAAAAFMAAABzFgAAAGcAfABdDn0BdABqAXwBgwGRAnEEUwCpACkCWgJ0ZtoDYWJzKQLaAi4w2gF5cgEA"
        "AAByAQAAAPoEbS5wefoKPGxpc3Rjb21wPgEAAABzAgAAAAYAehw8bGFtYmRhPi48bG9jYWxzPi48bGlzdGNv"
        "bXA+6QEAAAApAVoEYXhpcykC2gFL2gNzdW0pAdoBeHIBAAAAcgEAAAByBQAAANoIPGxhbWJkYT4BAAAAcwAA"
        "AAA="
    ),
    "3.8": (
        "4wEAAAAAAAAAAAAAAAEAAAAFAAAAQwAAAHMYAAAAZAFkAoQAdABqAXwAZANkBI0CRACDAVMAKQVOYwEAAAAA"
        "AAAAAAAAAAIAAAAFAAAAUwAAAHMWAAAAZwB8AF0OfQF0AKABfAGhAZECcQRTAKkAKQJaAnRm2gNhYnMpAtoC"
        "LjDaAXlyAQAAAHIBAAAA+gRtLnB52go8bGlzdGNvbXA+AQAAAHMEAAAABgACAHocPGxhbWJkYT4uPGxvY2Fs"
        "cz4uPGxpc3Rjb21wPukBAAAAKQFaBGF4aXMpAtoBS9oDc3VtKQHaAXhyAQAAAHIBAAAAcgUAAADaCDxsYW1i"
        "ZGE+AQAAAPMAAAAA"
    ),
    "3.11": (
        "4wEAAAAAAAAAAAAAAAUAAAADAAAA804AAACXAGQBhAB0AAAAAAAAAAAAAACgAQAAAAAAAAAAAAAAAAAAAAAA"
        "AAAAfABkAqwDpgIAAKsCAAAAAAAAAABEAKYAAACrAAAAAAAAAAAAUwApBE5jAQAAAAAAAAAAAAAABQAAABMA"
        "AADzQgAAAJcAZwB8AF0cfQF0AAAAAAAAAAAAAACgAQAAAAAAAAAAAAAAAAAAAAAAAAAAfAGmAQAAqwEAAAAA"
        "AAAAAJECjB1TAKkAKQLaAnRm2gNhYnMpAtoCLjDaAXlzAgAAACAg+gRtLnB5+go8bGlzdGNvbXA+ehw8bGFt"
        "YmRhPi48bG9jYWxzPi48bGlzdGNvbXA+AQAAAHMiAAAAgADQDjPQDjPQDjOYUY1yj3aKdpBhiXmMedAOM9AO"
        "M9AOM/MAAAAA6QEAAAApAdoEYXhpcykC2gFL2gNzdW0pAdoBeHMBAAAAIHIIAAAA+gg8bGFtYmRhPnIQAAAA"
        "AQAAAHMlAAAAgADQDjPQDjOlIacloiWoAbABoCXRIjLUIjLQDjPRDjPUDjOAAHIKAAAA"
    ),
    "3.13": (
        "4wEAAAAAAAAAAAAAAAYAAAADAAAA83oAAACVAFsAAAAAAAAAAABSAwAAAAAAAAAAAAAAAAAAAAAAAFUAUwFT"
        "AjkCEwBWAXMCLwBzAkgYAABuAVsEAAAAAAAAAABSBwAAAAAAAAAAAAAAAAAAAAAAAFUBNQEAAAAAAABQAk0a"
        "AAALACAAcwJuASQAcwIgAHMCbgFmACkDTukBAAAAKQHaBGF4aXMpBNoBS9oDc3Vt2gJ0ZtoDYWJzKQLaAXja"
        "AXlzAgAAACAg2gRtLnB52gg8bGFtYmRhPnILAAAAAQAAAHMtAAAAgACkIacloSWoAbABoCXRIjLTDjPRIjKY"
        "UYxyj3aJdpBhjnnRIjLSDjP50g4zcwQAAACXHjgE"
    ),
}
NAMES = {"tf", "abs", "K", "sum"}


@pytest.mark.parametrize("version", CODES)
def test_the_names_in_the_code_of_every_python(version: str) -> None:
    assert set(code.names_in(CODES[version])) == NAMES
    # Keras 1 has each byte as a character.
    text = base64.b64decode(CODES[version]).decode("raw_unicode_escape")
    assert set(code.names_in(text)) == NAMES


@pytest.mark.parametrize("version", CODES)
def test_damaged_code_is_no_error(version: str) -> None:
    data = base64.b64decode(CODES[version])
    source = random.Random(version)
    for _ in range(300):
        changed = bytearray(data)
        changed[source.randrange(len(data))] = source.randrange(256)
        cut = bytes(changed[: source.choice((len(data), source.randrange(len(data))))])
        code.names_in(base64.b64encode(cut).decode())
    deep = b"(" + (1).to_bytes(4, "little")
    for hostile in (deep * 5000, b"(\xff\xff\xff\x7f", b")\xff" * 5000, b"r\0\0\0\0", b""):
        assert code.names_in(base64.b64encode(hostile).decode()) == ()


def test_each_form_of_a_config() -> None:
    marshalled = CODES["3.8"]
    layers = [
        {"class_name": "Lambda", "config": {"name": "a", "function": [marshalled, None, None]}},
        {"class_name": "Lambda", "config": {
            "name": "b", "function": "my_function", "function_type": "function"}},
        {"class_name": "Lambda", "config": {"name": "c", "function": {
            "class_name": "__lambda__", "config": {"code": marshalled}}}},
        {"class_name": "Lambda", "config": {"name": "d", "function": {
            "class_name": "function", "config": "theirs"}}},
        {"class_name": "Lambda", "config": {"name": "e", "function": 3}},
    ]
    found = code.lambdas(json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
    assert [each.layer for each in found] == list("abcde")
    assert [set(each.names) for each in found] == [NAMES, set(), NAMES, set(), set()]
    assert "my_function" in found[1].kind
    assert "theirs" in found[3].kind
    assert "never run" in (text := found[0].text(replaceable=True))
    assert "--replace a=" in text
    assert "--replace" not in found[0].text(replaceable=False)
    assert code.lambdas("{}") == []


def test_replace_is_refused_for_models_of_keras_3(tmp_path: Path) -> None:
    for target in ("x.keras", "x.h5", "x.weights.h5"):
        error, _ = failure("convert", SEED95, tmp_path / target, "--replace", "lstm=x * 2")
        assert "--replace is for models of an older Keras" in error
    assert not list(tmp_path.iterdir())

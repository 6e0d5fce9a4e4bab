"""Whole chains of layers in the targets that hold them, run by each target's own engine."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import cpp
from support.chain_models import LARGE, NAMES, in_litert, in_ncnn, model, saved
from support.cpp import C_COMPILERS, run_in_c, run_on_avr

import lstmconvert as lc
from lstmconvert.containers import fdeep
from lstmconvert.keras.modern import chains
from lstmconvert.reference import chains as reference
from lstmconvert.tensors.dtypes import Array, same_bits

pytestmark = pytest.mark.engines  # the models are Keras's own

#: How far an engine that computes in float32 may be from Keras, which does too.
BOUND = 2e-6


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def distance(found: Array, wanted: Array) -> float:
    return float(abs(found.reshape(wanted.shape).astype(np.float64) - wanted).max())


@pytest.mark.parametrize("scale", [1.0, LARGE])
@pytest.mark.parametrize("name", NAMES)
def test_numpy_answers_as_keras_does(keras: Any, name: str, scale: float, tmp_path: Path) -> None:
    path, x, wanted = saved(keras, tmp_path, name, scale=scale)
    chain = chains.of(lc.load(path), "x", "x")
    assert chain is not None
    assert distance(reference.run(chain, x), wanted) < BOUND


@pytest.fixture(scope="module")
def rtneural(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cpp.rtneural(tmp_path_factory.mktemp("rtneural"), "float")


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, LARGE])
@pytest.mark.parametrize("name", NAMES)
def test_rtneural(keras: Any, name: str, scale: float, rtneural: Path, tmp_path: Path) -> None:
    path, x, wanted = saved(keras, tmp_path, name, scale=scale)
    lc.convert(path, tmp_path / "x.json", layout="rtneural", warn=False)
    answer = cpp.answer(rtneural, tmp_path / "x.json", x[0])
    assert not isinstance(answer, str), answer
    if wanted.ndim == 2:  # RTNeural gives every step, of which Keras gives the last
        answer = answer[-wanted.size :]
    assert distance(answer, wanted) < BOUND


@pytest.fixture(scope="module")
def frugally_deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cpp.frugally_deep(tmp_path_factory.mktemp("fdeep"))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, LARGE])
@pytest.mark.parametrize("name", [*NAMES, "layered", "functions"])
def test_frugally_deep(
    keras: Any, name: str, scale: float, frugally_deep: Path, tmp_path: Path
) -> None:
    path, x, wanted = saved(keras, tmp_path, name, scale=scale)
    lc.convert(path, tmp_path / "x.json", layout="frugally-deep", warn=False, check=True)
    answer = cpp.answer(frugally_deep, tmp_path / "x.json", x[0])
    assert not isinstance(answer, str), answer
    assert distance(answer, wanted) < BOUND


@pytest.mark.slow
def test_frugally_deep_has_these_functions(
    keras: Any, frugally_deep: Path, tmp_path: Path
) -> None:
    """Each function that is written behind a Dense, by its name or as a layer of its own."""
    k = keras.layers
    own = [k.LeakyReLU(0.3), k.ELU(0.5), k.ReLU(2.0), k.ReLU(2.0, 0.1, 0.05)]
    x = np.random.default_rng(8).normal(size=(1, 20, 2)).astype(np.float32)
    for function in [*fdeep._FUNCTIONS, *own]:
        wide = keras.initializers.RandomNormal(stddev=3.0, seed=1)
        head = k.Dense(3, function, kernel_initializer=wide, bias_initializer=wide)
        made = keras.Sequential([k.Input((None, 2)), k.LSTM(4, return_sequences=True), head])
        made.save(tmp_path / "x.keras")
        lc.convert(tmp_path / "x.keras", tmp_path / "x.json", layout="frugally-deep",
                   warn=False, force=True)  # fmt: skip
        answer = cpp.answer(frugally_deep, tmp_path / "x.json", x[0])
        assert not isinstance(answer, str), function
        wanted = np.asarray(made(x))
        assert distance(answer, wanted) < BOUND * max(1, abs(wanted).max()), function


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *((name, 1.0) for name in ("amplifier", "dropout", "activations", "last", "normalized")),
        *((name, 1.0) for name in ("convolution", "same", "both")),
        *((name, LARGE) for name in ("amplifier", "same")),
    ],
)
def test_tflite(keras: Any, name: str, scale: float, tmp_path: Path) -> None:
    path, x, wanted = saved(keras, tmp_path, name, scale=scale)
    lc.convert(path, tmp_path / "x.tflite", warn=False)
    assert distance(in_litert(tmp_path / "x.tflite", x), wanted) < BOUND
    lc.convert(tmp_path / "x.tflite", tmp_path / "home.keras", warn=False)
    assert lc.diff(path, tmp_path / "home.keras")


def test_tflite_refuses_what_it_lacks(keras: Any, tmp_path: Path) -> None:
    for name, reason in {"gru": "GRU.*no such operator", "layered": "LayerNorm"}.items():
        path, _, _ = saved(keras, tmp_path, name)
        with pytest.raises(lc.LSTMConvertError, match=reason):
            lc.convert(path, tmp_path / "x.tflite")


@pytest.mark.parametrize("seed", [1, 4])
def test_an_engine_is_as_near_the_exact_answer_as_keras(
    keras: Any, seed: int, tmp_path: Path
) -> None:
    """Behind a Conv1D, gates of large weights magnify what float32 rounds: Keras itself is up to
    1.9e-6 from the answer in float64, and two engines may be further from one another than either
    is from that. What an engine rounds depends on the processor, too."""
    path, x, wanted = saved(keras, tmp_path, "ahead", scale=20.0, seed=seed)
    chain = chains.of(lc.load(path), "x", "x")
    assert chain is not None
    exact = reference.run(chain, x.astype(np.float64))[0]
    for name in ("x.param", "x.tflite"):
        lc.convert(path, tmp_path / name, warn=False)
    lc.convert(path, tmp_path / "x.h", prefix="amp", warn=False)
    answers = {
        "ncnn": in_ncnn(tmp_path / "x.param", x, "model"),
        "litert": in_litert(tmp_path / "x.tflite", x),
        "c": run_in_c(tmp_path, x, 1, "gcc")[0],
        "c-fast": run_in_c(tmp_path, x, 1, "gcc-fast")[0],
    }
    limit = max(BOUND, 2 * distance(wanted, exact))
    for engine, answer in answers.items():
        assert distance(answer, exact) < limit, engine


# ---- C ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, LARGE])
@pytest.mark.parametrize("name", [*NAMES, "layered"])
def test_c(keras: Any, name: str, scale: float, tmp_path: Path) -> None:
    path, x, wanted = saved(keras, tmp_path, name, scale=scale)
    lc.convert(path, tmp_path / "x.h", prefix="amp", warn=False)
    for compiler in C_COMPILERS if scale == 1 else ("gcc-fast", "clang-fast"):
        ran, stepped = run_in_c(tmp_path, x, wanted.shape[-1], compiler)
        assert same_bits(ran, stepped) or "fast" in compiler
        last = ran[-1] if wanted.ndim == 2 else ran
        assert distance(last, wanted) < BOUND, compiler


@pytest.mark.parametrize(
    ("command", "flags"),
    [("arm-none-eabi-gcc", ["-mcpu=cortex-m4", "-mthumb"]), ("avr-gcc", ["-mmcu=atmega2560"])],
)
@pytest.mark.parametrize("name", NAMES)
def test_c_compiles_for_small_processors(
    keras: Any, name: str, command: str, flags: list[str], tmp_path: Path
) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"there is no {command}")
    path, _, _ = saved(keras, tmp_path, name)
    lc.convert(path, tmp_path / "x.h", prefix="amp", warn=False)
    lc.convert(path, tmp_path / "small.h", prefix="small", weights="int8", warn=False)
    (tmp_path / "x.c").write_text(
        '#include "x.h"\n#include "small.h"\n'
        "void tick(amp_state *s, small_state *t, const float *x, float *y) "
        "{ amp_step(s, x, y); small_step(t, x, y); }\n"
    )
    every = [command, *flags, "-std=c99", "-Os", "-Wall", "-Werror", "-c", "-o"]
    unused = ["-Wno-unused-function"]
    done = subprocess.run([*every, tmp_path / "x.o", *unused, tmp_path / "x.c"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "layered"])
def test_c_on_an_avr_reads_its_tables_from_flash(keras: Any, name: str, tmp_path: Path) -> None:
    path, x, wanted = saved(keras, tmp_path, name)
    lc.convert(path, tmp_path / "x.h", prefix="amp", warn=False)
    ran = run_on_avr(tmp_path, x, wanted.shape[-1])
    assert distance(ran[-1] if wanted.ndim == 2 else ran, wanted) < BOUND
    if name in ("gru", "convolution"):
        lc.convert(path, tmp_path / "x.h", prefix="amp", weights="int8", warn=False, force=True)
        chain = chains.of(lc.load(path), "x", "x")
        assert chain is not None
        small = reference.run(reference.rounded(chain, "int8"), x)
        assert distance(run_on_avr(tmp_path, x, wanted.shape[-1]), small) < BOUND


def stated(folder: Path) -> tuple[Array, Array]:
    """Return the example input of the header x.h, and the outputs that it states."""
    head = " ".join((folder / "x.h").read_text().partition("*/")[0].replace(" * ", " ").split())
    given = np.array(head.partition("steps x = ")[2].partition(" give")[0].split(","), float)
    wanted = np.array(head.partition("give y = ")[2].partition(" to within")[0].split(","), float)
    return given.reshape(1, -1, 2).astype(np.float32), wanted


def test_a_header_says_what_it_answers(keras: Any, tmp_path: Path) -> None:
    path, _, _ = saved(keras, tmp_path, "amplifier")
    lc.convert(path, tmp_path / "x.h", prefix="amp", warn=False)
    given, wanted = stated(tmp_path)
    ran, _ = run_in_c(tmp_path, given, 1, "gcc")
    assert distance(ran, wanted.reshape(ran.shape)) < BOUND


@pytest.mark.parametrize(
    ("name", "kind", "compiler"),
    [
        ("dropout", "int8", "gcc"), ("gru", "int8", "clang-fast"), ("gru", "int16", "gcc-fast"),
        ("convolution", "int8", "clang++"), ("last", "int16", "g++"),
    ],
)  # fmt: skip
def test_c_of_small_integers(
    keras: Any, name: str, kind: str, compiler: str, tmp_path: Path
) -> None:
    """It answers as NumPy does with the same rounded weights, and says how far that is off."""
    path, x, wanted = saved(keras, tmp_path, name)
    result = lc.convert(path, tmp_path / "x.h", prefix="amp", weights=kind, warn=False)
    cost = result.rounded
    assert cost is not None
    assert result.losses[-1] == cost.loss
    chain = chains.of(lc.load(path), "x", "x")
    assert chain is not None
    ran, stepped = run_in_c(tmp_path, x, wanted.shape[-1], compiler)
    assert same_bits(ran, stepped) or "fast" in compiler
    small = reference.rounded(chain, kind)
    last = ran[-1] if wanted.ndim == 2 else ran
    assert distance(last, reference.run(small, x)) < BOUND
    # What the header states is what C gives, and the error is its distance from the outputs before.
    given, told = stated(tmp_path)
    ran, _ = run_in_c(tmp_path, given, wanted.shape[-1], compiler)
    before = reference.answer(reference.every_step(chain)).y
    assert distance(ran, told.reshape(ran.shape)) < BOUND
    assert abs(distance(ran, before) - cost.output_error) < BOUND
    assert cost.output_error > (1e-4 if kind == "int8" else 1e-7)
    assert tables(tmp_path) == cost.table_bytes
    assert f"The tables take {cost.table_bytes:,} bytes" in (tmp_path / "x.h").read_text()


SIZES = {"float": 4, "int8_t": 1, "int16_t": 2}


def tables(folder: Path) -> int:
    """Return how many bytes the arrays of the header x.h take, by its declarations."""
    text = (folder / "x.h").read_text()
    table = r"^static const (\w+) \w+((?:\[\d+\])+) LSTMCONVERT_FLASH ="
    arrays = re.findall(table, text, re.MULTILINE)
    shapes = [(SIZES[kind], map(int, re.findall(r"\d+", shape))) for kind, shape in arrays]
    return sum(size * math.prod(shape) for size, shape in shapes)


def test_one_prefix_stands_before_every_name(keras: Any, tmp_path: Path) -> None:
    path, _, _ = saved(keras, tmp_path, "convolution")
    for prefix in ("one", "two"):
        lc.convert(path, tmp_path / f"{prefix}.h", prefix=prefix, warn=False)
    (tmp_path / "x.c").write_text(
        '#include "one.h"\n#include "two.h"\nint main(void) { static one_state a; '
        "static two_state b; one_reset(&a); two_reset(&b); return 0; }\n"
    )
    command = ["gcc", "-std=c99", "-c", "-o", tmp_path / "x.o", tmp_path / "x.c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- BatchNormalization in the weights of a neighbour -------------------------------------------

#: Models of `support.chain_models` -> which layer takes each BatchNormalization, as it is named.
FOLDED = {
    "folded behind": ["conv1d", "head"],
    "folded ahead": ["lstm", "conv1d", "head"],
    "folded into cells": ["bidirectional", "gru"],
}


@pytest.mark.parametrize("name", FOLDED)
def test_a_batch_normalization_is_folded_on_request(
    keras: Any, name: str, tmp_path: Path
) -> None:
    path, x, wanted = saved(keras, tmp_path, name)
    result = lc.convert(path, tmp_path / "x.param", fold_batchnorm=True, check=True, warn=False)
    folds = [text for text in result.losses if "folded" in text]
    takers = sorted(text.partition(" of ")[2].partition(",")[0] for text in folds)
    assert takers == sorted(FOLDED[name])
    assert "BatchNorm" not in (tmp_path / "x.param").read_text().partition("# lstmconvert")[0]
    home = lc.load(tmp_path / "x.param")
    assert set(folds) <= set(home.losses)
    chain = chains.of(lc.load(path), "x", "x")
    assert chain is not None
    assert distance(reference.run(chains.folded(chain, "x")[0], x), wanted) < BOUND
    # The file holds the smaller model: NumPy runs it against the check, and it comes home.
    (line,) = [line for line in lc.verify(tmp_path / "x.param", engines=["numpy"]).lines
               if line.against == "stored"]  # fmt: skip
    assert (line.layer, line.skipped, bool(line)) == ("the whole model", None, True)
    lc.convert(tmp_path / "x.param", tmp_path / "home.keras", warn=False)
    small = keras.saving.load_model(tmp_path / "home.keras")
    assert not any(isinstance(each, keras.layers.BatchNormalization) for each in small.layers)
    assert distance(np.asarray(small(x)), wanted) < BOUND
    if name != "folded into cells":
        lc.convert(path, tmp_path / "x.tflite", fold_batchnorm=True, warn=False)
        assert distance(in_litert(tmp_path / "x.tflite", x), wanted) < BOUND


def test_what_cannot_be_folded_is_refused(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    norm = k.BatchNormalization(name="norm")
    padded = k.Conv1D(2, 2, padding="causal")
    for beside in ([k.ReLU(), norm], [k.Dense(2, "tanh"), norm], [norm, k.ReLU()], [norm, padded]):
        whole = [k.Input((None, 2)), k.LSTM(2, return_sequences=True), *beside]
        keras.Sequential(whole).save(tmp_path / "x.keras")
        with pytest.raises(lc.UnsupportedByTarget, match=r"^norm: .*cannot be folded"):
            lc.convert(tmp_path / "x.keras", tmp_path / "x.aidax", fold_batchnorm=True)
        with pytest.raises(lc.UsageError, match="contradict"):
            lc.convert(
                tmp_path / "x.keras", tmp_path / "x.h", fold_batchnorm=True, lstm_only=True
            )
        assert [each.name for each in tmp_path.iterdir()] == ["x.keras"]


def test_a_target_without_batch_normalization_names_the_option(
    keras: Any, tmp_path: Path
) -> None:
    k = keras.layers
    whole = [k.Input((None, 1)), k.BatchNormalization(), k.LSTM(2, return_sequences=True)]
    keras.Sequential([*whole, k.Dense(1, use_bias=False)]).save(tmp_path / "x.keras")
    with pytest.raises(lc.UnsupportedByTarget) as caught:
        lc.convert(tmp_path / "x.keras", tmp_path / "x.nam")
    assert "--fold-batchnorm" in str(caught.value.hint)
    lc.convert(tmp_path / "x.keras", tmp_path / "x.nam", fold_batchnorm=True, warn=False)
    assert lc.load(tmp_path / "x.nam").losses


@pytest.mark.parametrize("suffix", [".nam", ".aidax"])
def test_a_bias_that_the_target_wants_does_not_come_home(
    keras: Any, suffix: str, tmp_path: Path
) -> None:
    k = keras.layers
    head = k.Dense(1, use_bias=False, name="head")
    whole = [k.Input((None, 1)), k.LSTM(2, return_sequences=True), head]
    if suffix == ".aidax":
        whole[1:1] = [k.Conv1D(2, 2, padding="causal", use_bias=False)]
        whole[2:2] = [k.BatchNormalization(scale=False)]
    keras.Sequential(whole).save(tmp_path / "x.keras")
    result = lc.convert(tmp_path / "x.keras", tmp_path / f"x{suffix}", warn=False)
    assert not result.losses
    lc.convert(tmp_path / f"x{suffix}", tmp_path / "home.keras", warn=False)
    assert lc.diff(tmp_path / "x.keras", tmp_path / "home.keras")
    if suffix == ".nam":  # an edited bias is not a filling
        text = (tmp_path / "x.nam").read_text()
        weights = json.loads(text)["weights"]
        edited = {**json.loads(text), "weights": [*weights[:-1], 0.5]}
        (tmp_path / "x.nam").write_text(json.dumps(edited))
        assert "head.bias" in lc.load(tmp_path / "x.nam").other


# ---- there and back -----------------------------------------------------------------------------

#: Suffix -> layout, of the targets that hold chains and are read back.
HOME = {".json": "rtneural", ".aidax": None, ".fdeep.json": "frugally-deep"}


@pytest.mark.parametrize("suffix", HOME)
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_model_comes_home(keras: Any, name: str, suffix: str, tmp_path: Path) -> None:
    path, x, wanted = saved(keras, tmp_path, name)
    result = lc.convert(path, tmp_path / f"x{suffix}", layout=HOME[suffix], warn=False)
    assert result.whole_model
    assert not result.left_out
    lc.convert(tmp_path / f"x{suffix}", tmp_path / "home.keras", warn=False)
    home = keras.saving.load_model(tmp_path / "home.keras")
    assert same_bits(np.asarray(home(x)), wanted)
    assert lc.diff(path, tmp_path / "home.keras")


def test_what_is_no_chain_is_refused_by_name(keras: Any, tmp_path: Path) -> None:
    k = keras.layers
    x = k.Input((None, 2))
    y = k.LSTM(2, return_sequences=True)(x)
    branched = keras.Model(x, k.Concatenate(name="both")([y, k.Dense(2, name="side")(y)]))
    embedded = keras.Sequential([k.Input((None,)), k.Embedding(5, 2, name="words"), k.LSTM(2)])
    flat = keras.Sequential([k.Input((4, 2)), k.LSTM(2), k.Reshape((2, 1), name="turned")])
    gelu = keras.Sequential([k.Input((None, 2)), k.LSTM(2), k.Dense(1, "gelu", name="head")])
    ahead = keras.Sequential(
        [k.Input((None, 2)), k.Conv1D(2, 3, padding="same", name="ahead"), k.LSTM(2)]
    )
    cases = {
        "both": branched, "words": embedded, "turned": flat, "head": gelu, "ahead": ahead,
    }  # fmt: skip
    for name, whole in cases.items():
        whole.save(tmp_path / "x.keras")
        with pytest.raises(lc.LSTMConvertError) as caught:
            lc.convert(tmp_path / "x.keras", tmp_path / "x.aidax")
        assert name in str(caught.value)
        assert "--lstm-only" in str(caught.value.hint)
        assert not (tmp_path / "x.aidax").exists()
    lc.convert(tmp_path / "x.keras", tmp_path / "x.aidax", lstm_only=True, warn=False)
    assert [x["type"] for x in json.loads((tmp_path / "x.aidax").read_text())["layers"]] == ["lstm"]


def test_the_dtype_of_every_layer_is_cast(keras: Any, tmp_path: Path) -> None:
    model(keras, "amplifier").save(tmp_path / "x.keras")
    result = lc.convert(tmp_path / "x.keras", tmp_path / "x.aidax", dtype="float16", warn=False)
    layers = json.loads((tmp_path / "x.aidax").read_text())["layers"]
    assert {layer["dtype"] for layer in layers} == {"float16"}
    assert any("head" in loss for loss in result.losses)


@pytest.mark.parametrize("name", ["x.aidax", "x.h", "x.param", "x.tflite"])
def test_layers_without_effect_are_said(keras: Any, name: str, tmp_path: Path) -> None:
    path, _, _ = saved(keras, tmp_path, "dropout")
    warnings = lc.convert(path, tmp_path / name, warn=False).warnings
    (sentence,) = [text for text in warnings if "of no effect" in text]
    assert "(Dropout)" in sentence
    assert "(Identity)" in sentence

"""`lstmconvert formats`: the table, for people and for programs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.cli import failure, run
from support.thinned import each

import lstmconvert as lc
from lstmconvert.containers import table
from lstmconvert.layouts.rows import ROWS
from lstmconvert.live.engines import ENGINES

FOUND = {item["name"]: item for item in run("formats", "--json").json["layouts"]}


def test_every_layout_is_listed() -> None:
    assert list(FOUND) == ["gates", *ROWS]
    assert run("formats", "--json").json["version"] == 1
    table = run("formats").out
    assert all(name in table for name in FOUND)


@each("name", FOUND)
def test_each_tells_of_itself(name: str) -> None:
    shown = run("formats", name).out
    item = FOUND[name]
    assert item["title"] in shown
    assert item["evidence"]
    assert item["hint"]
    assert run("formats", name, "--json").json["layouts"] == [item]


def test_containers_are_those_that_convert_writes() -> None:
    for name, item in FOUND.items():
        fit = [row.name for row in table.holders(name) if not row.is_keras]
        assert sorted(item["containers"]) == sorted(fit), name


def test_facts() -> None:
    assert FOUND["torch"]["gate_order"] == ["input", "forget", "cell", "output"]
    assert FOUND["haiku"]["forget_bias"] == 1.0
    assert FOUND["haiku"]["changes"][1] == "the forget bias is stored less 1, rounded"
    assert "go_backwards" in FOUND["torch"]["cannot"]
    assert "go_backwards" not in FOUND["flax"]["cannot"]
    assert FOUND["torch"]["cannot"][0] == "activation other than tanh"
    assert "peephole" in FOUND["onnx"]["keeps"]
    assert FOUND["rtneural"]["directions"] == 1
    assert not FOUND["dl4j"]["oracle_run"]
    assert FOUND["equinox"]["biases"] == 1


ALONE = "test_a_cell_of_flax_alone_steps_as_keras_does"
#: Each layout that says it was run -> the test in which the real framework runs its arrays, and
#: what that test must name to do so.
ORACLES = {
    "keras": ("test_layouts_keras.py", "test_keras_takes_the_arrays_and_runs_them", "keras"),
    "torch": ("test_live.py", "test_matrix", "torch"),
    "torch-cell": ("test_layouts_torch.py", "test_a_cell_steps_as_keras_does", "LSTMCell"),
    "flax": ("test_live.py", "test_matrix", "flax"),
    "nnx": ("test_live.py", "test_matrix", "nnx"),
    "nnx-optimized": ("test_layouts_jax.py", "test_flax_nnx", "OptimizedLSTMCell"),
    "flax-cell": ("test_live.py", ALONE, "LSTMCell"),
    "nnx-cell": ("test_live.py", ALONE, "LSTMCell"),
    "nnx-optimized-cell": ("test_live.py", ALONE, "OptimizedLSTMCell"),
    "haiku": ("test_live.py", "test_matrix", "haiku"),
    "equinox": ("test_live.py", "test_matrix", "equinox"),
    "mlx": ("test_live.py", "test_matrix", "mlx"),
    "tinygrad": ("test_live.py", "test_matrix", "tinygrad"),
    "tf1": ("test_live.py", "test_matrix", "tf1"),
    "onnx": ("test_layouts_others.py", "test_onnx_arrays", "onnxruntime"),
    "openvino": ("test_layouts_others.py", "test_openvino", "openvino"),
    "ncnn": ("test_ncnn.py", "test_ncnn", "ncnn"),
    "c": ("test_cheader.py", "test_the_forward_pass_answers_as_keras_does", "gcc"),
    "hls4ml": ("test_layouts_hls4ml.py", "test_hls4ml", "hls4ml"),
    "paddle": ("test_layouts_paddle.py", "test_paddle", "paddle"),
    "mxnet": ("test_layouts_old.py", "test_mxnet", "mxnet"),
    "chainer": ("test_layouts_old.py", "test_chainer", "NStepLSTM"),
    "chainer-bi": ("test_layouts_old.py", "test_chainer", "NStepBiLSTM"),
    "chainer-lstm": ("test_layouts_old.py", "test_chainer", "chainer-lstm"),
    "tfjs": ("test_tfjs.py", "test_tfjs", "tfjs"),
    "tflite": ("test_tflite.py", "test_tflite", "ai_edge_litert"),
    "frugally-deep": ("test_fdeep.py", "test_the_real_library_answers_as_keras_does", "cpp"),
    "rtneural": ("test_rtneural.py", "test_the_real_library_answers_as_the_reference_does", "cpp"),
    "nam": ("test_nam.py", "test_the_real_player_answers_as_keras_does", "cpp"),
    "lwtnn": ("test_lwtnn.py", "test_the_real_library_answers_as_keras_does", "cpp"),
}


def test_what_says_it_was_run_has_a_test_that_runs_it() -> None:
    assert set(ORACLES) == {name for name, row in ROWS.items() if row.run}


@each("name", ORACLES)
def test_that_test_is_there_and_runs_the_framework(name: str) -> None:
    file, function, word = ORACLES[name]
    (path,) = Path("tests").rglob(file)
    text = path.read_text()
    functions = {n.name: n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)}
    assert function in functions
    marks = [ast.unparse(mark) for mark in functions[function].decorator_list]
    assert not any("skip" in mark or "xfail" in mark for mark in marks)
    # The matrix goes over every engine, each of which runs the layout of its name.
    assert word in (ENGINES if function == "test_matrix" else text)


def test_the_call_prints_what_the_command_prints() -> None:
    assert f"{lc.formats()}\n" == run("formats").out
    assert f"{lc.formats('torch')}\n" == run("formats", "torch").out
    assert lc.formats().to_json() == run("formats", "--json").json
    assert lc.formats("torch").layouts[0].gate_order == ("input", "forget", "cell", "output")
    assert [file.container for file in lc.formats().files if file.default == "gates"]
    with pytest.raises(lc.UsageError, match="no such layout"):
        lc.formats("pytorch")


def test_an_unknown_layout() -> None:
    error, _ = failure("formats", "pytorch")
    assert "no such layout" in error


def test_no_code_branches_on_a_frameworks_name() -> None:
    """Adding a framework is adding a row: no other module compares with its name."""
    names = set(ROWS) - {"keras", "c", "onnx"}
    rows = {"rows.py"}
    for path in Path("lstmconvert/layouts").glob("*.py"):
        if path.name in rows:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                values = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                assert not names & {v for v in values if isinstance(v, str)}, path

"""`lstmconvert formats`: the table, for people and for programs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from cli import failure, run

from lstmconvert import targets
from lstmconvert.layouts.rows import ROWS

FOUND = {item["name"]: item for item in run("formats", "--json").json["layouts"]}


def test_every_layout_is_listed() -> None:
    assert list(FOUND) == ["gates", *ROWS]
    assert run("formats", "--json").json["version"] == 1
    table = run("formats").out
    assert all(name in table for name in FOUND)


@pytest.mark.parametrize("name", FOUND)
def test_each_tells_of_itself(name: str) -> None:
    shown = run("formats", name).out
    item = FOUND[name]
    assert item["title"] in shown
    assert item["evidence"]
    assert item["hint"]
    assert run("formats", name, "--json").json["layouts"] == [item]


def test_containers_are_those_that_convert_writes() -> None:
    for name, item in FOUND.items():
        fit = [t.container for t in targets.TARGETS if name in t.layouts and not t.is_keras]
        assert sorted(item["containers"]) == sorted(x for x in fit if x != "onnx"), name


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


def test_a_row_that_says_it_was_run_has_a_test_that_runs_it() -> None:
    text = "".join(path.read_text() for path in Path("tests").glob("test_*.py"))
    for name, row in ROWS.items():
        if row.run:
            assert f'"{name}"' in text, name


def test_an_unknown_layout() -> None:
    error, _ = failure("formats", "pytorch")
    assert "no such layout" in error


def test_no_code_branches_on_a_frameworks_name() -> None:
    """Adding a framework is adding a row: no other module compares with its name."""
    names = set(ROWS) - {"keras", "c", "onnx"}
    rows = {"rows.py", "rows_unrun.py"}
    for path in Path("lstmconvert/layouts").glob("*.py"):
        if path.name in rows:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                values = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                assert not names & {v for v in values if isinstance(v, str)}, path

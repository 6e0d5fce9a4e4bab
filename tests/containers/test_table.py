"""The table of containers: a row that is added is found in every place that lists containers."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from support import toy
from support.cli import SEED95, environment
from support.thinned import each

import lstmconvert as lc
from lstmconvert import targets
from lstmconvert.containers import table
from lstmconvert.containers.table import CONTAINERS, Container
from lstmconvert.layouts.rows import ROWS

PACKAGE = Path(lc.__file__).parent


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy is in the table."""
    monkeypatch.setattr(table, "CONTAINERS", table.CONTAINERS)
    monkeypatch.setattr(table, "FOREIGN", table.FOREIGN)
    toy.add()


def run(*args: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, in which the toy was added first."""
    code = "from support import toy; toy.add(); from lstmconvert.cli.main import main; main()"
    path = f"{Path('tests').resolve()}:{Path.cwd()}"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=path, COLUMNS="80"),
        timeout=120,
        check=False,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lc.convert(SEED95, tmp_path / "lstm.toy")
    return tmp_path / "lstm.toy"


def test_it_is_written_and_read_back_bit_for_bit(file: Path, tmp_path: Path) -> None:
    assert lc.diff(SEED95, file, weights_only=True)
    lc.convert(file, tmp_path / "back.keras")
    assert lc.diff(file, tmp_path / "back.keras")
    # By its bytes, whatever it is called.
    other = file.rename(tmp_path / "lstm.dat")
    assert list(lc.load(other)) == ["lstm"]


def test_it_is_a_target(tmp_path: Path) -> None:
    assert targets.target_of(Path("x.TOY"), None) is toy.ROW
    with pytest.raises(lc.UsageError, match=r"toy does not hold the layout flax") as caught:
        targets.target_of(Path("x.toy"), "flax")
    assert caught.value.expected == "torch"
    with pytest.raises(lc.UsageError) as caught:
        targets.target_of(Path("x.unknown"), None)
    assert ".toy" in str(caught.value.expected).split()
    # The layout's other files are named where it is asked for in a wrong one.
    with pytest.raises(lc.UsageError) as caught:
        targets.target_of(Path("x.onnx"), "torch")
    assert ".toy" in str(caught.value.hint)
    with pytest.raises(lc.UsageError, match="--fused is for ONNX destinations"):
        lc.convert(SEED95, tmp_path / "x.toy", fused=True)


def test_hints_name_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\0\1\2\3 nothing known")
    with pytest.raises(lc.SourceError, match=r"expected .*\.toy"):
        lc.load(path)
    path.write_bytes(b"YOT\n")
    with pytest.raises(lc.SourceError, match="a toy of another maker") as caught:
        lc.load(path)
    assert caught.value.hint == "buy a toy"


def test_inspect_has_a_title_for_it(file: Path) -> None:
    assert "a toy model (.toy), made from a Keras archive (.keras)" in run("inspect", file).stdout


def test_a_folder_is_searched_for_it(file: Path, tmp_path: Path) -> None:
    (outcome,) = lc.convert_many([tmp_path], tmp_path / "out")  # in this process
    assert outcome.source == str(file)
    assert outcome, outcome.error
    assert list(lc.load(tmp_path / "out" / "lstm.safetensors")) == ["lstm"]


def test_the_help_names_it() -> None:
    assert ".toy for play" in " ".join(run("convert", "--help").stdout.split())


def test_formats_lists_it() -> None:
    value = json.loads(run("formats", "--json").stdout)
    (item,) = [item for item in value["files"] if item["container"] == "toy"]
    assert item["suffixes"] == [".toy"]
    assert item["layouts"] == ["torch"]
    (torch,) = [item for item in value["layouts"] if item["name"] == "torch"]
    assert "toy" in torch["containers"]
    assert "a toy model (.toy)" in run("formats").stdout


def test_the_table_of_the_guide_lists_it() -> None:
    (line,) = [line for line in table.markdown().splitlines() if "toy" in line]
    assert line == "| toy model | `.toy` | yes | `torch` | children | hexadecimal numbers |"


# -- the rows ---------------------------------------------------------------------------------


@each("row", CONTAINERS, ids=lambda row: row.name)
def test_a_row_says_all(row: Container) -> None:
    assert row.title.startswith(("a ", "an ", "arrays ", "sharded "))
    assert row.by
    assert row.known is not None or row.written
    assert set(row.layouts) <= {"gates", "keras", *ROWS}
    assert row.default is None or row.default in row.layouts
    assert not row.fixed or len(row.layouts) == 1
    assert not row.written or row.layouts or row.general
    if row.written and row.default is None:
        assert [other for other in CONTAINERS if set(other.suffixes) & set(row.suffixes)]
    module = import_module(row.module, "lstmconvert.containers")
    assert hasattr(module, "read" if row.arrays else "open")
    if row.written:
        assert hasattr(module, "write" if row.arrays else "draft")


def test_every_layout_goes_somewhere() -> None:
    for layout in ROWS:
        assert table.holders(layout), layout


#: Names of containers that are also names of other things: of layouts, of packages, of suffixes.
SHARED = {"c", "keras", "onnx", "ncnn", "tfjs", "tflite", "rtneural", "frugally-deep", "params"}


def is_container(node: ast.expr) -> bool:
    """Whether an expression is what a container is called: `container`, `model.container`."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name == "container"


def test_no_code_tests_a_container_by_its_name() -> None:
    """Adding a container is adding a row: no other module compares with its name."""
    names = {row.name for row in CONTAINERS} - SHARED
    quoted = "|".join(f"[\"']{re.escape(name)}[\"']" for name in names)
    compared = r"(==|!=|\bis\b|\bin\b)"
    suspicious = re.compile(rf"{quoted}|container\b.*{compared}|{compared}.*\bcontainer\b")
    for path in PACKAGE.rglob("*.py"):
        if path.name == "table.py" and path.parent.name == "containers":
            continue
        text = path.read_text(encoding="utf-8")
        if not suspicious.search(text):  # parsing every module takes seconds
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            where = f"{path}:{node.lineno}"
            assert all(map(is_container, sides)) or not any(map(is_container, sides)), where
            constants = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
            assert not names & {text for text in constants if isinstance(text, str)}, where

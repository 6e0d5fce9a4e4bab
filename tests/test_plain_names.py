"""What the package binds is named for what it holds: a word that says nothing of it is no name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.thinned import each

import lstmconvert

PACKAGE = Path(lstmconvert.__file__).parent
#: Words that could name anything: a reader has to look up what they stand for.
VAGUE = {"found", "one", "said", "own", "beside", "apart", "told", "meant", "there", "who"}
#: Every error has the fields `found` and `expected`; what builds an error takes them as arguments.
OF_ERRORS = "found"
#: Texts and comments.
_NO_CODE = re.compile(
    r'''"""(?:.|\n)*?"""|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#.*'''
)
PATHS = sorted(PACKAGE.rglob("*.py"))


def arguments_of_errors(tree: ast.AST) -> set[int]:
    """Return the ids of the arguments `found` that a function passes on as the field of an error,
    and of that field itself."""
    ids = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == "LSTMConvertError":
            ids |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.FunctionDef):
            calls = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
            if any(keyword.arg == OF_ERRORS for call in calls for keyword in call.keywords):
                every = (*node.args.args, *node.args.kwonlyargs)
                ids |= {id(argument) for argument in every if argument.arg == OF_ERRORS}
    return ids


def names(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield every name that a module binds, with the node that binds it."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node, name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield node, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node, name
            case ast.alias(name=name, asname=given):
                yield node, given or name.rpartition(".")[2]


def may_bind(text: str, words: set[str]) -> bool:
    """Whether a word stands in code, and not as a call's keyword: parsing all takes seconds."""
    name = rf"\b_*(?:{'|'.join(words)})_*\b(?!=)"
    return re.search(name, _NO_CODE.sub("", text), re.IGNORECASE) is not None


def vague(path: Path) -> list[str]:
    """Return the names of a module that do not say what they hold, with their lines."""
    text = path.read_text(encoding="utf-8")
    if not may_bind(text, VAGUE):
        return [path.name] * (path.stem in VAGUE)
    tree = ast.parse(text)
    suspects = [(node, name) for node, name in names(tree) if name.strip("_").lower() in VAGUE]
    allowed = arguments_of_errors(tree) if suspects else set()
    faults = [
        f"{path.name}:{getattr(node, 'lineno', 0)}: {name}"
        for node, name in suspects
        if id(node) not in allowed
    ]
    return [path.name] * (path.stem in VAGUE) + faults


@each("folder", sorted({path.parent for path in PATHS}), ids=lambda p: p.name)
def test_names_say_what_they_hold(folder: Path) -> None:
    assert [fault for path in PATHS if path.parent == folder for fault in vague(path)] == []


def test_the_check_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "from a import found\n"
        "def _said(own, found, *, beside):\n"
        "    for apart in own:\n"
        "        self.own = [one for one in apart]\n"
        "def error(found, expected):\n"
        "    return Error(found=found, expected=expected)\n"
        "class Found: pass\n"
    )
    found = [line.rpartition(" ")[2] for line in vague(path)]
    assert sorted(found) == sorted(
        ["one.py", "found", "_said", "own", "found", "beside", "apart", "own", "one", "Found"]
    )

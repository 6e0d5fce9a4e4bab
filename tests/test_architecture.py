"""The package is a house of floors: what lies on one imports from those below it, never upwards.

A floor is a folder, or a module of the package's root. Imports inside functions count too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.thinned import each

import lstmconvert

PACKAGE = Path(lstmconvert.__file__).parent
#: From the ground up; what stands on one line may not import one another.
FLOORS = (
    {"errors", "blas"},
    {"limits", "guide"},
    {"tensors"},
    {"files"},
    {"model"},
    {"conversion"},
    {"hdf5", "reference"},
    {"spelled"},
    {"pergate"},
    {"keras"},
    {"layouts"},
    {"tensorflow", "onnx"},
    {"containers"},
    {"opening", "targets"},
    {"api"},
    {"live"},
    {"checks"},
    {"pictures"},
    {"bulk"},
    {"cli"},
    {"__init__"},
    {"__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
#: A newcomer finds these first, and no more of them.
MOST_IN_THE_ROOT = 10


def room_of(module: str) -> str:
    """Return the floor's name of `lstmconvert.keras.stores.stored`: `keras`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


#: A notebook asks the object itself for its picture, and pictures are made upstairs.
ASKED_FROM_ABOVE = "_repr_html_"


#: What may hold statements: expressions hold no imports, and are most of a module's nodes.
HOLDERS = (ast.stmt, ast.excepthandler, ast.match_case)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every statement but those of the one method that may look upwards."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef) or node.name != ASKED_FROM_ABOVE:
            yield node
            below = (child for child in ast.iter_child_nodes(node) if isinstance(child, HOLDERS))
            waiting.extend(reversed([*below]))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the module of each import from this package, inside functions too."""
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for name in node.names:
                # The version is a text in the package's root, and no module.
                if (node.module, name.name) != ("lstmconvert", "__version__"):
                    yield node.lineno, f"{node.module}.{name.name}"


def faults(package: Path) -> list[str]:
    """Return the imports that go upwards, or to a neighbour on the same floor."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        room = room_of(".".join(parts))
        for line, module in imports(path):
            if module.split(".")[0] != "lstmconvert":
                continue
            other = room_of(module)
            if other != room and LEVEL[other] >= LEVEL[room]:
                found.append(f"{path.relative_to(package)}:{line}: {room} imports {module}")
    return found


def test_imports_go_downwards() -> None:
    assert faults(PACKAGE) == []


def test_the_check_can_fail(tmp_path: Path) -> None:
    package = tmp_path / "lstmconvert"
    (package / "keras").mkdir(parents=True)
    (package / "hdf5").mkdir()
    (package / "keras" / "a.py").write_text("from lstmconvert.hdf5 import b\n")
    (package / "hdf5" / "b.py").write_text(
        "def f():\n    from lstmconvert.keras import a\n    import lstmconvert.onnx\n"
    )
    assert faults(package) == [
        "hdf5/b.py:2: hdf5 imports lstmconvert.keras.a",
        "hdf5/b.py:3: hdf5 imports lstmconvert.onnx",
    ]


def test_every_room_has_its_floor() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    rooms |= {path.stem for path in PACKAGE.glob("*.py")}
    assert rooms == set(LEVEL)


def test_the_guide_names_every_room() -> None:
    page = (PACKAGE / "guide" / "inside.md").read_text(encoding="utf-8")
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert {room for room in rooms - {"guide"} if f"`{room}/`" not in page} == set()


def test_the_root_has_few_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_IN_THE_ROOT


@each(
    "path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name
)
def test_every_room_says_what_it_knows(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text
    # A room that lists its modules lists them all, and no others.
    listed = set(re.findall(r"(?<![/\w])(\w+)\.py\b", text))
    there = {other.stem for other in path.parent.glob("*.py") if other != path}
    assert listed in (set(), there)

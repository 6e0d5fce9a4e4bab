"""What is imported when: all commands pay for start-up, and no conversion for a framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "torch", "jax", "flax", "onnxruntime"}
HEAVY = FRAMEWORKS | {"numpy", "h5py", "safetensors", "onnx", "ml_dtypes", "rich"}
SEED95 = "fixtures/keras-3.15.1/seed95.keras"


#: Prints our data classes.
DATA_CLASSES = """
print(*{
    f"{kind.__module__}.{kind.__name__}"
    for name, module in [*sys.modules.items()] if name.startswith("lstmconvert.")
    for kind in vars(module).values()
    if isinstance(kind, type) and kind.__module__ == name and "__dataclass_fields__" in vars(kind)
})
"""


def words_after(code: str, shown: str) -> set[str]:
    """Return the words that `shown` prints after `code` has run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint()\n{shown}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def imported(code: str, packages: set[str]) -> set[str]:
    """Return which of the packages are imported after `code` has run in a process of its own."""
    return packages & words_after(code, "print(*sys.modules)")


def command(*args: object) -> str:
    return f"""
from lstmconvert.cli.main import program
try:
    program.main({list(map(str, args))!r})
except SystemExit as end:
    assert end.code in (0, 1), end.code
"""


def test_the_check_can_fail() -> None:
    assert imported("import rich.table, numpy", HEAVY) == {"rich", "numpy"}
    with pytest.raises(subprocess.CalledProcessError):
        imported(command("inspect", "nowhere"), HEAVY)


def test_importing_the_package_is_light() -> None:
    assert imported("import lstmconvert; dir(lstmconvert)", HEAVY | {"click"}) == set()


def test_help_imports_click_alone() -> None:
    commands = (["--help"], ["--version"], ["convert", "--help"], ["diff", "-h"])
    code = "".join(command(*args) for args in commands)
    assert imported(code, HEAVY | {"click"}) == {"click"}


def test_convert_imports_no_framework(tmp_path: Path) -> None:
    paths = [tmp_path / f"lstm{end}" for end in (".safetensors", ".keras", ".weights.h5", ".h5")]
    code = "".join(command("convert", SEED95, path) for path in paths)
    assert imported(code, FRAMEWORKS | {"onnx", "rich", "numpy"}) == {"numpy"}
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize(
    ("options", "most"),
    [("a.safetensors", 22), ("a.safetensors --to torch", 33), ("a.onnx --whole", 33)],
)
def test_few_data_classes_are_declared(
    options: str, most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each takes about half a millisecond at every start: a named tuple takes a fifth of that."""
    name, *rest = options.split()
    path = tmp_path_factory.mktemp("out") / name
    declared = words_after(command("convert", SEED95, path, *rest), DATA_CLASSES)
    assert "lstmconvert.model.model.Model" in declared
    assert len(declared) <= most, sorted(declared)


def test_files_of_others_need_no_onnx() -> None:
    sources = (
        "fixtures/coremltools-9.0/torch.mlpackage",
        "fixtures/coremltools-9.0/network.mlpackage",
        "fixtures/rtneural-keras-3.15.1/lstm.json",
        "fixtures/tf-1.15.5-cells/basic",
    )
    code = "".join(command("inspect", source, "--json") for source in sources)
    assert imported(code, FRAMEWORKS | {"onnx", "rich"}) == set()


def test_tables_need_no_library_and_an_ordinary_file_no_ml_dtypes() -> None:
    code = command("inspect", SEED95) + command("inspect", SEED95, "--json", "--stats")
    code += command("diff", SEED95, SEED95, "--json")
    assert imported(code, FRAMEWORKS | {"rich", "ml_dtypes"}) == set()

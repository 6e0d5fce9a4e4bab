"""Write the parts of the guide that are made from the program itself, and one of the program.

    python tests/support/write_guide.py                  the generated parts of every page
    python tests/support/write_guide.py --outputs PAGE…  what the commands on these pages print, too

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; in the module of the
options, whose typed dictionaries are made from its data classes, between two such comments of
Python. A test fails where one is not what this module makes. After `--outputs`, read the
difference: the commands were run, and whatever they printed was believed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parent.parent))

from lstmconvert import conversion
from lstmconvert.checks.formats import LayoutFacts, formats
from lstmconvert.cli.main import COMMANDS, program
from lstmconvert.containers import table
from lstmconvert.conversion import Options, Request
from lstmconvert.keras.configs import era
from lstmconvert.keras.configs.nodes import CELL_CLASSES, MODELS, RECURRENT
from lstmconvert.keras.modern import compiled, expressions, operations
from lstmconvert.keras.modern.classes import CLASSES, REFUSED
from lstmconvert.layouts.neighbourrows import TABLE
from lstmconvert.onnx.whole import classes as whole_classes
from lstmconvert.onnx.whole import operations as whole_operations
from support import counted_models
from support.documents import PAGES, ROOT, Page

_PART = re.compile(
    r"^((?:<!--|#) generated: (\w+)(?: -->)?\n).*?^((?:<!--|#) end\b)", re.DOTALL | re.MULTILINE
)
#: The module of the options of `save` and `convert`.
OPTIONS = Path(conversion.__file__)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def files() -> str:
    """The table of the kinds of files."""
    return table.markdown()


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _reasons(refused: Mapping[str, str], prefix: str = "") -> list[str]:
    """Return a table of what is refused, with one row for each reason."""
    why: dict[str, list[str]] = {}
    for name, text in refused.items():
        reason = text.replace("tf.{} ", "it ").replace("tf.{}", "it")
        why.setdefault(reason, []).append(f"{prefix}{name}")
    rows = [f"| {_names(names)} | {_cell(text)} |" for text, names in why.items()]
    return ["| refused | why |", "|---|---|", *rows]


def carried() -> frozenset[str]:
    """The classes of layers that a whole model takes with it from an older Keras, or within 3."""
    return frozenset({*CLASSES, *RECURRENT, *CELL_CLASSES, *MODELS})


def unread() -> str:
    """The table of what is named and not read."""
    return table.unread()


def classes() -> str:
    """Keras's own classes: those that are written into a file of another kind or era, and those
    that are not, with why."""
    changed = [f"`{name}` becomes `{row.today}`" for name, row in CLASSES.items() if row.today]
    old = [f"`{name}` becomes `{today}`" for name, today in era.RENAMED.items()]
    lines = [
        f"{len(carried())} classes cross: {_names(carried())}.",
        "",
        f"Renamed: {', '.join(changed)}.",
        "",
        f"Of Keras 1: {', '.join(old)}; {_names(era.COMPOSITIONS)} become small models.",
        "",
        f"{len(REFUSED)} are refused by name (`RandomCrop` crosses between files of Keras 3):",
        "",
        *_reasons(REFUSED),
    ]
    return "\n".join(lines) + "\n"


def compiled_with() -> str:
    """The optimizers, losses and metrics that cross, and those that do not, with why."""
    kinds = {
        "optimizers": {*compiled.OPTIMIZERS, "LossScaleOptimizer"},
        "schedules": compiled.SCHEDULES,
        "losses": compiled.LOSSES,
        "metrics": compiled.METRICS,
        "functions, as losses or metrics": compiled.FUNCTIONS,
    }
    lines = [f"{len(names)} {kind}: {_names(names)}.\n" for kind, names in kinds.items()]
    return "\n".join([*lines, *_reasons(compiled.REFUSED)]) + "\n"


def functions() -> str:
    """TensorFlow's functions and operators between layers, and Keras 3's operations."""
    named = [f"tf.{name}" for name in operations.OPERATIONS]
    first = (
        f"{len(named)} functions become Keras 3's operations: {_names(named)}. What `tf.compat.v1` "
        "has with the same arguments is read too, and `tf.shape` where its lengths are used for a "
        "shape."
    )
    raw = (
        f"{len(operations.OPERATORS)} operators of TensorFlow 2.0 to 2.3 (`TensorFlowOpLayer`) do: "
        f"{_names(operations.OPERATORS)}."
    )
    today = (
        f"All {len(operations.BARE)} operations of Keras 3 that compute by themselves cross from "
        "an `.h5` to a `.keras`. Those that run a function of yours (`Map`, `Scan`, `WhileLoop`, "
        "`ForiLoop`, `Cond`, `Switch`, `VectorizedMap`, `AssociativeScan`, `JVP`) do not."
    )
    reasons = _reasons(operations.REFUSED, "tf.")
    return "\n".join([first, "", *reasons, "", raw, "", today]) + "\n"


def unsaid() -> str:
    """What crosses from one Keras to another and has no operators of ONNX, with why."""
    named = {**whole_classes.UNSAID, **{f"ops: {k}": v for k, v in whole_operations.UNSAID.items()}}
    return "\n".join(_reasons(named)) + "\n"


def of_expressions() -> str:
    """The functions that an expression for a Lambda may call."""
    listed = []
    for name, function in sorted(expressions.FUNCTIONS.items()):
        listed.append(f"`{name}({', '.join((*function.tensors, *function.others))})`")
    return ", ".join(listed) + ".\n"


def layouts() -> str:
    """A table of all layouts, and a section for each."""
    every = formats().layouts
    heads = "framework, gates in order, rows are, biases, forget bias added at run time, run here"
    lines = [f"| `--to` | {heads.replace(', ', ' | ')} |", "|---" * 7 + "|"]
    for facts in every:
        cells = (
            f"[`{facts.name}`](#{facts.name})",
            facts.title,
            ", ".join(facts.gate_order) if facts.gate_order else "one tensor each",
            "units" if facts.transposed else "inputs",
            str(facts.biases),
            f"{facts.forget_bias:g}" if facts.forget_bias else "no",
            "yes" if facts.oracle_run else "no",
        )
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n\n" + "\n".join(_layout(facts) for facts in every)


def _layout(facts: LayoutFacts) -> str:
    rows = {
        "files": ", ".join(f"`{name}`" for name in facts.containers) or "Keras's own",
        "tensors": ", ".join(f"`{name}`" for name in facts.tensors),
        "keeps": ", ".join(facts.keeps),
        "rounds": "; ".join(facts.changes) or "nothing",
        "cannot hold": ", ".join(facts.cannot) or "nothing that a Keras LSTM has",
        "known from": facts.evidence,
    }
    listed = "\n".join(f"- {label}: {_cell(text)}" for label, text in rows.items())
    return f"## {facts.name}\n\n{facts.title}. {facts.hint}\n\n{listed}\n"


def commands() -> str:
    """Every command with its arguments and options."""
    parts = []
    context = click.Context(program, info_name="lstmconvert")
    for name in COMMANDS:
        command = program.get_command(context, name)
        assert command is not None
        parts.append(_command(name, command, context))
    return "\n".join(parts)


def _command(name: str, command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, parent, name, **command.context_settings)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## {name}", "", f"`lstmconvert {name} {usage}`", "", command.help or "", ""]
    lines += ["| option | does |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        # Arguments are in the usage; click lists them too since 8.3, with nothing beside them.
        if record is not None and not isinstance(parameter, click.Argument):
            lines.append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
    examples = re.findall(r"^  (lstmconvert .*)$", command.epilog or "", re.MULTILINE)
    lines += ["", "For example:", "", "```text", *examples, "```", ""]
    return "\n".join(lines)


def beside() -> str:
    """What each framework calls the layers beside an LSTM, and what it has no place for."""
    classes = sorted({name for rows in TABLE.values() for name in rows})
    lines = ["| layout | has | has not |", "|---|---|---|"]
    for layout, rows in TABLE.items():
        there = [name for name in classes if name in rows and not rows[name].absent]
        has = ", ".join(f"{name} (`{rows[name].title}`)" for name in there)
        lacks = ", ".join(name for name in classes if name not in there)
        lines.append(f"| `{layout}` | {has} | {lacks or 'nothing of these'} |")
    return "\n".join(lines) + "\n"


def options() -> str:
    """The options as typed dictionaries, in Python."""
    both = [_dictionary("SaveOptions", "TypedDict", "`save` takes by name. `Options` explains them",
                        fields(Options)),
            _dictionary("ConvertOptions", "SaveOptions",
                        "`convert` takes by name: those of `save`, and these",
                        fields(Request)[len(fields(Options)) :])]  # fmt: skip
    return "\n\n".join(both) + "\n\n"


def _dictionary(name: str, base: str, what: str, listed: Iterable[Field[Any]]) -> str:
    head = f'class {name}({base}, total=False):\n    """The options that {what}."""\n\n'
    return head + "".join(f"    {field.name}: {field.type}\n" for field in listed)


GENERATED: dict[str, Callable[[], str]] = {
    "files": files,
    "unread": unread,
    "unsaid": unsaid,
    "classes": classes,
    "functions": functions,
    "expressions": of_expressions,
    "compiled": compiled_with,
    "layouts": layouts,
    "commands": commands,
    "beside": beside,
    "options": options,
    "nodes": counted_models.table,
}


def parts(page: Page) -> Iterator[str]:
    """Yield the names of the generated parts of a page."""
    yield from (match[2] for match in _PART.finditer(page.text))


def renewed(text: str) -> str:
    """Return a page's text with its generated parts as they are now."""
    return _PART.sub(lambda match: f"{match[1]}{GENERATED[match[2]]()}{match[3]}", text)


def with_outputs(page: Page) -> str:
    """Return a page's text with what its commands print now."""
    text = page.text
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "page"
        folder.mkdir()
        page.files(folder)
        scripts = Path(name) / "bin"
        scripts.mkdir()
        script = scripts / "lstmconvert"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lstmconvert "$@"\n')
        script.chmod(0o755)
        environ = {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "80",
            "NO_COLOR": "1",
        }
        for snippet in page.snippets:
            if snippet.kind not in ("console", "sh") or snippet.not_run:
                continue
            if snippet.kind == "sh" and "pip install" in snippet.text:
                continue
            printed = ""
            for entry in re.split(r"^\$ ", snippet.text, flags=re.MULTILINE)[1:]:
                command = entry.partition("\n")[0]
                done = subprocess.run(
                    ["sh", "-c", command],
                    cwd=folder,
                    env=environ,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                output = done.stdout.rstrip()
                printed += f"$ {command}\n" + (f"{output}\n" if output else "")
            if printed:
                text = text.replace(snippet.text, printed)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", nargs="*", default=[], metavar="PAGE")
    wanted = {Path(name).name for name in parser.parse_args().outputs}
    module = OPTIONS.read_text(encoding="utf-8")
    if renewed(module) != module:
        OPTIONS.write_text(renewed(module), encoding="utf-8")
        print(f"wrote {OPTIONS}")
    for page in PAGES:
        text = renewed(with_outputs(page) if page.name in wanted else page.text)
        if text != page.text:
            page.path.write_text(text, encoding="utf-8")
            print(f"wrote {page.path}")


if __name__ == "__main__":
    main()

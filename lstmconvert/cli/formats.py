"""`lstmconvert formats`."""

from __future__ import annotations

from typing import Any

import click

from lstmconvert.cli import options, output


@options.command(
    "List the layouts that --to and --from take: how each framework arranges the gates, what it "
    "keeps, what it changes, what it cannot express, and whether the real framework has run the "
    "weights in the tests.",
    "formats torch",
    "formats --json",
)
@click.argument("layout", metavar="[LAYOUT]", required=False)
@options.as_json
def command(layout: str | None, as_json: bool) -> None:
    from lstmconvert.layouts import facts
    from lstmconvert.layouts.rows import row_of

    value = facts.table()
    if layout is not None:
        if layout not in ("gates", "keras"):
            row_of(layout)
        value["layouts"] = [item for item in value["layouts"] if item["name"] == layout]
    if as_json:
        output.as_json(value)
    elif layout is not None:
        _one(value["layouts"][0])
    else:
        _all(value["layouts"])


def _all(layouts: list[dict[str, Any]]) -> None:
    rows = [
        (
            item["name"],
            item["title"],
            "".join(gate[0] for gate in item["gate_order"] or ()) or "-",
            " ".join(item["containers"]),
            "yes" if item["oracle_run"] else "no",
        )
        for item in layouts
    ]
    output.table(rows, header=("layout", "framework", "gates", "containers", "run here"))
    output.line()
    output.paragraph(
        "run here: whether the real framework ran converted weights in the tests; the others are "
        "known from their source. lstmconvert formats LAYOUT tells more of one. Keras's own files "
        "(.keras, .weights.h5, .h5) hold the layout keras.",
        indent=2,
    )


def _one(item: dict[str, Any]) -> None:
    output.line(f"{item['name']}: {item['title']}", bold=True)
    rows = [
        ("containers", " ".join(item["containers"])),
        ("tensors", ", ".join(item["tensors"])),
        ("gate order", " ".join(item["gate_order"] or ["one tensor each"])),
        ("transposed", "yes, units are rows" if item["transposed"] else "no"),
        ("biases", str(item["biases"])),
        ("forget bias", f"{item['forget_bias']:g} at run time" if item["forget_bias"] else "none"),
        ("keeps", ", ".join(item["keeps"])),
        ("changes", "; ".join(item["changes"]) or "nothing"),
        ("cannot", ", ".join(item["cannot"]) or "-"),
        ("run here", "yes" if item["oracle_run"] else "no, known from source"),
        ("source", item["evidence"]),
    ]
    for label, text in rows:
        output.paragraph(text, indent=2, label=label, hang=13)
    output.line()
    output.paragraph(item["hint"], indent=2)

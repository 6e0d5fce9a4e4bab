"""`inspect` of a model with many layers: a table, a row for each cell."""

from __future__ import annotations

from lstmconvert.cli import output, shapes
from lstmconvert.cli.blocks import Block, kind
from lstmconvert.cli.shapes import number

_ROWS = 40
#: So many alike neighbours become one row.
_ALIKE = 4


def show(blocks: list[Block]) -> None:
    """Print one row for each cell, one for a run of layers that are alike."""
    rows = []
    index = 0
    while index < len(blocks):
        run = _run(blocks, index)
        rows.append(_row(blocks[index : index + run]))
        index += run
    output.line()
    more = len(rows) - _ROWS
    header = ("layer", "class", "kernel", "recurrent", "bias", "parameters")
    output.table(rows[:_ROWS] if more > 0 else rows, header=header, right=(5,))
    if more > 0:
        output.line(f"… and {more:,} more: --json lists them all", indent=2)
    output.line()
    output.paragraph(
        "kernel is inputs × 4 gates of units, recurrent units × 4 gates of units, bias 4 gates of "
        "units. Along that last axis lie the input, forget, cell and output gate, in this order: "
        "with 2 units, columns 0:2, 2:4, 4:6 and 6:8.",
        indent=2,
    )


def _run(blocks: list[Block], start: int) -> int:
    """Return how many blocks from `start` on make one row."""
    first = blocks[start]
    if first.label:
        return 1
    same = (first.layer.class_name, kind(first.cell))
    stop = start + 1
    while stop < len(blocks) and not blocks[stop].label:
        if (blocks[stop].layer.class_name, kind(blocks[stop].cell)) != same:
            break
        stop += 1
    return stop - start if stop - start >= _ALIKE else 1


def _row(run: list[Block]) -> tuple[str, ...]:
    first, last = run[0], run[-1]
    name = first.layer.name
    if first.count > 1:
        name += "".join(f".{part}" for part in first.label.split(".")[1:]) + ", each half"
    elif first.label:
        name += f".{first.label}"
    if len(run) > 1:
        name += f" … {last.layer.name} ({len(run):,})"
    cell = first.cell
    each = " each" if len(run) > 1 or first.count > 1 else ""
    return (
        name,
        first.layer.class_name,
        shapes.shape(cell.fused_shape("kernel")),
        shapes.shape(cell.fused_shape("recurrent_kernel")),
        shapes.shape(cell.fused_shape("bias")) if cell.use_bias else "none",
        number(cell.parameters) + each,
    )

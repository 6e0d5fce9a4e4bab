"""The table of layouts as facts for people and programs: what `lstmconvert formats` prints."""

from __future__ import annotations

from lstmconvert.gates import by_letters
from lstmconvert.jsontext import JsonObject
from lstmconvert.layer import CELL_PARTS, GATE_PARTS
from lstmconvert.layouts.row import Row
from lstmconvert.layouts.rows import ROWS

VERSION = 1
#: Options that some frameworks have and others do not, as messages name them.
_OPTIONS = (
    "go_backwards",
    "merge_mode",
    "convolution",
    "output_activation",
    "gate_clip",
    "cell_clip",
    "projection_clip",
    "input_forget",
)
_ALWAYS = frozenset({"kernel", "recurrent_kernel"})
#: The per-gate layout is no row: it keeps everything under its own names.
_GATES: JsonObject = {
    "name": "gates",
    "title": "one tensor for each gate, under our names",
    "containers": ["safetensors", "npz"],
    "gate_order": None,
    "transposed": False,
    "biases": 2,
    "forget_bias": 0.0,
    "directions": 2,
    "stacks": True,
    "keeps": [*GATE_PARTS, *CELL_PARTS],
    "changes": [],
    "cannot": [],
    "tensors": ["forget_gate.kernel", "forget_gate.recurrent_kernel", "forget_gate.bias"],
    "oracle_run": True,
    "evidence": "this program's own format",
    "hint": "Everything comes back from it, bit for bit.",
}


def table() -> JsonObject:
    """Return `{"version": 1, "layouts": […]}`: each layout by what it keeps and cannot."""
    return {"version": VERSION, "layouts": [dict(_GATES), *(facts(row) for row in ROWS.values())]}


def facts(row: Row) -> JsonObject:
    """Return one row as JSON.

    `keeps`: the tensors that have a place; `changes`: rounding losses; `cannot`: options that are
    refused; `oracle_run`: whether the real framework ran the weights in the tests.
    """
    from lstmconvert.layouts.read import example

    parts = [part for part in (*GATE_PARTS, *CELL_PARTS) if part in row.parts]
    return {
        "name": row.name,
        "title": row.title,
        "containers": list(row.containers),
        "gate_order": [str(gate) for gate in by_letters(row.order)],
        "transposed": any(slot.transposed for slot in row.slots),
        "biases": 2 if "recurrent_bias" in row.parts else 1,
        "forget_bias": row.forget_bias,
        "directions": 1 if row.single else 2,
        "stacks": row.index is not None,
        "keeps": parts,
        "changes": _changes(row),
        "cannot": _cannot(row),
        "tensors": example(row),
        "oracle_run": row.run,
        "evidence": row.evidence,
        "hint": row.hint,
    }


def _changes(row: Row) -> list[str]:
    result = []
    if "recurrent_bias" not in row.parts:
        result.append("a second bias is added to the first, rounded")
    if row.forget_bias:
        result.append(f"the forget bias is stored less {row.forget_bias:g}, rounded")
    return result


def _cannot(row: Row) -> list[str]:
    result = [f"{option} other than {function}" for option, function in row.fixed]
    result += [option for option in _OPTIONS if option not in row.expresses]
    if row.single:
        result.append("two directions")
    if row.paired:
        result.append("one direction")
    absent = {*GATE_PARTS, *CELL_PARTS} - row.parts - _ALWAYS - {"bias", "recurrent_bias"}
    return result + [part for part in (*GATE_PARTS, *CELL_PARTS) if part in absent]

"""Names of tensors and of layers."""

from __future__ import annotations

from support.thinned import each

from lstmconvert.model import naming

PARSED: dict[str, tuple[str, str | None, int | None, str] | None] = {
    "lstm.forget_gate.kernel": ("lstm", None, None, "forget_gate.kernel"),
    "a.b/c.backward.output_gate.bias": ("a.b/c", "backward", None, "output_gate.bias"),
    "rnn.cells.12.cell_gate.peephole": ("rnn", None, 12, "cell_gate.peephole"),
    "x.forward.cells.0.projection": ("x", "forward", 0, "projection"),
    "x.forward_.input_gate.kernel": ("x.forward_", None, None, "input_gate.kernel"),
    "a\nb.input_gate.kernel": ("a\nb", None, None, "input_gate.kernel"),
    "other/lstm.input_gate.kernel": None,
    "lstm.input_gate": None,
    "lstm.input_gate.weight": None,
    ".input_gate.kernel": None,
    "lstm.candidate_gate.kernel": None,
    "input_gate.kernel": None,
}


@each("name", PARSED)
def test_names_are_parsed(name: str) -> None:
    wanted = PARSED[name]
    assert naming.parse(name) == (None if wanted is None else naming.TensorName(*wanted))


def test_layer_names_are_unique_and_unambiguous() -> None:
    wanted = ["lstm", "lstm", "lstm_1", "x.forward", "a.cells.3", "other", "other/x", ""]
    wanted.append("b.cells.x")
    assert naming.layer_names(wanted) == [
        "lstm",
        "lstm_2",
        "lstm_1",
        "x.forward_",
        "a.cells.3_",
        "other_",
        "other_/x",
        "lstm_3",
        "b.cells.x",
    ]

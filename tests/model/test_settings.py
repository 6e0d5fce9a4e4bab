"""What `--set` says of a layer."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from support.neutral import make_cell, make_layer
from support.thinned import each

from lstmconvert.errors import (
    UsageError,
)
from lstmconvert.model import settings
from lstmconvert.model.activations import KERAS2, KERAS3, Activation
from lstmconvert.model.model import Model, Source
from lstmconvert.model.options import UNKNOWN, CellOptions, LayerOptions

SETTINGS: dict[str, tuple[str | None, str, Any]] = {
    "dropout=0.5": (None, "dropout", 0.5),
    "lstm.seed=null": ("lstm", "seed", None),
    "a.b/c.merge_mode=sum": ("a.b/c", "merge_mode", "sum"),
    "merge_mode=None": (None, "merge_mode", None),
    "return_sequences=True": (None, "return_sequences", True),
    "activation=relu": (None, "activation", KERAS3["relu"]),
    "recurrent_activation=hard_sigmoid(alpha=0.2, beta=0.5)": (
        None,
        "recurrent_activation",
        KERAS2["hard_sigmoid"],
    ),
    "recurrent_activation=hard_sigmoid(alpha=1/6,beta=0.5)": (
        None,
        "recurrent_activation",
        KERAS3["hard_sigmoid"],
    ),
    "activation=elu(alpha=2)": (None, "activation", Activation("elu", {"alpha": 2.0})),
    "forget_bias=1": (None, "forget_bias", 1),
    "cell_clip=none": (None, "cell_clip", None),
    "projection_clip=null": (None, "projection_clip", None),
    "policy=mixed_float16": (None, "policy", "mixed_float16"),
}


@each("text", SETTINGS)
def test_settings_are_parsed(text: str) -> None:
    assert settings.parse(text, None) == settings.Setting(*SETTINGS[text])


BAD_SETTINGS = {
    "dropout": "--set dropout=VALUE",
    "droput=1": "did you mean dropout",
    "units=3": "no such option; found units",
    "dropout=much": "wrong type",
    "use_bias=1": "wrong type; found 1; expected true or false",
    "seed=1.5": "wrong type",
    "activation=tahn": "did you mean tanh",
    "activation=relu(": "not an activation",
    "activation=elu(alpha)": "constants",
    "activation=elu(alpha=1/0)": "not a number",
    "activation=elu(alpha=1.2.3)": "not a number",
    "activation=hard_sigmoid": "two functions",
    "=1": "no such option",
}


@each("text", BAD_SETTINGS)
def test_settings_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        settings.parse(text, None)
    assert BAD_SETTINGS[text] in f"{error.value} {error.value.hint}"


ERAS = [("keras1", KERAS2), ("keras2", KERAS2), ("keras3", KERAS3)]


@pytest.mark.parametrize(("era", "table"), ERAS)
def test_hard_sigmoid_is_that_of_the_era(era: str, table: Any) -> None:
    assert settings.parse("activation=hard_sigmoid", era).value == table["hard_sigmoid"]


def test_every_option_can_be_set() -> None:
    names = {field.name for kind in (CellOptions, LayerOptions) for field in fields(kind)}
    assert names <= set(settings.NAMES)


def unsaid(*names: str) -> Model:
    def layer(name: str) -> Any:
        cells = [
            make_cell(
                np.random.default_rng(0),
                3,
                2,
                activation=UNKNOWN,
                recurrent_activation=UNKNOWN,
            )
            for _ in range(2)
        ]
        return make_layer(*cells, name=name, merge_mode=UNKNOWN)

    return Model(layers=tuple(map(layer, names)), source=Source(container="weights.h5"))


def test_settings_apply_to_one_layer_or_to_all() -> None:
    model = unsaid("a", "b")
    found = settings.apply(model, ("activation=tanh", "b.merge_mode=ave", "b.dropout=0.5"))
    for name in ("a", "b"):
        for _, _, cell in found[name].cells():
            assert cell.options.activation == KERAS3["tanh"]
            assert cell.options.recurrent_activation is UNKNOWN
            assert cell.options.dropout == (0.5 if name == "b" else UNKNOWN)
    assert (found["a"].options.merge_mode, found["b"].options.merge_mode) == (UNKNOWN, "ave")
    assert model["a"].forward.lstm_cells[0].options.activation is UNKNOWN


@pytest.mark.parametrize(
    ("text", "message"),
    [("c.dropout=1", "no LSTM layer"), ("a.return_sequences=true", "file says otherwise")],
)
def test_settings_that_do_not_fit(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings.apply(unsaid("a"), (text,))

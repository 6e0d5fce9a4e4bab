"""A C99 header: one array for each gate and part, and a forward pass that needs only `math.h`.

Numbers are hexadecimal floating literals, which are exact (ISO/IEC 9899:1999, 6.4.4.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lstmconvert.activations import Activation
from lstmconvert.dtypes import Array, dtype_of
from lstmconvert.errors import UnknownOption, UnsupportedByTarget, UsageError
from lstmconvert.files import whole_text
from lstmconvert.gates import GATES
from lstmconvert.layer import Cell, LSTMLayer
from lstmconvert.layouts.write import Content
from lstmconvert.tensors import ArrayTensor, SourceFile, Tensor

_TYPES = {"float32": ("float", "f"), "float64": ("double", "")}
#: Activation -> its C expression of x; {f} is the suffix of math.h's functions and of literals.
_FUNCTIONS = {
    "linear": "x",
    "tanh": "tanh{f}(x)",
    "sigmoid": "1.0{f} / (1.0{f} + exp{f}(-x))",
    "hard_sigmoid": "fmin{f}(1.0{f}, fmax{f}(0.0{f}, {alpha} * x + {beta}))",
    "softsign": "x / (1.0{f} + fabs{f}(x))",
    "softplus": "fmax{f}(x, 0.0{f}) + log1p{f}(exp{f}(-fabs{f}(x)))",
    "elu": "x > 0.0{f} ? x : {alpha} * expm1{f}(x)",
    "silu": "x / (1.0{f} + exp{f}(-x))",
    "exponential": "exp{f}(x)",
    "relu": "fmax{f}(x, 0.0{f})",
}
_ARRAY = re.compile(r"/\* (?P<name>\S+) \*/\nstatic const (?P<type>float|double) "
                    r"\w+(?P<shape>(?:\[\d+\])+) = (?P<data>[^;]*);")  # fmt: skip
#: What is declared in a header, by name.
_DECLARED = re.compile(r"^static (?:inline|const) \w+ (\w+)", re.MULTILINE)
_NUMBER = re.compile(r"-?0x[0-9a-f.]+p[+-]\d+")

_STEP = """
/* One step: from x ({inputs}) and the states h ({units}) and c ({units}) to the next states. */
static inline void {id}_step(const {type} *x, {type} *h, {type} *c) {{
  {type} next[{units}];
  for (int u = 0; u < {units}; ++u) {{
    {type} i = {id}_input_gate_bias[u], f = {id}_forget_gate_bias[u];
    {type} g = {id}_cell_gate_bias[u], o = {id}_output_gate_bias[u];
    for (int k = 0; k < {inputs}; ++k) {{
      i += x[k] * {id}_input_gate_kernel[k][u];
      f += x[k] * {id}_forget_gate_kernel[k][u];
      g += x[k] * {id}_cell_gate_kernel[k][u];
      o += x[k] * {id}_output_gate_kernel[k][u];
    }}
    for (int k = 0; k < {units}; ++k) {{
      i += h[k] * {id}_input_gate_recurrent_kernel[k][u];
      f += h[k] * {id}_forget_gate_recurrent_kernel[k][u];
      g += h[k] * {id}_cell_gate_recurrent_kernel[k][u];
      o += h[k] * {id}_output_gate_recurrent_kernel[k][u];
    }}
    c[u] = {id}_gate(f) * c[u] + {id}_gate(i) * {id}_activation(g);
    next[u] = {id}_gate(o) * {id}_activation(c[u]);
  }}
  for (int u = 0; u < {units}; ++u) h[u] = next[u];
}}
"""
_FORWARD = """
/* From x (steps, {inputs}) to y (steps, {width}): every output, as with return_sequences. */
static inline void {id}_forward(const {type} *x, int steps, {type} *y) {{
{runs}}}
"""
_RUN = """  {{
{states}    for (int t = {start}) {{
{steps}      for (int u = 0; u < {units}; ++u) y[(size_t)t * {width} + {offset} + u] = {h}[u];
    }}
  }}
"""
_STATE = "    {type} h{k}[{units}] = {{0}}, c{k}[{units}] = {{0}};\n"
_CALL = "      {id}_step({x}, h{k}, c{k});\n"
_STARTS = {"forward": "0; t < steps; ++t", "backward": "steps - 1; t >= 0; --t"}


def write(path: Path, content: Content, *_: object) -> Mapping[str, Tensor]:
    """Write a header, which holds no metadata, and return the arrays that it holds.

    Raises:
        UnsupportedByTarget: a function or dtype that is not written in C here; NaN or infinity.
        UnknownOption: a function is unknown.
        UsageError: two layers would have one name in C.
    """
    guard = "LSTMCONVERT_" + identifier("_".join(content.model)).upper()[:60] + "_H"
    with open(path, "x", encoding="ascii") as file:
        file.write(f"#ifndef {guard}\n#define {guard}\n\n#include <math.h>\n#include <stddef.h>\n")
        seen: set[str] = set()
        for item, layer in zip(content.arranged["modules"], content.model.values(), strict=True):
            for text in _layer(layer, identifier(layer.name), item["prefix"]):
                _check_new(_DECLARED.findall(text), seen, layer)
                file.write(text)
        file.write(f"\n#endif /* {guard} */\n")
    return read(SourceFile(path))


def _check_new(names: list[str], seen: set[str], layer: LSTMLayer) -> None:
    """Two directions of `lstm` and a layer `lstm_forward` would both have `lstm_forward_step`."""
    for name in names:
        if name in seen:
            raise UsageError(
                "two layers would have one name in C",
                where=layer.name,
                found=name,
                hint="convert them one by one with --layer, each to a header of its own",
            )
        seen.add(name)


def identifier(name: str) -> str:
    """Return a layer's name as a C identifier: `enc/lstm` is `enc_lstm`."""
    text = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_") or "lstm"
    return text if not text[0].isdigit() else f"lstm_{text}"


def _layer(layer: LSTMLayer, own: str, prefix: str) -> Iterator[str]:
    both = layer.backward is not None
    width = sum(direction.units for _, direction in layer.directions)
    runs, offset, kind = [], 0, ""
    for side, direction in layer.directions:
        cells = direction.lstm_cells
        states, steps, x, last = "", "", f"x + (size_t)t * {layer.input_dim}", ""
        for number, cell in enumerate(cells):
            ends = [*([side] if both else []), *(["cells", str(number)] if len(cells) > 1 else [])]
            name, kind = "_".join([own, *ends]), _type(cell, layer)[0]
            yield from _cell(cell, layer, name, prefix + "".join(f"{end}." for end in ends))
            k = str(number) if len(cells) > 1 else ""
            states += _STATE.format(type=kind, k=k, units=cell.units)
            steps += _CALL.format(id=name, x=x, k=k)
            x = last = f"h{k}"
        runs.append(
            _RUN.format(
                states=states,
                steps=steps,
                start=_STARTS[side],
                units=direction.units,
                width=width,
                offset=offset,
                h=last,
            )
        )
        offset += direction.units
    yield _FORWARD.format(
        id=own, type=kind, inputs=layer.input_dim, width=width, runs="".join(runs)
    )


def _cell(cell: Cell, layer: LSTMLayer, name: str, prefix: str) -> Iterator[str]:
    kind, end = _type(cell, layer)
    for gate in GATES:
        for role in ("kernel", "recurrent_kernel", "bias"):
            tensor = cell.gates[gate].tensors.get(role)
            array = np.zeros(cell.units, cell.dtype) if tensor is None else tensor.read()
            key = f"{prefix}{gate}_gate.{role}"
            yield _array(key, f"{name}_{gate}_gate_{role}", array, kind, end, layer)
    yield _functions(cell, layer, name, kind, end)
    yield _STEP.format(id=name, type=kind, units=cell.units, inputs=cell.input_dim)


def _type(cell: Cell, layer: LSTMLayer) -> tuple[str, str]:
    if cell.dtype.name not in _TYPES:
        raise UnsupportedByTarget(
            "C has no such type",
            where=layer.name,
            layer=layer.name,
            option="dtype",
            target="c",
            found=cell.dtype.name,
            expected="float32 or float64",
            hint="--dtype float32 widens it, exactly",
        )
    return _TYPES[cell.dtype.name]


def _array(key: str, name: str, array: Array, kind: str, end: str, layer: LSTMLayer) -> str:
    if not np.isfinite(array).all():
        raise UnsupportedByTarget(
            "C has no literals for NaN and infinity",
            where=layer.name,
            layer=layer.name,
            option="weights",
            target="c",
            found=key,
        )
    shape = "".join(f"[{size}]" for size in array.shape)
    rows = array.reshape(-1, array.shape[-1])
    lines = [", ".join(f"{float(x).hex()}{end}" for x in row) for row in rows]
    data = "{" + lines[0] + "}" if array.ndim == 1 else "{\n  {" + "},\n  {".join(lines) + "}}"
    return f"\n/* {_spelled(key)} */\nstatic const {kind} {name}{shape} = {data};\n"


def _spelled(key: str) -> str:
    """Return a tensor's name so that no name ends the comment, or leaves ASCII or the line."""
    return re.sub(r"[^!-)+-~]", lambda match: f"%{ord(match[0]):x};", key)


def _functions(cell: Cell, layer: LSTMLayer, name: str, kind: str, end: str) -> str:
    texts = []
    for role, option in (("gate", "recurrent_activation"), ("activation", "activation")):
        body = _expression(getattr(cell.options, option), layer, option, end)
        texts.append(f"\nstatic inline {kind} {name}_{role}({kind} x) {{ return {body}; }}\n")
    return "".join(texts)


def _expression(value: Activation | object, layer: LSTMLayer, option: str, end: str) -> str:
    if not isinstance(value, Activation):
        raise UnknownOption(
            "the forward pass needs it", where=layer.name, found=f"unknown: {option}"
        )
    text = _FUNCTIONS.get(value.name)
    is_plain = value.name in ("elu", "hard_sigmoid") or not value.constants
    if text is None or value.custom or not is_plain:
        raise UnsupportedByTarget(
            f"the C header has no {option} {value}",
            where=layer.name,
            layer=layer.name,
            option=option,
            target="c",
            found=str(value),
            expected=", ".join(_FUNCTIONS),
        )
    constants = {key: f"{float(x).hex()}{end}" for key, x in value.constants.items()}
    return text.format(f=end, **constants)


def read(source: SourceFile) -> dict[str, Tensor]:
    """Return the arrays of a header that `write` wrote, to compare them with what was meant."""
    names = {"float": "float32", "double": "float64"}
    found: dict[str, Tensor] = {}
    for match in _ARRAY.finditer(whole_text(source).decode("ascii")):
        shape = tuple(int(size) for size in re.findall(r"\d+", match["shape"]))
        numbers = [float.fromhex(text) for text in _NUMBER.findall(match["data"])]
        array = np.array(numbers, np.float64).astype(dtype_of(names[match["type"]]))
        name = re.sub(r"%([0-9a-f]+);", lambda m: chr(int(m[1], 16)), match["name"])
        found[name] = ArrayTensor(array.reshape(shape))
    return found

"""A C header: one array for each gate and part, and a forward pass that needs only `math.h`.

Numbers are decimal literals with the fewest digits that represent the same bits: a compiler rounds
a literal to the nearest number of its type (ISO/IEC 9899:1999, F.5), which is the one that was
meant. Hexadecimal literals are exact too, but C++ has them only since C++17.

A whole model that is a chain of layers is one struct of states with three functions, beside those
of its layers: `reset`, `step`, which takes one step of the input and gives one of the output, and
`run`, which takes several. Nothing is allocated. A sequence begins with the initial states of the
cells that store some, else with zeros.

On request matrices are int8_t or int16_t, with one scale for each column (`tensors.quantized` says
why). A sum is taken over the integers and multiplied by its scale afterwards. The head says how far
that takes the outputs from those of the weights before.

On an AVR, whose tables would be copied to RAM, they stay in flash and are read from there
(avr-libc's `avr/pgmspace.h`), so that every table is read through one macro.

The file compiles as C99 and as C++11 and later. No function overflows on the way to a finite
result, so that `-ffast-math`, under which a compiler takes infinity for impossible, changes
rounding alone.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from lstmconvert import __version__
from lstmconvert.containers.modules import Arrays, Opened, Writing, carries_nothing
from lstmconvert.errors import CorruptFile, NotAModel, UnsupportedByTarget, UsageError
from lstmconvert.files.jsontext import parse_object
from lstmconvert.files.opening import whole_text
from lstmconvert.layouts.rows import C_FUNCTIONS
from lstmconvert.model.activations import Activation
from lstmconvert.model.chain import Answer, Chain, Holds, Link
from lstmconvert.model.gates import GATES, Gate
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.pergate import metadata
from lstmconvert.tensors import quantized
from lstmconvert.tensors.dtypes import Array, DType, dtype_of, name_of
from lstmconvert.tensors.tensor import ArrayTensor, SourceFile, Tensor

#: dtype -> C's type, and the suffix of its literals and of the functions of math.h.
_TYPES = {"float32": ("float", "f"), "float64": ("double", "")}
#: What `Options.weights` may be -> C's type of it (ISO/IEC 9899:1999, 7.18.1.1).
_INTEGERS = {kind: f"{kind}_t" for kind in quantized.LARGEST}
_DTYPES = {kind: dtype for dtype, (kind, _) in _TYPES.items()} | {
    kind: dtype for dtype, kind in _INTEGERS.items()
}
#: Activation -> the body of a C function of x. {t} is the type, {f} the suffix; the other places
#: are its constants. Each takes exp of nothing above zero, except `exponential` itself. avr-libc
#: has no expm1 and log1p: what they give near zero is found as Kahan does (N. J. Higham, "Accuracy
#: and Stability of Numerical Algorithms", 1.14.1).
_FUNCTIONS = {
    "linear": "return x;",
    "tanh": "return tanh{f}(x);",
    "sigmoid": "const {t} e = exp{f}(-fabs{f}(x)); return (x < 0 ? e : 1) / (1 + e);",
    "hard_sigmoid": "return fmin{f}(1, fmax{f}(0, {alpha} * x + {beta}));",
    "softsign": "return x / (1 + fabs{f}(x));",
    "softplus": "const {t} e = exp{f}(-fabs{f}(x)), w = 1 + e; "
    "return fmax{f}(x, 0) + (w == 1 ? e : log{f}(w) * e / (w - 1));",
    "elu": "const {t} e = exp{f}(fmin{f}(x, 0)); if (x > 0) return x; "
    "return {alpha} * (x < -1 ? e - 1 : e == 1 ? x : (e - 1) * x / log{f}(e));",
    "silu": "const {t} e = exp{f}(-fabs{f}(x)); return x * (x < 0 ? e : 1) / (1 + e);",
    "exponential": "return exp{f}(x);",
    "relu": "return fmax{f}(x, 0);",
    "leaky_relu": "return x < 0 ? {negative_slope} * x : x;",
}
HOLDS = Holds(
    title="A C header",
    kinds=frozenset(
        {
            *("Dense", "Conv1D", "BatchNormalization", "LayerNormalization", "PReLU"),
            *("Activation", "GRU"),
        }
    ),
    activations=replace(
        C_FUNCTIONS,
        exact=(*C_FUNCTIONS.exact, Activation("softmax")),
        families=(*C_FUNCTIONS.families, ("leaky_relu", ("negative_slope",))),
    ),
    gru=(C_FUNCTIONS, C_FUNCTIONS),
    groups=True,
    skip=True,
    every_step=True,
    streams=True,
)
_ARRAY = re.compile(r"/\* (?P<name>\S+) \*/\nstatic const (?P<type>float|double|int8_t|int16_t) "
                    r"\w+(?P<shape>(?:\[\d+\])+)(?: LSTMCONVERT_FLASH)? = "
                    r"(?P<data>[^;]*);")  # fmt: skip
#: The text after the name of a matrix of integers, in the comment before its scales.
_SCALE = ".scale"
#: The declarations of a header, by name.
_DECLARED = re.compile(r"^static (?:inline|const) \w+ (\w+)", re.MULTILINE)
_NUMBER = re.compile(r"-?\d[0-9.]*(?:e[+-]?\d+)?")
#: A bound below it is that of double precision, in which numbers have up to 17 digits (IEEE 754).
_SINGLE = 1e-8
#: How many characters of the layers' names the include guard has.
_GUARD_LENGTH = 40

_HEAD = """\
#ifndef {guard}
#define {guard}

/* {layers}
 *
 * Written by lstmconvert {version} from {source}.
 * C99 or C++11, with the mathematical library (-lm). No memory is allocated.
 * The tables take {size:,} bytes. On an AVR they stay in flash, unless LSTMCONVERT_TABLES_IN_RAM is
 * defined first.
{rounding} *
{usage}{answer} */

#include <math.h>
#include <stddef.h>
{includes}{flash}"""
#: A table may be of integers, whose type its size says. Pointers have 16 bits, and the linker puts
#: the tables first, behind the interrupt vectors.
_FLASH = """
#ifndef LSTMCONVERT_READ
#if defined(__AVR__) && __SIZEOF_DOUBLE__ == 4 && !defined(LSTMCONVERT_TABLES_IN_RAM)
#include <avr/pgmspace.h>
#define LSTMCONVERT_FLASH PROGMEM
#define LSTMCONVERT_READ(x) (sizeof(x) == 1 ? (float)(int8_t)pgm_read_byte(&(x)) \\
    : sizeof(x) == 2 ? (float)(int16_t)pgm_read_word(&(x)) : pgm_read_float(&(x)))
#else
#define LSTMCONVERT_FLASH
#define LSTMCONVERT_READ(x) (x)
#endif
#endif
"""
_TOO_LARGE = """\
#ifdef __AVR__
#error "An AVR addresses 64 KB of tables, and these are larger: --weights int8 makes them smaller"
#endif
"""
#: How many bytes of tables an AVR can read: 64 KB without the vectors.
_AVR_LARGEST = 65_000
_ROUNDING = (
    "The matrices are {kind}, one scale for each column. For the example input that changes the "
    "outputs, which are up to {largest_output:.2g}, by up to {output_error:.2g}, and the weights "
    "by up to {weight_error:.2g}."
)
_USAGE = """\
 * {id}_forward(x, steps, y) reads x (steps, {inputs}) and writes y (steps, {width}):
 *     {type} y[STEPS * {width}];
 *     {id}_forward(x, STEPS, y);
"""
_STEP_USAGE = """\
 * {id}_step(x, h, c) is one step of it. It reads x ({inputs}) and replaces the states
 *     {type} h[{units}]{zero}, c[{units}]{zero};
"""
_BEGIN_USAGE = """\
 *     {id}_begin(h, c);
"""

_CHAIN_USAGE = """\
 *
 * The whole model: {id}_reset begins a sequence, {id}_step takes x ({inputs}) and gives
 * ({outputs}), {id}_run takes x (steps, {inputs}) and gives (steps, {outputs}). The states are one
 * struct:
 *     static {id}_state state;
 *     {type} out[STEPS * {outputs}];
 *     {id}_reset(&state);
 *     {id}_step(&state, x, out);
 *     {id}_run(&state, x, STEPS, out);
"""
_LAST = " * The model itself gives the last step alone.\n"

_STEP = """
/* One step: from x ({inputs}) and the states h ({units}) and c ({units}) to the next states. */
static inline void {id}_step(const {type} *x, {type} *h, {type} *c) {{
  {type} next[{units}];
  for (int u = 0; u < {units}; ++u) {{
    {type} i = LSTMCONVERT_READ({id}_input_gate_bias[u]);
    {type} f = LSTMCONVERT_READ({id}_forget_gate_bias[u]);
    {type} g = LSTMCONVERT_READ({id}_cell_gate_bias[u]);
    {type} o = LSTMCONVERT_READ({id}_output_gate_bias[u]);
{sums}    c[u] = {id}_gate(f) * c[u] + {id}_gate(i) * {id}_activation(g);
    next[u] = {id}_gate(o) * {id}_activation(c[u]);
  }}
  for (int u = 0; u < {units}; ++u) h[u] = next[u];
}}
"""
#: The sums of `_STEP`, by gate.
_SUMS = {Gate.INPUT: "i", Gate.FORGET: "f", Gate.CELL: "g", Gate.OUTPUT: "o"}
_BEGIN = """
/* The states that a sequence begins with. */
static inline void {id}_begin({type} *h, {type} *c) {{
  for (int u = 0; u < {units}; ++u) {{ h[u] = {hidden}; c[u] = {cell}; }}
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
_BEGUN = "    {type} h{k}[{units}], c{k}[{units}];\n    {id}_begin(h{k}, c{k});\n"
_CALL = "      {id}_step({x}, h{k}, c{k});\n"
_STARTS = {"forward": "0; t < steps; ++t", "backward": "steps - 1; t >= 0; --t"}


def write(path: Path, content: Writing) -> None:
    """Write a header, which holds no metadata.

    Raises:
        UnsupportedByTarget: NaN or infinity; layers of two dtypes in one chain.
        UsageError: two layers would have one name in C.
    """
    with open(path, "wb") as file:
        # The names of the guard and of the source are known at the end, and as long as these.
        file.write(_head(content, content.metadata(is_known=False), "0" * 64))
        known = _body(file, content)
        file.seek(0)
        file.write(_head(content, content.metadata(), known))


carried = carries_nothing


def _body(file: BinaryIO, content: Writing) -> str:
    """Write all that follows the head, and return the SHA-256 of it."""
    known = hashlib.sha256()
    seen: set[str] = set()

    def add(texts: Iterable[str], name: str) -> None:
        for text in texts:
            _check_new(_DECLARED.findall(text), seen, name)
            file.write(text.encode("ascii"))
            known.update(text.encode("ascii"))

    kind = None if content.rounded is None else content.rounded.kind
    for prefix, layer in content.layers:
        add(_layer(layer, identifier(content.name + layer.name), prefix, kind), layer.name)
    chain = _chain_of(content)
    if chain is not None:
        for link in chain.links:
            if link.layer is None:
                add(_link(link, content), link.name)
        add(_streaming(chain, content), "the whole model")
    file.write(b"\n#endif\n")
    return known.hexdigest()


def _head(content: Writing, texts: Mapping[str, str], known: str) -> bytes:
    """Return what stands before the arrays.

    Args:
        content: what the header holds.
        texts: the metadata texts.
        known: the SHA-256 of the text after it. With it, two models have two include guards.
    """
    layers = [layer for _, layer in content.layers]
    names = "_".join(identifier(content.name + layer.name) for layer in layers)
    digest = parse_object(texts[metadata.KEY], metadata.KEY)["source"]["sha256"]
    source = f"a source of SHA-256\n * {digest}" if digest else "an object in memory"
    named = [f"{_spelled(layer.name)} ({layer.parameters:,} weights)" for layer in layers]
    chain, answer, usage = _chain_of(content), "", ""
    if chain is not None:
        named = [_described(link) for link in chain.links]
        usage = _CHAIN_USAGE.format(
            id=_model_name(content), type=_type_of_chain(content)[0],
            inputs=chain.inputs, outputs=chain.outputs,
        )  # fmt: skip
        usage += "" if chain.gives_sequence else _LAST
        answer = _answer(content.answer)
    rounded = content.rounded
    kind = None if rounded is None else rounded.kind
    size = quantized.nbytes(content.tensors, kind)
    return _HEAD.format(
        size=size,
        flash=_FLASH + (_TOO_LARGE if size > _AVR_LARGEST else ""),
        rounding="" if rounded is None else _note([_ROUNDING.format(**rounded._asdict())]),
        includes="" if rounded is None else "#include <stdint.h>\n",
        guard=f"LSTMCONVERT_{names.upper()[:_GUARD_LENGTH]}_{known[:16].upper()}_H",
        layers="\n * ".join(named),
        version=__version__,
        source=source,
        usage="".join(_usage(layer, content) for layer in layers) + usage,
        answer=answer,
    ).encode("ascii")


def _described(link: Link) -> str:
    if link.layer is not None:
        return f"{_spelled(link.name)} ({link.layer.parameters:,} weights)"
    count = sum(tensor.size for tensor in link.arrays.values())
    return f"{_spelled(link.name)} ({link.kind}, {count:,} weights)"


def _answer(answer: Answer | None) -> str:
    """Return the note of what the model gives for one input."""
    if answer is None:
        return ""
    digits = 9 if answer.bound > _SINGLE else 17
    x, y = (
        ", ".join(f"{number:.{digits}g}" for number in a.reshape(-1)) for a in (answer.x, answer.y)
    )
    lines = [
        f"After reset, {answer.x.shape[1]} steps x = {x}",
        f"give y = {y}",
        f"to within {answer.bound:.2g}.",
    ]
    return _note(lines)


def _note(lines: Sequence[str]) -> str:
    """Return a paragraph of the head."""
    text = "\n".join(part for line in lines for part in textwrap.wrap(line, 90))
    return " *\n" + textwrap.indent(text, " * ") + "\n"


class Player(NamedTuple):
    """What a program has to know that runs a whole model of a header.

    Fields: `name`: what the names of its functions begin with; `inputs`, `outputs`: how many
    numbers a step takes and gives; `kind`: C's type of them; `answer`: what the header states.
    """

    name: str
    inputs: int
    outputs: int
    kind: str
    answer: Answer


def player(path: Path) -> Player | None:
    """Return what the header of a whole model states; None where it is of layers alone.

    Raises:
        NotAModel: it is not a header that was written here.
    """
    text = whole_text(SourceFile(path)).decode("ascii", errors="replace")
    head, _, rest = text.partition("*/")
    if not head.startswith("#ifndef LSTMCONVERT_"):
        raise NotAModel(
            "no C header that lstmconvert wrote",
            where=path,
            hint="other source files hold no model that is read here",
        )
    runs, stated = _RUNS.search(rest), _STATED.search(" ".join(head.replace("\n *", " ").split()))
    if runs is None or stated is None:
        return None
    inputs, outputs = int(runs["inputs"]), int(runs["outputs"])
    try:
        x, y = (np.array(stated[key].split(","), np.float64) for key in "xy")
        x, y = x.reshape(1, -1, inputs), y.reshape(1, -1, outputs)
        bound = float(stated["bound"])
    except ValueError:
        x, y, bound = np.zeros((1, 0, 1)), np.zeros((1, 1, 1)), 0.0
    if x.shape[1] != y.shape[1]:
        raise CorruptFile("its example is not of its functions", where=path)
    return Player(runs["name"], inputs, outputs, runs["kind"], Answer(x, y, bound))


#: The function of a whole model, and the example in the head.
_RUNS = re.compile(
    r"/\* Several steps: from x \(steps, (?P<inputs>\d{1,9})\) to y \(steps, "
    r"(?P<outputs>\d{1,9})\)\. \*/\n"
    r"static inline void (?P<name>\w+)_run\(\w+ \*s, const (?P<kind>float|double) \*x"
)
_FLOATS = r"[-+.,0-9e ]+"
_STATED = re.compile(
    rf"After reset, \d+ steps x = (?P<x>{_FLOATS}) give y = (?P<y>{_FLOATS}) "
    r"to within (?P<bound>[-+.0-9e]+)\."
)


def _chain_of(content: Writing) -> Chain | None:
    """Return the chain that the struct of states is for: a layer alone is one, too."""
    if content.chain is not None:
        return content.chain
    layers = [layer for _, layer in content.layers]
    if len(layers) != 1 or layers[0].backward is not None:
        return None
    (layer,) = layers
    link = Link(name=layer.name, kind="LSTM", inputs=layer.input_dim, outputs=layer.units,
                layer=layer)  # fmt: skip
    return Chain(inputs=layer.input_dim, links=(link,))


def _model_name(content: Writing) -> str:
    return identifier(content.name or "model")


def _usage(layer: LSTMLayer, content: Writing) -> str:
    places = {
        "id": identifier(content.name + layer.name),
        "type": _type(layer.forward.lstm_cells[0])[0],
        "inputs": layer.input_dim,
        "units": layer.units,
        "width": _width(layer),
        "zero": " = {0}",
    }
    usage = _USAGE
    if layer.backward is None and len(layer.forward.cells) == 1:
        usage += _STEP_USAGE
        if layer.forward.lstm_cells[0].parts:
            usage, places["zero"] = usage + _BEGIN_USAGE, ""
    return usage.format(**places)


def _width(layer: LSTMLayer) -> int:
    return sum(direction.units for _, direction in layer.directions)


def _check_new(names: list[str], seen: set[str], where: str) -> None:
    """Two directions of `lstm` and a layer `lstm_forward` would both have `lstm_forward_step`."""
    for name in names:
        if name in seen:
            raise UsageError(
                "two layers would have one name in C",
                where=where,
                found=name,
                hint="--prefix NAME puts a name before them; or convert them one by one with "
                "--layer, each to a header of its own",
            )
        seen.add(name)


def identifier(name: str) -> str:
    """Return a layer's name as a C identifier: `enc/lstm` is `enc_lstm`."""
    text = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_") or "lstm"
    return text if not text[0].isdigit() else f"lstm_{text}"


def _layer(layer: LSTMLayer, base: str, prefix: str, weights: str | None) -> Iterator[str]:
    both = layer.backward is not None
    width = _width(layer)
    runs, offset, kind = [], 0, ""
    for side, direction in layer.directions:
        cells = direction.lstm_cells
        states, steps, x, last = "", "", f"x + (size_t)t * {layer.input_dim}", ""
        for number, cell in enumerate(cells):
            ends = [*([side] if both else []), *(["cells", str(number)] if len(cells) > 1 else [])]
            name, kind = "_".join([base, *ends]), _type(cell)[0]
            start = prefix + "".join(f"{end}." for end in ends)
            yield from _cell(cell, layer, name, start, weights)
            k = str(number) if len(cells) > 1 else ""
            state = _BEGUN if cell.parts else _STATE
            states += state.format(type=kind, k=k, units=cell.units, id=name)
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
        id=base, type=kind, inputs=layer.input_dim, width=width, runs="".join(runs)
    )


def _cell(
    cell: Cell, layer: LSTMLayer, name: str, prefix: str, weights: str | None
) -> Iterator[str]:
    kind, end = _type(cell)
    for gate in GATES:
        for role in ("kernel", "recurrent_kernel", "bias"):
            tensor = cell.gates[gate].tensors.get(role)
            array = np.zeros(cell.units, cell.dtype) if tensor is None else tensor.read()
            key = f"{prefix}{gate}_gate.{role}"
            yield _array(key, f"{name}_{gate}_gate_{role}", array, layer.name, weights)
    for role, tensor in cell.parts.items():
        yield _array(f"{prefix}{role}", f"{name}_{role}", tensor.read(), layer.name)
    yield _functions(cell, name, kind, end)
    sums = ""
    for x, role, count in (("x", "kernel", cell.input_dim), ("h", "recurrent_kernel", cell.units)):
        arrays = {_SUMS[gate]: (f"{name}_{gate}_gate_{role}", "u") for gate in GATES}
        is_integers = _is_integers(role, (count, cell.units), cell.dtype, weights)
        sums += _sums(arrays, x, count, kind, is_integers=is_integers)
    yield _STEP.format(id=name, type=kind, units=cell.units, inputs=cell.input_dim, sums=sums)
    if cell.parts:
        stored = (state for state in ("hidden", "cell") if f"initial_{state}" in cell.parts)
        first = {"hidden": "0", "cell": "0"}
        first |= {state: f"LSTMCONVERT_READ({name}_initial_{state}[u])" for state in stored}
        yield _BEGIN.format(id=name, type=kind, units=cell.units, **first)


def _is_integers(role: str, shape: tuple[int, ...], dtype: DType, weights: str | None) -> bool:
    return weights is not None and quantized.is_smaller(role, shape, dtype, weights)


def _sums(
    arrays: Mapping[str, tuple[str, str]], x: str, count: int, kind: str, *, is_integers: bool
) -> str:
    """Return the loop that adds products of one vector to several sums.

    Args:
        arrays: sum -> the matrix, and which column of it.
        x: the vector, of `count` numbers.
        count: the rows of the matrices.
        kind: C's type of the sums.
        is_integers: whether the matrices have scales.
    """
    def loop(indent: str, end: str) -> str:
        products = "".join(
            f"{indent}  {name}{end} += {x}[k] * LSTMCONVERT_READ({matrix}[k][{column}]);\n"
            for name, (matrix, column) in arrays.items()
        )
        return f"{indent}for (int k = 0; k < {count}; ++k) {{\n{products}{indent}}}\n"

    if not is_integers:
        return loop("    ", "")
    zeros = ", ".join(f"{name}_sum = 0" for name in arrays)
    scaled = "".join(
        f"      {name} += {name}_sum * LSTMCONVERT_READ({matrix}_scale[{column}]);\n"
        for name, (matrix, column) in arrays.items()
    )
    return f"    {{\n      {kind} {zeros};\n{loop('      ', '_sum')}{scaled}    }}\n"


def _type(cell: Cell) -> tuple[str, str]:
    return _TYPES[name_of(cell.dtype)]  # the row allows no other


def _array(key: str, name: str, array: Array, layer: str, weights: str | None = None) -> str:
    """Return an array in C, as integers and scales where `weights` asks for them."""
    if not np.isfinite(array).all():
        raise UnsupportedByTarget(
            "C has no literals for NaN and infinity",
            where=layer,
            layer=layer,
            option="weights",
            target="c",
            found=key,
        )
    if weights is None or not _is_integers(key, array.shape, array.dtype, weights):
        return _table(key, name, array)
    made = quantized.quantized(array, weights)
    return _table(key, name, made.integers) + _table(key + _SCALE, f"{name}_scale", made.scales)


def _table(key: str, name: str, array: Array) -> str:
    kind, end = _TYPES.get(array.dtype.name) or (_INTEGERS[array.dtype.name], "")
    shape = "".join(f"[{size}]" for size in array.shape)
    data = _literals(array, end)
    declared = f"static const {kind} {name}{shape} LSTMCONVERT_FLASH"
    return f"\n/* {_spelled(key)} */\n{declared} = {data};\n"


def _literals(array: Array, end: str) -> str:
    if array.ndim == 1:
        return "{" + ", ".join(f"{x!s}{end}" for x in array) + "}"  # NumPy's fewest digits
    return "{\n  " + ",\n  ".join(_literals(part, end) for part in array) + "}"


def _spelled(key: str) -> str:
    """Return a tensor's name so that no name ends the comment, or leaves ASCII or the line."""
    return re.sub(r"[^!-)+-~]", lambda match: f"%{ord(match[0]):x};", key)


def _functions(cell: Cell, name: str, kind: str, end: str) -> str:
    roles = {"gate": "recurrent_activation", "activation": "activation"}
    values = {role: getattr(cell.options, option) for role, option in roles.items()}
    return "".join(_function(value, f"{name}_{role}", kind, end) for role, value in values.items())


def _function(value: Activation, name: str, kind: str, end: str) -> str:
    """Return a function of one number: known, and one of the row's."""
    constants = {key: f"{float(x)}{end}" for key, x in value.constants.items()}
    body = _FUNCTIONS[value.name].format(t=kind, f=end, **constants)
    return f"\nstatic inline {kind} {name}({kind} x) {{ {body} }}\n"


# ---- the other layers of a chain ----------------------------------------------------------------

_LINK = """
/* {kind}: from x ({inputs}) to y ({outputs}). */
static inline void {id}_step({state}const {type} *x, {type} *y) {{
{body}}}
"""
_BODIES = {
    "Dense": """\
  for (int u = 0; u < {outputs}; ++u) {{
    {type} sum = {bias};
{sums}    y[u] = {function}(sum);
  }}
{end}""",
    "Conv1D": """\
  for (int k = 0; k < {inputs}; ++k) past[*at * {inputs} + k] = x[k];
  for (int u = 0; u < {outputs}; ++u) {{
    {type} sum = {start};
    const int first = u / {group_outputs} * {group_inputs};
    for (int tap = 0; tap < {window}; ++tap) {{
      const {type} *then = past
          + (*at + {length} - ({window} - 1 - tap) * {dilation}) % {length} * {inputs};
      for (int k = 0; k < {group_inputs}; ++k)
        sum += then[first + k] * LSTMCONVERT_READ({id}_kernel[tap][k][u]);
    }}
{scaled}    y[u] = {function}(sum);
  }}
  *at = (*at + 1) % {length};
{end}""",
    "BatchNormalization": """\
  for (int u = 0; u < {outputs}; ++u) {{
    const {type} scale = {gamma} / sqrt{f}(LSTMCONVERT_READ({id}_moving_variance[u]) + {epsilon});
    y[u] = (x[u] - LSTMCONVERT_READ({id}_moving_mean[u])) * scale + {beta};
  }}
""",
    "LayerNormalization": """\
  {type} mean = 0, variance = 0;
  for (int u = 0; u < {outputs}; ++u) mean += x[u];
  mean /= {outputs};
  for (int u = 0; u < {outputs}; ++u) variance += (x[u] - mean) * (x[u] - mean);
  variance /= {outputs};
  for (int u = 0; u < {outputs}; ++u) {{
    const {type} scale = {gamma} / sqrt{f}(variance + {epsilon});
    y[u] = (x[u] - mean) * scale + {beta};
  }}
""",
    "PReLU": """\
  for (int u = 0; u < {outputs}; ++u) y[u] = x[u] < 0 ? {alpha} * x[u] : x[u];
""",
    "Activation": """\
  for (int u = 0; u < {outputs}; ++u) y[u] = {function}(x[u]);
{end}""",
    "GRU": """\
  for (int u = 0; u < {outputs}; ++u) {{
    {type} z = {bias_z}, r = {bias_r}, sum = {bias_h};
{sums}    update[u] = {id}_gate(z);
    reset[u] = {id}_gate(r);
    inner[u] = sum;
  }}
  for (int u = 0; u < {outputs}; ++u) {{
    {type} sum = {start_h};
    for (int k = 0; k < {outputs}; ++k)
      sum += {before}h[k] * LSTMCONVERT_READ({id}_recurrent_kernel[k][2 * {outputs} + u]);
{scaled}    y[u] = update[u] * h[u] + (1 - update[u]) * {function}(inner[u] + {after}sum);
  }}
  for (int u = 0; u < {outputs}; ++u) h[u] = y[u];
""",
}
#: A softmax of a whole row. No exp is of more than zero.
_SOFTMAX = """\
  {type} most = y[0], total = 0;
  for (int u = 1; u < {outputs}; ++u) most = fmax{f}(most, y[u]);
  for (int u = 0; u < {outputs}; ++u) total += y[u] = exp{f}(y[u] - most);
  for (int u = 0; u < {outputs}; ++u) y[u] /= total;
"""
_STREAMING = """
/* The states of the whole model. */
typedef struct {{
{states}}} {id}_state;

/* Begin a sequence. */
static inline void {id}_reset({id}_state *s) {{
{zeros}}}

/* One step of the whole model: from x ({inputs}) to y ({outputs}). */
static inline void {id}_step({id}_state *s, const {type} *x, {type} *y) {{
{steps}}}

/* Several steps: from x (steps, {inputs}) to y (steps, {outputs}). */
static inline void {id}_run({id}_state *s, const {type} *x, int steps, {type} *y) {{
  for (int t = 0; t < steps; ++t)
    {id}_step(s, x + (size_t)t * {inputs}, y + (size_t)t * {outputs});
}}
"""


def _link(link: Link, content: Writing) -> Iterator[str]:
    """Yield the arrays and the function of a layer that is not an LSTM."""
    name, (kind, end) = identifier(content.name + link.name), _type_of_chain(content)
    weights = None if content.rounded is None else content.rounded.kind
    for role in link.arrays:
        key = link.prefix + role
        yield _array(key, f"{name}_{role}", content.tensors[key].read(), link.name, weights)
    if link.kind == "GRU":
        yield _function(link.recurrent_activation, f"{name}_gate", kind, end)
    is_row = link.activation.name == "softmax"
    if not is_row and link.kind in ("Dense", "Conv1D", "Activation", "GRU"):
        yield _function(link.activation, f"{name}_function", kind, end)
    places = {
        "id": name, "type": kind, "f": end, "kind": link.kind,
        "inputs": link.inputs, "outputs": link.outputs,
        "function": "" if is_row else f"{name}_function",
        "bias": f"LSTMCONVERT_READ({name}_bias[u])" if "bias" in link.arrays else "0",
    }  # fmt: skip
    places |= _PLACES[link.kind](link, name, end) if link.kind in _PLACES else {}
    places |= _products(link, name, kind, str(places.get("bias", "0")), weights)
    places["end"] = _SOFTMAX.format(**places) if is_row else ""
    body = _BODIES[link.kind].format(**places)
    if link.kind == "GRU":
        width = link.outputs
        body = f"  {kind} update[{width}], reset[{width}], inner[{width}];\n{body}"
    state = {"Conv1D": f"{kind} *past, int *at, ", "GRU": f"{kind} *h, "}.get(link.kind, "")
    yield _LINK.format(**places, state=state, body=body)


def _products(
    link: Link, name: str, kind: str, bias: str, weights: str | None
) -> dict[str, object]:
    """Return the loops over the matrices of a link, and what goes with the scales of some."""

    def is_integers(role: str) -> bool:
        tensor = link.arrays.get(role)
        return tensor is not None and _is_integers(role, tensor.shape, tensor.dtype, weights)

    if link.kind == "Dense":
        arrays = {"sum": (f"{name}_kernel", "u")}
        return {"sums": _sums(arrays, "x", link.inputs, kind, is_integers=is_integers("kernel"))}
    if link.kind == "Conv1D":
        scaled = f"    sum = sum * LSTMCONVERT_READ({name}_kernel_scale[u]) + {bias};\n"
        has_scales = is_integers("kernel")
        return {"start": "0" if has_scales else bias, "scaled": scaled if has_scales else ""}
    if link.kind == "GRU":
        units = link.outputs
        columns = {"z": "u", "r": f"{units} + u", "sum": f"2 * {units} + u"}
        arrays = {gate: (f"{name}_kernel", column) for gate, column in columns.items()}
        sums = _sums(arrays, "x", link.inputs, kind, is_integers=is_integers("kernel"))
        has_scales, matrix = is_integers("recurrent_kernel"), f"{name}_recurrent_kernel"
        arrays = {gate: (matrix, columns[gate]) for gate in ("z", "r")}
        sums += _sums(arrays, "h", units, kind, is_integers=has_scales)
        scale = f"LSTMCONVERT_READ({matrix}_scale[{columns['sum']}])"
        scaled = f"    sum = sum * {scale} + {bias};\n"
        return {
            "sums": sums,
            "start_h": "0" if has_scales else bias,
            "scaled": scaled if has_scales else "",
        }
    return {}


def _convolution(link: Link, _: str, __: str) -> dict[str, object]:
    return {
        "window": link.window,
        "dilation": link.dilation,
        "length": _length(link),
        "group_inputs": link.inputs // link.groups,
        "group_outputs": link.outputs // link.groups,
    }


def _normalization(link: Link, name: str, end: str) -> dict[str, object]:
    return {
        "epsilon": f"{float(link.epsilon)}{end}",
        "gamma": f"LSTMCONVERT_READ({name}_gamma[u])" if "gamma" in link.arrays else "1",
        "beta": f"LSTMCONVERT_READ({name}_beta[u])" if "beta" in link.arrays else "0",
    }


def _slopes(link: Link, name: str, _: str) -> dict[str, object]:
    place = "[0][u]" if len(link.arrays["alpha"].shape) == 2 else "[u]"
    return {"alpha": f"LSTMCONVERT_READ({name}_alpha{place})"}


def _recurrent(link: Link, name: str, _: str) -> dict[str, object]:
    units, bias = link.outputs, link.arrays.get("bias")
    starts = {"z": "u", "r": f"{units} + u", "h": f"2 * {units} + u"}
    places: dict[str, object] = {}
    for gate, start in starts.items():
        if bias is None:
            terms = ["0"]
        elif len(bias.shape) == 1:
            terms = [f"LSTMCONVERT_READ({name}_bias[{start}])"]
        else:
            # That of the recurrent product of the candidate stands inside the reset gate.
            sides = (0,) if gate == "h" else (0, 1)
            terms = [f"LSTMCONVERT_READ({name}_bias[{side}][{start}])" for side in sides]
        places[f"bias_{gate}"] = " + ".join(terms)
    is_pair = bias is not None and len(bias.shape) == 2
    # The sum of the recurrent products of the candidate begins with this.
    places["bias"] = f"LSTMCONVERT_READ({name}_bias[1][{starts['h']}])" if is_pair else "0"
    places["before"] = "" if link.reset_after else "reset[k] * "
    places["after"] = "reset[u] * " if link.reset_after else ""
    return places


_PLACES: Mapping[str, Callable[[Link, str, str], dict[str, object]]] = {
    "Conv1D": _convolution,
    "BatchNormalization": _normalization,
    "LayerNormalization": _normalization,
    "PReLU": _slopes,
    "GRU": _recurrent,
}


def _length(link: Link) -> int:
    """How many steps a Conv1D keeps: those that it looks back, and this one."""
    return (link.window - 1) * link.dilation + 1


def _type_of_chain(content: Writing) -> tuple[str, str]:
    """Return C's type of all layers of a chain, and the suffix of its literals.

    Raises:
        UnsupportedByTarget: they have two.
    """
    kinds = sorted({name_of(tensor.dtype) for tensor in content.tensors.values()})
    if len(kinds) != 1:
        raise UnsupportedByTarget(
            "the layers of a chain have one dtype in C",
            where="the whole model",
            option="dtype",
            target="c",
            found=", ".join(kinds),
            hint=f"--dtype {kinds[-1]} casts all",
        )
    return _TYPES[kinds[0]]


def _streaming(chain: Chain, content: Writing) -> Iterator[str]:
    """Yield the struct of states, and the functions of the whole model."""
    kind, _ = _type_of_chain(content)
    states: dict[str, tuple[str, int]] = {}
    #: Those that begin with numbers of the model, and what sets them.
    stored: dict[str, tuple[str, int]] = {}
    begun = ""
    steps: list[str] = []
    x, count = "x", 0
    for index, link in enumerate(chain.links):
        name = identifier(content.name + link.name)
        is_last = index == len(chain.links) - 1
        if link.layer is not None:
            cells = link.layer.forward.lstm_cells
            for number, cell in enumerate(cells):
                place = f"{name}_cells_{number}" if len(cells) > 1 else name
                both = {f"{place}_{state}": (kind, cell.units) for state in "hc"}
                states |= both
                if cell.parts:
                    stored |= both
                    begun += f"  {place}_begin(s->{place}_h, s->{place}_c);\n"
                steps.append(f"  {place}_step({x}, s->{place}_h, s->{place}_c);\n")
                x = f"s->{place}_h"
            if is_last:
                steps.append(f"  for (int u = 0; u < {link.outputs}; ++u) y[u] = {x}[u];\n")
            continue
        given = ""
        if link.kind == "Conv1D":
            states[f"{name}_past"] = (kind, _length(link) * link.inputs)
            states[f"{name}_at"] = ("int", 1)
            given = f"s->{name}_past, s->{name}_at, "
        elif link.kind == "GRU":
            states[f"{name}_h"] = (kind, link.outputs)
            given = f"s->{name}_h, "
        y = "y" if is_last else f"v{count}"
        if not is_last:
            steps.append(f"  {kind} {y}[{link.outputs}];\n")
            count += 1
        steps.append(f"  {name}_step({given}{x}, {y});\n")
        x = y
    if chain.skip:
        steps.append(f"  for (int u = 0; u < {chain.outputs}; ++u) y[u] += x[u];\n")
    fields = "".join(f"  {of} {state}[{size}];\n" for state, (of, size) in states.items())
    zeros = "".join(
        f"  for (int u = 0; u < {size}; ++u) s->{state}[u] = 0;\n"
        for state, (_, size) in states.items()
        if state not in stored
    )
    yield _STREAMING.format(
        id=_model_name(content), type=kind, states=fields, steps="".join(steps),
        zeros=zeros + begun,
        inputs=chain.inputs, outputs=chain.outputs,
    )  # fmt: skip


def read(file: Opened) -> Arrays:
    """Read the arrays of a header that `write` wrote, to compare them with what was meant."""
    tensors: dict[str, Tensor] = {}
    for match in _ARRAY.finditer(whole_text(file.source).decode("ascii")):
        shape = tuple(int(size) for size in re.findall(r"\d+", match["shape"]))
        dtype = dtype_of(_DTYPES[match["type"]])
        array = np.array([dtype.type(text) for text in _NUMBER.findall(match["data"])], dtype)
        name = re.sub(r"%([0-9a-f]+);", lambda m: chr(int(m[1], 16)), match["name"])
        if name.endswith(_SCALE):
            # The scales follow their integers.
            integers = tensors[name.removesuffix(_SCALE)].read()
            name, numbers = name.removesuffix(_SCALE), quantized.Quantized(integers, array).numbers
            tensors[name] = ArrayTensor(numbers)
        else:
            tensors[name] = ArrayTensor(array.reshape(shape))
    return Arrays(tensors, {})

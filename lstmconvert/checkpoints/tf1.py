"""The cells of TensorFlow 1 in a checkpoint, by the names of their variables.

    rnn/basic_lstm_cell/kernel                        (input_dim + recurrent_dim, 4 * units), bias
    rnn/multi_rnn_cell/cell_0/lstm_cell/kernel        a stack
    bidirectional_rnn/fw/lstm_cell/kernel, …/bw/…     two directions
    …/w_i_diag, w_f_diag, w_o_diag                    peepholes (units,)
    …/projection/kernel, …/projection/bias            (units, projected)
    …/input/gamma, …/input/beta, …                    LayerNormBasicLSTMCell
    RNN/MultiRNNCell/Cell0/BasicLSTMCell/Linear/Matrix    the same in TensorFlow 0.x
    BiRNN_FW/LSTMCell/W_0, BiRNN/FW/LSTMCell/W_0

Which scopes are cells, `cellnames` finds out.

One matrix holds the input's rows, then the state's; its gates lie in the order i c f o
(tensorflow/python/ops/rnn_cell_impl.py, `BasicLSTMCell.call`: i, j, f, o). A forget bias is added
at run time and stored nowhere, nor are the activation and the clip of the cell state.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from lstmconvert.activations import SIGMOID, TANH
from lstmconvert.checkpoints import cellnames
from lstmconvert.checkpoints.cellnames import Evidence, Scope
from lstmconvert.errors import CorruptFile
from lstmconvert.gates import Gate, by_letters, columns
from lstmconvert.layer import Cell, Direction, GateWeights, LSTMLayer
from lstmconvert.naming import layer_names
from lstmconvert.options import UNKNOWN, CellOptions, DirectionOptions
from lstmconvert.tensors import Columns, Rows, Tensor

ORDER = by_letters("icfo")
_NOT_STORED = (
    "TensorFlow 1 stores neither forget_bias (its default is 1.0), nor activation (tanh), nor "
    "cell_clip (none; LSTMBlockCell 3.0): unknown until --set forget_bias=1.0 and so on"
)
_SHOWN = 8
_TAKE_THEM = "if it is an LSTM cell, say so: --from tf1 (and name the layers with --layer)"

_STACK = re.compile(
    r"(?:(?P<outer>.*)/)?multi_?rnn_?cell(?:_\d+)?/cell_?(?P<index>\d{1,6})(?:/rnn)?",
    re.DOTALL | re.IGNORECASE,
)
_HALF = re.compile(
    r"(?:(?P<outer>.*)/)?(?:(?P<joined>BiRNN)_)?(?P<half>fw|bw)", re.DOTALL | re.IGNORECASE
)
_NORMS = {"input": Gate.INPUT, "transform": Gate.CELL, "forget": Gate.FORGET, "output": Gate.OUTPUT}
#: The CPU twin of cuDNN's LSTM: its checkpoints have no forget bias, and these functions.
_CUDNN = "cudnncompatiblelstmcell"


@dataclass(frozen=True, slots=True)
class Read:
    """What the variables of a checkpoint are.

    Fields: `layers`, sorted by name; `used`: the keys of their variables; `guessed`: scopes that
    are cells by their arrays and place, whatever their name; `open`: scopes that may be.
    """

    layers: tuple[LSTMLayer, ...]
    used: frozenset[str]
    guessed: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    outer: str
    half: str
    index: int


#: Half -> number in its stack -> cell.
_Halves = Mapping[str, Mapping[int, Cell]]


def read(tensors: Mapping[str, Tensor], where: object, *, takes_open: bool = False) -> Read:
    """Return the LSTM layers among a checkpoint's variables.

    Args:
        tensors: the variables, by name.
        where: for errors.
        takes_open: whether what has a cell's arrays is one, whatever its name and place.

    Raises:
        CorruptFile: the arrays of a cell do not fit each other.
    """
    found = list(cellnames.scopes(tensors, where))
    chained = _chained(found)
    known: list[Scope] = []
    unknown: list[str] = []
    guessed: list[str] = []
    for scope in found:
        if scope.evidence is Evidence.OPEN and not takes_open and scope.path not in chained:
            unknown.append(scope.path)
            continue
        known.append(scope)
        if scope.evidence is not Evidence.NAME and not takes_open:
            guessed.append(scope.path)
    used: set[str] = set()
    cells: dict[str, Cell] = {}
    for scope in known:
        cells[scope.path] = _cell(tensors, scope, where, used)
    return Read(_layers(cells), frozenset(used), tuple(guessed), tuple(unknown))


def notes(found: Read) -> tuple[str, ...]:
    """Return what the user should know of the cells."""
    cells = [cell for layer in found.layers for _, _, cell in layer.cells()]
    result = []
    if any(cell.options.forget_bias is UNKNOWN for cell in cells):
        result.append(_NOT_STORED)
    if found.guessed:
        taken = "taken for LSTM cells by arrays and place, not by name"
        result.append(f"{taken}: {_listed(found.guessed)}")
    near = [path for path in found.open if cellnames.is_run(path)]
    if near:
        kept = "kept among the other tensors, though it has the arrays of an LSTM cell"
        result.append(f"{kept}: {_listed(near)}; {_TAKE_THEM}")
    return tuple(result)


def open_hint(found: Read) -> str | None:
    """Return what to do where nothing is surely a cell, if something may be."""
    if not found.open:
        return None
    return f"the arrays of an LSTM cell, or of a Dense layer: {_listed(found.open)}; {_TAKE_THEM}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _chained(found: list[Scope]) -> set[str]:
    """Return the scopes that their neighbours show to be LSTM cells, as they fit no other cell of
    the same arrays: each cell of a stack as wide as the next one's input, and two halves of other
    widths, or one of them a cell for sure, with one input."""
    stacks: dict[tuple[str, str], dict[int, Scope]] = {}
    for scope in found:
        outer = scope.path.rpartition("/")[0]
        if scope.fits:
            place = _place(outer)
            stacks.setdefault((place.outer, place.half), {})[place.index] = scope
    chained: set[str] = set()
    for (outer, half), stack in stacks.items():
        cells = [stack[index] for index in sorted(stack)]
        if len(cells) > 1 and _is_chain([(scope.inputs, _outputs(scope)) for scope in cells]):
            chained |= {scope.path for scope in cells}
        other = stacks.get((outer, "backward" if half == "forward" else "forward"), {})
        for index in stack.keys() & other.keys():
            one, two = stack[index], other[index]
            is_sure = two.evidence is not Evidence.OPEN or one.units != two.units
            if is_sure and one.inputs == two.inputs:
                chained.add(one.path)
    return chained


def _outputs(scope: Scope) -> int:
    return scope.kernel.shape[0] - scope.inputs


def _is_chain(sizes: list[tuple[int, int]]) -> bool:
    return all(before == after for (_, before), (after, _) in pairwise(sizes))


def _layers(cells: Mapping[str, Cell]) -> tuple[LSTMLayer, ...]:
    found: dict[str, dict[str, dict[int, Cell]]] = {}
    for path, place in _places(cells).items():
        found.setdefault(place.outer, {}).setdefault(place.half, {})[place.index] = cells[path]
    whole = dict(chain.from_iterable(_separated(path, halves) for path, halves in found.items()))
    names = layer_names(whole)
    return tuple(
        _layer(name, path, halves)
        for name, (path, halves) in zip(names, whole.items(), strict=True)
    )


def _places(paths: Iterable[str]) -> dict[str, _Place]:
    """Return where each cell is: cells side by side in one scope are layers of their own."""
    places = {path: _place(path.rpartition("/")[0] or path) for path in paths}
    counts = Counter(places.values())
    return {
        path: place if counts[place] == 1 else _below(place, path.rpartition("/")[2])
        for path, place in places.items()
    }


def _below(place: _Place, name: str) -> _Place:
    return _Place(f"{place.outer}/{name}", place.half, place.index)


def _separated(path: str, halves: _Halves) -> Iterator[tuple[str, _Halves]]:
    """Yield the layers at a place. Where something else lies between the cells of a stack, or is
    joined to their inputs, each is a layer of its own, and so is a backward half alone."""
    if not all(map(_is_stack, halves.values())):
        for index in sorted({index for cells in halves.values() for index in cells}):
            one = {half: {0: cells[index]} for half, cells in halves.items() if index in cells}
            yield from _separated(f"{path}/cell_{index}", one)
    elif "forward" not in halves:
        yield f"{path}/bw", {"forward": halves["backward"]}
    else:
        yield path, halves


def _is_stack(cells: Mapping[int, Cell]) -> bool:
    sizes = [(cells[index].input_dim, cells[index].recurrent_dim) for index in sorted(cells)]
    return sorted(cells) == list(range(min(cells), min(cells) + len(cells))) and _is_chain(sizes)


def _place(scope: str) -> _Place:
    index, half = 0, "forward"
    stack = _STACK.fullmatch(scope)
    if stack is not None:
        scope, index = stack["outer"] or "multi_rnn_cell", int(stack["index"])
    found = _HALF.fullmatch(scope)
    if found is not None:
        half = "forward" if found["half"].lower() == "fw" else "backward"
        scope = "/".join(filter(None, (found["outer"], found["joined"]))) or "bidirectional_rnn"
    return _Place(scope, half, index)


def _layer(name: str, path: str, halves: _Halves) -> LSTMLayer:
    directions = {
        half: Direction(
            cells=tuple(cells[index] for index in sorted(cells)),
            options=DirectionOptions(
                # `bidirectional_dynamic_rnn` reverses the input of the one half.
                go_backwards=half == "backward" if len(halves) > 1 else UNKNOWN,
                time_major=UNKNOWN,
            ),
        )
        for half, cells in halves.items()
    }
    stacked = any(len(direction.cells) > 1 for direction in directions.values())
    return LSTMLayer(
        name=name,
        path=path,
        class_name="Bidirectional" if len(halves) > 1 else "RNN" if stacked else "LSTM",
        forward=directions["forward"],
        backward=directions.get("backward"),
    )


def _cell(
    tensors: Mapping[str, Tensor], scope: Scope, where: object, used: set[str]
) -> Cell:
    """Return a cell, and add the keys of its variables to `used`."""
    kernel, bias = scope.kernel, scope.bias
    if not scope.fits:
        raise CorruptFile(
            "not the arrays of one LSTM cell",
            where=f"{where}: {scope.path}",
            found=f"kernel {kernel.shape}, bias {bias.shape if bias is not None else 'none'}",
            expected="kernel (input_dim + recurrent_dim, 4*units), bias (4*units,)",
        )
    fused: dict[str, Tensor] = {
        "kernel": Rows(kernel, 0, scope.inputs),
        "recurrent_kernel": Rows(kernel, scope.inputs, kernel.shape[0]),
    }
    used |= scope.keys
    if bias is not None:
        fused["bias"] = bias
        used.add(f"{scope.path}/{scope.spelling.bias}")
    gates: dict[Gate, dict[str, Tensor]] = {
        gate: {
            part: Columns(base, *columns(gate, scope.units, ORDER)) for part, base in fused.items()
        }
        for gate in Gate
    }
    _add_gate_parts(gates, tensors, scope, where, used)
    return Cell(
        gates={gate: GateWeights(gate, gates[gate]) for gate in Gate},
        options=_options(scope.path, bias is not None, scope.projection is not None),
        parts=dict(_parts(tensors, scope, used)),
    )


def _options(scope: str, use_bias: bool, projects: bool) -> CellOptions:
    if scope.rpartition("/")[2].replace("_", "").lower().startswith(_CUDNN):
        return CellOptions(activation=TANH, recurrent_activation=SIGMOID, use_bias=use_bias)
    return CellOptions(
        recurrent_activation=SIGMOID,  # every cell of TensorFlow 1 has it built in
        use_bias=use_bias,
        forget_bias=UNKNOWN,
        cell_clip=UNKNOWN,
        projection_clip=UNKNOWN if projects else None,
    )


def _parts(
    tensors: Mapping[str, Tensor], scope: Scope, used: set[str]
) -> Iterator[tuple[str, Tensor]]:
    if scope.projection is not None:
        yield "projection", scope.projection
    names = {
        "projection_bias": scope.spelling.projection_bias,
        "state_norm": "state/gamma",
        "state_norm_bias": "state/beta",
    }
    for part, name in names.items():
        key = f"{scope.path}/{name}"
        if name and key in tensors:
            used.add(key)
            yield part, tensors[key]


def _add_gate_parts(
    gates: Mapping[Gate, dict[str, Tensor]],
    tensors: Mapping[str, Tensor],
    scope: Scope,
    where: object,
    used: set[str],
) -> None:
    wanted = [(gate, "peephole", name) for name, gate in scope.spelling.peepholes.items()]
    for name, gate in _NORMS.items():
        wanted.append((gate, "layer_norm", f"{name}/gamma"))
        wanted.append((gate, "layer_norm_bias", f"{name}/beta"))
    for gate, part, name in wanted:
        key = f"{scope.path}/{name}"
        if key not in tensors:
            continue
        if tensors[key].shape != (scope.units,):
            raise CorruptFile(
                f"a {part} of another size than its cell",
                where=f"{where}: {key}",
                found=str(tensors[key].shape),
                expected=f"({scope.units},)",
            )
        used.add(key)
        gates[gate][part] = tensors[key]

"""Which variables of a checkpoint without an object graph are cells of TensorFlow 1.

A cell is a scope of variables, spelled as its version of TensorFlow did:

    kernel, bias, w_i_diag, projection/kernel           1.2 on
    weights, biases, projection/weights                 1.0 and 1.1
    W_0, W_1 (rows), B, W_I_diag, W_P_0                 LSTMCell of 0.x
    Linear/Matrix, Linear/Bias                          BasicLSTMCell of 0.x

(tensorflow/contrib/rnn/python/tools/checkpoint_convert.py maps the old names to the new.) The scope
may have any name, and a Dense layer has arrays of the same shapes. So what a scope is goes by the
name that TensorFlow gives a cell by itself; else by arrays that only an LSTM has; else by the place
where `dynamic_rnn`, `MultiRNNCell` and `bidirectional_dynamic_rnn` make a cell's variables, if the
shapes allow no other cell. What stays open is left to the user.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from lstmconvert.gates import Gate
from lstmconvert.tensorflow.partitioned import Partitioned, Piece
from lstmconvert.tensors import Tensor

GATE_COUNT = 4
_WITH_PEEPHOLE = (Gate.INPUT, Gate.FORGET, Gate.OUTPUT)


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a version named a cell's variables.

    Fields: `kernel`, `bias`, `projection`, `projection_bias`; `diagonal`, with `{}` for the gate.
    """

    kernel: str
    bias: str
    projection: str
    projection_bias: str
    diagonal: str = "w_{}_diag"

    @property
    def peepholes(self) -> dict[str, Gate]:
        """Variable -> gate."""
        letters = {gate.letter: gate for gate in _WITH_PEEPHOLE}
        if self.diagonal[0].isupper():
            letters = {letter.upper(): gate for letter, gate in letters.items()}
        return {self.diagonal.format(letter): gate for letter, gate in letters.items()}


SPELLINGS = (
    Spelling("kernel", "bias", "projection/kernel", "projection/bias"),
    Spelling("weights", "biases", "projection/weights", "projection/biases"),
    Spelling("W_0", "B", "W_P_0", "", "W_{}_diag"),
    Spelling("Linear/Matrix", "Linear/Bias", "", ""),
)
_NORMS = ("input/gamma", "state/gamma")
_SHARD = re.compile(r"(W|W_P)_0")

#: Names that TensorFlow gives its LSTM cells by itself: lstm_cell_1, BasicLSTMCell, …
_LSTM = re.compile(r"\w*lstm\w*cell\d*")
#: Its cells of that name that compute something else.
_OTHER_LSTM = re.compile(
    r"\w*(coupledinputforgetgate|phased|grid|timefreq|conv|weightnorm|group|glstm)\w*"
)
#: What else may lie where a cell's variables lie: other cells, wrappers of cells, layers.
_OTHER = re.compile(
    r"(basicrnn|gru|grublock|ugrnn|nas|intersectionrnn|indrnn|attention)\w*cell\w*|nasrnn"
    r"|\w*projection\w*|\w*wrapper|gates|candidate|\w*attention\w*|\w*dense\d*|\w*linear\d*"
    r"|\w*conv\w*|\w*layer\d*|fullyconnected\d*|fc\d*|\w*out(put)?\d*|\w*softmax\w*|\w*logits\w*"
)
#: A user's name that says it: lstm, my_lstm_2, lstm_fw.
_SAYS_LSTM = re.compile(r"\w*lstm(fw|bw|forward|backward)?\d*")
#: Scopes that run a cell.
_RUNNERS = re.compile(
    r"(\w+_)?rnn(_\d+)?|cell_?\d+|(\w+_)?(fw|bw)|attention_wrapper(_\d+)?", re.IGNORECASE
)


class Evidence(Enum):
    """How a scope is known to be a cell."""

    NAME = "its name"
    SHAPES = "its arrays and their place"
    OPEN = "nothing: it may be another cell, or a Dense layer"


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope that has the arrays of a cell.

    Fields: `path`; `kernel` (input_dim + recurrent_dim, 4 * units); `bias`, `projection`, if it has
    them; `spelling`; `keys` of the variables that these are; `evidence`.
    """

    path: str
    kernel: Tensor
    bias: Tensor | None
    projection: Tensor | None
    spelling: Spelling
    keys: frozenset[str]
    evidence: Evidence = field(default=Evidence.NAME)

    @property
    def units(self) -> int:
        """The width of the cell state, if it is a cell."""
        return self.kernel.shape[1] // GATE_COUNT

    @property
    def inputs(self) -> int:
        """The width of the input, if it is a cell."""
        state = self.projection.shape[-1] if self.projection is not None else self.units
        return self.kernel.shape[0] - state

    @property
    def fits(self) -> bool:
        """Whether the shapes are those of an LSTM cell."""
        bias, columns = self.bias, self.kernel.shape[1]
        of_projection = self.projection is None or self.projection.shape[:1] == (self.units,)
        return (
            columns > 0
            and columns % GATE_COUNT == 0
            and self.inputs > 0
            and of_projection
            and (bias is None or bias.shape == (columns,))
        )


def scopes(tensors: Mapping[str, Tensor], where: object) -> Iterator[Scope]:
    """Yield every scope that is a cell, or may be one, sorted by path.

    Raises:
        CorruptFile: the shards of a kernel are of several dtypes.
    """
    found: dict[str, Scope] = {}
    for key in sorted(tensors):
        for spelling in SPELLINGS:
            path = key.removesuffix(f"/{spelling.kernel}")
            if path == key or path in found:
                continue
            scope = _scope(tensors, path, spelling, where)
            if scope is not None:
                found[path] = scope
    yield from (found[path] for path in sorted(found))


def _scope(
    tensors: Mapping[str, Tensor], path: str, spelling: Spelling, where: object
) -> Scope | None:
    bias = tensors.get(f"{path}/{spelling.bias}")
    has_norms = any(f"{path}/{norm}" in tensors for norm in _NORMS)
    if f"{path}/recurrent_kernel" in tensors or (bias is None and not has_norms):
        return None
    joined = _joined(tensors, f"{path}/{spelling.kernel}", where)
    if joined is None:
        return None
    (kernel, keys), projection = joined, None
    if spelling.projection and f"{path}/{spelling.projection}" in tensors:
        joined = _joined(tensors, f"{path}/{spelling.projection}", where)
        if joined is None:
            return None
        projection, keys = joined[0], keys | joined[1]
    own = Scope(path, kernel, bias, projection, spelling, frozenset(keys))
    evidence = _evidence(own, tensors)
    return None if evidence is None else replace(own, evidence=evidence)


def _joined(
    tensors: Mapping[str, Tensor], key: str, where: object
) -> tuple[Tensor, set[str]] | None:
    """Return a matrix, and its keys: all of its rows, where 0.x cut it into shards. None if it is
    none, or its shards are no parts of one."""
    scope, _, leaf = key.rpartition("/")
    match = _SHARD.fullmatch(leaf)
    if match is None or f"{scope}/{match[1]}_1" not in tensors:
        return (tensors[key], {key}) if len(tensors[key].shape) == 2 else None
    keys: list[str] = []
    while f"{scope}/{match[1]}_{len(keys)}" in tensors:
        keys.append(f"{scope}/{match[1]}_{len(keys)}")
    shards = [tensors[one] for one in keys]
    if any(len(shard.shape) != 2 or shard.shape[1:] != shards[0].shape[1:] for shard in shards):
        return None
    whole = (sum(shard.shape[0] for shard in shards), shards[0].shape[1])
    pieces, row = [], 0
    for shard in shards:
        pieces.append(Piece((row, 0), shard, whole))
        row += shard.shape[0]
    dtype = shards[0].dtype
    return Partitioned(whole, dtype, tuple(pieces), f"{where}: {key}"), set(keys)


def _evidence(scope: Scope, tensors: Mapping[str, Tensor]) -> Evidence | None:
    plain = scope.path.rpartition("/")[2].replace("_", "").lower()
    if _LSTM.fullmatch(plain):
        return None if _OTHER_LSTM.fullmatch(plain) else Evidence.NAME
    if not scope.fits or _OTHER.fullmatch(plain):
        return None
    has_diagonals = any(f"{scope.path}/{leaf}" in tensors for leaf in scope.spelling.peepholes)
    if has_diagonals or scope.projection is not None or scope.bias is None:
        return Evidence.SHAPES
    # A BasicRNNCell has (input_dim + units, units) there: more rows than columns.
    is_alone = scope.kernel.shape[0] <= scope.kernel.shape[1]
    if _SAYS_LSTM.fullmatch(plain) or (is_alone and is_run(scope.path)):
        return Evidence.SHAPES
    return Evidence.OPEN


def is_run(path: str) -> bool:
    """Whether a scope lies where a cell's would."""
    outer = path.rpartition("/")[0]
    return _RUNNERS.fullmatch(outer.rpartition("/")[2]) is not None

"""The options of a conversion, and its result.

The options of `save` and `convert` are listed here alone, as data classes. Type checkers know
keywords by typed dictionaries only: `tests/support/write_guide.py` writes these from the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    TypedDict,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from lstmconvert.errors import UsageError, close_to

if TYPE_CHECKING:
    from lstmconvert.files.jsontext import Json, JsonObject
    from lstmconvert.model.model import Model

VERSION = 1
#: How warnings begin that tell of assumptions: after a layer's name, and of all layers.
ASSUMED = "assumed, as "
DEFAULTED = "unknown, and written as Keras's defaults: "
F = TypeVar("F", bound=Callable[..., Any])
O = TypeVar("O", bound="Options")  # noqa: E741  # a type


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a model is written: what `save`, `convert` and `convert_many` take by name.

    Fields:
        layout: how the gates are arranged: `gates`, `keras`, `torch`, … (`formats()` lists them);
            None: as is usual in that kind of file.
        dtype: cast the LSTM weights: `float16`, `bfloat16`, `float32` or `float64`.
        lstm_only: leave out all that belongs to no LSTM layer.
        with_other: carry the other layers' tensors also in a framework's layout.
        with_optimizer: carry the optimizer's tensors too.
        bare: without the layer's name before the framework's, where there is one layer.
        stacks: `NAME=a,b` texts: the layers a and b become one of two layers.
        rescale_hard_sigmoid: for Keras before 3.10, multiply the sigmoid gates by 1.2 (rounds).
        era: for Keras's files, the Keras that opens what is written: `keras3`, or `keras2` for a
            file of Keras 2 that goes back into its own kind of file; None: as the source where it
            goes back, else Keras 3.
        for_keras: for Keras's files, the release of Keras 3 that opens what is written, as `3.3`;
            where Keras 2's hard_sigmoid needs a later one, weights are rescaled (rounds).
        keep_custom: for Keras's files, write layers of the user's own classes as they stand.
        weights_of: `CLASS=attribute,attribute` texts: under which attributes a class of the user's
            own holds the layers whose weights these are, in the order of its weights.
        replace: `LAYER=FILE.json` texts, where the file holds the config of a layer of Keras that
            takes the layer's place and weights, and `LAYER=EXPRESSION` texts, as
            `squeeze=ops.squeeze(x, -1)`, for a Lambda.
        no_compile: for Keras's files, leave out what the model was compiled with: its optimizer,
            loss and metrics.
        fused: for ONNX, write W, R and B instead of one tensor a gate.
        chain: for ONNX, connect layers that feed one another.
        opset: for ONNX, the version of the operators.
        state_inputs: for ONNX, make the initial states inputs of the graph.
        length_input: for ONNX, make the lengths of the sequences an input.
        whole: for ONNX, write the graph of the whole model, not of its LSTM layers alone.
        fold_batchnorm: where the target holds a chain of layers, put each BatchNormalization into
            the weights of a layer next to it, which rounds them.
        check: store one input and what the model gives for it, for `verify`.
        prefix: for C, what every name in the header begins with.
        weights: for C, write matrices as integers with scales: `int16` or `int8`. It rounds.
        force: replace an existing destination.
        allow_lossy: write also what the target cannot express in full, and declare the loss.
        dry_run: write nothing, and return what would be written.
    """

    layout: str | None = None
    dtype: str | None = None
    lstm_only: bool = False
    with_other: bool = False
    with_optimizer: bool = False
    bare: bool = False
    stacks: Sequence[str] = ()
    rescale_hard_sigmoid: bool = False
    era: str | None = None
    for_keras: str | None = None
    keep_custom: bool = False
    weights_of: Sequence[str] = ()
    replace: Sequence[str] = ()
    no_compile: bool = False
    fused: bool = False
    chain: bool = False
    opset: int | None = None
    state_inputs: bool = False
    length_input: bool = False
    whole: bool = False
    check: bool = False
    fold_batchnorm: bool = False
    prefix: str | None = None
    weights: str | None = None
    force: bool = False
    allow_lossy: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Options):
    """How a file is converted: how it is written, and before that read.

    Fields, in addition to those of `Options`:
        layers: the names of the layers to convert; none: all.
        from_layout: the layout of the source, where its file does not say it.
        config: a file with the model's config, for what the file itself does not say.
        settings: `[LAYER.]OPTION=VALUE` texts, for options that no file says.
        into: a file whose layers get the source's weights, and of which all else goes into the
            destination as it is: its config, its other layers, its optimizer.
    """

    layers: Collection[str] = ()
    from_layout: str | None = None
    config: str | Path | None = None
    settings: Sequence[str] = ()
    into: str | Path | None = None


# generated: options
class SaveOptions(TypedDict, total=False):
    """The options that `save` takes by name. `Options` explains them."""

    layout: str | None
    dtype: str | None
    lstm_only: bool
    with_other: bool
    with_optimizer: bool
    bare: bool
    stacks: Sequence[str]
    rescale_hard_sigmoid: bool
    era: str | None
    for_keras: str | None
    keep_custom: bool
    weights_of: Sequence[str]
    replace: Sequence[str]
    no_compile: bool
    fused: bool
    chain: bool
    opset: int | None
    state_inputs: bool
    length_input: bool
    whole: bool
    check: bool
    fold_batchnorm: bool
    prefix: str | None
    weights: str | None
    force: bool
    allow_lossy: bool
    dry_run: bool


class ConvertOptions(SaveOptions, total=False):
    """The options that `convert` takes by name: those of `save`, and these."""

    layers: Collection[str]
    from_layout: str | None
    config: str | Path | None
    settings: Sequence[str]
    into: str | Path | None


# end


def checked(kind: type[O], options: Mapping[str, object]) -> O:
    """Return options that a caller gave by name as one object.

    Args:
        kind: `Options`, or `Request`.
        options: name -> value.

    Raises:
        UsageError: an option is unknown, or its value is of the wrong type.
    """
    hints = _hints(cast("Any", kind))
    for name, value in options.items():
        if name not in hints:
            raise _no_option(name, hints)
        if not _fits(value, hints[name]):
            raise UsageError(
                f"the option {name} is of another type",
                found=f"{value!r:.60}",
                expected=_in_words(hints[name]),
            )
    made: Any = kind  # whose types were checked above
    return cast("O", made(**options))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of options by name: evaluated once, and not for each file of a batch."""
    return get_type_hints(kind)


def _no_option(name: str, names: Collection[str]) -> UsageError:
    return UsageError(
        "no such option",
        found=name,
        expected=", ".join(names),
        hint=close_to(name, names),
    )


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of the type that an option's annotation says."""
    kind = get_origin(hint)
    if kind is UnionType:
        return any(_fits(value, each) for each in get_args(hint))
    if kind is not None:  # a sequence or collection of texts, and not one text
        is_several = isinstance(value, kind) and not isinstance(value, (str, Mapping))
        return is_several and all(isinstance(item, get_args(hint)) for item in value)  # type: ignore[attr-defined]  # it is one
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


_WORDS = {bool: "True or False", int: "a whole number", str: "a text", NoneType: "None"}


def _in_words(hint: Any) -> str:
    kind = get_origin(hint)
    if kind is UnionType:
        return " or ".join(map(_in_words, get_args(hint)))
    return "several texts, as a list" if kind is not None else _WORDS.get(hint, hint.__name__)


#: Options that do not change what is written.
_NO_MATTER = frozenset({"force", "dry_run"})


def made_with(how: Options) -> JsonObject:
    """Return the options that decide what is written, as JSON: those that differ from the defaults.

    Of a file its hash is told, and not where it is.

    Raises:
        SourceError: such a file cannot be read.
    """
    names, values = _values(cast("Any", type(how)))
    return {
        name: _plain(name, value)
        for name, value in zip(names, values(how), strict=True)
        if value and name not in _NO_MATTER
    }


@cache
def _values(kind: Any) -> tuple[list[str], Callable[[Any], tuple[Any, ...]]]:
    """Return the names of options, sorted, and what takes all their values."""
    names = sorted(_hints(kind))
    return names, attrgetter(*names)


#: Options that are paths of files.
_FILES = frozenset({"config", "into"})


def _plain(name: str, value: Any) -> Json:
    if name in _FILES:
        from lstmconvert.files import opening  # rarely needed: start-up is faster without

        return {"sha256": opening.digest_of(Path(value))}
    if isinstance(value, (bool, int, str)):
        return value
    return sorted(value) if isinstance(value, Set) else list(value)


def takes(kind: type[Options]) -> Callable[[F], F]:
    """Show the options of a function one by one to `help()` and to completion at the prompt.

    Args:
        kind: the data class that holds them; the function has them as `**options`.
    """

    def decorate(function: F) -> F:
        from inspect import Parameter, signature

        shown = signature(function)
        positional = [p for p in shown.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        options = [
            Parameter(
                field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
            )
            for field in sorted(fields(kind), key=lambda field: field.name)
        ]
        function.__signature__ = shown.replace(parameters=[*positional, *options])  # type: ignore[attr-defined]  # read by `inspect`
        return function

    return decorate


#: A release of Keras: (3, 10) is 3.10.
Release = tuple[int, int]


def shown(release: Release) -> str:
    """Return a release as people write it: `3.10`."""
    return ".".join(map(str, release))


class Reason(NamedTuple):
    """Why a config needs a release: the name of the layer; what is in it; the first release that
    has it."""

    layer: str
    what: str
    release: Release


class Opens(NamedTuple):
    """The first release of Keras 3 that opens a file, and what an older one does not have."""

    release: Release
    reasons: tuple[Reason, ...]

    @property
    def text(self) -> str:
        """In one line: `opens in Keras 3.10 and later, for … (lstm); --for-keras writes …`."""
        layers: dict[str, list[str]] = {}
        for reason in self.reasons:
            layers.setdefault(reason.what, []).append(reason.layer)
        listed = [f"{what} ({_some(names)})" for what, names in list(layers.items())[:_SHOWN]]
        listed += [f"{len(layers) - _SHOWN} more"] if len(layers) > _SHOWN else []
        why = f", for {', '.join(listed)}" if listed else ""
        older = "; --for-keras writes for an older one" if listed else ""
        return f"opens in Keras {shown(self.release)} and later{why}{older}"

    def to_json(self) -> JsonObject:
        """Return it as one JSON object."""
        return {
            "release": shown(self.release),
            "because": [{**r._asdict(), "release": shown(r.release)} for r in self.reasons],
        }


#: How many reasons one line names, and how many layers of each.
_SHOWN = 2


def _some(names: list[str]) -> str:
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])


class Compiled(NamedTuple):
    """What a model was compiled with, where it is spelled anew for another Keras or kind of file.

    Fields: `carried` and `dropped`: the optimizer, the losses and the metrics, in words; of those
    that are dropped with why.
    """

    carried: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def text(self) -> str:
        """What is carried, in one line; empty where nothing is."""
        return f"compiled as the source: {', '.join(self.carried)}" if self.carried else ""

    def to_json(self) -> JsonObject:
        """Return it as one JSON object."""
        return {"carried": list(self.carried), "dropped": list(self.dropped)}


class LeftOut(NamedTuple):
    """A layer of the source, or an asset file, that a destination does not hold.

    Fields: `name`; `parameters`, how many weights were left out with it.
    """

    name: str
    parameters: int


class Rounded(NamedTuple):
    """What it costs that the matrices of a file are integers with scales.

    Fields: `kind`: `int16` or `int8`; `output_error`: how far the outputs for one example input are
    from those of the weights before, at most; `largest_output`: the largest of those in size;
    `weight_error`: how far a weight is from what it was, at most; `table_bytes`: how many bytes
    all arrays take.
    """

    kind: str
    output_error: float
    largest_output: float
    weight_error: float
    table_bytes: int

    @property
    def loss(self) -> str:
        """The loss in words."""
        return (
            f"matrices rounded to {self.kind}, as asked: the outputs for the example input differ "
            f"by up to {self.output_error:.2g}, the weights by up to {self.weight_error:.2g}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a conversion wrote, or with `dry_run` would write. It prints as the command's answer.

    Fields: `destination`; `container` and `layout`; `layers`, their names; `tensors`: how many
    were written; `whole_model`: whether a Keras or ONNX file holds the whole model; `all_weights`:
    whether it holds at least all of the model's weights; `extent`: that in words, after the number
    of the layers; `losses`: what is lost, declared; `warnings`: what the user should know;
    `opens`: the first release of Keras 3 that opens the file, and why; None of any other file;
    `custom_objects`: the names of the user's own classes, as Keras is to be given them;
    `compiled`: what of the optimizer, the losses and the metrics is carried and dropped; None where
    the source has none, or they stay byte for byte;
    `left_out`: the layers and assets of the source that the destination does not hold (what only
    training needs is not counted); `written`: whether it was; `files`: those that were written, the
    destination first, and after it the files that belong to it; `url`: where they were sent, if
    the command was given one; `rounded`: what it costs that matrices were made integers, if they
    were.
    """

    destination: Path
    container: str
    layout: str
    layers: tuple[str, ...]
    tensors: int
    whole_model: bool = False
    all_weights: bool = False
    extent: str = ""
    losses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    opens: Opens | None = None
    custom_objects: tuple[str, ...] = ()
    compiled: Compiled | None = None
    left_out: tuple[LeftOut, ...] = ()
    written: bool = True
    files: tuple[Path, ...] = ()
    url: str | None = None
    rounded: Rounded | None = None

    @property
    def place(self) -> str:
        """The path or URL of the destination."""
        return self.url or str(self.destination)

    def to_json(self) -> JsonObject:
        """Return the result as one JSON object."""
        return {
            "version": VERSION,
            "destination": self.place,
            "container": self.container,
            "layout": self.layout,
            "layers": list(self.layers),
            "tensors": self.tensors,
            "whole_model": self.whole_model,
            "all_weights": self.all_weights,
            "losses": list(self.losses),
            "warnings": list(self.warnings),
            "opens": None if self.opens is None else self.opens.to_json(),
            "custom_objects": list(self.custom_objects),
            "compiled": None if self.compiled is None else self.compiled.to_json(),
            "left_out": [each._asdict() for each in self.left_out],
            "written": self.written,
            "rounded": None if self.rounded is None else self.rounded._asdict(),
        }

    @property
    def omission(self) -> str:
        """What was left out, in one line; empty where nothing was."""
        return omission(self.left_out)

    @property
    def to_be_given(self) -> str:
        """How the user's own classes are given to Keras, in a line; empty where there are none."""
        listed = ", ".join(f'"{name}": {name.rpartition(">")[2]}' for name in self.custom_objects)
        if not listed:
            return ""
        return (
            "open it with keras.models.load_model(…, custom_objects={" + listed + "}), with these "
            "classes as written for Keras 3"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What is told in addition to the warnings, a line each: what was left out, what the model
        is compiled with, from which release of Keras 3 on the file opens, and what that Keras has
        to be given."""
        compiled = "" if self.compiled is None else self.compiled.text
        opens = "" if self.opens is None else self.opens.text
        texts = (self.omission, compiled, opens, self.to_be_given)
        return tuple(text for text in texts if text)

    @property
    def summary(self) -> str:
        """What was done, in one line."""
        from lstmconvert.errors import counted

        verb = "wrote" if self.written else "would write"
        layers = counted(len(self.layers), "LSTM layer") if self.layers else "no LSTM layer"
        tensors = counted(self.tensors, "tensor")
        return f"{verb} {self.place}: {tensors}, {layers}{self.extent}"

    def _repr_html_(self) -> str:
        """Show it in a notebook, whose protocol this is."""
        from lstmconvert.pictures import notebook  # only notebooks need pictures

        return notebook.result(self)

    def __str__(self) -> str:
        notes = [f"note: {text}" for text in self.notes]
        return "\n".join([*(f"warning: {text}" for text in self.warnings), *notes, self.summary])


#: The most layers left out that one line names.
_NAMED = 8


def omission(left_out: Sequence[LeftOut]) -> str:
    """Say in one line what was left out: `left out: dense (15 parameters)`."""
    from lstmconvert.errors import counted

    if not left_out:
        return ""
    names = [
        f"{each.name} ({counted(each.parameters, 'parameter')})" if each.parameters else each.name
        for each in left_out[:_NAMED]
    ]
    rest = left_out[_NAMED:]
    if rest:
        total = sum(each.parameters for each in rest)
        names.append(f"and {len(rest):,} more ({counted(total, 'parameter')})")
    return f"left out: {', '.join(names)}"


def left_out(model: Model, chosen: Collection[str], draft: Draft) -> tuple[LeftOut, ...]:
    """Return what of a model a file will not hold.

    Args:
        model: the model as it was read.
        chosen: the names of the LSTM layers that were to be converted.
        draft: what the file will hold.
    """
    from lstmconvert.model.neighbours import weights_by_layer

    kept = set(chosen).difference(draft.without)
    layers = [
        LeftOut(name, layer.parameters) for name, layer in model.items() if name not in kept
    ]
    held = set(draft.others)
    rest = {path: tensor for path, tensor in model.other.items() if path not in held}
    others = weights_by_layer(rest, model.source.structure)
    assets = [LeftOut(path, 0) for path in model.assets if path not in held]
    return (*layers, *(LeftOut(*each) for each in others.items()), *assets)


class Draft(NamedTuple):
    """What a file will hold, before anything is written.

    Fields: `layers`, `tensors`, `whole_model`, `all_weights`, `extent`, `losses`, `warnings`,
    `opens`, `custom_objects`, `compiled`, `rounded`: as in `Result`; `others`: the paths of the
    model's other tensors and assets that it will hold; `without`: the names of the LSTM layers that
    it cannot hold; `write`: writes a temporary file for the destination and one for each file
    beside it, in this order, reads them back and compares; `more_files`: returns the files that
    will be next to the destination. Neither is called on a dry run.
    """

    layers: tuple[str, ...]
    tensors: int
    write: Callable[[Sequence[Path]], None]
    more_files: Callable[[], Sequence[Path]] = tuple
    others: Collection[str] = ()
    without: Collection[str] = ()
    whole_model: bool = False
    all_weights: bool = False
    extent: str = ""
    losses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rounded: Rounded | None = None
    opens: Opens | None = None
    custom_objects: tuple[str, ...] = ()
    compiled: Compiled | None = None

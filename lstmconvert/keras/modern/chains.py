"""A whole model as a chain of layers, for targets that hold nothing else.

The model's tree is walked from its input to its output. Any other graph is refused: a layer that
takes two values, a value that two layers take, a class that is none of `model.chain.ROLES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lstmconvert.errors import CorruptFile, UnsupportedByTarget
from lstmconvert.files.jsontext import Json
from lstmconvert.keras.configs import values
from lstmconvert.keras.configs.nodes import IDLE, input_shape
from lstmconvert.keras.modern import crossing, emission
from lstmconvert.keras.modern import graph as calls
from lstmconvert.keras.modern.classes import EPSILON, LEAK
from lstmconvert.keras.modern.crossing import ModelTree
from lstmconvert.keras.modern.parts import Leave, Part
from lstmconvert.keras.stores import stored
from lstmconvert.model import edit
from lstmconvert.model.activations import LINEAR, SIGMOID, TANH, Activation
from lstmconvert.model.chain import ROLES, WITHOUT_OTHERS, Answer, Chain, Holds, Link
from lstmconvert.model.layer import OpaqueCell
from lstmconvert.model.model import Model
from lstmconvert.tensors.dtypes import Array, dtype_of
from lstmconvert.tensors.tensor import ArrayTensor, Cast, Tensor
from lstmconvert.tensors.views import Filled

#: Layers that work on single numbers: class -> its function.
_FUNCTIONS: Mapping[str, Callable[[Part, str, str], Activation]] = {
    "Activation": lambda part, era, where: _function(part, "activation", LINEAR, era, where),
    "ReLU": lambda part, _, where: _relu(part, where),
    "LeakyReLU": lambda part, _, where: Activation(
        "leaky_relu", {"negative_slope": _real(part, "negative_slope", LEAK, where)}
    ),
    "ELU": lambda part, _, where: Activation("elu", {"alpha": _real(part, "alpha", 1.0, where)}),
    "Softmax": lambda *_: Activation("softmax"),
}


def of(model: Model, target: str, title: str) -> Chain | None:
    """Return a whole model as a chain.

    Args:
        model: the model.
        target: the name of the layout that it goes to, for errors.
        title: of the target, for errors.

    Returns:
        None where the source does not have the whole model: no config, or not every weight.

    Raises:
        UnsupportedByTarget: it is not a chain, or a layer of it is in none.
        CorruptFile: config and weights contradict each other.
    """
    if not model.is_complete or "model_config" not in model.texts:
        return None
    tensors = stored.tensors(model)
    refusals: list[UnsupportedByTarget] = []
    tree = crossing.tree(model, tensors, Leave(refusals=refusals))
    if tree is None:
        return None
    walk = _Walk(tree, {id(tensor): path for path, tensor in tensors.items()}, target, title)
    if refusals:
        first = refusals[0]
        raise walk.refused(first.layer or str(first.where), first.option or "class", first.message)
    return walk.chain()


#: Arrays that a layer may lack -> the number with which it computes the same.
_NEUTRAL: Mapping[str, float] = {"bias": 0.0, "beta": 0.0, "gamma": 1.0}


def filled(chain: Chain, holds: Holds) -> Chain:
    """Return a chain whose layers have the arrays that a target wants: a bias of zeros, for one."""
    links, added = [], dict(chain.filled)
    for link in chain.links:
        wanted = (set(roles) for roles in holds.roles.get(link.kind, ()))
        has = set(link.arrays)
        more = next((roles - has for roles in wanted if has <= roles), set())
        if more and more <= _NEUTRAL.keys():
            known = next(iter(link.arrays.values())).dtype
            extra = {role: Filled((link.outputs,), known, _NEUTRAL[role]) for role in more}
            arrays = {**link.arrays, **extra}
            ordered = {role: arrays[role] for role in ROLES[link.kind] if role in arrays}
            added |= {f"{link.prefix}{role}": _NEUTRAL[role] for role in more}
            link = link._replace(arrays=ordered)
        links.append(link)
    return chain._replace(links=tuple(links), filled=added)


def answers(model: Model, target: str) -> tuple[tuple[Answer, ...], list[str]]:
    """Return what a whole model gives for one input, or what each of its LSTM layers gives.

    Args:
        model: the model.
        target: the name of the layout that it goes to, for errors.

    Returns:
        The answer of the model, where it is a chain; else of each layer; sentences about why.

    Raises:
        UnknownOption: an option that counts is unknown.
        UnsupportedByTarget: a layer is not run here; or what it gives is not finite.
    """
    from lstmconvert.reference import chains as forward

    try:
        chain = of(model, target, "a check")
    except UnsupportedByTarget as error:
        notes = [f"{error.message}: it is of each LSTM layer alone"]
        return answers_of_layers(model), notes
    return (answers_of_layers(model) if chain is None else (forward.answer(chain),)), []


def answers_of_layers(model: Model) -> tuple[Answer, ...]:
    """Return what each LSTM layer of a model gives for one input. Raises as `answers`."""
    from lstmconvert.reference import chains as forward

    return tuple(forward.answer_of(layer, input_shape(layer)) for layer in model.values())


def check(chain: Chain, holds: Holds, target: str) -> None:
    """Raise where a target does not hold a chain.

    Raises:
        UnsupportedByTarget: it lacks a kind of link, a function or an option.
    """
    for link in chain.links:
        for option, value, fits in _demands(link, holds):
            if not fits:
                why = holds.reasons.get(option, "")
                if option == _BATCHNORM:
                    hint = f"--fold-batchnorm puts it into a layer next to it; {WITHOUT_OTHERS}"
                    raise _refused(holds.title, target, link.name, option, value, hint=hint)
                text = f"{holds.title} has no {option} for this layer{': ' if why else ''}{why}"
                raise _refused(holds.title, target, link.name, option, value, text)
    if chain.skip and not holds.skip:
        raise _refused(holds.title, target, "model", "skip", "the input added to the output")
    ends = [link for link in chain.links if not link.return_sequences]
    later = ends and ends[0] is not chain.links[-1]
    if later and any(link.kind in ("Conv1D", "LSTM", "GRU") for link in _after(chain, ends[0])):
        raise _refused(holds.title, target, ends[0].name, "return_sequences", "False")


def folded(chain: Chain, target: str) -> tuple[Chain, list[str]]:
    """Return a chain in which each BatchNormalization is in the weights of a layer next to it, and
    the layers that are in the weights of others now, in words.

    With a scale s = gamma / sqrt(moving_variance + epsilon) and a shift t = beta - moving_mean s of
    each feature, a linear layer before it has W s and b s + t instead of W and b, and one after
    it s W and b + t W. This is computed in float64, and rounded to the dtype of the weights.

    Raises:
        UnsupportedByTarget: one of them is next to no layer that can take it.
    """
    links, texts = list(chain.links), list[str]()
    while any(link.kind == _BATCHNORM for link in links):
        for index, link in enumerate(links):
            before, after = links[index - 1 : index], links[index + 1 : index + 2]
            if link.kind != _BATCHNORM:
                continue
            if before and _takes_behind(before[0]):
                taker, links[index - 1] = before[0], _with_behind(before[0], link)
            elif after and _takes_ahead(after[0]):
                taker, links[index + 1] = after[0], _with_ahead(after[0], link)
            else:
                continue
            texts.append(f"{link.name}: folded into the weights of {taker.name}, which rounds")
            del links[index]
            break
        else:
            raise _unfoldable(links, target)
    return chain._replace(links=tuple(links)), texts


_BATCHNORM = "BatchNormalization"


def _unfoldable(links: Sequence[Link], target: str) -> UnsupportedByTarget:
    index = next(index for index, link in enumerate(links) if link.kind == _BATCHNORM)
    near = [f"{link.name} ({link.kind})" for link in links[max(index - 1, 0) : index + 2]]
    return UnsupportedByTarget(
        "this BatchNormalization cannot be folded",
        where=links[index].name,
        layer=links[index].name,
        option=_BATCHNORM,
        target=target,
        found=", ".join(near),
        expected="a Dense or Conv1D without a function before it, or a Dense, an LSTM, a GRU or a "
        "Conv1D without padding after it",
        hint=f"leave --fold-batchnorm away, or {WITHOUT_OTHERS}",
    )


def _takes_behind(link: Link) -> bool:
    return link.kind in ("Dense", "Conv1D") and link.activation == LINEAR


def _takes_ahead(link: Link) -> bool:
    # A padded step is zero behind the BatchNormalization, and would be its shift.
    is_padded = link.kind == "Conv1D" and link.padding != "valid" and link.window > 1
    return link.kind in ("Dense", "Conv1D", "GRU", "LSTM") and not is_padded


def _scale_and_shift(link: Link) -> tuple[Array, Array]:
    known = {role: tensor.read().astype(np.float64) for role, tensor in link.arrays.items()}
    scale = known.get("gamma", 1.0) / np.sqrt(known["moving_variance"] + link.epsilon)
    return scale, known.get("beta", 0.0) - known["moving_mean"] * scale


def _as(array: Array, like: Tensor) -> Tensor:
    return ArrayTensor(array.astype(like.dtype))


def _with_weights(link: Link, kernel: Array, bias: Array) -> Link:
    known = link.arrays["kernel"]
    changed = {"kernel": _as(kernel, known), "bias": _as(bias, known)}
    arrays = {role: {**link.arrays, **changed}[role] for role in ROLES[link.kind]
              if role in link.arrays or role in changed}  # fmt: skip
    return link._replace(arrays=arrays, paths={})


def _with_behind(link: Link, norm: Link) -> Link:
    """Return a linear layer that also does what the BatchNormalization behind it does."""
    scale, shift = _scale_and_shift(norm)
    kernel = link.arrays["kernel"].read().astype(np.float64)
    bias = link.arrays["bias"].read().astype(np.float64) if "bias" in link.arrays else 0.0
    return _with_weights(link, kernel * scale, bias * scale + shift)


def _with_ahead(link: Link, norm: Link) -> Link:
    """Return a layer that also does what the BatchNormalization ahead of it does."""
    scale, shift = _scale_and_shift(norm)
    if link.layer is not None:
        return link._replace(layer=edit.with_scaled_input(link.layer, scale, shift))
    kernel = link.arrays["kernel"].read().astype(np.float64)
    if link.groups > 1:  # each group has its own inputs: they are a first axis of the sums
        width, inner = link.outputs // link.groups, kernel.shape[-2]
        scales = np.repeat(scale.reshape(link.groups, inner).T, width, axis=-1)
        shifts = np.repeat(shift.reshape(link.groups, inner).T, width, axis=-1)
    else:
        scales, shifts = scale[:, np.newaxis], shift[:, np.newaxis]
    added = (kernel * shifts).sum(axis=tuple(range(kernel.ndim - 1)))
    if "bias" in link.arrays:
        bias = link.arrays["bias"].read().astype(np.float64)
    else:
        bias = np.zeros((2, added.size) if link.kind == "GRU" and link.reset_after else added.size)
    if bias.ndim > 1:  # a GRU's second bias is that of its state
        bias[0] += added
    else:
        bias = bias + added
    return _with_weights(link, kernel * scales, bias)


def cast(chain: Chain, dtype: str) -> tuple[Chain, list[str]]:
    """Return a chain whose arrays are of another dtype, and which of them are rounded by it."""
    rounded = []
    links = []
    for link in chain.links:
        stored_as = {tensor.dtype.name for tensor in link.arrays.values()}
        wide = [old for old in sorted(stored_as) if edit.narrows(old, dtype)]
        rounded += [f"{link.name}: weights rounded from {old} to {dtype}, as asked" for old in wide]
        arrays = {
            role: tensor if tensor.dtype.name == dtype else Cast(tensor, dtype_of(dtype))
            for role, tensor in link.arrays.items()
        }
        links.append(link._replace(arrays=arrays))
    return chain._replace(links=tuple(links)), rounded


def check_dtypes(chain: Chain, dtypes: Sequence[str], target: str, title: str) -> None:
    """Raise `UnsupportedByTarget` for an array of a dtype that a target does not have."""
    for link in chain.links:
        for role, tensor in link.arrays.items():
            if tensor.dtype.name not in dtypes:
                raise UnsupportedByTarget(
                    f"{title} has no {role} of this dtype",
                    where=link.name,
                    layer=link.name,
                    option="dtype",
                    target=target,
                    found=tensor.dtype.name,
                    expected=", ".join(dtypes),
                    hint=f"--dtype {dtypes[0]} casts",
                )


def _after(chain: Chain, link: Link) -> Sequence[Link]:
    return chain.links[chain.links.index(link) + 1 :]


def _demands(link: Link, holds: Holds) -> Iterator[tuple[str, object, bool]]:
    """Yield option, value, and whether the target has it, of all that a link needs."""
    if link.layer is not None:
        is_held = not (holds.streams and link.layer.backward is not None)
        yield "two directions", link.layer.class_name, is_held
        return  # the layout's row says what is held of it
    yield link.kind, None, link.kind in holds.kinds
    sets = holds.roles.get(link.kind)
    yield "weights", ", ".join(link.arrays), sets is None or tuple(link.arrays) in sets
    if link.kind in ("Dense", "Conv1D", "Activation"):
        is_held = link.activation == LINEAR or link.activation in holds.activations
        yield "activation", link.activation, is_held
    if link.kind == "Conv1D":
        yield "padding", link.padding, link.window == 1 or link.padding in holds.paddings
        yield "groups", link.groups, link.groups == 1 or holds.groups
    if link.kind == "GRU":
        yield "activation", link.activation, link.activation in holds.gru[0]
        is_held = link.recurrent_activation in holds.gru[1]
        yield "recurrent_activation", link.recurrent_activation, is_held
        yield "reset_after", link.reset_after, link.reset_after in holds.reset


def _refused(
    title: str,
    target: str,
    name: str,
    option: str,
    found: object,
    why: str = "",
    hint: str = WITHOUT_OTHERS,
) -> UnsupportedByTarget:
    return UnsupportedByTarget(
        why or f"{title} has no {option} for this layer",
        where=name,
        layer=name,
        option=option,
        target=target,
        found=None if found is None else str(found)[:80],
        hint=hint,
    )


@dataclass
class _Walk:
    """Walks a tree.

    Fields: `tree`; `paths`: `id` of a tensor -> its full path in the source; `target`, `title`: of
    the target; `links` and `vanished`, as in `Chain`; `width`: of what the last link gives, None
    where the config does not say it; `is_sequence`: whether that has a step for each of the input.
    """

    tree: ModelTree
    paths: Mapping[int, str]
    target: str
    title: str
    links: list[Link] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    width: int | None = None
    is_sequence: bool = True

    def chain(self) -> Chain:
        """Return the chain."""
        root = self.tree.root
        shape = self._input_shape(root)
        if shape is not None and len(shape) == 3:
            self.width = shape[-1]
        elif shape is not None:
            computing = (part for _, part in root.children if part.class_name != "InputLayer")
            first = next(computing, root)
            why = f"a {first.class_name} is given {shape}, and no sequence of vectors"
            raise self.refused(first.node.name or first.name, "input", why)
        inputs = self.width
        skip = self._model(root, "")
        if not self.links:
            raise self.refused(root.name, "layers", "no layer of it computes anything")
        return Chain(
            inputs=self.links[0].inputs if inputs is None else inputs,
            links=tuple(self.links),
            skip=skip,
            vanished=tuple(self.vanished),
            steps=None if shape is None else shape[1],
        )

    def refused(self, name: str, option: str, why: str) -> UnsupportedByTarget:
        """Return the error for what is in no chain."""
        return _refused(
            self.title, self.target, name, option, None,
            f"{self.title} holds a chain of layers, and this is none: {why}",
        )  # fmt: skip

    def _input_shape(self, root: Part) -> list[int | None] | None:
        if root.class_name == "Sequential":
            first = root.children[0][1] if root.children else root
            if first.class_name == "InputLayer":
                return emission.stated_shape(first)
            return emission.input_shape_of(root)
        refs = list(calls.refs(self.tree.graphs[root].inputs))
        if len(refs) != 1:
            raise self.refused(root.name, "inputs", f"it has {len(refs)} inputs")
        by_name = {part.name: part for _, part in root.children}
        return emission.stated_shape(by_name[refs[0].layer])

    def _model(self, model: Part, prefix: str) -> bool:
        """Add the links of a model, and return whether its input is added to its output."""
        if model.class_name == "Sequential":
            for _, part in model.children:
                self._add(part, prefix)
            return False
        return self._functional(model, prefix)

    def _functional(self, model: Part, prefix: str) -> bool:
        graph = self.tree.graphs[model]
        parts = {part.name: part for _, part in model.children}
        given, ends = list(calls.refs(graph.inputs)), list(calls.refs(graph.outputs))
        if len(given) != 1 or len(ends) != 1:
            raise self.refused(model.name, "outputs", f"{len(given)} inputs, {len(ends)} outputs")
        last, skip = given[0], False
        for name, index in calls.run_order(graph):
            if name == given[0].layer:
                continue
            if name not in parts:
                raise self.refused(f"{prefix}{name}", "operation", "an operation of functions")
            refs = list(graph.calls[name][index].refs())
            part = parts[name]
            is_sum = part.class_name == "Add" and set(refs) == {given[0], last}
            if is_sum and not prefix and last != given[0] and not skip:
                if self.width != self.links[0].inputs or not self.is_sequence:
                    raise self.refused(name, "Add", "input and output are not of one shape")
                skip = True
            elif refs != [last] or skip:
                sources = ", ".join(ref.layer for ref in refs) or "nothing"
                raise self.refused(f"{prefix}{name}", "inputs", f"it takes {sources}")
            else:
                self._add(part, prefix)
            last = calls.Ref(name, index, 0)
        if ends[0] != last:
            raise self.refused(model.name, "outputs", f"its output is that of {ends[0].layer}")
        return skip

    def _add(self, part: Part, prefix: str) -> None:
        name = f"{prefix}{part.node.name or part.name}"
        if part.class_name == "InputLayer":
            return
        if part.is_model:
            self._model(part, f"{name}/")
        elif part.class_name in IDLE:
            self.vanished.append(f"{name} ({part.class_name})")
        elif part.layer is not None:
            self._add_lstm(part, name)
        elif part.class_name == "TimeDistributed":
            inner = part.children[0][1]
            if inner.is_model or inner.layer is not None or inner.class_name in ("Conv1D", "GRU"):
                raise self.refused(name, "TimeDistributed", f"it is around {inner.class_name}")
            if inner.class_name in IDLE:
                self.vanished.append(f"{name} ({inner.class_name})")
            else:
                self._link(inner, name, f"{name}/{inner.node.name or inner.name}")
        else:
            self._link(part, name, name)

    def _add_lstm(self, part: Part, name: str) -> None:
        layer = part.layer
        if layer is None:
            raise AssertionError("a part with a layer")
        options = layer.forward.options
        others = [cell for _, half in layer.directions for cell in half.cells
                  if isinstance(cell, OpaqueCell)]  # fmt: skip
        if others:
            raise self.refused(name, "cells", f"a cell of it is a {others[0].class_name}")
        if not self.is_sequence:
            raise self.refused(name, "input", "it is given one step alone")
        if any(half.options.return_state is True for _, half in layer.directions):
            raise self.refused(name, "return_state", "it gives its states")
        widths = [half.lstm_cells[-1].recurrent_dim for _, half in layer.directions]
        is_wide = len(widths) > 1 and layer.options.merge_mode == "concat"
        self._push(
            Link(
                name=layer.name, kind="LSTM", layer=layer,
                inputs=layer.input_dim, outputs=sum(widths) if is_wide else widths[0],
                return_sequences=options.return_sequences is not False,
            )
        )

    def _push(self, link: Link) -> None:
        if self.width is not None and link.inputs != self.width:
            raise CorruptFile(
                "a layer does not take what the one before it gives",
                where=link.name,
                found=f"{link.inputs} inputs",
                expected=f"{self.width}",
            )
        self.links.append(link)
        self.width = link.outputs
        self.is_sequence = self.is_sequence and link.return_sequences

    def _link(self, part: Part, name: str, neighbour: str) -> None:
        era, class_name = self.tree.era, part.class_name
        if class_name in _FUNCTIONS:
            self._check_last_axis(part, name)
            function = _FUNCTIONS[class_name](part, era, name)
            width = self._known_width(name)
            link = Link(name=name, kind="Activation", neighbour=neighbour, inputs=width,
                        outputs=width, activation=function)  # fmt: skip
            self._push(self._checked(link))
            return
        if class_name not in ROLES or class_name in ("LSTM", "Activation"):
            raise self.refused(name, class_name, f"a {class_name} is not a link of it")
        weights = part
        if class_name == "GRU":
            weights = part.children[0][1]
        arrays = {
            weight.role: tensor
            for weight, tensor in zip(weights.weights, weights.arrays, strict=True)
        }
        paths = {role: self.paths[id(a)] for role, a in arrays.items() if id(a) in self.paths}
        made = _MAKERS[class_name](self, part, name, arrays)
        link = made._replace(arrays=arrays, paths=paths, neighbour=neighbour)
        self._push(self._checked(link))

    def _checked(self, link: Link) -> Link:
        for function in (link.activation, link.recurrent_activation):
            if function.custom:
                raise self.refused(link.name, "activation", f"{function} is the user's own")
        return link

    def _known_width(self, name: str) -> int:
        if self.width is None:
            raise self.refused(name, "input_shape", "the config does not say its input's width")
        return self.width

    def _check_last_axis(self, part: Part, name: str) -> None:
        rank = 3 if self.is_sequence else 2
        if part.class_name == "Softmax" and part.config.get("axis", -1) not in (-1, rank - 1):
            raise self.refused(name, "axis", f"it is over axis {part.config['axis']}")

    # ---- what the classes say ----------------------------------------------------------------

    def _dense(self, part: Part, name: str, arrays: Mapping[str, Tensor]) -> Link:
        inputs, outputs = arrays["kernel"].shape
        function = _function(part, "activation", LINEAR, self.tree.era, name)
        return Link(name=name, kind="Dense", inputs=inputs, outputs=outputs, activation=function)

    def _conv1d(self, part: Part, name: str, arrays: Mapping[str, Tensor]) -> Link:
        if not self.is_sequence:
            raise self.refused(name, "input", "it is given one step alone")
        _, inner, outputs = arrays["kernel"].shape
        groups = _whole(part, "groups", 1, name)
        for key, usual in (("strides", 1), ("data_format", "channels_last")):
            value = part.config.get(key)
            if value not in (None, usual, [usual]):
                raise self.refused(name, key, f"its {key} is {value}")
        padding = part.config.get("padding") or "valid"
        if padding not in ("valid", "causal", "same"):
            raise self.refused(name, "padding", f"its padding is {padding}")
        return Link(
            name=name, kind="Conv1D", inputs=inner * groups, outputs=outputs, groups=groups,
            padding=padding, dilation=_whole(part, "dilation_rate", 1, name),
            activation=_function(part, "activation", LINEAR, self.tree.era, name),
        )  # fmt: skip

    def _batch_normalization(self, part: Part, name: str, arrays: Mapping[str, Tensor]) -> Link:
        rank = 3 if self.is_sequence else 2
        if part.config.get("axis", -1) not in (-1, rank - 1, [-1], [rank - 1], None):
            raise self.refused(name, "axis", f"it is over axis {part.config['axis']}")
        width = arrays["moving_mean"].size
        return Link(name=name, kind="BatchNormalization", inputs=width, outputs=width,
                    epsilon=_real(part, "epsilon", EPSILON, name))  # fmt: skip

    def _layer_normalization(self, part: Part, name: str, arrays: Mapping[str, Tensor]) -> Link:
        rank = 3 if self.is_sequence else 2
        axis = part.config.get("axis", -1)
        if axis not in (-1, rank - 1, [-1], [rank - 1], None):
            raise self.refused(name, "axis", f"it is over axis {axis}")
        if part.config.get("rms_scaling"):
            raise self.refused(name, "rms_scaling", "its rms_scaling is True")
        width = next((array.size for array in arrays.values()), None) or self._known_width(name)
        return Link(name=name, kind="LayerNormalization", inputs=width, outputs=width,
                    epsilon=_real(part, "epsilon", EPSILON, name))  # fmt: skip

    def _prelu(self, _: Part, name: str, arrays: Mapping[str, Tensor]) -> Link:
        alpha = arrays["alpha"]
        if alpha.size != alpha.shape[-1]:
            raise self.refused(name, "shared_axes", "it has a slope for each step")
        if self.width is not None and alpha.size == 1 != self.width:
            raise self.refused(name, "shared_axes", "it has one slope for all features")
        return Link(name=name, kind="PReLU", inputs=alpha.size, outputs=alpha.size)

    def _gru(self, part: Part, name: str, arrays: Mapping[str, Tensor]) -> Link:
        if not self.is_sequence:
            raise self.refused(name, "input", "it is given one step alone")
        for key in ("go_backwards", "return_state", "time_major"):
            if part.config.get(key):
                raise self.refused(name, key, f"its {key} is {part.config[key]}")
        kernel, units = arrays["kernel"], arrays["recurrent_kernel"].shape[0]
        era = self.tree.era
        gates = SIGMOID
        if part.config.get("recurrent_activation") is not None:
            gates = _function(part, "recurrent_activation", SIGMOID, era, name)
        elif era != "keras3":
            raise self.refused(name, "recurrent_activation", "the config does not say it")
        is_after = part.config.get("reset_after")
        return Link(
            name=name, kind="GRU", inputs=kernel.shape[0], outputs=units,
            activation=_function(part, "activation", TANH, era, name), recurrent_activation=gates,
            reset_after=True if is_after is None else bool(is_after),
            return_sequences=bool(part.config.get("return_sequences")),
        )  # fmt: skip


_MAKERS: Mapping[str, Callable[[_Walk, Part, str, Mapping[str, Tensor]], Link]] = {
    "Dense": _Walk._dense,
    "Conv1D": _Walk._conv1d,
    "BatchNormalization": _Walk._batch_normalization,
    "LayerNormalization": _Walk._layer_normalization,
    "PReLU": _Walk._prelu,
    "GRU": _Walk._gru,
}


def _function(part: Part, key: str, default: Activation, era: str, where: str) -> Activation:
    if key not in part.config:
        return default
    return values.activation(part.config[key], era, f"{where}.{key}")


def _real(part: Part, key: str, default: float, where: str) -> float:
    value: Json = part.config.get(key)
    return values.number(default if value is None else value, f"{where}.{key}")


def _whole(part: Part, key: str, default: int, where: str) -> int:
    value: Json = part.config.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return values.integer(default if value is None else value, f"{where}.{key}")


def _relu(part: Part, where: str) -> Activation:
    ceiling, slope = part.config.get("max_value"), _real(part, "negative_slope", 0.0, where)
    threshold = _real(part, "threshold", 0.0, where)
    constants = {}
    if ceiling is not None:
        constants["max_value"] = _real(part, "max_value", 0.0, where)
    if slope:
        constants["negative_slope"] = slope
    if threshold:
        constants["threshold"] = threshold
    if set(constants) == {"negative_slope"}:
        return Activation("leaky_relu", constants)
    return Activation("relu", constants)

"""A framework's file and the config of its model, back to a whole Keras model.

The LSTMs are found by the names of a framework; the config says which layers stand beside them.
Their arrays are looked for under the layer's name, else, where one place alone fits, by shape, and
that is said. Nothing is guessed: an array that is missing or left over is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lstmconvert.errors import LSTMConvertError, UsageError
from lstmconvert.keras.modern.classes import SIZES
from lstmconvert.keras.modern.neighbours import of
from lstmconvert.keras.reading import described
from lstmconvert.keras.reading.load import GivenConfig
from lstmconvert.keras.reading.read import parse_config
from lstmconvert.layouts import neighbours
from lstmconvert.layouts.neighbourrows import TABLE
from lstmconvert.layouts.row import Row
from lstmconvert.layouts.rows import ROWS
from lstmconvert.model import edit
from lstmconvert.model.layer import Cell, LSTMLayer
from lstmconvert.model.model import Model, Structure
from lstmconvert.model.neighbours import Neighbour
from lstmconvert.tensors.tensor import Tensor

#: NumPy's names for arrays that were given none (numpy/lib/_npyio_impl.py, `_savez`).
_NUMBERED = re.compile(r"arr_\d{1,9}")
_HINT = "give the config of this very model, or leave --config away"
_RENAME = "name the arrays as its layers are called: {name}.…"


def completed(model: Model, given: GivenConfig) -> Model:
    """Return a framework's model with the layers beside its LSTMs, as a store of Keras 3 has them.

    A file that holds its LSTMs alone stays as it is, with `unfilled` saying what the config has
    beside them.

    Args:
        model: the model, its options filled in from the same config.
        given: the config.

    Raises:
        UsageError: weights of a layer are missing, are of another size, or are left over.
        CorruptFile: the same, of one array.
    """
    if model.layout not in TABLE or model.source.structure is not None or model.texts:
        return model
    config = parse_config(given.text, given.version, given.where)
    if not config.root.is_model or config.root.custom:
        return model
    stated = described.layers(given.text, given.version, given.where)
    pairs = [_described(layer, stated) for layer in model.layers]
    if len(pairs) != len(stated) or None in pairs:
        return model
    placed = tuple(
        _placed(layer, pair) for layer, pair in zip(model.layers, pairs, strict=True) if pair
    )
    skeleton = replace(
        model,
        layers=placed,
        other={},
        texts={"model_config": given.text},
        source=replace(
            model.source,
            era=config.era.name,
            keras_version=given.version,
            structure=Structure(kind="v3"),
        ),
    )
    layers = [layer for layer in of(skeleton).values() if layer.missing]
    if not model.other and layers:
        unfilled = tuple(f"{layer.name} ({layer.class_name})" for layer in layers)
        note = f"the file holds no weights of {', '.join(unfilled)}, which the config has"
        return replace(model, unfilled=unfilled, notes=(*model.notes, note))
    if model.other and not layers:
        return model  # the config is of the LSTMs alone, and so is what is filled in
    other, notes = _filled(model, layers, given.where)
    renamed = [
        f"{layer.name} of the file is taken for {done.name} of the config, by order"
        for layer, done in zip(model.layers, placed, strict=True)
        if layer.name != done.name
    ]
    cells = (cell for layer in placed for _, _, cell in layer.cells())
    paths = {path for cell in cells for path in cell.places.values()}
    structure = Structure(kind="v3", paths=frozenset({*paths, *other}))
    return replace(
        skeleton,
        other=other,
        source=replace(skeleton.source, structure=structure),
        notes=(*model.notes, *renamed, *notes),
    )


def check_alike(model: Model, given: GivenConfig) -> None:
    """Raise `UsageError` where a file has a config, and the user's is of other layers.

    Names alone may differ: Keras numbers them anew in each process.
    """
    if "model_config" not in model.texts:
        return
    structure = Structure(kind="v3")
    stated = replace(
        model,
        other={},
        texts={"model_config": given.text},
        source=replace(model.source, structure=structure, keras_version=given.version),
    )
    theirs = of(stated)
    for name, layer in model.neighbours.items():
        other = theirs.get(name)
        if other is None or not layer.tensors:
            continue
        first, second = _described_as(layer), _described_as(other)
        if first != second:
            raise UsageError(
                "the config is of another model",
                where=f"{given.where}: {name}",
                found=second,
                expected=f"{first}, as the file says",
                hint=_OTHER_CONFIG,
            )
    ours, stated_layers = _counted(model.neighbours), _counted(theirs)
    if ours != stated_layers:
        raise UsageError(
            "the config is of another model",
            where=given.where,
            found=_in_words(stated_layers - ours) or "no such layer",
            expected=_in_words(ours - stated_layers) or "no such layer",
            hint=_OTHER_CONFIG,
        )


_OTHER_CONFIG = "give the config of this model, or leave --config away"


def _counted(layers: Mapping[str, Neighbour]) -> Counter[str]:
    """Count the layers that have weights, by what `_described_as` says of them."""
    known = (each for each in layers.values() if each.class_name in SIZES or each.cells)
    return Counter(map(_described_as, known))


def _in_words(layers: Counter[str]) -> str:
    return "; ".join(f"{count} × {text}" for text, count in layers.items())[:200]


def _described_as(layer: Neighbour) -> str:
    """Return a layer's class and what its config says about its sizes, in words."""
    sizes, config = SIZES.get(layer.class_name), layer.config
    keys = [*([sizes.keyword] if sizes and sizes.keyword else []), "input_dim", "groups"]
    facts = [f"{key} {config[key]}" for key in keys if config.get(key) not in (None, 1)]
    if window := _window(layer):
        facts.append(f"a window of {'×'.join(map(str, window))}")
    facts += ["no bias"] if config.get("use_bias") is False else []
    if sizes is None:
        facts += [f"{cell.class_name} of {cell.config.get('units')} units" for cell in layer.cells]
    return ", ".join([layer.class_name, *facts])


def _described(layer: LSTMLayer, stated: Sequence[LSTMLayer]) -> LSTMLayer | None:
    """Return the layer of the config by which a layer's options were filled in."""
    by_name = [other for other in stated if other.name == layer.name]
    by_config = [other for other in stated if other.config == layer.config]
    return next(iter((*by_name, *by_config)), None)


def _placed(layer: LSTMLayer, stated: LSTMLayer) -> LSTMLayer:
    """Return a layer at the place and with the name that it has in the described model."""
    halves = dict(stated.directions)

    def cell(side: str, index: int, known: Cell) -> Cell:
        other = halves[side].cells[index]
        places = other.places if isinstance(other, Cell) else {}
        return replace(known, places=places, stored_as="fused")

    done = edit.map_cells(layer, cell)
    return replace(
        done, name=stated.name, path=stated.path, config=stated.config or layer.config
    )


# -- which arrays are whose --------------------------------------------------------------------


def _filled(
    model: Model, layers: Sequence[Neighbour], where: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the other layers' arrays as Keras has them, by path, and what to say."""
    row, table = ROWS[model.layout], TABLE[model.layout]
    left = _in_order(model.other, layers, where)
    other: dict[str, Tensor] = {}
    notes: list[str] = []
    nameless: list[Neighbour] = []
    for layer in layers:
        prefix = f"{layer.name.replace('/', '.')}."
        arrays = _below(left, prefix)
        if not arrays:
            nameless.append(layer)
            continue
        _take(layer, prefix, arrays, table, row, left, other, notes)
    for layer in nameless:
        prefix = _by_shape(layer, nameless, table, row, left, where)
        notes.append(
            f"{prefix.rstrip('.') or 'arrays without a name'} of the file is taken for "
            f"{layer.name} of the config, by its shapes"
        )
        _take(layer, prefix, _below(left, prefix), table, row, left, other, notes)
    if left:
        raise UsageError(
            "the file holds arrays that no layer of the config has",
            where=where,
            found=", ".join(sorted(left)[:6]),
            expected="the weights of " + ", ".join(map(_listed, layers)),
            hint=_HINT,
        )
    return other, notes


def _in_order(
    arrays: Mapping[str, Tensor], layers: Sequence[Neighbour], where: str
) -> dict[str, Tensor]:
    """Return arrays of `get_weights()`, which NumPy numbers, under the names that Keras gives them:
    a layer's come together, in the order of the layers. Others are as they are."""
    if not all(_NUMBERED.fullmatch(name) for name in arrays):
        return dict(arrays)
    order = sorted(arrays, key=lambda name: int(name.removeprefix("arr_")))
    names = [f"{x.name.replace('/', '.')}.{role}" for x in layers for role in x.missing]
    if len(names) != len(order):
        raise UsageError(
            "the arrays are not as many as the weights of the config's layers",
            where=where,
            found=", ".join(f"{n} {'×'.join(map(str, arrays[n].shape))}" for n in order[:6]),
            expected=", ".join(names[:6]),
            hint=_HINT,
        )
    return {name: arrays[old] for name, old in zip(names, order, strict=True)}


def _below(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the arrays whose names begin so, by the rest of their names, with dots."""
    named = {name.replace("/", "."): tensor for name, tensor in arrays.items()}
    return {name[len(prefix) :]: t for name, t in named.items() if name.startswith(prefix)}


def _take(
    layer: Neighbour,
    prefix: str,
    arrays: Mapping[str, Tensor],
    table: neighbours.Rows,
    row: Row,
    left: dict[str, Tensor],
    other: dict[str, Tensor],
    notes: list[str],
) -> None:
    tensors, used, loss = neighbours.gather(layer, table, row.sides, arrays)
    _check(layer, tensors)
    for name in list(left):
        if name.replace("/", ".") in {prefix + key for key in used}:
            del left[name]
    for role, tensor in tensors.items():
        (path,) = layer.paths[role]
        other[path] = tensor
    if loss:
        notes.append(f"{layer.name}: {loss}")


def _by_shape(
    layer: Neighbour,
    nameless: Sequence[Neighbour],
    table: neighbours.Rows,
    row: Row,
    left: Mapping[str, Tensor],
    where: str,
) -> str:
    """Return what stands before the names of the only arrays that can be a layer's."""
    prefixes = _prefixes(left)
    fitting = [p for p in prefixes if _fits(layer, _below(left, p), table, row)]
    others = [
        each.name
        for each in nameless
        if each is not layer and any(_fits(each, _below(left, p), table, row) for p in fitting)
    ]
    if len(fitting) == 1 and not others:
        return fitting[0]
    if not fitting:
        raise UsageError(
            f"the weights of {layer.name} ({layer.class_name}) are not in the file",
            where=where,
            found=", ".join(sorted(left)[:6]) or "no other arrays",
            expected=_listed(layer),
            hint=_RENAME.format(name=layer.name),
        )
    raise UsageError(
        f"more than one place of the file, or of the config, fits {layer.name}",
        where=where,
        found=", ".join(f"{prefix}*" for prefix in fitting),
        expected=", ".join((layer.name, *others)),
        hint=_RENAME.format(name=layer.name),
    )


def _prefixes(arrays: Mapping[str, Tensor]) -> list[str]:
    """Return every beginning of the arrays' names that may be that of a layer."""
    result: dict[str, None] = {}
    for name in arrays:
        parts = name.replace("/", ".").split(".")
        for count in range(len(parts)):
            result[".".join([*parts[:count], ""]) if count else ""] = None
    return list(result)


def _fits(
    layer: Neighbour, arrays: Mapping[str, Tensor], table: neighbours.Rows, row: Row
) -> bool:
    try:
        tensors, used, _ = neighbours.gather(layer, table, row.sides, arrays)
        _check(layer, tensors)
    except (LSTMConvertError, ValueError, IndexError):
        return False
    return bool(used) and used == set(arrays)


# -- sizes -------------------------------------------------------------------------------------


def _listed(layer: Neighbour) -> str:
    return f"{layer.name} ({layer.class_name}: {', '.join(layer.missing)})"


#: The axes of each weight, apart from a window.
_RANKS = {"kernel": 2, "recurrent_kernel": 2, "embeddings": 2}
_ONE_LONG = frozenset({"gamma", "beta", "moving_mean", "moving_variance"})


def _check(layer: Neighbour, tensors: Mapping[str, Tensor]) -> None:
    """Raise `UsageError` where a weight is not of the size that the config says."""
    window = _window(layer)
    for role, tensor in tensors.items():
        name = role.rpartition(".")[2]
        rank = _RANKS.get(name, 0)
        if rank and len(tensor.shape) != rank + len(window):
            raise _wrong(layer, role, tensor, f"{rank + len(window)} axes")
        if name == "kernel" and window and tensor.shape[: len(window)] != window:
            raise _wrong(layer, role, tensor, f"a window of {'×'.join(map(str, window))}")
    for prefix, class_name, config in layer.cells or (("", layer.class_name, layer.config),):
        sizes = SIZES.get(class_name)
        units = None if sizes is None else config.get(sizes.keyword)
        role = f"{prefix}{sizes.role}" if sizes else ""
        axis = sizes.outputs if sizes and type(units) is int and role in tensors else None
        if axis is not None and tensors[role].shape[axis] != units:
            keyword = sizes.keyword if sizes else ""
            raise _wrong(layer, role, tensors[role], f"{keyword} {units}")
        _check_vectors(layer, prefix, tensors)
        first = tensors.get(f"{prefix}kernel")
        if first is None or layer.fed is None:
            continue
        groups = config.get("groups")
        inputs = first.shape[-2] * (groups if type(groups) is int else 1)
        if inputs != layer.fed:
            raise _wrong(layer, f"{prefix}kernel", first, f"{layer.fed} inputs")
    words = layer.config.get("input_dim")
    table = tensors.get("embeddings")
    if table is not None and type(words) is int and table.shape[0] != words:
        raise _wrong(layer, "embeddings", table, f"input_dim {words}")


def _check_vectors(layer: Neighbour, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """The vectors of a normalization are of one length, and a bias is as long as its kernel."""
    vectors = {role: t for role, t in tensors.items() if role in _ONE_LONG}
    width = layer.fed or next((t.size for t in vectors.values()), None)
    for role, tensor in vectors.items():
        if tensor.size != width:
            raise _wrong(layer, role, tensor, f"{width} features")
    kernel, bias = tensors.get(f"{prefix}kernel"), tensors.get(f"{prefix}bias")
    if kernel is not None and bias is not None and bias.shape[-1] != kernel.shape[-1]:
        raise _wrong(layer, f"{prefix}bias", bias, str(kernel.shape[-1]))
    recurrent = tensors.get(f"{prefix}recurrent_kernel")
    if kernel is None or recurrent is None:
        return
    if recurrent.shape[-1] != kernel.shape[-1]:
        raise _wrong(layer, f"{prefix}recurrent_kernel", recurrent, str(kernel.shape[-1]))


def _window(layer: Neighbour) -> tuple[int, ...]:
    axes = {"Conv1D": 1, "Conv2D": 2}.get(layer.class_name)
    if axes is None:
        return ()
    stated = layer.config.get("kernel_size")
    sizes = stated if isinstance(stated, list) else [stated] * axes
    return tuple(size for size in sizes if type(size) is int)


def _wrong(layer: Neighbour, role: str, tensor: Tensor, expected: str) -> UsageError:
    shape = "×".join(map(str, tensor.shape)) or "()"
    return UsageError(
        f"the weights of {layer.name} ({layer.class_name}) are of another size than its config",
        where=f"{layer.name}/{role}",
        found=f"{shape}, as Keras orders it",
        expected=expected,
        hint=_HINT,
    )



"""What the user says of layers that only their own code knows: `--keep-custom`, `--weights-of`.

A class of the user's own is written as it stands: Keras 3 is given it by `custom_objects`. Where
Keras 3 then looks for weights is known from its source: variables that a layer makes itself are
`vars/0`, `vars/1`, … of its group, the trained ones first, each in the order in which they were
made (keras/src/layers/layer.py, `save_own_variables`); those of a layer or cell that it holds are
in a group that is named as the attribute that holds it (keras/src/saving/saving_lib.py,
`_walk_saveable`). A store of that form says these places itself. An older `.h5` does not: it lists
names of weights, which tell a weight of the layer's own (`attention/W`) from that of a layer inside
(`attention/dense/kernel`), and say nothing of attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lstmconvert.errors import UnsupportedByTarget, UsageError
from lstmconvert.keras.modern.classes import in_order
from lstmconvert.keras.modern.parts import Part

#: An attribute, or one of a layer inside another: `lstm/cell`.
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(/\w+)*")
#: It stands for the weights that a layer makes itself.
ITSELF = "."
_SUFFIX = re.compile(r":\d+$")
#: The most names of weights in an error.
_SHOWN = 8


def attributes(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Read `--weights-of`.

    Args:
        texts: `CLASS=attribute,attribute`.

    Returns:
        Class -> attributes.

    Raises:
        UsageError: a text has another form.
    """
    result: dict[str, tuple[str, ...]] = {}
    for text in texts:
        class_name, equals, listed = text.partition("=")
        names = tuple(name.strip() for name in listed.split(","))
        is_known = all(name == ITSELF or _ATTRIBUTE.fullmatch(name) for name in names)
        if not class_name.strip() or not equals or not is_known:
            raise UsageError(
                "--weights-of: not a class and its attributes",
                found=text,
                expected=f"CLASS=attribute,attribute ({ITSELF} for weights of the layer's own)",
            )
        result[class_name.strip().rpartition(">")[2]] = names
    return result


def inside(names: Sequence[str], scopes: Iterable[str]) -> list[str]:
    """Return the names of a layer's weights without what stands before them: `W`, `dense/kernel`.

    Args:
        names: as an `.h5` lists them.
        scopes: the names of the layer, and of those that it is in.
    """
    known = set(scopes)
    result = []
    for name in names:
        steps = _SUFFIX.sub("", name).strip("/").split("/")
        last = max((at for at, step in enumerate(steps[:-1]) if step in known), default=-1)
        result.append("/".join(steps[last + 1 :]))
    return result


def places(part: Part, names: Sequence[str], stated: Sequence[str] | None) -> list[str]:
    """Return where, in a layer's group, Keras 3 looks for each of its weights.

    Args:
        part: the layer.
        names: of its weights, as `inside` returns them.
        stated: the attributes that hold them, if the user says so.

    Raises:
        UnsupportedByTarget: the names do not tell, and the user does not say.
        UsageError: the user says it for another number of weights.
    """
    holders = [name.rpartition("/")[0] for name in names]
    groups = list(dict.fromkeys(holders))
    within = [group for group in groups if group]
    if stated is None and within:
        raise UnsupportedByTarget(
            "the file does not say which attributes of a class of your own hold its weights",
            where=part.name,
            layer=part.name,
            option=part.class_name,
            target="Keras 3",
            found=_listed(names),
            expected="weights that the layer makes itself",
            hint=f"--weights-of {part.class_name}=… names the attributes that hold "
            f"{', '.join(within[:_SHOWN])}, in this order (cell for a subclass of LSTM)",
        )
    if stated is not None:
        if len(stated) == len(names):
            holders = list(stated)
        elif len(stated) == len(within) or (not within and len(stated) == 1):
            renamed = dict(zip(within or groups, stated, strict=True))
            holders = [renamed.get(holder, holder) for holder in holders]
        else:
            raise UsageError(
                f"--weights-of {part.class_name}: another number of attributes than of weights",
                where=part.name,
                found=", ".join(stated),
                expected=f"{len(within) or 1} or {len(names)}, for {_listed(names)}",
            )
    counts: dict[str, int] = {}
    result = []
    for holder in holders:
        group = "" if holder == ITSELF else holder
        number = counts.get(group, 0)
        counts[group] = number + 1
        result.append(f"{group}/vars/{number}".lstrip("/"))
    return result


def of_objects(part: Part, names: Sequence[str], stated: Sequence[str] | None) -> list[str]:
    """Return where, in a layer's group, Keras 3 looks for each of its weights, by a graph of
    objects: it tells the attributes that hold them, and not the order in which they were made.
    That of layers of Keras's own inside is known.

    Args:
        part: the layer.
        names: of its weights, by attributes: `W`, `dense/kernel`.
        stated: the attributes of the layer's own weights in their order, if the user says so.

    Raises:
        UnsupportedByTarget: neither the file nor the user tells an order or a place.
        UsageError: the user says it of other weights.
    """
    of_layer = [name for name in names if "/" not in name]
    if stated is not None and sorted(stated) != sorted(of_layer):
        raise UsageError(
            f"--weights-of {part.class_name}: not the weights that the layer makes itself",
            where=part.name, found=", ".join(stated), expected=_listed(of_layer) or "none",
        )
    groups: dict[str, list[str]] = {}
    for name in names:
        holder, _, leaf = name.rpartition("/")
        groups.setdefault(holder, []).append(leaf)
    orders = {"": list(stated or of_layer)}
    unknown: list[str] = []
    for holder, leaves in groups.items():
        if not holder:
            continue
        made = in_order(leaves)
        if made is None or any(step.isdigit() for step in holder.split("/")):
            unknown += [f"{holder}/{leaf}" for leaf in leaves]
        else:
            orders[holder] = made
    if unknown or (stated is None and len(of_layer) > 1):
        error = UnsupportedByTarget(
            "the file does not say in which order a class of your own makes its weights",
            where=part.name, layer=part.name, option=part.class_name, target="Keras 3",
            found=_listed(unknown or of_layer),
        )
        if not unknown:
            error.hint = (
                f"--weights-of {part.class_name}={','.join(of_layer[:_SHOWN])}, in the order in "
                "which the class makes them, the trained ones first, says it"
            )
        raise error
    places = []
    for name in names:
        holder, _, leaf = name.rpartition("/")
        places.append(f"{holder}/vars/{orders[holder].index(leaf)}".lstrip("/"))
    return places


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


#: Attributes of a MultiHeadAttention in tf_keras and in Keras 3
#: (tf_keras/src/layers/attention/multi_head_attention.py).
_PRIVATE = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")


def of_older_store(paths: Sequence[str], containers: Sequence[str]) -> list[str]:
    """Return places in a layer's group of tf_keras's store as those of Keras 3: where layers of
    Keras's own inside have other attributes now.

    Args:
        paths: below the layer's group.
        containers: names of the group that holds the layers of a model, today's first.
    """
    parents: dict[str, set[str]] = {}
    for path in paths:
        steps = path.split("/")
        for at, step in enumerate(steps):
            parents.setdefault("/".join(steps[:at]), set()).add(step)
    result = []
    for path in paths:
        steps = path.split("/")
        changed = list(steps)
        for at, step in enumerate(steps):
            siblings = parents["/".join(steps[:at])]
            if step in _PRIVATE and siblings.issuperset(_PRIVATE):
                changed[at] = step.removeprefix("_")
            elif step in containers:
                changed[at] = containers[0]
        result.append("/".join(changed))
    return result


def notes(parts: Iterable[Part]) -> list[str]:
    """Return a note on each layer of a class of the user's own: where its weights are."""
    result = []
    for part in parts:
        count = sum(place.startswith("vars/") for place in part.places)
        holders = dict.fromkeys(
            place.rpartition("/vars/")[0] for place in part.places if "/vars/" in place
        )
        holdings = [f"{count} of its own"] if count else []
        holdings += [f"those of {', '.join(holders)}"] if holders else []
        weights = f", with weights: {' and '.join(holdings)}" if holdings else ""
        result.append(f"{part.name}: the class {part.custom} is kept as it stands{weights}")
    return result

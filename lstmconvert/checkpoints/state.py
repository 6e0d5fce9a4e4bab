"""Which variables of a checkpoint are no weights: what training keeps of itself.

Optimizers, metrics, counters, the states that a stateful layer carries from batch to batch, the
seeds of dropout. A variable is a weight if any path leads to it that passes through none of them:
Keras 3's optimizer, for one, has edges to the weights too.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from lstmconvert.tensorflow.bundle import Bundle
from lstmconvert.tensorflow.objectgraph import ROOT, ObjectGraph

#: Variables of TensorFlow 1's optimizers, after the variable that they belong to.
_POWER = re.compile(r"beta[12]_power(_\d+)?")
_SLOT = re.compile(
    rf"(Adam|AdamW|AdaMax|Nadam|LazyAdam|Momentum|RMSProp|Adagrad|Adadelta|Ftrl)(_\d+)?"
    rf"|{_POWER.pattern}"
)
#: Edges that Keras and `tf.train.Checkpoint` give to what training keeps. Below `keras_api` are the
#: metrics of `compile` and the states of stateful layers; it leads to weights, too, but not alone.
_EDGES = frozenset(
    {
        "optimizer",
        "keras_api",
        "save_counter",
        "_random_generator",
        "seed_generator",
    }
)
#: What an optimizer has, under whatever name it hangs: of Keras 2, of TensorFlow 2.11 on, of Keras
#: 3 (keras/src/optimizers/base_optimizer.py).
_OPTIMIZERS = ({"iter", "learning_rate"}, {"_iterations", "_learning_rate"})
#: The end of the name of the state of a random generator (keras/src/random/seed_generator.py).
SEED = "seed_generator_state"


def training_keys(
    bundle: Bundle, metrics: Collection[str] = (), model: int = ROOT
) -> set[str]:
    """Return the keys of the variables that are no weights.

    Args:
        bundle: the checkpoint.
        metrics: the paths of objects that are known to be metrics.
        model: the object that is the model; what hangs beside it is none of its weights.
    """
    if bundle.graph is None:
        return {key for key in bundle.tensors if _is_named_so(bundle, key)}
    weights = _weights(bundle.graph, metrics, model)
    return {key for key in bundle.tensors if key in bundle.graph.keys and key not in weights}


def _is_named_so(bundle: Bundle, key: str) -> bool:
    first, _, last = key.rpartition("/")
    if not _SLOT.fullmatch(last):
        return False
    # An optimizer that was made in a scope of its own has that before the variable's name.
    scopes = first.split("/")
    return _POWER.fullmatch(last) is not None or any(
        "/".join(scopes[start:]) in bundle.tensors for start in range(len(scopes))
    )


def _weights(graph: ObjectGraph, metrics: Collection[str], model: int) -> set[str]:
    left_out = {found for path in metrics if (found := graph.find(path)) is not None}
    slots = graph.slots
    seen = {model} if graph.nodes else set()
    waiting = list(seen)
    keys: set[str] = set()
    while waiting:
        at = waiting.pop()
        for attribute in graph.nodes[at].attributes:
            if attribute.key not in slots and not attribute.full_name.endswith(SEED):
                keys.add(attribute.key)
        names = {child.name for child in graph.nodes[at].children}
        # Keras 3's stateful layers have them beside their cell, and nowhere else.
        carried = {"states"} if "cell" in names else set()
        for child in graph.nodes[at].children:
            if child.name in carried:
                continue
            if child.node in seen or child.node in left_out or child.name in _EDGES:
                continue
            seen.add(child.node)
            if not _is_optimizer(graph, child.node):
                waiting.append(child.node)
    return keys


def _is_optimizer(graph: ObjectGraph, at: int) -> bool:
    names = {child.name for child in graph.nodes[at].children}
    return any(has <= names for has in _OPTIMIZERS)

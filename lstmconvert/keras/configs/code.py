"""What in a Keras config makes Keras run, import or fetch something, told from the config alone.

Keras 3 refuses most of it in a `.keras` unless the user passes `safe_mode=False`. It asks nothing
of a legacy `.h5` (CVE-2025-9905), so a config with any of it is never carried into another kind of
file, and never written for another Keras than its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from lstmconvert.errors import UnsupportedByTarget
from lstmconvert.files.jsontext import NESTED, parse_object

#: Class -> what Keras does when it opens or calls one (keras/src/layers and keras/src/export).
CLASSES = {
    "Lambda": "runs Python code that the file holds",
    "TFSMLayer": "opens a SavedModel that the file names, and runs it",
    "TorchModuleWrapper": "unpickles a PyTorch module that the file holds",
    "JaxLayer": "runs functions that the file names",
    "FlaxLayer": "runs a module that the file names",
}
#: Keyword -> what Keras does where its value is a text (keras/src/layers/preprocessing).
KEYWORDS = {
    "vocabulary": "opens a path or an address that the file names",
    "idf_weights": "opens a path or an address that the file names",
}
#: The parts of Keras whose functions and classes compute, and do nothing else. `applications` is
#: none of them: it downloads weights.
_COMPUTES = frozenset(
    {
        "activations",
        "constraints",
        "dtype_policies",
        "engine",  # of Keras 2: models and what they are made of
        "initializers",
        "layers",
        "losses",
        "metrics",
        "mixed_precision",  # of Keras 2: dtype policies
        "models",
        "ops",
        "optimizers",
        "quantizers",
        "random",
        "regularizers",
    }
)
#: Names in those parts that open files or fetch them (keras/src/models, keras/src/utils).
_OPENS = frozenset({"load_model", "load_weights", "get_file", "model_from_json"})


class Finding(NamedTuple):
    """One such thing: the name of the layer or object, and what Keras would do with it."""

    name: str
    what: str


def findings(config: str, where: str) -> list[Finding]:
    """Return all that a config's text would make Keras run, import or fetch.

    Args:
        config: JSON of a model, as `model_config` holds it.
        where: the path to name in an error.

    Raises:
        CorruptFile: the text is not a JSON object.
    """
    return list(_walk(parse_object(config, where)))


def _walk(root: Any) -> Iterator[Finding]:
    waiting = [(root, "the model")]
    while waiting:
        value, name = waiting.pop()
        if isinstance(value, list):
            waiting += [(item, name) for item in value if type(item) in NESTED]
        else:
            name = _name(value) or name
            waiting += [(item, name) for item in value.values() if type(item) in NESTED]
            what = _what(value)
            if what is not None:
                yield Finding(name, what)


def _what(value: dict[str, Any]) -> str | None:
    class_name = value.get("class_name")
    if isinstance(class_name, str):
        if class_name in CLASSES:
            return CLASSES[class_name]
        called = value.get("config") if class_name == "function" else class_name
        if not _is_harmless(value, called):
            return f"imports {value['module']} and takes {called} from it"
    for keyword, what in KEYWORDS.items():
        if isinstance(value.get(keyword), str):
            return what
    return None


def _is_harmless(value: dict[str, Any], called: Any) -> bool:
    """Whether making an object makes Keras compute, and do nothing else.

    An object without a module is found among Keras's own, or in what the caller registers.
    """
    if isinstance(called, str) and called in _OPENS:
        return False
    module = value.get("module")
    if not isinstance(module, str) or module == "builtins":
        return True
    first, _, rest = module.partition(".")
    if first in ("keras", "tf_keras"):
        return not rest or rest.removeprefix("src.").partition(".")[0] in _COMPUTES
    # A name with a package (`Custom>MyLayer`) is one that the caller registers; for any other,
    # Keras imports the module.
    return ">" in str(value.get("registered_name"))


def _name(value: dict[str, Any]) -> str | None:
    config = value.get("config")
    for holder in (config, value):
        if isinstance(holder, dict) and isinstance(holder.get("name"), str):
            return str(holder["name"])
    return None


def refused(name: str, what: str, target: str) -> UnsupportedByTarget:
    """Return the error for a config that would make Keras run, import or fetch something.

    Args:
        name: of the layer or object.
        what: Keras would do.
        target: the kind of file that was asked for.
    """
    return UnsupportedByTarget(
        f"Keras {what} when it opens this layer, so it is not written for {target}",
        where=name,
        hint="keep the source's kind of file, or write the LSTM layers alone with --lstm-only",
    )

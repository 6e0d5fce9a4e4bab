"""YAML, as Keras's `to_yaml()` wrote it until 2021, as the JSON value that it represents.

PyYAML's safe loader reads it, which makes plain values alone. Tuples, which Keras wrote with a tag
of Python's, are lists here; any other tag is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lstmconvert import limits
from lstmconvert.errors import CorruptFile, MissingPackage, install
from lstmconvert.files.jsontext import Json

_TUPLE = "tag:yaml.org,2002:python/tuple"


def parse(data: bytes, where: Path) -> Json:
    """Return the value of a YAML text.

    Raises:
        MissingPackage: PyYAML is not installed.
        CorruptFile: it is not YAML, or holds more than plain values.
        LimitExceeded: it is too deep, or its references repeat too much.
    """
    try:
        import yaml
    except ImportError:
        raise MissingPackage(
            "a config in YAML is read by PyYAML, which is not installed",
            where=where,
            hint=f"{install('yaml')}, or save the config as JSON: to_json()",
        ) from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # it is not typed
        pass

    Loader.add_constructor(_TUPLE, lambda loader, node: loader.construct_sequence(node, deep=True))
    try:
        value = yaml.load(data, Loader)  # noqa: S506  # it is the safe one, and lists for tuples
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CorruptFile(
            f"not YAML of a config: {' '.join(str(error).split())[:120]}", where=where
        ) from None
    _measure(value, where, 0, {})
    return _plain(value, where)


def _measure(value: Any, where: Path, depth: int, known: dict[int, tuple[int, int]]) -> int:
    """Return how many values a value is once every reference is a copy, without copying any.

    Args:
        value: the value, which may refer to one list a million times over.
        where: the file, for errors.
        depth: of the value in the whole.
        known: id of a list or dict -> how many values it is, and how deep. Those that were measured
            are added.

    Raises:
        LimitExceeded: they are too many, or too deep.
    """
    limits.JSON_DEPTH.check(depth, where, "the depth of the YAML")
    if not isinstance(value, (dict, list, tuple)):
        return 1
    if id(value) not in known:
        count, height = 1, 0
        for item in value.values() if isinstance(value, dict) else value:
            count += _measure(item, where, depth + 1, known)
            height = max(height, 1 + known.get(id(item), (1, 0))[1])
        limits.JSON_VALUES.check(count, where, "the number of values")
        known[id(value)] = count, height
    count, height = known[id(value)]
    limits.JSON_DEPTH.check(depth + height, where, "the depth of the YAML")
    return count


def _plain(value: Any, where: Path) -> Json:
    """Return a value as JSON has it. References of YAML to one value become copies."""
    if isinstance(value, dict):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CorruptFile("a value that no config has", where=where, found=type(value).__name__)

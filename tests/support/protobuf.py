"""Messages of a table as classes of the protobuf library: what our own reader is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from lstmconvert.containers.mlmodel import MESSAGES

_PACKAGE = "lstmconvert.tests"


def pool_of(table: Mapping[str, Mapping[str, str]], package: str) -> Any:
    """Return a pool of the library's that knows the messages of a table of `files.wire.Schema`."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    types = descriptor_pb2.FieldDescriptorProto
    for name, fields in table.items():
        described = file.message_type.add(name=name)
        for key, text in fields.items():
            number, kind = text.split()
            field = described.field.add(name=key, number=int(number.removesuffix("*")))
            field.label = types.LABEL_REPEATED if number.endswith("*") else types.LABEL_OPTIONAL
            if kind in table:
                field.type, field.type_name = types.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(types, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def class_of(pool: Any, package: str, name: str) -> Any:
    """Return the class of a message."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


@cache
def _core_ml() -> Any:
    return pool_of(MESSAGES, _PACKAGE)


def message(name: str) -> Any:
    """Return the class of a message of Core ML."""
    return class_of(_core_ml(), _PACKAGE, name)

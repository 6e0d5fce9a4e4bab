"""Which names a file may have on this system."""

from __future__ import annotations

import os
import re

#: Whether names are those of Windows.
WINDOWS = os.name == "nt"

#: Names for which Windows opens a device, in any folder and before any suffix (Microsoft, "Naming
#: Files, Paths, and Namespaces").
_DEVICE = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL
)


#: It separates the kind of a URL from the rest of it.
URL_MARK = "://"


def is_url(path: str) -> bool:
    """Whether a path is a URL: `s3://bucket/key`, `memory://folder/file`."""
    return URL_MARK in path


def is_plain(name: str) -> bool:
    """Whether a name in a model is a plain file name, which does not lead to another folder."""
    return (
        bool(name)
        and name not in (".", "..")
        and {"/", "\\", "\0"}.isdisjoint(name)
        and fault(name) is None
    )


def fault(name: str) -> str | None:
    """Return why a file cannot have a name here; None if it can."""
    if not WINDOWS:
        return None
    if _DEVICE.fullmatch(name):
        return "Windows keeps this name for a device"
    if ":" in name:
        return "a colon, behind which Windows hides a part of another file"
    if name.endswith((" ", ".")):
        return "Windows drops a dot or a space at the end of a name"
    return None

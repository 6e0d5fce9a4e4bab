"""Limits on a process that parses what may make a C library allocate or loop without end."""

from __future__ import annotations

import math

from lstmconvert import limits


def confine() -> None:
    """Limit this process's memory, and the processor time that it may take from now on.

    Beyond the time a signal ends it; beyond the memory it has a `MemoryError`, or crashes.

    Raises:
        ImportError: this system has no such limits.
    """
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(used.ru_utime + used.ru_stime) + limits.ISOLATED_SECONDS.value
    for kind, most in (
        (resource.RLIMIT_AS, limits.ISOLATED_BYTES.value),
        (resource.RLIMIT_CPU, until),  # the soft limit alone: beyond the hard one no signal tells
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (soft, hard))

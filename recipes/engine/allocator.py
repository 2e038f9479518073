"""Keep the memory that tensors free, in a process of our own, instead of giving it back to the system."""

from __future__ import annotations

import ctypes
import os

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1  # of mallopt, in malloc.h
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make glibc's ``malloc`` keep freed memory for the next tensor; see mallopt(3).

    By default it maps large tensors anew every time, and the system clears their pages: a fifth of the time of scoring
    a text. The settings of a user, in ``MALLOC_*`` or ``GLIBC_TUNABLES``, remain.

    Returns:
        Whether the process does so now; other libraries of C than glibc have no such setting.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS; Windows, where None names no library
        return False
    values = {_ARENA_MAX: 1, _MMAP_THRESHOLD: _MOST, _TRIM_THRESHOLD: _MOST}
    return all(mallopt(name, value) for name, value in values.items())

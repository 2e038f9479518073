"""The memories that the reader of `vqmem explore` chose."""

from __future__ import annotations

from collections.abc import Mapping

from ...memory.bank import Memory
from ...memory.policy import Guard, Policy
from ...registry import UnknownNameError
from .settings import Settings

SLOTS = 1024
"""The most slots: a page lists what is kept after every segment."""


def memories_for(known: Mapping[str, Policy], settings: Settings) -> dict[str, Memory]:
    """The memory of each strategy, by the policies that are ``known``.

    Raises `ValueError` in one line for an unknown strategy, too many slots, and guards that leave no room.
    """
    if not settings.strategies:
        raise ValueError(f"no strategy is chosen; choose some of {', '.join(known)}")
    for name in settings.strategies:
        if name not in known:
            raise UnknownNameError("strategy", name, list(known))
    if settings.capacity > SLOTS:
        raise ValueError(f"capacity={settings.capacity} slots are more than a page can show; give at most {SLOTS:,}")
    guard = Guard(settings.sinks, settings.recent)
    return {name: Memory(settings.capacity, known[name], guard=guard) for name in settings.strategies}

"""What memories keep of a passage over time, by policies that need scores at most and no model."""

from __future__ import annotations

import torch

from ...memory.bank import Memory
from ...memory.policy import Guard, Policy
from ...memory.scorer import SIGNALS
from ...registry import UnknownNameError, build, names
from .passage import Passage
from .settings import Settings

SEGMENT = 32
"""Tokens that are written at once, after which the memory evicts."""
SLOTS = 1024
"""The most slots: a page lists what is kept after every segment."""


def policies(signals: tuple[str, ...]) -> dict[str, Policy]:
    """The policies that can be followed without a model, by name; `scored` has one for each signal in its place."""
    found: dict[str, Policy] = {}
    for name in names("policies"):
        if name == "scored":
            none = dict.fromkeys(SIGNALS, 0.0)
            weighable = [signal for signal in signals if signal in SIGNALS]
            found |= {signal: build("policies", {"name": name, **none, signal: 1.0}) for signal in weighable}
        else:
            policy = build("policies", name)
            if set(policy.requires) <= {"scores"} and not hasattr(policy, "attention_signals"):
                found[name] = policy
    return found


def memories_for(signals: tuple[str, ...], settings: Settings) -> dict[str, Memory]:
    """The memory of each strategy, for a scorer that gives those signals.

    Raises `ValueError` in one line for an unknown strategy, too many slots, and guards that leave no room.
    """
    known = policies(signals)
    if not settings.strategies:
        raise ValueError(f"no strategy is chosen; choose some of {', '.join(known)}")
    for name in settings.strategies:
        if name not in known:
            raise UnknownNameError("strategy", name, list(known))
    if settings.capacity > SLOTS:
        raise ValueError(f"capacity={settings.capacity} slots are more than a page can show; give at most {SLOTS:,}")
    guard = Guard(settings.sinks, settings.recent)
    return {name: Memory(settings.capacity, known[name], guard=guard) for name in settings.strategies}


@torch.no_grad()
def follow(passage: Passage, memory: Memory, segment: int = SEGMENT) -> list[list[int]]:
    """The positions that a memory keeps after each segment of the passage."""
    nothing = torch.zeros(1, len(passage.ids), 0)
    state, found = memory.empty((nothing,), passage.names), []
    for part in torch.arange(len(passage.ids)).split(segment):
        row = part[None]
        written = (passage.ids[row], row, passage.scores[row], torch.ones_like(row, dtype=torch.bool))
        state = memory.write(state, (nothing[:, part],), *written).state
        found.append(sorted(state.slots.positions[0][state.slots.valid[0]].tolist()))
    return found

"""What an eviction cost: a trained language model reads the passage again with the evicted token kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...memory.bank import Memory
from ...memory.policy import Policy
from ...memory.slots import Slots
from ...registry import build
from ..lm.corpus import Passage as ReadPassage
from ..lm.language_model import PassageScores, read_passages
from ..lm.strategies import Strategy
from ..text_lm.recipe import Run
from .passage import Passage

TRIED, SHOWN = 32, 8
"""Evicted tokens that are kept in turn, and later tokens that are shown for each."""
CAPACITIES = (16, 32, 64, 128, 256, 512)
"""Slots for the quality of each memory, as far as the passage is longer."""


@dataclass(frozen=True)
class Pinned:
    """A policy of which each row never evicts the slot at one more position."""

    policy: Policy
    positions: tuple[int, ...]
    """The position of each row."""

    @property
    def requires(self) -> tuple[str, ...]:
        """What the policy requires."""
        return self.policy.requires

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """That of the policy; of the pinned slot, more than any."""
        priority = self.policy.priority(slots, now)
        pinned = slots.positions == torch.tensor(self.positions, device=now.device)[:, None]
        return priority.masked_fill(pinned, torch.finfo(priority.dtype).max)


class Reader:
    """A language model that reads one passage with any memory.

    Args:
        run: the finished run of the language model.
        passage: the passage, in tokens of the run.
    """

    def __init__(self, run: Run, passage: Passage) -> None:
        self.run, self.names, self.scores = run, passage.names, passage.scores
        self.item = ReadPassage.from_ids(passage.ids)

    def losses(self, memory: Memory, rows: int = 1) -> Float[Tensor, "rows time"]:
        """The loss of every token but the first in nats, read in so many equal rows."""
        scores = PassageScores(self.names, [self.scores] * rows)
        strategy = Strategy("read", memory.policy, memory.compression)
        items = [self.item] * rows
        readings, _ = read_passages(self.run.model, strategy, memory, items, scores, rows, self.run.config.segment)
        return torch.stack([reading.nll for reading in readings])


def consequences(reader: Reader, memory: Memory, kept: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """What keeping each of some evicted tokens would have saved, the most first.

    Tried are tokens that come again after their eviction, then others, by the first signal; each token once.

    Args:
        reader: the model and the passage.
        memory: that evicted them.
        kept: the positions that it kept after each segment.

    Returns:
        ``at``, the position; ``saved``, nats over all later tokens; ``later``, pairs of a position and the change of
        its loss, the largest first.
    """
    tried = _candidates(reader, kept)
    if not tried:
        return []
    pinned = replace(memory, policy=Pinned(memory.policy, tuple(tried)))
    saved = reader.losses(memory) - reader.losses(pinned, len(tried))
    found = []
    for position, change in zip(tried, saved, strict=True):
        largest = change.abs().topk(min(SHOWN, len(change))).indices.tolist()
        later = [[index + 1, round(float(change[index]), 4)] for index in largest if change[index]]
        found.append({"at": position, "saved": round(float(change.sum()), 4), "later": later})
    return sorted(found, key=lambda effect: -effect["saved"])


def quality(reader: Reader, memories: Mapping[str, Memory]) -> dict[str, Any]:
    """The mean loss of the passage in nats a token: with everything kept, and by strategy and capacity."""
    length = len(reader.item.ids)
    full = Memory(length, build("policies", "fifo"))
    capacities = [slots for slots in CAPACITIES if slots < length]
    rows = {}
    for name, memory in memories.items():
        guarded = memory.guard.sinks + memory.guard.recent
        rows[name] = [
            _mean(reader, replace(memory, capacity=slots)) if slots > guarded else None for slots in capacities
        ]
    return {"capacities": capacities, "rows": rows, "full": _mean(reader, full)}


def _mean(reader: Reader, memory: Memory) -> float:
    return round(float(reader.losses(memory).mean()), 4)


def _candidates(reader: Reader, kept: Sequence[Sequence[int]]) -> list[int]:
    """Positions of different tokens that were evicted before the end, at most `TRIED`, in order."""
    ids, segment = reader.item.ids.tolist(), reader.run.config.segment
    last = dict(zip(ids, range(len(ids)), strict=True))
    gone: dict[int, int] = {}
    for number, positions in enumerate(kept, start=1):
        read = min(number * segment, len(ids))
        gone |= dict.fromkeys(set(range(read)).difference(positions, gone), read)
    evicted = [place for place, read in gone.items() if read < len(ids)]
    ranked = sorted(evicted, key=lambda place: (last[ids[place]] < gone[place], -float(reader.scores[place, 0])))
    one_of_each = {ids[place]: place for place in reversed(ranked)}
    return sorted([place for place in ranked if one_of_each[ids[place]] == place][:TRIED])

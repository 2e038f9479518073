"""What an eviction cost: a language model reads the passage again with the evicted token kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ...memory.bank import Memory
from ...registry import build
from .explored import Explored
from .readers import Pins, Reading

SHOWN = 8
"""Later tokens that are shown for an evicted one."""


def consequences(explored: Explored, strategy: str) -> list[dict[str, Any]]:
    """What keeping each of some tokens that a strategy evicted would have saved, the most first, as `effects` gives it.

    It tries tokens that come again after their eviction, then others, by the first signal; each token once.
    """
    found = effects(explored, strategy, _candidates(explored, explored.followed[strategy].kept))
    return sorted(found, key=lambda effect: -effect["saved"])


def effects(explored: Explored, strategy: str, evicted: Sequence[int]) -> list[dict[str, Any]]:
    """What keeping each of the ``evicted`` positions would have saved; nothing where guards fill the memory.

    Args:
        explored: the passage, and what the model made of it.
        strategy: that evicted them.
        evicted: the positions.

    Returns:
        ``at``, the position; ``saved``, nats over all later tokens; ``later``, pairs of a position and the change of
        its loss, the largest first.
    """
    memory = explored.memories[strategy]
    guard = memory.guard
    if not evicted or guard.sinks + guard.recent >= memory.capacity:
        return []
    before = explored.reading(strategy).losses
    pinned = replace(memory, guard=Pins(guard.sinks, guard.recent, tuple(evicted)))
    after = explored.reader.read(explored.passage, pinned).losses
    assert before is not None
    assert after is not None
    return [_effect(position, change) for position, change in zip(evicted, before[:1] - after, strict=True)]


def read_fully(explored: Explored) -> Reading:
    """Read the passage with a memory that evicts nothing of it, nor of what follows."""
    length, new = len(explored.passage.ids), explored.reader.new
    return explored.reader.read(explored.passage, Memory(length + new, build("policies", "fifo")), new=new)


def quality(explored: Explored, full: Reading) -> dict[str, Any]:
    """The mean loss of the passage in nats a token, with everything kept and by strategy and capacity.

    Args:
        explored: the passage, and what the model made of it.
        full: the reading with everything kept.

    Returns:
        ``capacities``; ``rows``, the losses of each strategy, None where guards leave no room; ``full``.
    """
    reader, passage, settings = explored.reader, explored.passage, explored.settings
    capacities = sorted(slots for slots in {settings.capacity, *reader.capacities} if slots < len(passage.ids))
    guarded = settings.sinks + settings.recent

    def loss(name: str, slots: int) -> float | None:
        if slots == settings.capacity:
            return _mean(explored.reading(name))
        return (
            _mean(reader.read(passage, replace(explored.memories[name], capacity=slots))) if slots > guarded else None
        )

    rows = {name: [loss(name, slots) for slots in capacities] for name in explored.memories}
    return {"capacities": capacities, "rows": rows, "full": _mean(full)}


def following(explored: Explored, full: Reading) -> dict[str, Any]:
    """How the model goes on after the passage: with everything kept, and how far each memory says the same.

    Args:
        explored: the passage, and what the model made of it.
        full: the reading with everything kept.

    Returns:
        ``full``, the text; ``rows``, of each strategy the text that is the ``same``, the ``rest``, and after how many
        tokens they part (``parts``, None where they do not).
    """
    decode = explored.reader.decode
    rows = {}
    for name in explored.memories:
        reading = explored.reading(name)
        pairs = enumerate(zip(reading.following, full.following, strict=False))
        parts = next((number for number, (one, other) in pairs if one != other), None)
        text = decode(list(reading.following))
        same = decode(list(reading.following[:parts]))
        while not text.startswith(same):  # it ends within a character
            same = same[:-1]
        rows[name] = {"same": same, "rest": text[len(same) :], "parts": parts}
    return {"full": decode(list(full.following)), "rows": rows}


def _effect(position: int, change: Float[Tensor, " predicted"]) -> dict[str, Any]:
    largest = change.abs().topk(min(SHOWN, len(change))).indices.tolist()
    later = [[index + 1, value] for index in largest if (value := round(float(change[index]), 4))]
    return {"at": position, "saved": round(float(change.sum()), 4), "later": later}


def _mean(reading: Reading) -> float:
    assert reading.losses is not None
    return round(float(reading.losses.mean()), 4)


def _candidates(explored: Explored, kept: Sequence[Sequence[int]]) -> list[int]:
    """Positions of different tokens that were evicted before the end, in order."""
    reader, passage = explored.reader, explored.passage
    ids = passage.ids.tolist()
    last = dict(zip(ids, range(len(ids)), strict=True))
    gone: dict[int, int] = {}
    for number, positions in enumerate(kept, start=1):
        read = min(number * reader.segment, len(ids) - 1)
        gone |= dict.fromkeys(set(range(read)).difference(positions, gone), read)
    evicted = [place for place, read in gone.items() if read < len(ids) - 1]
    ranked = sorted(evicted, key=lambda place: (last[ids[place]] < gone[place], -float(passage.scores[place, 0])))
    one_of_each = {ids[place]: place for place in reversed(ranked)}
    return sorted([place for place in ranked if one_of_each[ids[place]] == place][: reader.tried])

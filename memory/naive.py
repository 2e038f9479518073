"""The memory in plain Python lists, one row and one slot at a time: the oracle of the tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Slot:
    """One remembered token; see `vqmem.memory.slots.Slots` for the fields."""

    token: int
    position: int
    scores: Mapping[str, float] = field(default_factory=dict)
    standard: Mapping[str, float] = field(default_factory=dict)
    usage: float = 0.0
    valid: bool = True
    guarded: bool = False
    decay: Sequence[float] = ()


_SIGNALS = ("surprise", "rarity", "gain", "reuse")
Priority = Callable[[Any, Sequence[Slot], int], list[float]]
"""Maps a policy, the valid slots of a row in order of position, and the next position to a priority for each slot."""


def fifo(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """Newer is higher."""
    return [float(slot.position - now) for slot in slots]


def sink_recent(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """The first tokens above all others, which are higher the newer they are."""
    return [math.inf if slot.position < policy.sinks else float(slot.position - now) for slot in slots]


def random(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """The top 24 of 31 hashed bits, as a fraction."""

    def mix(x: int) -> int:
        x &= 2**31 - 1
        x = ((x ^ x >> 16) * 0x21F0AAAD) % 2**31
        x = ((x ^ x >> 15) * 0x735A2D97) % 2**31
        return x ^ x >> 15

    return [
        (mix(mix(mix(now + 0x9E3779B * (policy.seed + 1)) ^ slot.position) ^ slot.token) >> 7) / 2**24 for slot in slots
    ]


def _has_newer_copy(slot: Slot, slots: Sequence[Slot]) -> bool:
    return any(other.token == slot.token >= 0 and other.position > slot.position for other in slots)


def _weighed(policy: Any, signals: Mapping[str, float]) -> float:
    return sum((weight * signals[name] for name in _SIGNALS if (weight := getattr(policy, name))), start=0.0)


def scored(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """Weighted signals minus a function of age, with all options."""

    def weighed(slot: Slot) -> float:
        signals = slot.standard if policy.scale == "standardised" else slot.scores
        if policy.scale == "log":
            signals = {name: math.log(max(signal, policy.floor)) for name, signal in signals.items()}
        return _weighed(policy, signals)

    def importance(slot: Slot) -> float:
        return weighed(slot) - policy.copies * _has_newer_copy(slot, slots)

    def cost(slot: Slot) -> float:
        age = max(1, now - slot.position)
        lives = age / policy.half_life
        return {"log": math.log(age), "linear": lives, "half_life": 1 - 2**-lives}[policy.age]

    priorities = []
    for slot in slots:
        near = [importance(other) for other in slots if abs(other.position - slot.position) <= policy.window // 2]
        priority = sum(near) / len(near) - policy.age_weight * cost(slot)
        priority += policy.usage * math.log(max(slot.usage, 1e-6))
        if policy.admit is not None and weighed(slot) < policy.admit:
            priority -= 1e6
        priorities.append(priority)
    return priorities


def weighted(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """The score part alone: signals standardised over the slots that no guard protects."""

    def standardised(values: list[float]) -> list[float]:
        competing = [value for value, slot in zip(values, slots, strict=True) if not slot.guarded]
        mean = sum(competing) / max(1, len(competing))
        spread = math.sqrt(sum((value - mean) ** 2 for value in competing) / max(1, len(competing)))
        return [(value - mean) / max(spread, 1e-6) for value in values]

    names = slots[0].scores if slots else ()
    columns = {name: standardised([slot.scores[name] for slot in slots]) for name in names}
    sums = standardised([_weighed(policy, {name: columns[name][i] for name in names}) for i in range(len(slots))])
    importance = [x - policy.copies * _has_newer_copy(slot, slots) for x, slot in zip(sums, slots, strict=True)]
    near = policy.window // 2
    spans = [
        [x for x, other in zip(importance, slots, strict=True) if abs(other.position - slot.position) <= near]
        for slot in slots
    ]
    return standardised([sum(span) / len(span) for span in spans])


def expire_span(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """How many tokens are left of each slot's span."""

    def span(slot: Slot) -> float:
        return policy.max_span / (1 + math.exp(-policy.bias - _weighed(policy, slot.standard)))

    return [span(slot) - max(1, now - slot.position) for slot in slots]


def used(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """The usage of each slot, as h2o, lfu and tova define it."""
    return [slot.usage for slot in slots]


def lru(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """Minus the tokens since the last query that attended to it, or since it was written."""
    return [float(max(slot.usage - 1, slot.position) - now) for slot in slots]


def knorm(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """The shorter the key, the higher the priority."""
    return [-slot.usage for slot in slots]


def snapkv(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """The mean usage of a slot and its neighbours."""
    priorities = []
    for slot in slots:
        near = [other.usage for other in slots if abs(other.position - slot.position) <= policy.kernel // 2]
        priorities.append(sum(near) / len(near))
    return priorities


def forget_gate(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """The logarithms of the attention received and of the mean share of weight that the gates leave, and signals."""

    def attention(slot: Slot) -> float:
        return policy.usage * math.log(max(slot.usage, 1e-6))

    def share(slot: Slot) -> float:
        return sum(math.exp(decay) for decay in slot.decay) / len(slot.decay)

    return [attention(slot) + _weighed(policy, slot.standard) + math.log(share(slot)) for slot in slots]


def oracle(policy: Any, slots: Sequence[Slot], now: int) -> list[float]:
    """Minus the tokens until the slot's token is read again."""

    def wait(slot: Slot) -> int:
        later = (p for p in range(now, len(policy.text)) if policy.text[p] == slot.token)
        return next(later, now + 2 * len(policy.text) + 1) - now

    return [-float(wait(slot)) for slot in slots]


PRIORITIES: dict[str, Priority] = {
    "fifo": fifo,
    "sink_recent": sink_recent,
    "random": random,
    "scored": scored,
    "weighted": weighted,
    "expire_span": expire_span,
    "h2o": used,
    "lfu": used,
    "tova": used,
    "lru": lru,
    "knorm": knorm,
    "snapkv": snapkv,
    "forget_gate": forget_gate,
    "oracle": oracle,
}
"""The oracle of each policy that has one, by the policy's name."""


@dataclass(frozen=True)
class Query:
    """A token that was read.

    Args:
        position: Its position, in tokens from the start of the document.
        weights: Its attention weight for each slot, the newest slot last.
        norm: The L2 norm of its key.
        valid: False for padding.
    """

    position: int
    weights: Sequence[float]
    norm: float = 0.0
    valid: bool = True


Observation = Callable[[Any, list[float], Sequence[Query]], list[float]]
"""Maps a policy, the usage of a row's slots, and the tokens just read (its last slots) to the new usage."""


def summed(policy: Any, usage: list[float], queries: Sequence[Query]) -> list[float]:
    """The attention received from all queries."""
    return [u + sum(query.weights[i] for query in queries if query.valid) for i, u in enumerate(usage)]


def newest(policy: Any, usage: list[float], queries: Sequence[Query]) -> list[float]:
    """The attention received from the last query."""
    real = [query for query in queries if query.valid]
    return list(real[-1].weights) if real else usage


def _top(policy: Any, query: Query) -> list[int]:
    """The slots that the query attends to."""
    order = sorted(range(len(query.weights)), key=lambda i: -query.weights[i])
    return [i for i in order[: policy.top] if query.weights[i] > 0 and query.valid]


def last_time(policy: Any, usage: list[float], queries: Sequence[Query]) -> list[float]:
    """One more than the position of the last query that attended to the slot."""
    times = list(usage)
    for query in queries:
        for i in _top(policy, query):
            times[i] = max(times[i], query.position + 1.0)
    return times


def query_counts(policy: Any, usage: list[float], queries: Sequence[Query]) -> list[float]:
    """How many queries attended to the slot."""
    return [u + sum(i in _top(policy, query) for query in queries) for i, u in enumerate(usage)]


def norms(policy: Any, usage: list[float], queries: Sequence[Query]) -> list[float]:
    """The norms of the keys; the norm of an earlier token stays."""
    return usage[: len(usage) - len(queries)] + [query.norm for query in queries]


def windowed(policy: Any, usage: list[float], queries: Sequence[Query]) -> list[float]:
    """The attention from the last queries; older sums decay by the share of the window that was read."""
    recent = [query for query in queries[-policy.window :] if query.valid]
    return summed(policy, [u * (1 - len(recent) / policy.window) for u in usage], recent)


OBSERVATIONS: dict[str, Observation] = {
    "h2o": summed,
    "tova": newest,
    "lru": last_time,
    "lfu": query_counts,
    "knorm": norms,
    "snapkv": windowed,
}
"""The oracle of each policy's usage after a forward pass, by the policy's name."""


def select(
    slots: Sequence[Slot], policy: Any, priority: Priority, keep: int, now: int, sinks: int = 0, recent: int = 0
) -> list[int]:
    """Select the slots of one row that stay, as `vqmem.memory.policy.select` does.

    Args:
        slots: The slots of the row.
        policy: The policy, for its fields.
        priority: The policy's function among `PRIORITIES`.
        keep: How many slots stay.
        now: The position of the next token.
        sinks: First tokens that are guarded.
        recent: Newest tokens that are guarded.

    Returns:
        The indices of the slots that stay, in order of position and invalid ones first.
    """
    slots = [replace(slot, guarded=slot.position < sinks or slot.position >= now - recent) for slot in slots]
    valid = sorted((i for i, slot in enumerate(slots) if slot.valid), key=lambda i: slots[i].position)
    priorities = dict(zip(valid, priority(policy, [slots[i] for i in valid], now), strict=True))

    def rank(i: int) -> tuple[int, float, int]:
        if not slots[i].valid:
            return (0, 0.0, i)
        return (2 if slots[i].guarded else 1, priorities[i], slots[i].position)

    kept = sorted(range(len(slots)), key=rank)[max(0, len(slots) - keep) :]
    return sorted(kept, key=lambda i: (slots[i].valid, slots[i].position if slots[i].valid else i))

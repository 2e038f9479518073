"""The bounded memory itself: write new tokens, keep what the policy keeps, squeeze or drop the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..registry import build
from ..schema import shown
from .compressor import Compression
from .policy import Guard, Policy, Seen, observe, select, whole_number
from .slots import Slots, concatenate
from .standardiser import initial_moments, standardise


@dataclass(frozen=True)
class State:
    """What a memory carries from segment to segment: whole slots, pooled ones, the running moments of the scores."""

    slots: Slots
    pooled: Slots
    moments: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes held, over all rows and with all bookkeeping."""
        return self.slots.nbytes + self.pooled.nbytes + self.moments.nbytes

    def read(self) -> Slots:
        """What the transformer attends to: pooled slots, then whole ones."""
        return concatenate(self.pooled, self.slots)

    def forget(self, rows: Bool[Tensor, " batch"]) -> State:
        """Empty the memory of the rows where ``rows`` is set: a new document begins there."""
        fresh = initial_moments(self.slots.batch, self.moments.device)
        moments = torch.where(rows.view(-1, *[1] * (fresh.ndim - 1)), fresh, self.moments)
        return State(self.slots.without_rows(rows), self.pooled.without_rows(rows), moments)

    def use(self, mass: Float[Tensor, "batch slots"]) -> State:
        """Add the attention each slot of `read` received in this segment."""
        pooled, whole = mass.split([self.pooled.count, self.slots.count], dim=1)
        return replace(
            self,
            slots=replace(self.slots, usage=self.slots.usage + whole),
            pooled=replace(self.pooled, usage=self.pooled.usage + pooled),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, for `from_state_dict`."""
        parts = {"slots": self.slots, "pooled": self.pooled}
        named = {f"{part}.{name}": x for part, slots in parts.items() for name, x in slots.state_dict().items()}
        return named | {"moments": self.moments}

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> State:
        """The state that `state_dict` described."""
        slots, pooled = (
            Slots.from_state_dict({k.removeprefix(part): x for k, x in tensors.items() if k.startswith(part)})
            for part in ("slots.", "pooled.")
        )
        return cls(slots, pooled, tensors["moments"])


class Written(NamedTuple):
    """What `Memory.write` gives: the new state, and the slots that left with what they were squeezed into."""

    state: State
    evicted: Slots
    squeezed: Slots


_MADE_BY = {
    "policy": "what vqmem.registry.build('policies', 'fifo') makes (`vqmem list policies` names all)",
    "compression": "what vqmem.registry.build('compressions', 'drop') makes (`vqmem list compressions` names all)",
    "guard": "a Guard, such as Guard(sinks=4)",
}
_NEWEST: Any = build("policies", "fifo")
"""How pooled slots are kept."""


@dataclass(frozen=True)
class Memory:
    """At most ``capacity`` slots a row (whole and pooled together), kept by ``policy`` within ``guard``.

    Raises `ValueError` for a capacity that is no whole number, is below 1 or has no room for the guards, and for parts
    that are not what their names say.
    """

    capacity: int | Any  # what is of another type gets an error of our own
    policy: Policy | Any = field(default_factory=lambda: build("policies", "fifo"))
    compression: Compression | Any = field(default_factory=lambda: build("compressions", "drop"))
    guard: Guard | Any = field(default_factory=Guard)

    def __post_init__(self) -> None:
        """Check that all parts are what they should be, and that there is room."""
        for name, kind in (("policy", Policy), ("compression", Compression), ("guard", Guard)):
            part = getattr(self, name)
            if isinstance(part, type) or not isinstance(part, kind):
                raise ValueError(f"{name}={shown(part)} is no {name}; give {_MADE_BY[name]}")
        object.__setattr__(self, "capacity", whole_number("capacity", self.capacity))
        if self.capacity < 1:
            raise ValueError(f"capacity={self.capacity}; a memory needs at least 1 slot")
        if self.whole < self.compression.rate:
            raise ValueError(
                f"capacity={self.capacity} leaves {self.whole} whole slots, fewer than the {self.compression.rate} "
                "that are pooled at a time; raise the capacity or lower the rate"
            )
        guarded, free = self.guard.sinks + self.guard.recent, self.whole - self.compression.rate + 1
        if guarded > free:
            raise ValueError(
                f"guards (sinks={self.guard.sinks} + recent={self.guard.recent} = {guarded}) exceed the {free} slots "
                f"that capacity={self.capacity} leaves; lower the guards or raise the capacity"
            )

    @property
    def whole(self) -> int:
        """How many slots hold whole tokens."""
        return self.capacity - self.compression.room(self.capacity)

    @property
    def requires(self) -> tuple[str, ...]:
        """What must be provided: ``"scores"``, ``"usage"``, ``"norms"``, ``"layers"``."""
        return (*self.policy.requires, *self.compression.requires)

    @property
    def observes(self) -> bool:
        """Whether the policy has to be shown attention, keys or layers."""
        return not {"usage", "norms", "layers"}.isdisjoint(self.policy.requires)

    def empty(self, payload: tuple[Tensor, ...], signals: int = 3) -> State:
        """A memory that holds nothing, for payloads shaped and placed like ``payload`` (``[batch, any, ...]``)."""
        batch, device = payload[0].shape[0], payload[0].device
        index = torch.zeros(batch, 0, dtype=torch.long, device=device)
        score = torch.zeros(batch, 0, signals, device=device)
        slots = Slots(tuple(x[:, :0] for x in payload), index, index, score, score, score[..., 0], index.bool())
        return State(slots, slots, initial_moments(batch, device))

    def write(
        self,
        state: State,
        payload: tuple[Tensor, ...],
        tokens: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"],
        scores: Float[Tensor, "batch time signal"],
        valid: Bool[Tensor, "batch time"],
        learned: nn.Module | None = None,
        seen: Seen | None = None,
        usage: Float[Tensor, "batch time"] | None = None,
    ) -> Written:
        """Remember a segment, then evict down to the capacity. ``learned`` is what ``compression.build`` gave.

        ``positions`` count from the start of each row's document; ``valid`` is unset at padding. A policy that
        `observes` wants ``seen``, what reading the segment showed, or has seen it and gives the segment's ``usage``.
        """
        state = self.append(state, payload, tokens, positions, scores, valid, usage)
        if seen is not None:
            state = self.observe(state, seen)
        return self.fit(state, positions[:, -1] + 1, learned)

    def append(
        self,
        state: State,
        payload: tuple[Tensor, ...],
        tokens: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"],
        scores: Float[Tensor, "batch time signal"],
        valid: Bool[Tensor, "batch time"],
        usage: Float[Tensor, "batch time"] | None = None,
    ) -> State:
        """Remember a segment and evict nothing yet: `fit` has to follow."""
        standard, moments = standardise(scores, state.moments, valid)
        usage = torch.zeros_like(scores[..., 0]) if usage is None else usage
        new = Slots(payload, tokens, positions, scores, standard.to(scores.dtype), usage, valid)
        return State(concatenate(state.slots, new), state.pooled, moments)

    def observe(self, state: State, seen: Seen) -> State:
        """Let the policy take note of a pass over tokens that were just appended."""
        usage = observe(self.policy, torch.cat([state.pooled.usage, state.slots.usage], dim=1), seen)
        pooled, whole = usage.split([state.pooled.count, state.slots.count], dim=1)
        return replace(state, slots=replace(state.slots, usage=whole), pooled=replace(state.pooled, usage=pooled))

    def fit(self, state: State, now: Int[Tensor, " batch"], learned: nn.Module | None = None) -> Written:
        """Evict down to the capacity; also what makes the state of another memory fit this one."""
        slots, room = state.slots, self.compression.room(self.capacity)
        overflow = max(0, slots.count - self.whole)
        leave = min(slots.count, -(-overflow // self.compression.rate) * self.compression.rate)
        keep = select(slots, self.policy, slots.count - leave, now, self.guard)
        if not room:
            nothing = slots.head(0)
            return Written(State(slots.gather(keep) if leave else slots, nothing, state.moments), nothing, nothing)
        evicted = slots.gather(_others(keep, slots.count))
        squeezed = self.compression.pool(evicted, learned or nn.Identity()) if leave else evicted
        pooled = concatenate(state.pooled, squeezed)
        pooled = pooled.gather(select(pooled, _NEWEST, min(room, pooled.count), now))
        return Written(State(slots.gather(keep), pooled, state.moments), evicted, squeezed)


def _others(indices: Int[Tensor, "batch kept"], count: int) -> Int[Tensor, "batch rest"]:
    """The indices below ``count`` that are not in ``indices``, in order."""
    batch, kept = indices.shape
    rest = torch.ones(batch, count, dtype=torch.bool, device=indices.device).scatter_(1, indices, False)
    return rest.nonzero()[:, 1].view(batch, count - kept)

"""The bounded memory itself: write new tokens, keep the slots the policy keeps, compress or drop the rest."""

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
from .policy import ForwardStats, Guard, Policy, SlotPredictor, as_integer, observe, select
from .slots import Slots, accrue_decay, concatenate
from .standardiser import initial_moments, standardise


@dataclass(frozen=True)
class State:
    """What a memory carries from segment to segment: uncompressed and pooled slots, running moments of the scores."""

    slots: Slots
    pooled: Slots
    moments: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of all rows, bookkeeping included."""
        return self.slots.nbytes + self.pooled.nbytes + self.moments.nbytes

    def read(self) -> Slots:
        """The slots that the transformer attends to: pooled ones, then uncompressed ones."""
        return concatenate(self.pooled, self.slots)

    @property
    def decay(self) -> Float[Tensor, "batch slots layers heads"] | None:
        """The decay of the slots of `read`, without a copy of their payload."""
        parts = [slots.decay for slots in (self.pooled, self.slots) if slots.decay is not None]
        return torch.cat(parts, dim=1) if parts else None

    def forget(self, is_start: Bool[Tensor, " batch"]) -> State:
        """Empty the memory of the rows where ``is_start`` is set: a new document begins there."""
        initial = torch.zeros_like(self.moments)
        moments = torch.where(is_start.view(-1, *[1] * (initial.ndim - 1)), initial, self.moments)
        return State(self.slots.invalidate(is_start), self.pooled.invalidate(is_start), moments)

    def add_attention(self, attention: Float[Tensor, "batch slots"]) -> State:
        """Add the attention that each slot of `read` received in this segment to its usage."""
        pooled, uncompressed = attention.split([self.pooled.count, self.slots.count], dim=1)
        return replace(
            self,
            slots=replace(self.slots, usage=self.slots.usage + uncompressed),
            pooled=replace(self.pooled, usage=self.pooled.usage + pooled),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, for `from_state_dict`."""
        parts = {"slots": self.slots, "pooled": self.pooled}
        named = {f"{part}.{name}": x for part, slots in parts.items() for name, x in slots.state_dict().items()}
        return named | {"moments": self.moments}

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], score_names: tuple[str, ...]) -> State:
        """The state that `state_dict` described, with the names of the scores of its slots (`Slots.score_names`)."""
        slots, pooled = (
            Slots.from_state_dict(
                {k.removeprefix(part): x for k, x in tensors.items() if k.startswith(part)}, score_names
            )
            for part in ("slots.", "pooled.")
        )
        return cls(slots, pooled, tensors["moments"])


class WriteResult(NamedTuple):
    """What `Memory.write` returns: the new state, the evicted slots, and their compressed form."""

    state: State
    evicted: Slots
    compressed: Slots


_MADE_BY = {
    "policy": "what vqmem.registry.build('policies', 'fifo') makes (`vqmem list policies` names all)",
    "compression": "what vqmem.registry.build('compressions', 'drop') makes (`vqmem list compressions` names all)",
    "guard": "a Guard, such as Guard(sinks=4)",
}
_NEWEST: Any = build("policies", "fifo")
"""The policy for pooled slots."""


@dataclass(frozen=True)
class Memory:
    """At most ``capacity`` slots per row, kept by ``policy`` within ``guard``.

    Args:
        capacity: The most slots of a row, uncompressed and pooled ones together.
        policy: The policy that decides which slots stay; ``fifo`` by default.
        compression: What becomes of evicted slots; ``drop`` by default, which forgets them.
        guard: The slots that the policy may not evict; none by default.

    Raises:
        ValueError: ``capacity`` is not an integer, is below 1 or leaves no room for the guards, or a part is not what
            its name says.
    """

    capacity: int | Any  # a value of another type gets an error of ours
    policy: Policy | Any = field(default_factory=lambda: build("policies", "fifo"))
    compression: Compression | Any = field(default_factory=lambda: build("compressions", "drop"))
    guard: Guard | Any = field(default_factory=Guard)

    def __post_init__(self) -> None:
        """Check the type of each part, and that there is room."""
        for name, kind in (("policy", Policy), ("compression", Compression), ("guard", Guard)):
            part = getattr(self, name)
            if isinstance(part, type) or not isinstance(part, kind):
                raise ValueError(f"{name}={shown(part)} is not a {name}; give {_MADE_BY[name]}")
        object.__setattr__(self, "capacity", as_integer("capacity", self.capacity))
        if self.capacity < 1:
            raise ValueError(f"capacity={self.capacity}; a memory needs at least 1 slot")
        if self.uncompressed_capacity < self.compression.rate:
            raise ValueError(
                f"capacity={self.capacity} leaves {self.uncompressed_capacity} uncompressed slots, fewer than the "
                f"{self.compression.rate} that are pooled at a time; raise the capacity or lower the rate"
            )
        guarded = self.guard.sinks + self.guard.recent
        free = self.uncompressed_capacity - self.compression.rate + 1
        if guarded > free:
            raise ValueError(
                f"guards (sinks={self.guard.sinks} + recent={self.guard.recent} = {guarded}) exceed the {free} slots "
                f"that capacity={self.capacity} leaves; lower the guards or raise the capacity"
            )

    @property
    def uncompressed_capacity(self) -> int:
        """Maximum number of slots for single tokens; the rest is for pooled slots."""
        return self.capacity - self.compression.compressed_capacity(self.capacity)

    @property
    def requires(self) -> tuple[str, ...]:
        """What the policy and the compression need; see `vqmem.memory.policy.Policy.requires`."""
        return (*self.policy.requires, *self.compression.requires)

    @property
    def observes(self) -> bool:
        """Whether the policy needs attention weights, key norms or layers of each forward pass."""
        return not {"usage", "norms", "layers"}.isdisjoint(self.policy.requires)

    def empty(self, payload: tuple[Tensor, ...], signals: tuple[str, ...] = ()) -> State:
        """The state without slots, for payloads of the shape and device of ``payload`` (``[batch, any, ...]``).

        ``signals`` names the scorer's signals, in the order of the scores that are written (`signals_of`); by default
        there are none. Those that a `SlotPredictor` computes are added.
        """
        signals += self.policy.computed if isinstance(self.policy, SlotPredictor) else ()
        batch, device = payload[0].shape[0], payload[0].device
        index = torch.zeros(batch, 0, dtype=torch.long, device=device)
        slots = Slots.without_scores(tuple(x[:, :0] for x in payload), index, index, signals)
        return State(slots, slots, initial_moments(batch, len(signals), device))

    def write(
        self,
        state: State,
        payload: tuple[Tensor, ...],
        tokens: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"],
        scores: Float[Tensor, "batch time signal"],
        valid: Bool[Tensor, "batch time"],
        compressor: nn.Module | None = None,
        stats: ForwardStats | None = None,
        usage: Float[Tensor, "batch time"] | None = None,
        log_gates: Float[Tensor, "batch time layers heads"] | None = None,
    ) -> WriteResult:
        """Append a segment to the memory, then evict down to the capacity.

        Args:
            state: The memory before the segment.
            payload: What the transformer reads of each token, tensors ``[batch, time, ...]``.
            tokens: Token ids.
            positions: Positions, in tokens from the start of each row's document.
            scores: The scorer's signals, in nats.
            valid: False at padding.
            compressor: The module that ``compression.build`` returned; None where nothing is learned.
            stats: What the forward pass over the segment showed. A memory that `observes` needs them, unless its policy
                has already observed that pass; then ``usage`` is given.
            usage: The usage of the segment's slots; zeros by default.
            log_gates: The logarithms of the forget gates of the segment; None where the model has none.

        Returns:
            The new state, the evicted slots and their compressed form.
        """
        state = self.append(state, payload, tokens, positions, scores, valid, usage, log_gates)
        if stats is not None:
            state = self.observe(state, stats)
        return self.evict_to_capacity(state, _after_last(positions, valid), compressor)

    def append(
        self,
        state: State,
        payload: tuple[Tensor, ...],
        tokens: Int[Tensor, "batch time"],
        positions: Int[Tensor, "batch time"],
        scores: Float[Tensor, "batch time signal"],
        valid: Bool[Tensor, "batch time"],
        usage: Float[Tensor, "batch time"] | None = None,
        log_gates: Float[Tensor, "batch time layers heads"] | None = None,
    ) -> State:
        """Append a segment without eviction; call `evict_to_capacity` afterwards.

        Args:
            state: The memory before the segment.
            payload: What the transformer reads of each token, tensors ``[batch, time, ...]``.
            tokens: Token ids.
            positions: Positions, in tokens from the start of each row's document.
            scores: The scorer's signals, in nats.
            valid: False at padding.
            usage: The usage of the segment's slots; zeros by default.
            log_gates: The logarithms of the forget gates of the segment; None where the model has none.

        Returns:
            The state with the new slots, which may exceed the capacity.

        Raises:
            ValueError: ``scores`` are not the signals that `empty` was given, or of old and new slots only some have
                forget gates.
        """
        names = state.slots.score_names
        if isinstance(self.policy, SlotPredictor):
            scores = torch.cat([scores, self.policy.compute(payload, positions).to(scores.dtype)], dim=2)
        if scores.shape[2] != len(names):
            raise ValueError(
                f"scores of {scores.shape[2]} signals do not fit a memory of {len(names)} "
                f"({', '.join(names) or 'none'}); name the scorer's in Memory.empty(payload, signals=...)"
            )
        standard, moments = standardise(scores, state.moments, valid)
        usage = scores.new_zeros(tokens.shape) if usage is None else usage
        new = Slots(payload, tokens, positions, scores, standard.to(scores.dtype), usage, valid, names)
        pooled, old, decay = state.pooled, state.slots, state.decay
        if pooled.count + old.count and (decay is None) != (log_gates is None):
            raise ValueError(
                "only some of the slots have the decay of forget gates; pass Output.log_gates of the same model to "
                "each Memory.write, or begin with Memory.empty"
            )
        if log_gates is not None:
            decay = accrue_decay(decay, log_gates * valid[..., None, None])
            parts = decay.split([pooled.count, old.count, new.count], dim=1)
            pooled, old, new = (replace(x, decay=part) for x, part in zip((pooled, old, new), parts, strict=True))
        return State(concatenate(old, new), pooled, moments)

    def observe(self, state: State, stats: ForwardStats) -> State:
        """Let the policy update the usage of all slots after a forward pass over tokens that were just appended."""
        usage = observe(self.policy, torch.cat([state.pooled.usage, state.slots.usage], dim=1), stats)
        pooled, uncompressed = usage.split([state.pooled.count, state.slots.count], dim=1)
        return replace(
            state, slots=replace(state.slots, usage=uncompressed), pooled=replace(state.pooled, usage=pooled)
        )

    def evict_to_capacity(
        self, state: State, now: Int[Tensor, " batch"], compressor: nn.Module | None = None
    ) -> WriteResult:
        """Evict slots until the state fits this memory; also adapts the state of a memory of another size or policy.

        ``now`` is the position of each row's next token, ``compressor`` as for `write`.
        """
        slots = state.slots
        pooled_capacity = self.compression.compressed_capacity(self.capacity)
        overflow = max(0, slots.count - self.uncompressed_capacity)
        leave = min(slots.count, -(-overflow // self.compression.rate) * self.compression.rate)
        keep = select(slots, self.policy, slots.count - leave, now, self.guard)
        if not pooled_capacity:
            nothing = slots.head(0)
            return WriteResult(State(slots.gather(keep) if leave else slots, nothing, state.moments), nothing, nothing)
        evicted = slots.gather(_others(keep, slots.count))
        compressed = self.compression.pool(evicted, compressor or nn.Identity()) if leave else evicted
        pooled = concatenate(state.pooled, compressed)
        pooled = pooled.gather(select(pooled, _NEWEST, min(pooled_capacity, pooled.count), now))
        return WriteResult(State(slots.gather(keep), pooled, state.moments), evicted, compressed)


def _after_last(positions: Int[Tensor, "batch time"], valid: Bool[Tensor, "batch time"]) -> Int[Tensor, " batch"]:
    """The position after the last token of each row; after its padding where it has nothing else."""
    last = positions.masked_fill(~valid, -1).amax(dim=1)
    return torch.where(last < 0, positions[:, -1], last) + 1


def _others(indices: Int[Tensor, "batch kept"], count: int) -> Int[Tensor, "batch rest"]:
    """The indices below ``count`` that are not in ``indices``, in order."""
    batch, kept = indices.shape
    rest = torch.ones(batch, count, dtype=torch.bool, device=indices.device).scatter_(1, indices, False)
    return rest.long().argsort(dim=1, descending=True, stable=True)[:, : count - kept]  # `nonzero` waits for a device

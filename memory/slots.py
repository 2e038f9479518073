"""The slots of a memory: one slot per remembered token, for all rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Slots:
    """Remembered tokens. Every tensor has a batch axis, because rows keep different tokens.

    Args:
        payload: What the transformer reads: any number of tensors ``[batch, slots, ...]`` (hidden states, or keys and
            values).
        tokens: Token ids; -1 for a pooled slot.
        positions: Positions, in tokens from the start of the row's document.
        scores: The scorer's signals, in nats; see `score`.
        standard: The same signals, in running standard deviations; see `standard_score`.
        usage: The attention that a slot has received, summed over queries and averaged over heads and layers, or what
            an `vqmem.memory.policy.Observer` makes of it.
        valid: False for slots without content, which are never attended to.
        score_names: The names of the scorer's signals, in the order of the columns of ``scores``.
        decay: For each layer and head, the sum of the logarithms of the forget gates of all tokens after it; None where
            the model has no gates.
        guarded: The slots that no policy may evict, while a policy is asked; None otherwise.
        signals: Signals of this eviction by name (`vqmem.memory.policy.ATTENTION_SIGNALS`), ``[batch, slots]`` each.
            They and ``guarded`` are not kept.
    """

    payload: tuple[Tensor, ...]
    tokens: Int[Tensor, "batch slots"]
    positions: Int[Tensor, "batch slots"]
    scores: Float[Tensor, "batch slots signal"]
    standard: Float[Tensor, "batch slots signal"]
    usage: Float[Tensor, "batch slots"]
    valid: Bool[Tensor, "batch slots"]
    score_names: tuple[str, ...]
    decay: Float[Tensor, "batch slots layers heads"] | None = None
    guarded: Bool[Tensor, "batch slots"] | None = None
    signals: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def without_scores(
        cls,
        payload: tuple[Tensor, ...],
        tokens: Int[Tensor, "batch slots"],
        positions: Int[Tensor, "batch slots"],
        score_names: tuple[str, ...] = (),
    ) -> Slots:
        """Slots of tokens that were just read.

        Args:
            payload: What the transformer reads.
            tokens: Token ids.
            positions: Positions.
            score_names: The names of the scorer's signals; none by default.

        Returns:
            Slots that are all valid, whose usage and scores are zero.
        """
        blank = torch.zeros(*tokens.shape, len(score_names), device=tokens.device)
        valid = torch.ones_like(tokens, dtype=torch.bool)
        return cls(payload, tokens, positions, blank, blank, blank.sum(-1), valid, score_names)

    def score(self, name: str) -> Float[Tensor, "batch slots"]:
        """The scorer's signal ``name`` of each slot, in nats. Raises `ValueError` if the scorer does not give it."""
        return self.scores[..., self._column(name)]

    def standard_score(self, name: str) -> Float[Tensor, "batch slots"]:
        """The scorer's signal ``name`` of each slot, in running standard deviations; raises as `score` does."""
        return self.standard[..., self._column(name)]

    def _column(self, name: str) -> int:
        if name not in self.score_names:
            given = f"it gives {', '.join(self.score_names)}" if self.score_names else "there is none"
            raise ValueError(f"the slots have no signal {name!r} of the scorer ({given}); use a scorer that gives it")
        return self.score_names.index(name)

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        return self.valid.shape[0]

    @property
    def count(self) -> int:
        """The number of slots per row, valid or not."""
        return self.valid.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of all rows, bookkeeping included."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def gather(self, indices: Int[Tensor, "batch kept"]) -> Slots:
        """The slots at ``indices``, which are given for each row."""
        return self.map(lambda tensor: _gather(tensor, indices))

    def head(self, count: int) -> Slots:
        """The first ``count`` slots of every row."""
        return self.map(lambda tensor: tensor[:, :count])

    def tail(self, count: int) -> Slots:
        """The last ``count`` slots of every row."""
        return self.map(lambda tensor: tensor[:, tensor.shape[1] - count :])

    def invalidate(self, rows: Bool[Tensor, " batch"]) -> Slots:
        """The same slots, none of them valid in the rows where ``rows`` is set."""
        return replace(self, valid=self.valid & ~rows[:, None])

    def detach(self) -> Slots:
        """The same slots, detached from the autograd graph."""
        return self.map(Tensor.detach)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, for `from_state_dict`."""
        others = ("payload", "score_names", "guarded", "signals")
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in others}
        named = {name: value for name, value in values.items() if value is not None}
        return {f"payload.{i}": tensor for i, tensor in enumerate(self.payload)} | named

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], score_names: tuple[str, ...]) -> Slots:
        """The slots that `state_dict` described, with the names of their scores, which are no tensor."""
        payload = tuple(tensors[f"payload.{i}"] for i in range(sum(name.startswith("payload.") for name in tensors)))
        rest: dict[str, Any] = {name: x for name, x in tensors.items() if not name.startswith("payload.")}
        return cls(payload, **rest, score_names=score_names)

    def map(self, change: Callable[[Tensor], Tensor]) -> Slots:
        """The slots with every tensor changed in the same way."""
        changed = {name: change(tensor) for name, tensor in self.state_dict().items()}
        return Slots.from_state_dict(changed, self.score_names)


def concatenate(first: Slots, second: Slots) -> Slots:
    """The slots of both, ``first`` before ``second`` in every row."""
    if first.count == 0:
        return second
    if second.count == 0:
        return first
    assert first.score_names == second.score_names, "slots of different scorers"
    assert (first.decay is None) == (second.decay is None), "slots of models with and without forget gates"
    pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    joined = {name: torch.cat([old, new], dim=1) for (name, old), new in pairs}
    return Slots.from_state_dict(joined, first.score_names)


def accrue_decay(
    decay: Float[Tensor, "batch slots layers heads"] | None, log_gates: Float[Tensor, "batch new layers heads"]
) -> Float[Tensor, "batch all_slots layers heads"]:
    """The decay of all slots after new tokens, of which there is at least one: of earlier slots, then of the new ones.

    It counts the gates of all tokens after a slot, whether they are kept or not.
    """
    sums = log_gates.cumsum(1)
    total = sums[:, -1:]
    return total - sums if decay is None else torch.cat([decay + total, total - sums], dim=1)


@dataclass(frozen=True)
class SlotBuffer:
    """Slots with spare room behind them: appending copies the new slots alone.

    Appending does not change the slots of earlier buffers. All buffers that were appended to one another share
    ``buffer`` (zeros where nothing is yet) and ``filled``, a list with the number of slots in use.
    """

    buffer: Slots
    count: int
    filled: list[int]

    @classmethod
    def from_slots(cls, slots: Slots, spare: int) -> SlotBuffer:
        """A copy of ``slots`` with room for ``spare`` more."""
        buffer = slots.map(lambda x: torch.cat([x, x.new_zeros(x.shape[0], spare, *x.shape[2:])], dim=1))
        return cls(buffer, slots.count, [slots.count])

    @property
    def slots(self) -> Slots:
        """All slots so far."""
        return self.buffer.head(self.count)

    def append(
        self, payload: tuple[Tensor, ...], tokens: Int[Tensor, "batch new"], positions: Int[Tensor, "batch new"]
    ) -> SlotBuffer:
        """Append slots of tokens that were just read (`Slots.without_scores`); copies all slots where it is full."""
        buffer = self.buffer
        new = tokens.shape[1]
        stop = self.count + new
        if stop > buffer.count or self.filled[0] != self.count:  # full, or another buffer uses the room behind
            return SlotBuffer.from_slots(self.slots, max(self.count, new)).append(payload, tokens, positions)
        pairs = [*zip(buffer.payload, payload, strict=True), (buffer.tokens, tokens), (buffer.positions, positions)]
        for room, x in [*pairs, (buffer.valid, True)]:
            room[:, self.count : stop] = x
        self.filled[0] = stop
        return SlotBuffer(buffer, stop, self.filled)


def _gather(tensor: Tensor, indices: Tensor) -> Tensor:
    """``tensor[row, indices[row]]`` for every row; a flat index is several times faster than ``gather``."""
    batch, count = tensor.shape[:2]
    flat = indices + torch.arange(batch, device=indices.device)[:, None] * count
    return tensor.reshape(batch * count, *tensor.shape[2:])[flat]

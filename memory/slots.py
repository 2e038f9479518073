"""The state of a memory: one slot a remembered token, rows of a batch side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Slots:
    """Remembered tokens. Every tensor has a batch axis of its own: rows differ in what they keep.

    ``payload`` is what the transformer reads: any number of tensors ``[batch, slots, ...]`` (hidden states, or keys and
    values). ``scores`` are the scorer's signals in nats (order: `vqmem.models.scorers.base.SIGNALS`), ``standard`` the
    same in running standard deviations. ``usage`` is the attention a slot has received, summed over the queries so far
    and averaged over heads and layers. Slots that are not ``valid`` hold nothing and are never attended to. A pooled
    slot has token -1.
    """

    payload: tuple[Tensor, ...]
    tokens: Int[Tensor, "batch slots"]
    positions: Int[Tensor, "batch slots"]
    scores: Float[Tensor, "batch slots signal"]
    standard: Float[Tensor, "batch slots signal"]
    usage: Float[Tensor, "batch slots"]
    valid: Bool[Tensor, "batch slots"]

    @classmethod
    def unjudged(
        cls, payload: tuple[Tensor, ...], tokens: Int[Tensor, "batch slots"], positions: Int[Tensor, "batch slots"]
    ) -> Slots:
        """Slots that were just read: all valid, without scores or usage."""
        blank = torch.zeros(*tokens.shape, 3, device=tokens.device)
        return cls(payload, tokens, positions, blank, blank, blank[..., 0], torch.ones_like(tokens, dtype=torch.bool))

    @property
    def batch(self) -> int:
        """The number of rows."""
        return self.valid.shape[0]

    @property
    def count(self) -> int:
        """The number of slots a row, valid or not."""
        return self.valid.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes held, over all rows and with all bookkeeping."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def gather(self, indices: Int[Tensor, "batch kept"]) -> Slots:
        """The slots at ``indices``, a choice of its own for every row."""
        return self._map(lambda tensor: _gather(tensor, indices))

    def head(self, count: int) -> Slots:
        """The first ``count`` slots of every row."""
        return self._map(lambda tensor: tensor[:, :count])

    def tail(self, count: int) -> Slots:
        """The last ``count`` slots of every row."""
        return self._map(lambda tensor: tensor[:, tensor.shape[1] - count :])

    def without_rows(self, rows: Bool[Tensor, " batch"]) -> Slots:
        """The same slots, none of them valid in the rows where ``rows`` is set."""
        return replace(self, valid=self.valid & ~rows[:, None])

    def detach(self) -> Slots:
        """The same slots, cut from the autograd graph."""
        return self._map(Tensor.detach)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, for `from_state_dict`."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "payload"}
        return {f"payload.{i}": tensor for i, tensor in enumerate(self.payload)} | named

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> Slots:
        """The slots that `state_dict` described."""
        payload = tuple(tensors[f"payload.{i}"] for i in range(sum(name.startswith("payload.") for name in tensors)))
        return cls(payload, **{name: tensor for name, tensor in tensors.items() if not name.startswith("payload.")})

    def _map(self, change) -> Slots:
        named = {field.name: change(getattr(self, field.name)) for field in fields(self) if field.name != "payload"}
        return Slots(tuple(change(tensor) for tensor in self.payload), **named)


def concatenate(first: Slots, second: Slots) -> Slots:
    """The slots of both, ``first`` before ``second`` in every row."""
    if first.count == 0:
        return second
    if second.count == 0:
        return first
    pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    return Slots.from_state_dict({name: torch.cat([old, new], dim=1) for (name, old), new in pairs})


@dataclass(frozen=True)
class Growing:
    """Slots with room behind them, so that appending to them copies only what is new.

    Appending leaves the slots that were there as they are, for whoever holds them. ``whole`` (zeros where nothing is
    yet) and ``filled``, how much of it is taken, are shared by all that grew from one another.
    """

    whole: Slots
    count: int
    filled: list[int]

    @classmethod
    def begin(cls, slots: Slots, room: int) -> Growing:
        """A copy of ``slots`` with room for so many more."""
        whole = slots._map(lambda x: torch.cat([x, x.new_zeros(x.shape[0], room, *x.shape[2:])], dim=1))
        return cls(whole, slots.count, [slots.count])

    @property
    def slots(self) -> Slots:
        """All so far."""
        return self.whole.head(self.count)

    def append(
        self, payload: tuple[Tensor, ...], tokens: Int[Tensor, "batch new"], positions: Int[Tensor, "batch new"]
    ) -> Growing:
        """All so far, and those just read (`Slots.unjudged`) behind. Where there is no room, more is made."""
        whole, new = self.whole, tokens.shape[1]
        stop = self.count + new
        if stop > whole.count or self.filled[0] != self.count:  # full, or others grew from here before
            return Growing.begin(self.slots, max(self.count, new)).append(payload, tokens, positions)
        pairs = [*zip(whole.payload, payload, strict=True), (whole.tokens, tokens), (whole.positions, positions)]
        for room, x in [*pairs, (whole.valid, True)]:
            room[:, self.count : stop] = x
        self.filled[0] = stop
        return Growing(self.whole, stop, self.filled)


def _gather(tensor: Tensor, indices: Tensor) -> Tensor:
    """``tensor[row, indices[row]]`` for every row; a flat index is several times faster than ``gather``."""
    batch, count = tensor.shape[:2]
    flat = indices + torch.arange(batch, device=indices.device)[:, None] * count
    return tensor.reshape(batch * count, *tensor.shape[2:])[flat]

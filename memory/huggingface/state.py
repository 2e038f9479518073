"""The state of a cache for `transformers` between passes, and how it changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..bank import State
from .groups import Groups
from .signals import QueryState

_JOINED = 32
"""Passes whose pending tokens are joined at once, so that no pass waits for it."""


class PendingTokens(NamedTuple):
    """Tokens that were read and have no slots in the bookkeeping yet; ``valid`` is False for padding."""

    tokens: Int[Tensor, "batch new"]
    valid: Bool[Tensor, "batch new"]


@dataclass(frozen=True)
class CacheState:
    """The bookkeeping of the slots.

    ``memory`` has a row for each row of the batch and each of its `Groups`. Its payload is each slot's index before
    eviction, the position that its keys are rotated to and, where a learned policy keeps a set of slots a layer or
    head, the attention to come that it predicts; nan until it does. Tokens that were just read wait in ``pending``
    until something is evicted, so that they are scored together and can be forgotten as if they had never been read.
    """

    memory: State
    scorer: Any
    """The state of the scorer before the pending tokens."""
    seen: Int[Tensor, " batch"]
    """Tokens read so far, without padding."""
    shift: Int[Tensor, " batch"]
    """Added to the position of a new token, because earlier slots were moved together."""
    placement: tuple[torch.dtype, torch.device]
    """The type and the device of the model that wrote the slots."""
    queries: tuple[QueryState, ...] = ()
    """The queries of each layer, where signals need them."""
    pending: tuple[PendingTokens, ...] = ()

    @property
    def count(self) -> int:
        """The slots of a row, those of pending tokens and of padding included."""
        return self.memory.slots.count + sum(x.tokens.shape[1] for x in self.pending)

    def append(self, tokens: Int[Tensor, "batch new"], valid: Bool[Tensor, "batch new"]) -> CacheState:
        """The state with more pending tokens."""
        pending = (*self.pending, PendingTokens(tokens, valid))
        if len(pending) >= _JOINED:
            pending = (PendingTokens(*(torch.cat(x, dim=1) for x in zip(*pending, strict=True))),)
        return replace(self, pending=pending, seen=self.seen + valid.sum(1))

    def pending_tokens(self) -> tuple[PendingTokens, Int[Tensor, "batch new"]]:
        """All pending tokens, and their positions without padding."""
        tokens, valid = (torch.cat(x, dim=1) for x in zip(*self.pending, strict=True))
        before = self.seen - valid.sum(1)
        return PendingTokens(tokens, valid), (before[:, None] + valid.cumsum(1) - 1).clamp(min=0)

    def valid(self, groups: Groups) -> Bool[Tensor, "batch slots"]:
        """The slots of each row that have content, pending ones last; it is the same for every group of a row."""
        return torch.cat([groups.first(self.memory.slots.valid), *(x.valid for x in self.pending)], dim=1)

    def positions(self, groups: Groups) -> list[list[int]]:
        """The positions of the tokens that are cached, for each row and group."""
        slots = self.memory.slots
        valid, positions = slots.valid, slots.positions
        if self.pending:
            (_, real), new = self.pending_tokens()
            valid, positions = (torch.cat([x, groups.expand(y)], 1) for x, y in ((valid, real), (positions, new)))
        return [row[here].tolist() for row, here in zip(positions, valid, strict=True)]

    def truncate(self, remove: int) -> CacheState:
        """Forget the last ``remove`` tokens, all of them pending."""
        (tokens, valid), _ = self.pending_tokens()
        rest, gone = valid[:, : valid.shape[1] - remove], valid[:, valid.shape[1] - remove :]
        pending = (PendingTokens(tokens[:, : rest.shape[1]], rest),) if rest.shape[1] else ()
        queries = tuple(x.truncate(remove) for x in self.queries)
        return replace(self, pending=pending, queries=queries, seen=self.seen - gone.sum(1))

    def compact(self, groups: Groups) -> tuple[CacheState, Int[Tensor, "rows slots"]]:
        """Give slots the positions from 0 on, without gaps, where no token is pending.

        Returns the state and the distance by which the keys have to be rotated.
        """
        slots = self.memory.slots
        positions = (slots.valid.cumsum(1) - 1).clamp(min=0)
        memory = replace(self.memory, slots=replace(slots, payload=(slots.payload[0], positions, *slots.payload[2:])))
        shift = groups.first(slots.valid.sum(1)) - self.seen
        return replace(self, memory=memory, shift=shift), positions - slots.payload[1]

    def map_batch(self, change: Callable[[Tensor], Tensor], groups: Groups) -> CacheState:
        """Apply ``change``, which selects or repeats rows of the batch, to every tensor."""
        named = self.memory.state_dict().items()
        changed = {name: change(groups.split(x)).flatten(0, 1) for name, x in named}
        memory = State.from_state_dict(changed, self.memory.slots.score_names)
        rest = (self.scorer, self.queries, self.pending, self.seen, self.shift)
        scorer, queries, pending, seen, shift = tree_map_only(Tensor, change, rest)
        return replace(self, memory=memory, scorer=scorer, queries=queries, pending=pending, seen=seen, shift=shift)

"""Which slots stay when there are too many: a policy gives priorities, guards come first, `select` decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .slots import Slots


@runtime_checkable
class Policy(Protocol):
    """The frozen dataclass ``Policy`` of a policy's file: its fields are its YAML keys."""

    @property
    def requires(self) -> tuple[str, ...]:
        """What the memory must provide beyond tokens, positions and age.

        ``"scores"`` (a scorer runs along) or ``"usage"`` (attention weights are summed); a class variable will do.
        """
        ...

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """A finite priority a slot, higher = keep; ``now`` is the position of the next token of each row.

        Depends on a slot's own row alone. Values at invalid slots are ignored.
        """
        ...


@dataclass(frozen=True)
class Guard:
    """Slots no policy may touch: those of the first ``sinks`` and the newest ``recent`` tokens."""

    sinks: int = 0
    recent: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for negative guards."""
        if self.sinks < 0 or self.recent < 0:
            raise ValueError(f"guards cannot be negative: sinks={self.sinks}, recent={self.recent}; use 0 for no guard")


def age(slots: Slots, now: Int[Tensor, " batch"]) -> Int[Tensor, "batch slots"]:
    """Tokens since each slot was written, at least 1."""
    return (now[:, None] - slots.positions).clamp(min=1)


def select(
    slots: Slots, policy: Policy, keep: int, now: Int[Tensor, " batch"], guard: Guard | None = None
) -> Int[Tensor, "batch keep"]:
    """The indices of the ``keep`` slots that stay in each row, in the order of their positions.

    Invalid slots go first, guarded slots stay before anything else, the rest by priority; ties keep the newer slot.
    """
    guard = guard or Guard()
    batch, count = slots.valid.shape
    if keep >= count:
        return torch.arange(count, device=slots.valid.device).expand(batch, count)
    priority = policy.priority(slots, now)
    guarded = (slots.positions < guard.sinks) | (slots.positions >= now[:, None] - guard.recent)
    # Three stable sorts, least important key first: position, then priority, then invalid < free < guarded.
    order = _by_position(slots)
    order = order.gather(1, priority.gather(1, order).argsort(dim=1, stable=True))
    rank = slots.valid.long() * (1 + guarded.long())
    order = order.gather(1, rank.gather(1, order).argsort(dim=1, stable=True))
    kept = order[:, count - keep :]
    # Back into the order of positions, invalid ones first.
    place = torch.empty_like(order).scatter_(
        1, _by_position(slots), torch.arange(count, device=order.device).expand(batch, -1)
    )
    return kept.gather(1, place.gather(1, kept).argsort(dim=1))


def _by_position(slots: Slots) -> Int[Tensor, "batch slots"]:
    return torch.where(slots.valid, slots.positions, -1).argsort(dim=1, stable=True)

"""Keep the tokens that were attended to last (Attendre's LRA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..policy import ForwardStats, attended, valid_weights
from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Least recently attended goes first: Yang and Hua, Attendre (arXiv:2401.04881).

    A query attends to the ``top`` slots that receive most of its attention, averaged over heads and layers; the paper
    retrieves the top slots of each head and uses those. Writing a slot counts as
    attending to it.
    """

    top: int = 16
    """Slots that a query attends to: those with most of its attention."""
    requires: ClassVar[tuple[str, ...]] = ("usage",)
    queries: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        """Raise `ValueError` where a query would attend to no slot."""
        if self.top < 1:
            raise ValueError(f"top={self.top}; a query must attend to at least 1 slot")

    def observe(self, usage: Float[Tensor, "batch slots"], stats: ForwardStats) -> Float[Tensor, "batch slots"]:
        """The position after that of the last query that attended to the slot; 0 for none."""
        weights = valid_weights(stats)
        after = stats.positions[:, -weights.shape[1] :, None] + 1
        times = torch.where(attended(weights, self.top), after, 0).amax(dim=1)
        return torch.maximum(usage, times.to(usage.dtype))

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """Minus the tokens since it was last attended to, or written."""
        return torch.maximum(slots.usage, slots.positions + 1) - (now[:, None] + 1)

"""Keep the tokens that were attended to most often (Attendre's LFA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ..policy import ForwardStats, attended, valid_weights
from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Least frequently attended goes first: Yang and Hua, Attendre (arXiv:2401.04881).

    A query attends to the ``top`` slots that receive most of its attention, averaged over heads and layers; the paper
    retrieves the top slots of each head and uses those. Among equals the newer
    stays.
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
        """How many queries attended to the slot."""
        return usage + attended(valid_weights(stats), self.top).sum(dim=1)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The number of queries that attended to it."""
        return slots.usage

"""Keep what has received most attention so far (H2O, heavy hitters)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Accumulated attention: Zhang et al., H2O (arXiv:2306.14048).

    The paper's half of newest tokens is the guard ``recent`` here, and one set of tokens serves all layers and heads,
    where the paper lets every head keep its own.
    """

    requires: ClassVar[tuple[str, ...]] = ("usage",)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The sum of the attention weights received."""
        return slots.usage

"""Keep the tokens that have received most attention so far (H2O, heavy hitters)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Accumulated attention: Zhang et al., H2O (arXiv:2306.14048).

    The guard ``recent`` takes the place of the paper's half of newest tokens. One set of tokens serves all layers and
    heads; in the paper every head keeps a different set.
    """

    requires: ClassVar[tuple[str, ...]] = ("usage",)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The sum of the attention weights received."""
        return slots.usage

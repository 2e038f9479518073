"""Keep each token for a span that its scores predict (Expire-Span, with given weights)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..policy import age, signal_weights
from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """priority = max_span · sigmoid(bias + w · signals) - age: Sukhbaatar et al., Expire-Span (arXiv:2105.06548).

    ``surprise``, ``rarity``, ``gain``, ``reuse`` are the weights w, on running standard deviations. The paper's span
    has this form but reads the token's hidden state, and each layer learns its weights through a soft mask. Here the
    weights are given, one span serves all layers, and at the capacity the slot goes that expires first or expired
    longest ago; the paper drops all expired slots.
    """

    surprise: float = 1.0
    """Weight of the surprise."""
    rarity: float = 0.0
    """Weight of the rarity."""
    gain: float = 0.0
    """Weight of the gain."""
    reuse: float = 0.0
    """Weight of the reuse."""
    bias: float = 0.0
    """Added to the weighted signals: 0 gives an average token half of the longest span."""
    max_span: float = 1024.0
    """The longest span, in tokens."""
    requires: ClassVar[tuple[str, ...]] = ("scores",)

    def __post_init__(self) -> None:
        """Raise `ValueError` for a longest span of no tokens."""
        if self.max_span <= 0:
            raise ValueError(f"max_span={self.max_span}; a span must be above 0 tokens")

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The tokens left until the slot expires, negative once it has."""
        total = torch.full_like(slots.usage, self.bias, dtype=torch.float32)
        for name, weight in signal_weights(self).items():
            total = total + weight * slots.standard_score(name).float()
        return self.max_span * total.sigmoid() - age(slots, now)

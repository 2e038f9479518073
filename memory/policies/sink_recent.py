"""Keep the first few tokens of the document and the newest ones (StreamingLLM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Attention sinks and a recent window: Xiao et al., StreamingLLM (arXiv:2309.17453).

    The first ``sinks`` tokens stay. Unlike in the paper, tokens keep their true positions.
    """

    sinks: int = 4
    """First tokens that stay."""
    requires: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` for a negative number of sinks."""
        if self.sinks < 0:
            raise ValueError(f"sinks={self.sinks} is negative; give 0 or more tokens")

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """Sinks above everything, the rest by recency."""
        return torch.where(slots.positions < self.sinks, 1.0, (slots.positions - now[:, None]).float())

"""Keep tokens whose keys are short (L2 norm of keys)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..policy import ForwardStats
from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Low key norm goes with high attention: Devoto et al. (arXiv:2406.11430).

    The norm is averaged over heads and layers; in the paper every head keeps a different set of tokens.
    """

    requires: ClassVar[tuple[str, ...]] = ("norms",)
    queries: ClassVar[int | None] = None

    def observe(self, usage: Float[Tensor, "batch slots"], stats: ForwardStats) -> Float[Tensor, "batch slots"]:
        """The norm of each slot's key."""
        if stats.norms is None:
            return usage
        cached = usage.shape[1] - stats.norms.shape[1]
        return torch.cat([usage[:, :cached], stats.norms.to(usage.dtype)], dim=1)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The shorter the key, the higher."""
        return -slots.usage

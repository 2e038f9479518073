"""Keep the tokens that the newest token attends to (TOVA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..policy import ForwardStats, valid_weights
from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Token omission via attention: Oren et al., TOVA (arXiv:2401.06104).

    Where several tokens are read at once, the last one decides. One set of tokens serves all layers; in the paper every
    layer keeps a different set.
    """

    requires: ClassVar[tuple[str, ...]] = ("usage",)
    queries: ClassVar[int | None] = None

    def observe(self, usage: Float[Tensor, "batch slots"], stats: ForwardStats) -> Float[Tensor, "batch slots"]:
        """The weights of the last query that is not padding; unchanged where all are padding."""
        weights = valid_weights(stats)
        valid = stats.valid[:, -weights.shape[1] :]
        last = (valid * torch.arange(1, valid.shape[1] + 1, device=valid.device)).argmax(dim=1)
        newest = weights[torch.arange(len(last), device=last.device), last]
        return torch.where(valid.any(dim=1, keepdim=True), newest, usage)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The attention of the newest token."""
        return slots.usage

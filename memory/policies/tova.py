"""Keep what the newest token attends to (TOVA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..policy import Seen, weights_of
from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Token omission via attention: Oren et al., TOVA (arXiv:2401.06104).

    Where several tokens are read at once, the last one decides. One set of tokens serves all layers, where the paper
    lets every layer keep its own.
    """

    requires: ClassVar[tuple[str, ...]] = ("usage",)
    queries: ClassVar[int | None] = None

    def observe(self, usage: Float[Tensor, "batch slots"], seen: Seen) -> Float[Tensor, "batch slots"]:
        """The weights of the last query that is no padding; as they were where there is none."""
        weights = weights_of(seen)
        valid = seen.valid[:, -weights.shape[1] :]
        last = (valid * torch.arange(1, valid.shape[1] + 1, device=valid.device)).argmax(dim=1)
        newest = weights[torch.arange(len(last), device=last.device), last]
        return torch.where(valid.any(dim=1, keepdim=True), newest, usage)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The attention that the newest token paid."""
        return slots.usage

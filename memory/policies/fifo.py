"""Keep the newest tokens, forget the oldest (Transformer-XL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """First in, first out: Dai et al., Transformer-XL (arXiv:1901.02860)."""

    requires: ClassVar[tuple[str, ...]] = ()

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """Newer is higher. Relative to ``now``, so that float32 stays exact in streams of any length."""
        return (slots.positions - now[:, None]).float()

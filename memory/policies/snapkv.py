"""Keep the tokens that the last few tokens attend to, and their neighbours (SnapKV)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ..policy import ForwardStats, smooth, valid_weights
from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """Attention from an observation window: Li et al., SnapKV (arXiv:2404.14469).

    The attention of the last ``window`` tokens is summed, then averaged over ``kernel`` neighbours (odd, in tokens).
    The paper compresses a prompt once, for every head by itself, and keeps the window. Here one set of tokens serves
    all layers and heads, and the guard ``recent`` keeps the newest. When fewer than ``window`` tokens are read at a
    time, as in decoding, the sum so far decays by their share of the window, because a slot stores one number and not
    the attention of each query.
    """

    window: int = 32
    """Newest tokens whose attention decides."""
    kernel: int = 7
    """Tokens, an odd number, over which the attention is averaged; 1 for none."""
    requires: ClassVar[tuple[str, ...]] = ("usage",)

    def __post_init__(self) -> None:
        """Raise `ValueError` for a value outside its range."""
        if self.window < 1:
            raise ValueError(f"window={self.window}; observe at least 1 token")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel}; use an odd number of tokens, 1 for none")

    @property
    def queries(self) -> int | None:
        """The size of the window."""
        return self.window

    def observe(self, usage: Float[Tensor, "batch slots"], stats: ForwardStats) -> Float[Tensor, "batch slots"]:
        """The attention summed over the window."""
        weights = valid_weights(stats)[:, -self.window :]
        read = stats.valid[:, -weights.shape[1] :].sum(dim=1, keepdim=True)
        return usage * (1 - read / self.window) + weights.sum(dim=1)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The mean of the usage over neighbours."""
        return smooth(slots.usage, slots, self.kernel)

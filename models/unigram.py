"""Counts of tokens, and how rare they make a token."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .host import choose
from .loss import Loss
from .reduce import sum_over_processes


class Unigram(nn.Module):
    """Counts in a buffer. ``rarity`` is -log p(x); the state is empty."""

    signals = ("rarity",)
    counts: Tensor

    def __init__(self, vocab_size: int, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("counts", torch.zeros(vocab_size, dtype=torch.float64))

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the vocabulary."""
        return self.counts.numel()

    def initial_state(self, batch: int) -> Float[Tensor, "batch 0"]:
        """An empty state."""
        return self.counts.new_zeros(batch, 0)

    @torch.no_grad()
    def score(
        self, tokens: Int[Tensor, "batch time"], state: Float[Tensor, "batch 0"]
    ) -> tuple[Float[Tensor, "batch time signal"], Float[Tensor, "batch 0"]]:
        """-log p(x), in nats."""
        return self.rarity(tokens)[..., None], state

    @torch.no_grad()
    def training_step(
        self, tokens: Int[Tensor, "batch time"], state: Float[Tensor, "batch 0"], mask: Bool[Tensor, "batch time"]
    ) -> tuple[Loss, Float[Tensor, "batch 0"]]:
        """Count the tokens in the mask. The loss is from the counts before, and has no gradient."""
        seen = choose(tokens, mask)
        surprise = self.rarity(seen).sum() / max(1, seen.numel())
        counted = torch.zeros_like(self.counts).index_add_(0, seen, torch.ones_like(seen, dtype=self.counts.dtype))
        sum_over_processes(counted)
        self.counts += counted
        return Loss(surprise, {"surprise": surprise, "rarity": surprise}), state

    def rarity(self, tokens: Int[Tensor, "*tokens"] | None = None) -> Float[Tensor, "*tokens"]:
        """-log p of the tokens, or of the vocabulary in the order of ids, in nats."""
        smoothed = self.counts + self.smoothing
        asked = smoothed if tokens is None else smoothed[tokens]
        return (smoothed.sum().log() - asked.log()).to(torch.get_default_dtype())

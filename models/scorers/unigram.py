"""The rarity of a token in the training data, independent of its context: -log p(x) from counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..host import choose
from ..loss import Loss
from ..reduce import sum_over_processes


@dataclass(frozen=True)
class Scorer:
    """Token frequencies with additive smoothing."""

    smoothing: float = 1.0
    """Added to the count of every token of the vocabulary."""
    signals: ClassVar[tuple[str, ...]] = ("rarity",)

    def __post_init__(self) -> None:
        if self.smoothing <= 0:
            raise ValueError(f"smoothing must be above 0, or unseen tokens are infinitely rare; got {self.smoothing}")

    def build(self, vocab_size: int) -> Unigram:
        """A model with zero counts."""
        return Unigram(vocab_size, self.smoothing)


class Unigram(nn.Module):
    """Counts in a buffer. ``rarity`` is -log p(x); the state is empty."""

    signals = Scorer.signals
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

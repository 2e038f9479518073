"""The rarity of a token in the training data, independent of its context: -log p(x) from counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..unigram import Unigram


@dataclass(frozen=True)
class Scorer:
    """Token frequencies with additive smoothing."""

    smoothing: float = 1.0
    """Added to the count of every token of the vocabulary."""
    signals: ClassVar[tuple[str, ...]] = Unigram.signals

    def __post_init__(self) -> None:
        if self.smoothing <= 0:
            raise ValueError(f"smoothing must be above 0, or unseen tokens are infinitely rare; got {self.smoothing}")

    def build(self, vocab_size: int) -> Unigram:
        """A model with zero counts."""
        return Unigram(vocab_size, self.smoothing)

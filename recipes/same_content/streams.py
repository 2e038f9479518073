"""The scored tokens of a passage in one modality, and the words that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

NO_WORD = -1
"""The word of tokens that belong to none: punctuation of a text, pauses of speech."""


@dataclass(frozen=True)
class TokenStream:
    """The tokens of a passage in one modality.

    Args:
        ids: tokens of the text or units of the speech; zeros for frames.
        ends: the second of the spoken passage at which each token has been read.
        signals: the scorer's signals of each token, in nats.
        signal_names: their names.
        words: the index of the word that each token belongs to, or `NO_WORD`.
    """

    ids: Int[Tensor, " time"]
    ends: Float[Tensor, " time"]
    signals: Float[Tensor, "time signal"]
    signal_names: tuple[str, ...]
    words: Int[Tensor, " time"]

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.ids)

    def word_sizes(self, count: int) -> Int[Tensor, " word"]:
        """The number of tokens of each of ``count`` words."""
        return torch.bincount(self.words[self.words != NO_WORD], minlength=count)

    def shuffled(self, seed: int) -> TokenStream:
        """The same tokens, each with the scores of another one."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return replace(self, signals=self.signals[order])

"""Four numbers of one key in prose (RULER's niah_multivalue)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .base import Needles, Quiz, prose_sentences


@dataclass(frozen=True)
class Task:
    """It has no keys."""

    def haystack(self, prose: str) -> str:
        """The prose."""
        return prose

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """A key with four values."""
        return Needles(values=4).hidden_in(prose_sentences(prose, words, rng), " ", rng)

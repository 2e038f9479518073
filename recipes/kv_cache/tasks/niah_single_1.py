"""A number in a repeated phrase (RULER's niah_single_1)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .base import NOISE, Needles, Quiz, noise_sentences


@dataclass(frozen=True)
class Task:
    """It has no keys."""

    def haystack(self, prose: str) -> str:
        """The repeated phrase."""
        return NOISE

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """A number to remember."""
        return Needles().hidden_in(noise_sentences(words), "\n", rng)

"""A number in prose, beside numbers of three other keys (RULER's niah_multikey_1)."""

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
        """Four keys, of which one is asked for."""
        return Needles(keys=4).hidden_in(prose_sentences(prose, words, rng), " ", rng)

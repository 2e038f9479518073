"""A number in a text of nothing but needles (RULER's niah_multikey_2)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .base import NEEDLE, Needles, Quiz, words_of


@dataclass(frozen=True)
class Task:
    """It has no keys."""

    def haystack(self, prose: str) -> str:
        """Needles."""
        return self.quiz(prose, 500, random.Random(0)).text

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """Many keys, each of two words, of which one is asked for."""
        known = words_of(prose, 1000, rng)
        needles = Needles(
            keys=max(2, words // len(NEEDLE.split())), draw_key=lambda rng: f"{rng.choice(known)}-{rng.choice(known)}"
        )
        return needles.hidden_in([], "\n", rng)

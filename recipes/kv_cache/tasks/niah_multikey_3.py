"""A UUID of a UUID in a text of nothing but needles (RULER's niah_multikey_3)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .base import NEEDLE, Needles, Quiz, random_uuid


@dataclass(frozen=True)
class Task:
    """It has no keys."""

    def haystack(self, prose: str) -> str:
        """Needles."""
        return self.quiz(prose, 500, random.Random(0)).text

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """Many keys, of which one is asked for."""
        needles = Needles("uuid", keys=max(2, words // len(NEEDLE.split())), draw_key=random_uuid)
        return needles.hidden_in([], "\n", rng)

"""A UUID in prose (RULER's niah_single_3)."""

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
        """A uuid to remember."""
        return Needles(kind="uuid").hidden_in(prose_sentences(prose, words, rng), " ", rng)

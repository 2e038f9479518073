"""The ten most common words of a list (RULER's cwe)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .base import Quiz, words_of

COMMON = 10
"""Words that are expected."""
SHORT = (6, 1)
"""How often a common and another word come in short lists."""
LONG = (30, 3)
"""The same in long ones."""
LONG_FROM = 600
"""Entries of the shortest long list."""
ANSWER_TOKENS = 120


@dataclass(frozen=True)
class Task:
    """It has no keys."""

    def haystack(self, prose: str) -> str:
        """Such a list."""
        return self.quiz(prose, 500, random.Random(0)).text

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """Words of the prose, ten of which come six times (others once); in long lists 30 times (others three)."""
        entries = words // 2
        common, uncommon = LONG if entries >= LONG_FROM else SHORT
        others = max(COMMON, (entries - COMMON * common) // uncommon)
        every = words_of(prose, COMMON + others, rng)
        rows = every[:COMMON] * common + every[COMMON:] * uncommon
        rng.shuffle(rows)
        return Quiz(
            "Below is a numbered list of words. Some words appear more often than others. Memorize the ones that "
            "appear most often.\n" + "\n".join(f"{n}. {word}" for n, word in enumerate(rows, 1)),
            f"\nQuestion: What are the {COMMON} most common words in the list above?",
            f" Answer: The {COMMON} words that appear most often in the list are:",
            tuple(every[:COMMON]),
            ANSWER_TOKENS,
        )

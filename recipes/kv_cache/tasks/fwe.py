"""The three most frequent words of a coded text (RULER's fwe)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from .base import Quiz, distinct, made_up_word

DOTS = "...."
VOCABULARY = 40
"""Different words."""
ZETA = math.pi**2 / 6
"""The sum of 1 / rank² over all ranks."""
FEWEST = 100
"""Words of the shortest text in which the counts of the first ranks differ."""
ANSWER_TOKENS = 50


@dataclass(frozen=True)
class Task:
    """It has no keys."""

    def haystack(self, prose: str) -> str:
        """Such a text."""
        return self.quiz(prose, 500, random.Random(0)).text

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """Made-up words, fewer of a rank by its square; dots have the first rank, the expected words the next three."""
        counts = [round(max(words, FEWEST) / rank**2 / ZETA) for rank in range(1, 1 + VOCABULARY)]
        coded = [DOTS, *distinct(made_up_word, VOCABULARY - 1, rng)]
        every = [word for word, count in zip(coded, counts, strict=True) for _ in range(max(1, count))]
        rng.shuffle(every)
        return Quiz(
            "Read the following coded text and keep track of how often each coded word appears. Find the three coded "
            "words that appear most often.\n" + " ".join(every),
            f"\nQuestion: Ignore the dots '{DOTS}'. What are the three words that appear most often in the coded text "
            "above?",
            " Answer: The three words that appear most often in the coded text above are:",
            tuple(coded[1:4]),
            ANSWER_TOKENS,
        )

"""Variables that have a value through a chain of assignments, in a repeated phrase (RULER's vt)."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

from .base import NOISE, Quiz, distinct, hide, noise_sentences

VARIABLES = 5
"""One gets the value, and each hop adds one."""
ANSWER_TOKENS = 40


@dataclass(frozen=True)
class Task:
    """It has no keys."""

    def haystack(self, prose: str) -> str:
        """The repeated phrase."""
        return NOISE

    def quiz(self, prose: str, words: int, rng: random.Random) -> Quiz:
        """One chain of four hops; all its variables are expected."""
        value = str(rng.randint(10_000, 99_999))
        names = distinct(_name, VARIABLES, rng)
        sources = [value, *(f"VAR {name}" for name in names)]
        sentences = noise_sentences(words)
        hide([f"VAR {name} = {source}." for name, source in zip(names, sources, strict=False)], sentences, rng)
        return Quiz(
            "Memorize and follow the chain of variable assignments that is hidden in the following text.\n"
            + "\n".join(sentences),
            f"\nQuestion: Find all variables that are assigned the value {value} in the text above.",
            f" Answer: By the chain of variable assignments in the text above, {VARIABLES} variables are assigned the "
            f"value {value}: they are",
            tuple(names),
            ANSWER_TOKENS,
        )


def _name(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_uppercase, k=5))

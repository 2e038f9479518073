"""Sentences of four words from a small vocabulary: for small models of speech, which learn them in minutes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ._splits import share
from .base import Document, Split

WORDS = (
    ("two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("black", "white", "green", "yellow", "brown", "golden"),
    ("birds", "horses", "rabbits", "dogs", "fishes", "monkeys", "lions", "cows"),
    ("sing", "jump", "sleep", "run", "hide", "laugh"),
)
"""What may stand at each place of a sentence."""


@dataclass(frozen=True)
class Source:
    """Every combination of the words once, 2,304 sentences; a hash says which split one falls to.

    Held-out sentences have the same words as those of training, in combinations that are not among them.

    Args:
        limit: most sentences of each split, taken evenly; 0 = all.
    """

    limit: int = 0

    def __post_init__(self) -> None:
        """Refuse a limit that cannot be."""
        if self.limit < 0:
            raise ValueError(f"sentences limit {self.limit} is negative; give 0 for all")

    def documents(self, split: Split) -> Iterator[Document]:
        """The sentences of ``split``, in the order of their words."""
        sentences = [" ".join(words) for words in itertools.product(*WORDS)]
        mine = share(sentences, split)
        chosen = [sentence for sentence in sentences if sentence in mine]
        wanted = min(self.limit or len(chosen), len(chosen))
        for index in range(wanted):
            sentence = chosen[index * len(chosen) // wanted]
            yield Document(sentence.replace(" ", "-"), sentence)

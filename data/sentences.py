"""Sentences of four words from a small vocabulary, which small models of speech learn in minutes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ..schema import NonNegativeInt, Validated
from ._splits import share
from .base import Document, Split, take_evenly

WORDS = (
    ("two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("black", "white", "green", "yellow", "brown", "golden"),
    ("birds", "horses", "rabbits", "dogs", "fishes", "monkeys", "lions", "cows"),
    ("sing", "jump", "sleep", "run", "hide", "laugh"),
)
"""The words for each place of a sentence."""


@dataclass(frozen=True)
class Source(Validated):
    """Every combination of the words once, 2,304 sentences; a hash assigns each to a split.

    Held-out sentences have the same words as those of training, in other combinations.

    Args:
        limit: maximum number of sentences of each split, taken evenly; 0 = all.
    """

    limit: NonNegativeInt = 0

    def documents(self, split: Split) -> Iterator[Document]:
        """The sentences of ``split``, in the order of their words."""
        sentences = [" ".join(words) for words in itertools.product(*WORDS)]
        mine = share(sentences, split)
        chosen = [sentence for sentence in sentences if sentence in mine]
        for sentence in take_evenly(chosen, self.limit or None):
            yield Document(sentence.replace(" ", "-"), sentence)

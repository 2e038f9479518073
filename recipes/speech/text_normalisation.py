"""Text normalisation for scoring, and the alphabet of a recogniser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ...data._characters import separates, unify


def normalise(text: str) -> str:
    r"""Normalise ``text`` for scoring: `unify`, lower case, letters, digits and marks, single spaces.

    Numbers and abbreviations stay as they are. An apostrophe stays inside a word; at its ends it is a quotation mark,
    or silent.

    >>> normalise('  "Don\u2019t," she said \u2014 TWICE.')
    "don't she said twice"
    """
    kept = unify(unify(text).lower())  # again, because lower case decomposes some characters
    words = "".join(" " if separates(c) else c for c in kept).split()
    return " ".join(bare for word in words if (bare := word.strip("'")))


@dataclass(frozen=True)
class Alphabet:
    """The characters that a recogniser writes, sorted, including the space; an id is an index of them."""

    characters: str

    def __post_init__(self) -> None:
        """Raise `ValueError` for characters that normalised text never has."""
        assert list(self.characters) == sorted({" ", *self.characters}), "made by `of`"
        for character in self.characters:
            if character not in " '" and normalise(character) != character:
                raise ValueError(
                    f"the alphabet has {character!r}, which normalised text never has; give lower-case letters and "
                    "digits, the apostrophe and the space"
                )
        if not self.characters.strip():
            raise ValueError("the alphabet has no letter; give text to learn it from, or `characters`")

    @classmethod
    def of(cls, texts: Iterable[str]) -> Alphabet:
        """The alphabet of all characters of ``texts`` after `unify`. Raises `ValueError` if there is no letter."""
        return cls("".join(sorted({" "}.union(*map(unify, texts)))))

    def __len__(self) -> int:
        """The number of characters."""
        return len(self.characters)

    def encode(self, text: str) -> Int[Tensor, " letters"]:
        """The ids of normalised ``text``, without the characters outside the alphabet (see `outside`)."""
        places = {character: place for place, character in enumerate(self.characters)}
        kept = " ".join("".join(c for c in text if c in places).split())
        return torch.tensor([places[c] for c in kept], dtype=torch.long)

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of ``ids``."""
        return "".join(self.characters[i] for i in ids)

    def outside(self, texts: Iterable[str]) -> dict[str, int]:
        """Counts of the characters of normalised ``texts`` that are not in the alphabet, the most frequent first."""
        counts = Counter(c for text in texts for c in text if c not in self.characters)
        return dict(counts.most_common())


def format_characters(outside: dict[str, int], most: int = 8) -> str:
    """Format counts of characters for a message; at most ``most`` are shown.

    >>> format_characters({"é": 3, "ß": 1})
    "'é' (3), 'ß' (1)"
    """
    named = ", ".join(f"{c!r} ({count})" for c, count in list(outside.items())[:most])
    return f"{named} and {len(outside) - most} more" if len(outside) > most else named

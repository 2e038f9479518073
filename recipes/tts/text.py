"""Text as the letters that a voice was taught, and pieces short enough to be spoken at once."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

import torch
from jaxtyping import Int
from torch import Tensor

EDGE = " "
"""Stands at both ends of a text: the silence there belongs to it."""
RARE = 5
"""Characters that training texts have less often are not learnt."""

_PLAIN = {ord(quote): '"' for quote in "\u201e\u201c\u201d\u00ab\u00bb"}
_PLAIN |= {0x2018: "'", 0x2019: "'", 0x2013: "-", 0x2014: "-", 0x2026: "."}  # quotes, dashes, an ellipsis


def plain(text: str) -> str:
    """In lower case, with plain quotes and dashes, composed characters and single spaces."""
    return " ".join(unicodedata.normalize("NFC", text.translate(_PLAIN)).lower().split())


def alphabet(texts: Iterable[str]) -> str:
    """The characters of texts that are not rare, `EDGE` first."""
    counts = Counter(character for text in texts for character in plain(text))
    return EDGE + "".join(sorted(c for c, count in counts.items() if count >= RARE and c != EDGE))


def spell(text: str, letters: str) -> tuple[Int[Tensor, " letters"], set[str]]:
    """The places in ``letters`` of a text's characters, an `EDGE` at both ends, and the characters that have none.

    A character with a mark that is not in the alphabet is taken without the mark, if that is.
    """
    places = {character: place for place, character in enumerate(letters)}
    found, missing = [places[EDGE]], set()
    for character in plain(text):
        known = [c for c in (character, unicodedata.normalize("NFD", character)[0]) if c in places]
        if known:
            found.append(places[known[0]])
        else:
            missing.add(character)
    return torch.tensor([*found, places[EDGE]]), missing

"""Text as letters of a voice's alphabet."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

import torch
from jaxtyping import Int
from torch import Tensor

from ...data._characters import separates, unify

EDGE = " "
"""Letter at both ends of a text, aligned with the silence there."""
RARE = 5
"""Minimum number of times that a character must occur in the training texts."""

_DASHES = str.maketrans(dict.fromkeys("\u2012\u2013\u2014\u2015\u2212", "-") | {"\u2026": "."})
"""Dashes, the minus, and an ellipsis."""


def plain(text: str) -> str:
    """``text`` after `unify`, in lower case, with plain dashes and single spaces."""
    return " ".join(unify(text.translate(_DASHES)).lower().split())


def alphabet(texts: Iterable[str]) -> str:
    """The characters that occur at least `RARE` times in texts, `EDGE` first."""
    counts = Counter(character for text in texts for character in plain(text))
    return EDGE + "".join(sorted(c for c, count in counts.items() if count >= RARE and c != EDGE))


def spell(text: str, letters: str) -> tuple[Int[Tensor, " letters"], set[str]]:
    """The indices in ``letters`` of a text's characters, with an `EDGE` at both ends, and the unknown characters.

    An unknown character with a diacritic loses it if that makes it known. Other unknown signs separate words; other
    unknown characters are left out.
    """
    places = {character: place for place, character in enumerate(letters)}
    text = plain(text)
    known = {c: next((k for k in (c, unicodedata.normalize("NFD", c)[0]) if k in places), "") for c in {*text, EDGE}}
    missing = {character for character, written in known.items() if not written}
    if signs := "".join(re.escape(character) for character in missing if separates(character)):
        text = re.sub(f"[ {signs}]*[{signs}][ {signs}]*", EDGE, text).strip()
    indices = [places[known[character]] for character in f"{EDGE}{text}{EDGE}" if character not in missing]
    return torch.tensor(indices), missing

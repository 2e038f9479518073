"""Text as the letters that a voice was taught, and pieces short enough to be spoken at once."""

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
"""Stands at both ends of a text: the silence there belongs to it."""
RARE = 5
"""Characters that training texts have less often are not learnt."""

_DASHES = str.maketrans(dict.fromkeys("\u2012\u2013\u2014\u2015\u2212", "-") | {"\u2026": "."})
"""Dashes, the minus, and an ellipsis."""


def plain(text: str) -> str:
    """As `unify` makes it, in lower case, with plain dashes and single spaces."""
    return " ".join(unify(text.translate(_DASHES)).lower().split())


def alphabet(texts: Iterable[str]) -> str:
    """The characters of texts that are not rare, `EDGE` first."""
    counts = Counter(character for text in texts for character in plain(text))
    return EDGE + "".join(sorted(c for c, count in counts.items() if count >= RARE and c != EDGE))


def spell(text: str, letters: str) -> tuple[Int[Tensor, " letters"], set[str]]:
    """The places in ``letters`` of a text's characters, an `EDGE` at both ends, and the characters that have none.

    A character with a mark that is not in the alphabet is taken without the mark, if that is. Signs that are not in it
    separate words; what else is not is left out.
    """
    places = {character: place for place, character in enumerate(letters)}
    text = plain(text)
    known = {c: next((k for k in (c, unicodedata.normalize("NFD", c)[0]) if k in places), "") for c in {*text, EDGE}}
    missing = {character for character, written in known.items() if not written}
    if signs := "".join(re.escape(character) for character in missing if separates(character)):
        text = re.sub(f"[ {signs}]*[{signs}][ {signs}]*", EDGE, text).strip()
    found = [places[known[character]] for character in f"{EDGE}{text}{EDGE}" if character not in missing]
    return torch.tensor(found), missing

"""Notice texts that the packaged scorer, which learnt from English prose, was not made for."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import islice

_WORD = re.compile(r"[^\W\d_]+")
_COMMON = frozenset(
    _WORD.findall(
        "the of and to that is it for with he on be by not are but from you she they have his which we there were this"
    )
)
"""Common words of English that few other languages have; a quarter of the words of English prose."""
_READ, _ENOUGH = 5000, 30
"""Words that are counted, and the fewest (of non-Latin script: letters) that are judged."""
_FEW = 1 / 12


def unlike_english(text: str) -> str:
    """Why a text is hardly English prose; empty if it may be, or is too short to tell.

    Where fewer than one word in twelve is a common one, it is taken for something else: of stretches of 50 words, 1 in
    100 of modern English, all of German and half of Python's code.
    """
    words = [word.lower() for word in islice((found[0] for found in _WORD.finditer(text)), _READ)]
    letters = sum(map(len, words))
    if letters >= _ENOUGH and sum(map(_is_latin, "".join(words))) < letters / 2:
        return "most of its letters are not Latin"
    common = sum(word in _COMMON for word in words)
    if len(words) < _ENOUGH or common >= _FEW * len(words):
        return ""
    return f"{common / len(words):.0%} of its words are common words of English"


@cache
def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("LATIN")

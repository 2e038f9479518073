"""Unify characters that can be written in several ways, and remove invisible ones."""

from __future__ import annotations

import re
import unicodedata

_SIGNS = str.maketrans(
    dict.fromkeys("\u2019\u2018\u201a\u201b\u2039\u203a\u02bc\u02bb\u2032`\u00b4", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"')
    | dict.fromkeys("\u2010\u2011", "-")
)
"""Quotation marks, accents and a prime that stand for the apostrophe; quotation marks; hyphens."""

_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0001-\U000e01ef"
    + "".join(chr(code) for code in range(0x10000) if unicodedata.category(chr(code)) == "Cf")
    + "]"
)
"""Soft hyphens, zero-width characters, byte order marks, marks of direction, variation selectors, fillers."""


def compose(text: str) -> str:
    """Compose the characters of ``text`` (NFC) and remove invisible ones, so that neither splits a word."""
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text))


def unify(text: str) -> str:
    r"""Compose ``text`` (see `compose`) in compatible characters (NFKC), with plain apostrophes, quotes and hyphens.

    >>> unify("Do\u00adnau, \u2018cafe\u0301\u2019, \ufb01ve, built\u2011in")
    "Donau, 'caf\u00e9', five, built-in"
    """
    text = compose(text).translate(_SIGNS)  # before NFKC, which splits an accent into a space and a mark
    return unicodedata.normalize("NFKC", text).translate(_SIGNS)


def separates(character: str) -> bool:
    """Whether a character stands between words, while letters, marks and digits are parts of a word.

    >>> [separates(c) for c in "/-.a3'"]
    [True, True, True, False, False, False]
    """
    return character != "'" and unicodedata.category(character)[0] not in "LMN"

"""What `..reading` must know of a language to read numbers, abbreviations and signs aloud."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Rule = tuple[str, Callable[[re.Match[str]], str]]
"""A pattern, and what is read for what it finds."""


@dataclass(frozen=True)
class Language:
    """How a language writes and reads numbers and the like."""

    code: str
    """As `num2words` knows it."""
    decimal: str
    """Sign before decimals."""
    thousands: str
    """Sign between groups of three digits."""
    signs: Mapping[str, str]
    """Sign -> its words, wherever it stands; ``-`` is the minus before a number."""
    span: str
    """Word between two numbers that a dash joins."""
    units: Mapping[str, tuple[str, str]]
    """What stands behind a number -> one of it, with the number 1 in its gender, and its name after other numbers."""
    money: Mapping[str, tuple[str, str, str, str]]
    """Sign of a currency, before or behind a number -> one of it and its name after other numbers, as in ``units``;
    then both for its cents."""
    scales: Mapping[str, tuple[str, str]]
    """Words between an amount and what it counts, such as million -> one of it, and its name after other numbers."""
    money_scales: Mapping[str, tuple[str, str]]
    """Letters that are scales beside a sign of a currency alone, such as k."""
    fraction: Callable[[int, int, int], str]
    """What is said for an integer (0: there is none), numerator and denominator."""
    powers: Mapping[str, str]
    """Exponent -> what is said for it; the empty one: what is said before all others."""
    abbreviations: Mapping[str, str]
    """Abbreviation -> its words; the spaces in it may be left out."""
    words: str
    """What is read as a word though it is written in capitals, with spaces between."""
    dates: tuple[Rule, ...]
    """Dates and times, applied in this order before amounts are read."""
    rules: tuple[Rule, ...]
    """Ordinals and the like, applied in this order after amounts and abbreviations, before other numbers are read."""


def number(value: int, code: str, kind: str = "cardinal") -> str:
    """A number in words, parts of words apart. ``kind``: cardinal, ordinal or year."""
    from num2words import num2words

    return num2words(value, lang=code, to=kind).replace(",", "").replace("-", " ")


def either(options: Any) -> str:
    """A pattern for one of several strings, the longest that fits."""
    return "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))

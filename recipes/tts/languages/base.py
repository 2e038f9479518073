"""The description of a language by which `..reading` writes numbers, abbreviations and signs as words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Rule = tuple[str, Callable[[re.Match[str]], str]]
"""A pattern, and a function from its match to the words."""


@dataclass(frozen=True)
class Language:
    """How a language writes numbers, dates, units and abbreviations, and their words."""

    code: str
    """Code of the language in `num2words`."""
    decimal: str
    """Decimal separator."""
    thousands: str
    """Thousands separator."""
    signs: Mapping[str, str]
    """Sign -> its words; ``-`` is the minus before a number."""
    span: str
    """Word for the dash between two numbers."""
    units: Mapping[str, tuple[str, str]]
    """Unit -> its singular with the number 1 (in its gender), and its plural."""
    money: Mapping[str, tuple[str, str, str, str]]
    """Sign of a currency, before or after a number -> singular and plural as in ``units``, then both for its cents."""
    scales: Mapping[str, tuple[str, str]]
    """Words between a number and its unit, such as million -> singular and plural as in ``units``."""
    money_scales: Mapping[str, tuple[str, str]]
    """Letters that are scales only with a currency, such as k."""
    fraction: Callable[[int, int, int], str]
    """Words of an integer (0 = none), numerator and denominator."""
    powers: Mapping[str, str]
    """Exponent -> its words; the empty key: the words before any other exponent."""
    abbreviations: Mapping[str, str]
    """Abbreviation -> its words; its spaces are optional."""
    words: str
    """Words in capitals that are not acronyms, separated by spaces."""
    dates: tuple[Rule, ...]
    """Rules for dates and times, applied in this order before amounts."""
    rules: tuple[Rule, ...]
    """Rules for ordinals and the like, applied in this order after amounts and abbreviations, before other numbers."""


def number(value: int, code: str, kind: str = "cardinal") -> str:
    """A number in words, without hyphens. ``kind``: cardinal, ordinal or year."""
    from num2words import num2words

    return num2words(value, lang=code, to=kind).replace(",", "").replace("-", " ")


def either(options: Any) -> str:
    """A pattern for any of several strings, the longest first."""
    return "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))

"""Text as it is read aloud: numbers, abbreviations, capitals and signs become words, before it is spelt in letters."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from functools import cache

from ...data._characters import unify
from ...registry import UnknownNameError
from . import languages
from .languages.base import Language, either, number

LONGEST = 15
"""Digits of a number that is read as one; longer ones, and those with a zero first, are read digit by digit."""
_YEARS = range(1100, 2100)


def names() -> list[str]:
    """The languages there are."""
    return sorted(module.name for module in pkgutil.iter_modules(languages.__path__) if module.name != "base")


def read_aloud(text: str, language: str) -> str:
    """``text`` in words of a ``language``; an empty one leaves it as it is. Raises `ValueError` for an unknown one.

    Case and the marks of sentences stay. What has no word stays too.

    >>> read_aloud("Dr. Lee paid $2.50 for 3 kg, i.e. 10 % more.", "en")
    'doctor Lee paid two dollars and fifty cents for three kilograms, that is ten percent more.'
    """
    return " ".join(_reader(language)(text).split()) if language else text


@cache
def _reader(name: str) -> Callable[[str], str]:
    """What reads a text aloud in a language, its patterns compiled."""
    if name not in names():
        raise UnknownNameError("language to read aloud", name, names())
    of: Language = importlib.import_module(f"{languages.__name__}.{name}").LANGUAGE
    point, group = re.escape(of.decimal), re.escape(of.thousands)
    digits = rf"(?:\d{{1,3}}(?:{group}\d{{3}})+(?!\d)(?:{point}\d+)?|\d+(?:{point}\d+)?)"
    amount = rf"(?<![\w{group}{point}])({digits})(?![.,]?\d)"
    scale, sign = rf"(?: ?({either(of.scales)})\b)?", f"({either(of.money)})"
    minus = r"(?:(?<![\w.,)])-)?"
    spelt = {_compact(short): full for short, full in of.abbreviations.items()}
    rules = [
        (rf"(?<![\w.])(?:{'|'.join(map(_either_case, of.abbreviations))})(?!\w)", lambda m: _short(m, spelt)),
        *of.rules,
        (r"(?<![\w.])(?:[^\W\d_]\.){2,}", lambda m: _end(m, " ".join(m[0].replace(".", "")))),
        (rf"(?<![\w-])({digits})(?: ?\u2013 ?|-)({digits})(?![\w-]|[.,]\d)", lambda m: f"{m[1]} {of.span} {m[2]}"),
        (rf"{sign} ?{amount}{scale}", lambda m: _money(m[1], m[2], m[3], of)),
        (rf"{amount}{scale} ?{sign}", lambda m: _money(m[3], m[1], m[2], of)),
        (rf"{minus}{amount} ?({either(of.units)})(?!\w)", lambda m: _measured(m, of)),
        (r"(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)", lambda m: " "),
        (rf"{minus}{amount}", lambda m: _signed(m, of)),
        (r"\d+(?:\.\d+)+", lambda m: f" {of.signs['.']} ".join(_number(part, of) for part in m[0].split("."))),
        (r"\d+", lambda m: _number(m[0], of)),
        (either(of.signs.keys() - {"-", ".", ","}), lambda m: f" {of.signs[m[0]]} "),
    ]
    compiled = [(re.compile(pattern), said) for pattern, said in rules]

    def read(text: str) -> str:
        text = re.sub("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))", "", text)  # spaces between thousands
        text = re.sub("[\u00bc-\u00be\u2153\u2154]", lambda m: f" {of.signs[m[0]]}", text).replace("\u2212", "-")
        text = _capitals(unify(text), of)
        for pattern, said in compiled:
            text = pattern.sub(said, text)
        return text

    return read


def _capitals(text: str, of: Language) -> str:
    """Letters of acronyms with spaces between, in a text that is not all in capitals."""
    if not any(map(str.islower, text)):
        return text

    words = {*of.words.split()}

    def said(found: re.Match[str]) -> str:
        letters, plural = found.groups()
        return found[0] if not letters.isupper() or letters in words else " ".join(letters) + plural

    return re.sub(r"(?<![^\W\d_])([^\W\d_]{2,5}?)(s?)(?![^\W\d_]|'[A-Z])", said, text)


def _compact(short: str) -> str:
    return re.sub(r"\s", "", short)


def _either_case(short: str) -> str:
    """A pattern for an abbreviation, with or without its spaces, that may begin a sentence."""
    first, rest = short[0], re.escape(short[1:]).replace("\\ ", r"\s?")
    return (f"[{first}{first.upper()}]" if first.islower() else first) + rest


def _short(found: re.Match[str], spelt: dict[str, str]) -> str:
    short = _compact(found[0])
    return _end(found, spelt.get(short) or spelt[short[0].lower() + short[1:]])


def _end(found: re.Match[str], said: str) -> str:
    """What is said, with the full stop where the text ends: it is that of the sentence too."""
    return f"{said}." if found.end() == len(found.string.rstrip()) else said


def _number(written: str, of: Language) -> str:
    """A number in words: its integer, and decimals digit by digit."""
    whole, _, decimals = written.replace(of.thousands, "").partition(of.decimal)
    if len(whole) > LONGEST or (len(whole) > 1 and int(whole[0]) == 0):
        said = " ".join(number(int(digit), of.code) for digit in whole)
    else:
        year = len(written) == 4 and whole == written and int(whole) in _YEARS
        said = number(int(whole), of.code, "year" if year else "cardinal")
    return " ".join([said, *([of.signs[of.decimal]] if decimals else []), *(number(int(d), of.code) for d in decimals)])


def _signed(found: re.Match[str], of: Language) -> str:
    return f"{of.signs['-']} " * found[0].startswith("-") + _number(found[1], of)


def _measured(found: re.Match[str], of: Language) -> str:
    one, many = of.units[found[2]]
    minus = f"{of.signs['-']} " if found[0].startswith("-") else ""
    return minus + (f"{of.one} {one}" if found[1] == "1" else f"{_cardinal(found[1], of)} {many}")


def _money(sign: str, written: str, scale: str | None, of: Language) -> str:
    one, many, cents = of.money[sign]
    if scale:
        return f"{_cardinal(written, of)} {scale} {many}"
    whole, _, decimals = written.partition(of.decimal)
    if len(decimals) not in (0, 2):
        return f"{_cardinal(written, of)} {many}"
    said = f"{of.one} {one}" if whole == "1" else f"{_cardinal(whole, of)} {many}"
    return f"{said} {of.signs['&']} {_number(decimals.lstrip('0'), of)} {cents}" if decimals.strip("0") else said


def _cardinal(written: str, of: Language) -> str:
    """A number that is no year."""
    return _number(f"{written}{of.thousands}", of)

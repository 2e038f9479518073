"""Text normalisation for synthesis: numbers, abbreviations, acronyms and signs become words."""

from __future__ import annotations

import importlib
import pkgutil
import re
import unicodedata
from collections.abc import Callable
from functools import cache

from ...data._characters import unify
from ...registry import UnknownNameError
from . import languages
from .languages.base import Language, Rule, either, number

LONGEST = 15
"""Maximum digits of a number that is read as one; longer numbers, or with a leading zero, are read by digits."""
_YEARS = range(1100, 2100)
_DENOMINATORS = {*range(2, 11), 12, 16, 20, 32, 64, 100, 1000}
"""Denominators of fractions: 3/4 and 7/8 are read as fractions, 9/11 and 2024/25 are not."""
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074-\u2079"
_FRACTION = f"[\u00bc-\u00be\u2150-\u215e\u2189]|[{_RAISED}]+[/\u2044][\u2080-\u2089]+"
_POWER = f"(?<=[\\w)])(?<![{_RAISED}])(?:\u207b?[{_RAISED}]+(?![{_RAISED}\u207a\u207b])|[\u207f\u2071\u02e3])"
_NOTE = f"[{_RAISED}]+|[\u2080-\u2089]+|[\u2460-\u2473\u24ea-\u24ff\u2776-\u2793]"
_CLOSE_TO_NUMBERS = " -\u2013\u2212(+\u00b1$\u20ac\u00a3\u00a5"
_LETTER = r"[^\W\d_]"
_MINUS = "(?:(?<![^\\s\\[({'\"=:<>+\u2013\u00b1$\u20ac\u00a3\u00a5])[-\u2013])?"


def names() -> list[str]:
    """The available languages."""
    return sorted(module.name for module in pkgutil.iter_modules(languages.__path__) if module.name != "base")


def read_aloud(text: str, language: str) -> str:
    """Write ``text`` in words of a ``language``; an empty language returns it unchanged.

    Case, punctuation and signs without a word stay. Raises `ValueError` for an unknown language.

    >>> read_aloud("Dr. Lee paid $2.50 for 3 kg, i.e. 10 % more.", "en")
    'doctor Lee paid two dollars and fifty cents for three kilograms, that is ten percent more.'
    """
    return " ".join(_reader(language)(text).split()) if language else text


@cache
def _reader(name: str) -> Callable[[str], str]:
    """The function that normalises a text in a language, with compiled patterns."""
    if name not in names():
        raise UnknownNameError("language to read aloud", name, names())
    of: Language = importlib.import_module(f"{languages.__name__}.{name}").LANGUAGE
    rules = [(re.compile(pattern), said) for pattern, said in (*_amounts(of), *_others(of))]

    def read(text: str) -> str:
        text = _plain(text)
        has_lower_case = any(map(str.islower, text))
        for pattern, said in rules:
            text = pattern.sub(lambda found, said=said: _apart(found, said(found)), text)
        return _capitals(text, of) if has_lower_case else text

    return read


def _amounts(of: Language) -> list[Rule]:
    """Rules for numbers with units or signs, before the rules for each alone: 30 Min. before Min., $5M before M."""
    digits, amount = _digits(of), _amount(of)
    scale = rf"[ -]?(?P<scale>{either(of.scales)})(?!\w)"
    glued = rf"(?P<scale>[ -]?(?:{either(of.scales)})|{either(of.money_scales)})(?!\w)"
    before_sign = rf" ?(?P<scale>{either({**of.scales, **of.money_scales})})"
    sign = "|".join(f"(?<!{_LETTER}){re.escape(s)}(?!{_LETTER})" if s[0].isalpha() else re.escape(s) for s in of.money)
    unit = re.sub(r"(?=\d)", r"\\^?", either(of.units))
    end = rf"(?:({sign}) ?)?({_MINUS}(?:\d{{1,2}}[:.]\d\d|{digits}))"
    named = rf"((?: ?(?:{unit}|{either(of.scales)}|{sign})|{either(of.money_scales)})?)"
    return [
        (
            rf"(?<![\w-]){end}{named}(?: ?\u2013 ?|-){end}(?![-\d]|[.,]\d)",
            lambda m: _span(*m.groups(default=""), of=of),
        ),
        *of.dates,
        (rf"{_MINUS}(?P<sign>{sign}) ?{_MINUS}(?P<number>{digits})(?![.,]?\d)(?:{glued})?", lambda m: _money(m, of)),
        (rf"{amount}(?:{before_sign})? ?(?P<sign>{sign})", lambda m: _money(m, of)),
        (
            rf"{amount}(?:{scale})? ?(?P<unit>{unit})(?![\w^])(?:\.(?= [\da-z\u00e4\u00f6\u00fc]))?",
            lambda m: _minus(m, of) + _count(m, *of.units[m["unit"].replace("^", "")], of),
        ),
        (rf"{amount}{scale}", lambda m: _minus(m, of) + _count(m, "", "", of)),
    ]


def _others(of: Language) -> list[Rule]:
    """Rules for abbreviations, ordinals and the like, powers, and all remaining numbers and signs."""
    spelt = {_compact(short): full for short, full in of.abbreviations.items()}
    return [
        (rf"(?<![\w.])(?:{'|'.join(map(_either_case, of.abbreviations))})(?!\w)", lambda m: _short(m, spelt)),
        *of.rules,
        (rf"(?<![\w.])(?:{_LETTER}\.){{2,}}", lambda m: " ".join(m[0].replace(".", ""))),
        (rf"(?<={_LETTER}{{3}})\^(?=\d)", lambda m: " "),  # the number of a footnote
        (rf"(?<=[\w)])\^(-?\d+|{_LETTER})", lambda m: f" {of.powers.get(m[1]) or of.powers[''] + ' ' + m[1]}"),
        (rf"(?<=\d)(?={_LETTER})|(?<={_LETTER})(?=\d)", lambda m: " "),
        (_amount(of), lambda m: _minus(m, of) + _number(m["number"], of, years=True)),
        (r"(?:\d+|(?<!\w))(?<!\.)(?:\.\d+)+", lambda m: _dotted(m[0], of)),
        (r"\d+", lambda m: _number(m[0], of, years=True)),
        (either(of.signs.keys() - {"-", ".", ","}), lambda m: f" {of.signs[m[0]]} "),
    ]


def _digits(of: Language) -> str:
    point, group = re.escape(of.decimal), re.escape(of.thousands)
    fraction = r"(?<![/\u2044])(?:\d{1,3} )?\d{1,4}[/\u2044]\d{1,4}(?![/\d])"
    return rf"(?:{fraction}|\d{{1,3}}(?:{group}\d{{3}})+(?!\d)(?:{point}\d+)?|\d*{point}\d+|\d+)"


def _amount(of: Language) -> str:
    """A pattern for a number with its minus, which is not part of a longer number or of a word."""
    alone = rf"(?<![\w^{re.escape(of.thousands + of.decimal)}])(?<!\^-)(?<!{_LETTER}-)"
    return rf"{_MINUS}{alone}(?P<number>{_digits(of)})(?![.,]?\d)"


def _apart(found: re.Match[str], words: str) -> str:
    """The replacement of a match, with spaces between it and adjacent letters or digits.

    The full stop of an abbreviation stays at the end of the text, because it also ends the sentence.
    """
    around, start, end = found.string, *found.span()
    if found[0].endswith(".") and not around[end:].strip() and not words.endswith("."):
        words += "."
    before = " " if words[:1].isalpha() and around[max(start - 1, 0) : start].isalnum() else ""
    return before + words + (" " if words[-1:].isalpha() and around[end : end + 1].isalnum() else "")


def _plain(text: str) -> str:
    """``text`` in plain characters: powers after ``^``, fractions separated from numbers, minus as a hyphen."""

    def apart(found: re.Match[str]) -> str:
        text, start, end = found.string, *found.span()
        before = "" if text[max(start - 1, 0) : start] in _CLOSE_TO_NUMBERS else " "
        return before + unicodedata.normalize("NFKC", found[0]) + (" " if text[end : end + 1].isdigit() else "")

    text = re.sub("(?<=\\d)['\u2019\u00a0\u2009\u202f](?=\\d{3}(?!\\d))", "", text)  # between thousands
    text = re.sub(r"(?<!\d)[1-9]\d{0,2}(?: \d{3})*(?: 000| \d{3} \d{3})(?!\d)", lambda m: m[0].replace(" ", ""), text)
    text = re.sub("(?<=\\d)( ?)[\u00ba\u02da\u2218]", "\\1\u00b0", text)  # signs that are used for degrees
    text = re.sub(_FRACTION, apart, text)
    text = re.sub(_POWER, lambda m: f"^{unicodedata.normalize('NFKC', m[0])}", text)
    text = unify(re.sub(_NOTE, apart, text)).replace("\u2212", "-")
    text = re.sub("(?<=\\d)( ?)\u00b0 (?=[CF]\\b)", "\\1\u00b0", text)
    return re.sub(r"(?<![\d/.,-])(\d+)-(?=\d/\d)", r"\1 ", text)  # 1-1/2


def _capitals(text: str, of: Language) -> str:
    """Separate the letters of acronyms by spaces."""
    words = {*of.words.split()}

    def said(found: re.Match[str]) -> str:
        letters, plural = found.groups()
        return found[0] if not letters.isupper() or letters in words else " ".join(letters) + plural

    return re.sub(rf"(?<!{_LETTER})({_LETTER}{{2,5}}?)(s?)(?!{_LETTER}|'[A-Z])", said, text)


def _compact(short: str) -> str:
    return re.sub(r"\s", "", short)


def _either_case(short: str) -> str:
    """A pattern for an abbreviation, with or without its spaces, also capitalised at the start of a sentence."""
    first, rest = short[0], re.escape(short[1:]).replace("\\ ", r"\s?")
    return (f"[{first}{first.upper()}]" if first.islower() else first) + rest


def _short(found: re.Match[str], spelt: dict[str, str]) -> str:
    short = _compact(found[0])
    return spelt.get(short) or spelt[short[0].lower() + short[1:]]


def _number(written: str, of: Language, years: bool = False) -> str:
    """A number in words: a fraction, or an integer with decimals by digits. ``years``: read 1987 as a year."""
    if "/" in written or "\u2044" in written:
        return _fraction(written, of)
    integer, _, decimals = written.replace(of.thousands, "").partition(of.decimal)
    if len(integer) > LONGEST or (len(integer) > 1 and int(integer[0]) == 0):
        said = [number(int(digit), of.code) for digit in integer]
    else:
        year = years and len(written) == 4 and integer == written and int(integer) in _YEARS
        said = [number(int(integer), of.code, "year" if year else "cardinal")] if integer else []
    return " ".join(
        [*said, *([of.signs[of.decimal]] if decimals else []), *(number(int(d), of.code) for d in decimals)]
    )


def _fraction(written: str, of: Language) -> str:
    """``2 3/4`` in words; if the slash is not that of a fraction, both numbers one after the other."""
    *integer, parts = written.split(" ")
    top, bottom = re.split("[/\u2044]", parts)
    if int(bottom) and ("\u2044" in parts or (0 < int(top) < int(bottom) and int(bottom) in _DENOMINATORS)):
        return of.fraction(int(integer[0]) if integer else 0, int(top), int(bottom))
    return " ".join(_number(part, of, years=True) for part in (*integer, top, bottom))


def _dotted(written: str, of: Language) -> str:
    first, *rest = written.split(".")
    said = [_number(first, of, years=True)] if first else []
    return " ".join([*said, *(f"{of.signs['.']} {_number(part, of)}" for part in rest)])


def _span(sign: str, first: str, named: str, last_sign: str, last: str, of: Language) -> str:
    """``5-10`` with the word between; a sign before only the first number belongs to both: $5-10 million."""
    return f"{sign if last_sign or named else ''}{first}{named} {of.span} {last_sign or sign}{last}"


def _minus(found: re.Match[str], of: Language) -> str:
    before = found.string[found.start() : found.start("number")]
    return f"{of.signs['-']} " if re.search("[-\u2013]", before) else ""


def _count(found: re.Match[str], one: str, many: str, of: Language) -> str:
    """A number in words with its scale and its unit."""
    written, scale = found["number"], (found["scale"] or "").strip(" -")
    if scale:
        scaled = _counted(written, *({**of.money_scales, **of.scales}[scale]), of)
        return f"{scaled} {many}".rstrip()
    return _counted(written, one, many, of)


def _counted(written: str, one: str, many: str, of: Language) -> str:
    if written == "1":
        return one
    part = re.fullmatch("\\d+[/\u2044]\\d+", written)
    return f"{_number(written, of)} {one.partition(' ')[2] if part else many}"


def _money(found: re.Match[str], of: Language) -> str:
    one, many, cent, cents = of.money[found["sign"]]
    integer, _, decimals = found["number"].partition(of.decimal)
    if found["scale"] or len(decimals) != 2:
        return _minus(found, of) + _count(found, one, many, of)
    small = decimals.lstrip("0")
    said = [_counted(integer or "0", one, many, of)] if integer.strip("0") or not small else []
    said += [_counted(small, cent, cents, of)] if small else []
    return _minus(found, of) + f" {of.signs['&']} ".join(said)

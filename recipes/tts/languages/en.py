"""English."""

from __future__ import annotations

import re

from .base import Language, number

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
_MONTHS += ("November", "December")


def _n(written: str, kind: str = "cardinal") -> str:
    return number(int(written), "en", kind)


def _date(found: re.Match[str]) -> str:
    year, month, day = found.groups()
    return f"{_MONTHS[int(month) - 1]} {_n(day, 'ordinal')} {_n(year, 'year')}"


def _time(found: re.Match[str]) -> str:
    hour, minute = found.groups()
    if int(minute) == 0:
        return f"{_n(hour)} o'clock"
    return f"{_n(hour)} {'oh ' if minute[0] == '0' else ''}{_n(minute)}"


def _decade(found: re.Match[str]) -> str:
    year = found[1]
    return re.sub("ys$", "ies", _n(year, "year" if len(year) == 4 else "cardinal") + "s")


LANGUAGE = Language(
    code="en",
    decimal=".",
    thousands=",",
    signs={
        "-": "minus",
        ".": "point",
        "&": "and",
        "+": "plus",
        "=": "equals",
        "@": "at",
        "%": "percent",
        "\u00a7": "section",
        "\u00b0": "degrees",
        "\u00d7": "times",
        "\u00b1": "plus or minus",
        "\u20ac": "euros",
        "$": "dollars",
        "\u00a3": "pounds",
        "\u00bd": "one half",
        "\u2153": "one third",
        "\u2154": "two thirds",
        "\u00bc": "one quarter",
        "\u00be": "three quarters",
    },
    span="to",
    one="one",
    units={
        "%": ("percent", "percent"),
        "\u00b0C": ("degree Celsius", "degrees Celsius"),
        "\u00b0F": ("degree Fahrenheit", "degrees Fahrenheit"),
        "mm": ("millimetre", "millimetres"),
        "cm": ("centimetre", "centimetres"),
        "m": ("metre", "metres"),
        "km": ("kilometre", "kilometres"),
        "km/h": ("kilometre an hour", "kilometres an hour"),
        "mph": ("mile an hour", "miles an hour"),
        "ft": ("foot", "feet"),
        "m2": ("square metre", "square metres"),
        "mg": ("milligram", "milligrams"),
        "g": ("gram", "grams"),
        "kg": ("kilogram", "kilograms"),
        "lb": ("pound", "pounds"),
        "lbs": ("pound", "pounds"),
        "l": ("litre", "litres"),
        "ml": ("millilitre", "millilitres"),
        "s": ("second", "seconds"),
        "ms": ("millisecond", "milliseconds"),
        "min": ("minute", "minutes"),
        "Hz": ("hertz", "hertz"),
        "kHz": ("kilohertz", "kilohertz"),
        "kB": ("kilobyte", "kilobytes"),
        "MB": ("megabyte", "megabytes"),
        "GB": ("gigabyte", "gigabytes"),
    },
    money={
        "$": ("dollar", "dollars", "cents"),
        "\u20ac": ("euro", "euros", "cents"),
        "\u00a3": ("pound", "pounds", "pence"),
        "\u00a5": ("yen", "yen", "sen"),
    },
    scales=("hundred", "thousand", "million", "billion", "trillion"),
    abbreviations={
        "Dr.": "doctor",
        "Mr.": "mister",
        "Mrs.": "missus",
        "Ms.": "miss",
        "Prof.": "professor",
        "Jr.": "junior",
        "Sr.": "senior",
        "Mt.": "mount",
        "Gen.": "general",
        "Capt.": "captain",
        "Lt.": "lieutenant",
        "Rev.": "reverend",
        "Inc.": "incorporated",
        "Ltd.": "limited",
        "Corp.": "corporation",
        "Ave.": "avenue",
        "Blvd.": "boulevard",
        "e. g.": "for example",
        "i. e.": "that is",
        "etc.": "et cetera",
        "et al.": "and others",
        "vs.": "versus",
        "cf.": "compare",
        "approx.": "approximately",
        "a. m.": "a m",
        "p. m.": "p m",
    },
    words="NATO NASA UNICEF AIDS OPEC ZIP ASCII OK "
    "A I AN AND ARE BE BUT BY CAN DO FOR IF IN IS IT MAY MUST NO NOT OF ON OR THE TO YES YOU",
    rules=(
        (r"\bSt\. (?=[A-Z])", lambda found: "saint "),
        (r"\bSt\.(?!\w)", lambda found: "street"),
        (r"\b(?:No|Nr)\. ?(?=\d)", lambda found: "number "),
        (r"\bp\. ?(?=\d)", lambda found: "page "),
        (r"(?<![\w-])(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?![\w-])", _date),
        (
            rf"\b({'|'.join(name if len(name) < 4 else f'{name[:3]}(?:{name[3:]}|t?[.])' for name in _MONTHS)})"
            r" (\d{1,2})(?:st|nd|rd|th)?(?![\w:]|[.,]\d)",
            lambda found: f"{next(m for m in _MONTHS if m[:3] == found[1][:3])} {_n(found[2], 'ordinal')}",
        ),
        (r"(?<![\w:.,])([01]?\d|2[0-3]):([0-5]\d)(?![\w:])", _time),
        (r"(?<![\w.,])(\d{1,15})(?:st|nd|rd|th)\b", lambda found: _n(found[1], "ordinal")),
        (r"(?<![\w.,])'?((?:1[1-9]|20)?\d0)'?s\b", _decade),
    ),
)

"""English."""

from __future__ import annotations

import re

from .base import Language, number

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_SHORT_MONTHS = "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"
_DAY, _MONTH = "(?:0?[1-9]|[12]\\d|3[01])", "(?:0?[1-9]|1[0-2])"
_DAYS = rf"{_DAY}(?:st|nd|rd|th)?(?:(?:,? (?:and|or|to) |, ){_DAY}(?:st|nd|rd|th)?){{0,9}}"
_LENGTHS = {
    "mm": ("millimetre", "millimetres"),
    "cm": ("centimetre", "centimetres"),
    "m": ("metre", "metres"),
    "km": ("kilometre", "kilometres"),
    "in": ("inch", "inches"),
    "ft": ("foot", "feet"),
    "yd": ("yard", "yards"),
    "mi": ("mile", "miles"),
}
_UNITS = {
    "%": ("percent", "percent"),
    "\u2030": ("per mille", "per mille"),
    "\u00b0": ("degree", "degrees"),
    "\u00b0C": ("degree Celsius", "degrees Celsius"),
    "\u00b0F": ("degree Fahrenheit", "degrees Fahrenheit"),
    **{short: names for short, names in _LENGTHS.items() if short != "in"},  # in is a word
    "in.": _LENGTHS["in"],
    **{f"{short}2": tuple(f"square {name}" for name in names) for short, names in _LENGTHS.items()},
    **{f"{short}3": tuple(f"cubic {name}" for name in names) for short, names in _LENGTHS.items()},
    "\u00a2": ("cent", "cents"),
    "km/h": ("kilometre an hour", "kilometres an hour"),
    "mph": ("mile an hour", "miles an hour"),
    "m/s": ("metre a second", "metres a second"),
    "m/s2": ("metre a second squared", "metres a second squared"),
    "mg": ("milligram", "milligrams"),
    "g": ("gram", "grams"),
    "kg": ("kilogram", "kilograms"),
    "oz": ("ounce", "ounces"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "tsp": ("teaspoon", "teaspoons"),
    "tbsp": ("tablespoon", "tablespoons"),
    "l": ("litre", "litres"),
    "ml": ("millilitre", "millilitres"),
    "ms": ("millisecond", "milliseconds"),
    "s": ("second", "seconds"),
    "sec": ("second", "seconds"),
    "secs": ("second", "seconds"),
    "min": ("minute", "minutes"),
    "mins": ("minute", "minutes"),
    "h": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "W": ("watt", "watts"),
    "kW": ("kilowatt", "kilowatts"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "V": ("volt", "volts"),
    "dB": ("decibel", "decibels"),
    "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "kB": ("kilobyte", "kilobytes"),
    "KB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
}
_DOLLARS = {
    **dict.fromkeys(("A", "AU"), "Australian"),
    **dict.fromkeys(("C", "CA"), "Canadian"),
    "US": "U S",
    "HK": "Hong Kong",
    "NZ": "New Zealand",
    "S": "Singapore",
}
_SCALES = {
    "hundred": "hundred",
    "thousand": "thousand",
    **dict.fromkeys(("million", "mn", "mln", "M"), "million"),
    **dict.fromkeys(("billion", "bn"), "billion"),
    **dict.fromkeys(("trillion", "tn"), "trillion"),
}
_MONEY_SCALES = {
    **dict.fromkeys(("k", "K"), "thousand"),
    **dict.fromkeys(("m", "mm", "MM"), "million"),
    **dict.fromkeys(("b", "B"), "billion"),
    **dict.fromkeys(("t", "T"), "trillion"),
}


def _n(written: str, kind: str = "cardinal") -> str:
    return number(int(written), "en", kind)


def _month(short: str) -> str:
    return next(month for month in _MONTHS if month[:3] == short[:3])


def _date(year: str, month: str, day: str) -> str:
    """The date with the month as a word, for the rules that follow."""
    return f"{_MONTHS[int(month) - 1]} {day} {year}"


def _slashed(found: re.Match[str]) -> str:
    """Month first, as in the United States, unless it is above 12 or the separators are dots."""
    first, sign, second, year = found.groups()
    if int(first) > 12 or sign == ".":
        first, second = second, first
    return _date(year, first, second) if int(first) <= 12 else found[0]


def _ordinals(written: str) -> str:
    return re.sub(r"(\d+)(?:st|nd|rd|th)?", lambda day: _n(day[1], "ordinal"), written)


def _time(found: re.Match[str]) -> str:
    hour, minute, half, dash = found.groups(default="")
    said = _n(hour)
    if int(minute or 0):
        said += f" {'oh ' if minute[0] == '0' else ''}{_n(minute)}"
    elif not half:
        said += " o'clock"
    return said + (f" {half.lower()} m" if half else "") + (" to " if dash else "")


def _decade(found: re.Match[str]) -> str:
    year = found[1]
    return re.sub("ys$", "ies", _n(year, "year" if len(year) == 4 else "cardinal") + "s")


def _fraction(integer: int, top: int, bottom: int) -> str:
    name = {2: "half", 4: "quarter"}.get(bottom) or number(bottom, "en", "ordinal").removeprefix("one ")
    said = f"{number(top, 'en')} {name if top == 1 else 'halves' if bottom == 2 else name + 's'}"
    return f"{number(integer, 'en')} and {said}" if integer else said


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
    },
    span="to",
    units={short: (f"one {one}", many) for short, (one, many) in _UNITS.items()},
    money={
        **dict.fromkeys(("$", "USD"), ("one dollar", "dollars", "one cent", "cents")),
        **{
            f"{short}$": (f"one {where} dollar", f"{where} dollars", "one cent", "cents")
            for short, where in _DOLLARS.items()
        },
        **dict.fromkeys(("\u20ac", "EUR"), ("one euro", "euros", "one cent", "cents")),
        **dict.fromkeys(("\u00a3", "GBP"), ("one pound", "pounds", "one penny", "pence")),
        **dict.fromkeys(("\u00a5", "JPY"), ("one yen", "yen", "one sen", "sen")),
        "CHF": ("one franc", "francs", "one centime", "centimes"),
    },
    scales={short: (f"one {name}", name) for short, name in _SCALES.items()},
    money_scales={short: (f"one {name}", name) for short, name in _MONEY_SCALES.items()},
    fraction=_fraction,
    powers={"2": "squared", "3": "cubed", "": "to the power of"},
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
        **{f"{short}.": _month(short) for short in ("Feb", "Apr", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec")},
    },
    words="NATO NASA UNICEF AIDS OPEC ZIP ASCII OK "
    "A I AN AND ARE BE BUT BY CAN DO FOR IF IN IS IT MAY MUST NO NOT OF ON OR THE TO YES YOU",
    dates=(
        (
            rf"(?<![\w/.-])(\d{{4}})([/.-])({_MONTH})\2({_DAY})(?![\w/-]|\.\d)",
            lambda found: _date(found[1], found[3], found[4]),
        ),
        (rf"(?<![\w/.-])({_DAY})([/.-])({_DAY})\2(\d{{4}})(?![\w/-]|\.\d)", _slashed),
        (rf"(?<![\w/.-])({_DAY})(/)({_DAY})/(\d\d)(?![\w/-]|\.\d)", _slashed),
        (rf"\b({_SHORT_MONTHS})\b\.?(?= \d)", lambda found: _month(found[1])),
        (
            rf"(?<![\w.,])({_DAY}(?:st|nd|rd|th)?(?: of)? )({_SHORT_MONTHS})\b\.?",
            lambda found: found[1] + _month(found[2]),
        ),
        (
            rf"\b({'|'.join(_MONTHS)}) ({_DAYS})(?![\w:]|[.,]\d| ?[ap]\.?m\b)",
            lambda found: f"{found[1]} {_ordinals(found[2])}",
        ),
        (
            rf"(?<![\w.,/:$\u00a3\u20ac-])({_DAYS})(?= (?:of )?(?:{'|'.join(_MONTHS)})\b)",
            lambda found: _ordinals(found[1]),
        ),
        (
            r"(?<![\w:.,])(0?[1-9]|1[0-2])(?:[:.]([0-5]\d))? ?(?i:([ap])\.?m\b)\.?(?:( ?[\u2013-] ?)(?=\d))?",
            _time,
        ),
        (r"(?<![\w:.,])([01]?\d|2[0-3]):([0-5]\d)()()(?![\w:])", _time),
        (r"(?<![\w.,])'?((?:1[1-9]|20)?\d0)'?s\b", _decade),
    ),
    rules=(
        (r"\bSt\. (?=[A-Z])", lambda found: "saint "),
        (r"\bSt\.(?!\w)", lambda found: "street"),
        (r"\b(?:No|Nr)\. ?(?=\d)", lambda found: "number "),
        (r"\bp\. ?(?=\d)", lambda found: "page "),
        (r"\bpp\. ?(?=\d)", lambda found: "pages "),
        (r"(?<![\w.,])(\d{1,15})(?:st|nd|rd|th)\b", lambda found: _n(found[1], "ordinal")),
    ),
)

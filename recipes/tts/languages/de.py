"""German."""

from __future__ import annotations

import re

from .base import Language, number

_MONTHS = ("Januar", "Februar", "M\u00e4rz", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober")
_MONTHS += ("November", "Dezember")
_ARTICLE = "(?i:der|die|das|dem|den|des|am|vom|zum|zur|im|beim|ab|bis|seit)"
_DAY, _MONTH = "(0?[1-9]|[12]\\d|3[01])", "(0?[1-9]|1[0-2])"


def _n(written: str, kind: str = "cardinal") -> str:
    return number(int(written), "de", kind)


def _ordinal(before: str | None, written: str) -> str:
    """The ordinal with the ending that the word before it asks for."""
    ending = {"der": "", "die": "", "das": "", "": "r"}.get((before or "").lower(), "n")
    return f"{before or ''} {_n(written, 'ordinal')}{ending}".lstrip()


def _date(before: str | None, day: str, month: str, year: str | None) -> str:
    said = f"{_ordinal(before, day)} {_MONTHS[int(month) - 1]}"
    return f"{said} {_n(year, 'year')}" if year else said


def _time(found: re.Match[str]) -> str:
    hour, minute = found.groups()
    return f"{'ein' if int(hour) == 1 else _n(hour)} Uhr" + (f" {_n(minute)}" if int(minute) else "")


LANGUAGE = Language(
    code="de",
    decimal=",",
    thousands=".",
    signs={
        "-": "minus",
        ".": "Punkt",
        ",": "Komma",
        "&": "und",
        "+": "plus",
        "=": "gleich",
        "@": "\u00e4t",
        "%": "Prozent",
        "\u00a7": "Paragraf",
        "\u00b0": "Grad",
        "\u00d7": "mal",
        "\u00b1": "plus minus",
        "\u20ac": "Euro",
        "$": "Dollar",
        "\u00a3": "Pfund",
        "\u00bd": "einhalb",
        "\u2153": "ein Drittel",
        "\u2154": "zwei Drittel",
        "\u00bc": "ein Viertel",
        "\u00be": "drei Viertel",
    },
    span="bis",
    one="ein",
    units={
        "%": ("Prozent", "Prozent"),
        "\u00b0C": ("Grad Celsius", "Grad Celsius"),
        "mm": ("Millimeter", "Millimeter"),
        "cm": ("Zentimeter", "Zentimeter"),
        "m": ("Meter", "Meter"),
        "km": ("Kilometer", "Kilometer"),
        "km/h": ("Stundenkilometer", "Stundenkilometer"),
        "m2": ("Quadratmeter", "Quadratmeter"),
        "mg": ("Milligramm", "Milligramm"),
        "g": ("Gramm", "Gramm"),
        "kg": ("Kilogramm", "Kilogramm"),
        "l": ("Liter", "Liter"),
        "ml": ("Milliliter", "Milliliter"),
        "s": ("Sekunde", "Sekunden"),
        "min": ("Minute", "Minuten"),
        "Min.": ("Minute", "Minuten"),
        "Std.": ("Stunde", "Stunden"),
        "Hz": ("Hertz", "Hertz"),
        "kHz": ("Kilohertz", "Kilohertz"),
        "kB": ("Kilobyte", "Kilobyte"),
        "MB": ("Megabyte", "Megabyte"),
        "GB": ("Gigabyte", "Gigabyte"),
    },
    money={
        "\u20ac": ("Euro", "Euro", "Cent"),
        "$": ("Dollar", "Dollar", "Cent"),
        "\u00a3": ("Pfund", "Pfund", "Pence"),
        "\u00a5": ("Yen", "Yen", "Sen"),
    },
    scales=("Millionen", "Million", "Milliarden", "Milliarde", "Billionen", "Billion"),
    abbreviations={
        "Dr.": "Doktor",
        "Prof.": "Professor",
        "Dipl.": "Diplom",
        "Ing.": "Ingenieur",
        "Hr.": "Herr",
        "Fr.": "Frau",
        "St.": "Sankt",
        "Str.": "Stra\u00dfe",
        "Nr.": "Nummer",
        "Tel.": "Telefon",
        "Mio.": "Millionen",
        "Mrd.": "Milliarden",
        "Jh.": "Jahrhundert",
        "Abb.": "Abbildung",
        "Kap.": "Kapitel",
        "usw.": "und so weiter",
        "usf.": "und so fort",
        "etc.": "et cetera",
        "bzw.": "beziehungsweise",
        "ca.": "circa",
        "evtl.": "eventuell",
        "ggf.": "gegebenenfalls",
        "inkl.": "inklusive",
        "exkl.": "exklusive",
        "max.": "maximal",
        "min.": "minimal",
        "vgl.": "vergleiche",
        "sog.": "sogenannte",
        "zzgl.": "zuz\u00fcglich",
        "z. B.": "zum Beispiel",
        "z. T.": "zum Teil",
        "z. Zt.": "zur Zeit",
        "d. h.": "das hei\u00dft",
        "u. a.": "unter anderem",
        "u. U.": "unter Umst\u00e4nden",
        "o. \u00e4.": "oder \u00e4hnliches",
        "i. d. R.": "in der Regel",
        "s. o.": "siehe oben",
        "s. u.": "siehe unten",
        "v. a.": "vor allem",
        "n. Chr.": "nach Christus",
        "v. Chr.": "vor Christus",
    },
    words="NATO NASA UNICEF AIDS OPEC UNO OK "
    "AB ALLE AN AUF AUS BIS DAS DER DIE EIN ES ICH IM IN IST JA KEIN MIT NIE NUR UND VON WIR ZU",
    rules=(
        (r"(?<=[a-z\u00e4\u00f6\u00fc\u00df])str\.(?!\w)", lambda found: "stra\u00dfe"),
        (r"\bS\. ?(?=\d)", lambda found: "Seite "),
        (
            r"(?<![\w-])(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?![\w-])",
            lambda found: _date(None, found[3], found[2], found[1]),
        ),
        (
            rf"(?:\b({_ARTICLE}) )?(?<![\d.,]){_DAY}\. ?{_MONTH}\.(?: ?(\d{{4}}|\d\d)(?![\d.,]\d|\d))?(?!\d)",
            lambda found: _date(found[1], found[2], found[3], found[4]),
        ),
        (r"(?<![\w:.,])([01]?\d|2[0-3]):([0-5]\d)(?![\w:])(?: Uhr\b)?", _time),
        (
            rf"\b({_ARTICLE}) (\d{{1,4}})\.(?= \w)",
            lambda found: _ordinal(found[1], found[2]),
        ),
        (
            rf"(?<![\w.,])(\d{{1,2}})\.(?= (?:{'|'.join(_MONTHS)}|Jahrhundert|Mal|Platz|Stock)\b)",
            lambda found: _ordinal(None, found[1]),
        ),
        (
            r"(?<![\w.,])(\d{2,4})er\b",
            lambda found: f"{_n(found[1], 'year' if len(found[1]) == 4 else 'cardinal')}er",
        ),
        (r"(?<![\w.,])1(?= [A-Z\u00c4\u00d6\u00dc])(?! (?:Uhr|Million|Milliarde))", lambda found: "ein"),
    ),
)

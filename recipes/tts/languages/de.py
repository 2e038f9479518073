"""German."""

from __future__ import annotations

import re

from .base import Language, either, number

_MONTHS = (
    *("Januar", "Februar", "M\u00e4rz", "April", "Mai", "Juni"),
    *("Juli", "August", "September", "Oktober", "November", "Dezember"),
)
_SHORT_MONTHS = "Jan|Febr?|M\u00e4r|Mrz|Apr|Jun|Jul|Aug|Sept?|Okt|Nov|Dez"
_WEEKDAYS = ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag")
_SHORT_DAYS = "|".join(day[:2] for day in _WEEKDAYS)
_ARTICLE = (
    "(?i:(?:an|auf|aus|bei|in|mit|nach|seit|unter|von|vor|zu) der|der|die|das|dem|den|des|ein|eine|einen|einem"
    "|einer|jeder|jede|jedes|jeden|jedem|zwischen|am|vom|zum|zur|im|beim|ab|bis|seit)"
)
_DAY, _MONTH = "(0?[1-9]|[12]\\d|3[01])", "(0?[1-9]|1[0-2])"
_YEAR = r"(?: ?(\d{4}|\d\d)(?![\d.,]\d|\d))?"
_HOUR, _MINUTE = r"([01]?\d|2[0-4])", r"([0-5]\d)"
_NUMBERED = (
    *("Absatz", "Abs.", "Artikel", "Art.", "Band", "Gleis", "Gruppe", "Halle", "Kapitel", "Nummer", "Phase"),
    *("Platz", "Punkt", "Raum", "Seite", "Stufe", "Tabelle", "Teil", "Version", "Zimmer", "\u00a7"),
)
_ONE = "".join(f"(?<!{re.escape(noun)} )" for noun in _NUMBERED) + r"(?<![\w.,:/])1"
"""1 before the noun that it counts, but not the number of the noun before it."""
_DATIVE = "((?i:ab|aus|bei|in|mit|nach|seit|von|vor|zu))"
_DATIVE_OF_ONE = {"ein": "einem", "eine": "einer"}
_FEMININE = (
    "(?!(?:Auge|Ende|Junge|K\u00e4se|Name|Kollege|Kunde|Geb\u00e4ude|Interesse)\\b)"
    "(?:[A-Z\u00c4\u00d6\u00dc]\\w*(?:e|ung|heit|keit|schaft|ion|t\u00e4t|erin|zeit)|Frau|Person|Nacht|Stadt|Mark)"
)
_ADJECTIVE = (
    "(?!(?:aber|die|eine|hatte|hinter|immer|ohne|oder|\u00fcber|unter|wie|wieder|wurde)\\b)"
    "[a-z\u00e4\u00f6\u00fc\u00df]+"
)
_ENDINGS = {
    "r": (
        *_MONTHS,
        "Advent",
        "FC",
        "Geburtstag",
        "Platz",
        "Preis",
        "Sieger",
        "Stock",
        "Tag",
        "Teil",
        "Versuch",
        "Weltkrieg",
    ),
    "": ("Auflage", "Bundesliga", "Etage", "Folge", "Halbzeit", "Klasse", "Liga", "Reihe", "Runde", "Staffel"),
    "s": ("Jahrhundert", "Kapitel", "Mal", "Obergeschoss", "Quartal", "Semester"),
}
"""Ending of an ordinal without an article -> the nouns after it."""
_MONTH_NAMES = "|".join(_MONTHS)
_NOUNS = "|".join(noun for nouns in _ENDINGS.values() for noun in nouns)
_AND = r"(?:,? (?:und|oder|u\.|&|bis(?: zum)?) |, | ?[/\u2013-] ?)"
_ORDINALS = rf"(?:\d{{1,2}}\.?(?: ?(?:{_MONTH_NAMES})(?: \d{{4}})?)?{_AND}){{0,9}}\d{{1,4}}\."
"""One ordinal or several (3. Mai, 4. or 5.); the last one has a full stop."""
_SIGNS = "(?:[\u20ac$\u00a3]|EUR|USD|CHF)"
_METRES = {"mm": "Millimeter", "cm": "Zentimeter", "m": "Meter", "km": "Kilometer"}
_NEUTER = {
    "%": "Prozent",
    "\u2030": "Promille",
    "\u00b0": "Grad",
    "\u00b0C": "Grad Celsius",
    **_METRES,
    **{f"{short}2": f"Quadrat{name.lower()}" for short, name in _METRES.items()},
    **{f"{short}3": f"Kubik{name.lower()}" for short, name in _METRES.items()},
    "qm": "Quadratmeter",
    "km/h": "Stundenkilometer",
    "m/s": "Meter pro Sekunde",
    "m/s2": "Meter pro Sekunde hoch zwei",
    "mg": "Milligramm",
    "g": "Gramm",
    "kg": "Kilogramm",
    "l": "Liter",
    "ml": "Milliliter",
    "TL": "Teel\u00f6ffel",
    "EL": "Essl\u00f6ffel",
    "W": "Watt",
    "kW": "Kilowatt",
    "V": "Volt",
    "dB": "Dezibel",
    "Hz": "Hertz",
    "kHz": "Kilohertz",
    "MHz": "Megahertz",
    "GHz": "Gigahertz",
    "kB": "Kilobyte",
    "KB": "Kilobyte",
    "MB": "Megabyte",
    "GB": "Gigabyte",
    "TB": "Terabyte",
    "Fr.": "Franken",
    "St.": "St\u00fcck",
    "Stk.": "St\u00fcck",
}
"""Masculine and neuter units, whose plural equals the singular."""
_FEMININE_UNITS = {
    **dict.fromkeys(("s", "sek.", "Sek.", "Sek"), "Sekunde"),
    **dict.fromkeys(("min", "min.", "Min.", "Min"), "Minute"),
    **dict.fromkeys(("h", "std.", "Std.", "Std"), "Stunde"),
    "ms": "Millisekunde",
    "kWh": "Kilowattstunde",
    "kcal": "Kilokalorie",
    "t": "Tonne",
}
_UNITS = {
    **{short: (f"ein {name}", name) for short, name in _NEUTER.items()},
    **{short: (f"eine {name}", f"{name}n") for short, name in _FEMININE_UNITS.items()},
}
_SCALES = {
    **dict.fromkeys(("Tsd.", "Tsd"), ("eintausend", "tausend")),
    **dict.fromkeys(("Mio.", "Mio", "Million", "Millionen"), ("eine Million", "Millionen")),
    **dict.fromkeys(("Mrd.", "Mrd", "Milliarde", "Milliarden"), ("eine Milliarde", "Milliarden")),
    **dict.fromkeys(("Bio.", "Billion", "Billionen"), ("eine Billion", "Billionen")),
}


def _n(written: str, kind: str = "cardinal") -> str:
    return number(int(written), "de", kind)


def _month(short: str) -> str:
    return "M\u00e4rz" if short == "Mrz" else next(month for month in _MONTHS if month[:3] == short[:3])


def _day(short: str) -> str:
    return next(day for day in _WEEKDAYS if day[:2] == short)


def _date(day: str, month: str, year: str | None) -> str:
    """The date with the month as a word, for the rule of ordinals."""
    return f"{day}. {_MONTHS[int(month) - 1]} {year or ''}".rstrip()


def _ordinals(written: str, ending: str) -> str:
    said = re.sub(r"\b(\d{1,2}\b\.?|\d+\.)", lambda day: _n(day[0].rstrip("."), "ordinal") + ending, written)
    return re.sub(" ?[\u2013-] ?", " bis ", said).replace(" u. ", " und ")


def _after_article(found: re.Match[str]) -> str:
    """Ordinals with the ending that the preceding article requires."""
    before = found[1].lower()
    ending = (
        "" if before in ("der", "die", "das", "eine", "jeder", "jede", "jedes") else "r" if before == "ein" else "n"
    )
    return f"{found[1]} {_ordinals(found[2], ending)}"


def _before_noun(found: re.Match[str]) -> str:
    return _ordinals(found[1], next(ending for ending, nouns in _ENDINGS.items() if found[2] in nouns))


def _after_preposition(found: re.Match[str]) -> str:
    """1 and its unit in the dative: nach 1 Std."""
    one, _, name = (_UNITS | _SCALES)[found[2]][0].partition(" ")
    return f"{found[1]} {_DATIVE_OF_ONE.get(one, one)} {name}"


def _time(found: re.Match[str]) -> str:
    hour, minute = found.groups()
    return f"{'ein' if int(hour) == 1 else _n(hour)} Uhr" + (f" {_n(minute)}" if int(minute) else "")


def _fraction(integer: int, top: int, bottom: int) -> str:
    before = "ein" if integer == 1 else number(integer, "de") if integer else ""
    if bottom == 2:
        return f"{before}einhalb" if top == 1 else f"{before} {number(top, 'de')} Halbe".lstrip()
    part = f"{number(bottom, 'de', 'ordinal')}l".removeprefix("ein")
    return f"{before} {'ein' if top == 1 else number(top, 'de')} {part.capitalize()}".lstrip()


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
    },
    span="bis",
    units=_UNITS,
    money={
        **dict.fromkeys(("\u20ac", "EUR"), ("ein Euro", "Euro", "ein Cent", "Cent")),
        **dict.fromkeys(("$", "USD"), ("ein Dollar", "Dollar", "ein Cent", "Cent")),
        "US$": ("ein U S Dollar", "U S Dollar", "ein Cent", "Cent"),
        **dict.fromkeys(("\u00a3", "GBP"), ("ein Pfund", "Pfund", "ein Penny", "Pence")),
        **dict.fromkeys(("\u00a5", "JPY"), ("ein Yen", "Yen", "ein Sen", "Sen")),
        **dict.fromkeys(("CHF", "SFr."), ("ein Franken", "Franken", "ein Rappen", "Rappen")),
    },
    scales=_SCALES,
    money_scales={
        **dict.fromkeys(("k", "K", "T"), ("eintausend", "tausend")),
        **dict.fromkeys(("m", "M"), ("eine Million", "Millionen")),
        **dict.fromkeys(("bn", "B"), ("eine Milliarde", "Milliarden")),
    },
    fraction=_fraction,
    powers={"": "hoch"},
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
        "Std.": "Stunde",
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
        **{f"{short}.": _month(short) for short in ("Feb", "Apr", "Aug", "Sep", "Sept", "Okt", "Nov", "Dez")},
    },
    words="NATO NASA UNICEF AIDS OPEC UNO OK "
    "AB ALLE AN AUF AUS BIS DAS DER DIE EIN ES ICH IM IN IST JA KEIN MIT NIE NUR UND VON WIR ZU",
    dates=(
        (r"\bFr\. ?(?=\d+\.(?:\d\d|-|\u2013)(?! ?[\d.:\u2013-]| (?:Uhr|bis)))", lambda found: "CHF "),
        (
            rf"\b({_SHORT_DAYS})\b\.? ?[\u2013-] ?({_SHORT_DAYS})\b\.?",
            lambda found: " bis ".join(map(_day, found.groups())),
        ),
        (rf"(?<!\d )\b({_SHORT_DAYS})\.(?=,? \d)", lambda found: _day(found[1])),
        (rf"({_SIGNS} ?\d+)\.(\d\d)(?![\d.])", lambda found: f"{found[1]},{found[2]}"),
        (rf"(?<![\d.])(\d+)\.(\d\d)(?= ?(?:{_SIGNS}|Euro))", lambda found: f"{found[1]},{found[2]}"),
        (r"(?<=\d)[.,](?:--?|[\u2013\u2014])(?!\d)", lambda found: ""),  # 5,- Euro
        (
            r"(?<![\w-])(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?![\w-])",
            lambda found: _date(found[3], found[2], found[1]),
        ),
        (
            rf"(?<![\w/-]){_DAY}([/-]){_MONTH}\2(\d{{4}})(?![\w/-]|[.,]\d)",
            lambda found: _date(found[1], found[3], found[4]),
        ),
        (
            rf"(?<![\d.,]){_DAY}\. ?{_MONTH}\.{_YEAR}(?!\d)",
            lambda found: _date(found[1], found[2], found[3]),
        ),
        (rf"(\d\. ?)({_SHORT_MONTHS})\b\.?", lambda found: found[1] + _month(found[2])),
        (rf"\b({_SHORT_MONTHS})\b\.?(?= '?(?:\d{{4}}|\d\d)\b)", lambda found: _month(found[1])),
        (rf"(?<![\w:.,]){_HOUR}\.{_MINUTE}(?=(?:(?:,| (?:bis|und|oder)) \d\d?(?:[.:]\d\d)?)+ ?(?:Uhr|h)\b)", _time),
        (rf"(?<![\w:.,]){_HOUR}[:.]{_MINUTE} ?(?:Uhr|h)\b", _time),
        (rf"(?<=\b[Uu]m ){_HOUR}\.{_MINUTE}(?![\w:]|[.,]\d)", _time),
        (rf"(?<![\w:.,]){_HOUR}:{_MINUTE}(?![\w:])", _time),
        (rf"{_ONE}(?=[ -]Uhr\b)", lambda found: "ein"),
        (rf"\b{_DATIVE} 1 ?({either(_UNITS | _SCALES)})(?![\w^])", _after_preposition),
        (rf"(?<!\d )(?<![\w/.,])1[/\u2044]2 (?={_FEMININE}\b|Std\b)", lambda found: "eine halbe "),
    ),
    rules=(
        (r"(\w*[a-z\u00e4\u00f6\u00fc\u00df])str\.(?!\w)", lambda found: f"{found[1]}stra\u00dfe"),
        (r"\bS\. ?(?=\d)", lambda found: "Seite "),
        (rf"(?<!\d )(?<!\d\. )\b({_ARTICLE}) ({_ORDINALS})(?= ?[^\W\d])", _after_article),
        (rf"\b((?i:am|vom|zum)) ({_ORDINALS})(?=[,;]|\s*$)", _after_article),
        (rf"(?<![\w.,])({_ORDINALS})(?= ?({_NOUNS})\b)", _before_noun),
        (
            r"(?<![\w.,])(\d{2,4})er\b",
            lambda found: f"{_n(found[1], 'year' if len(found[1]) == 4 else 'cardinal')}er",
        ),
        (rf"\b{_DATIVE} 1 (?={_FEMININE}\b)", lambda found: f"{found[1]} einer "),
        (rf"\b{_DATIVE} 1 (?=[A-Z\u00c4\u00d6\u00dc])", lambda found: f"{found[1]} einem "),
        (rf"{_ONE}(?=[ -]{_FEMININE}\b)", lambda found: "eine"),
        (rf"(?<!von ){_ONE}(?= (?:bis|oder) \w+ [A-Z\u00c4\u00d6\u00dc])", lambda found: "ein"),
        (rf"{_ONE}(?= [A-Z\u00c4\u00d6\u00dc]|-[^\W\d_]|mal\b)", lambda found: "ein"),
        (rf"{_ONE}(?= {_ADJECTIVE}(?:er|es) [A-Z\u00c4\u00d6\u00dc])", lambda found: "ein"),
        (rf"{_ONE}(?= {_ADJECTIVE}e [A-Z\u00c4\u00d6\u00dc])", lambda found: "eine"),
    ),
)

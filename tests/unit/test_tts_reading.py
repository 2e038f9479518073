"""Numbers, signs and abbreviations as they are read aloud."""

import random

import pytest
from vqmem.recipes.tts.reading import names, read_aloud


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Dr. Lee has 3 kg, i.e. 10 % more.", "doctor Lee has three kilograms, that is ten percent more."),
        ("In 1987 the USA had 1,234 people.", "In nineteen eighty seven the U S A had one thousand two hundred and "
         "thirty four people."),
        ("St. John, High St., No. 5; no. 3.14 007", "saint John, High street, number five; no. three point one four "
         "zero zero seven"),
        ("On March 5, 2024, at 10:05 a.m.", "On March fifth, twenty twenty four, at ten oh five a m."),
        ("$2.50, \u00a31, \u20ac5 million, 5 \u20ac", "two dollars and fifty cents, one pound, five million euros, "
         "five euros"),
        ("2024-03-05: -5 \u00b0C", "March fifth twenty twenty four: minus five degrees Celsius"),
        ("pp 10\u201320, the 1990s, 22nd", "pp ten to twenty, the nineteen nineties, twenty second"),
        ("NATO, MP3 & SHOUT? 1.2.3 etc.", "NATO, M P three and S H O U T? one point two point three et cetera."),
        ("ALL IS LOUD 5", "ALL IS LOUD five"),
        ("1" * 16, " ".join(["one"] * 16)),
        ("1,2,3 and 2\u00bd", "one,two,three and two and one half"),
    ],
)  # fmt: skip
def test_english_is_read_aloud(text, said):
    assert read_aloud(text, "en") == said
    assert read_aloud(text, "") == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Dr. M\u00fcller kauft z.\u00a0B. 3,5 kg usw.", "Doktor M\u00fcller kauft zum Beispiel drei Komma f\u00fcnf "
         "Kilogramm und so weiter."),
        ("1987 waren es 1.234 Menschen", "neunzehnhundertsiebenundachtzig waren es eintausendzweihundertvierunddrei"
         "\u00dfig Menschen"),
        ("Am 3. Oktober, der 3. Mann, 3. Oktober", "Am dritten Oktober, der dritte Mann, dritter Oktober"),
        ("05.03.2024 um 10:30 Uhr, 14:00 Uhr",
         "f\u00fcnfter M\u00e4rz zweitausendvierundzwanzig um zehn Uhr drei\u00dfig, "
         "vierzehn Uhr"),
        ("5,50 \u20ac, 1 \u20ac, 5 Mio. \u20ac, 10 %",
         "f\u00fcnf Euro und f\u00fcnfzig Cent, ein Euro, f\u00fcnf Millionen "
         "Euro, zehn Prozent"),
        ("Hauptstr. 5, Nr. 7, S. 12, d.h. 10\u201320",
         "Hauptstra\u00dfe f\u00fcnf, Nummer sieben, Seite zw\u00f6lf, das "
         "hei\u00dft zehn bis zwanzig"),
        ("Er ist 3. Dann 10\u202f000, 3.11", "Er ist drei. Dann zehntausend, drei Punkt elf"),
    ],
)  # fmt: skip
def test_german_is_read_aloud(text, said):
    assert read_aloud(text, "de") == said


def test_what_is_read_aloud_has_no_digit_left_and_text_without_any_stays():
    for language in names():
        draw = random.Random(language)
        for _ in range(300):
            text = "".join(
                draw.choice("0123456789.,:-\u2013/ %$\u20ackmBa\u00b2\u2075\u2083\u215e^") for _ in range(12)
            )
            assert not any(map(str.isdigit, read_aloud(text, language))), text
        assert read_aloud("Two golden lions laugh, don't they?", language) == "Two golden lions laugh, don't they?"
    with pytest.raises(ValueError, match="unknown language to read aloud 'eng'; did you mean en"):
        read_aloud("5", "eng")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10\u00b2", "ten squared"),
        ("x\u00b2 + y\u00b3", "x squared plus y cubed"),
        ("x\u00b2y^3", "x squared y cubed"),
        (
            "10\u207b\u00b3, 10\u2076 and 2\u207f",
            "ten to the power of minus three, ten to the power of six and two to the power of n",
        ),
        ("5m\u00b3 of water", "five cubic metres of water"),
        ("1 m\u00b2, 3 km^2", "one square metre, three square kilometres"),
        ("9.8 m/s\u00b2", "nine point eight metres a second squared"),
        ("H\u2082O and CO\u2082.", "H two O and C O two."),
        ("other\u00b2 things.\u00b3", "other two things. three"),
        ("\u00b2\u00b3\u2075U", "two hundred and thirty five U"),
        ("5\u215e", "five and seven eighths"),
        ("5 \u215e lb, \u00bd mi", "five and seven eighths pounds, one half mile"),
        (
            "-\u00bd, \u00b9\u2044\u2082 and 99\u2154%",
            "minus one half, one half and ninety nine and two thirds percent",
        ),
        ("1/2, 3/4", "one half, three quarters"),
        ("2 1/2 kg, 1-1/2 cups", "two and one half kilograms, one and one half cups"),
        ("1/4\u20131/2 of them", "one quarter to one half of them"),
        ("24/7, 9/11", "twenty four seven, nine eleven"),
        ("2023/24", "twenty twenty three twenty four"),
    ],
)
def test_english_powers_and_fractions_are_apart_from_the_number_before(text, said):
    assert read_aloud(text, "en") == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-$5", "minus five dollars"),
        ("a balance of -$5 today", "a balance of minus five dollars today"),
        ("\u2212$5.50, -\u20ac5, $-5", "minus five dollars and fifty cents, minus five euros, minus five dollars"),
        ("-5 \u20ac and \u20135 \u00b0C", "minus five euros and minus five degrees Celsius"),
        ("(-5) [-5] x=-5", "(minus five) [minus five] x equals minus five"),
        (".5", "point five"),
        ("-.5 and .25 kg", "minus point five and point two five kilograms"),
        ("$.50, $0.01, $1.01", "fifty cents, one cent, one dollar and one cent"),
        ("$5M, $5k, \u20ac3bn", "five million dollars, five thousand dollars, three billion euros"),
        ("US$40 and -US$5M", "forty U S dollars and minus five million U S dollars"),
        (
            "\u00a35m, $1.5B, 40 USD, EUR5",
            "five million pounds, one point five billion dollars, forty dollars, five euros",
        ),
        ("a $2-million house, 3bn people", "a two million dollars house, three billion people"),
        ("R$40, $5 T-shirt", "R forty dollars, five dollars T-shirt"),
        ("$5-10 million", "five to ten million dollars"),
        ("$5k-$10k, 10%-20%", "five thousand dollars to ten thousand dollars, ten percent to twenty percent"),
        ("-10 \u2013 -5 \u00b0C", "minus ten to minus five degrees Celsius"),
        ("5 million km, 5 MB of it", "five million kilometres, five megabytes of it"),
        ("wait 5 min. here. Wait 5 min. Go.", "wait five minutes here. Wait five minutes. Go."),
        ("6 ft. 2 in. tall", "six feet two inches tall"),
        ("B-52s, COVID-19 and A-5", "B-fifty two s, C O V I D-nineteen and A-five"),
        ("25\u00baC, 5\u00b0 C", "twenty five degrees Celsius, five degrees Celsius"),
        (
            "10 000 or 1 234 567",
            "ten thousand or one million two hundred and thirty four thousand five hundred and sixty seven",
        ),
    ],
)
def test_english_amounts_have_their_minus_point_scale_and_spaces(text, said):
    assert read_aloud(text, "en") == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("25 December 2024", "twenty fifth December twenty twenty four"),
        ("on 25 Dec. 2024, 5 Jan", "on twenty fifth December twenty twenty four, fifth January"),
        ("Dec 25, Sept. 11, 2001", "December twenty fifth, September eleventh, two thousand and one"),
        ("3 and 4 May, 3\u20135 May", "third and fourth May, third to fifth May"),
        ("May 3-5, 2024", "May third to fifth, twenty twenty four"),
        ("12/25/2024, 12/25/24", "December twenty fifth twenty twenty four, December twenty fifth twenty four"),
        (
            "25/12/2024, 25.12.2024",
            "December twenty fifth twenty twenty four, December twenty fifth twenty twenty four",
        ),
        ("3/4/2024.", "March fourth twenty twenty four."),
        ("13/13/2020", "thirteen/thirteen/twenty twenty"),
        ("in Oct. 2020, in Oct.", "in October twenty twenty, in October."),
        ("I may 5 times, 5 marches", "I may five times, five marches"),
        ("5pm, 5:00 PM, 5.30pm", "five p m, five p m, five thirty p m"),
        ("9am-5pm, 10:30-12:00", "nine a m to five p m, ten thirty to twelve o'clock"),
    ],
)
def test_english_dates_and_times(text, said):
    assert read_aloud(text, "en") == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10\u00b2", "zehn hoch zwei"),
        ("x\u00b2, 10\u207b\u00b3", "x hoch zwei, zehn hoch minus drei"),
        (
            "5m\u00b3 Wasser, 1 m\u00b2, 3 km\u00b2",
            "f\u00fcnf Kubikmeter Wasser, ein Quadratmeter, drei Quadratkilometer",
        ),
        ("H\u2082O und CO\u2082.", "H zwei O und C O zwei."),
        ("5\u215e", "f\u00fcnf sieben Achtel"),
        ("2\u00bd Stunden, 1\u00bd kg, \u00bd Stunde", "zweieinhalb Stunden, eineinhalb Kilogramm, eine halbe Stunde"),
        ("1/2, 3/4, 2/3 der", "einhalb, drei Viertel, zwei Drittel der"),
        ("-\u00bd, 2 1/2, 24/7", "minus einhalb, zweieinhalb, vierundzwanzig sieben"),
    ],
)
def test_german_powers_and_fractions_are_apart_from_the_number_before(text, said):
    assert read_aloud(text, "de") == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-5 \u20ac, -$5", "minus f\u00fcnf Euro, minus f\u00fcnf Dollar"),
        ("\u22125,50 \u20ac, 0,01 \u20ac, ,5", "minus f\u00fcnf Euro und f\u00fcnfzig Cent, ein Cent, Komma f\u00fcnf"),
        (
            "5,- \u20ac, CHF 5.50, 12.50 \u20ac",
            "f\u00fcnf Euro, f\u00fcnf Franken und f\u00fcnfzig Rappen, zw\u00f6lf Euro und f\u00fcnfzig Cent",
        ),
        ("5M\u20ac, US$40, \u20ac3bn", "f\u00fcnf Millionen Euro, vierzig U S Dollar, drei Milliarden Euro"),
        ("5\u201310 Mio. \u20ac", "f\u00fcnf bis zehn Millionen Euro"),
        ("1 Million, 1 Mio. Einwohner", "eine Million, eine Million Einwohner"),
        ("1 Mrd. \u20ac, 1,5 Mio. km", "eine Milliarde Euro, eins Komma f\u00fcnf Millionen Kilometer"),
        ("30 Min. warten", "drei\u00dfig Minuten warten"),
        ("Wir warten 30 Min. hier.", "Wir warten drei\u00dfig Minuten hier."),
        ("30 min. Pause, min. 5, Min. 3", "drei\u00dfig Minuten Pause, minimal f\u00fcnf, minimal drei"),
        ("1 Std.", "eine Stunde."),
        ("nach 1 Std. Fahrt, in 1 Woche", "nach einer Stunde Fahrt, in einer Woche"),
        ("vor 1 Mio. Jahren, seit 1 Jahr", "vor einer Million Jahren, seit einem Jahr"),
        ("2 Std. 30 Min., 5 Sek.", "zwei Stunden drei\u00dfig Minuten, f\u00fcnf Sekunden."),
        ("20 Fr. von Fr. Huber", "zwanzig Franken von Frau Huber"),
        ("1 s, 1 h, 1 kg, 1 t", "eine Sekunde, eine Stunde, ein Kilogramm, eine Tonne"),
        ("1 Stunde, 1 Wohnung, 1 Tag, 1 Auge", "eine Stunde, eine Wohnung, ein Tag, ein Auge"),
        ("1-2 Tage, 1 oder 2 kg", "ein bis zwei Tage, ein oder zwei Kilogramm"),
        ("Seite 1 Text, \u00a7 1 Abs. 1 Satz 2", "Seite eins Text, Paragraf eins Abs. eins Satz zwei"),
        ("1, 2 und 101", "eins, zwei und einhunderteins"),
    ],
)
def test_german_amounts_durations_and_one(text, said):
    assert read_aloud(text, "de") == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 Uhr, um 1 Uhr, 21 Uhr", "ein Uhr, um ein Uhr, einundzwanzig Uhr"),
        ("15.30 Uhr, 8.05 Uhr", "f\u00fcnfzehn Uhr drei\u00dfig, acht Uhr f\u00fcnf"),
        ("um 15.30, 15:30h", "um f\u00fcnfzehn Uhr drei\u00dfig, f\u00fcnfzehn Uhr drei\u00dfig"),
        ("von 10.30 bis 12.00 Uhr", "von zehn Uhr drei\u00dfig bis zw\u00f6lf Uhr"),
        ("8.30-12.00, 14.00\u201318.00 Uhr", "acht Uhr drei\u00dfig bis zw\u00f6lf Uhr, vierzehn Uhr bis achtzehn Uhr"),
        ("1\u20133 Uhr, 8-10 Uhr", "ein bis drei Uhr, acht bis zehn Uhr"),
        ("5. Okt.", "f\u00fcnfter Oktober."),
        ("5. Jan. 2020", "f\u00fcnfter Januar zweitausendzwanzig"),
        ("Am 5. Okt. war, bis 31. Dez.", "Am f\u00fcnften Oktober war, bis einunddrei\u00dfigsten Dezember."),
        ("im Jan. 2020, ich bin Jan.", "im Januar zweitausendzwanzig, ich bin Jan."),
        ("am 3. und 4. Mai", "am dritten und vierten Mai"),
        ("der 3. und 4. Mai; 3. und 4. Mai", "der dritte und vierte Mai; dritter und vierter Mai"),
        ("vom 3.\u20135.10.2024", "vom dritten bis f\u00fcnften Oktober zweitausendvierundzwanzig"),
        ("3.-5. Mai, 3-5. Mai", "dritter bis f\u00fcnfter Mai, dritter bis f\u00fcnfter Mai"),
        ("vom 3. Mai 2019 bis 5. Juni", "vom dritten Mai zweitausendneunzehn bis f\u00fcnften Juni"),
        ("am 3.10. und 5.10.", "am dritten Oktober und f\u00fcnften Oktober."),
        ("5. u. 6. Mai, Mo., 3. Feb.", "f\u00fcnfter und sechster Mai, Montag, dritter Februar."),
        ("Mo.\u2013Fr. 8\u201317 Uhr", "Montag bis Freitag acht bis siebzehn Uhr"),
        ("am 5.", "am f\u00fcnften."),
        ("im 1. oder 2. Stock, in der 3. Klasse", "im ersten oder zweiten Stock, in der dritten Klasse"),
        ("2. Semester, 1. FC, eine 2. Chance", "zweites Semester, erster F C, eine zweite Chance"),
    ],
)
def test_german_dates_and_times(text, said):
    assert read_aloud(text, "de") == said

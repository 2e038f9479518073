"""The times of the words of a spoken text, from the events of the engine that spoke it."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

_WORD = re.compile(r"(?!-)(?:(?!--|\.\.)[^\s\u2013\u2014\u2026])+")
"""Characters between white space, dashes and ellipses. A hyphen, point or comma inside is part of the word."""
_SEPARATORS = re.compile(r"(?:\s|-{2,}|\.{2,}|[\u2013\u2014\u2026])*")


class WordMark(NamedTuple):
    """Where a word is in the text and when it is spoken.

    It is ``text[start_char:end_char]``, from its first letter or digit to its last. ``start`` and ``end`` are in
    seconds; pauses before and after it are not part of it.
    """

    start_char: int
    end_char: int
    start: float
    end: float


@dataclass
class _Spoken:
    """A stretch of speech: the number of the word that it begins with, and its times in seconds."""

    word: int
    start: float
    end: float


def word_spans(text: str) -> list[tuple[int, int]]:
    """The words of ``text``, each with the punctuation that adjoins it: first character, and the one after the last."""
    return [match.span() for match in _WORD.finditer(text) if any(map(str.isalnum, match.group()))]


def marks_of(text: str, events: Iterable[tuple[str, int, int]], seconds: float) -> list[WordMark]:
    """Assign the events of eSpeak NG to the words of ``text``.

    The engine gives a number one event for each word that it says, at the first characters of the number, and several
    short words that it reads as one ("in the") a single event. An event therefore belongs to the word of the text that
    contains its character, and a word without event to the mark of the word before it.

    Args:
        text: the text that was spoken.
        events: kind, character and milliseconds of the events in order of time; see `vqmem.data._espeak`.
        seconds: length of the audio.

    Returns:
        A mark for each word or group of words, in order; words before the first event have none.
    """
    spans = word_spans(text)
    spoken = _spoken_words(text, spans, events, seconds)
    marks = []
    for stretch, following in pairwise([*spoken, _Spoken(len(spans), seconds, seconds)]):
        start_char, end_char = _inner(text, spans[stretch.word][0], spans[following.word - 1][1])
        marks.append(WordMark(start_char, end_char, stretch.start, stretch.end))
    return marks


def _spoken_words(
    text: str, spans: Sequence[tuple[int, int]], events: Iterable[tuple[str, int, int]], seconds: float
) -> list[_Spoken]:
    """The stretches of speech between events that begin another word; silent ones are left out."""
    starts = [start for start, _ in spans]
    found: list[_Spoken] = []
    is_word = False
    for (kind, place, time), (_, _, until) in pairwise([*events, ("end", len(text), 1000 * seconds)]):
        if kind == "word":
            place = _end_of_separators(text, place)
            word = bisect.bisect_right(starts, place) - 1
            is_word = word >= 0 and place < spans[word][1]
            if is_word and (not found or word > found[-1].word):
                found.append(_Spoken(word, time / 1000, time / 1000))
        elif kind == "sound" and is_word:
            found[-1].end = min(until / 1000, seconds)
    return [stretch for stretch in found if stretch.end > stretch.start]


def _end_of_separators(text: str, place: int) -> int:
    """The place behind the separators at ``place``, where the engine puts the event of a word after dashes."""
    match = _SEPARATORS.match(text, place)
    return match.end() if match else place


def _inner(text: str, start: int, end: int) -> tuple[int, int]:
    """The span from the first letter or digit to the last."""
    letters = [place for place in range(start, end) if text[place].isalnum()]
    return letters[0], letters[-1] + 1

"""Letters with times as text, as words with times, and as segments between pauses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .base import Letter

PAUSE = 0.6
"""Seconds without a letter that end a segment."""
LONGEST = 20.0
"""Seconds after which a segment ends at the next word, with or without a pause."""


class Word(NamedTuple):
    """One word or several, with start and end in seconds."""

    text: str
    start: float
    end: float


def text_of(letters: Iterable[Letter]) -> str:
    """The words, separated by single spaces."""
    return " ".join("".join(letter.character for letter in letters).split())


def words(letters: Iterable[Letter]) -> Iterator[Word]:
    """Yield each word as soon as it ends."""
    current: list[Letter] = []
    for letter in letters:
        if letter.character != " ":
            current.append(letter)
        elif current:
            yield _word(current)
            current = []
    if current:
        yield _word(current)


def segments(found: Iterable[Word]) -> Iterator[Word]:
    """Group words until a pause of `PAUSE` seconds, or until `LONGEST` seconds are reached."""
    current: list[Word] = []
    for word in found:
        if current and (word.start - current[-1].end >= PAUSE or word.end - current[0].start > LONGEST):
            yield _segment(current)
            current = []
        current.append(word)
    if current:
        yield _segment(current)


def _word(letters: list[Letter]) -> Word:
    return Word("".join(letter.character for letter in letters), letters[0].start, letters[-1].end)


def _segment(parts: list[Word]) -> Word:
    return Word(" ".join(word.text for word in parts), parts[0].start, parts[-1].end)

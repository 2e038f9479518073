"""Letters with times as text, as words with times and as segments, which pauses end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .base import Letter

PAUSE = 0.6
"""Seconds without a letter that end a segment."""
LONGEST = 20.0
"""Seconds after which a segment ends at the next word, pause or not."""


class Word(NamedTuple):
    """A word, or several, with the times of its first and last letter in seconds."""

    text: str
    start: float
    end: float


def text_of(letters: Iterable[Letter]) -> str:
    """The words with single spaces between them."""
    return " ".join("".join(letter.character for letter in letters).split())


def words(letters: Iterable[Letter]) -> Iterator[Word]:
    """The words, as soon as each has ended."""
    held: list[Letter] = []
    for letter in letters:
        if letter.character != " ":
            held.append(letter)
        elif held:
            yield _word(held)
            held = []
    if held:
        yield _word(held)


def segments(found: Iterable[Word]) -> Iterator[Word]:
    """Words together up to a pause of `PAUSE`, or to `LONGEST`."""
    held: list[Word] = []
    for word in found:
        if held and (word.start - held[-1].end >= PAUSE or word.end - held[0].start > LONGEST):
            yield _segment(held)
            held = []
        held.append(word)
    if held:
        yield _segment(held)


def _word(letters: list[Letter]) -> Word:
    return Word("".join(letter.character for letter in letters), letters[0].start, letters[-1].end)


def _segment(own: list[Word]) -> Word:
    return Word(" ".join(word.text for word in own), own[0].start, own[-1].end)

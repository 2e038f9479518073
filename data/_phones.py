"""The phones of a spoken text, from the events of the engine that spoke it, and the classes of their sounds."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from ._espeak import Event

_SOUNDS = {
    "vowel": "aAeEiIoOuUV023@",
    "approximant": "rlwj;",  # ; makes a sound palatal
    "nasal": "mnN",
    "fricative": "fvTDszSZhxCH",
    "stop": "pbtdkg?*",  # * is a tap
}
"""The first characters of the engine's names of the sounds in each class, for English voices."""
PHONE_CLASSES = (*_SOUNDS, "affricate", "silence", "other")
"""The classes of phones by manner of articulation; ``other`` are sounds that English voices do not have."""


class PhoneMark(NamedTuple):
    """A sound, or a pause, whose name begins with ``_``; the times are in seconds."""

    name: str
    start: float
    end: float


def phones_of(events: Iterable[Event], seconds: float) -> list[PhoneMark]:
    """The sounds and pauses among the events of eSpeak NG, each up to the next one; those without length are left out.

    Args:
        events: in order of time; see `vqmem.data._espeak`.
        seconds: length of the audio.

    Returns:
        The phones in order.
    """
    begun = [(name, time / 1000) for kind, _, time, name in events if kind != "word"]
    marks = (PhoneMark(name, start, min(end, seconds)) for (name, start), (_, end) in pairwise([*begun, ("", seconds)]))
    return [mark for mark in marks if mark.end > mark.start]


def phone_class(name: str) -> str:
    """The class of a sound in `PHONE_CLASSES`, by its name."""
    sound = name.lstrip("',")  # marks of stress
    if sound.startswith("_"):
        return "silence"
    if sound.startswith(("tS", "dZ")):
        return "affricate"
    return next((found for found, begins in _SOUNDS.items() if sound.startswith(tuple(begins))), "other")

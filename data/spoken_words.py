"""Single words, the digits by default, that eSpeak NG speaks in several voices and at many speeds; no download."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from ..schema import PathText, Validated
from .base import Document, Split
from .reading.audio import Audio
from .spoken_text import spoken_file

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PARTS: dict[Split, tuple[int, ...]] = {"train": (0, 2, 4), "dev": (1,), "test": (3,)}
"""Places in each five speeds that belong to a split."""


@dataclass(frozen=True)
class Source(Validated):
    """Every word in every voice at every speed of the split, each a recording with its text.

    Of each five speeds in their order, the second is ``dev``, the fourth ``test`` and the others are ``train``: no
    recording occurs in two splits. The recordings are cached on disk. Needs the extra ``speech``.

    Args:
        words: the words.
        voices: voices of eSpeak NG, each a speaker: a language, and after + a variant, as in en-us+f3.
        speeds: words a minute, 80 to 450; five or more.
        cache: folder for the recordings; empty = ``vqmem/spoken`` in the user's cache.
    """

    words: tuple[str, ...] = DIGITS
    voices: tuple[str, ...] = ("en-us", "en-us+f3", "en-gb-x-rp+m3")
    speeds: tuple[Annotated[int, Interval(ge=80, le=450)], ...] = tuple(range(120, 180, 4))
    cache: PathText = ""

    def __post_init__(self) -> None:
        """Refuse what leaves a split empty, cannot be said, or gives two recordings one name."""
        super().__post_init__()
        if not self.words or not self.voices:
            raise ValueError("spoken_words needs one word and one voice at least; give words: [one], voices: [en-us]")
        if silent := [word for word in self.words if not any(map(str.isalnum, word))]:
            raise ValueError(f"words has {silent[0]!r}, which has no letter or digit to say; leave it out")
        if len(self.speeds) < 5:
            raise ValueError(f"speeds = {list(self.speeds)} are too few for three splits; give 5 or more")
        for name, values in (("words", self.words), ("voices", self.voices), ("speeds", self.speeds)):
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{name} has {twice[0]!r} twice; give it once")

    def documents(self, split: Split) -> Iterator[Document]:
        """Speak the words of ``split``, or read them from the cache. Raises `ValueError` for an unknown voice."""
        speeds = [speed for place, speed in enumerate(self.speeds) if place % 5 in _PARTS[split]]
        for voice in self.voices:
            for word in self.words:
                for speed in speeds:
                    audio = Audio(str(spoken_file(word, voice, speed, self.cache)))
                    yield Document(f"{word}/{voice}/{speed}", word, audio=audio, speaker=voice)

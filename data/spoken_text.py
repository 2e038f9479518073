"""A text source that eSpeak NG speaks in several voices and at several speeds; needs no download."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Interval

from ..files import atomic_file, atomic_write
from ..registry import DataSpec, UnknownNameError, build
from ..schema import NonNegativeInt, PathText, Validated
from . import _espeak
from ._characters import compose, separates, unify
from ._phones import PhoneMark, phones_of
from ._word_marks import WordMark, marks_of
from .base import Document, Split, take_evenly
from .reading.audio import Audio

RATE = 22_050
"""Samples a second of the engine."""


@dataclass(frozen=True)
class Source(Validated):
    """Pieces of the documents of a text source, each a recording with its text; the splits are those of the text.

    Voice and speed of a piece depend only on the seed and its name: the same keys give the same samples to the bit. The
    recordings are cached on disk. Needs the extra ``speech``.

    Args:
        text: a text source: its name, or ``name`` and its keys.
        voices: voices of eSpeak NG: a language, and after + a variant, as in en-us+f3.
        speeds: words a minute, 80 to 450.
        chars: maximum characters of a piece, cut at the ends of sentences if they are near enough; 0 = do not cut.
        limit: maximum number of pieces of each split, taken evenly; 0 = all.
        plain: whether to remove everything but letters, digits and punctuation from the text: the engine reads a ``*``
            aloud, and a transcript has no word for it.
        seed: seed of the choice of voices and speeds.
        cache: folder for the recordings; empty = ``vqmem/spoken`` in the user's cache.
    """

    text: DataSpec = "builtin_text"
    voices: tuple[str, ...] = (
        "en-us",
        "en-us+f3",
        "en-gb-x-rp+m3",
        "en-gb-scotland+f2",
        "en-gb-x-gbclan+m7",
        "en-us+f5",
    )
    speeds: tuple[Annotated[int, Interval(ge=80, le=450)], ...] = (140, 160, 180)
    chars: NonNegativeInt = 200
    limit: NonNegativeInt = 400
    plain: bool = False
    seed: int = 0
    cache: PathText = ""

    def __post_init__(self) -> None:
        """Refuse values that the engine does not support."""
        super().__post_init__()
        if not self.voices or not self.speeds:
            raise ValueError("spoken_text needs one voice and one speed at least; give voices: [en-us], speeds: [160]")

    def documents(self, split: Split) -> Iterator[Document]:
        """Speak the pieces of ``split``, or read them from the cache. Raises `ValueError` for an unknown voice."""
        pieces = [piece for document in build("data", self.text).documents(split) for piece in self._pieces(document)]
        for name, text in take_evenly(pieces, self.limit or None):
            draw = random.Random(f"{self.seed} {name}")
            voice, speed = draw.choice(self.voices), draw.choice(self.speeds)
            audio = Audio(str(spoken_file(compose(text), voice, speed, self.cache)))
            yield Document(name, text, audio=audio, speaker=voice)

    def _pieces(self, document: Document) -> list[tuple[str, str]]:
        """The pieces that have a letter or digit, with their names."""
        text = plain(document.text) if self.plain else document.text
        pieces = [piece for piece in cut(text, self.chars) if any(map(str.isalnum, piece))]
        return [(f"{document.name}/{index}", piece) for index, piece in enumerate(pieces)]


def spoken_file(text: str, voice: str, speed: int, cache: str = "") -> Path:
    """The file of a spoken text, which is written atomically, and again if it is damaged.

    Args:
        text: the text.
        voice: a voice of eSpeak NG.
        speed: words a minute.
        cache: folder for the recordings; empty = ``vqmem/spoken`` in the user's cache.

    Returns:
        The path of the recording below ``cache``.
    """
    path = _cached(text, voice, speed, cache)
    if not _intact(path):
        _write(path, speak(text, voice, speed))
    return path


def spoken_file_with_marks(text: str, voice: str, speed: int, cache: str = "") -> tuple[Path, list[WordMark]]:
    """The file of a spoken text, the same as that of `spoken_file`, and the times of its words.

    Args:
        text: the text.
        voice: a voice of eSpeak NG.
        speed: words a minute.
        cache: folder for the recordings; empty = ``vqmem/spoken`` in the user's cache.

    Returns:
        The path of the recording below ``cache``, and the marks of `speak_with_marks`, which are cached beside it.
    """
    path = _cached(text, voice, speed, cache)
    marks_path = path.with_suffix(".marks.json")
    if not (_intact(path) and marks_path.is_file()):
        samples, marks = speak_with_marks(text, voice, speed)
        _write(path, samples)
        atomic_write(marks_path, json.dumps(marks))
    return path, [WordMark(*mark) for mark in json.loads(marks_path.read_text(encoding="utf-8"))]


def speak(text: str, voice: str = "en-us", speed: int = 160) -> np.ndarray:
    """Speak ``text``; return 16-bit samples at `RATE`. Raises `ValueError` if the engine or the voice is missing."""
    return np.frombuffer(_run_engine(text, voice, speed), dtype="<i2")


def speak_with_marks(text: str, voice: str = "en-us", speed: int = 160) -> tuple[np.ndarray, list[WordMark]]:
    """Speak ``text`` and say when each word is spoken, by the engine's own marks.

    Args:
        text: the text.
        voice: a voice of eSpeak NG.
        speed: words a minute.

    Returns:
        The samples, the same as those of `speak`, and a mark for each word in order. Where the engine marks several
        words as one (it reads "in the" so), they have one mark.

    Raises:
        ValueError: the engine or the voice is missing.
    """
    samples, events = _speak_with_events(text, voice, speed)
    return samples, marks_of(text, [event[:3] for event in events], len(samples) / RATE)


def phones(text: str, voice: str = "en-us", speed: int = 160) -> list[PhoneMark]:
    """The phones of a spoken text, by the engine's own marks.

    Args:
        text: the text.
        voice: a voice of eSpeak NG.
        speed: words a minute.

    Returns:
        Sounds and pauses in order, which cover the samples of `speak` from the first sound or pause on.

    Raises:
        ValueError: the engine or the voice is missing.
    """
    samples, events = _speak_with_events(text, voice, speed)
    return phones_of(events, len(samples) / RATE)


def _speak_with_events(text: str, voice: str, speed: int) -> tuple[np.ndarray, list[_espeak.Event]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "events.json")
        samples = np.frombuffer(_run_engine(text, voice, speed, path), dtype="<i2")
        events = json.loads(path.read_text(encoding="ascii"))
        return samples, [(kind, place, time, name) for kind, place, time, name in events]


def _run_engine(text: str, voice: str, speed: int, events: Path | None = None) -> bytes:
    """The samples of a text; with a path ``events``, the program writes the events of the engine there."""
    library, data, _ = _engine()
    language, _, variant = voice.partition("+")
    variants = sorted(path.name for path in Path(data, "voices", "!v").iterdir())
    if variant and variant not in variants:  # the engine would ignore it
        raise UnknownNameError("variant of an eSpeak voice", variant, variants)
    command = [sys.executable, "-I", "-S", _espeak.__file__, library, data, voice, str(speed)]
    command += [] if events is None else [str(events)]
    done = subprocess.run(command, input=text.encode(), capture_output=True)
    if done.returncode == _espeak.UNKNOWN_VOICE:
        known = sorted(path.name for path in Path(data, "lang").rglob("*") if path.is_file())
        raise UnknownNameError("eSpeak voice", language, known)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().split("\n")[-1] or f"signal {-done.returncode}"
        raise ValueError(f"eSpeak NG cannot speak {text[:40]!r} ({reason}); give other text or another voice")
    return done.stdout


def cut(text: str, chars: int) -> list[str]:
    """Cut ``text`` into pieces of at most ``chars`` characters, after sentences or else words; unify spaces."""
    words = " ".join(text.split())
    if not chars:
        return [words]
    pieces, piece = [], ""
    for sentence in re.split(r"(?<=[.!?:;]) ", words):
        if piece and len(piece) + 1 + len(sentence) > chars:
            pieces.append(piece)
            piece = ""
        piece = f"{piece} {sentence}" if piece else sentence
        while len(piece) > chars:
            place = piece.rfind(" ", 1, chars + 1)
            place = place if place > 0 else chars
            pieces.append(piece[:place])
            piece = piece[place:].lstrip()
    return [*pieces, piece] if piece else pieces


def plain(text: str) -> str:
    """Remove from ``text`` everything but words (don't and built-in are words) and punctuation."""
    text = "".join(" " if separates(c) and c not in ".,;:!?-" else c for c in unify(text.replace("\u2026", " ")))
    text = re.sub(r"(?<!\w)['-]|['-](?!\w)", " ", text)
    return re.sub(r"\s*([.,;:!?])(?:\s*[.,;:!?])*", r"\1", " ".join(text.split()))


def _engine() -> tuple[str, str, str]:
    """The paths of the engine's library and data, and its version."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise ValueError("spoken text and words need eSpeak NG; run `pip install 'vqmem[speech]'`") from error
    version = importlib.metadata.version("espeakng-loader")
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path(), version


def _cached(text: str, voice: str, speed: int, cache: str) -> Path:
    """The path of a spoken text in the cache."""
    folder = Path(cache) if cache else _user_cache()
    key = hashlib.sha256(f"{_engine()[2]}\n{voice}\n{speed}\n{text}".encode()).hexdigest()
    return folder / key[:2] / f"{key[:24]}.flac"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vqmem" / "spoken"


def _intact(path: Path) -> bool:
    """Whether a recording exists undamaged: FLAC contains the MD5 of its samples."""
    import soundfile

    try:
        data = path.read_bytes()
        samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    except (FileNotFoundError, soundfile.LibsndfileError):
        return False
    return rate == RATE and hashlib.md5(samples.astype("<i2").tobytes()).digest() == data[26:42]


def _write(path: Path, samples: np.ndarray) -> None:
    """Write a recording completely or not at all."""
    import soundfile

    with atomic_file(path) as file:
        soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")

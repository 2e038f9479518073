"""Speak text of any length with a trained voice, a piece at a time: what `vqmem speak` does."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...console import one_line
from ...data.spoken_text import cut
from ...files import atomic_file, is_stream
from ...models.speech.unit_vocoder import RATE, letter_windows
from ...registry import UnknownNameError
from ..engine.config import resolve_device
from ..engine.progress import Bar
from .reading import read_aloud
from .text import plain, spell
from .voice import Voice, load_voice

PIECE = 160
"""Most characters of a piece, cut at the ends of sentences where they are near enough; fewer for a voice that learnt
shorter texts."""
ROWS = 8
"""Pieces spoken side by side, which takes hardly longer than one."""
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}
"""What sound can be written as, by the name of the file; standard output and pipes without such a name get WAV."""


@dataclass(frozen=True)
class Manner:
    """How to speak: ``temperature`` 0 says the likeliest unit, higher ones vary more; ``seed`` of what is drawn."""

    temperature: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for values that cannot be."""
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature = {self.temperature} must be 0 or more and finite")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed = {self.seed} is out of range; give a number from 0 to 2^63 - 1")


def speak(voice: Voice, text: str, manner: Manner) -> Iterator[Float[Tensor, " _"]]:
    """The waveform of a text at 16 kHz, in pieces of at most `PIECE` characters, `ROWS` of them in memory.

    Characters that the voice has not learnt are left out (see `unknown`). The same seed gives the same samples.
    Raises `ValueError`, when it is called, where nothing of the text can be spoken.
    """
    said = pieces(voice, text)
    if not said:
        known = "".join(sorted(c for c in voice.speaker.alphabet if c.isalnum()))
        raise ValueError(
            f"nothing in {text[:40]!r} can be spoken: this voice knows {known}; give text with some of these"
        )
    return _spoken(voice, said, manner)


def pieces(voice: Voice, text: str) -> list[Int[Tensor, " letters"]]:
    """The letters of a text, read aloud, in pieces that can be spoken: those without a letter or digit are not."""
    most = min(PIECE, voice.speaker.max_train_letters or PIECE)
    spelt = [spell(piece, voice.speaker.alphabet)[0] for piece in cut(read_aloud(text, voice.language), most)]
    return [letters for letters in spelt if any(voice.speaker.alphabet[i].isalnum() for i in letters.tolist())]


def _spoken(voice: Voice, said: list[Tensor], manner: Manner) -> Iterator[Float[Tensor, " _"]]:
    device, generator = voice.speaker.letters.weight.device, torch.Generator().manual_seed(manner.seed)
    for first in range(0, len(said), ROWS):
        group = [letters.to(device) for letters in said[first : first + ROWS]]
        for letters, spoken in zip(group, voice.speaker.speak(group, manner.temperature, generator), strict=True):
            units, owners = (x.repeat_interleave(spoken.frames) for x in (spoken.units, spoken.owners))
            around = letter_windows(letters, owners, len(voice.speaker.alphabet))
            yield voice.vocoder.speak(units[None], around[None])[0].cpu()


def unknown(voice: Voice, text: str) -> list[str]:
    """The characters of a text, read aloud, that the voice has not learnt."""
    return sorted(spell(read_aloud(text, voice.language), voice.speaker.alphabet)[1])


def write_speech(voice: Voice, text: str, out: Path, manner: Manner) -> float:
    """Speak ``text`` into the file ``out`` and give its seconds; what was there stays until all is spoken.

    Raises `ValueError` for a name that says no format that can be written, and as `speak` does.
    """
    import soundfile

    form = FORMATS.get(out.suffix.lower(), "WAV" if is_stream(out) else "")
    if not form:
        raise UnknownNameError("format of sound", out.suffix or out.name, list(FORMATS))
    spoken, samples = speak(voice, text, manner), 0
    with Bar("speaking", len(pieces(voice, text)), quiet=len(text) < 4 * PIECE) as bar, atomic_file(out) as file:
        try:
            # By its descriptor: what fails inside of a file object's methods is printed, and does not get here.
            with soundfile.SoundFile(file.fileno(), "w", RATE, 1, format=form, closefd=False) as sound:
                for number, piece in enumerate(spoken, 1):
                    _write(sound, piece)
                    samples += len(piece)
                    bar.update(number)
        except soundfile.LibsndfileError as error:
            raise OSError(f"cannot write all of {str(out)!r}; is there room on the disk?") from error
    return samples / RATE


def _write(sound: Any, piece: Float[Tensor, " _"]) -> None:
    import soundfile

    try:
        sound.write(piece.clamp(-1, 1).numpy())
    except AssertionError as error:  # that all was written
        raise soundfile.LibsndfileError(2) from error  # an error of the system's


def show(text: str, run: Path, out: Path, manner: Manner, device: str, language: str | None = None) -> None:
    """Write the file, and print its length and what was left out. Raises `ValueError` as `write_speech` does.

    Numbers and abbreviations are read in ``language`` (default: the run's; empty: not at all).
    """
    if not plain(text):
        raise ValueError("there is no text to speak; give at least a word")
    voice = load_voice(run, resolve_device(device))
    voice = voice if language is None else voice._replace(language=language)
    if missing := unknown(voice, text):
        told = " ".join(map(repr, missing[:10])) + " and others" * (len(missing) > 10)
        print(f"left out, as this voice has not learnt them: {told}", file=sys.stderr)
    seconds = write_speech(voice, text, out, manner)
    print(f"wrote {one_line(str(out))}, {seconds:.1f} s", file=sys.stderr if is_stream(out) else sys.stdout)

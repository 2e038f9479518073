"""Speak text of any length with a trained voice, in pieces: what `vqmem speak` does."""

from __future__ import annotations

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
from ...models.device import resolve_device
from ...models.speech.unit_vocoder import RATE, letter_windows
from ...registry import UnknownNameError
from ...schema import Seed, Temperature, Validated
from ..engine.progress import Bar
from .reading import read_aloud
from .text import plain, spell
from .voice import Voice, load_voice

PIECE = 160
"""Maximum characters of a piece, cut at ends of sentences if possible; fewer for a voice trained on shorter texts."""
BATCH_SIZE = 8
"""Pieces spoken as one batch, which takes hardly longer than one piece."""
FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}
"""Formats by the extension of the file; standard output and pipes without an extension get WAV."""


@dataclass(frozen=True)
class Manner(Validated):
    """How to sample units: ``temperature`` 0 takes the likeliest unit at each step; ``seed`` is for sampling."""

    temperature: Temperature = 0.5
    seed: Seed = 0


def speak(voice: Voice, text: str, manner: Manner) -> Iterator[Float[Tensor, " _"]]:
    """The waveform of a text at 16 kHz, in pieces of at most `PIECE` characters, `BATCH_SIZE` of them in memory.

    Characters that the voice has not learnt are left out (see `unknown`). Raises `ValueError` at once, before the first
    piece, if nothing in the text can be spoken.
    """
    spellings = pieces(voice, text)
    if not spellings:
        known = "".join(sorted(c for c in voice.speaker.alphabet if c.isalnum()))
        raise ValueError(
            f"nothing in {text[:40]!r} can be spoken: this voice knows {known}; give text with some of these"
        )
    return _speak_pieces(voice, spellings, manner)


def pieces(voice: Voice, text: str) -> list[Int[Tensor, " _letters"]]:
    """The letters of a text in pieces, with numbers in words. Pieces without a letter or digit are left out."""
    most = min(PIECE, voice.speaker.max_train_letters or PIECE)
    spelt = [spell(piece, voice.speaker.alphabet)[0] for piece in cut(read_aloud(text, voice.language), most)]
    return [letters for letters in spelt if any(voice.speaker.alphabet[i].isalnum() for i in letters.tolist())]


def _speak_pieces(voice: Voice, spellings: list[Tensor], manner: Manner) -> Iterator[Float[Tensor, " _"]]:
    device = voice.speaker.letters.weight.device
    generator = torch.Generator().manual_seed(manner.seed)
    for first in range(0, len(spellings), BATCH_SIZE):
        batch = [letters.to(device) for letters in spellings[first : first + BATCH_SIZE]]
        for letters, runs in zip(batch, voice.speaker.speak(batch, manner.temperature, generator), strict=True):
            units = runs.units.repeat_interleave(runs.frames)
            owners = runs.owners.repeat_interleave(runs.frames)
            windows = letter_windows(letters, owners, len(voice.speaker.alphabet))
            yield voice.vocoder.speak(units[None], windows[None])[0].cpu()


def unknown(voice: Voice, text: str) -> list[str]:
    """The characters of a text, with numbers in words, that the voice has not learnt."""
    return sorted(spell(read_aloud(text, voice.language), voice.speaker.alphabet)[1])


def write_speech(voice: Voice, text: str, out: Path, manner: Manner) -> float:
    """Speak ``text`` into the file ``out``, which is replaced when all is spoken.

    Args:
        voice: the trained voice.
        text: the text, of any length.
        out: the file; its extension is the format.
        manner: temperature and seed.

    Returns:
        The duration in seconds.

    Raises:
        ValueError: The extension is no format that can be written, or nothing in the text can be spoken.
        OSError: The file cannot be written completely.
    """
    import soundfile

    form = FORMATS.get(out.suffix.lower(), "WAV" if is_stream(out) else "")
    if not form:
        raise UnknownNameError("format of sound", out.suffix or out.name, list(FORMATS))
    spoken, samples = speak(voice, text, manner), 0
    with Bar("speaking", len(pieces(voice, text)), transient=True) as bar, atomic_file(out) as file:
        try:
            # By its descriptor: soundfile prints errors of a file object's methods, and does not raise them.
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
    except AssertionError as error:  # of soundfile: not all was written
        raise soundfile.LibsndfileError(2) from error  # code 2: a system error


def show(text: str, run: Path, out: Path, manner: Manner, device: str, language: str | None = None) -> None:
    """Write the file; print its duration and the characters that were left out.

    Args:
        text: the text, of any length.
        run: folder of a finished run of `vqmem tts`.
        out: the file; its extension is the format.
        manner: temperature and seed.
        device: where the models run.
        language: language of numbers and abbreviations; empty = leave them as written, None = as the run says.

    Raises:
        ValueError: There is no text, or as `write_speech` raises it.
    """
    if not plain(text):
        raise ValueError("there is no text to speak; give at least a word")
    voice = load_voice(run, resolve_device(device))
    voice = voice if language is None else voice._replace(language=language)
    if missing := unknown(voice, text):
        characters = " ".join(map(repr, missing[:10]))
        if len(missing) > 10:
            characters += " and others"
        print(f"left out, because this voice has not learnt them: {characters}", file=sys.stderr)
    seconds = write_speech(voice, text, out, manner)
    print(f"wrote {one_line(str(out))}, {seconds:.1f} s", file=sys.stderr if is_stream(out) else sys.stdout)

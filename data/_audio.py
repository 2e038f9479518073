"""Read any recording as mono float32 samples at one rate, whole or streamed in bounded memory.

Files are read by `soundfile` (wav, flac, ogg, mp3, aiff, …) and resampled by soxr's streaming resampler, which carries
its filter's state over block borders: nothing clicks there, and the samples do not depend on how they are asked for.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..schema import expand
from ._reading import UnreadableError, existing

RATE = 16_000
"""Samples a second of everything behind the loader, unless asked otherwise."""
CHUNK = 20.0
"""Seconds of a chunk, unless asked otherwise."""

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
"""Which files are taken for recordings by their names."""

_BLOCK = 1 << 16  # frames decoded at once
_UNKNOWN = 1 << 62  # libsndfile counts this or more frames where a header does not say how many there are


@dataclass(frozen=True)
class Audio:
    """A recording, or a part of one, which is opened only when its samples are asked for.

    Args:
        name: its path; what messages call it.
        data: the bytes of the encoded file, where they are in memory (data sets carry them so).
        part: where in the file it begins and ends, as shares of its length.
        heard: is told, while samples are read, at which second of the file that is.
    """

    name: str
    data: bytes | None = field(default=None, repr=False)
    part: tuple[float, float] = (0.0, 1.0)
    heard: Callable[[float], None] = field(default=lambda second: None, repr=False, compare=False)

    def read(self, rate: int = RATE) -> Float[Tensor, " samples"]:
        """All samples, in -1 … 1, at ``rate`` samples a second. Raises as `stream` does."""
        return torch.cat([torch.zeros(0), *self.stream(CHUNK, rate)])

    def stream(self, seconds: float = CHUNK, rate: int = RATE) -> Iterator[Float[Tensor, " samples"]]:
        """The samples in chunks of ``seconds`` (the last one may be shorter), which concatenate to `read`.

        Channels are averaged. Memory is bounded by the chunk, however long the recording.

        Raises:
            UnreadableError: in one line, for a file that is missing, not audio, cut off or without samples, and for one
                that is silent (every sample is 0) or holds NaN; the last three as far as they have been read.
        """
        size = round(seconds * rate)
        if size < 1:
            raise ValueError(f"chunks of {seconds} seconds hold no sample; give a longer time")
        held: list[np.ndarray] = []
        for block in self._resampled(rate):
            held.append(block)
            while sum(map(len, held)) >= size:
                whole = np.concatenate(held)
                yield torch.from_numpy(whole[:size].copy())
                held = [whole[size:]]
        if rest := sum(map(len, held)):
            yield torch.from_numpy(np.concatenate(held)[:rest])

    def seconds(self) -> float:
        """How long it is by the header of its file. Raises `UnreadableError` where that does not say."""
        with self._open() as file:
            first, end = self._bounds(file)
            if end >= _UNKNOWN:
                raise UnreadableError(f"{self.name!r} does not say how long it is; convert it to wav or flac")
            return (end - first) / file.samplerate

    def _bounds(self, file: Any) -> tuple[int, int]:
        """The first frame of the part, and the one after its last."""
        if self.part == (0.0, 1.0):
            return 0, file.frames
        if file.frames >= _UNKNOWN:
            raise UnreadableError(f"{self.name!r} does not say how long it is, so it has no parts; convert it to flac")
        return round(self.part[0] * file.frames), round(self.part[1] * file.frames)

    def _resampled(self, rate: int) -> Iterator[np.ndarray]:
        import soxr

        with self._open() as file:
            if file.samplerate == rate:
                yield from self._mono(file)
                return
            resampler = soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32")
            for block in self._mono(file):
                yield resampler.resample_chunk(block)
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

    def _mono(self, file: Any) -> Iterator[np.ndarray]:
        """Blocks of the average over channels, checked."""
        first, end = self._bounds(file)
        at, silent = first, True
        if first:
            file.seek(first)
        while at < end:
            block = self._block(file, min(_BLOCK, end - at), at)
            if not len(block):
                if file.frames >= _UNKNOWN:
                    break
                raise self._cut_off(at, file)
            if not np.isfinite(block).all():
                worst = (at + int(np.flatnonzero(~np.isfinite(block))[0])) / file.samplerate
                raise UnreadableError(
                    f"{self.name!r} has a sample that is NaN or infinite at {worst:.3f} s; make it again"
                )
            at, silent = at + len(block), silent and not block.any()
            self.heard(at / file.samplerate)
            yield block
        if at <= first:
            raise UnreadableError(f"{self.name!r} holds no samples; give a recording with sound in it")
        if silent:
            raise UnreadableError(f"{self.name!r} is silent: all of its {at - first} samples are 0; record it again")

    def _block(self, file: Any, frames: int, at: int) -> np.ndarray:
        import soundfile

        try:
            return file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
        except soundfile.LibsndfileError as error:
            raise self._cut_off(at, file, f" ({_reason(error)})") from error

    def _cut_off(self, at: int, file: Any, reason: str = "") -> UnreadableError:
        told = f"{file.frames / file.samplerate:.2f} s" if file.frames < _UNKNOWN else "unknown length"
        return UnreadableError(
            f"{self.name!r} is damaged or cut off after {at / file.samplerate:.2f} of {told}{reason}; copy it again"
        )

    def _open(self) -> Any:
        import soundfile

        path = existing(self.name) if self.data is None else None
        if path is not None and path.is_dir():
            raise UnreadableError(f"{self.name!r} is a folder; give a recording in it")
        try:
            return soundfile.SoundFile(path if path is not None else io.BytesIO(self.data or b""))
        except soundfile.LibsndfileError as error:
            raise UnreadableError(
                f"{self.name!r} is not audio that can be read here ({_reason(error)}); give wav, flac, ogg or mp3"
            ) from error


def _reason(error: Any) -> str:
    return error.error_string.removeprefix("Error : ").strip(". ")


def is_recording(path: str | Path) -> bool:
    """Whether a file is to be taken for a recording: by its name, or since it can be opened as one whatever its name.

    A pipe is none, as nothing may be read of it before it is read.
    """
    import soundfile

    path = Path(expand(str(path)))
    if path.suffix.lower() in SUFFIXES:
        return True
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            if file.read(2) == codecs.BOM_UTF16_LE:  # which could be the frame of an MP3, and is tried aloud as one
                return False
        with soundfile.SoundFile(path):
            return True
    except (soundfile.LibsndfileError, OSError):
        return False


def read_audio(path: str | Path, rate: int = RATE) -> Float[Tensor, " samples"]:
    """All samples of the file ``path``; see `Audio.read`."""
    return Audio(str(path)).read(rate)


def stream_audio(path: str | Path, seconds: float = CHUNK, rate: int = RATE) -> Iterator[Float[Tensor, " samples"]]:
    """The samples of the file ``path`` in chunks; see `Audio.stream`."""
    return Audio(str(path)).stream(seconds, rate)

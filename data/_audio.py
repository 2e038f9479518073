"""Read any recording as mono float32 samples at one rate, all at once or streamed in bounded memory.

Files are decoded to their end (`_decoding`), their channels are averaged (`_mixing`), and soxr's streaming resampler
carries its filter's state over block borders: nothing clicks there, and the samples do not depend on how they are asked
for.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..console import one_line
from ..folders import AUDIO_SUFFIXES
from ..schema import expand
from ._decoding import Compressed, Frames, Uncompressed, opened
from ._mixing import mixed
from ._reading import SilentError, UnreadableError, existing

RATE = 16_000
"""Samples a second of everything behind the loader, unless asked otherwise."""
CHUNK = 20.0
"""Seconds of a chunk, unless asked otherwise."""


@dataclass(frozen=True)
class Audio:
    """A recording, or a part of one, which is opened only when its samples are asked for.

    Args:
        name: its path; what messages call it.
        data: the bytes of the encoded file, where they are in memory (data sets carry them so).
        part: where in the file it begins and ends, as shares of its length.
        place: where it is listed, such as ``line 7 of 'manifest.tsv'``; messages name it where the file is missing.
        heard: is called, while samples are read, with how many seconds that were.
        warned: what was said on standard error of this recording, so that it is said once.
    """

    name: str
    data: bytes | None = field(default=None, repr=False)
    part: tuple[float, float] = (0.0, 1.0)
    place: str = field(default="", compare=False)
    heard: Callable[[float], None] = field(default=lambda second: None, repr=False, compare=False)
    warned: set[str] = field(default_factory=set, repr=False, compare=False)

    def read(self, rate: int = RATE) -> Float[Tensor, " samples"]:
        """All samples, in -1 … 1, at ``rate`` samples a second. Raises as `stream` does."""
        return torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *self._resampled(rate)]))

    def stream(self, seconds: float = CHUNK, rate: int = RATE) -> Iterator[Float[Tensor, " samples"]]:
        """The samples in chunks of ``seconds`` (the last one may be shorter), which concatenate to `read`.

        Channels are averaged; where they cancel each other out, one is taken (see `_mixing.mixed`). Memory is bounded
        by the chunk and 10 seconds, however long the recording. What its header says of its length is not relied on:
        it is decoded to its end, and a line on standard error says where the header expects more.

        Raises:
            UnreadableError: in one line, for a file that is missing, not audio, damaged or without samples, one that
                ends before an exact header says (wav, flac), and one that is silent (every sample is 0) or holds NaN;
                all but the first two when reading comes to it.
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
        """How long it is: by its header where that is exact, else by decoding it. Raises as `stream` does."""
        with self._opened() as file:
            return (self.part[1] - self.part[0]) * file.seconds()

    def estimated_seconds(self) -> float:
        """About how long it is, at once; 0 where only decoding tells. Raises as `stream` does."""
        with self._opened() as file:
            return (self.part[1] - self.part[0]) * file.estimated_seconds()

    def _resampled(self, rate: int) -> Iterator[np.ndarray]:
        import soxr

        for given, run in itertools.groupby(self._checked(), key=lambda block: block[0]):
            blocks = (block for _, block in run)
            if given == rate:
                yield from blocks
                continue
            resampler = soxr.ResampleStream(given, rate, 1, dtype="float32")
            for block in blocks:
                yield resampler.resample_chunk(block)
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

    def _checked(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each block's rate and samples, of one channel; where there is something that cannot be used, an error."""
        count, seconds, silent = 0, 0.0, True
        with self._opened() as file:
            for rate, block in mixed(self._of_part(file), lambda line: self._warn(f"{self.name!r}: {line}")):
                if not np.isfinite(block).all():
                    worst = seconds + int(np.flatnonzero(~np.isfinite(block))[0]) / rate
                    raise UnreadableError(
                        f"{self.name!r} has a sample that is NaN or infinite at {worst:.3f} s; make it again"
                    )
                count, seconds, silent = count + len(block), seconds + len(block) / rate, silent and not block.any()
                self.heard(seconds)
                yield rate, block
        if not count:
            raise UnreadableError(f"{self.name!r} holds no samples; give a recording with sound in it")
        if silent:
            raise SilentError(f"{self.name!r} is silent: all of its {count} samples are 0; record it again")

    def _of_part(self, file: Uncompressed | Compressed) -> Iterator[tuple[int, Frames]]:
        """The blocks of the part. What ends with the file is read to its end, so that a cut is noticed."""
        if self.part == (0.0, 1.0):
            yield from file.blocks()
            return
        total = file.frames()
        first, end = (round(share * total) for share in self.part)
        for rate, block in file.blocks(first):
            yield rate, block[: end - first]
            first += len(block)
            if first >= end and self.part[1] < 1:
                return

    def _opened(self) -> contextlib.AbstractContextManager[Uncompressed | Compressed]:
        if self.place and self.data is None:
            try:
                existing(self.name)
            except UnreadableError as error:
                raise UnreadableError(f"{self.place}: {error}") from error
        return opened(self.name, self.data, self._warn)

    def _warn(self, line: str) -> None:
        if line not in self.warned:
            print(one_line(line), file=sys.stderr)
        self.warned.add(line)


def is_recording(path: str | Path) -> bool:
    """Whether a file is to be taken for a recording: by its name, or since it can be opened as one whatever its name.

    A pipe is none, as nothing may be read of it before it is read.
    """
    import soundfile

    path = Path(expand(str(path)))
    if path.suffix.lower() in AUDIO_SUFFIXES:
        return True
    if not path.is_file():
        return False
    encoded: Any = os.fsencode(path)  # soundfile cannot encode a name that is not UTF-8
    try:
        with path.open("rb") as file:
            if file.read(2) == codecs.BOM_UTF16_LE:  # which could be the frame of an MP3, and is tried aloud as one
                return False
        with soundfile.SoundFile(encoded):
            return True
    except (soundfile.LibsndfileError, OSError):
        return False


def read_audio(path: str | Path, rate: int = RATE) -> Float[Tensor, " samples"]:
    """All samples of the file ``path``; see `Audio.read`."""
    return Audio(str(path)).read(rate)


def stream_audio(path: str | Path, seconds: float = CHUNK, rate: int = RATE) -> Iterator[Float[Tensor, " samples"]]:
    """The samples of the file ``path`` in chunks; see `Audio.stream`."""
    return Audio(str(path)).stream(seconds, rate)

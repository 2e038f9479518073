"""Read any recording as mono float32 samples at one rate, all at once or streamed in bounded memory.

`decoding` decodes files to their end, `mixing` averages their channels, and soxr resamples them as a stream. The
resampler keeps the state of its filter from block to block, so that the samples do not depend on the size of the
chunks.
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

from ...console import one_line
from ...folders import AUDIO_SUFFIXES
from ...schema import expand
from .decoding import Compressed, Frames, Uncompressed, open_recording
from .files import SilentError, UnreadableError, require_path
from .mixing import mix_channels

RATE = 16_000
"""Default samples per second."""
CHUNK = 20.0
"""Default seconds of a chunk."""


@dataclass(frozen=True)
class Audio:
    """A recording, or a part of one. The file is opened when its samples are read.

    Args:
        name: its path; messages call it by this name.
        data: the bytes of the encoded file, if a data set has them in memory; None = read the file.
        part: start and end within the file, as shares of its length.
        place: where it is listed, such as ``line 7 of 'manifest.tsv'``; part of the message if the file is missing.
        on_progress: is called with the seconds read so far after each block.
        warned: the warnings already printed, so that each is printed once.
    """

    name: str
    data: bytes | None = field(default=None, repr=False)
    part: tuple[float, float] = (0.0, 1.0)
    place: str = field(default="", compare=False)
    on_progress: Callable[[float], None] | None = field(default=None, repr=False, compare=False)
    warned: set[str] = field(default_factory=set, repr=False, compare=False)

    def read(self, rate: int = RATE) -> Float[Tensor, " samples"]:
        """All samples, in -1 … 1, at ``rate`` samples per second. Raises as `stream` does."""
        return torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *self._resampled(rate)]))

    def stream(self, seconds: float = CHUNK, rate: int = RATE) -> Iterator[Float[Tensor, " samples"]]:
        """Yield the samples in chunks of ``seconds`` (the last may be shorter), which concatenate to `read`.

        Channels are averaged; if they cancel each other out, one of them is used (see `mixing.mix_channels`). Memory
        is bounded by the chunk and 10 seconds, for recordings of any length. The file is decoded to its end, whatever
        its header says of its length. If the header says more, a line on standard error reports it.

        Raises:
            UnreadableError: in one line. At once: the file is missing or not audio. While reading: it is damaged, has
                no samples, is shorter than its exact header says (wav, flac), is silent (every sample is 0), or
                contains NaN.
        """
        size = round(seconds * rate)
        if size < 1:
            raise ValueError(f"chunks of {seconds} seconds contain no sample; give a longer time")
        pending: list[np.ndarray] = []
        for block in self._resampled(rate):
            pending.append(block)
            while sum(map(len, pending)) >= size:
                joined = np.concatenate(pending)
                yield torch.from_numpy(joined[:size].copy())
                pending = [joined[size:]]
        if rest := sum(map(len, pending)):
            yield torch.from_numpy(np.concatenate(pending)[:rest])

    def seconds(self) -> float:
        """Its length in seconds: from an exact header, else by decoding it. Raises as `stream` does."""
        with self._opened() as file:
            return (self.part[1] - self.part[0]) * file.seconds()

    def estimated_seconds(self) -> float:
        """Estimate its length in seconds without decoding; 0 if the header says nothing. Raises as `stream` does."""
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
        """Yield each block's rate and its samples of one channel. Raises `UnreadableError` for unusable samples."""
        count, seconds, silent = 0, 0.0, True
        with self._opened() as file:
            for rate, block in mix_channels(self._of_part(file), lambda line: self._warn(f"{self.name!r}: {line}")):
                if not np.isfinite(block).all():
                    worst = seconds + int(np.flatnonzero(~np.isfinite(block))[0]) / rate
                    raise UnreadableError(
                        f"{self.name!r} has a sample that is NaN or infinite at {worst:.3f} s; make it again"
                    )
                count, seconds, silent = count + len(block), seconds + len(block) / rate, silent and not block.any()
                if self.on_progress:
                    self.on_progress(seconds)
                yield rate, block
        if not count:
            raise UnreadableError(f"{self.name!r} has no samples; give a recording with sound in it")
        if silent:
            raise SilentError(f"{self.name!r} is silent: all of its {count} samples are 0; record it again")

    def _of_part(self, file: Uncompressed | Compressed) -> Iterator[tuple[int, Frames]]:
        """Yield the blocks of the part. A part that ends with the file is read to its end, to detect a cut."""
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
                require_path(self.name)
            except UnreadableError as error:
                raise UnreadableError(f"{self.place}: {error}") from error
        return open_recording(self.name, self.data, self._warn)

    def _warn(self, line: str) -> None:
        if line not in self.warned:
            print(one_line(line), file=sys.stderr)
        self.warned.add(line)


def is_recording(path: str | Path) -> bool:
    """Whether a file is a recording: its name says so, or it can be opened as one.

    A pipe is never one, because testing it would consume its first bytes.
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
            if file.read(2) == codecs.BOM_UTF16_LE:  # it could be a frame of MP3, and the decoder prints errors
                return False
        with soundfile.SoundFile(encoded):
            return True
    except (soundfile.LibsndfileError, OSError):
        return False

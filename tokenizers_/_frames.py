"""Frames of speech, 50 a second, from samples that come in chunks: what the front-ends for speech share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..data._audio import RATE
from ..data._reading import UnreadableError

HOP = 320
"""Samples from a frame to the next: 20 ms at 16 kHz."""
SPAN = 400
"""Samples that a frame is made of at least: 25 ms."""
FRAMES_A_SECOND = RATE // HOP


@runtime_checkable
class Extractor(Protocol):
    """Makes frames of samples at 16 kHz. Frame ``i`` belongs to the samples from ``i * HOP`` on.

    A long recording is read in windows of ``window`` frames, with ``context`` more on either side which are computed
    and thrown away. That is exact where a frame depends on no more than its context; where it depends on all it sees,
    as with attention, it is part of what the features are.
    """

    dim: int
    window: int
    context: int

    def __call__(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "frames dim"]:
        """``1 + (samples - SPAN) // HOP`` frames."""
        ...


@runtime_checkable
class Features(Protocol):
    """The frozen dataclass ``Features`` of a file in ``models/features``: its fields are its YAML keys."""

    def build(self) -> Extractor:
        """Make or load the extractor. Raises `ValueError` for weights that are not there."""
        ...


def stream_frames(
    chunks: Iterable[Float[Tensor, " _"]], extractor: Extractor, name: str
) -> Iterator[Float[Tensor, "frames dim"]]:
    """The frames of a recording, a window at a time, in bounded memory; the same ones however it is cut into chunks.

    Raises `UnreadableError`, calling the recording ``name``, where it is too short for a single frame.
    """
    window, context = extractor.window, extractor.context
    held, first, done, samples = torch.zeros(0), 0, 0, 0  # first: number of the frame that `held` begins with
    for chunk in chunks:
        held, samples = torch.cat([held, chunk]), samples + len(chunk)
        while len(held) >= (size := (done + window + context - first - 1) * HOP + SPAN):
            yield extractor(held[:size])[done - first :][:window]
            done += window
            start = max(0, done - context)
            held, first = held[(start - first) * HOP :], start
    if samples < SPAN:
        raise UnreadableError(
            f"{name!r} is too short for speech units: {samples} samples at 16 kHz, a frame needs {SPAN} (25 ms)"
        )
    if len(held) >= (done - first) * HOP + SPAN:
        yield extractor(held)[done - first :]

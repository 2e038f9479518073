"""Make frames of speech, 50 a second, from samples that come in chunks; shared by the front-ends for speech."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.reading.audio import RATE
from ...data.reading.files import UnreadableError

HOP = 320
"""Samples from one frame to the next: 20 ms at 16 kHz."""
SPAN = 400
"""Minimum samples of a frame: 25 ms at 16 kHz."""
FRAMES_A_SECOND = RATE // HOP


@runtime_checkable
class Extractor(Protocol):
    """Makes frames from samples at 16 kHz. Frame ``i`` begins at sample ``i * HOP``.

    Long recordings are read in windows of ``window`` frames with ``context`` more frames on either side, which are
    computed and discarded. The result is exact if a frame depends on its context only. If it depends on all input, as
    with attention, the windows are part of the definition of the features.
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
        """Make or load the extractor. Raises `ValueError` for missing weights."""
        ...


def stream_frames(
    chunks: Iterable[Float[Tensor, " _"]], extractor: Extractor, name: str
) -> Iterator[Float[Tensor, "frames dim"]]:
    """Yield the frames of a recording, a window at a time, in bounded memory. The size of the chunks does not matter.

    Raises `UnreadableError` with the ``name`` of the recording if it is too short for a single frame.
    """
    window, context = extractor.window, extractor.context
    pending = torch.zeros(0)
    first = 0  # number of the frame that `pending` begins with
    done = 0
    samples = 0
    for chunk in chunks:
        pending = torch.cat([pending, chunk])
        samples += len(chunk)
        while len(pending) >= (size := (done + window + context - first - 1) * HOP + SPAN):
            yield extractor(pending[:size])[done - first :][:window]
            done += window
            start = max(0, done - context)
            pending = pending[(start - first) * HOP :]
            first = start
    if samples < SPAN:
        raise UnreadableError(
            f"{name!r} is too short for speech units: {samples} samples at 16 kHz, a frame needs {SPAN} (25 ms)"
        )
    if len(pending) >= (done - first) * HOP + SPAN:
        yield extractor(pending)[done - first :]

"""Average the channels of a recording, unless they cancel each other out."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float

from .decoding import Frames

_WINDOW = 10.0  # seconds from the first sound on that decide whether channels cancel
_CANCELLED = 0.2  # share of the energy that the average of unrelated channels has; opposite channels have 0
_EVERY = 8  # one of so many frames is enough to compare energies


def mix_channels(
    blocks: Iterable[tuple[int, Frames]], warn: Callable[[str], None]
) -> Iterator[tuple[int, Float[np.ndarray, " frames"]]]:
    """Yield each block's rate, and the average over its channels.

    If one channel is inverted, the average is nearly silent. When its energy in the first 10 seconds of sound is below
    a fifth of that of unrelated channels (for stereo: a correlation below -0.8), the loudest channel replaces the
    average for the rest of the recording, and ``warn`` receives a line. Channels that cancel later only cause the line.
    """
    for (rate, channels), run in itertools.groupby(blocks, key=lambda block: (block[0], block[1].shape[1])):
        samples = (block for _, block in run)
        averaged = (block[:, 0] for block in samples) if channels == 1 else _averaged(samples, rate, warn)
        yield from ((rate, block) for block in averaged)


def _averaged(
    blocks: Iterator[Frames], rate: int, warn: Callable[[str], None]
) -> Iterator[Float[np.ndarray, " frames"]]:
    energies, window = _Energies(), []
    for block in blocks:
        if not window and not block.any():
            yield block[:, 0]
            continue
        window.append(block)
        energies.add(block)
        if sum(map(len, window)) >= _WINDOW * rate:
            break
    if energies.cancel():
        channel = int(energies.channels.argmax())
        warn(f"its channels cancel each other out, so that channel {channel + 1} alone is read")
        yield from (block[:, channel].copy() for block in itertools.chain(window, blocks))
        return
    yield from map(_average, window)
    for block in blocks:
        energies.add(block)
        yield _average(block)
    if energies.cancel():
        warn("its channels cancel each other out, so that little is left of it; give one channel")


def _average(block: Frames) -> Float[np.ndarray, " frames"]:
    return functools.reduce(np.add, block.T) / np.float32(block.shape[1])  # faster than `mean` over so few channels


class _Energies:
    """Energy of the average and of each channel, summed over some of the frames."""

    def __init__(self) -> None:
        self.average, self.channels = 0.0, np.zeros(1)

    def add(self, block: Frames) -> None:
        some = block[::_EVERY].astype(np.float64).T
        self.average = self.average + np.square(some.mean(axis=0)).sum()
        self.channels = self.channels + np.square(some).sum(axis=1)

    def cancel(self) -> bool:
        """Whether the average has far less energy than that of unrelated channels."""
        return bool(self.average < _CANCELLED * self.channels.mean() / len(self.channels))

"""Band-pass filters on the mel scale: initial weights of a first convolution over waveforms."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LOWEST = 60.0
"""Lowest frequency in Hz; voices have no energy below."""
EMPHASIS = 0.97
"""Pre-emphasis coefficient, as in mel front-ends: without it, low frequencies mask high ones."""


def filter_bank(channels: int, kernel: int, top: float, rate: int) -> Float[Tensor, "channels kernel"]:
    """Gabor filters (Zeghidour et al., 1711.01161): pairs of a cosine and a sine under one Gaussian.

    They have the distances and widths of triangular mel filters, if the kernel is long enough. All have the same norm
    before pre-emphasis.

    Args:
        channels: number of filters; the last of an odd number has no sine.
        kernel: length of a filter in samples.
        top: highest frequency in Hz.
        rate: samples per second.

    Returns:
        The weights.
    """
    from librosa import mel_frequencies

    bands = (channels + 1) // 2
    edges = mel_frequencies(bands + 2, fmin=LOWEST, fmax=top, htk=True).tolist()
    seconds = (torch.arange(kernel) - (kernel - 1) / 2) / rate
    filters = []
    for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
        width = min(1.2 / (math.pi * (high - low)), kernel / (4 * rate))
        window, phase = torch.exp(-0.5 * (seconds / width) ** 2), 2 * math.pi * centre * seconds
        filters += [window * phase.cos(), window * phase.sin()]
    bank = F.normalize(torch.stack(filters[:channels]), dim=1)
    return bank - EMPHASIS * F.pad(bank[:, 1:], (0, 1))

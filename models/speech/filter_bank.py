"""Band-pass filters on the mel scale as the weights that a first convolution over waveforms begins with."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LOWEST = 60.0
"""Hz below which voices have nothing."""
EMPHASIS = 0.97
"""Share of each sample that is taken from the next, as mel front-ends do: else what is low hides what is high."""


def filter_bank(channels: int, kernel: int, top: float, rate: int) -> Float[Tensor, "channels kernel"]:
    """Pairs of a cosine and a sine under one Gaussian, up to ``top`` Hz, of one norm but for the emphasis of high ones.

    They are Gabor filters (Zeghidour et al., 1711.01161), as far apart as triangular mel filters are and as wide, where
    ``kernel`` samples at ``rate`` are long enough for it. Of an odd number of channels the last has no partner.
    """
    from librosa import mel_frequencies

    bands = (channels + 1) // 2
    edges = mel_frequencies(bands + 2, fmin=LOWEST, fmax=top, htk=True).tolist()
    seconds = (torch.arange(kernel) - (kernel - 1) / 2) / rate
    filters = []
    for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
        spread = min(1.2 / (math.pi * (high - low)), kernel / (4 * rate))
        window, phase = torch.exp(-0.5 * (seconds / spread) ** 2), 2 * math.pi * centre * seconds
        filters += [window * phase.cos(), window * phase.sin()]
    bank = F.normalize(torch.stack(filters[:channels]), dim=1)
    return bank - EMPHASIS * F.pad(bank[:, 1:], (0, 1))

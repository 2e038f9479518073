"""Pitch of speech, and excitation with a given pitch, for a source-filter synthesiser."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

LOWEST, HIGHEST = 60.0, 400.0
"""Range of the pitch in Hz."""
WINDOW = 1024
"""Samples of a window for the pitch."""
PERIODIC, QUIET = 0.5, 1e-3
"""Thresholds of voiced frames: normalised autocorrelation, and share of the maximum power."""


def track(
    waveform: Float[Tensor, " samples"], rate: int, hop: int
) -> tuple[Float[Tensor, " frames"], Bool[Tensor, " frames"]]:
    """The pitch in Hz around every ``hop``-th sample, interpolated between voiced frames, and which frames are voiced.

    The period is the shortest lag whose normalised autocorrelation is nearly the maximum, smoothed by a median over
    five frames. There is a frame for every hop that has begun. All frames are 0 Hz if none is voiced.
    """
    count = -(-len(waveform) // hop)
    padded = F.pad(waveform, (WINDOW // 2, WINDOW // 2 + hop))
    frames = padded.unfold(0, WINDOW, hop)[:count]
    frames = frames - frames.mean(1, keepdim=True)
    shortest, longest = math.ceil(rate / HIGHEST), math.floor(rate / LOWEST)
    spectrum = torch.fft.rfft(frames, 2 * WINDOW)
    products = torch.fft.irfft(spectrum.abs().square())[:, shortest : longest + 1]
    energy = F.pad(frames.square().cumsum(1), (1, 0))
    lags = torch.arange(shortest, longest + 1)
    head, tail = energy[:, WINDOW - lags], energy[:, -1:] - energy[:, lags]
    likeness = products / (head * tail).clamp(min=1e-12).sqrt()
    best = likeness.amax(1)
    # The first lag that is a peak and nearly the best, because multiples of the period fit as well.
    peak = F.max_pool1d(likeness[:, None], 9, 1, 4)[:, 0] == likeness
    lag = (peak & (likeness >= 0.9 * best[:, None])).int().argmax(1) + shortest
    power = energy[:, -1]
    voiced = (best > PERIODIC) & (power > QUIET * power.max())
    hz = torch.where(voiced, rate / lag, torch.nan)
    hz = F.pad(hz, (2, 2), value=torch.nan).unfold(0, 5, 1).nanmedian(1).values
    voiced = voiced & hz.isfinite()
    return _interpolated(hz, voiced), voiced


def _interpolated(hz: Float[Tensor, " frames"], known: Bool[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """Interpolate the logarithm linearly between ``known`` frames, constant beyond the ends."""
    import numpy as np

    if not known.any():
        return torch.zeros_like(hz)
    places = known.nonzero()[:, 0].numpy()
    return torch.from_numpy(np.interp(np.arange(len(hz)), places, hz[known].log().numpy())).exp().float()


def pulses(hz: Float[Tensor, "batch frames"], rate: int, hop: int) -> Float[Tensor, "batch samples"]:
    """A pulse train with the pitch ``hz``: all harmonics below half the ``rate``, equally strong, with mean square 1.

    A frame has ``hop`` samples. The sum of K cosines has a closed form (Dirichlet's kernel), so that its cost does not
    depend on K. Frames of 0 Hz are silent.
    """
    exact = (hz.cpu() if hz.device.type == "mps" else hz).double()  # mps has no double precision
    along = F.interpolate(exact[:, None], scale_factor=hop, mode="linear")[:, 0]
    harmonics = torch.where(along > 0, (rate / 2 / along.clamp(min=1.0)).floor(), 0.0)
    half = torch.remainder((along / rate).cumsum(1), 1.0) * math.pi
    sine = half.sin()
    near = sine.abs() < 1e-6
    total = torch.where(near, harmonics, 0.5 * (((2 * harmonics + 1) * half).sin() / sine.masked_fill(near, 1.0) - 1))
    return (total * (2 / harmonics.clamp(min=1)).sqrt()).to(hz)

"""Perceptual distances of waveforms: distances of their short-time spectra at several resolutions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..host import to_device

FFTS = (1024, 512, 256)
"""Lengths of windows and transforms in samples; the hop is a quarter of the length."""
PART = 1 << 19
"""Samples whose spectra are computed at once for sums, which bounds memory."""
FLOOR = 1e-3
"""Floor of magnitudes before the logarithm: 60 dB below the standard deviation of the data set."""


@dataclass(frozen=True)
class Bandwidth:
    """Divisors of the losses of a data set, so that the same settings suit loud and faint recordings.

    Jukebox (2005.00341) also divides the squared error and the spectral distance by their values for silence.
    """

    variance: float = 1.0
    """Mean square of the samples."""
    spectral: tuple[float, ...] = (1.0,) * len(FFTS)
    """Root mean square of the magnitudes at each resolution, for samples of unit variance."""

    def __post_init__(self) -> None:
        if len(self.spectral) != len(FFTS):
            raise ValueError(f"a bandwidth needs {len(FFTS)} spectral values, got {len(self.spectral)}")
        if not all(0 < value < math.inf for value in (self.variance, *self.spectral)):
            raise ValueError(f"the bandwidth of the data is {self}; give recordings that are not silent")

    @property
    def scale(self) -> float:
        """The standard deviation of the samples."""
        return math.sqrt(self.variance)


@torch.no_grad()
def bandwidth(waveforms: Iterable[Float[Tensor, " _"]]) -> Bandwidth:
    """Measure the bandwidth of a data set, with equal weight for all samples. Raises `ValueError` if it is silent."""
    energy, count = 0.0, 0
    spectral = torch.zeros(len(FFTS), 2, dtype=torch.float64)
    for part in (part.double() for waveform in waveforms for part in waveform.split(PART)):
        energy += float(part.square().sum())
        count += part.shape[0]
        for row, fft in zip(spectral, FFTS, strict=True):
            squares = magnitudes(part[None], fft).square()
            row += torch.stack([squares.sum(), squares.new_tensor(squares.numel())])
    variance = energy / max(1, count)
    roots = (spectral[:, 0] / spectral[:, 1].clamp(min=1) / (variance or 1.0)).sqrt()
    return Bandwidth(variance, tuple(roots.tolist()))


def magnitudes(x: Float[Tensor, "batch time"], fft: int) -> Float[Tensor, "batch bins frames"]:
    """Magnitudes under a Hann window, padded with zeros; white noise of variance 1 has mean square 1."""
    window = torch.hann_window(fft, dtype=x.dtype, device=x.device)
    spectrum = torch.stft(x, fft, fft // 4, window=window, pad_mode="constant", return_complex=True)
    return spectrum.abs() / window.square().sum().sqrt()


@dataclass(frozen=True)
class Distance:
    """Distances of two spectra for each row and resolution. Their sums over clips give the figures of `summary`."""

    residual: Float[Tensor, "batch scale"]
    """Sum of squared differences of magnitudes."""
    energy: Float[Tensor, "batch scale"]
    """Sum of squared magnitudes of the target."""
    log: Float[Tensor, "batch scale"]
    """Sum of absolute differences of natural logarithms of magnitudes."""
    bins: Float[Tensor, " scale"]
    """Magnitudes of a row."""

    def cpu(self) -> Distance:
        """The same distances on the CPU."""
        return Distance(*(part.cpu() for part in (self.residual, self.energy, self.log, self.bins)))


def distance(target: Float[Tensor, "batch time"], made: Float[Tensor, "batch time"]) -> Distance:
    """Distances of waveforms, in units of the data set's standard deviation, for each of `FFTS`."""
    parts = []
    for fft in FFTS:
        wanted, given = magnitudes(target, fft), magnitudes(made, fft)
        log = (wanted.clamp(min=FLOOR).log() - given.clamp(min=FLOOR).log()).abs()
        sums = [part.sum((1, 2)) for part in ((wanted - given).square(), wanted.square(), log)]
        parts.append([*sums, wanted.new_full((), wanted[0].numel())])
    residual, energy, log, bins = zip(*parts, strict=True)
    return Distance(torch.stack(residual, 1), torch.stack(energy, 1), torch.stack(log, 1), torch.stack(bins))


def loss(found: Distance, size: Bandwidth) -> Float[Tensor, ""]:
    """The spectral loss: distance of magnitudes over the data set's bandwidth plus distance of their logarithms.

    The first is Jukebox's multi-scale loss (2005.00341, section 3.2): the norm of the difference, divided by the mean
    norm of the data. The second, of Arik et al. (1808.06719), preserves faint sounds. Both are means over rows and
    resolutions.
    """
    norms = found.bins.sqrt() * to_device(torch.tensor(size.spectral, dtype=found.bins.dtype), found.bins.device)
    # The root of 0 has no gradient.
    convergence = (found.residual + 1e-12).sqrt() / norms
    return (convergence + found.log / found.bins).mean()


def summary(found: Iterable[Distance]) -> dict[str, float]:
    """Figures of a set of clips as one long recording; means over resolutions.

    ``convergence``: the norm of the difference of magnitudes over that of the magnitudes, 0 for a perfect copy and 1
    for silence. ``log_magnitude``: mean absolute difference of natural logarithms. ``stft_error``: their sum, as in
    Parallel WaveGAN (1910.11480). Raises `ValueError` for no clips.
    """
    found = list(found)
    if not found:
        raise ValueError("there is no clip to take a distance of; give at least one")
    residual, energy, log = (
        torch.stack([getattr(one, name).double().sum(0) for one in found]).sum(0)
        for name in ("residual", "energy", "log")
    )
    bins = torch.stack([one.bins.double() * len(one.residual) for one in found]).sum(0)
    convergence = float((residual / energy.clamp(min=1e-12)).sqrt().mean())
    log_magnitude = float((log / bins).mean())
    return {
        "convergence": convergence,
        "log_magnitude": log_magnitude,
        "stft_error": convergence + log_magnitude,
    }

"""How far apart two waveforms sound: distances of their short-time spectra at several resolutions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FFTS = (1024, 512, 256)
"""Window lengths in samples, which are those of the transforms too; windows are a quarter of their length apart."""
PART = 1 << 19
"""Samples of which spectra are taken at once where their sums alone count: bounds memory."""
FLOOR = 1e-3
"""Magnitudes below this are alike for the logarithm: 60 dB below the standard deviation of the data set."""


@dataclass(frozen=True)
class Bandwidth:
    """What the losses of a data set are divided by, so that one setting serves loud and faint recordings alike.

    As in Jukebox (2005.00341), which divides squared error and spectral distance each by what they would be if nothing
    were rebuilt.
    """

    variance: float = 1.0
    """Mean square of the samples."""
    spectral: tuple[float, ...] = (1.0,) * len(FFTS)
    """Root mean square of the magnitudes, one a resolution, of samples of unit variance."""

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
    """The bandwidth of a data set, weighting every sample alike. Raises `ValueError` where all of it is silent."""
    energy, count = 0.0, 0
    spectral = torch.zeros(len(FFTS), 2, dtype=torch.float64)
    for waveform in (part.double() for whole in waveforms for part in whole.split(PART)):
        energy += float(waveform.square().sum())
        count += waveform.shape[0]
        for row, fft in zip(spectral, FFTS, strict=True):
            squares = magnitudes(waveform[None], fft).square()
            row += torch.stack([squares.sum(), squares.new_tensor(squares.numel())])
    variance = energy / max(1, count)
    roots = (spectral[:, 0] / spectral[:, 1].clamp(min=1) / (variance or 1.0)).sqrt()
    return Bandwidth(variance, tuple(roots.tolist()))


def magnitudes(x: Float[Tensor, "batch time"], fft: int) -> Float[Tensor, "batch bins frames"]:
    """Magnitudes under a Hann window, padded by silence, such that white noise of variance 1 has mean square 1."""
    window = torch.hann_window(fft, dtype=x.dtype, device=x.device)
    spectrum = torch.stft(x, fft, fft // 4, window=window, pad_mode="constant", return_complex=True)
    return spectrum.abs() / window.square().sum().sqrt()


@dataclass(frozen=True)
class Distance:
    """Of two spectra, a row and resolution each. Sums over clips give figures of a whole set; see `summary`."""

    residual: Float[Tensor, "batch scale"]
    """Sum of squared differences of magnitudes."""
    energy: Float[Tensor, "batch scale"]
    """Sum of squared magnitudes of the target."""
    log: Float[Tensor, "batch scale"]
    """Sum of absolute differences of natural logarithms of magnitudes."""
    bins: Float[Tensor, " scale"]
    """Magnitudes of a row."""


def distance(target: Float[Tensor, "batch time"], made: Float[Tensor, "batch time"]) -> Distance:
    """Distances of waveforms in units of the data set's standard deviation, for each of `FFTS`."""
    parts = []
    for fft in FFTS:
        wanted, given = magnitudes(target, fft), magnitudes(made, fft)
        log = (wanted.clamp(min=FLOOR).log() - given.clamp(min=FLOOR).log()).abs()
        sums = [part.sum((1, 2)) for part in ((wanted - given).square(), wanted.square(), log)]
        parts.append([*sums, wanted.new_tensor(wanted[0].numel())])
    residual, energy, log, bins = zip(*parts, strict=True)
    return Distance(torch.stack(residual, 1), torch.stack(energy, 1), torch.stack(log, 1), torch.stack(bins))


def loss(found: Distance, size: Bandwidth) -> Float[Tensor, ""]:
    """What is minimised: magnitudes' distance over the data set's bandwidth plus that of their logarithms.

    The first is Jukebox's multi-scale loss (2005.00341, section 3.2): the norm of the difference, divided by what the
    norm of the data is on average; the second, of Arik et al. (1808.06719), keeps faint sounds from being left out.
    Means over rows and resolutions.
    """
    norms = found.bins.sqrt() * found.bins.new_tensor(size.spectral)
    # The root of 0 has no gradient.
    convergence = (found.residual + 1e-12).sqrt() / norms
    return (convergence + found.log / found.bins).mean()


def summary(found: Iterable[Distance]) -> dict[str, float]:
    """Figures of a set of clips, taken as one long recording; means over resolutions.

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

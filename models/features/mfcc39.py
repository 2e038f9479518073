"""13 mel-frequency cepstral coefficients with deltas and delta-deltas, as in HuBERT's first iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ...data.reading.audio import RATE


@dataclass(frozen=True)
class Features:
    """Kaldi's MFCC (25 ms windows every 10 ms, 23 mel bands, no energy) and deltas, as in HuBERT's recipe.

    Every other of the 100 frames per second is kept, at the times of the frames of HuBERT's encoder. The keys depart
    from that recipe: units of normalised frames depend more on phones and less on speaker, channel and loudness.

    Args:
        normalise: whether to scale each number to mean 0 and deviation 1 over the recording (in windows of 20 s).
        average: number of frames of 20 ms (odd) whose mean is then a frame; 1 = no average.
    """

    normalise: bool = False
    average: int = 1

    def __post_init__(self) -> None:
        """Refuse an even number of frames."""
        if self.average < 1 or self.average % 2 == 0:
            raise ValueError(f"mfcc39 average {self.average} has no middle; give an odd number, 1 or more")

    def build(self) -> MFCC:
        """There is nothing to load."""
        return MFCC(self.normalise, self.average)


class MFCC:
    """39 numbers a frame. Delta-deltas depend on 4 frames of 10 ms on either side, which is the context."""

    dim, window = 39, 1000

    def __init__(self, normalise: bool = False, average: int = 1) -> None:
        self.normalise, self.average = normalise, average
        self.context = 2 + average // 2

    def __call__(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "frames 39"]:
        """``1 + (samples - 400) // 320`` frames."""
        from torchaudio.compliance.kaldi import mfcc
        from torchaudio.functional import compute_deltas

        cepstra = mfcc(samples[None], sample_frequency=RATE, use_energy=False).T
        deltas = compute_deltas(cepstra)
        frames = torch.cat([cepstra, deltas, compute_deltas(deltas)])[:, ::2]
        if self.normalise:
            deviation = frames.std(1, correction=0, keepdim=True).clamp(min=1e-5)  # digital silence has none
            frames = (frames - frames.mean(1, keepdim=True)) / deviation
        if self.average > 1:
            beside = self.average // 2
            frames = F.avg_pool1d(F.pad(frames[None], (beside, beside), mode="replicate"), self.average, 1)[0]
        return frames.T

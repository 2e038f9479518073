"""13 mel-frequency cepstral coefficients with their deltas and delta-deltas: what HuBERT begins with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...data._audio import RATE


@dataclass(frozen=True)
class Features:
    """No keys: Kaldi's MFCC (25 ms windows every 10 ms, 23 mel bands, no energy) and deltas, as in HuBERT's recipe.

    Of the 100 frames a second every other one is kept, so that they lie where those of HuBERT's encoder lie.
    """

    def build(self) -> MFCC:
        """There is nothing to load."""
        return MFCC()


class MFCC:
    """39 numbers a frame. Deltas of deltas see 4 frames of 10 ms on either side, which is the context."""

    dim, window, context = 39, 1000, 2

    def __call__(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "frames 39"]:
        """``1 + (samples - 400) // 320`` frames."""
        from torchaudio.compliance.kaldi import mfcc
        from torchaudio.functional import compute_deltas

        cepstra = mfcc(samples[None], sample_frequency=RATE, use_energy=False).T
        deltas = compute_deltas(cepstra)
        return torch.cat([cepstra, deltas, compute_deltas(deltas)]).T[::2]

"""Residual convolutions for speech synthesis."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..norm import RMSNorm


def random_projection(features: Float[Tensor, "rows dim"], width: int) -> Float[Tensor, "rows width"]:
    """Initial embeddings: project standardised ``features`` randomly to ``width`` numbers of variance 1."""
    standard = (features - features.mean(0)) / features.std(0, correction=0).clamp(min=1e-6)
    return standard @ torch.randn(standard.shape[1], width) / standard.shape[1] ** 0.5


ROUND = 64
"""Inference rounds lengths up to a multiple of this, because oneDNN caches memory for every length it meets."""


class Residuals(nn.ModuleList):
    """A stack of residual convolutions, one for each dilation."""

    def __init__(self, width: int, dilations: Iterable[int], dropout: float = 0.0) -> None:
        super().__init__(_Residual(width, dilation, dropout) for dilation in dilations)

    def forward(
        self, x: Float[Tensor, "batch time width"], real: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Apply all layers and keep the length. Convolutions see zeros beyond the ends and where ``real`` is false."""
        for layer in self:
            x = layer(x, real)
        return x


class _Residual(nn.Module):
    """A residual block: a dilated convolution over three places, and a linear layer at each place."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        normed = self.norm(x) if real is None else self.norm(x) * real[..., None]
        padding = 0 if self.training else -x.shape[1] % ROUND
        wide = self.wide(F.pad(normed.transpose(1, 2), (0, padding)))[..., : x.shape[1]].transpose(1, 2)
        return x + self.dropout(self.mix(F.gelu(wide)))

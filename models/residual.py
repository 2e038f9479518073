"""The residual convolution that synthesis is made of."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .norm import RMSNorm


class Residual(nn.Module):
    """Adds to its input what a dilated convolution over three places, and a layer at each place, make of it."""

    def __init__(self, width: int, dilation: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """As long as the input; beyond its ends are zeros."""
        wide = self.wide(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.dropout(self.mix(F.gelu(wide)))

"""A small bidirectional network that predicts letters from units of speech by CTC."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...schema import PositiveInt, ShareBelowOne, Validated
from ..host import on_host, to_device

FRAMES_PER_UNIT = 2
"""CTC frames per unit: a run of one unit may spell two letters, and a double letter needs three frames."""


@dataclass(frozen=True)
class UnitCTCConfig(Validated):
    """The size of the network."""

    dim: PositiveInt = 256
    """Width of embeddings, and of the two directions of an LSTM layer together."""
    layers: PositiveInt = 2
    """Number of LSTM layers, each with a forward and a backward LSTM."""
    dropout: ShareBelowOne = 0.3
    """Dropout probability of the inputs of each layer."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for impossible sizes."""
        super().__post_init__()
        if self.dim % 2:
            raise ValueError(f"dim = {self.dim} must be even")


class UnitCTC(nn.Module):
    """Embedding, a convolution over three units, LSTMs in both directions, and `FRAMES_PER_UNIT` distributions a unit.

    Graves et al., "Connectionist Temporal Classification" (ICML 2006), on discrete input. The backward LSTMs read each
    row from its last unit, so that padding comes last; packed sequences do the same ten times slower.
    """

    def __init__(self, config: UnitCTCConfig, units: int, letters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(units, config.dim)
        self.mix = nn.Conv1d(config.dim, config.dim, 3, padding=1)
        half = config.dim // 2
        self.forwards, self.backwards = (
            nn.ModuleList(nn.LSTM(config.dim, half, batch_first=True) for _ in range(config.layers)) for _ in range(2)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.dim, FRAMES_PER_UNIT * (letters + 1))

    def forward(
        self, units: Int[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch slots classes"], Int[Tensor, " batch"]]:
        """Log-probabilities of the classes at `FRAMES_PER_UNIT` times a unit, and the number of valid times."""
        places = torch.arange(units.shape[1], device=units.device).expand_as(units)
        real = places < lengths[:, None]
        turned = torch.where(real, lengths[:, None] - 1 - places, places)[..., None]
        x = self.dropout(self.embed(units)) * real[..., None]
        x = F.gelu(x + self.mix(x.transpose(1, 2)).transpose(1, 2))
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            x = self.dropout(x)
            ahead, _ = forwards(x)
            behind, _ = backwards(x.take_along_dim(turned, dim=1))
            x = torch.cat([ahead, behind.take_along_dim(turned, dim=1)], dim=-1)
        scores = self.head(self.dropout(x)).unflatten(-1, (FRAMES_PER_UNIT, -1)).flatten(1, 2)
        return scores.log_softmax(-1), to_device(FRAMES_PER_UNIT * on_host(lengths), units.device)

"""A layer of a pretrained model as features, read in windows of the recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Layer = Callable[[Tensor], Tensor]
"""Maps a batch of one waveform to the frames of a layer."""


@dataclass(frozen=True)
class ModelSource:
    """The model behind features; ``sha256`` covers everything that they depend on besides their keys."""

    features: dict[str, Any]
    """The keys as in YAML, with absolute paths."""
    place: str
    """The key that names a folder; empty if none does."""
    sha256: str


@dataclass(frozen=True)
class Encoder:
    """Reads windows of 20 s with one more second on either side; attention sees nothing else."""

    run: Layer
    dim: int
    device: torch.device
    window: int = 1000
    context: int = 50
    source: ModelSource | None = None

    @torch.no_grad()
    def __call__(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "frames dim"]:
        """``1 + (samples - 400) // 320`` frames."""
        return self.run(samples[None].to(self.device))[0].float().cpu()

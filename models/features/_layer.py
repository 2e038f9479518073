"""A layer of a pretrained model as features: what every model that attends to a window of the recording shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Layer = Callable[[Tensor], Tensor]
"""A batch of one waveform to the frames of a layer."""


@dataclass(frozen=True)
class Source:
    """The model behind features: ``sha256`` is of all that they depend on besides their keys."""

    features: dict[str, Any]
    """As in YAML; a folder is absolute."""
    place: str
    """The key of these that names a folder; empty where none does."""
    sha256: str


@dataclass(frozen=True)
class Encoder:
    """Windows of 20 s, each read with one second more on either side, which is all that attention sees."""

    run: Layer
    dim: int
    device: torch.device
    window: int = 1000
    context: int = 50
    source: Source | None = None

    @torch.no_grad()
    def __call__(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "frames dim"]:
        """``1 + (samples - 400) // 320`` frames."""
        return self.run(samples[None].to(self.device))[0].float().cpu()

"""What a training step gives: a loss, and figures to log."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """What a training step gives: a scalar to minimise, in nats a token, and figures to log."""

    value: Float[Tensor, ""]
    metrics: dict[str, float] = field(default_factory=dict)

"""The result of a training step: a loss, and metrics to log."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, in nats a token, and metrics to log."""

    value: Float[Tensor, ""]
    metrics: dict[str, float] = field(default_factory=dict)

"""The result of a training step: a loss, and metrics to log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, in nats per token, and metrics to log.

    A metric is a scalar on the device, which the training loop reads only when it logs, or a number known without it.
    """

    value: Float[Tensor, ""]
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain = {name: x.detach() if isinstance(x, Tensor) else x for name, x in self.metrics.items()}
        object.__setattr__(self, "metrics", plain)

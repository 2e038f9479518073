"""A running standardiser: puts the scores of all scorers and modalities on one scale."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

PRIOR_COUNT = 16.0
"""The weight of the prior variance, in tokens; it keeps the first few scores of a document from growing large."""
PRIOR_VARIANCE = 1.0
"""The variance assumed before the first token, in nats squared."""


def initial_moments(batch: int, signals: int, device: torch.device | str | None = None) -> Float64[Tensor, "b s 3"]:
    """The moments (count, mean, sum of squared deviations) before the first token: zeros."""
    return torch.zeros(batch, signals, 3, dtype=torch.float64, device=device)


def standardise(
    scores: Float[Tensor, "batch time signal"],
    moments: Float64[Tensor, "batch signal 3"],
    mask: Bool[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time signal"], Float64[Tensor, "batch signal 3"]]:
    """Subtract the mean and divide by the standard deviation of the row's tokens up to and including this one.

    The result is causal and the same for any chunking: sums run in float64 and start from ``moments``. The variance is
    shrunk towards `PRIOR_VARIANCE` as if `PRIOR_COUNT` tokens had had it; the first token of a row gets 0. Tokens where
    ``mask`` is false do not enter the statistics (they still get a value). The statistics are Welford's (1962), a chunk
    at a time.

    Returns the standardised scores (no unit, the dtype of ``scores``) and the moments after the last token.
    """
    x = scores.double()
    counted = torch.ones_like(x) if mask is None else mask.unsqueeze(-1).to(x).expand_as(x)
    count0, mean0, spread0 = moments.unbind(-1)
    count = count0.unsqueeze(1) + counted.cumsum(1)
    # Deviations are summed about the carried mean, not about zero: nothing cancels when scores are far from zero.
    shifted = torch.where(counted > 0, x - mean0.unsqueeze(1), 0.0)
    total = shifted.cumsum(1)
    squares = shifted.square().cumsum(1)
    drift = total / count.clamp(min=1)
    spread = (spread0.unsqueeze(1) + squares - drift.square() * count).clamp(min=0)
    variance = (spread + PRIOR_COUNT * PRIOR_VARIANCE) / (count + PRIOR_COUNT)
    mean = mean0.unsqueeze(1) + drift
    after = torch.stack([count, mean, spread], -1)[:, -1] if x.shape[1] else moments
    return ((x - mean) / variance.sqrt()).to(scores.dtype), after

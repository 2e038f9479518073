"""Pool evicted slots, several into one, and keep the pooled slots for longer (Compressive Transformer)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..slots import Slots

How = Literal["mean", "max", "conv", "most_used"]


@dataclass(frozen=True)
class Compression:
    """Compressed memory: Rae et al., Compressive Transformer (arXiv:1911.05507), with its four pooling functions.

    ``how`` pools ``rate`` slots into one: ``mean``, ``max``, ``conv`` (learned, stride and width ``rate``, one a layer)
    or ``most_used`` (the 1/rate of the evicted slots that received most attention stay as they are). ``share`` of the
    capacity is for pooled slots; the newest of them stay. A pooled slot has the position of its newest token.
    """

    how: How = "conv"
    """How slots become one: their ``mean``, ``max``, a learned ``conv``, or the ``most_used`` of them unchanged."""
    rate: int = 4
    """Slots that become one."""
    share: float = 0.5
    """Share of the capacity that is for pooled slots."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a value outside its range."""
        if self.how not in ("mean", "max", "conv", "most_used"):
            raise ValueError(f"how={self.how!r}; use mean, max, conv or most_used")
        if self.rate < 2:
            raise ValueError(f"rate={self.rate}; pool at least 2 slots into one, or use compression drop")
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share}; use a share of the capacity between 0 and 1")

    @property
    def requires(self) -> tuple[str, ...]:
        """Attention weights for ``most_used``."""
        return ("usage",) if self.how == "most_used" else ()

    def compressed_capacity(self, capacity: int) -> int:
        """``share`` of the capacity, rounded."""
        return round(self.share * capacity)

    def build(self, layers: int, dim: int) -> nn.Module:
        """The convolution, or a module without parameters."""
        return LayerwiseConv(layers, dim, self.rate) if self.how == "conv" else nn.Identity()

    def pool(self, evicted: Slots, compressor: nn.Module) -> Slots:
        """Pool each group of ``rate`` consecutive slots into one; ``most_used`` selects the best of all groups."""
        if self.how == "most_used":
            return evicted.gather(_most_used(evicted, evicted.count // self.rate))
        grouped = evicted.valid.unflatten(1, (-1, self.rate))
        reduce = {"mean": _mean, "max": _max, "conv": compressor}[self.how]
        payload = tuple(reduce(x.unflatten(1, (-1, self.rate)), grouped) for x in evicted.payload)
        return _describe(evicted, payload, grouped, self.rate)


class LayerwiseConv(nn.Module):
    """A convolution of stride and width ``rate`` for each layer's hidden states; starts as the mean."""

    def __init__(self, layers: int, dim: int, rate: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim).repeat(layers, rate, 1, 1) / rate)

    def forward(
        self, x: Float[Tensor, "batch groups rate layers dim"], valid: Bool[Tensor, "batch groups rate"]
    ) -> Float[Tensor, "batch groups layers dim"]:
        """Convolve each group; invalid slots count as zeros."""
        return torch.einsum("bgrld,lrde->bgle", x * valid[..., None, None], self.weight.to(x.dtype))


def _mean(x: Tensor, valid: Tensor) -> Tensor:
    weight = _expand_like(valid, x).to(x.dtype)
    return (x * weight).sum(2) / weight.sum(2).clamp(min=1)


def _max(x: Tensor, valid: Tensor) -> Tensor:
    peak = x.masked_fill(~_expand_like(valid, x), -torch.inf).amax(2)
    return peak.masked_fill(~_expand_like(valid.any(2), peak), 0)


def _expand_like(valid: Tensor, x: Tensor) -> Tensor:
    return valid.reshape(*valid.shape, *[1] * (x.ndim - valid.ndim))


def _most_used(slots: Slots, keep: int) -> Int[Tensor, "batch keep"]:
    usage = slots.usage.masked_fill(~slots.valid, -1)
    return usage.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values


def _describe(evicted: Slots, payload: tuple[Tensor, ...], grouped: Tensor, rate: int) -> Slots:
    """The pooled slots: scores, usage and decay are means over a group's valid slots, the position is the newest."""
    positions = evicted.positions.unflatten(1, (-1, rate)).masked_fill(~grouped, -1).amax(2)
    scores, standard, usage = (
        _mean(x.unflatten(1, (-1, rate)), grouped) for x in (evicted.scores, evicted.standard, evicted.usage)
    )
    decay = None if evicted.decay is None else _mean(evicted.decay.unflatten(1, (-1, rate)), grouped)
    return replace(
        evicted,
        decay=decay,
        payload=payload,
        tokens=torch.full_like(positions, -1),
        positions=positions,
        scores=scores,
        standard=standard,
        usage=usage,
        valid=grouped.any(2),
    )

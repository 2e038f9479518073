"""Root-mean-square normalisation in few passes over memory; PyTorch's is a chain of operations on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """`normalise` and a learnt gain: the same as `torch.nn.RMSNorm` (Zhang & Sennrich, arXiv:1910.07467)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
        """Normalise and scale."""
        if torch.is_grad_enabled():
            return normalise(x) * self.weight
        return F.rms_norm(x, self.weight.shape, self.weight)  # token by token, calls take most of the time


def normalise(x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
    """Divide ``x`` by the root of its mean square (plus the dtype's epsilon) over the last axis."""
    return _Normalise.apply(x)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()
        rate = torch.rsqrt(square / x.shape[-1] + torch.finfo(x.dtype).eps)
        normed = x * rate
        ctx.save_for_backward(normed, rate)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        normed, rate = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, normed)[..., None] / -normed.shape[-1]
        return torch.addcmul(gradient, normed, along) * rate

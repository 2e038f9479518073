"""Keys and values in 8 bits, with a scale for each slot and head, in one tensor that is indexed like any other."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

_TAIL = 8
"""Bytes behind the codes of a slot and head: its lowest value and its step, in float32."""


def pack(x: Float[Tensor, "batch heads slots width"]) -> UInt8[Tensor, "batch heads slots bytes"]:
    """Quantise each slot and head to 256 levels between its lowest and highest value; the scale follows the codes."""
    wide = x.detach().float()
    low, high = wide.aminmax(dim=-1, keepdim=True)
    step = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    codes = ((wide - low) / step).round().clamp(0, 255).to(torch.uint8)
    return torch.cat([codes, torch.cat([low, step], dim=-1).view(torch.uint8)], dim=-1)


def unpack(
    packed: UInt8[Tensor, "batch heads slots bytes"], dtype: torch.dtype
) -> Float[Tensor, "batch heads slots width"]:
    """The values, with an error of at most half a step (1/510 of the range) and the rounding of ``dtype``."""
    low, step = packed[..., -_TAIL:].contiguous().view(torch.float32).unbind(-1)
    return (packed[..., :-_TAIL].float() * step[..., None] + low[..., None]).to(dtype)

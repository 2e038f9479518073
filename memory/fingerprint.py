"""A short hash that tells models apart."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def fingerprint(module: nn.Module, dtype: torch.dtype = torch.float32) -> str:
    """A hash of the names, shapes and some values of all weights, which tells models apart without reading all.

    Values are rounded to ``dtype``, so that it can be the same for a model loaded in several types.
    """
    digest = hashlib.sha256()
    for name, weight in module.state_dict().items():
        flat = weight.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // 64)].to(dtype).float().cpu()
        digest.update(f"{name}{list(weight.shape)}".encode() + some.numpy().tobytes())
    return digest.hexdigest()[:16]

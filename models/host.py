"""Copies of a batch in main memory, so that a training step need not wait for the device.

A value that is read from a device arrives after all work that is queued there. The training loop therefore moves
batches by `to_device`, which keeps the tensor that it copied, and a step asks `on_host` for what decides shapes: how
many places of a mask are set, which tokens are distinct.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_ON_HOST: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy ``tensor`` to ``device`` without waiting for it; neither may be changed in place afterwards.

    `on_host` finds the original as long as the copy lives.
    """
    moved = _copy(tensor, device)
    if moved is not tensor:
        _ON_HOST[moved] = tensor
    return moved


def on_host(tensor: Tensor) -> Tensor:
    """The values of ``tensor`` in main memory; waits for the device unless `to_device` put them there."""
    return _ON_HOST.get(tensor, tensor).cpu()


def places(mask: Bool[Tensor, "*axes"], device: torch.device) -> Int[Tensor, " places"]:
    """The places of ``mask.flatten()`` that are set, on ``device``; they are counted in main memory."""
    return to_device(on_host(mask).flatten().nonzero()[:, 0], device)


def choose(x: Tensor, mask: Bool[Tensor, "*axes"]) -> Tensor:
    """``x[mask]``, counted in main memory; the first axes of ``x`` are those of ``mask``."""
    return x.flatten(0, mask.ndim - 1)[places(mask, x.device)]


def precise(x: Tensor) -> Tensor:
    """``x`` in float64, or in float32 on MPS, which has no float64."""
    return x.float() if x.device.type == "mps" else x.double()


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and tensor.is_cpu:  # only a copy from pinned memory is asynchronous
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)

"""Keep the buffers of a module (counts, codebooks) equal while several processes train it.

The training loop averages gradients, but codebooks with moving averages and tables of counts are not parameters.
Outside of `joint_step` nothing here communicates, so that one process can build, load or evaluate a model alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from contextvars import ContextVar

import torch.distributed as dist
from torch import Tensor

_JOINT = ContextVar("joint", default=False)


@contextlib.contextmanager
def joint_step() -> Generator[None]:
    """Wrap a training step that all processes take together."""
    token = _JOINT.set(dist.is_initialized())
    try:
        yield
    finally:
        _JOINT.reset(token)


def sum_over_processes(tensor: Tensor) -> None:
    """Replace ``tensor`` by its sum over the processes of a `joint_step`."""
    if _JOINT.get():
        dist.all_reduce(tensor)


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Replace ``tensors`` by those of the first process of a `joint_step`."""
    for tensor in tensors if _JOINT.get() else ():
        dist.broadcast(tensor.data, 0)

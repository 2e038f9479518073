"""What a module counts in its buffers while several processes train it: the same in all of them.

Gradients are averaged by the training loop; a codebook that follows moving averages, or a table of counts, is not a
parameter. Outside of `joint_step` nothing here communicates: a model that one process builds, loads or evaluates by
itself waits for no other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

import torch.distributed as dist
from torch import Tensor

_JOINT = ContextVar("joint", default=False)


@contextlib.contextmanager
def joint_step() -> Iterator[None]:
    """Around a training step that all processes take together."""
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

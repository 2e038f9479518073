"""Build a module without memory for its weights, to compare its shapes with those of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

M = TypeVar("M", bound=nn.Module)
_FACTORIES = {
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.linspace, torch.logspace),
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.empty_strided),
}


class _Bounded(TorchFunctionMode):
    """A mode that puts new tensors after the first ``room`` bytes on the device ``meta``, where they take no memory.

    Raises ``RuntimeError`` at ``count`` tensors.
    """

    def __init__(self, room: int, count: int) -> None:
        super().__init__()
        self.room, self.count = room, count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _FACTORIES:
            return func(*args, **(kwargs or {}))
        settings = {name: value for name, value in (kwargs or {}).items() if name not in ("generator", "pin_memory")}
        shape = func(*args, **{**settings, "device": "meta"})
        self.room, self.count = self.room - shape.nbytes, self.count - 1
        if not self.count:
            raise RuntimeError("it has many more tensors than the weights")
        return shape if self.room < 0 else func(*args, **(kwargs or {}))


def build_sketch(
    builder: Callable[[dict[str, Any]], M], fields: dict[str, Any], weights: Mapping[str, Tensor]
) -> tuple[M, bool]:
    """Build the module to compare its shapes, in hardly more memory than ``weights``; and say whether it is real.

    All tensors are on the device ``meta`` at first. If that fails, because the builder computes with its tensors, the
    first tensors are real.
    """
    for room in (0, (1 << 28) + 4 * sum(tensor.nbytes for tensor in weights.values())):
        mode = _Bounded(room, 1000 + 100 * len(weights))
        try:
            with mode:
                return builder(fields), mode.room >= 0
        except ValueError:
            raise
        except Exception as error:
            failure = error
    raise failure

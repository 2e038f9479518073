"""Which layers and heads of a model keep the same slots."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHARES = ("model", "layer", "head")
"""What a set of kept slots serves: the model, a layer, or a head of keys and values."""


@dataclass(frozen=True)
class Groups:
    """The sets of slots that each row of a batch keeps.

    The bookkeeping of a cache has a row for each row of the batch and group, the groups of a row side by side. So a
    policy sees the slots of one group and does not know what the group serves.

    Args:
        share: One of `SHARES`.
        bounded: The indices of the layers whose slots are evicted; other layers bound themselves.
        heads: The heads of keys and values in a layer.
    """

    share: str
    bounded: tuple[int, ...]
    heads: int

    @property
    def layers(self) -> int:
        """How many layers are bounded."""
        return len(self.bounded)

    @property
    def count(self) -> int:
        """The groups of a row."""
        return {"model": 1, "layer": self.layers, "head": self.layers * self.heads}[self.share]

    def expand(self, x: Tensor) -> Tensor:
        """``x``, which has a row for each row of the batch, with each row repeated for its groups."""
        return x if self.count == 1 else x.repeat_interleave(self.count, dim=0)

    def first(self, x: Tensor) -> Tensor:
        """The first group of each row, for what is the same in all."""
        return x[:: self.count]

    def split(self, x: Tensor) -> Tensor:
        """``x`` as ``[batch, groups, ...]``."""
        return x.unflatten(0, (-1, self.count))

    def of_layer(self, x: Tensor, layer: int) -> Tensor:
        """The rows of ``x`` for a bounded layer, ``[batch, heads, ...]``, or ``[batch, 1, ...]`` where heads share."""
        heads = self.in_layer
        first = 0 if self.share == "model" else self.bounded.index(layer) * heads
        return self.split(x)[:, first : first + heads]

    @property
    def in_layer(self) -> int:
        """The groups within a layer."""
        return self.heads if self.share == "head" else 1

    def reduce(self, x: Tensor) -> Tensor:
        """The mean of ``[batch, heads, ...]`` over the heads that share slots: ``[batch, groups in a layer, ...]``.

        There may be as many heads as heads of queries, a multiple of the heads of keys and values.
        """
        if self.share != "head":
            return x.mean(dim=1, keepdim=True)
        return x if x.shape[1] == self.heads else x.unflatten(1, (self.heads, -1)).mean(dim=2)

    def combine(self, layers: list[Tensor]) -> Tensor:
        """What `reduce` made of each layer, as rows of the bookkeeping; for the model it is the mean over layers."""
        together = [x.to(layers[0].device) for x in layers]
        if self.share == "model":
            return (sum(together[1:], together[0]) / len(together))[:, 0]
        return torch.cat(together, dim=1).flatten(0, 1)

"""Forget evicted slots (Transformer-XL and all eviction methods)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..slots import Slots


@dataclass(frozen=True)
class Compression:
    """Nothing is left of a slot that does not stay: the whole capacity is for whole slots."""

    rate: ClassVar[int] = 1
    requires: ClassVar[tuple[str, ...]] = ()

    def room(self, capacity: int) -> int:
        """No pooled slots."""
        return 0

    def build(self, layers: int, dim: int) -> nn.Module:
        """Nothing to learn."""
        return nn.Identity()

    def pool(self, evicted: Slots, learned: nn.Module) -> Slots:
        """No slots."""
        return evicted.head(0)

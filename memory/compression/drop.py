"""Forget evicted slots (Transformer-XL and all eviction methods)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..slots import Slots


@dataclass(frozen=True)
class Compression:
    """Keeps nothing of an evicted slot: the full capacity is for uncompressed slots."""

    rate: ClassVar[int] = 1
    requires: ClassVar[tuple[str, ...]] = ()

    def compressed_capacity(self, capacity: int) -> int:
        """No pooled slots."""
        return 0

    def build(self, layers: int, dim: int) -> nn.Module:
        """A module without parameters."""
        return nn.Identity()

    def pool(self, evicted: Slots, compressor: nn.Module) -> Slots:
        """No slots."""
        return evicted.head(0)

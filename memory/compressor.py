"""The protocol of compressions: how many pooled slots one keeps, and how it makes them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

from .slots import Slots


@runtime_checkable
class Compression(Protocol):
    """The frozen dataclass ``Compression`` of a compression's file: its fields are its YAML keys.

    The memory evicts ``rate`` slots at a time. ``rate`` and ``requires`` may be class variables.
    """

    @property
    def rate(self) -> int:
        """How many slots become one."""
        ...

    @property
    def requires(self) -> tuple[str, ...]:
        """As for a policy."""
        ...

    def compressed_capacity(self, capacity: int) -> int:
        """How many of ``capacity`` slots are for pooled ones."""
        ...

    def build(self, layers: int, dim: int) -> nn.Module:
        """The learned part for payloads ``[batch, slots, layers, dim]``; without parameters if nothing is learned."""
        ...

    def pool(self, evicted: Slots, compressor: nn.Module) -> Slots:
        """Pool ``evicted``, a multiple of ``rate`` slots in order of position, into ``1 / rate`` as many slots.

        ``compressor`` is the module that `build` returned.
        """
        ...

"""What every compression gives: how many pooled slots it keeps, and how it makes them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

from .slots import Slots


@runtime_checkable
class Compression(Protocol):
    """The frozen dataclass ``Compression`` of a compression's file: its fields are its YAML keys.

    Slots are evicted ``rate`` at a time. ``rate`` and ``requires`` may be class variables.
    """

    @property
    def rate(self) -> int:
        """How many slots become one."""
        ...

    @property
    def requires(self) -> tuple[str, ...]:
        """As for a policy."""
        ...

    def room(self, capacity: int) -> int:
        """How many of ``capacity`` slots hold pooled ones."""
        ...

    def build(self, layers: int, dim: int) -> nn.Module:
        """The learned part for payloads ``[batch, slots, layers, dim]``; without parameters if nothing is learned."""
        ...

    def pool(self, evicted: Slots, learned: nn.Module) -> Slots:
        """``evicted`` (a multiple of ``rate`` slots, in order of position) as ``1 / rate`` as many slots."""
        ...

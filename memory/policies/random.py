"""Keep tokens at random, by a new draw at every eviction (the control)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from ..slots import Slots

_MASK = (1 << 31) - 1


@dataclass(frozen=True)
class Policy:
    """Uniformly random priorities from ``seed``.

    They are a hash of seed, position, token and time, not draws from a generator: the same stream gets the same
    priorities in any batch, on any device and after any resumption.
    """

    seed: int = 0
    """The seed of the priorities."""
    requires: ClassVar[tuple[str, ...]] = ()

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """Uniform in [0, 1)."""
        mixed = _mix(now[:, None] + 0x9E3779B * (self.seed + 1))
        mixed = _mix(mixed ^ slots.positions)
        mixed = _mix(mixed ^ slots.tokens)
        return (mixed >> 7).float() / (1 << 24)


def _mix(x: Tensor) -> Tensor:
    """Scramble 31-bit integers (the finaliser of lowbias32 by Chris Wellons, public domain, kept to 31 bits)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)

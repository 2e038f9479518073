"""Noise that is independent of the text, the same for any chunking: the baseline that a useful score must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..loss import Loss


@dataclass(frozen=True)
class Scorer:
    """Exponential noise, mean 1 nat, by a hash of seed, place and token."""

    seed: int = 0
    """Seed of the noise."""
    signals: ClassVar[tuple[str, ...]] = ("surprise", "rarity", "gain")

    def build(self, vocab_size: int) -> Noise:
        """Make the noise; ``vocab_size`` has no effect."""
        return Noise(self.seed)


class Noise(nn.Module):
    """``surprise`` and ``rarity`` are independent exponential noise, ``gain`` is their difference.

    The state counts the tokens so far.
    """

    signals = Scorer.signals
    place: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        # A buffer that has the device, as there are no parameters.
        self.register_buffer("place", torch.zeros((), dtype=torch.int64), persistent=False)

    def initial_state(self, batch: int) -> Int[Tensor, " batch"]:
        """Zero tokens."""
        return self.place.new_zeros(batch)

    @torch.no_grad()
    def score(
        self, tokens: Int[Tensor, "batch time"], state: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch time signal"], Int[Tensor, " batch"]]:
        """Noise by place and token."""
        places = state.unsqueeze(1) + torch.arange(tokens.shape[1], device=tokens.device)
        key = _hash(_hash(_hash(torch.full_like(places, self.seed)) + places) + tokens)
        surprise, rarity = (-torch.log1p(-_unit(_hash(key + salt))) for salt in (1, 2))
        noise = torch.stack([surprise, rarity, rarity - surprise], -1)
        return noise.to(torch.get_default_dtype()), state + tokens.shape[1]

    def training_step(
        self, tokens: Int[Tensor, "batch time"], state: Int[Tensor, " batch"], mask: Bool[Tensor, "batch time"]
    ) -> tuple[Loss, Int[Tensor, " batch"]]:
        """Return a loss of 0 without gradient: there is nothing to learn."""
        return Loss(torch.zeros((), device=tokens.device)), state + tokens.shape[1]


def _hash(x: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The finaliser of SplitMix64 (Steele et al., 2014), on int64 with wrap-around."""
    x = (x ^ _shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shift(x, 31)


def _shift(x: Int[Tensor, "*n"], bits: int) -> Int[Tensor, "*n"]:
    """Logical right shift: int64 would shift in the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _unit(x: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Hash to a float64 in [0, 1)."""
    return _shift(x, 11).double() * 2.0**-53

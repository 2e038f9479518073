"""Keep informative tokens: the scorer's signals, and attention if wanted, minus a growing function of age (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...schema import Validated
from ..policy import age, has_newer_copy, log_usage, signal_weights, smooth
from ..slots import Slots

_LAST = 1e6
"""More than any priority: subtracted from the priority of slots that go before all others."""


@dataclass(frozen=True)
class Policy(Validated):
    """priority = w · f(signals) + usage · log(attention received) - age_weight · g(age), the idea of this project.

    ``surprise``, ``rarity``, ``gain``, ``reuse`` are the weights w (default: surprise alone). ``scale`` is f: ``raw``
    nats, ``log`` (of nats, floored at ``floor``; the sum is then a product of powers), or ``standardised`` (running
    standard deviations). ``age`` is g: ``log``, ``linear`` or ``half_life`` (1 - 2^(-age / half_life)); the latter two
    are in units of ``half_life`` tokens. The importance w · f falls by ``copies`` if a newer slot has the same token,
    and is averaged over ``window`` neighbours (odd, in tokens), so that spans stay together. Tokens whose w · f is
    below ``admit`` go before all others. With a logarithmic age and ``usage`` equal to ``age_weight``, the last two
    terms are the logarithm of the mean attention per token of age.
    """

    surprise: float = 1.0
    """Weight of the surprise."""
    rarity: float = 0.0
    """Weight of the rarity."""
    gain: float = 0.0
    """Weight of the gain."""
    reuse: float = 0.0
    """Weight of the reuse: how much likelier a token is to occur again than its frequency predicts."""
    scale: Literal["raw", "log", "standardised"] = "standardised"
    """The scale of the signals: ``raw`` nats, their ``log``, or running standard deviations."""
    age: Literal["log", "linear", "half_life"] = "log"
    """How the penalty grows with the age in tokens."""
    age_weight: float = 1.0
    """Weight of the age."""
    half_life: float = 256.0
    """Tokens that are one unit of age for ``linear`` and ``half_life``."""
    floor: float = 0.01
    """Least nats for ``log``."""
    window: int = 1
    """Tokens, an odd number, over which the importance is averaged; 1 for none."""
    admit: float | None = None
    """Tokens whose weighted signals are below this go before all others; null admits all."""
    copies: float = 0.0
    """Subtracted from the importance of tokens that a newer slot has too; 100 lets them go before all others."""
    usage: float = 0.0
    """Weight of the logarithm of the attention received, summed over queries."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a value outside its range."""
        super().__post_init__()
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"window={self.window}; use an odd number of tokens, 1 for none")
        if self.half_life <= 0 or self.floor <= 0:
            raise ValueError(f"half_life={self.half_life}, floor={self.floor}; both must be above 0")

    @property
    def requires(self) -> tuple[str, ...]:
        """Scores, and attention weights where they are weighed."""
        return ("scores", "usage") if self.usage else ("scores",)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The formula above."""
        weighted = self._weighted(slots)
        importance = weighted - self.copies * has_newer_copy(slots) if self.copies else weighted
        priority = smooth(importance, slots, self.window) - self.age_weight * self._age(age(slots, now).float())
        if self.usage:
            priority = priority + self.usage * log_usage(slots)
        if self.admit is None:
            return priority
        # In float64, so that the order among those that go first is not rounded away.
        return priority.double() - _LAST * (weighted < self.admit)

    def _weighted(self, slots: Slots) -> Float[Tensor, "batch slots"]:
        total = torch.zeros_like(slots.usage, dtype=torch.float32)
        for name, weight in signal_weights(self).items():
            signal = slots.standard_score(name) if self.scale == "standardised" else slots.score(name)
            if self.scale == "log":
                signal = signal.clamp(min=self.floor).log()
            total = total + weight * signal.float()
        return total

    def _age(self, tokens: Float[Tensor, "batch slots"]) -> Float[Tensor, "batch slots"]:
        if self.age == "log":
            return tokens.log()
        lives = tokens / self.half_life
        return lives if self.age == "linear" else 1 - torch.exp2(-lives)

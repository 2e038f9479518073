"""Keep what a weighted sum of attention, key and score signals ranks highest, each standardised (ours)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..policy import ATTENTION_SIGNALS, age, has_newer_copy, signal_weights, smooth, standardise_among
from ..scorer import SIGNALS
from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """priority = (1 - score) · z(attention part) + score · z(score part).

    A part is a weighted sum of signals. Each signal and each part is standardised (z) over the slots that compete:
    those that are valid and that no guard protects. In a trained memory the attention part
    is ``learned`` alone; the other signals of attention need the cache of a pretrained model. The score part falls by
    ``copies`` if a newer slot has the same token. So that spans stay together, the leverage may be averaged over
    ``leverage_window`` neighbours, and the score part over ``window``.
    """

    learned: float = 0.0
    """Weight of what was fitted for the model to predict the attention that a slot will receive."""
    folder: str = ""
    """The folder that `vqmem fit_policy` wrote, for ``learned``; ``packaged`` is that of the package for the model."""
    expected: float = 0.0
    """Weight of the attention that coming queries are expected to pay (arXiv:2510.00636)."""
    observed: float = 0.0
    """Weight of the attention that the newest queries paid (arXiv:2404.14469)."""
    keydiff: float = 0.0
    """Weight of the distance of the key from the mean key (arXiv:2504.15364)."""
    norm: float = 0.0
    """Weight of the shortness of the key (arXiv:2406.11430)."""
    leverage: float = 0.0
    """Weight of the leverage of the key: how little the other keys span it (arXiv:2507.08143)."""
    leverage_window: int = 1
    """Tokens, an odd number, over which the leverage is averaged; 1 for none."""
    own_leverage: float = 0.0
    """Weight of the leverage of the key alone, beside the averaged leverage."""
    log_age: float = 0.0
    """Weight of the logarithm of the age in tokens, in the attention part."""
    surprise: float = 1.0
    """Weight of the surprise in the score part."""
    rarity: float = 0.0
    """Weight of the rarity in the score part."""
    gain: float = 0.0
    """Weight of the gain in the score part."""
    reuse: float = 0.0
    """Weight of the reuse in the score part."""
    score: float = 1.0
    """Share of the score part, from 0 to 1."""
    window: int = 1
    """Tokens, an odd number, over which the score part is averaged; 1 for none."""
    copies: float = 0.0
    """Subtracted from the score part of tokens that a newer slot has too, in standard deviations."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a share outside its range, or for a part that has a share and no weight."""
        if not 0 <= self.score <= 1:
            raise ValueError(f"score={self.score}; the share of the score part is from 0 to 1")
        for name, window in (("window", self.window), ("leverage_window", self.leverage_window)):
            if window < 1 or window % 2 == 0:
                raise ValueError(f"{name}={window}; use an odd number of tokens, 1 for none")
        if self.score < 1 and not (self.attention_signals or self.log_age):
            raise ValueError(f"score={self.score} leaves a share to {', '.join(ATTENTION_SIGNALS)}; weigh one of them")
        if self.own_leverage and not self.leverage:
            raise ValueError(f"own_leverage={self.own_leverage} comes beside leverage; weigh leverage too")
        if bool(self.learned) != bool(self.folder):
            raise ValueError(
                f"learned={self.learned} and folder={self.folder!r}; give both, the folder of `vqmem fit_policy` and "
                "the weight of what it learnt, or neither"
            )
        if self.score > 0 and not self.signals:
            raise ValueError(f"score={self.score} gives a share to {', '.join(SIGNALS)}; weigh one of them")

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals of the scorer that have a weight."""
        return tuple(signal_weights(self)) if self.score > 0 else ()

    @property
    def attention_signals(self) -> tuple[str, ...]:
        """The signals of the cache that have a weight."""
        return tuple(name for name in ATTENTION_SIGNALS if self.score < 1 and getattr(self, name))

    @property
    def requires(self) -> tuple[str, ...]:
        """Scores, and the layers of a pretrained model, where they have a weight."""
        layers = ("layers", "signals") if self.attention_signals else ()
        return (*(("scores",) if self.signals else ()), *layers)

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The formula above."""
        competing = slots.valid if slots.guarded is None else slots.valid & ~slots.guarded
        total = torch.zeros_like(slots.usage, dtype=torch.float32)
        if self.score < 1:
            signals = {name: slots.signals[name].to(total) for name in self.attention_signals}
            if self.log_age:
                signals["log_age"] = age(slots, now).to(total).log()
            if self.leverage:
                leverage = standardise_among(signals["leverage"], competing)
                if self.own_leverage:
                    signals["own_leverage"] = leverage
                signals["leverage"] = smooth(leverage, slots, self.leverage_window)
            total = total + (1 - self.score) * self._part(signals, competing)
        if self.score > 0:
            signals = {name: slots.score(name).to(total) for name in self.signals}
            part = self._part(signals, competing) - self.copies * has_newer_copy(slots)
            total = total + self.score * standardise_among(smooth(part, slots, self.window), competing)
        return total

    def _part(self, signals: dict[str, Tensor], competing: Tensor) -> Tensor:
        weighted = (getattr(self, name) * standardise_among(x, competing) for name, x in signals.items())
        return standardise_among(sum(weighted, torch.zeros_like(competing, dtype=torch.float32)), competing)

"""Keep what received most attention, less what the model's forget gates have decayed since."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from ..policy import log_usage, signal_weights
from ..slots import Slots


@dataclass(frozen=True)
class Policy:
    """priority = usage · log(attention received) + w · signals + log(mean of exp(decay) over layers and heads).

    The decay of a slot is the sum of the logarithms of the gates after it (Forgetting Transformer, arXiv:2503.02130).
    Adaptive Computation Pruning (arXiv:2504.06949) skips, for each head, what has decayed below a threshold. Here one
    set of slots serves all heads, so that a slot counts by the mean share of weight that the gates leave it: a head
    that forgets fast does not evict what another still reads. Decay alone (``usage`` 0 and no signals) keeps the newest
    slots, as ``fifo`` does, because the gates of every head decay an older slot at least as much as a newer one. The
    gates therefore act as a learnt age, and what the age is weighed against decides.
    """

    usage: float = 1.0
    """Weight of the logarithm of the attention received, summed over queries."""
    surprise: float = 0.0
    """Weight of the surprise, in running standard deviations."""
    rarity: float = 0.0
    """Weight of the rarity."""
    gain: float = 0.0
    """Weight of the gain."""
    reuse: float = 0.0
    """Weight of the reuse."""

    @property
    def requires(self) -> tuple[str, ...]:
        """Forget gates; attention weights and scores where they are weighed."""
        needs = ("decay", "usage") if self.usage else ("decay",)
        return (*needs, "scores") if signal_weights(self) else needs

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """The formula above. Raises `ValueError` where the model has no gates."""
        if slots.decay is None:
            raise ValueError(
                "policy forget_gate reads the decay of forget gates, which this model does not have; train one with "
                "shape.forget_gate=true, or use another policy"
            )
        decay = slots.decay.float().flatten(2)
        # The mean of exp(decay) by its logarithm: it does not underflow where all heads have forgotten a slot.
        priority = decay.logsumexp(2) - math.log(decay.shape[2])
        if self.usage:
            priority = priority + self.usage * log_usage(slots)
        for name, weight in signal_weights(self).items():
            priority = priority + weight * slots.standard_score(name).float()
        return priority

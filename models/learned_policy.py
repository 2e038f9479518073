"""The signal ``learned`` in a memory transformer: the attention that a slot will receive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..memory.bank import Memory
from ..memory.fitted import LOG_AGE, PREDICTED, FittedPolicy, predict
from ..memory.policy import age, standardise_among
from ..memory.slots import Slots
from .memory_transformer import MemoryTransformer

USAGE = "usage"
WEIGHED = (PREDICTED, USAGE, LOG_AGE)
"""The signals that may be weighed: what keys predict, attention received so far, and the age."""


@dataclass(frozen=True)
class LearnedPolicy:
    """A policy that weighs ``learned``, bound to the transformer for which that was fitted.

    Attention to come is predicted once for each slot, when it is written. ``learned`` is the sum of the prediction and
    other signals with the fitted weights, each standardised over the slots that compete.

    Args:
        policy: The policy, whose only signal of attention is ``learned``.
        transformer: The transformer.
        signals: The signals that are weighed, of `WEIGHED`.
        prediction: The weights from which `vqmem.memory.fitted.predict` takes attention to come.
        weights: The weights of the signals.
    """

    policy: Any
    transformer: MemoryTransformer
    signals: tuple[str, ...]
    prediction: Float[Tensor, "1 features"]
    weights: Float[Tensor, " signals"]

    computed = (PREDICTED,)

    @classmethod
    def from_fitted(cls, policy: Any, fitted: FittedPolicy, transformer: MemoryTransformer) -> LearnedPolicy:
        """Bind ``policy`` to what was fitted for ``transformer``."""
        device = transformer.norm.weight.device
        prediction, weights = fitted.prediction["model"][0].to(device), fitted.weights["model"][0, 0].to(device)
        return cls(policy, transformer, fitted.signals, prediction, weights)

    @property
    def requires(self) -> tuple[str, ...]:
        """What the policy needs besides layers, and attention weights where the usage is weighed."""
        others = (need for need in self.policy.requires if need not in ("layers", "signals"))
        return (*others, USAGE) if USAGE in self.signals else (*others,)

    @torch.no_grad()
    def compute(self, payload: tuple[Tensor, ...], positions: Int[Tensor, "batch new"]) -> Float[Tensor, "batch new 1"]:
        """The logarithm of the attention to come, as the keys of all layers predict it."""
        keys = self.transformer.keys(payload).flatten(2)[:, None]  # as one head
        return predict(self.prediction, keys.float(), positions[:, None])[:, 0, :, None]

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """That of the policy, which reads ``learned``."""
        competing = slots.valid if slots.guarded is None else slots.valid & ~slots.guarded
        found = weighed_signals(slots, now)
        columns = torch.stack([standardise_among(found[name], competing) for name in self.signals], dim=-1)
        return self.policy.priority(replace(slots, signals={"learned": columns @ self.weights}), now)


def weighed_signals(slots: Slots, now: Int[Tensor, " batch"]) -> dict[str, Float[Tensor, "batch slots"]]:
    """The signals of `WEIGHED`, not standardised."""
    found = (slots.score(PREDICTED), slots.usage.log1p(), age(slots, now).float().log())
    return dict(zip(WEIGHED, found, strict=True))


def bind(memory: Memory, transformer: MemoryTransformer) -> Memory:
    """``memory``, with a policy that weighs ``learned`` bound to the transformer for which that was fitted.

    Raises `ValueError` where the folder of the policy is missing or damaged, or was fitted for another model.
    """
    policy: Any = memory.policy
    if "learned" not in getattr(policy, "attention_signals", ()):
        return memory
    fitted = FittedPolicy.load(policy.folder, transformer)
    return replace(memory, policy=LearnedPolicy.from_fitted(policy, fitted, transformer))

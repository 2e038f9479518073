"""What every scorer gives: three signals a token, in nats, causal, and the same for any chunking of the stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

SIGNALS = ("surprise", "rarity", "gain")
"""The order of the last axis of every score tensor. ``gain`` is ``rarity - surprise``."""

State = Any
"""Whatever a scorer carries on: a tensor or a (nested) tuple of tensors whose first axis is the batch."""


@dataclass(frozen=True)
class Loss:
    """What a training step gives: a scalar to minimise, in nats a token, and figures to log."""

    value: Float[Tensor, ""]
    metrics: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class ScorerModel(Protocol):
    """An ``nn.Module`` that scores token streams. ``Scorer.build`` of a scorer's file returns one."""

    def initial_state(self, batch: int) -> State:
        """The state before the first token, on the module's device."""
        ...

    def score(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time signal"], State]:
        """Signals of each token in the order of `SIGNALS`, and the state after the last one. Runs without gradients."""
        ...

    def training_step(
        self, tokens: Int[Tensor, "batch time"], state: State, mask: Bool[Tensor, "batch time"]
    ) -> tuple[Loss, State]:
        """The loss over the tokens where ``mask`` is set, and the state after the last token, detached."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """The frozen dataclass ``Scorer`` of a scorer's file: its fields are its YAML keys.

    A class variable ``policy`` may tell the policy, as in YAML, that suits its signals; by default it is ``scored``.
    """

    def build(self, vocab_size: int) -> ScorerModel:
        """A fresh, untrained model; its weights depend on torch's global seed alone."""
        ...

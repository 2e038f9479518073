"""The protocol of scorers that can be trained, beyond what a memory needs (`memory.scorer`)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor

from ...memory.scorer import ScorerModel, State
from ..loss import Loss


@runtime_checkable
class TrainableScorer(ScorerModel, Protocol):
    """The model that ``Scorer.build`` of a scorer's file returns."""

    def training_step(
        self, tokens: Int[Tensor, "batch time"], state: State, mask: Bool[Tensor, "batch time"]
    ) -> tuple[Loss, State]:
        """The loss over the tokens in ``mask``, and the state after the last token, detached."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """The frozen dataclass ``Scorer`` of a scorer's file: its fields are its YAML keys.

    Class variables may declare more. ``signals`` are the names in `SIGNALS` whose meaning it supports, the most useful
    first; the default is all. A policy that weighs another signal is refused. ``policy`` is the policy, as in YAML,
    that suits its signals; see `policy_of`. A scorer that reads the characters of tokens also has
    ``build_for(tokenizer)``, which training calls in place of `build`; see `character_reuse`.
    """

    def build(self, vocab_size: int) -> TrainableScorer:
        """A new, untrained model; its weights depend only on torch's global seed."""
        ...

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

    ``signals``, an attribute or a class variable, names the columns that its model's ``score`` returns, the most useful
    first. A policy that weighs another signal is refused. A class variable ``policy`` may give the policy, as in YAML,
    that suits them; see `policy_of`. A scorer that reads the characters of tokens also has ``build_for(tokenizer)``,
    which training calls in place of `build`; see `character_reuse`.
    """

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals of the model; see `ScorerModel.signals`."""
        ...

    def build(self, vocab_size: int) -> TrainableScorer:
        """A new, untrained model; its weights depend only on torch's global seed."""
        ...

"""The training task of a scorer, on segments of passages."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...memory.scorer import replace_rows
from ...models.loss import Loss
from ...models.scorers.base import TrainableScorer
from .corpus import SegmentBatch


class ScorerTask:
    """Trains a scorer on the same segments as the language model."""

    def __init__(self, scorer: Any, batch_size: int) -> None:
        self.module: nn.Module = scorer
        self.scorer: TrainableScorer = scorer
        self.batch_size = batch_size

    def initial_state(self) -> Any:
        """The initial state of the scorer."""
        return self.scorer.initial_state(self.batch_size)

    def step(self, batch: SegmentBatch, state: Any) -> tuple[Loss, Any]:
        """Train on one segment; rows at the start of a passage begin with the initial state."""
        state = replace_rows(state, self.scorer.initial_state(self.batch_size), batch.is_start)
        loss, state = self.scorer.training_step(batch.tokens, state, batch.valid)
        return Loss(loss.value, {**loss.metrics, "tokens": batch.valid.sum()}), state

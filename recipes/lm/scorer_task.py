"""How a scorer trains on segments of passages."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...memory.scorer import replace_rows
from ...models.loss import Loss
from ...models.scorers.base import TrainableScorer
from .corpus import Batch


class ScorerTask:
    """Training of a scorer on the same segments as the language model."""

    def __init__(self, scorer: Any, rows: int) -> None:
        self.module: nn.Module = scorer
        self.scorer: TrainableScorer = scorer
        self.rows = rows

    def initial_state(self) -> Any:
        """The scorer's own."""
        return self.scorer.initial_state(self.rows)

    def step(self, batch: Batch, state: Any) -> tuple[Loss, Any]:
        """One segment; rows whose passage begins start from the empty state."""
        state = replace_rows(state, self.scorer.initial_state(self.rows), batch.fresh)
        loss, state = self.scorer.training_step(batch.tokens, state, batch.valid)
        return Loss(loss.value, loss.metrics | {"tokens": float(batch.valid.sum())}), state

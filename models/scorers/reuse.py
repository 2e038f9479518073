"""The probability that a token occurs again soon, learnt from text: what a cache needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...schema import PositiveInt, ShareBelowOne, Validated
from ..loss import Loss
from ..lstm import empty_state, run_lstm
from ..occurrences import COUNTS, GAPS, POLICY, State, classes, look_back, reuse_loss, reuse_report
from ..unigram import Unigram


@dataclass(frozen=True)
class Scorer(Validated):
    """An LSTM that predicts whether the current token occurs again within ``horizon`` tokens."""

    dim: PositiveInt = 64
    """Width of the embedding."""
    hidden: PositiveInt = 128
    """Width of the LSTM."""
    horizon: PositiveInt = 1024
    """Number of following tokens in which a token may occur again. Training segments should be much longer: only tokens
    whose horizon ends within the segment are used. In shorter segments the horizon is half of the segment."""
    dropout: ShareBelowOne = 0.1
    """Share of tokens that training replaces by unknown ones, so that the model learns to handle them."""
    signals: ClassVar[tuple[str, ...]] = ("reuse",)
    policy: ClassVar[Mapping[str, Any]] = POLICY
    """The policy for this signal: keep tokens that are much likelier to occur again than their frequency predicts."""

    def build(self, vocab_size: int) -> Reuse:
        """An untrained `Reuse`."""
        return Reuse(vocab_size, self)


class Reuse(nn.Module):
    """Predicts whether a token occurs again, from the token, its earlier occurrences in the document, and an LSTM.

    ``reuse`` is log p(x_t occurs again within the horizon | x_≤t) - log p(x_t), where p(x_t) is that of a unigram model
    of the training tokens: how much likelier the token is to occur again than its frequency predicts, in nats. It is
    high for the names and terms of a document.

    A cache should keep what is used again soonest (Belady, 1966), and a model can predict that from the past (Song et
    al., Learning Relaxed Belady, NSDI 2020). Church found that words that occurred once occur again far more often than
    their frequency predicts, above all rare ones (Empirical Estimates of Adaptation, COLING 2000).
    """

    signals = Scorer.signals
    policy = Scorer.policy

    def __init__(self, vocab_size: int, spec: Scorer, embed: nn.Module | None = None) -> None:
        """A model with its own table of embeddings, or with ``embed`` from ids to vectors of ``spec.dim``."""
        super().__init__()
        self.horizon, self.dropout = spec.horizon, spec.dropout
        if embed is None:
            embed = nn.Embedding(vocab_size, spec.dim)
            nn.init.zeros_(embed.weight)  # a token that training never saw equals an unknown one
        self.embed = embed
        self.gaps, self.counts = nn.Embedding(GAPS, 16), nn.Embedding(COUNTS, 16)
        width = spec.dim + 32
        self.lstm = nn.LSTM(width, spec.hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(width + spec.hidden, 128), nn.ReLU(), nn.Linear(128, 1))
        self.unigram = Unigram(vocab_size, smoothing=1.0)

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the vocabulary."""
        return self.unigram.vocab_size

    def initial_state(self, batch: int) -> State:
        """The state of a new document: zeros."""
        seen = torch.zeros(batch, self.vocab_size, dtype=torch.int32, device=self.unigram.counts.device)
        return State(*empty_state(self.lstm, batch), seen[:, 0].long(), seen, seen.clone())

    @torch.no_grad()
    def score(
        self, tokens: Int[Tensor, "batch time"], state: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "batch time signal"], tuple[Tensor, ...]]:
        """Log p(occurs again) plus the unigram rarity, in nats."""
        if not tokens.numel():
            return self.gaps.weight.new_zeros(*tokens.shape, 1), state
        again, state = self._again(tokens, State(*state), known=None)
        return (self.unigram.rarity(tokens).to(again) - F.softplus(-again))[..., None], state

    @torch.no_grad()
    def report(self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> dict[str, float]:
        """Evaluate the predictions on documents, one a row; see `reuse_report`."""
        odds, _ = self._again(tokens, self.initial_state(len(tokens)), known=None)
        return reuse_report(odds, tokens, mask, self.horizon)

    def training_step(
        self, tokens: Int[Tensor, "batch time"], state: tuple[Tensor, ...], mask: Bool[Tensor, "batch time"]
    ) -> tuple[Loss, State]:
        """The cross-entropy of `reuse_loss`. Rarity is the cost of having evicted a token that occurs again."""
        counted, _ = self.unigram.training_step(tokens, self.unigram.initial_state(len(tokens)), mask)
        known = torch.rand(tokens.shape, device=tokens.device) >= self.dropout
        again, after = self._again(tokens, State(*state), known)
        loss = reuse_loss(again, tokens, mask, self.horizon, self.unigram.rarity(tokens))
        return Loss(loss.value, {**loss.metrics, "rarity": counted.value}), State(
            after.h.detach(), after.c.detach(), *after[2:]
        )

    def _again(
        self, tokens: Int[Tensor, "batch time"], state: State, known: Bool[Tensor, "batch time"] | None
    ) -> tuple[Float[Tensor, "batch time"], State]:
        """Log odds that each token occurs again."""
        gap, count, seen = look_back(tokens, state)
        embedded = self.embed(tokens)
        if known is not None:
            embedded = embedded * known[..., None]
        gap, count = classes(gap, count)
        inputs = torch.cat([embedded, self.gaps(gap), self.counts(count)], -1)
        hidden, (h, c) = run_lstm(self.lstm, inputs, (state.h, state.c))
        logits = self.head(torch.cat([inputs, hidden], -1)).squeeze(-1)
        return logits, State(h, c, state.time + tokens.shape[1], *seen)

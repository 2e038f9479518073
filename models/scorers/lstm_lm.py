"""Surprisal of a plain LSTM language model, -log p(x_t | x_<t): the baseline of the VQ-LM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...schema import PositiveInt, Validated
from ..loss import Loss
from ..lstm import empty_state, run_lstm
from ..unigram import Unigram

CHUNK = 4096
"""Tokens scored at once, which bounds the memory of the logits."""

State = tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]


@dataclass(frozen=True)
class Scorer(Validated):
    """A one-layer LSTM language model with a tied softmax."""

    dim: PositiveInt = 128
    """Width of the embedding."""
    hidden: PositiveInt = 256
    """Width of the LSTM."""
    signals: ClassVar[tuple[str, ...]] = ("surprise", "rarity", "gain")

    def build(self, vocab_size: int) -> LSTMLM:
        """An untrained `LSTMLM`."""
        return LSTMLM(vocab_size, self.dim, self.hidden)


class LSTMLM(nn.Module):
    """Predicts each token from the state before it; zeros are the state of a new document.

    ``surprise`` is -log p(x_t | x_<t) in nats. ``rarity`` is that of a unigram model of the training tokens, because
    the state of a new document predicts beginnings, not frequencies. ``gain`` is their difference.
    """

    signals = Scorer.signals

    def __init__(self, vocab_size: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.embed.weight, std=dim**-0.5)
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        self.head = nn.Linear(hidden, dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.unigram = Unigram(vocab_size, smoothing=1.0)

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the vocabulary."""
        return self.unigram.vocab_size

    def initial_state(self, batch: int) -> State:
        """The state of a new document: zeros."""
        return empty_state(self.lstm, batch)

    @torch.no_grad()
    def score(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time signal"], State]:
        """Surprisal, unigram rarity and their difference, in nats."""
        parts = [self.bias.new_zeros(tokens.shape[0], 0, 3)]
        for part in tokens.split(max(1, CHUNK // tokens.shape[0]), 1) if tokens.numel() else ():
            surprise, state = self._surprise(part, state)
            rare = self.unigram.rarity(part).to(surprise)
            parts.append(torch.stack([surprise, rare, rare - surprise], -1))
        return torch.cat(parts, 1), state

    def training_step(
        self, tokens: Int[Tensor, "batch time"], state: State, mask: Bool[Tensor, "batch time"]
    ) -> tuple[Loss, State]:
        """Mean surprisal of the tokens in the mask; the unigram model counts them too."""
        surprise, (h, c) = self._surprise(tokens, state)
        counted, _ = self.unigram.training_step(tokens, self.unigram.initial_state(tokens.shape[0]), mask)
        loss = (surprise * mask).sum() / mask.sum().clamp(min=1)
        return Loss(loss, {"surprise": loss, "rarity": counted.value}), (h.detach(), c.detach())

    def _surprise(self, tokens: Int[Tensor, "batch time"], state: State) -> tuple[Float[Tensor, "batch time"], State]:
        hidden, after = run_lstm(self.lstm, self.embed(tokens), state)
        before = torch.cat([state[0].unsqueeze(1), hidden[:, :-1]], 1)
        logits = F.linear(self.head(before), self.embed.weight, self.bias)
        nll = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
        return nll, after

"""A causal masked language model, for comparison with the VQ-LM: it predicts a masked token from the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...schema import PositiveInt, Validated
from ..host import on_host, to_device
from ..loss import Loss
from ..lstm import empty_state, run_lstm, run_twin_lstm
from ..unigram import Unigram

CHUNK = 4096
"""Tokens scored at once, which bounds the memory of the logits."""

State = tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]


@dataclass(frozen=True)
class Scorer(Validated):
    """An LSTM that reads corrupted text and predicts the original tokens (shares as in BERT, 1810.04805)."""

    dim: PositiveInt = 128
    """Width of the embedding."""
    hidden: PositiveInt = 256
    """Width of the LSTM."""
    corrupt: float = 0.15
    """Share of tokens that training corrupts and predicts."""
    replace: float = 0.1
    """Share of corrupted tokens that become a random token; the same share stays unchanged; the rest are masked."""
    signals: ClassVar[tuple[str, ...]] = ("surprise", "rarity", "gain")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.corrupt <= 1 or not 0 <= self.replace <= 0.5:
            raise ValueError(
                f"corrupt is a share in (0, 1] and replace in [0, 0.5], got {self.corrupt} and {self.replace}"
            )

    def build(self, vocab_size: int) -> MaskedLM:
        """An untrained `MaskedLM`."""
        return MaskedLM(vocab_size, self)


class MaskedLM(nn.Module):
    """Repairs corrupted text; a token is as surprising as it is hard to repair.

    Training: the LSTM reads text with a share of corrupted tokens and predicts each original token from the state
        *after*
    the corrupted one. Scoring: the state runs on the true text, and the surprise of a token is -log p(x_t | the state
    after the mask in its place). It is causal, as every scorer here: unlike BERT, a memory has no future tokens.

    ``rarity`` is that of a unigram model of the training tokens, ``gain`` their difference. Zeros are the state of a
    new document.
    """

    signals = Scorer.signals

    def __init__(self, vocab_size: int, config: Scorer) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.embed = nn.Embedding(vocab_size + 1, config.dim)
        """The last row is the mask."""
        nn.init.normal_(self.embed.weight, std=config.dim**-0.5)
        self.lstm = nn.LSTM(config.dim, config.hidden)
        self.head = nn.Linear(config.hidden, config.dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.unigram = Unigram(vocab_size, smoothing=1.0)

    def initial_state(self, batch: int) -> State:
        """The state of a new document: zeros."""
        return empty_state(self.lstm, batch)

    @torch.no_grad()
    def score(
        self, tokens: Int[Tensor, "batch time"], state: State
    ) -> tuple[Float[Tensor, "batch time signal"], State]:
        """Surprise behind a mask, unigram rarity and their difference, in nats."""
        parts = [self.bias.new_zeros(tokens.shape[0], 0, 3)]
        for part in on_host(tokens).split(max(1, CHUNK // tokens.shape[0]), 1) if tokens.numel() else ():
            distinct = torch.unique(part, return_inverse=True)
            part, ids, index = (to_device(x, tokens.device) for x in (part, *distinct))
            masks = self.embed.weight[-1].expand(len(ids), -1)
            guessed, _, state = run_twin_lstm(self.lstm, self.embed(ids), masks, index.t(), state)
            surprise = self.nll(guessed, part.t()).t()
            rare = self.unigram.rarity(part).to(surprise)
            parts.append(torch.stack([surprise, rare, rare - surprise], -1))
        return torch.cat(parts, 1), state

    def training_step(
        self, tokens: Int[Tensor, "batch time"], state: State, mask: Bool[Tensor, "batch time"]
    ) -> tuple[Loss, State]:
        """Mean surprise of the corrupted tokens in the mask; the unigram model counts all tokens in the mask."""
        chance = torch.rand(tokens.shape, device=tokens.device)
        wrong = chance < self.config.corrupt
        share = chance / self.config.corrupt
        other = torch.randint(self.vocab_size, tokens.shape, device=tokens.device)
        read = torch.where(wrong, self.vocab_size, tokens)
        read = torch.where(share < 2 * self.config.replace, tokens, read)
        read = torch.where(share < self.config.replace, other, read)
        hidden, (h, c) = run_lstm(self.lstm, self.embed(read.t()), state)
        asked = (wrong & mask).t()
        loss = (self.nll(hidden, tokens.t()) * asked).sum() / asked.sum().clamp(min=1)
        counted, _ = self.unigram.training_step(tokens, self.unigram.initial_state(tokens.shape[0]), mask)
        return Loss(loss, {"surprise": loss, "rarity": counted.value}), (h.detach(), c.detach())

    def nll(self, hidden: Float[Tensor, "time batch hidden"], targets: Int[Tensor, "time batch"]) -> Tensor:
        """-log p(target | hidden) in nats."""
        logits = F.linear(self.head(hidden), self.embed.weight[:-1], self.bias)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)

"""The prediction that a token occurs again, from the state of another scorer: an option of the VQ-LM."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .loss import Loss
from .occurrences import COUNTS, GAPS, State, classes, look_back, reuse_loss, reuse_report
from .unigram import Unigram


class ReuseHead(nn.Module):
    """The signal ``reuse`` of `vqmem.models.scorers.reuse.Reuse`, from a hidden state that is computed elsewhere.

    The head reads the state, the embedding of the token, and its earlier occurrences in the document. `Reuse` has an
    LSTM of its own, which reads those occurrences too.
    """

    def __init__(self, vocab_size: int, dim: int, hidden: int, horizon: int) -> None:
        """Make an untrained head.

        Args:
            vocab_size: number of tokens of the vocabulary.
            dim: width of the embeddings.
            hidden: width of the state.
            horizon: number of following tokens in which a token may occur again.
        """
        super().__init__()
        self.horizon = horizon
        self.gaps, self.counts = nn.Embedding(GAPS, 16), nn.Embedding(COUNTS, 16)
        self.head = nn.Sequential(nn.Linear(dim + 32 + hidden, 128), nn.ReLU(), nn.Linear(128, 1))
        self.unigram = Unigram(vocab_size, smoothing=1.0)

    def initial_state(self, h: Float[Tensor, "batch hidden"], c: Float[Tensor, "batch hidden"]) -> State:
        """The state of a new document around the states of an LSTM."""
        seen = torch.zeros(len(h), self.unigram.vocab_size, dtype=torch.int32, device=h.device)
        return State(h, c, seen[:, 0].long(), seen, seen.clone())

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        embedded: Float[Tensor, "batch time dim"],
        hidden: Float[Tensor, "batch time hidden"],
        state: tuple[Tensor, ...],
        after: tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]],
    ) -> tuple[Float[Tensor, "batch time"], State]:
        """Predict which tokens occur again.

        Args:
            tokens: the tokens.
            embedded: their embeddings.
            hidden: the state at each of them.
            state: the `State` before the first one.
            after: hidden and cell state of the LSTM after the last one.

        Returns:
            The log odds that each token occurs again, and the state after the last one.
        """
        before = State(*state)
        gap, count, seen = look_back(tokens, before)
        gap, count = classes(gap, count)
        inputs = torch.cat([embedded, self.gaps(gap), self.counts(count), hidden], -1)
        return self.head(inputs).squeeze(-1), State(*after, before.time + tokens.shape[1], *seen)

    def signal(
        self, tokens: Int[Tensor, "batch time"], again: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time"]:
        """Log p(occurs again) plus the unigram rarity, in nats, from the log odds."""
        return self.unigram.rarity(tokens).to(again) - F.softplus(-again)

    def loss(
        self,
        tokens: Int[Tensor, "batch time"],
        again: Float[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
    ) -> Loss:
        """The `reuse_loss`; also counts the tokens in the mask."""
        self.unigram.training_step(tokens, self.unigram.initial_state(len(tokens)), mask)
        return reuse_loss(again, tokens, mask, self.horizon, self.unigram.rarity(tokens))

    def report(
        self,
        tokens: Int[Tensor, "batch time"],
        signal: Float[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
    ) -> dict[str, float]:
        """The `reuse_report` of a `signal`."""
        nats = (self.unigram.rarity(tokens).double() - signal.double()).clamp(min=1e-9)
        again = -(nats + torch.log(-torch.expm1(-nats)))  # the inverse of softplus
        return reuse_report(again, tokens, mask, self.horizon)

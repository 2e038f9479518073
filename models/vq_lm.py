"""The VQ-LM: an LSTM that reconstructs each token from its quantised embedding and the previous state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .host import choose, on_host, places, precise, to_device
from .loss import Loss
from .lstm import empty_state, run_twin_lstm
from .occurrences import POLICY as REUSE_POLICY
from .quantiser import Kind, Quantiser, QuantiserConfig, usage
from .reuse_head import ReuseHead

State = tuple[Tensor, ...]
"""Hidden and cell state of the LSTM, ``[batch, hidden]``; with ``reuse`` also the occurrences of each token so far."""
Tokens = Int[Tensor, "batch time"] | Float[Tensor, "batch time frame"]

SIGNALS = ("surprise", "rarity", "gain")
"""The signals of every VQ-LM; with ``reuse`` it has that one more."""
CHUNK = 4096
"""Tokens scored at once, which bounds the memory of gates and logits for streams of any length."""
ROWS = 128
"""Tokens whose logits are made at once on a CPU: many leave its cache, and few read the weights again and again."""


@dataclass(frozen=True)
class VQLMConfig:
    """The shape of a `VQLM` and settings of its training."""

    vocab_size: int = 256
    """Tokens of the vocabulary; unused with ``frame_dim``."""
    dim: int = 128
    """Width of the embedding that is quantised."""
    hidden: int = 256
    """Width of the LSTM."""
    quantiser: Kind = "vq"
    codes: int = 64
    groups: int = 2
    levels: tuple[int, ...] = (4, 4, 4)
    decay: float = 0.95
    dead_below: float = 0.05
    commitment: float = 0.25
    """These six keys are those of `QuantiserConfig`."""
    state_dropout: float = 0.1
    """Share of tokens that training reconstructs without the state, which calibrates ``rarity``."""
    tie: bool = True
    """Whether the softmax uses the embedding as its weights."""
    frame_dim: int | None = None
    """Width of continuous frames, scored under a Gaussian; None = token ids."""
    cutoffs: tuple[int, ...] = ()
    """Frequency ranks that cut the vocabulary into the classes of an adaptive softmax, which is fast for large
    vocabularies (and never tied). Ranks beyond the vocabulary are ignored; without any the softmax is full."""
    reuse: bool = False
    """Whether a head also predicts which tokens occur again: the signal ``reuse`` (see `ReuseHead`)."""
    horizon: int = 1024
    """With ``reuse``: number of following tokens in which a token may occur again; at most half of a segment."""

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.dim, self.hidden, self.frame_dim or 1) < 1:
            raise ValueError(f"vocab_size, dim, hidden and frame_dim must be 1 or more, got {self}")
        if not 0 <= self.state_dropout < 1:
            raise ValueError(f"state_dropout is a share of tokens in [0, 1), got {self.state_dropout}")
        if list(self.cutoffs) != sorted({*self.cutoffs}) or min(self.cutoffs, default=1) < 1:
            raise ValueError(f"cutoffs are ranks of 1 or more that rise, such as [2000, 10000]; got {self.cutoffs}")
        if self.horizon < 1:
            raise ValueError(f"horizon={self.horizon} is a number of tokens; give 1 or more")
        if self.reuse and self.frame_dim is not None:
            raise ValueError("reuse counts tokens that occur again, and frames do not; leave reuse or frame_dim out")
        if self.cutoffs and self.frame_dim is not None:
            raise ValueError(
                f"cutoffs {self.cutoffs} cut a vocabulary, and frames have none; leave cutoffs or frame_dim out"
            )

    @property
    def classes(self) -> list[int]:
        """The cutoffs inside the vocabulary."""
        return [cutoff for cutoff in self.cutoffs if cutoff < self.vocab_size]

    @property
    def quantisation(self) -> QuantiserConfig:
        """The settings of the quantiser."""
        return QuantiserConfig(
            self.quantiser, self.codes, self.groups, tuple(self.levels), self.decay, self.dead_below, self.commitment
        )


class VQLM(nn.Module):
    """Scores each token by how badly it is reconstructed from its code and the past.

        h_t, c_t = F(e_t,    h_{t-1}, c_{t-1})      the state, advanced on the embedding itself
        ĥ_t, ĉ_t = F(Q(e_t), h_{t-1}, c_{t-1})      the reconstruction
        surprise = -log p(x_t | ĥ_t)                rarity: the same with h and c set to zero

    F is one LSTM cell, Q the quantiser. A softmax predicts token ids, a Gaussian with learnt diagonal variance predicts
    frames (nats per dimension; ``rarity`` has another variance, because it has less information). With one code,
    surprise is the surprisal of a plain language model; with as many codes as tokens it falls to 0. The state of a
    batch item is its row of ``h`` and ``c``; zeros start a new document.

    With ``cutoffs`` the softmax is torch's adaptive one (1609.04309): its probabilities are exact and sum to 1, but
    rare tokens (see `rank_by`) share a class, and each further class has weights half as wide.

    The bottleneck follows 1711.00937, except that the state skips it: only the token is compressed, not its past.
    """

    rank: Int[Tensor, " vocab"]
    """Only with ``cutoffs``: the frequency rank of each token; its id before `rank_by`."""

    def __init__(self, config: VQLMConfig) -> None:
        super().__init__()
        self.config = config
        width = config.frame_dim or config.vocab_size
        if config.frame_dim is None:
            self.embed = nn.Embedding(config.vocab_size, config.dim)
            nn.init.normal_(self.embed.weight, std=config.dim**-0.5)
            start = self.embed.weight.detach()
        else:
            self.embed = nn.Linear(config.frame_dim, config.dim)
            start = self.embed(torch.randn(4 * config.codes, config.frame_dim)).detach()
        self.quantiser = Quantiser(config.quantisation, start)
        self.lstm = nn.LSTM(config.dim, config.hidden)
        self.tied = config.tie and config.frame_dim is None and not config.classes
        narrow = self.tied or config.classes
        self.head = nn.Linear(config.hidden, config.dim if narrow else width, bias=False)
        # For tokens the bias of the softmax; for frames the mean of the Gaussian without any context.
        self.bias = None if config.classes else nn.Parameter(torch.zeros(width))
        self.log_variance = nn.Parameter(torch.zeros(width)) if config.frame_dim else None
        self.blank_log_variance = nn.Parameter(torch.zeros(width)) if config.frame_dim else None
        self.softmax = None
        if config.classes:
            self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
                config.dim, config.vocab_size, config.classes, div_value=2.0, head_bias=True
            )
            self.register_buffer("rank", torch.arange(config.vocab_size))
        self.reuse = None
        if config.reuse:
            self.reuse = ReuseHead(config.vocab_size, config.dim, config.hidden, config.horizon)

    @property
    def signals(self) -> tuple[str, ...]:
        """What `score` returns."""
        return SIGNALS if self.reuse is None else (*SIGNALS, "reuse")

    @property
    def policy(self) -> str | Mapping[str, Any]:
        """The policy for these signals: that of the scorer ``reuse`` where there is one."""
        return REUSE_POLICY if self.config.reuse else "scored"

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the vocabulary."""
        return self.config.vocab_size

    @property
    def input_kind(self) -> Literal["tokens", "frames"]:
        """The kind of its input."""
        return "tokens" if self.config.frame_dim is None else "frames"

    def initial_state(self, batch: int) -> State:
        """The state of a new document: zeros."""
        state = empty_state(self.lstm, batch)
        return state if self.reuse is None else self.reuse.initial_state(*state)

    @torch.no_grad()
    def rank_by(self, counts: Int[Tensor, " vocab"]) -> None:
        """Assign the tokens to the classes of the softmax by their counts; call it before training.

        Ties are in the order of ids. So are the rarest tenth of the tokens with a count, together with those without: a
        class without any training token would lose all its probability. Without this call the order is that of the ids,
        which falls roughly with frequency for a BPE. Does nothing for a full softmax.
        """
        if self.softmax is not None:
            frequent = int(counts.count_nonzero()) * 9 // 10
            order = counts.argsort(descending=True, stable=True)
            order[frequent:] = order[frequent:].sort().values
            self.rank[order] = torch.arange(len(order)).to(self.rank)

    @torch.no_grad()
    def score(self, tokens: Tokens, state: State) -> tuple[Float[Tensor, "batch time signal"], State]:
        """The `signals` of each token, in nats (frames: nats per dimension), and the state after the last.

        The codebook does not change, even in training mode.
        """
        parts = [self.head.weight.new_zeros(tokens.shape[0], 0, len(self.signals))]
        known = on_host(tokens) if self.config.frame_dim is None else tokens
        for part in known.split(max(1, CHUNK // tokens.shape[0]), 1) if tokens.numel() else ():
            part = to_device(part, tokens.device)
            rows, targets, index = self._rows(part)
            quantised = self.quantiser.look(rows)[0]
            rebuilt, blank, after = run_twin_lstm(self.lstm, rows, quantised, index.t(), (state[0], state[1]))
            surprise = self._nll_in_cache(rebuilt, part.transpose(0, 1)).t()
            rarity = self._nll_in_cache(blank, targets, blank=True)[index]
            columns = [surprise, rarity, rarity - surprise]
            if self.reuse is not None:
                again, after = self.reuse(part, F.embedding(index, rows), rebuilt.transpose(0, 1), state, after)
                columns.append(self.reuse.signal(part, again).to(surprise))
            state = after
            parts.append(torch.stack(columns, -1))
        return torch.cat(parts, 1), state

    def training_step(self, tokens: Tokens, state: State, mask: Bool[Tensor, "batch time"]) -> tuple[Loss, State]:
        """Mean score of the tokens in the mask plus the commitment loss, and the state after the last token, detached.

        With ``reuse`` the loss of its head is added.

        Codebooks move towards the tokens in the mask. Metrics: ``surprise`` and ``rarity`` in nats, ``residual`` (the
        surprise in bits), ``rate`` in bits, ``codes_used`` and ``dead_codes`` of this batch, ``commitment``. Raises
        ValueError if the mask is empty.
        """
        counted, device = on_host(mask), mask.device
        if not counted.any():
            raise ValueError("the mask of this batch leaves no token to train on; skip the batch")
        rows, _, index = self._rows(tokens)
        seen = choose(index, mask)
        quantised, codes, commitment = self.quantiser(rows.index_select(0, seen))
        # All copies of a row have the same code, so that any copy will do; rows outside the mask do not count.
        copy = seen.new_zeros(rows.shape[0]).scatter_(0, seen, torch.arange(len(seen), device=seen.device))
        twins = quantised.index_select(0, copy)
        rebuilt, blank, (h, c) = run_twin_lstm(self.lstm, rows, twins, index.t(), (state[0], state[1]))
        after = (h.detach(), c.detach())
        dropped = counted & (torch.rand(mask.shape) < self.config.state_dropout)
        kept = places(counted & ~dropped, device)
        without = places(dropped, device)
        nll = self.nll(rebuilt, tokens.transpose(0, 1)).t()
        metrics = {**usage(codes, self.quantiser.sizes), "commitment": commitment}
        # A metric without tokens in this batch is left out instead of logged as not-a-number.
        if len(kept):
            metrics["surprise"] = nll.flatten()[kept].mean()
            metrics["residual"] = precise(metrics["surprise"]) / math.log(2)
        if len(without):
            rare = self.nll(blank.index_select(0, index.flatten()[without]), tokens.flatten(0, 1)[without], blank=True)
            nll = nll.flatten().index_put((without,), rare).view(mask.shape)
            metrics["rarity"] = rare.mean()
        loss = (nll * mask).sum() / mask.sum() + commitment
        if self.reuse is not None:
            again, after = self.reuse(tokens, F.embedding(index, rows), rebuilt.transpose(0, 1), state, after)
            reuse = self.reuse.loss(tokens, again, mask)
            loss, metrics = loss + reuse.value, {**metrics, **reuse.metrics}
        return Loss(loss, metrics), after

    @torch.no_grad()
    def codes(self, tokens: Tokens) -> Int[Tensor, "batch time"] | Int[Tensor, "batch time groups"]:
        """The code of each token; ``residual`` and ``product`` give one for each stage or slice."""
        rows, _, index = self._rows(tokens)
        codes = self.quantiser.look(rows)[1][index]
        return codes.squeeze(-1) if self.config.quantiser in ("vq", "fsq") else codes

    def report(self, tokens: Tokens, mask: Bool[Tensor, "batch time"] | None = None) -> dict[str, float]:
        """Evaluate documents, one a row, each from an empty state.

        Mean of each signal in nats; ``rate`` (entropy of the codes) and ``residual`` (surprise)
        in bits per token, to be read together; ``codes_used`` and ``dead_codes``: codes that occur and that do not.
        With ``reuse`` the figures of `reuse_report` too.
        """
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask
        if not mask.any():
            raise ValueError("the mask leaves no token to report on; give at least one")
        signals, _ = self.score(tokens, self.initial_state(tokens.shape[0]))
        means = dict(zip(self.signals, signals[mask].double().mean(0).tolist(), strict=True))
        codes = self.codes(tokens)[mask].reshape(int(mask.sum()), -1)
        means["residual"] = means["surprise"] / math.log(2)
        if self.reuse is not None:
            means |= self.reuse.report(tokens, signals[..., -1], mask)
        return means | {name: float(x) for name, x in usage(codes, self.quantiser.sizes).items()}

    def _rows(self, tokens: Tokens) -> tuple[Float[Tensor, "rows dim"], Tensor, Int[Tensor, "batch time"]]:
        """The distinct embeddings of these tokens, their targets, and the index of each token among them.

        Quantisation, projection to gates and scores without state are computed once for each distinct token.
        """
        if self.config.frame_dim is None:
            ids, index = (to_device(x, tokens.device) for x in torch.unique(on_host(tokens), return_inverse=True))
            return self.embed(ids), ids, index
        frames = tokens.flatten(0, 1)
        index = torch.arange(len(frames), device=frames.device).view(tokens.shape[:2])
        return self.embed(frames), frames, index

    def nll(self, hidden: Float[Tensor, "*n hidden"], targets: Tensor, *, blank: bool = False) -> Float[Tensor, "*n"]:
        """-log p(target | hidden) in nats, or nats per dimension for frames; ``blank``: the state was zero."""
        out = self.head(hidden)
        if self.softmax is not None:
            # Not under autocast: torch's module mixes types. It also counts the targets of each class on the device: a
            # wait in each training step that stays.
            with torch.autocast(out.device.type, enabled=False):
                flat = out.flatten(0, -2).to(self.head.weight.dtype)
                return -self.softmax(flat, self.rank[targets].flatten()).output.view(targets.shape)
        assert self.bias is not None
        log_variance = self.blank_log_variance if blank else self.log_variance
        if log_variance is not None:
            error = (targets - out - self.bias).square() * torch.exp(-log_variance)
            return 0.5 * (error + log_variance + math.log(2 * math.pi)).mean(-1)
        out = F.linear(out, self.embed.weight, self.bias) if self.tied else out + self.bias
        return F.cross_entropy(out.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)

    def _nll_in_cache(
        self, hidden: Float[Tensor, "*n hidden"], targets: Tensor, *, blank: bool = False
    ) -> Float[Tensor, "*n"]:
        """`nll`; on a CPU, where a full softmax would wait for memory, of a few tokens at a time."""
        if hidden.device.type != "cpu" or self.softmax is not None or self.config.frame_dim is not None:
            return self.nll(hidden, targets, blank=blank)
        pairs = zip(hidden.flatten(0, -2).split(ROWS), targets.flatten().split(ROWS), strict=True)
        return torch.cat([self.nll(some, known, blank=blank) for some, known in pairs]).view(targets.shape)

"""Where tokens occurred before and whether they occur again: what predictors of the signal ``reuse`` share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from .loss import Loss

GAPS, COUNTS = 16, 8
"""Classes of the distance to the last occurrence (none, then powers of 2), and of the number of occurrences."""
POLICY = {"name": "scored", "surprise": 0.0, "reuse": 1.0, "scale": "raw"}
"""The policy for this signal: keep tokens that are much likelier to occur again than their frequency predicts."""


class State(NamedTuple):
    """State of each row: of the LSTM, the number of tokens so far, and of each token of the vocabulary.

    ``last`` is the place of a token's last occurrence, from 1 on (0: none), and ``counts`` its number of occurrences.
    """

    h: Float[Tensor, "batch hidden"]
    c: Float[Tensor, "batch hidden"]
    time: Int[Tensor, " batch"]
    last: Int[Tensor, "batch vocab"]
    counts: Int[Tensor, "batch vocab"]


def reuse_loss(
    again: Float[Tensor, "batch time"],
    tokens: Int[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    horizon: int,
    rarity: Float[Tensor, "batch time"],
) -> Loss:
    """The binary cross-entropy of the tokens in the mask whose horizon ends in the segment, weighted by rarity.

    Args:
        again: the predicted log odds that each token occurs again.
        tokens: the segment.
        mask: the tokens that count, as tokens to predict and as occurrences.
        horizon: number of following tokens; half of the segment where that is less.
        rarity: the weights.

    Returns:
        The loss, and as a metric the share of tokens that come again.
    """
    time = tokens.shape[1]
    horizon = _horizon(horizon, time)
    target = comes_again(tokens, mask, horizon).to(again)
    decided = mask & (torch.arange(time, device=tokens.device) < max(1, time - horizon))
    weight = rarity.to(again) * decided
    loss = F.binary_cross_entropy_with_logits(again, target, weight, reduction="sum") / weight.sum().clamp(min=1)
    share = (target * decided).sum() / decided.sum().clamp(min=1)
    return Loss(loss, {"again": loss, "share that comes again": share})


def reuse_report(
    again: Float[Tensor, "batch time"],
    tokens: Int[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    horizon: int,
) -> dict[str, float]:
    """Evaluate predictions on documents, one a row, for tokens whose horizon ends within the document.

    Args:
        again: the predicted log odds that each token occurs again.
        tokens: the documents.
        mask: False at padding.
        horizon: number of following tokens; half of the documents' length where that is less.

    Returns:
        ``cross_entropy`` of whether they occur again, ``base``: the same for a constant prediction (both in nats a
        token, unweighted), and ``again``: the share that occurs again. Empty where the documents are too short.
    """
    horizon = _horizon(horizon, tokens.shape[1])
    ends = mask.sum(1, keepdim=True) - horizon
    decided = mask & (torch.arange(tokens.shape[1], device=tokens.device) < ends)
    if not decided.any():
        return {}
    target = comes_again(tokens, mask, horizon)[decided].double()
    share = target.mean()
    entropy = F.binary_cross_entropy(share.expand_as(target), target)
    found = F.binary_cross_entropy_with_logits(again[decided].double(), target)
    return {"cross_entropy": found.item(), "base": entropy.item(), "again": share.item()}


def _horizon(horizon: int, time: int) -> int:
    """The horizon in a segment of ``time`` tokens."""
    return min(horizon, max(1, time // 2))


def classes(
    gap: Int[Tensor, "batch time"], count: Int[Tensor, "batch time"]
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """The classes of the distances and counts of `look_back`, for two embeddings of `GAPS` and `COUNTS` rows."""
    gap = torch.where(gap > 0, 1 + gap.clamp(min=1).log2().long(), 0).clamp(max=GAPS - 1)
    return gap, count.clamp(max=COUNTS - 1)


def look_back(
    tokens: Int[Tensor, "batch time"], state: State
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"], tuple[Tensor, Tensor]]:
    """The distance of each token to its last occurrence (0: none) and its count before; and the new last and counts."""
    places = state.time[:, None] + torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    order, same = _by_token(tokens)
    within = torch.arange(tokens.shape[1], device=tokens.device).expand_as(order)
    first = torch.where(same, 0, within).cummax(1).values
    rank = torch.empty_like(order).scatter_(1, order, within - first)
    before = torch.where(same, places.gather(1, order.roll(1, 1)), 0)
    before = torch.empty_like(order).scatter_(1, order, before)
    last = torch.where(before > 0, before, state.last.gather(1, tokens))
    count = rank + state.counts.gather(1, tokens)
    # The greatest place is the last; `scatter` would keep any of several.
    seen = state.last.scatter_reduce(1, tokens, places.to(state.last), "amax")
    counts = state.counts.scatter_add(1, tokens, torch.ones_like(tokens, dtype=state.counts.dtype))
    return torch.where(last > 0, places - last, 0), count, (seen, counts)


def comes_again(
    tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], horizon: int
) -> Bool[Tensor, "batch time"]:
    """Whether each token occurs again, in the mask, within the next ``horizon`` tokens of the segment."""
    hidden = torch.where(mask, tokens, -1)
    order, same = _by_token(hidden)
    ahead = (order.roll(-1, 1) - order <= horizon) & same.roll(-1, 1)
    return torch.empty_like(ahead).scatter_(1, order, ahead)


def _by_token(tokens: Int[Tensor, "batch time"]) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
    """Places sorted by token (stable), and whether the place before has the same token."""
    order = tokens.argsort(dim=1, stable=True)
    ordered = tokens.gather(1, order)
    same = torch.cat([torch.zeros_like(ordered[:, :1], dtype=torch.bool), ordered[:, 1:] == ordered[:, :-1]], 1)
    return order, same

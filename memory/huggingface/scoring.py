"""Score the tokens of a pretrained model for the bookkeeping of its cache."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..scorer import ScorerModel, replace_rows


def score(
    scorer: ScorerModel | None, tokens: Int[Tensor, "batch new"], valid: Bool[Tensor, "batch new"], state: Any
) -> tuple[Float[Tensor, "batch new signal"], Any]:
    """Score new tokens. Padding gets zeros and does not change the scorer's state.

    Ids of the scorer's ``vocab_size`` and above count as padding: a model with a padded embedding may generate ids that
    the tokenizer, with which the scorer was trained, does not have.

    Args:
        scorer: The scorer; None gives no signals.
        tokens: Token ids.
        valid: False for padding.
        state: The state of the scorer before these tokens.

    Returns:
        The scorer's signals in nats, and the scorer's state after the tokens.
    """
    if scorer is None:
        return torch.zeros(*tokens.shape, 0, device=tokens.device), None
    vocabulary = getattr(scorer, "vocab_size", None)
    if vocabulary is not None:
        valid = valid & (tokens < vocabulary)
    changes = (valid[:, 1:] != valid[:, :-1]).any(0).nonzero()[:, 0] + 1
    parts = []
    tokens = tokens.where(valid, 0)
    for ids, real in zip(*(x.tensor_split(changes.cpu(), dim=1) for x in (tokens, valid)), strict=True):
        rows = real[:, 0]
        scores, after = scorer.score(ids, state)
        parts.append(scores * rows[:, None, None])
        state = replace_rows(state, after, rows)
    return torch.cat(parts, dim=1), state

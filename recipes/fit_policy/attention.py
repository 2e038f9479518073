"""The attention that a model of transformers pays with its full cache."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache

from ...memory.huggingface.signals import AttentionSignals
from .full_pass import FullPass, of_later

CHUNK = 64
"""Queries whose greatest attention weights are taken together."""
HORIZON = 256
"""Tokens that must follow, so that attention to come is known."""
SINKS = 4
"""The first tokens, which every cache keeps and from which nothing is learnt."""


@torch.no_grad()
def read_full(model: Any, signals: AttentionSignals, ids: Int[Tensor, " time"]) -> FullPass:
    """Read a passage with the full cache; ``signals`` finds the queries of each layer."""
    plain: list[Tensor] = []
    greatest: list[Tensor] = []

    def after(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        states = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        cache: Any = next(x for x in kwargs.values() if isinstance(x, Cache))
        queries = signals.queries(layer, states)
        positions = torch.arange(states.shape[1], device=states.device)[None]
        queries = signals.rotate(queries, *signals.angles(layer, queries, positions))[0]
        rotated = cache.layers[layer.layer_idx].keys
        keys = rotated[0].float()
        scale = getattr(layer, "scaling", None) or signals.width**-0.5
        plain.append(signals.unrotate(layer, rotated, positions.expand(1, len(keys), -1))[0].cpu())
        greatest.append(_greatest(queries.unflatten(0, (len(keys), -1)), keys, scale).cpu())

    hooks = [layer.register_forward_hook(after, with_kwargs=True) for layer in signals.modules]
    try:
        model.base_model(ids[None].to(model.device), use_cache=True)
    finally:
        for hook in hooks:
            hook.remove()
    return FullPass(plain, of_later(torch.stack(greatest)), CHUNK, HORIZON, SINKS)


def _greatest(
    queries: Float[Tensor, "heads group time width"], keys: Float[Tensor, "heads time width"], scale: float
) -> Float[Tensor, "chunks heads time"]:
    """The greatest weight that the queries of each chunk pay to each key, over the heads of queries that share it."""
    found = []
    for start in range(0, keys.shape[1], CHUNK):
        some = queries[:, :, start : start + CHUNK]
        seen = start + some.shape[2]
        logits = scale * some @ keys[:, None, :seen].transpose(-1, -2)
        ahead = torch.ones(some.shape[2], seen, dtype=torch.bool, device=keys.device).triu(start + 1)
        weights = logits.masked_fill_(ahead, -torch.inf).softmax(dim=-1).amax(dim=(1, 2))
        found.append(F.pad(weights, (0, keys.shape[1] - seen)))
    return torch.stack(found)

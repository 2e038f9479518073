"""The attention that a model with its full cache pays to each token, and the keys that predict it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache

from ...memory.huggingface.signals import AttentionSignals

CHUNK = 64
"""Queries whose greatest attention weights are taken together."""
HORIZON = 256
"""Tokens that must follow, so that attention to come is known."""
SINKS = 4
"""The first tokens, which every cache keeps and from which nothing is learnt."""
FLOOR = 1e-5
"""The least attention weight whose logarithm is taken."""


@dataclass(frozen=True)
class FullPass:
    """One passage, read with the full cache.

    Args:
        keys: The keys of each layer before rotation, in float32.
        greatest: The greatest weight that a query of each chunk *or a later one* pays to each key, in each layer and
            head of keys.
    """

    keys: list[Float[Tensor, "heads time width"]]
    greatest: Float[Tensor, "layers chunks heads time"]

    def log_attention(
        self, share: str, first: Int[Tensor, " keys"], keys: Int[Tensor, " keys"]
    ) -> Float[Tensor, "layers heads keys"]:
        """The logarithm of the greatest weight that the queries of the chunks from ``first`` on pay to each key.

        It is that of the mean over what shares a set; axes over which that is taken have the size 1.
        """
        weights = self.greatest[:, first, :, keys].movedim(0, -1)  # advanced indices come first
        over = {"head": (), "layer": (1,), "model": (0, 1)}[share]
        weights = weights.mean(dim=over, keepdim=True) if over else weights
        return weights.clamp(min=FLOOR).log()


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
    later = torch.stack(greatest).flip(1).cummax(1).values.flip(1)
    return FullPass(plain, later)


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


def later_attention(full: FullPass, share: str) -> tuple[Int[Tensor, " keys"], Float[Tensor, "layers groups keys"]]:
    """The logarithm of the attention that each key gets from queries `CHUNK` or more tokens later.

    Returns the keys of which it is known, without the `SINKS`, and the attention for each of what shares a set; that of
    the model is repeated for each layer.
    """
    layers, time = full.greatest.shape[0], full.greatest.shape[-1]
    keys = torch.arange(SINKS, time - HORIZON)
    first = (keys + 2 * CHUNK - 1) // CHUNK
    return keys, full.log_attention(share, first, keys).expand(layers, -1, -1)


def key_features(full: FullPass, share: str) -> Float[Tensor, "layers groups time features"]:
    """What `vqmem.memory.huggingface.learned.predict` weighs, for all keys of a passage and what shares a set."""
    keys = torch.stack(full.keys)
    time = keys.shape[2]
    both = torch.cat([keys, keys.square()], dim=-1)
    by_group = both[:, :, None] if share == "head" else both[:, None]
    flat = by_group.movedim(2, 3).flatten(3)  # [layers, groups, time, heads of a group and features]
    place = torch.arange(1.0, time + 1).expand(*flat.shape[:2], -1)[..., None]
    return torch.cat([flat, torch.ones_like(place), place.log()], dim=-1)

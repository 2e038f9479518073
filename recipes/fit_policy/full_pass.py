"""The attention that a model pays to each token of a passage of which nothing is evicted, and keys to predict it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

FLOOR = 1e-5
"""The least attention weight whose logarithm is taken."""


@dataclass(frozen=True)
class FullPass:
    """One passage of which nothing is evicted.

    Args:
        keys: The keys of each layer before rotation, in float32.
        attention: What each key gets from each chunk, in each layer and head of keys: the greatest weight that a query
            of the chunk *or a later one* pays to it, or the mean weight of the chunk's queries.
        chunk: Tokens of a chunk.
        horizon: Tokens that must follow, so that attention to come is known.
        sinks: The first tokens, which every cache keeps and from which nothing is learnt.
    """

    keys: list[Float[Tensor, "heads time width"]]
    attention: Float[Tensor, "layers chunks heads_of_keys time"]
    chunk: int
    horizon: int
    sinks: int

    def log_attention(
        self, share: str, first: Int[Tensor, " keys"], keys: Int[Tensor, " keys"]
    ) -> Float[Tensor, "layers heads keys"]:
        """The logarithm of the attention that each key gets from the chunk ``first``.

        It is that of the mean over what shares a set; axes over which that is taken have the size 1.
        """
        weights = self.attention[:, first, :, keys].movedim(0, -1)  # advanced indices come first
        over = {"head": (), "layer": (1,), "model": (0, 1)}[share]
        weights = weights.mean(dim=over, keepdim=True) if over else weights
        return weights.clamp(min=FLOOR).log()


def of_later(greatest: Float[Tensor, "layers chunks heads time"]) -> Float[Tensor, "layers chunks heads time"]:
    """The greatest weights of each chunk or a later one, from those of each chunk."""
    return greatest.flip(1).cummax(1).values.flip(1)


def later_attention(full: FullPass, share: str) -> tuple[Int[Tensor, " keys"], Float[Tensor, "layers groups keys"]]:
    """The logarithm of the attention that each key gets from queries a chunk or more later.

    Returns the keys of which it is known, without the sinks, and the attention for each of what shares a set; that of
    the model is repeated for each layer.
    """
    layers, time = len(full.keys), full.attention.shape[-1]
    keys = torch.arange(full.sinks, time - full.horizon)
    first = (keys + 2 * full.chunk - 1) // full.chunk
    return keys, full.log_attention(share, first, keys).expand(layers, -1, -1)


def key_features(full: FullPass, share: str) -> Float[Tensor, "layers groups time features"]:
    """What `vqmem.memory.fitted.predict` weighs, for all keys of a passage and what shares a set."""
    keys = torch.stack(full.keys)
    time = keys.shape[2]
    both = torch.cat([keys, keys.square()], dim=-1)
    by_group = both[:, :, None] if share == "head" else both[:, None]
    flat = by_group.movedim(2, 3).flatten(3)  # [layers, groups, time, heads of a group and features]
    place = torch.arange(1.0, time + 1).expand(*flat.shape[:2], -1)[..., None]
    return torch.cat([flat, torch.ones_like(place), place.log()], dim=-1)

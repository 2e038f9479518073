"""Keys and values of one layer of a bounded cache."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils._pytree import tree_leaves
from transformers.cache_utils import DynamicLayer

from .int8 import pack, unpack
from .positions import Rotation


class VQMemLayer(DynamicLayer):
    """Keys and values of one layer, ``[batch, heads, slots, width]``, in order of position, padding first."""

    keys: Any
    values: Any
    is_croppable = False  # `transformers` asks before it relies on `crop`, which works only until something is evicted

    def __init__(self, storage: str) -> None:
        super().__init__()
        self.storage = storage
        self.seen = 0

    @property
    def count(self) -> int:
        """The number of slots of a row."""
        return self.keys.shape[-2] if self.is_initialized else 0

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,
        keep: Int[Tensor, "batch groups kept"] | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Append new keys and values, then evict all slots but ``keep``.

        Args:
            key_states: The keys of new tokens, ``[batch, heads, new, width]``.
            value_states: Their values.
            args: Not used; `transformers` may give more.
            keep: The slots that stay, for each head or for all; None evicts nothing.
            kwargs: Not used; `transformers` may give more.

        Returns:
            Keys and values of all slots before eviction, for the attention of this pass.
        """
        if self.storage == "int8":  # slots are packed once; attention sees new ones in full precision
            packed = super().update(pack(key_states), pack(value_states))
            old = (unpack(x[..., : -key_states.shape[-2], :], key_states.dtype) for x in packed)
            keys, values = (torch.cat(pair, dim=-2) for pair in zip(old, (key_states, value_states), strict=True))
        else:
            keys, values = super().update(key_states, value_states)
        self.seen += key_states.shape[-2]
        if keep is not None:
            self.keep(keep)
        return keys, values

    def read(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots, unpacked to ``dtype`` where they are stored in 8 bits."""
        if self.storage == "int8":
            return unpack(self.keys, dtype), unpack(self.values, dtype)
        return self.keys, self.values

    def rotate(self, rotation: Rotation, distance: Int[Tensor, "batch groups slots"], dtype: torch.dtype) -> None:
        """Rotate the keys to positions that are ``distance`` tokens later, for each head or for all."""
        keys = self.read(dtype)[0]
        by_group = keys.unflatten(1, (distance.shape[1], -1)).flatten(0, 1)
        keys = rotation(by_group, distance.flatten(0, 1)).view_as(keys)
        self.keys = pack(keys) if self.storage == "int8" else keys

    def keep(self, indices: Int[Tensor, "batch groups kept"]) -> None:
        """Evict all slots but those at ``indices``, which are given for each head or for all."""
        if indices.shape[-1] < self.count:
            self.keys, self.values = (_take(x, indices.to(x.device)) for x in (self.keys, self.values))

    def get_seq_length(self, *args: Any) -> int:
        """Tokens read, evicted ones and padding included: the position of the next token."""
        return self.seen

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """How many keys attention will see, and the column of the first if all are the newest."""
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.count + new, self.seen - self.count

    def reset(self) -> None:
        """Drop all slots."""
        self.keys = self.values = None
        self.is_initialized = False
        self.seen = 0

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` tokens alone. Only where nothing was evicted."""
        if self.is_initialized:
            self.keys, self.values = (x[..., :count, :].clone() for x in (self.keys, self.values))
            self.seen = count


def bytes_of(layer: Any) -> int:
    """Bytes of all tensors of a cache layer of any kind: keys and values, or a recurrent state."""
    return sum(value.nbytes for value in tree_leaves(vars(layer)) if isinstance(value, Tensor))


def _take(x: Tensor, indices: Int[Tensor, "batch groups kept"]) -> Tensor:
    """A copy of the slots at ``indices`` of ``[batch, heads, slots, width]``."""
    if indices.shape[:2] == (1, 1):
        return x.index_select(2, indices[0, 0])
    return x.take_along_dim(indices[..., None], dim=2)

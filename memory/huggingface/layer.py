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
    """Keys and values of one layer, ``[batch, heads, slots, width]``, in order of position, padding first.

    They lie in buffers with spare room behind them, into which new tokens are written. Slots are copied only when some
    are evicted or the buffers grow. Buffers double in size, up to ``room`` slots. ``keys`` and ``values`` are views of
    the slots in use.
    """

    is_croppable = True  # within limits that `VQMemCache` checks before `generate` drafts

    def __init__(self, storage: str, room: int) -> None:
        """A layer without slots; ``storage`` is full or int8."""
        self.storage, self.room = storage, room
        self.seen = self.count = 0
        self._buffers: tuple[Tensor, ...] = ()
        super().__init__()

    @property
    def keys(self) -> Any:
        """The keys of the slots in use; None before the first token."""
        return self._buffers[0][:, :, : self.count] if self._buffers else None

    @keys.setter
    def keys(self, keys: Tensor | None) -> None:
        self._set(0, keys)

    @property
    def values(self) -> Any:
        """The values of the slots in use; None before the first token."""
        return self._buffers[1][:, :, : self.count] if self._buffers else None

    @values.setter
    def values(self, values: Tensor | None) -> None:
        self._set(1, values)

    def _set(self, which: int, slots: Tensor | None) -> None:
        """Replace the keys (0) or values (1), which then have no spare room."""
        if slots is None:
            self._buffers, self.count = (), 0
        else:
            other = self._buffers[1 - which] if self._buffers else slots
            self._buffers = (slots, other) if which == 0 else (other, slots)
            self.count = slots.shape[2]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take over the type, device and shape of the first keys and values."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._buffers = tuple(self._packed(x[:, :, :0]) for x in (key_states, value_states))
        self.is_initialized = True

    @property
    def size(self) -> int:
        """The slots that are allocated."""
        return self._buffers[0].shape[2] if self._buffers else 0

    def restore(self, keys: Tensor, values: Tensor, seen: int, size: int) -> None:
        """Take over what another layer stored.

        Args:
            keys: Its keys.
            values: Its values.
            seen: The tokens it has read.
            size: The slots to allocate; as many as there, so that sums are rounded as there.
        """
        self.dtype, self.device = keys.dtype, keys.device
        self._buffers, self.count, self.seen = (keys, values), keys.shape[2], seen
        self._allocate(size)
        self.is_initialized = True

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
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states, value_states
        before = self.read(key_states.dtype) if self.storage == "int8" else ()
        if _has_gradients():  # attention saves what it reads, which must not change before the backward pass
            self._buffers = tuple(torch.cat([x, self._packed(y)], 2) for x, y in zip(self._in_use, new, strict=True))
        else:
            self.reserve(self.count + key_states.shape[2])
            for buffer, x in zip(self._buffers, new, strict=True):
                buffer[:, :, self.count : self.count + x.shape[2]] = self._packed(x)
        self.count += key_states.shape[2]
        self.seen += key_states.shape[2]
        # Where slots are stored in 8 bits, attention still sees the new ones in full precision.
        keys, values = (torch.cat(x, 2) for x in zip(before, new, strict=True)) if before else self._in_use
        if keep is not None:
            self.keep(keep, in_place=False)  # attention has yet to read the slots
        return keys, values

    def write(self, key_states: Tensor, value_states: Tensor, slots: Int[Tensor, " new"]) -> tuple[Tensor, Tensor]:
        """Write new tokens into ``slots`` and return all slots, used or not: no shape depends on the tokens read.

        For compiled models; `wrote` counts the tokens afterwards.
        """
        keys, values = self._buffers
        keys.index_copy_(2, slots, key_states)
        values.index_copy_(2, slots, value_states)
        return keys, values

    def wrote(self, new: int) -> None:
        """Count ``new`` tokens that `write` has written."""
        self.count += new
        self.seen += new

    def reserve(self, count: int, *, fill: bool = False) -> None:
        """Make room for ``count`` slots in all, with some to spare; ``fill`` takes all of the room at once."""
        wanted = max(count, self.room if fill else 0)
        if self.size < wanted:
            self._allocate(max(wanted, min(2 * wanted, self.room)))
        self._make_writable()

    def _make_writable(self) -> None:
        """Copy buffers that were made in inference mode, outside of which they cannot be written in place."""
        if not torch.is_inference_mode_enabled() and any(x.is_inference() for x in self._buffers):
            self._buffers = tuple(x.clone() for x in self._buffers)

    def _allocate(self, size: int) -> None:
        spare = size - self.count
        self._buffers = tuple(torch.cat([x, x.new_zeros(*x.shape[:2], spare, x.shape[3])], 2) for x in self._in_use)

    @property
    def _in_use(self) -> tuple[Tensor, ...]:
        return tuple(x[:, :, : self.count] for x in self._buffers)

    def _packed(self, x: Tensor) -> Tensor:
        return pack(x) if self.storage == "int8" else x

    def read(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots, unpacked to ``dtype`` where they are stored in 8 bits."""
        keys, values = self._in_use
        return (unpack(keys, dtype), unpack(values, dtype)) if self.storage == "int8" else (keys, values)

    def rotate(self, rotation: Rotation, distance: Int[Tensor, "batch groups slots"], dtype: torch.dtype) -> None:
        """Rotate the keys to positions that are ``distance`` tokens later, for each head or for all."""
        keys = self.read(dtype)[0]
        by_group = keys.unflatten(1, (distance.shape[1], -1)).flatten(0, 1)
        keys = rotation(by_group, distance.flatten(0, 1)).view(keys.shape)
        self._make_writable()
        self._buffers[0][:, :, : self.count] = self._packed(keys)

    def keep(self, indices: Int[Tensor, "batch groups kept"], *, in_place: bool = True) -> None:
        """Evict all slots but those at ``indices``, which are given for each head or for all."""
        kept = indices.shape[-1]
        if kept >= self.count:
            return
        chosen = [_take(x, indices.to(x.device)) for x in self._in_use]
        self.count = kept
        if not in_place or self.size > self.room or _has_gradients():
            self._buffers = tuple(chosen)  # which gives the room of a long prompt back
        else:
            self._make_writable()
            for buffer, x in zip(self._buffers, chosen, strict=True):
                buffer[:, :, :kept] = x

    def get_seq_length(self, *args: Any) -> int:
        """Tokens read, evicted ones and padding included: the position of the next token."""
        return self.seen

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """How many keys attention will see, and the column of the first if all are the newest."""
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.count + new, self.seen - self.count

    def reset(self) -> None:
        """Drop all slots."""
        self._buffers = ()
        self.is_initialized = False
        self.seen = self.count = 0

    def truncate(self, remove: int) -> None:
        """Forget the last ``remove`` tokens, none of which was evicted."""
        self.count -= remove
        self.seen -= remove


def bytes_of(layer: Any) -> int:
    """Bytes of all tensors of a cache layer of any kind: keys and values, or a recurrent state."""
    return sum(value.nbytes for value in tree_leaves(vars(layer)) if isinstance(value, Tensor))


def _has_gradients() -> bool:
    return torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def _take(x: Tensor, indices: Int[Tensor, "batch groups kept"]) -> Tensor:
    """A copy of the slots at ``indices`` of ``[batch, heads, slots, width]``."""
    if indices.shape[:2] == (1, 1):
        return x.index_select(2, indices[0, 0])
    return x.take_along_dim(indices[..., None], dim=2)

"""Attention masks for slots, and masks that record the attention weights of the pass that uses them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from transformers.masking_utils import create_masks_for_generate

from .groups import Groups
from .supported_models import MASKED, placement, text_config

_BLOCK = 128
"""Queries whose attention is computed at a time; bounds the peak memory of all heads."""
_ADD = (torch.add, Tensor.add, Tensor.add_)
"""The functions with which eager attention adds a mask to its logits."""


class AttentionRecorder:
    """Records the attention weights of one forward pass, layer by layer.

    Args:
        queries: Record the last so many new tokens; None records all.
        groups: The heads that share slots; weights are averaged over them.
        receive: Called with the weights of each layer, ``[batch, groups in a layer, queries, slots]``.
    """

    def __init__(self, queries: int | None, groups: Groups, receive: Callable[[Tensor], None]) -> None:
        self.queries, self.groups, self.receive = queries, groups, receive

    @torch.no_grad()
    def add_products(self, query: Tensor, key: Tensor, mask: Tensor, scale: float | None) -> None:
        """Record a layer that calls ``scaled_dot_product_attention``, by computing its weights a second time.

        Args:
            query: Queries, ``[batch, heads, new, width]``.
            key: Keys, ``[batch, heads or fewer, slots, width]``.
            mask: Boolean or additive mask, ``[batch, 1, new, slots]``.
            scale: Factor of the logits; 1 / sqrt(width) if None.
        """
        new = mask.shape[2]
        groups = key.shape[1]
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        # Heads that share a key head are neighbours or, for a single token, on the query axis (`pack_gqa`).
        query = query.unflatten(1, (groups, -1)) if query.shape[2] == new else query.unflatten(2, (-1, new))
        query = query[..., self._start(new) :, :]
        mask = mask[:, :, None, self._start(new) :]
        parts = []
        for q, m in zip(query.split(_BLOCK, 3), mask.split(_BLOCK, 3), strict=True):
            logits = (torch.einsum("bgnqd,bgkd->bgnqk", q, key) * factor).float()
            logits = logits.masked_fill(~m, -torch.inf) if m.dtype == torch.bool else logits + m
            parts.append(self.groups.reduce(logits.softmax(dim=-1).mean(dim=2)))
        self.receive(torch.cat(parts, dim=2))

    @torch.no_grad()
    def add_logits(self, logits: Float[Tensor, "batch heads new slots"]) -> None:
        """Record a layer of eager attention, from its masked logits."""
        self.receive(self.groups.reduce(logits[:, :, self._start(logits.shape[2]) :].float().softmax(dim=-1)))

    def _start(self, new: int) -> int:
        return 0 if self.queries is None else max(0, new - self.queries)


class RecordingMask(Tensor):
    """A mask that records the attention it is used in, so that no module of the model has to be patched.

    It works as `torch.nn.attention.bias.CausalBias` does. Slices and copies of the mask record too; the result of any
    other operation is a plain tensor.
    """

    recorder: AttentionRecorder

    @classmethod
    def of(cls, mask: Tensor, recorder: AttentionRecorder) -> RecordingMask:
        """``mask`` as one that records into ``recorder``."""
        mask = mask.as_subclass(cls)
        mask.recorder = recorder
        return mask

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call ``func`` with the mask as a plain tensor, and record attention."""
        given = (*args, *(kwargs or {}).values())
        mask = next((x for x in given if isinstance(x, cls)), None)
        with torch.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            if mask is None:  # it is within a list, as for `torch.cat`
                return result
            if func is functional.scaled_dot_product_attention:
                _record(mask.recorder, *args, **(kwargs or {}))
            elif func in _ADD and result.is_floating_point():
                mask.recorder.add_logits(result)
            alone = not any(isinstance(x, Tensor) for x in given if x is not mask)
            if alone and isinstance(result, Tensor) and getattr(func, "__name__", "") != "__get__":
                return cls.of(result, mask.recorder)
        return result


def _record(
    recorder: AttentionRecorder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    """Record a call of ``scaled_dot_product_attention``, whose parameters these are."""
    recorder.add_products(query, key, attn_mask, scale)


def set_mask(
    arguments: dict[str, Any],
    cached: Bool[Tensor, "batch slots"],
    forward: Any,
    model: Any,
) -> None:
    """Give a pass the mask that fits the slots, or none where attention needs none.

    Args:
        arguments: The arguments of the call; changed in place.
        cached: False for cached slots that are not valid: as many, and the first, in every group of a row.
        forward: The `ForwardPass`, which says which new tokens are padding, and records attention weights or not.
        model: The model, unwrapped.

    Raises:
        ValueError: The model takes no such mask.
    """
    given, valid, recorder = arguments.get("attention_mask"), forward.valid, forward.recorder
    seen = forward.columns - valid.shape[1]
    padded = not (valid.all() and cached.all())
    # Until something is evicted, the slots are the columns of the caller's mask.
    fits = cached.shape[1] == seen and given is not None and given.shape[1] == seen + valid.shape[1]
    if forward.slots is None and recorder is None and (fits or not padded):
        if not fits:
            arguments["attention_mask"] = None
        return
    dtype, _ = placement(model)
    config = text_config(model)
    mask = mask_of(cached, valid, config._attn_implementation, dtype)
    mask = mask if recorder is None else RecordingMask.of(mask, recorder)
    if forward.slots is not None:  # no token sees the slots that are not used yet
        hidden = False if mask.dtype == torch.bool else torch.finfo(dtype).min
        mask = functional.pad(mask, (0, forward.room - mask.shape[3]), value=hidden)
    if forward.groups.layers == len(forward.layers):
        arguments["attention_mask"] = mask
        return
    # Layers that bound themselves keep the mask that `transformers` makes of the columns.
    embeds = torch.empty(*valid.shape, 0, dtype=dtype, device=valid.device)
    columns = torch.arange(seen, forward.columns, device=valid.device)
    passed: dict[str, Any] = {"attention_mask": given, "position_ids": None, "cache_position": columns}
    passed |= dict.fromkeys(("cache", "past_key_values"), forward)
    known = inspect.signature(create_masks_for_generate).parameters.keys()  # releases differ
    masks = create_masks_for_generate(config, embeds, **{name: passed[name] for name in known & passed.keys()})
    if not isinstance(masks, dict) or "full_attention" not in masks:
        raise ValueError(f"{type(model).__name__} takes one mask for layers of two kinds; give texts without padding")
    arguments["attention_mask"] = {**masks, "full_attention": mask}


def mask_of(
    cached: Bool[Tensor, "batch slots"], new: Bool[Tensor, "batch new"], implementation: str, dtype: torch.dtype
) -> Tensor:
    """The attention mask of new tokens: each sees the valid slots, and the valid new tokens up to itself.

    Padding sees itself, so that no row of the softmax is empty.

    Args:
        cached: False for cached slots that are not valid.
        new: False where a new token is padding.
        implementation: The attention implementation of the model.
        dtype: The type of an additive mask.

    Returns:
        ``[batch, 1, new, slots + new]``, additive for ``eager`` and else boolean.

    Raises:
        ValueError: The implementation takes no such mask.
    """
    if implementation not in MASKED:
        raise ValueError(
            f"attn_implementation={implementation!r} cannot mask padding between slots or record attention; "
            f"load the model with one of {', '.join(MASKED)}"
        )
    time = new.shape[1]
    itself = torch.eye(time, dtype=torch.bool, device=new.device)
    causal = (new[:, None] | itself) & torch.ones_like(itself).tril()
    visible = torch.cat([cached[:, None].expand(-1, time, -1), causal], dim=2)[:, None]
    if implementation != "eager":
        return visible
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)

"""What a cache for `transformers` needs of the model's forward pass and is not told: token ids, masks, attention."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..models.scorers.base import SIGNALS, ScorerModel
from ._hf_models import MASKED, text_config

_WATCHED = "vqmem_watched"
"""Our name among the attention functions of `transformers`, in force during a pass that is watched."""
_BLOCK = 128
"""Queries whose attention is made at a time: bounds the memory that heads side by side take."""


class Watch:
    """Collects the attention weights of a pass, averaged over heads and layers, of its last ``queries`` (None: all)."""

    def __init__(self, queries: int | None) -> None:
        self.queries, self.layers = queries, 0
        self.total: Tensor | None = None

    @property
    def weights(self) -> Float[Tensor, "batch queries slots"]:
        """The mean over layers. Raises `ValueError` where the model's attention was out of reach."""
        if self.total is None:
            raise ValueError(
                "the model's attention cannot be watched (it does not use transformers' attention functions); "
                "use a policy that needs no attention weights, such as scored or fifo"
            )
        return self.total / self.layers

    @torch.no_grad()
    def add(self, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None) -> None:
        """Take note of a layer: queries ``[batch, heads, queries, width]``, keys ``[batch, groups, slots, width]``."""
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        count = query.shape[2] if self.queries is None else min(self.queries, query.shape[2])
        blocks = query[:, :, query.shape[2] - count :].split(_BLOCK, dim=2)
        masks = [None] * len(blocks) if mask is None else mask[:, :, mask.shape[2] - count :].split(_BLOCK, dim=2)
        seen = torch.cat([_weights(q, key, m, scale) for q, m in zip(blocks, masks, strict=True)], dim=1)
        self.total = seen if self.total is None else self.total + seen
        self.layers += 1


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Float[Tensor, "batch queries slots"]:
    """Softmax attention averaged over heads, in float32; a key head serves a group of query heads."""
    grouped = query.unflatten(1, (key.shape[1], -1))
    logits = (torch.einsum("bgnqd,bgkd->bgnqk", grouped, key) * scaling).float()
    if mask is not None:
        mask = mask[:, :, None]
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(dim=-1).flatten(1, 2).mean(dim=1)


_watch: ContextVar[Watch | None] = ContextVar("vqmem_watch", default=None)


def _watched_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,  # kvpress, which wraps all attention functions, gives it by place
    **kwargs: Any,
) -> Any:
    """``sdpa``, looked at: the weights are made once more beside it, so that its kernel stays in use."""
    odd = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if odd:
        raise ValueError(
            f"the attention of {type(module).__name__} has {odd[0]}, which is not watched; "
            "use a policy that needs no attention weights, such as scored or fifo"
        )
    watch = _watch.get()
    if watch is not None:
        watch.add(query, key, attention_mask, kwargs.get("scaling"))
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, **kwargs)


AttentionInterface.register(_WATCHED, _watched_attention)


def attach(model: Any, cache: Any, layers: Sequence[nn.Module] = ()) -> Callable[[], Any]:
    """Let ``cache`` take part in the passes of ``model`` that use it; gives what ends that.

    Before a pass ``cache.begin`` gives the arguments to use and a `Watch` if attention is to be looked at; after each
    of ``layers`` (attention modules) comes ``cache.judge`` and after the pass ``cache.finish``, or ``cache.fail`` where
    it did not reach its end. The hooks know the cache weakly and go when it does; passes without it are left alone.
    """
    held, config = weakref.ref(cache), text_config(model)
    names = list(inspect.signature(model.forward).parameters)
    running: list[tuple[Any, Watch | None, str]] = []

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]] | None:
        cache = held()
        named = dict(zip(names, args, strict=False)) | kwargs
        if cache is None or not any(value is cache for value in named.values()):
            return None
        implementation = config._attn_implementation
        named, watch = cache.begin(named, implementation, model.dtype)
        running.append((cache, watch, implementation))
        if watch is not None:
            config._attn_implementation = _WATCHED
            _watch.set(watch)
        return (), named

    def after(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not running:
            return
        cache, watch, implementation = running.pop()
        if watch is not None:
            config._attn_implementation = implementation
            _watch.set(None)
        if output is None:
            cache.fail()
        else:
            cache.finish(watch)

    def beside(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if running and any(value is running[-1][0] for value in kwargs.values()):
            running[-1][0].judge(layer, kwargs, output[1])

    handles = (
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, with_kwargs=True, always_call=True),
        *(layer.register_forward_hook(beside, with_kwargs=True) for layer in layers),
    )
    return weakref.finalize(cache, _remove, handles)


def _remove(handles: tuple[Any, ...]) -> None:
    for handle in handles:
        handle.remove()


def new_tokens(named: dict[str, Any], seen: int) -> tuple[Tensor, Bool[Tensor, "batch new"]]:
    """Token ids of a pass (-1 where it was given embeddings) and which of them are no padding.

    Raises `ValueError` for a mask that does not say so: one that is not 2-D, or of a length that does not fit.
    """
    ids, embeds, mask = (named.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
    if ids is None:
        if embeds is None:
            raise ValueError("the model was called without input_ids; the cache needs them, by name or first in place")
        ids = torch.full(embeds.shape[:2], -1, device=embeds.device)
    batch, time = ids.shape
    if mask is None:
        return ids, torch.ones_like(ids, dtype=torch.bool)
    if mask.ndim != 2 or mask.shape[0] != batch or mask.shape[1] not in (time, seen + time):
        raise ValueError(
            f"attention_mask has the shape {list(mask.shape)}; give the cache a 2-D one of {batch} rows over all "
            f"{seen + time} tokens so far, or none where nothing is padding"
        )
    return ids, mask[:, -time:].to(ids.device).bool()


def score(
    scorer: ScorerModel | None, tokens: Int[Tensor, "batch new"], valid: Bool[Tensor, "batch new"], state: Any
) -> tuple[Float[Tensor, "batch new signal"], Any]:
    """Scores of new tokens, zeros without a scorer. Padding gets zeros, and a row's scorer does not read it.

    So do ids past the scorer's ``vocab_size``: a model whose embedding is padded may generate what its tokenizer, by
    which the scorer was trained, does not have.

    Raises `ValueError` where a scorer has no token ids to read.
    """
    if scorer is None:
        return torch.zeros(*tokens.shape, len(SIGNALS), device=tokens.device), None
    if bool((tokens[valid] < 0).any()):
        raise ValueError("scores need token ids, but the model was given inputs_embeds; give input_ids")
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
        state = tree_map(lambda new, old, rows=rows: _where(rows, new, old), after, state)
    return torch.cat(parts, dim=1), state


def _where(rows: Bool[Tensor, " batch"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (new.ndim - 1)), new, old)


def mask_of(
    held: Bool[Tensor, "batch slots"], new: Bool[Tensor, "batch new"], implementation: str, dtype: torch.dtype
) -> Tensor:
    """What each new token may attend to, ``[batch, 1, new, slots + new]``: valid slots, and valid ones before it.

    Boolean, or additive for ``eager``. Padding sees itself, so that no row of the softmax is empty. Raises `ValueError`
    for an implementation that takes no such mask.
    """
    if implementation not in MASKED:
        raise ValueError(
            f"attn_implementation={implementation!r} cannot leave out padding between slots, or be watched; "
            f"load the model with one of {', '.join(MASKED)}"
        )
    time = new.shape[1]
    itself = torch.eye(time, dtype=torch.bool, device=new.device)
    among = (new[:, None] | itself) & torch.ones_like(itself).tril()
    visible = torch.cat([held[:, None].expand(-1, time, -1), among], dim=2)[:, None]
    if implementation != "eager":
        return visible
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)

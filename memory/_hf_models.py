"""Which pretrained models a cache with evicted slots works for, and why the others are refused."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

MASKED = ("sdpa", "eager")
"""The attention implementations that take a mask of any form."""


def count_layers(model: Any) -> int:
    """How many layers of ``model`` (a `transformers` decoder) hold keys and values.

    Raises `ValueError`, naming the reason, for a model whose layers or positions do not allow slots to be left out.
    """
    name = type(model).__name__
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ValueError(f"model={name} is no transformers model; give the model that generates")
    reason = _reason(model, config, config.get_text_config(decoder=True))
    if reason:
        raise ValueError(f"{name} {reason}; use a decoder in which every layer attends to all earlier tokens")
    return len(DynamicCache(config=config).layers)


def text_config(model: Any) -> Any:
    """The part of the config that the decoder's layers read."""
    return model.config.get_text_config(decoder=True)


def _reason(model: Any, config: Any, text: Any) -> str | None:
    """Why ``model`` cannot work, None if it can."""
    if config.is_encoder_decoder:
        return "is an encoder-decoder, whose cache holds the encoder's keys too"
    supports = getattr(model, "_supports_default_dynamic_cache", None)
    if supports is None:
        return "cannot generate (it has no head, or is no decoder)"
    if not supports():
        return "carries a recurrent state or a cache of its own kind, which has no slots to evict"
    if _has_alibi(text):
        return "biases attention by distance between columns (ALiBi), which evicted slots would shift"
    if "local" in getattr(
        text, "attention_layers", ()
    ):  # GPT-Neo, whose windows count columns out of the cache's sight
        return "has layers with local attention, whose windows evicted slots would shift"
    kinds = {type(layer).__name__ for layer in DynamicCache(config=config).layers if type(layer) is not DynamicLayer}
    if kinds:
        return f"has layers that do not attend to all earlier tokens ({', '.join(sorted(kinds))})"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return "takes no position_ids, so that new tokens cannot be told where they stand"
    return None


def _has_alibi(config: Any) -> bool:
    attention = getattr(config, "attn_config", None)
    return config.model_type in ("bloom", "mpt") or bool(
        getattr(config, "alibi", False)
        or getattr(attention, "alibi", False)
        or getattr(config, "position_embedding_type", None) == "alibi"
    )

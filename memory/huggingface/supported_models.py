"""Which pretrained models a cache with evicted slots supports, and why it refuses the others."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

MASKED = ("sdpa", "eager")
"""The attention implementations that take any mask."""


def unwrap(model: Any) -> Any:
    """The `transformers` model within the wrappers of peft, ``torch.compile`` and data-parallel training.

    Raises `ValueError` for a wrapper that adds tokens or another cache to every pass (prompt learning).
    """
    while isinstance(model, nn.Module):
        peft: Any = getattr(model, "active_peft_config", None)
        if peft is not None and peft.is_prompt_learning:
            raise ValueError(
                f"{type(model).__name__} with {peft.peft_type.name} adds tokens or another cache to every pass; "
                "use an adapter that changes weights, such as LoRA"
            )
        parts = dict(model.named_children())
        within = cast(Any, model).get_base_model() if peft else parts.get("_orig_mod", parts.get("module"))
        if within is None:
            break
        model = within
    return model


def placement(model: Any) -> tuple[torch.dtype, torch.device]:
    """The type and the device of the first floating-point weights."""
    return next((x.dtype, x.device) for x in model.parameters() if x.is_floating_point())


def attention_layers(model: Any) -> list[Any]:
    """The modules that write into a cache."""
    return [module for module in model.modules() if hasattr(module, "layer_idx")]


def refuse_presses(layers: Sequence[nn.Module]) -> None:
    """Raise `ValueError` if a press of kvpress is active on a model whose cache evicts already."""
    for hook in (hook for layer in layers for hook in layer._forward_hooks.values()):
        kinds = inspect.getmro(type(getattr(hook, "__self__", hook)))
        names = {getattr(hook, "__module__", None) or "", *(kind.__module__ for kind in kinds)}
        if any(name.split(".")[0] == "kvpress" for name in names):
            raise ValueError(
                "a press of kvpress is on the model and would evict from this cache besides its policy; leave the "
                "press's `with`, or give it to the cache: policy=PressPolicy(press)"
            )


def count_layers(model: Any) -> int:
    """How many layers of ``model`` (a `transformers` decoder) have keys and values.

    Raises `ValueError`, with the reason, for a model whose layers or positions do not work with evicted slots.
    """
    name = type(model).__name__
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ValueError(f"model={name} is no transformers model; give the model that generates")
    reason = _reason(model, config, config.get_text_config(decoder=True))
    if reason:
        raise ValueError(f"{name} {reason}; use a decoder in which every layer attends to all earlier tokens")
    return len(DynamicCache(config=config).layers)


def key_heads(model: Any) -> int:
    """How many heads of keys and values a layer has."""
    config = text_config(model)
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def text_config(model: Any) -> Any:
    """The part of the config that the decoder's layers read."""
    return model.config.get_text_config(decoder=True)


def _reason(model: Any, config: Any, text: Any) -> str | None:
    """Why the cache does not support ``model``; None if it does."""
    if config.is_encoder_decoder:
        return "is an encoder-decoder, whose cache has the encoder's keys too"
    supports = getattr(model, "_supports_default_dynamic_cache", None)
    if supports is None:
        return "cannot generate (it has no head, or is no decoder)"
    if not supports():
        return "carries a recurrent state or another kind of cache, which has no slots to evict"
    if _has_alibi(text):
        return "biases attention by distance between columns (ALiBi), which evicted slots would shift"
    if "local" in getattr(text, "attention_layers", ()):  # GPT-Neo, whose windows count columns without the cache
        return "has layers with local attention, whose windows evicted slots would shift"
    kinds = {type(layer).__name__ for layer in DynamicCache(config=config).layers if type(layer) is not DynamicLayer}
    if kinds:
        return f"has layers that do not attend to all earlier tokens ({', '.join(sorted(kinds))})"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return "takes no position_ids, so that new tokens cannot get their positions"
    return None


def _has_alibi(config: Any) -> bool:
    attention = getattr(config, "attn_config", None)
    return config.model_type in ("bloom", "mpt") or bool(
        getattr(config, "alibi", False)
        or getattr(attention, "alibi", False)
        or getattr(config, "position_embedding_type", None) == "alibi"
    )

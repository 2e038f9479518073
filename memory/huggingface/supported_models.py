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
    """The modules that write into a cache: the innermost that know the number of their layer."""
    numbered = [module for module in model.modules() if hasattr(module, "layer_idx")]
    return [module for module in numbered if not any(hasattr(x, "layer_idx") for x in [*module.modules()][1:])]


def is_compiled(model: Any) -> bool:
    """Whether the model runs through ``torch.compile``."""
    return hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None


def refuse_presses(layers: Sequence[nn.Module]) -> None:
    """Raise `ValueError` if a press of kvpress is active on a model whose cache evicts already."""
    # Torch has no public list of hooks.
    for hook in (hook for x in layers for hook in x._forward_hooks.values()):  # pyright: ignore[reportPrivateUsage]
        kinds = inspect.getmro(type(getattr(hook, "__self__", hook)))
        names = {getattr(hook, "__module__", None) or "", *(kind.__module__ for kind in kinds)}
        if any(name.split(".")[0] == "kvpress" for name in names):
            raise ValueError(
                "a press of kvpress is on the model and would evict from this cache besides its policy; leave the "
                "press's `with`, or give it to the cache: policy=PressPolicy(press)"
            )


def layers_of(model: Any) -> list[Any]:
    """The empty cache layers that `transformers` gives ``model``, a decoder; a `DynamicLayer` can be bounded.

    Raises `ValueError`, with the reason, for a model whose layers or positions do not work with evicted slots.
    """
    name = type(model).__name__
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ValueError(f"model={name} is not a transformers model; give the model that generates")
    reason = _reason(model, config, config.get_text_config(decoder=True))
    if reason:
        raise ValueError(f"{name} {reason}; use a decoder whose layers, or some, attend to all earlier tokens")
    return DynamicCache(config=config).layers


def bounded(layers: Sequence[Any]) -> tuple[int, ...]:
    """The indices of the layers that attend to all earlier tokens, whose slots have to be evicted."""
    return tuple(index for index, layer in enumerate(layers) if type(layer) is DynamicLayer)


def key_shape(model: Any) -> tuple[int, int] | None:
    """How many heads of keys and values a layer has, and their width; None where layers differ or keys are latent."""
    config = text_config(model)
    if hasattr(config, "kv_lora_rank"):
        return None
    try:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        return heads, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    except RuntimeError:  # what `transformers` raises for an attribute that layers do not share
        return None


def text_config(model: Any) -> Any:
    """The part of the config that the decoder's layers read."""
    return model.config.get_text_config(decoder=True)


def _reason(model: Any, config: Any, text: Any) -> str | None:
    """Why the cache does not support ``model``; None if it does."""
    if config.is_encoder_decoder:
        return "is an encoder-decoder, whose cache has the encoder's keys too"
    supports = getattr(model, "_supports_default_dynamic_cache", None)
    if supports is None:
        return "cannot generate (it has no head, or is not a decoder)"
    if not supports():
        return "carries a recurrent state or another kind of cache, which has no slots to evict"
    if _has_alibi(text):
        return "biases attention by distance between columns (ALiBi), which evicted slots would shift"
    if "local" in getattr(text, "attention_layers", ()):  # GPT-Neo, whose windows count columns without the cache
        return "has layers with local attention, whose windows evicted slots would shift"
    layers = DynamicCache(config=config).layers
    if not bounded(layers):
        kinds = sorted({type(layer).__name__ for layer in layers})
        return f"has no layer that only attends to all earlier tokens ({', '.join(kinds)})"
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

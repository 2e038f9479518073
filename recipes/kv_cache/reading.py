"""A text that is read once for all caches that evict at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from ...memory.huggingface.cache import VQMemCache
from ...memory.huggingface.cache_argument import cache_argument
from ...memory.huggingface.eviction import observes_pass
from ...memory.huggingface.supported_models import attention_layers, bounded
from .presses import PressCache


@dataclass(frozen=True)
class TextReading:
    """One pass of a model over a text, which caches can take over in place of a pass of their own.

    Args:
        model: the pretrained language model.
        ids: the text.
        full: a `DynamicCache` with the keys and values of all layers.
        calls: the attention modules, and the arguments with which each was called.
    """

    model: Any
    ids: Int[Tensor, "1 time"]
    full: Any
    calls: list[tuple[Any, dict[str, Any]]]

    def serves(self, cache: Any) -> bool:
        """Whether an empty cache needs no more of a pass than what is here: keys and values, no attention weights."""
        if len(bounded(self.full.layers)) < len(self.full.layers):
            return False  # a window or a recurrent state is not the keys and values of the text
        if isinstance(cache, PressCache):
            return cache.config is None or bool(cache.scores)
        return isinstance(cache, VQMemCache) and not observes_pass(cache)

    def fill(self, cache: Any) -> None:
        """Let an empty cache take over the pass, and evict at its end; see `serves`."""
        forward = cache.begin({"input_ids": self.ids})
        forward.module = self.model
        try:
            for layer, inputs in self.calls:
                cached = self.full.layers[layer.layer_idx]
                forward.update(cached.keys, cached.values, layer.layer_idx)
                if forward.watches_layers:
                    forward.after_layer(layer, inputs, None)
        except BaseException:
            forward.fail()
            raise
        forward.finish()


@torch.no_grad()
def read_text(model: Any, ids: Int[Tensor, "1 time"]) -> TextReading:
    """Read a text in one pass and evict nothing."""
    full, calls = DynamicCache(config=model.config), []

    def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        inputs = kwargs if "hidden_states" in kwargs else kwargs | {"hidden_states": args[0]}
        calls.append((layer, {name: x for name, x in inputs.items() if not isinstance(x, Cache)}))

    handles = [layer.register_forward_hook(record, with_kwargs=True) for layer in attention_layers(model)]
    try:
        model(ids, **cache_argument(full), logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return TextReading(model, ids, full, calls)

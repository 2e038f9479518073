"""What a bounded cache costs: bytes at their most, time a token however long the stream, and what the scorer adds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _results import figure
from jaxtyping import Int
from kv_stream import held
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache
from vqmem.memory.hf_cache import VQMemCache

CAPACITY, CHUNK = 256, 512
"""Slots, and tokens that a prompt is read in at a time."""
LENGTHS = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
"""Tokens read before decoding is timed."""
AGAINST = 8_192
"""The length at which `DynamicCache` decodes the same."""


def cost(model: Any, scorer: nn.Module, make: Callable[[str], VQMemCache], ids: Tensor, quick: bool) -> dict[str, Any]:
    """All figures. ``make`` gives an empty cache for ``"scored"`` and ``"sink_recent"``; ``ids`` is a long text."""
    lengths = [length for length in LENGTHS if length <= (1024 if quick else ids.shape[1])]
    count = 4 if quick else 32
    cache = make("scored")
    seconds, most = decoding(model, cache, ids, lengths, count)
    slot = slot_bytes(cache)
    last = min(AGAINST, lengths[-1])
    theirs = statistics.median(decode(model, filled(model, last, slot), ids[:, :1], count))
    plain, scored = prefill(model, make, ids[:, : 2 * CHUNK if quick else 4 * CHUNK], 1 if quick else 5)
    share = scorer_flops(scorer, ids[:, :CHUNK]) / flops(lambda: model(ids[:, :CHUNK]))
    milliseconds = {f"{length}, ms": round(1e3 * spent, 1) for length, spent in seconds.items()}
    spread = max(seconds.values()) / min(seconds.values())
    return {
        "bytes, most": figure(
            round(most / (slot * (CAPACITY + CHUNK)), 4), "of budget + chunk", 1.0, least=False, bytes=most
        ),
        "time a token, longest / shortest": figure(round(spread, 3), "x", 1.1, least=False, **milliseconds),
        f"tokens/s at {last}": figure(
            round(theirs / seconds[last], 2), "x DynamicCache", 2.0, DynamicCache_ms=round(1e3 * theirs, 1)
        ),
        "prefill time added by the scorer": figure(
            round(100 * (scored / plain - 1), 2),
            "%",
            5.0,
            least=False,
            seconds=round(scored, 2),
            without=round(plain, 2),
        ),
        "FLOPs of the scorer": figure(round(100 * share, 3), "% of the model's", 2.0, least=False),
    }


@torch.no_grad()
def decoding(
    model: Any, cache: VQMemCache, ids: Int[Tensor, "1 time"], lengths: list[int], count: int
) -> tuple[dict[int, float], int]:
    """Median seconds a token once so many tokens have been read, and the most bytes at any layer of any pass."""
    moments: list[int] = []
    hooks = [layer.register_forward_hook(lambda *_: moments.append(held(cache))) for layer in model.model.layers]
    seconds, done = {}, 0
    for length in lengths:
        while done < length:
            new = ids[:, done : min(done + CHUNK, length)]
            model(new, past_key_values=cache, logits_to_keep=1)
            done += new.shape[1]
        seconds[length] = statistics.median(decode(model, cache, ids[:, done : done + 1], count))
    for hook in hooks:
        hook.remove()
    return seconds, max(moments)


@torch.no_grad()
def decode(model: Any, cache: Any, new: Int[Tensor, "1 1"], count: int) -> list[float]:
    """Seconds of each of ``count`` tokens, greedily; what comes first is left out."""
    seconds = []
    for _ in range(count + 2):
        start = time.process_time()
        new = model(new, past_key_values=cache).logits[:, -1:].argmax(-1)
        seconds.append(time.process_time() - start)
    return seconds[2:]


def slot_bytes(cache: VQMemCache) -> int:
    """Bytes of one token's keys and values in all layers."""
    return sum(2 * layer.keys[:, :, :1].nbytes for layer in cache.layers)


def filled(model: Any, length: int, slot: int) -> DynamicCache:
    """A `DynamicCache` of random keys and values, on whose values no time depends."""
    config, cache = model.config, DynamicCache()
    width = slot // (2 * config.num_hidden_layers * config.num_key_value_heads * model.dtype.itemsize)
    for layer in range(config.num_hidden_layers):
        keys = torch.randn(1, config.num_key_value_heads, length, width, dtype=model.dtype)
        cache.update(keys, keys.clone(), layer)
    return cache


@torch.no_grad()
def prefill(
    model: Any, make: Callable[[str], VQMemCache], ids: Int[Tensor, "1 time"], times: int
) -> tuple[float, float]:
    """Seconds to read ``ids`` without scores, and with them: medians of runs in turn."""
    seconds: dict[str, list[float]] = {"sink_recent": [], "scored": []}
    for _ in range(times):
        for policy, spent in seconds.items():
            cache, start = make(policy), time.process_time()
            for new in ids.split(CHUNK, 1):
                model(new, past_key_values=cache, logits_to_keep=1)
            spent.append(time.process_time() - start)
    plain, scored = (statistics.median(spent) for spent in seconds.values())
    return plain, scored


@torch.no_grad()
def flops(call: Callable[[], Any]) -> int:
    """Of the matrix products, attention among them, of what is called."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def scorer_flops(scorer: Any, ids: Int[Tensor, "1 time"]) -> int:
    """Of scoring a text. The fused LSTM, which torch does not count, is two for each weight and token."""
    fused = sum(x.numel() for part in scorer.modules() if isinstance(part, nn.LSTM) for x in part.parameters())
    return flops(lambda: scorer.score(ids, scorer.initial_state(1))) + 2 * fused * ids.shape[1]

"""Decode 20,000 tokens with a pretrained model's cache in constant memory, and at constant speed.

    python benchmarks/kv/kv_stream.py [--quick] [--json] [--save]

A tiny random Llama reads a prompt and goes on, a token at a time, for longer than anyone would let its cache grow:
``VQMemCache`` holds 256 tokens throughout. Bytes are those of the storages behind keys and values, at their most while
layers run; the growth is the maximum over the last thousand tokens by that over the first thousand after the cache was
full, and likewise for the median time a token. `tokens` is all that a user's loop needs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from vqmem.benchmarks._results import figure, options, present
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import cache_argument
from vqmem.models.scorers.random import Noise

CAPACITY = 256
SHAPE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
POLICIES = ("sink_recent", "scored", "h2o")


@torch.no_grad()
def tokens(model: Any, cache: VQMemCache, prompt: Int[Tensor, "1 time"]) -> Iterator[int]:
    """The likeliest tokens after ``prompt``, for as long as one likes: nothing grows."""
    new = prompt
    while True:
        new = model(new, **cache_argument(cache), logits_to_keep=1).logits[:, -1:].argmax(-1)
        yield int(new)


def nbytes_kv(cache: VQMemCache) -> int:
    """Bytes behind the keys and values."""
    layers = [layer for layer in cache.layers if layer.is_initialized]
    return sum(x.untyped_storage().nbytes() for layer in layers for x in (layer.keys, layer.values))


def stream(model: Any, policy: str, count: int) -> tuple[list[float], list[int]]:
    """Seconds and most bytes of each token."""
    cache = VQMemCache(model, CAPACITY, policy=policy, scorer=Noise(0))
    moments: list[int] = []
    hooks = [layer.register_forward_hook(lambda *_: moments.append(nbytes_kv(cache))) for layer in model.model.layers]
    seconds, most = [], []
    go_on = tokens(model, cache, torch.arange(1, CAPACITY + 1)[None])
    for _ in range(count):
        moments.clear()
        start = time.perf_counter()
        next(go_on)
        seconds.append(time.perf_counter() - start)
        most.append(max(moments))
    for hook in hooks:
        hook.remove()
    return seconds, most


def main() -> None:
    """Measure, print, save."""
    flags = options(__doc__).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=500, max_position_embeddings=32_768, **SHAPE)).eval()
    count, window = (600, 100) if flags.quick else (20_000, 1_000)
    figures = {}
    for policy in POLICIES:
        seconds, most = stream(model, policy, count)
        early, late = slice(1, 1 + window), slice(-window, None)
        growth = max(most[late]) / max(most[early])
        figures[f"bytes, {policy}"] = figure(round(growth, 3), "x", 1.0, least=False, bytes=max(most[late]))
        first, last = statistics.median(seconds[early]), statistics.median(seconds[late])
        milliseconds = {"first_ms": round(1e3 * first, 2), "last_ms": round(1e3 * last, 2)}
        figures[f"time a token, {policy}"] = figure(round(last / first, 3), "x", 1.1, least=False, **milliseconds)
    present(
        "kv_stream",
        figures,
        flags,
        title="Decoding in constant memory",
        question="Does a bounded cache keep its size and its speed however long the stream?",
        measured=f"A random Llama {SHAPE}, fp32, one thread, {count} tokens a policy, {CAPACITY} slots.",
    )


if __name__ == "__main__":
    main()

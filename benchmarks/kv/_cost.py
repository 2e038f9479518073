"""What a bounded cache costs: peak bytes, time a token by length of the stream, and what the scorer adds."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache
from vqmem.benchmarks._results import figure
from vqmem.benchmarks.kv.kv_stream import nbytes_kv
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import cache_argument
from vqmem.recipes.kv_cache.cost import WARM_UP, decode_passes, take_turns

CAPACITY, CHUNK = 256, 512
"""Slots, and tokens that a prompt is read in at a time."""
LENGTHS = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
"""Tokens read before decoding is timed, multiples of a chunk."""
AGAINST = 8_192
"""The length at which `DynamicCache` decodes the same."""


def cost(
    model: Any,
    scorers: Mapping[str, nn.Module],
    make: Callable[[str | None], VQMemCache],
    ids: Int[Tensor, "1 time"],
    quick: bool,
) -> dict[str, Any]:
    """Measure the memory and time of `VQMemCache`, and what scorers add to a prefill.

    Bytes and decoding times are measured with the last of the scorers.

    Args:
        model: the pretrained language model.
        scorers: the scorers to compare, by name.
        make: returns an empty cache with the scorer of that name, or without a scorer for None.
        ids: a long text; its tokens are read in chunks of `CHUNK`.
        quick: whether to measure a short run that only shows that the benchmark works.

    Returns:
        The figures by name; see `figure`.
    """
    lengths = LENGTHS[:1] if quick else LENGTHS
    figures = decoding_figures(model, lambda: make(list(scorers)[-1]), ids, lengths, 4 if quick else 32)
    seconds = prefill(model, make, [None, *scorers], ids[:, : CHUNK if quick else 4 * CHUNK], 1 if quick else 3)
    of_model = flops(lambda: model(ids[:, :CHUNK]))
    for name, scorer in scorers.items():
        added, share = seconds[name] / seconds[None] - 1, scorer_flops(scorer, ids[:, :CHUNK]) / of_model
        more = {"seconds": round(seconds[name], 3), "without": round(seconds[None], 3)}
        figures[f"prefill time added, {name}"] = figure(round(100 * added, 2), "%", 5.0, least=False, **more)
        figures[f"FLOPs, {name}"] = figure(round(100 * share, 3), "% of the model's", 2.0, least=False)
    return figures


def decoding_figures(
    model: Any, make: Callable[[], VQMemCache], ids: Int[Tensor, "1 time"], lengths: Sequence[int], count: int
) -> dict[str, Any]:
    """Measure peak bytes, and the time per token by length and against `DynamicCache`.

    Args:
        model: the pretrained language model.
        make: returns an empty cache.
        ids: the text that fills the cache, at least as long as the longest of ``lengths``.
        lengths: numbers of tokens after which decoding is timed, ascending multiples of `CHUNK`.
        count: timed decoding steps of each cache.

    Returns:
        The figures by name; see `figure`.
    """
    most, slot, known = measure_bytes(model, make(), ids)
    last = min(AGAINST, lengths[-1])
    caches: dict[Any, Any] = {**after(model, make(), ids, lengths), "DynamicCache": filled(model, last)}
    seconds = decoding(model, caches, count)
    theirs = seconds.pop("DynamicCache")
    middle = statistics.median(seconds.values())
    apart = max(abs(spent / middle - 1) for spent in seconds.values())
    milliseconds = {f"{length}, ms": round(1e3 * spent, 1) for length, spent in seconds.items()}
    share, speed = most / (slot * (CAPACITY + CHUNK)), theirs / seconds[last]
    return {
        "bytes": figure(round(share, 4), "of capacity + chunk", 1.0, least=False, most=most, bookkeeping=known),
        "time a token": figure(round(100 * apart, 1), "% from the middle at most", 10.0, least=False, **milliseconds),
        f"tokens/s at {last}": figure(round(speed, 2), "x DynamicCache", 2.0, DynamicCache_ms=round(1e3 * theirs, 1)),
    }


@torch.no_grad()
def measure_bytes(model: Any, cache: VQMemCache, ids: Int[Tensor, "1 time"]) -> tuple[int, int, int]:
    """Most bytes at any layer while two chunks and a token are read; those of one slot; and of bookkeeping."""
    moments = watch(cache)
    for new in (*ids[:, : 2 * CHUNK].split(CHUNK, 1), ids[:, :1]):
        model(new, **cache_argument(cache), logits_to_keep=1)
    slot = sum(2 * layer.keys[:, :, :1].nbytes for layer in cache.layers)
    return max(moments), slot, cache.nbytes - slot * CAPACITY


@torch.no_grad()
def after(model: Any, cache: VQMemCache, ids: Int[Tensor, "1 time"], lengths: Sequence[int]) -> dict[int, VQMemCache]:
    """Read a text and copy the cache at several lengths.

    Args:
        model: the pretrained language model.
        cache: an empty cache; it is filled.
        ids: the text, at least as long as the longest of ``lengths``.
        lengths: numbers of tokens after which the cache is copied, ascending multiples of `CHUNK`.

    Returns:
        The copies by number of tokens read.
    """
    copies = {}
    for done, new in enumerate(ids[:, : lengths[-1]].split(CHUNK, 1), 1):
        model(new, **cache_argument(cache), logits_to_keep=1)
        if done * CHUNK in lengths:
            copies[done * CHUNK] = copy.deepcopy(cache)
    return copies


def decoding(model: Any, caches: Mapping[Any, Any], count: int) -> dict[Any, float]:
    """Median seconds a token with each cache."""
    turns = take_turns(model, caches, decode_passes(count, model.device))
    return {name: statistics.median(one.seconds[WARM_UP:]) for name, one in turns.items()}


def watch(cache: VQMemCache) -> list[int]:
    """Bytes at each layer of the passes to come: those of all layers, and those that attention gets here."""
    moments: list[int] = []

    def watched(update: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
        def both(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            keys, values = update(*args, **kwargs)
            moments.append(nbytes_kv(cache) + keys.nbytes + values.nbytes)
            return keys, values

        return both

    for layer in cache.layers:
        layer.update = watched(layer.update)
    return moments


def filled(model: Any, length: int) -> DynamicCache:
    """A `DynamicCache` of random keys and values; the time does not depend on them."""
    config, cache = model.config, DynamicCache()
    width = config.hidden_size // config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        keys = torch.randn(1, config.num_key_value_heads, length, width, dtype=model.dtype)
        cache.update(keys, keys.clone(), layer)
    return cache


def prefill(
    model: Any,
    make: Callable[[str | None], VQMemCache],
    names: Sequence[str | None],
    ids: Int[Tensor, "1 time"],
    times: int,
) -> dict[str | None, float]:
    """Time the prefill of a text with each scorer.

    Args:
        model: the pretrained language model.
        make: returns an empty cache with the scorer of that name, or without a scorer for None.
        names: the names to pass to ``make``; their caches take turns at each chunk.
        ids: the text, read in chunks of `CHUNK`.
        times: how often the text is read with each scorer.

    Returns:
        The median processor seconds per chunk, by name.
    """
    seconds: dict[str | None, list[float]] = {name: [] for name in names}
    for _ in range(times):
        for name, turns in take_turns(model, {name: make(name) for name in names}, ids.split(CHUNK, 1)).items():
            seconds[name] += turns.seconds
    return {name: statistics.median(spent) for name, spent in seconds.items()}


@torch.no_grad()
def flops(call: Callable[[], Any]) -> int:
    """FLOPs of the matrix products, attention included, of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def scorer_flops(scorer: Any, ids: Int[Tensor, "1 time"]) -> int:
    """FLOPs of scoring a text. Torch does not count the fused LSTM: two for each weight and token."""
    fused = sum(x.numel() for part in scorer.modules() if isinstance(part, nn.LSTM) for x in part.parameters())
    return flops(lambda: scorer.score(ids, scorer.initial_state(1))) + 2 * fused * ids.shape[1]

"""What a cache costs: time of a prefill and of a decoded token, bytes held, and bytes times seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ...memory.huggingface.cache_argument import cache_argument
from ..engine.progress import Bar

_WARM_UP = 2
"""Decoded tokens that are not timed."""


@dataclass(frozen=True)
class Cost:
    """What one request costs: a prompt that is read in chunks, and an answer."""

    prefill_seconds: float
    """To read the prompt."""
    decode_seconds: float
    """A token of the answer; the median."""
    bytes: int
    """Held when the prompt has been read."""
    byte_seconds: float
    """Sum of the bytes held after each pass times its seconds: what the request takes from a server's memory."""

    def to_json(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


def clock(device: torch.device) -> float:
    """Seconds, to time passes of a model: of the processor, which other programs may share, or of an accelerator."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def measure_costs(
    model: Any,
    make: Mapping[str, Callable[[], Any]],
    ids: Int[Tensor, "1 time"],
    *,
    chunk: int,
    decoded: int,
    held_bytes: Callable[[Any], int],
) -> dict[str, Cost]:
    """Measure the cost of each cache. They take turns, so that other load of the machine affects all alike.

    Args:
        model: the pretrained language model.
        make: by name what returns an empty cache.
        ids: the prompt.
        chunk: tokens of the prompt that are read at a time.
        decoded: tokens of the answer.
        held_bytes: the bytes that a cache holds.

    Returns:
        The costs by name.
    """
    caches = {name: new() for name, new in make.items()}
    prompt = ids.to(model.device)
    passes = [*prompt.split(chunk, 1), *[torch.ones_like(prompt[:, :1])] * (_WARM_UP + decoded)]
    reads = len(passes) - _WARM_UP - decoded
    seconds: dict[str, list[float]] = {name: [] for name in caches}
    held: dict[str, list[int]] = {name: [] for name in caches}
    with Bar("timing", len(passes), transient=True) as bar:
        for new in passes:
            for name, cache in caches.items():
                began = clock(new.device)
                model(new, **cache_argument(cache), logits_to_keep=1)
                seconds[name].append(clock(new.device) - began)
                held[name].append(held_bytes(cache))
            bar.advance(1)
    return {
        name: Cost(
            prefill_seconds=sum(spent[:reads]),
            decode_seconds=statistics.median(spent[reads + _WARM_UP :]),
            bytes=held[name][reads - 1],
            byte_seconds=sum(size * time for size, time in zip(held[name], spent, strict=True)),
        )
        for name, spent in seconds.items()
    }

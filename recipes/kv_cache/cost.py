"""What a cache costs: time of a prefill and of a decoded token, bytes held, and bytes times seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ...memory.huggingface.cache_argument import cache_argument
from ..engine.progress import Bar
from .caches import held_bytes

WARM_UP = 2
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


class Turns(NamedTuple):
    """The passes of one cache."""

    seconds: list[float]
    held: list[int]
    """Bytes after each pass."""


@torch.no_grad()
def take_turns(model: Any, caches: Mapping[Any, Any], passes: Sequence[Int[Tensor, "1 _"]]) -> dict[Any, Turns]:
    """Time each pass with each cache, in turns, so that other load of the machine affects all alike."""
    turns = {name: Turns([], []) for name in caches}
    with Bar("timing", len(passes), transient=True) as bar:
        for new in passes:
            for name, cache in caches.items():
                began = clock(new.device)
                model(new, **cache_argument(cache), logits_to_keep=1)
                turns[name].seconds.append(clock(new.device) - began)
                turns[name].held.append(held_bytes(cache))
            bar.advance(1)
    return turns


def decode_passes(count: int, device: torch.device) -> list[Int[Tensor, "1 1"]]:
    """The passes of an answer of so many tokens, and those that warm up."""
    return [torch.ones(1, 1, dtype=torch.long, device=device)] * (WARM_UP + count)


def measure_costs(
    model: Any, caches: Mapping[Any, Any], ids: Int[Tensor, "1 time"], chunk: int, answer: int
) -> dict[Any, Cost]:
    """Measure the cost of a request with each cache.

    Args:
        model: the pretrained language model.
        caches: empty caches by name.
        ids: the prompt.
        chunk: tokens of the prompt that are read at a time.
        answer: tokens of the answer.

    Returns:
        The costs by name.
    """
    prompt, decoded = ids.split(chunk, 1), decode_passes(answer, ids.device)
    turns = take_turns(model, caches, [*prompt, *decoded])
    return {
        name: Cost(
            prefill_seconds=sum(seconds[: len(prompt)]),
            decode_seconds=statistics.median(seconds[len(prompt) + WARM_UP :]),
            bytes=held[len(prompt) - 1],
            byte_seconds=sum(size * spent for size, spent in zip(held, seconds, strict=True)),
        )
        for name, (seconds, held) in turns.items()
    }

"""What the slots of a bounded stream show when some of them have to go."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...memory.huggingface.cache import VQMemCache
from ...memory.huggingface.presets import STREAM
from ...memory.policies.weighted import Policy as Weighted
from ...memory.slots import Slots
from .attention import CHUNK

ATTENTION = ("expected", "observed", "keydiff", "norm", "value_norm")
"""The signals that the cache computes for each head."""


class Recorder:
    """The attention part of the preset ``stream``, which passes the slots on before it chooses.

    Args:
        receive: Called with the slots of each eviction and the position of the next token.
    """

    requires = ("layers", "signals")
    attention_signals = ATTENTION

    def __init__(self, receive: Callable[[Slots, int], None]) -> None:
        self.receive = receive
        self.mix = Weighted(**{name: x for name, x in STREAM.policy.items() if name != "name"} | {"score": 0.0})

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """That of the preset."""
        self.receive(slots, int(now[0]))
        return self.mix.priority(slots, now)


@torch.no_grad()
def read_stream(model: Any, ids: Int[Tensor, " time"], capacity: int, receive: Callable[[Slots, int], None]) -> None:
    """Read a passage in chunks through a bounded cache in which each head keeps its slots; see `Recorder`."""
    cache = VQMemCache(model, capacity, policy=Recorder(receive), share="head", recent=STREAM.recent, block=CHUNK)
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # before 5.24
    try:
        for chunk in ids.split(CHUNK):
            model.base_model(chunk[None].to(model.device), **{name: cache})
    finally:
        cache.close()

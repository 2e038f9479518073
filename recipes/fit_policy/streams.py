"""What the slots of a bounded cache show when some of them have to go, and how much attention they would receive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...memory.fitted import LOG_AGE, PREDICTED
from ...memory.huggingface.cache import VQMemCache
from ...memory.huggingface.cache_argument import cache_argument
from ...memory.huggingface.presets import STREAM
from ...memory.policy import age
from ...memory.slots import Slots
from ...registry import build
from .attention import CHUNK, HORIZON, SINKS
from .full_pass import key_features
from .host import Rows, Stream, standardised

COMPUTED = ("expected", "observed", "keydiff", "norm", "value_norm")
"""The signals that a cache computes from keys, values and queries."""
SIGNALS = (PREDICTED, *COMPUTED, LOG_AGE)
DEFAULT = (PREDICTED, "keydiff", LOG_AGE)
"""The fewest signals that keep nearly what all of them keep; they need no queries."""


class Recorder:
    """The attention part of the preset ``stream``, which passes the slots on before it chooses.

    Args:
        receive: Called with the slots of each eviction and the position of the next token.
    """

    requires = ("layers", "signals")
    attention_signals = COMPUTED

    def __init__(self, receive: Callable[[Slots, int], None]) -> None:
        self.receive = receive
        self.mix = build("policies", {**STREAM.policy, "score": 0.0})

    def priority(self, slots: Slots, now: Int[Tensor, " batch"]) -> Float[Tensor, "batch slots"]:
        """That of the preset."""
        self.receive(slots, int(now[0]))
        return self.mix.priority(slots, now)


@torch.no_grad()
def read_stream(model: Any, stream: Stream, use: Rows) -> None:
    """Read a passage in chunks through a bounded cache of a model, and pass on what competes at each eviction.

    Evictions after which fewer than `HORIZON` tokens are read do not count.
    """
    passage, full, prediction, share, capacity = stream
    ids = passage.ids
    every = torch.arange(len(ids))
    predicted = (key_features(full, share) @ prediction[..., None])[..., 0]

    def receive(slots: Slots, now: int) -> None:
        if now > len(ids) - HORIZON:
            return
        assert slots.guarded is not None
        competing = slots.valid & ~slots.guarded
        positions = slots.positions[competing].view(len(competing), -1)
        ages = age(slots, torch.full_like(slots.positions[:, 0], now)).float()
        found = {name: slots.signals[name][competing].view_as(positions) for name in COMPUTED}
        by_layer = positions.view(1 if share == "model" else len(predicted), -1, positions.shape[1])
        in_layer = standardised(predicted.gather(2, by_layer.expand(len(predicted), -1, -1)))
        found[PREDICTED] = in_layer.mean(0) if share == "model" else in_layer.flatten(0, 1)
        found[LOG_AGE] = standardised(ages[competing].view_as(positions).log())
        wanted = full.log_attention(share, torch.full_like(every, now // CHUNK), every).flatten(0, 1)
        keep = positions.shape[1] - (slots.count - capacity)
        use(torch.stack([found[name] for name in SIGNALS], dim=-1), standardised(wanted.gather(1, positions)), keep)

    recent = min(STREAM.recent, max(0, capacity - SINKS) // 2)
    cache = VQMemCache(model, capacity, policy=Recorder(receive), share=share, sinks=SINKS, recent=recent, block=CHUNK)
    try:
        for chunk in ids.split(CHUNK):
            model.base_model(chunk[None].to(model.device), **cache_argument(cache))
    finally:
        cache.close()

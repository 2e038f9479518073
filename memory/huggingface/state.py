"""The state of a cache for `transformers`, and one forward pass of the model through the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers.cache_utils import Cache

from ..bank import Memory, State
from ..policy import ForwardStats, LayerScorer
from .attention import AttentionRecorder


@dataclass(frozen=True)
class CacheState:
    """The bookkeeping of the slots, the same for all layers.

    The payload of ``memory`` is each slot's index before eviction, and the position that its keys are rotated to.
    """

    memory: State
    scorer: Any
    seen: Int[Tensor, " batch"]
    """Tokens read so far, without padding."""
    shift: Int[Tensor, " batch"]
    """Added to the position of a new token, because earlier slots were moved together."""
    placement: tuple[torch.dtype, torch.device]
    """The type and the device of the model that wrote the slots."""

    def map_batch(self, change: Callable[[Tensor], Tensor]) -> CacheState:
        """Apply ``change``, which selects or repeats rows of the batch, to every tensor."""
        memory = State.from_state_dict({name: change(x) for name, x in self.memory.state_dict().items()})
        scorer = tree_map_only(Tensor, change, self.scorer)
        return replace(self, memory=memory, scorer=scorer, seen=change(self.seen), shift=change(self.shift))


@runtime_checkable
class BoundedCache(Protocol):
    """What a `ForwardPass` needs of the cache."""

    layers: Any
    memory: Memory

    def get_seq_length(self) -> int:
        """Tokens read so far, padding included."""
        ...

    def end(self, state: CacheState | None) -> None:
        """Take over the state after a pass; None where it failed."""
        ...


class ForwardPass(Cache):
    """One forward pass of the model through ``cache``, which it replaces among the arguments of the call.

    Layers write through `update`; the layers of ``cache`` answer all else that the model asks of a cache.

    Args:
        cache: The cache of the pass.
        state: The state after the pass, before eviction.
        positions: Positions of the new tokens, without padding.
        valid: False where a new token is padding.
        recorder: Records the attention weights; None where the policy does not need them.
    """

    layers: Any
    module: nn.Module
    """The module that was called with the cache."""

    def __init__(
        self,
        cache: BoundedCache,
        state: CacheState,
        positions: Int[Tensor, "batch new"],
        valid: Bool[Tensor, "batch new"],
        recorder: AttentionRecorder | None,
    ) -> None:
        super().__init__(layers=cache.layers)
        self.cache = cache
        self.state = state
        self.positions = positions
        self.valid = valid
        self.recorder = recorder
        self.columns = cache.get_seq_length() + valid.shape[1]
        self.keep: Int[Tensor, "batch kept"] | None = None
        """The slots that stay, where the policy can choose before the pass: layers then evict during it."""
        self._norms: Tensor | None = None
        self._importance: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer for the attention of this pass; eviction comes after it."""
        keys, values = self.layers[layer_idx].update(key_states, value_states, keep=self.keep)
        if "norms" in self.cache.memory.requires:
            self._norms = _sum(self._norms, key_states.detach().float().norm(dim=-1).mean(dim=1))
        return keys, values

    def score_layer(self, layer: Any, inputs: dict[str, Any], attention: Tensor | None) -> None:
        """Score the slots of a layer after its attention, if the policy is a `LayerScorer` and some will be evicted."""
        if self.state.memory.slots.count <= self.cache.memory.capacity:
            return
        keys, values = self.layers[layer.layer_idx].read(self.state.placement[0])
        policy = cast(LayerScorer, self.cache.memory.policy)
        self._importance = _sum(self._importance, policy.score_layer(layer, inputs, keys, values, attention))

    def finish(self) -> None:
        """End the pass: evict, if the policy needed the statistics of the pass.

        Raises `ValueError` where the layers lack tokens of the pass; the cache then needs `VQMemCache.reset`.
        """
        try:
            self._check_written()
            if self.keep is None:
                self._observe()
                self.choose_slots()
                for layer in self.layers:
                    layer.keep(self.keep)
            self.cache.end(self.state)
        except BaseException:
            self.fail()
            raise

    def fail(self) -> None:
        """Mark the cache as failed: some layers may have the tokens of this pass and others not."""
        self.cache.end(None)

    def choose_slots(self) -> None:
        """Set ``keep`` to the slots that stay."""
        memory = self.cache.memory.evict_to_capacity(self.state.memory, self.state.seen).state
        self.state = replace(self.state, memory=memory)
        self.keep = memory.slots.payload[0]

    def _observe(self) -> None:
        """Let the policy update the usage from the attention, keys or layers of the pass."""
        norms = None if self._norms is None else self._norms / len(self.layers)
        weights = None if self.recorder is None else self.recorder.weights
        memory = self.cache.memory.observe(self.state.memory, ForwardStats(self.positions, self.valid, weights, norms))
        if self._importance is not None:
            usage = self._importance / len(self.layers)
            memory = replace(memory, slots=replace(memory.slots, usage=usage))
        self.state = replace(self.state, memory=memory)

    def _check_written(self) -> None:
        """Raise `ValueError` unless every layer in use has all tokens of the pass and no other code evicted from it."""
        written = {(layer.seen, layer.count) for layer in self.layers if layer.seen}
        new = self.valid.shape[1]
        if not any(seen == self.columns for seen, _ in written):
            raise ValueError(
                f"{type(self.module).__name__} read {new} tokens and wrote none of them into the cache (in training, "
                "gradient checkpointing keeps caches out); call model.eval(), or pass no cache"
            )
        if written != {(self.columns, self.state.memory.slots.count)}:
            raise ValueError(
                f"the cache wrote {self.state.memory.slots.count} slots a layer, but something else changed them "
                "within the pass; take other hooks off the attention of the model"
            )


def _sum(total: Tensor | None, x: Tensor) -> Tensor:
    """The sum over layers, which may be on different devices."""
    return x if total is None else total + x.to(total.device)

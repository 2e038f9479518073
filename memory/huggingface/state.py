"""What a cache for `transformers` knows of its slots, and one call of the model that reads through it."""

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
from ..policy import Judge, Seen
from .attention import AttentionRecorder


@dataclass(frozen=True)
class CacheState:
    """What the cache knows of its slots, the same for all layers.

    The payload is each slot's index before eviction, and the position that its keys are rotated to.
    """

    memory: State
    scorer: Any
    seen: Int[Tensor, " batch"]
    """Tokens so far that were no padding."""
    shift: Int[Tensor, " batch"]
    """What has to be added to the position of a new token, since slots were moved together."""
    placement: tuple[torch.dtype, torch.device]
    """The type and the device of the model that wrote the slots."""

    def rows(self, change: Callable[[Tensor], Tensor]) -> CacheState:
        """Every tensor changed along its batch axis."""
        memory = State.from_state_dict({name: change(x) for name, x in self.memory.state_dict().items()})
        scorer = tree_map_only(Tensor, change, self.scorer)
        return replace(self, memory=memory, scorer=scorer, seen=change(self.seen), shift=change(self.shift))


@runtime_checkable
class BoundedCache(Protocol):
    """What a `ForwardPass` needs of the cache."""

    layers: Any
    memory: Memory

    def get_seq_length(self) -> int:
        """Tokens that were read, padding included."""
        ...

    def end(self, state: CacheState | None) -> None:
        """Take over what the pass has made of the slots; None where it failed."""
        ...


class ForwardPass(Cache):
    """One call of the model that reads through ``cache``, which it stands for among the arguments of that call.

    Layers write through `update`; all else that the model asks of a cache is answered by the layers of ``cache``.
    ``state`` is what the cache will know after the call, and ``keep`` the slots that stay, where that is known before
    it: layers then evict as they go.
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
        self.cache, self.state, self.positions, self.valid, self.recorder = cache, state, positions, valid, recorder
        self.columns = cache.get_seq_length() + valid.shape[1]
        self.keep: Int[Tensor, "batch kept"] | None = None
        self._norms: Tensor | None = None
        self._importance: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer for the attention at hand; eviction comes after it."""
        keys, values = self.layers[layer_idx].update(key_states, value_states, keep=self.keep)
        if "norms" in self.cache.memory.requires:
            self._norms = _sum(self._norms, key_states.detach().float().norm(dim=-1).mean(dim=1))
        return keys, values

    def judge(self, layer: Any, inputs: dict[str, Any], attention: Tensor | None) -> None:
        """Called after an attention module, if the policy is a `Judge`: score its slots if some will be evicted."""
        if self.state.memory.slots.count <= self.cache.memory.capacity:
            return
        keys, values = self.layers[layer.layer_idx].read(self.state.placement[0])
        policy = cast(Judge, self.cache.memory.policy)
        self._importance = _sum(self._importance, policy.judge(layer, inputs, keys, values, attention))

    def finish(self) -> None:
        """Called after the call: evict, if that had to wait for what the call would show.

        Raises `ValueError` where the cache does not have what was read: it is of no use until `VQMemCache.reset`.
        """
        try:
            self._check_written()
            if self.keep is None:
                self._observe()
                self.choose()
                for layer in self.layers:
                    layer.keep(self.keep)
            self.cache.end(self.state)
        except BaseException:
            self.fail()
            raise

    def fail(self) -> None:
        """Called where the call did not end: some layers have taken it in and others have not."""
        self.cache.end(None)

    def choose(self) -> None:
        """Decide which slots stay."""
        memory = self.cache.memory.fit(self.state.memory, self.state.seen).state
        self.state, self.keep = replace(self.state, memory=memory), memory.slots.payload[0]

    def _observe(self) -> None:
        """Let the policy take note of the attention, keys or layers of the call."""
        norms = None if self._norms is None else self._norms / len(self.layers)
        weights = None if self.recorder is None else self.recorder.weights
        memory = self.cache.memory.observe(self.state.memory, Seen(self.positions, self.valid, weights, norms))
        if self._importance is not None:
            usage = self._importance / len(self.layers)
            memory = replace(memory, slots=replace(memory.slots, usage=usage))
        self.state = replace(self.state, memory=memory)

    def _check_written(self) -> None:
        """Raise `ValueError` unless every layer in use has what was read and nothing but the cache evicted from it."""
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

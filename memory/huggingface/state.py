"""The state of a cache for `transformers`, and one forward pass of the model through the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers.cache_utils import Cache

from ..bank import Memory, State
from ..policy import ForwardStats, LayerScorer, observe
from .attention import AttentionRecorder
from .groups import Groups
from .learned import LearnedSignals
from .signals import AttentionSignals, QueryState


@dataclass(frozen=True)
class CacheState:
    """The bookkeeping of the slots.

    ``memory`` has a row for each row of the batch and each of its `Groups`. Its payload is each slot's index before
    eviction, and the position that its keys are rotated to.
    """

    memory: State
    scorer: Any
    seen: Int[Tensor, " batch"]
    """Tokens read so far, without padding."""
    shift: Int[Tensor, " batch"]
    """Added to the position of a new token, because earlier slots were moved together."""
    placement: tuple[torch.dtype, torch.device]
    """The type and the device of the model that wrote the slots."""
    queries: tuple[QueryState, ...] = ()
    """The queries of each layer, where signals need them."""

    def compact(self, new: int, limit: int, groups: Groups) -> tuple[CacheState, Int[Tensor, "rows slots"] | None]:
        """Give slots the positions from 0 on, without gaps, if ``new`` tokens would pass the ``limit`` of the model.

        Returns the state and the distance by which the keys have to be rotated; None for no rotation.
        """
        slots = self.memory.slots
        if not slots.count or int((self.seen + self.shift).max()) + new <= limit:
            return self, None
        positions = (slots.valid.cumsum(1) - 1).clamp(min=0)
        memory = replace(self.memory, slots=replace(slots, payload=(slots.payload[0], positions)))
        shift = groups.first(slots.valid.sum(1)) - self.seen
        return replace(self, memory=memory, shift=shift), positions - slots.payload[1]

    def map_batch(self, change: Callable[[Tensor], Tensor], groups: Groups) -> CacheState:
        """Apply ``change``, which selects or repeats rows of the batch, to every tensor."""
        named = self.memory.state_dict().items()
        memory = State.from_state_dict({name: change(groups.split(x)).flatten(0, 1) for name, x in named})
        scorer, queries = tree_map_only(Tensor, change, (self.scorer, self.queries))
        rest = {"seen": change(self.seen), "shift": change(self.shift)}
        return replace(self, memory=memory, scorer=scorer, queries=queries, **rest)


@runtime_checkable
class BoundedCache(Protocol):
    """What a `ForwardPass` needs of the cache."""

    layers: Any
    memory: Memory
    groups: Groups
    block: int
    signals: AttentionSignals | None

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
        queries: The newest tokens whose attention the policy needs; None for all.
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
        queries: int | None = None,
    ) -> None:
        super().__init__(layers=cache.layers)
        self.cache = cache
        self.groups = cache.groups
        self.state = state
        self.positions = positions
        self.valid = valid
        self.columns = cache.get_seq_length() + valid.shape[1]
        self.evicts = state.memory.slots.count >= cache.memory.capacity + cache.block
        self.keep: Int[Tensor, "rows kept"] | None = None
        """The slots that stay, where the policy can choose before the pass: layers then evict during it."""
        requires = cache.memory.policy.requires
        self.recorder = AttentionRecorder(queries, self.groups, self._receive) if "usage" in requires else None
        """Records the attention weights; None where the policy does not need them."""
        self._received = False
        self._layer = 0
        self._norms: dict[str, Tensor] = {}
        """The norms of the layer that is being read, until its attention is known."""
        self._sums: dict[str, tuple[Tensor, int]] = {}
        """Sums over layers that share slots, by name, and how many there were."""
        self._measured: dict[str, list[Tensor]] = {}
        """What each layer gave, by name."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer for the attention of this pass; eviction comes after it."""
        if layer_idx not in self.groups.bounded:
            return self.layers[layer_idx].update(key_states, value_states, *args, **kwargs)
        self._layer = layer_idx
        if self.groups.share == "head" and key_states.shape[1] != self.groups.heads:
            raise ValueError(
                f"layer {layer_idx} has {key_states.shape[1]} heads of keys and the config says {self.groups.heads}; "
                'use share="layer"'
            )
        keep = None if self.keep is None else self.groups.of_layer(self.keep, layer_idx)
        keys, values = self.layers[layer_idx].update(key_states, value_states, keep=keep)
        if "norms" in self.cache.memory.requires:
            self._norms = {"norms": self.groups.reduce(key_states.detach().float().norm(dim=-1))}
            if self.recorder is None:
                self._observe(**self._norms)
        return keys, values

    def score_layer(self, layer: Any, inputs: dict[str, Any], attention: Tensor | None) -> None:
        """Compute the signals of the slots of a layer after its attention, or let the policy score them itself."""
        signals = self.cache.signals
        if layer.layer_idx not in self.groups.bounded:
            return
        if signals is not None:
            place = self.groups.bounded.index(layer.layer_idx)
            state = self.state.queries[place]
            if signals.needs_queries:
                state = state.append(inputs["hidden_states"], self.valid)
            if self.evicts:
                state = self._compute(signals, layer, state)
            queries = self.state.queries
            self.state = replace(self.state, queries=(*queries[:place], state, *queries[place + 1 :]))
        elif self.evicts:
            keys, values = self.layers[layer.layer_idx].read(self.state.placement[0])
            policy = cast(LayerScorer, self.cache.memory.policy)
            importance = policy.score_layer(layer, inputs, keys, values, attention)
            self._measured.setdefault("importance", []).append(self.groups.reduce(importance))

    def _compute(self, signals: AttentionSignals, layer: Any, state: QueryState) -> QueryState:
        """Compute the signals of a layer; returns its queries afterwards."""
        groups, slots = self.groups, self.state.memory.slots
        competing = groups.of_layer(self._competing, layer.layer_idx)
        keys, values = self.layers[layer.layer_idx].read(self.state.placement[0])
        now = self.state.seen + self.state.shift
        found, state = signals.compute(layer, state, keys, values, groups.first(slots.valid), competing, now)
        if isinstance(signals, LearnedSignals):
            positions, rotated = (groups.of_layer(x, layer.layer_idx) for x in (slots.positions, slots.payload[1]))
            found = signals.combine(layer, found, keys, positions, rotated, self.state.seen, competing)
        for name, signal in found.items():
            self._measured.setdefault(name, []).append(signal)
        return state

    @cached_property
    def _competing(self) -> Bool[Tensor, "rows slots"]:
        """The slots that have content and that no guard protects."""
        slots = self.state.memory.slots
        return slots.valid & ~self.cache.memory.guard.protects(slots, self.groups.expand(self.state.seen))

    def finish(self) -> None:
        """End the pass: evict, if the policy needed the statistics of the pass.

        Raises `ValueError` where the layers lack tokens of the pass; the cache then needs `VQMemCache.reset`.
        """
        try:
            self._check_written()
            if self.cache.memory.observes:
                self._take_over()
                self.choose_slots()
                if self.keep is not None:
                    for index in self.groups.bounded:
                        self.layers[index].keep(self.groups.of_layer(self.keep, index))
            self.cache.end(self.state)
        except BaseException:
            self.fail()
            raise

    def fail(self) -> None:
        """Mark the cache as failed: some layers may have the tokens of this pass and others not."""
        self.cache.end(None)

    def choose_slots(self) -> None:
        """Set ``keep`` to the slots that stay, if some have to go."""
        if not self.evicts:
            return
        now = self.groups.expand(self.state.seen)
        memory = self.cache.memory.evict_to_capacity(self.state.memory, now).state
        self.state = replace(self.state, memory=memory)
        self.keep = memory.slots.payload[0]

    def _receive(self, weights: Float[Tensor, "batch groups queries slots"]) -> None:
        """Take the attention weights of the layer that is being read."""
        self._received = True
        self._observe(weights=weights, **self._norms)

    def _observe(self, **measured: Tensor) -> None:
        """Let the policy update the usage of a layer's slots from its ``weights`` and ``norms``.

        Where the layers share their slots, sum these, for the mean over layers.
        """
        if self.groups.share == "model":
            for name, x in measured.items():
                total, count = self._sums.get(name, (torch.zeros_like(x), 0))
                self._sums[name] = total + x.to(total.device), count + 1
            return
        usage = self._usage_of(self._layer, {name: x.flatten(0, 1) for name, x in measured.items()})
        self._measured.setdefault("usage", []).append(usage)

    def _usage_of(self, layer: int, measured: dict[str, Tensor]) -> Float[Tensor, "batch groups slots"]:
        """The usage of the slots of a layer, or of the model where its layers share them, after this pass."""
        groups, slots = self.groups, self.state.memory.slots
        before = groups.of_layer(slots.usage, layer)
        positions, valid = (x.repeat_interleave(groups.in_layer, dim=0) for x in (self.positions, self.valid))
        here = {name: x.to(before.device) for name, x in measured.items()}
        after = observe(self.cache.memory.policy, before.flatten(0, 1), ForwardStats(positions, valid, **here))
        return after.view_as(before)

    def _take_over(self) -> None:
        """Put what was measured in the layers into the slots."""
        if self.recorder is not None and not self._received:
            raise ValueError(
                "the model's attention cannot be recorded (it neither calls scaled_dot_product_attention nor adds its "
                "mask to its logits); use a policy that needs no attention weights, such as scored or fifo"
            )
        if self._sums:
            means = {name: (x / n)[:, 0] for name, (x, n) in self._sums.items()}
            self._measured["usage"] = [self._usage_of(0, means)]
        found = {name: self.groups.combine(layers) for name, layers in self._measured.items()}
        slots = self.state.memory.slots
        usage = found.pop("usage", slots.usage)
        slots = replace(slots, usage=found.pop("importance", usage), signals=found)
        self.state = replace(self.state, memory=replace(self.state.memory, slots=slots))

    def _check_written(self) -> None:
        """Raise `ValueError` unless every layer in use has all tokens of the pass and no other code evicted from it."""
        layers = [self.layers[index] for index in self.groups.bounded]
        written = {(layer.seen, layer.count) for layer in layers if layer.seen}
        new = self.valid.shape[1]
        if not any(seen == self.columns for seen, _ in written):
            raise ValueError(
                f"{type(self.module).__name__} read {new} tokens and wrote none of them into the cache (in training, "
                "gradient checkpointing keeps caches out); call model.eval(), or pass no cache"
            )
        if written != {(self.columns, self.state.memory.slots.count)}:
            raise ValueError(
                f"the cache wrote {self.state.memory.slots.count} slots per layer, but something else changed them "
                "within the pass; take other hooks off the attention of the model"
            )

"""One forward pass of a model through a cache for `transformers`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ..policy import ForwardStats, LayerScorer, Observer, observe
from .attention import AttentionRecorder
from .eviction import BoundedCache, choose_slots, evict, evictor_of, observes_pass
from .signals import PENDING
from .state import CacheState


class ForwardPass(Cache):
    """One forward pass of the model through ``cache``, which it replaces among the arguments of the call.

    Layers write through `update`; the layers of ``cache`` answer all else that the model asks of a cache.

    Args:
        cache: The cache of the pass.
        state: The state after the pass, before eviction.
        positions: Positions of the new tokens, without padding.
        valid: False where a new token is padding.
        fixed: Whether layers return all of their room, so that no shape depends on the tokens read.
    """

    watches_layers = False
    layers: Any
    module: nn.Module
    """The module that was called with the cache."""

    def __init__(
        self,
        cache: BoundedCache,
        state: CacheState,
        positions: Int[Tensor, "batch new"],
        valid: Bool[Tensor, "batch new"],
        *,
        fixed: bool = False,
    ) -> None:
        super().__init__(layers=cache.layers)
        self.cache = cache
        self.groups = cache.groups
        self.state = state
        self.positions = positions
        self.valid = valid
        new = valid.shape[1]
        self.columns = cache.get_seq_length() + new
        observes = observes_pass(cache)
        policy = cache.memory.policy
        requires = policy.requires
        # A shorter pass leaves eviction to the next one, so that its tokens can be forgotten until then.
        ends_block = new >= cache.block or (observes and "layers" in requires)
        self.evicts = ends_block and state.count >= cache.room
        self.evictor = evictor_of(cache, first=self.columns == new)
        self.keep: Int[Tensor, "rows kept"] | None = None
        """The slots that stay, where the policy can choose before the pass: layers then evict during it."""
        if self.evicts and not fixed and not cache.memory.observes:
            self.state, self.keep = choose_slots(cache, state, self.evictor)
        self.room = cache.room
        self.slots: Int[Tensor, " new"] | None = None
        """The slots of the new tokens, where shapes are fixed."""
        if fixed:
            self.slots = torch.arange(state.count - new, state.count, device=valid.device)
        self.hidden: dict[int, Tensor] = {}
        """The hidden states that the attention of each layer reads, where signals need them."""
        queries = policy.queries if isinstance(policy, Observer) else None
        recorder = AttentionRecorder(queries, self.groups, self._receive)
        self.recorder = recorder if "usage" in requires else None
        """Records the attention weights; None where the policy does not need them."""
        self._received = False
        self._layer = 0
        self._norms: dict[str, Tensor] = {}
        """The norms of the layer that is being read, until its attention is known."""
        self._sums: dict[str, tuple[Tensor, int]] = {}
        """Sums over layers that share slots, by name, and how many there were."""
        self._usage: list[Tensor] = []
        """The usage of the slots of each layer."""
        self._importance: dict[int, Tensor] = {}
        """The importance of the slots of each layer, where the policy scores them."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer for the attention of this pass."""
        if self.slots is not None:
            return self.layers[layer_idx].write(key_states, value_states, self.slots)
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

    def after_layer(self, layer: Any, inputs: dict[str, Any], attention: Tensor | None) -> None:
        """Keep the hidden states that a layer's attention has read, or let the policy score the layer's slots."""
        index = layer.layer_idx
        if self.cache.signals is not None and self.cache.signals.needs_queries:
            hidden, most = inputs["hidden_states"], PENDING + self.cache.block
            # A view would keep the hidden states of a long prompt.
            self.hidden[index] = hidden if hidden.shape[1] <= most else hidden[:, -most:].clone()
        elif self.evicts and index in self.groups.bounded and index not in self._importance:
            keys, values = self.layers[index].read(self.state.placement[0])
            policy = cast(LayerScorer, self.cache.memory.policy)
            importance = policy.score_layer(layer, inputs, keys, values, attention)
            self._importance[index] = self.groups.reduce(importance)

    def finish(self) -> None:
        """End the pass: evict, if the policy needed the statistics of the pass.

        Raises `ValueError` where the layers lack tokens of the pass; the cache then needs `VQMemCache.reset`.
        """
        try:
            if self.slots is not None:
                for layer in self.layers:
                    layer.wrote(self.valid.shape[1])
            self._check_written()
            signals = self.cache.signals
            if signals is not None and signals.needs_queries:
                hidden = [self.hidden[module.layer_idx] for module in signals.modules]
                states = zip(self.state.queries, hidden, strict=True)
                queries = tuple(state.append(x, self.valid[:, -x.shape[1] :], self.cache.block) for state, x in states)
                self.state = replace(self.state, queries=queries)
            if observes_pass(self.cache):
                self._take_over()
            if self.evicts and self.keep is None:
                self.state = evict(self.cache, self.state, self.evictor)
            self.cache.end(self.state)
        except BaseException:
            self.fail()
            raise

    def fail(self) -> None:
        """Mark the cache as failed: some layers may have the tokens of this pass and others not."""
        self.cache.end(None)

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
        self._usage.append(usage)

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
                "mask to its logits); use a policy that needs no attention weights, such as fifo, or scored without "
                "usage"
            )
        if self._sums:
            means = {name: (x / n)[:, 0] for name, (x, n) in self._sums.items()}
            self._usage = [self._usage_of(0, means)]
        for layers in (self._usage, [*self._importance.values()]):  # either becomes the usage
            if layers:
                slots = replace(self.state.memory.slots, usage=self.groups.combine(layers))
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
        if written != {(self.columns, self.state.count)}:
            raise ValueError(
                f"the cache wrote {self.state.count} slots per layer, but something else changed them "
                "within the pass; take other hooks off the attention of the model"
            )


class WatchingPass(ForwardPass):
    """A `ForwardPass` for policies that need the hidden states or the attention of layers."""

    watches_layers = True

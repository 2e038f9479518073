"""A bounded memory as the key-value cache of a pretrained `transformers` model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils._pytree import tree_map

try:
    from transformers.cache_utils import Cache, DynamicLayer
except ImportError as error:
    raise ImportError("vqmem.memory.hf_cache needs transformers; run `pip install 'vqmem[hf]'`") from error

from ..models.scorers.base import ScorerModel
from ._hf_hooks import Watch, attach, mask_of, new_tokens, score
from ._hf_int8 import pack, unpack
from ._hf_models import count_layers
from ._hf_policy import describe, require_match, require_vocabulary, resolve, resolve_scorer
from ._hf_positions import Rotation
from .bank import Memory, State
from .policy import Guard, Judge, Observer, Policy, Seen, whole_number


@dataclass(frozen=True)
class Held:
    """What the cache knows of its slots, the same for all layers.

    The payload is each slot's index before eviction, and the position that its keys are rotated to.
    """

    memory: State
    scorer: Any
    seen: Int[Tensor, " batch"]
    """Tokens so far that were no padding."""
    shift: Int[Tensor, " batch"]
    """What has to be added to the position of a new token, since slots were moved together."""

    def rows(self, change: Callable[[Tensor], Tensor]) -> Held:
        """Every tensor changed along its batch axis."""
        memory = State.from_state_dict({name: change(x) for name, x in self.memory.state_dict().items()})
        return Held(memory, tree_map(change, self.scorer), change(self.seen), change(self.shift))


@dataclass
class Pass:
    """A forward pass under way: what will be held after it, and what it must show before slots can be chosen."""

    held: Held
    positions: Int[Tensor, "batch new"]
    valid: Bool[Tensor, "batch new"]
    keep: Int[Tensor, "batch kept"] | None = None
    """The slots that stay, if that can be said before the pass: layers then evict as they go."""
    norms: Tensor | None = None
    worth: Tensor | None = None
    """What a `Judge` said of all slots, summed over layers."""


@dataclass
class Desk:
    """What the cache and its layers share; layers do not know the cache, so that it goes when its last user does."""

    memory: Memory
    held: Held | None = None
    now: Pass | None = None
    failed: bool = False


class VQMemLayer(DynamicLayer):
    """Keys and values of one layer, ``[batch, heads, slots, width]``, in order of position, padding first."""

    keys: Any
    values: Any
    is_croppable = False  # `transformers` asks before it relies on `crop`, which works only until something is evicted

    def __init__(self, desk: Desk, storage: str) -> None:
        super().__init__()
        self.desk, self.storage, self.seen = desk, storage, 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """All keys and values for the attention at hand; eviction comes after it. Raises `ValueError` out of a pass."""
        now = self.desk.now
        if now is None:
            raise ValueError("this cache belongs to another model; call the model that it was made for (its `model`)")
        if self.storage == "int8":  # slots are packed once and stay so; attention sees new ones as they are
            held = super().update(pack(key_states), pack(value_states))
            old = (unpack(x[..., : -key_states.shape[-2], :], key_states.dtype) for x in held)
            keys, values = (torch.cat(pair, dim=-2) for pair in zip(old, (key_states, value_states), strict=True))
        else:
            keys, values = super().update(key_states, value_states)
        self.seen += key_states.shape[-2]
        if "norms" in self.desk.memory.requires:
            norms = key_states.detach().float().norm(dim=-1).mean(dim=1)
            now.norms = norms if now.norms is None else now.norms + norms
        if now.keep is not None:
            self.keep(now.keep)
        return keys, values

    def read(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of the slots, whatever they are stored as."""
        if self.storage == "int8":
            return unpack(self.keys, dtype), unpack(self.values, dtype)
        return self.keys, self.values

    def turn(self, rotation: Rotation, by: Int[Tensor, "batch slots"], dtype: torch.dtype) -> None:
        """Turn the keys by so many positions."""
        keys = rotation(self.read(dtype)[0], by)
        self.keys = pack(keys) if self.storage == "int8" else keys

    def keep(self, indices: Int[Tensor, "batch kept"]) -> None:
        """Evict all slots but these."""
        if self.is_initialized and indices.shape[1] < self.keys.shape[-2]:
            self.keys, self.values = (_take(x, indices) for x in (self.keys, self.values))

    def get_seq_length(self, *args: Any) -> int:
        """Tokens seen, evicted ones and padding included: where the next token stands."""
        return self.seen

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """How many keys attention will see, and the column of the first if all are the newest."""
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        slots = self.keys.shape[-2] if self.is_initialized and self.keys is not None else 0
        return slots + new, self.seen - slots

    def reset(self) -> None:
        """Hold nothing."""
        self.keys = self.values = None
        self.is_initialized, self.seen = False, 0

    def truncate(self, count: int) -> None:
        """Hold the first ``count`` tokens. Only where nothing was evicted."""
        if self.is_initialized:
            self.keys, self.values = (x[..., :count, :].clone() for x in (self.keys, self.values))
            self.seen = count

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes if self.is_initialized else 0


class VQMemCache(Cache):
    """At most ``capacity`` tokens a row of what a pretrained decoder has read, kept by a policy.

        cache = VQMemCache(model, capacity=256, policy="sink_recent")
        model.generate(**inputs, cache=cache)

    Pass it as ``cache`` (before `transformers` 5.24: ``past_key_values``) to ``model``, any decoder of `transformers`
    that attends to all earlier tokens, or its ``generate``: greedy, sampling, beams, prompts whole or in chunks,
    batches with padding. Tokens are evicted after each pass, so attention sees the ``capacity`` and the new tokens;
    each row keeps its own, all layers and heads the same ones. Kept tokens keep their positions; with
    ``positions="compact"`` they are moved together, by turning their keys, whenever the model would come to the end of
    the positions that it was trained for. With ``storage="int8"`` kept keys and values are held in 8 bits, each off by
    1/510 of the range of its slot and head at most.

    ``scorer`` is a trained scorer of this model's token ids, or the folder of its run, for policies that want scores.
    ``policy`` is a name, its YAML mapping or the object itself; by default the one that suits the scorer. The first
    ``sinks`` and the newest ``recent`` tokens (default: half of the capacity that the sinks leave) stay whatever the
    policy says. Policies that look at attention see the mean over heads and layers: where the papers let every head
    or layer evict for itself, one set of tokens is kept here.

    Raises `ValueError` for a model that cannot work, a capacity without room for the guards, a missing scorer, one
    of another tokenizer or without the signals that the policy weighs.
    """

    layers: Any

    def __init__(
        self,
        model: Any,
        capacity: int | Any,  # what is of another type gets an error of our own
        policy: str | Mapping[str, Any] | Policy | Any | None = None,
        scorer: ScorerModel | str | PathLike[str] | Any | None = None,
        sinks: int | Any = 4,
        recent: int | Any | None = None,
        positions: str | Any = "kept",
        storage: str | Any = "full",
    ) -> None:
        layers = count_layers(model)
        if positions not in ("kept", "compact"):
            raise ValueError(f"positions={positions!r}; use kept or compact")
        if storage not in ("full", "int8"):
            raise ValueError(f"storage={storage!r}; use full or int8")
        self._rotation = Rotation(model) if positions == "compact" else None
        if recent is None:
            recent = max(0, whole_number("capacity", capacity) - whole_number("sinks", sinks)) // 2
        self.model, self.scorer = model, resolve_scorer(scorer, getattr(model, "device", "cpu"))
        require_vocabulary(self.scorer, model)
        memory = Memory(capacity, resolve(policy, self.scorer), guard=Guard(sinks, recent))
        require_match(memory.policy, self.scorer)
        self._desk = Desk(memory)
        super().__init__(layers=[VQMemLayer(self._desk, storage) for _ in range(layers)])
        watched = cast(Judge, memory.policy).layers(model) if "layers" in memory.requires else ()
        self._detach = attach(model, self, watched)

    @property
    def memory(self) -> Memory:
        """The capacity, policy and guards."""
        return self._desk.memory

    @property
    def positions(self) -> list[list[int]]:
        """The positions, counted without padding, of the tokens that each row holds."""
        if self._desk.held is None:
            return []
        slots = self._desk.held.memory.slots
        return [row[here].tolist() for row, here in zip(slots.positions, slots.valid, strict=True)]

    @property
    def nbytes(self) -> int:
        """Bytes held now: keys and values of all layers, and what is known of the slots."""
        held = self._desk.held
        return sum(layer.nbytes for layer in self.layers) + (held.memory.nbytes if held else 0)

    def __repr__(self) -> str:
        """The model, how tokens are kept, and what is held now."""
        kept = max(map(len, self.positions), default=0)
        return (
            f"VQMemCache({type(self.model).__name__}, policy={describe(self.memory.policy)}, "
            f"capacity={self.memory.capacity}, sinks={self.memory.guard.sinks}, recent={self.memory.guard.recent}: "
            f"{self.get_seq_length():,} tokens read, {kept:,} kept, {self.nbytes:,} bytes)"
        )

    def close(self) -> None:
        """Take the hooks off the model. They also go with the cache itself."""
        self._detach()

    def begin(
        self, named: dict[str, Any], implementation: str, dtype: torch.dtype
    ) -> tuple[dict[str, Any], Watch | None]:
        """Called before a pass with its arguments; gives those to use, and a watch if attention is to be looked at."""
        desk, seen = self._desk, self.get_seq_length()
        if desk.failed:
            raise ValueError(
                "the last pass of the model through this cache did not end; call reset() or make a new one"
            )
        tokens, valid = new_tokens(named, seen)
        before = desk.held or self._empty(tokens)
        slots = before.memory.slots
        if slots.batch != len(tokens):
            raise ValueError(f"the cache holds {slots.batch} rows but the model was given {len(tokens)}; reset() it")
        if self._rotation is not None:
            before = self._move_together(before, self._rotation, tokens.shape[1])
        now = self._read(before, tokens, valid)
        watch = None
        if "usage" in self.memory.requires:
            watch = Watch(self.memory.policy.queries if isinstance(self.memory.policy, Observer) else None)
        elif not self.memory.observes:
            self._choose(now)
        if named.get("position_ids") is None or self._rotation is not None:
            # Without them a model would count padding, and what was moved together.
            named["position_ids"] = now.positions + before.shift[:, None]
        mask, whole = named.get("attention_mask"), bool(valid.all()) and bool(slots.valid.all())
        columns = slots.count == seen and mask is not None and mask.shape[1] == seen + tokens.shape[1]
        if watch is None and whole and not columns:
            named["attention_mask"] = None
        elif watch is not None or not columns:  # until something is evicted, slots are the columns of the mask given
            named["attention_mask"] = mask_of(slots.valid, valid, implementation, dtype)
        desk.now = now
        return named, watch

    def judge(self, layer: Any, inputs: dict[str, Any], attention: Tensor | None) -> None:
        """Called after an attention module of the model, if the policy is a `Judge` and something will be evicted."""
        now, held = self._desk.now, self.layers[layer.layer_idx]
        if now is None or now.held.memory.slots.count <= self.memory.capacity:
            return
        keys, values = held.read(self.model.dtype)
        worth = cast(Judge, self.memory.policy).judge(layer, inputs, keys, values, attention)
        now.worth = worth if now.worth is None else now.worth + worth

    def finish(self, watch: Watch | None) -> None:
        """Called after a pass: evict, if that had to wait for what the pass would show."""
        desk = self._desk
        now, desk.now = desk.now, None
        assert now is not None
        if now.keep is None:
            desk.failed = True  # unless what follows succeeds
            norms = None if now.norms is None else now.norms / len(self.layers)
            seen = Seen(now.positions, now.valid, None if watch is None else watch.weights, norms)
            memory = self.memory.observe(now.held.memory, seen)
            if now.worth is not None:
                memory = replace(memory, slots=replace(memory.slots, usage=now.worth / len(self.layers)))
            now.held = replace(now.held, memory=memory)
            self._choose(now)
            for layer in self.layers:
                layer.keep(now.keep)
            desk.failed = False
        desk.held = now.held

    def fail(self) -> None:
        """Called where a pass did not end: some layers have taken it in and others have not."""
        self._desk.now, self._desk.failed = None, True

    def _empty(self, tokens: Int[Tensor, "batch new"]) -> Held:
        none, zero = torch.zeros_like(tokens[:, :0]), torch.zeros_like(tokens[:, 0])
        scorer = None if self.scorer is None else self.scorer.initial_state(len(tokens))
        return Held(self.memory.empty((none, none)), scorer, zero, zero)

    def _move_together(self, held: Held, rotation: Rotation, new: int) -> Held:
        """Give slots the positions from 0 on, without gaps, if new tokens would pass the limit of the model."""
        slots = held.memory.slots
        if not slots.count or int((held.seen + held.shift).max()) + new <= rotation.limit:
            return held
        places = (slots.valid.cumsum(1) - 1).clamp(min=0)
        for layer in self.layers:
            layer.turn(rotation, places - slots.payload[1], self.model.dtype)
        slots = replace(slots, payload=(slots.payload[0], places))
        return replace(held, memory=replace(held.memory, slots=slots), shift=slots.valid.sum(1) - held.seen)

    def _read(self, held: Held, tokens: Int[Tensor, "batch new"], valid: Bool[Tensor, "batch new"]) -> Pass:
        """Append new tokens; nothing is evicted yet."""
        positions = (held.seen[:, None] + valid.cumsum(1) - 1).clamp(min=0)
        scores, scorer = score(self.scorer, tokens, valid, held.scorer)
        slots, count = held.memory.slots, held.memory.slots.count
        index = torch.arange(count + tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        memory = replace(held.memory, slots=replace(slots, payload=(index[:, :count], slots.payload[1])))
        new = (index[:, count:], positions + held.shift[:, None])
        memory = self.memory.append(memory, new, tokens, positions, scores, valid)
        return Pass(replace(held, memory=memory, scorer=scorer, seen=held.seen + valid.sum(1)), positions, valid)

    def _choose(self, now: Pass) -> None:
        """Say which slots stay."""
        state = self.memory.fit(now.held.memory, now.held.seen).state
        now.held, now.keep = replace(now.held, memory=state), state.slots.payload[0]

    def _rows(self, change: Callable[[Tensor], Tensor]) -> None:
        if self._desk.held is not None:
            self._desk.held = self._desk.held.rows(change)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row ``beam_idx[i]`` is."""
        for layer in self.layers:
            layer.reorder_cache(beam_idx)
        self._rows(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row ``repeats`` times, side by side."""
        super().batch_repeat_interleave(repeats)
        self._rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only the rows at ``indices``."""
        super().batch_select_indices(indices)
        self._rows(lambda x: x[indices.to(x.device)])

    def reset(self) -> None:
        """Hold nothing, as if new."""
        super().reset()
        self._desk.held, self._desk.now, self._desk.failed = None, None, False

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` tokens; above 0, those after the first so many, as in transformers 5.2.

        Raises `ValueError` once something was evicted, which cannot come back, and for policies that have already seen
        the attention of the tokens to forget.
        """
        seen, held = self.get_seq_length(), self._desk.held
        count = max(0, seen + tokens_to_remove) if tokens_to_remove <= 0 else tokens_to_remove
        if held is None or count >= seen:
            return
        slots = held.memory.slots
        if slots.count < seen:
            raise ValueError(
                f"crop({tokens_to_remove}) cannot go back: {seen - slots.count} tokens were evicted; raise "
                f"capacity={self.memory.capacity} to what is read in all, or turn assisted decoding off"
            )
        if "usage" in self.memory.requires:
            raise ValueError(
                f"crop({tokens_to_remove}) cannot take back attention that the policy has seen; use another policy"
            )
        for layer in self.layers:
            layer.truncate(count)
        held = self._read(self._empty(slots.tokens), slots.tokens[:, :count], slots.valid[:, :count]).held
        kept = replace(held.memory.slots, usage=slots.usage[:, :count])
        self._desk.held = replace(held, memory=replace(held.memory, slots=kept))

    def __deepcopy__(self, memo: dict[int, Any]) -> VQMemCache:
        """Another cache of the same model that holds the same, for a prompt that several texts begin with."""
        memory, guard = self.memory, self.memory.guard
        options = (guard.sinks, guard.recent, "compact" if self._rotation else "kept", self.layers[0].storage)
        twin = VQMemCache(self.model, memory.capacity, memory.policy, self.scorer, *options)
        twin._desk.held, twin._desk.failed = copy.deepcopy(self._desk.held, memo), self._desk.failed
        for new, old in zip(twin.layers, self.layers, strict=True):
            vars(new).update({k: copy.deepcopy(x, memo) for k, x in vars(old).items() if k != "desk"})
        return twin


def _take(x: Tensor, indices: Int[Tensor, "batch kept"]) -> Tensor:
    """The slots at ``indices`` of ``[batch, heads, slots, width]``, in memory of their own."""
    if len(x) == 1:
        return x.index_select(2, indices[0])
    return x.take_along_dim(indices[:, None, :, None], dim=2)

"""A bounded memory as the key-value cache of a pretrained `transformers` model."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

try:
    from transformers.cache_utils import Cache, DynamicLayer
except ImportError as error:
    raise ImportError("vqmem.memory.huggingface.cache needs transformers; run `pip install 'vqmem[hf]'`") from error

from ..bank import Memory
from ..policy import Guard, Judge, Observer, Policy, whole_number
from ..scorer import ScorerModel
from ..slots import Slots
from .arguments import describe, require_match, require_vocabulary, resolve, resolve_scorer
from .attention import AttentionRecorder, RecordingMask, mask_of
from .hooks import attach, new_tokens, score
from .int8 import pack, unpack
from .positions import Rotation
from .state import CacheState, ForwardPass
from .supported_models import attention_layers, count_layers, placement, refuse_presses, text_config, unwrap


class VQMemLayer(DynamicLayer):
    """Keys and values of one layer, ``[batch, heads, slots, width]``, in order of position, padding first."""

    keys: Any
    values: Any
    is_croppable = False  # `transformers` asks before it relies on `crop`, which works only until something is evicted

    def __init__(self, storage: str) -> None:
        super().__init__()
        self.storage, self.seen = storage, 0

    @property
    def count(self) -> int:
        """Slots a row."""
        return self.keys.shape[-2] if self.is_initialized else 0

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,
        keep: Int[Tensor, "batch kept"] | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """All keys and values for the attention at hand; all slots but ``keep`` are evicted."""
        if self.storage == "int8":  # slots are packed once and stay so; attention sees new ones as they are
            held = super().update(pack(key_states), pack(value_states))
            old = (unpack(x[..., : -key_states.shape[-2], :], key_states.dtype) for x in held)
            keys, values = (torch.cat(pair, dim=-2) for pair in zip(old, (key_states, value_states), strict=True))
        else:
            keys, values = super().update(key_states, value_states)
        self.seen += key_states.shape[-2]
        if keep is not None:
            self.keep(keep)
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
        if indices.shape[1] < self.count:
            self.keys, self.values = (_take(x, indices.to(x.device)) for x in (self.keys, self.values))

    def get_seq_length(self, *args: Any) -> int:
        """Tokens seen, evicted ones and padding included: where the next token stands."""
        return self.seen

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """How many keys attention will see, and the column of the first if all are the newest."""
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.count + new, self.seen - self.count

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
        decoder = unwrap(model)
        layers = count_layers(decoder)
        if positions not in ("kept", "compact"):
            raise ValueError(f"positions={positions!r}; use kept or compact")
        if storage not in ("full", "int8"):
            raise ValueError(f"storage={storage!r}; use full or int8")
        self._rotation = Rotation(decoder) if positions == "compact" else None
        if recent is None:
            recent = max(0, whole_number("capacity", capacity) - whole_number("sinks", sinks)) // 2
        self.model, self.scorer = model, resolve_scorer(scorer, getattr(model, "device", "cpu"))
        require_vocabulary(self.scorer, decoder)
        self.memory = Memory(capacity, resolve(policy, self.scorer), guard=Guard(sinks, recent))
        require_match(self.memory.policy, self.scorer)
        self._decoder, self._attention = decoder, attention_layers(decoder)
        self._state: CacheState | None = None
        self._failed, self._busy, self._thread = False, threading.Lock(), 0
        super().__init__(layers=[VQMemLayer(storage) for _ in range(layers)])
        watched = cast(Judge, self.memory.policy).layers(decoder) if "layers" in self.memory.requires else ()
        self._detach = attach(decoder, self, watched)

    @property
    def positions(self) -> list[list[int]]:
        """The positions, counted without padding, of the tokens that each row holds."""
        if self._state is None:
            return []
        slots = self._state.memory.slots
        return [row[here].tolist() for row, here in zip(slots.positions, slots.valid, strict=True)]

    @property
    def nbytes(self) -> int:
        """Bytes held now: keys and values of all layers, and what is known of the slots."""
        known = self._state.memory.nbytes if self._state else 0
        return sum(layer.nbytes for layer in self.layers) + known

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

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Raises `ValueError`: passes of the model write, see `ForwardPass`."""
        raise ValueError(
            "this cache belongs to another model, or was closed; call the model that it was made for (its `model`)"
        )

    def begin(self, arguments: dict[str, Any]) -> ForwardPass:
        """Called before a pass with its arguments, which become those to use; returns what stands for the cache.

        Raises `ValueError` where the cache and the pass do not fit, before anything has changed.
        """
        if not self._busy.acquire(blocking=False):
            raise ValueError(
                "a pass of the model through this cache is under way or was interrupted; give each thread a cache of "
                "its own, or call reset()"
            )
        try:
            return self._begin(arguments)
        except BaseException:
            self._busy.release()
            raise

    def _begin(self, arguments: dict[str, Any]) -> ForwardPass:
        if self._failed:
            raise ValueError(
                "the last pass of the model through this cache did not end; call reset() or make a new one"
            )
        refuse_presses(self._attention)
        given = arguments.get("input_ids")
        self._check_rows(arguments.get("inputs_embeds") if given is None else given)
        tokens, valid = new_tokens(arguments, self.get_seq_length())
        before = self._state or self._empty(tokens)
        if before.placement != placement(self._decoder):
            was, now = (" on ".join(map(str, x)) for x in (before.placement, placement(self._decoder)))
            raise ValueError(
                f"the model was in {was} when it filled the cache and is in {now} now; move it back, or call reset()"
            )
        state, turn = self._move_together(before, tokens.shape[1])
        state, places = self._read(state, tokens, valid)
        recorder, policy = None, self.memory.policy
        if "usage" in self.memory.requires:
            recorder = AttentionRecorder(policy.queries if isinstance(policy, Observer) else None)
        run = ForwardPass(self, state, places, valid, recorder)
        if not self.memory.observes:
            run.choose()
        self._mask(arguments, before.memory.slots, valid, recorder)
        if arguments.get("position_ids") is None or self._rotation is not None:
            # Without them a model would count padding, and what was moved together.
            arguments["position_ids"] = places + state.shift[:, None]
        if turn is not None:
            for layer in self.layers:
                layer.turn(self._rotation, turn, before.placement[0])
        return run

    def _mask(
        self,
        arguments: dict[str, Any],
        slots: Slots,
        valid: Bool[Tensor, "batch new"],
        recorder: AttentionRecorder | None,
    ) -> None:
        """Give a pass the mask that fits the slots, or none where attention needs none."""
        given, seen = arguments.get("attention_mask"), self.get_seq_length()
        whole = bool(valid.all()) and bool(slots.valid.all())
        columns = slots.count == seen and given is not None and given.shape[1] == seen + valid.shape[1]
        if recorder is None and (whole or columns):
            if not columns:
                arguments["attention_mask"] = None
            return  # until something is evicted, slots are the columns of the mask given
        dtype, _ = placement(self._decoder)
        mask = mask_of(slots.valid, valid, text_config(self._decoder)._attn_implementation, dtype)
        arguments["attention_mask"] = mask if recorder is None else RecordingMask.of(mask, recorder)

    def end(self, state: CacheState | None) -> None:
        """Called after a pass with what is known now, or with None where the pass did not end."""
        if state is None:
            self._failed = True
        else:
            self._state = state
        if self._busy.locked():  # `reset` may have come between
            self._busy.release()

    def check_generation(self, input_ids: Tensor, arguments: dict[str, Any]) -> None:
        """Called where ``generate`` prepares a pass: raise `ValueError` unless the text goes on from what was read."""
        self._check_rows(input_ids)
        mask, embeds, new = (arguments.get(x) for x in ("attention_mask", "inputs_embeds", "next_sequence_length"))
        length, seen = (input_ids if embeds is None else embeds).shape[1], self.get_seq_length()
        if arguments.get("is_first_iteration") or not seen:
            self._thread = threading.get_ident()
        elif self._thread != threading.get_ident():
            self._failed = True  # the tokens of two texts are mixed
            raise ValueError("two threads generate with one cache at once; give each a cache of its own")
        full = new == length - seen or (mask is not None and mask.shape[1] == length)
        if full and length <= seen:
            raise ValueError(
                f"generate has {length} tokens in all, but the cache has read {seen} already: it was used for another "
                "text; call reset() or make a new one"
            )
        if arguments.get("use_cache") is False:
            raise ValueError("use_cache=False reads all tokens anew in every pass; leave it out, or the cache")

    def _check_rows(self, tokens: Tensor | None) -> None:
        if self._state is not None and tokens is not None and len(tokens) != len(self._state.seen):
            raise ValueError(
                f"the cache holds {len(self._state.seen)} rows but the model was given {len(tokens)}; reset() it"
            )

    def _empty(self, tokens: Int[Tensor, "batch new"]) -> CacheState:
        none, zero = torch.zeros_like(tokens[:, :0]), torch.zeros_like(tokens[:, 0])
        scorer = None if self.scorer is None else self.scorer.initial_state(len(tokens))
        return CacheState(self.memory.empty((none, none)), scorer, zero, zero, placement(self._decoder))

    def _move_together(self, state: CacheState, new: int) -> tuple[CacheState, Int[Tensor, "batch slots"] | None]:
        """Give slots the positions from 0 on, without gaps, if new tokens would pass the limit of the model.

        Returns by how much their keys have to be turned, too.
        """
        slots = state.memory.slots
        limit = None if self._rotation is None else self._rotation.limit
        if limit is None or not slots.count or int((state.seen + state.shift).max()) + new <= limit:
            return state, None
        places = (slots.valid.cumsum(1) - 1).clamp(min=0)
        moved = replace(slots, payload=(slots.payload[0], places))
        state = replace(state, memory=replace(state.memory, slots=moved), shift=slots.valid.sum(1) - state.seen)
        return state, places - slots.payload[1]

    def _read(
        self, state: CacheState, tokens: Int[Tensor, "batch new"], valid: Bool[Tensor, "batch new"]
    ) -> tuple[CacheState, Int[Tensor, "batch new"]]:
        """Append new tokens, evict nothing yet; returns their positions, too."""
        positions = (state.seen[:, None] + valid.cumsum(1) - 1).clamp(min=0)
        scores, scorer = score(self.scorer, tokens, valid, state.scorer)
        slots, count = state.memory.slots, state.memory.slots.count
        index = torch.arange(count + tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        memory = replace(state.memory, slots=replace(slots, payload=(index[:, :count], slots.payload[1])))
        new = (index[:, count:], positions + state.shift[:, None])
        memory = self.memory.append(memory, new, tokens, positions, scores, valid)
        return replace(state, memory=memory, scorer=scorer, seen=state.seen + valid.sum(1)), positions

    def _rows(self, change: Callable[[Tensor], Tensor]) -> None:
        if self._state is not None:
            self._state = self._state.rows(change)

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
        self._state, self._failed, self._busy = None, False, threading.Lock()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` tokens; above 0, those after the first so many, as in transformers 5.2.

        Raises `ValueError` once something was evicted, which cannot come back, and for policies that have already seen
        the attention of the tokens to forget.
        """
        seen, state = self.get_seq_length(), self._state
        count = max(0, seen + tokens_to_remove) if tokens_to_remove <= 0 else tokens_to_remove
        if state is None or count >= seen:
            return
        slots = state.memory.slots
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
        state, _ = self._read(self._empty(slots.tokens), slots.tokens[:, :count], slots.valid[:, :count])
        kept = replace(state.memory.slots, usage=slots.usage[:, :count])
        self._state = replace(state, memory=replace(state.memory, slots=kept))

    def __deepcopy__(self, memo: dict[int, Any]) -> VQMemCache:
        """Another cache of the same model that holds the same, for a prompt that several texts begin with."""
        memory, guard = self.memory, self.memory.guard
        options = (guard.sinks, guard.recent, "compact" if self._rotation else "kept", self.layers[0].storage)
        twin = VQMemCache(self.model, memory.capacity, memory.policy, self.scorer, *options)
        twin._state, twin._failed = copy.deepcopy(self._state, memo), self._failed
        twin.layers = copy.deepcopy(self.layers, memo)
        return twin


def _take(x: Tensor, indices: Int[Tensor, "batch kept"]) -> Tensor:
    """The slots at ``indices`` of ``[batch, heads, slots, width]``, in memory of their own."""
    if len(x) == 1:
        return x.index_select(2, indices[0])
    return x.take_along_dim(indices[:, None, :, None], dim=2)

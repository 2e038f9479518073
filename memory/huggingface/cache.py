"""A bounded memory as the key-value cache of a pretrained `transformers` model."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

try:
    from transformers.cache_utils import Cache
except ImportError as error:
    raise ImportError("vqmem.memory.huggingface.cache needs transformers; run `pip install 'vqmem[hf]'`") from error

from ..policy import LayerScorer, Policy, as_integer
from ..scorer import ScorerModel, signals_of
from . import saved
from .arguments import describe, describe_prompt, settle
from .attention import set_mask
from .eviction import add_slots, fix_shapes, keeps_predictions, make_room, observes_pass, take_back
from .forward_pass import ForwardPass, WatchingPass
from .hooks import attach, new_tokens
from .layer import VQMemLayer, bytes_of
from .positions import Rotation
from .signals import QueryState
from .state import CacheState
from .supported_models import (
    attention_layers,
    is_compiled,
    layers_of,
    placement,
    refuse_presses,
    unwrap,
)


class VQMemCache(Cache):
    """A key-value cache of at most ``capacity`` tokens per row, which a policy chooses.

    For example::

        cache = VQMemCache(model, tokenizer, capacity=256)
        model.generate(**inputs, cache=cache)

    Pass it as ``cache`` (before `transformers` 5.24: ``past_key_values``) to ``model`` or to its ``generate``: greedy,
    sampling, beams, prompts in one pass or in chunks, batches with padding. Tokens are evicted after a pass. Each row
    keeps a different set of tokens.

    Args:
        model: A decoder of `transformers` that attends to all earlier tokens.
        tokenizer: The tokenizer of the model, for the packaged scorer. It may be left out where the policy needs no
            scores or ``scorer`` is given; then ``VQMemCache(model, 256)`` gives the capacity.
        capacity: How many tokens of a row stay when some are evicted. A number of tokens (256), a share of the prompt
            (0.25: of all that was read in passes of several tokens), or bytes per row (``"64MB"``).
        policy: A preset (``stream`` for many passes, ``document`` for a long prompt; ``auto`` keeps a
            first pass that alone overflows the cache as a document, and all else as a stream), the folder that ``vqmem
            fit_policy`` wrote for the model, the name of a policy, its YAML mapping or the object; None is the policy
            that suits the scorer. Presets and folders set ``recent``, ``share`` and ``block`` unless they are given.
        scorer: A trained scorer of this model's token ids, or the folder of its run; the packaged one by default.
        sinks: How many of the first tokens always stay.
        recent: How many of the newest tokens always stay; half of the capacity that the sinks leave if None.
        share: What keeps one set of tokens: the ``model`` (default), each ``layer`` or each ``head`` of keys and
            values. Policies that look at attention get the mean over what shares a set.
        block: Evict when a row has this many tokens more than the capacity; 1 by default. A larger block is faster.
        positions: ``kept`` leaves each token its position. ``compact`` rotates keys so that the tokens move together
            whenever new ones would pass the positions that the model was trained for.
        storage: ``full`` keeps the model's type. ``int8`` stores keys and values in 8 bits, with an error of at most
            1/510 of the range of their slot and head.

    Raises:
        ValueError: The model cannot work with evicted slots, the capacity has no room for the guards, or the scorer is
            missing, of another tokenizer or without the signals that the policy weighs.
    """

    layers: Any

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,  # values of another type get an error of ours
        capacity: int | float | str | Any = None,
        *,
        policy: str | Mapping[str, Any] | Policy | Any | None = "auto",
        scorer: ScorerModel | str | PathLike[str] | Any | None = None,
        sinks: int | Any = 4,
        recent: int | Any | None = None,
        share: str | Any | None = None,
        block: int | Any | None = None,
        positions: str | Any = "kept",
        storage: str | Any = "full",
    ) -> None:
        decoder = unwrap(model)
        layers = layers_of(decoder)
        if capacity is None:
            tokenizer, capacity = None, tokenizer
        self._settings = settle(
            decoder,
            tokenizer,
            capacity,
            policy=policy,
            scorer=scorer,
            sinks=sinks,
            recent=recent,
            share=share,
            block=block,
            positions=positions,
            storage=storage,
        )
        settings = self._settings
        self.model, self.scorer = model, settings.scorer
        self.groups, self.block = settings.groups, settings.block
        self._settle_capacity()
        self.rotation = Rotation(decoder) if positions == "compact" else None
        self._decoder = decoder
        self._attention = attention_layers(decoder)
        self._state: CacheState | None = None
        self.failed = False
        self._busy = threading.Lock()
        self.thread = 0
        """The thread that generates."""
        self.drafting = False
        """Whether passes of several tokens are drafts, not parts of a prompt."""
        for index in self.groups.bounded:
            layers[index] = VQMemLayer(storage, self.room)
        super().__init__(layers=layers)
        watched = ()
        if self.signals is not None:
            watched = self.signals.modules if self.signals.needs_queries else ()
        elif "layers" in self.memory.requires:
            watched = cast(LayerScorer, self.memory.policy).layers(decoder)
        self._pass_kind = WatchingPass if watched else ForwardPass
        self._detach = attach(decoder, self, watched)

    @property
    def positions(self) -> list[list[int]] | list[list[list[int]]]:
        """The positions, counted without padding, of the tokens that are cached for each row.

        Where layers or heads keep different tokens, each row has a list for each of them, layer after layer.
        """
        if self._state is None:
            return []
        kept, groups = self._state.positions(self.groups), self.groups.count
        return kept if groups == 1 else [kept[row : row + groups] for row in range(0, len(kept), groups)]

    @property
    def nbytes(self) -> int:
        """Bytes in use now: keys and values of all layers, and the bookkeeping of the slots."""
        bookkeeping = self._state.memory.nbytes if self._state else 0
        return sum(map(bytes_of, self.layers)) + bookkeeping

    def stats(self) -> dict[str, Any]:
        """What was read and is kept: tokens of each row, and bytes in all and of each layer."""
        kept = [] if self._state is None else self._state.valid(self.groups).sum(1).tolist()
        read = [] if self._state is None else self._state.seen.tolist()
        return {
            "read": read,
            "kept": kept,
            "evicted": [seen - now for seen, now in zip(read, kept, strict=True)],
            "bytes": self.nbytes,
            "layers": [bytes_of(layer) for layer in self.layers],
        }

    def __repr__(self) -> str:
        """The model, how tokens are kept, and how many are cached now."""
        kept = max(self.stats()["kept"], default=0)
        prompt = "" if self.prompt is None else f"prompt={describe_prompt(self.prompt.memory)}, "
        waits = self._settings.capacity.share is not None and self._state is None
        capacity = self._settings.capacity if waits else self.memory.capacity
        return (
            f"VQMemCache({type(self.model).__name__}, policy={describe(self.memory.policy)}, {prompt}"
            f"capacity={capacity}, sinks={self.memory.guard.sinks}, recent={self.memory.guard.recent}, "
            f"share={self.groups.share}, block={self.block}: "
            f"{self.get_seq_length():,} tokens read, {kept:,} kept, {self.nbytes:,} bytes)"
        )

    def close(self) -> None:
        """Remove the hooks from the model. They also go when the cache is collected."""
        self._detach()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Raises `ValueError`: only a `ForwardPass` writes into the layers."""
        raise ValueError(
            "this cache belongs to another model, or was closed; call the model that it was made for (its `model`)"
        )

    def begin(self, arguments: dict[str, Any]) -> ForwardPass:
        """Prepare a forward pass: change its ``arguments`` in place, and return what takes the place of the cache.

        Raises `ValueError` where the cache and the pass do not fit, before anything has changed.
        """
        if not self._busy.acquire(blocking=False):
            raise ValueError(
                "a pass of the model through this cache is under way or was interrupted; give each thread another "
                "cache, or call reset()"
            )
        try:
            return self._begin(arguments)
        except BaseException:
            self._busy.release()
            raise

    def _begin(self, arguments: dict[str, Any]) -> ForwardPass:
        if self.failed:
            raise ValueError(
                "the last pass of the model through this cache did not end; call reset() or make a new one"
            )
        refuse_presses(self._attention)
        given = arguments.get("input_ids")
        self.check_batch_size(arguments.get("inputs_embeds") if given is None else given)
        tokens, valid = new_tokens(arguments, self.get_seq_length())
        if given is None and self.scorer is not None:
            raise ValueError("scores need token ids, but the model was given inputs_embeds; give input_ids")
        state = self._state or self._initial_state(tokens)
        if state.placement != placement(self._decoder):
            was, now = (" on ".join(map(str, x)) for x in (state.placement, placement(self._decoder)))
            raise ValueError(
                f"the model was in {was} when it filled the cache and is in {now} now; move it back, or call reset()"
            )
        return self._start(arguments, state, tokens, valid)

    def _start(self, arguments: dict[str, Any], state: CacheState, tokens: Tensor, valid: Tensor) -> ForwardPass:
        """Make room for the new tokens, and prepare what the model is given."""
        new = tokens.shape[1]
        if self._settings.capacity.share is not None and (not state.count or (new > 1 and not self.drafting)):
            self._settle_capacity(self.get_seq_length() + new)
            for index in self.groups.bounded:
                self.layers[index].room = self.room
        try:
            state = make_room(self, state, new)
        except BaseException:
            self.failed = True
            raise
        if self._state is not None:
            self._state = state  # the layers have changed, whatever comes next
        cached = state.valid(self.groups)
        positions = (state.seen[:, None] + valid.cumsum(1) - 1).clamp(min=0)
        fixed = is_compiled(self.model) and fix_shapes(self, self._decoder, state.count + new)
        state = state.append(tokens, valid)
        full = state.count >= self.room
        if observes_pass(self) or (full and new >= self.block and not self.memory.observes):
            state = add_slots(self, state)
        forward = self._pass_kind(self, state, positions, valid, fixed=fixed)
        set_mask(arguments, cached, forward, self._decoder)
        if arguments.get("position_ids") is None or self.rotation is not None:
            # By default a model would count padding, and ignore that positions were compacted.
            arguments["position_ids"] = positions + state.shift[:, None]
        return forward

    def _settle_capacity(self, prompt: int | None = None) -> None:
        """Make the memory, for a prompt of so many tokens."""
        (self.memory, self.signals), self.prompt = self._settings.evictors(prompt)

    @property
    def room(self) -> int:
        """The slots that are allocated for a row."""
        return self.memory.capacity + self.block

    @property
    def slot_count(self) -> int:
        """The slots of a row that are in use, those of padding included."""
        return self._state.count if self._state else 0

    def end(self, state: CacheState | None) -> None:
        """Finish a pass: take over its ``state``, or mark the cache as failed where it is None."""
        if state is None:
            self.failed = True
        else:
            self._state = state
        if self._busy.locked():  # not after a `reset` in between
            self._busy.release()

    def check_batch_size(self, tokens: Tensor | None) -> None:
        """Raise `ValueError` for another number of rows than the cache has."""
        if self._state is not None and tokens is not None and len(tokens) != len(self._state.seen):
            raise ValueError(
                f"the cache has a batch size of {len(self._state.seen)} but the model was given one of {len(tokens)}; "
                "call reset()"
            )

    def _initial_state(self, tokens: Int[Tensor, "batch new"]) -> CacheState:
        none = self.groups.expand(torch.zeros_like(tokens[:, :0]))
        zero = torch.zeros_like(tokens[:, 0])
        scorer = None if self.scorer is None else self.scorer.initial_state(len(tokens))
        queries = () if self.signals is None else tuple(QueryState() for _ in self.groups.bounded)
        predicted = (none.float(),) if keeps_predictions(self.groups, self.signals) else ()
        memory = self.memory.empty((none, none, *predicted), signals_of(self.scorer))
        return CacheState(memory, scorer, zero, zero, placement(self._decoder), queries)

    def _map_batch(self, change: Callable[[Tensor], Tensor]) -> None:
        if self._state is not None:
            self._state = self._state.map_batch(change, self.groups)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Replace row i by row ``beam_idx[i]``."""
        for layer in self.layers:
            layer.reorder_cache(beam_idx)
        self._map_batch(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row ``repeats`` times; its copies are neighbours."""
        super().batch_repeat_interleave(repeats)
        self._map_batch(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows at ``indices`` alone."""
        super().batch_select_indices(indices)
        self._map_batch(lambda x: x[indices.to(x.device)])

    def save(self, path: str | PathLike[str]) -> None:
        """Write the cache and what it needs to go on into a safetensors file, for `load`.

        Raises `ValueError` where nothing was read yet, the policy is not one of the package or a layer bounds itself.
        """
        self._require_intact()
        if self.groups.layers < len(self.layers):
            raise ValueError(f"save does not work: {type(self.model).__name__} has layers that bound themselves")
        if self._state is None:
            raise ValueError("the cache is empty: it has read no token; read a text with the model before saving it")
        saved.write(Path(path), self._arguments(), self._decoder, self.scorer, self._state, self.layers)

    def _require_intact(self) -> None:
        if self.failed or self._busy.locked():
            raise ValueError(
                "the last pass of the model through this cache did not end; call reset() or make a new one"
            )

    def _arguments(self) -> dict[str, Any]:
        """What makes an equal empty cache, besides the scorer."""
        storage, guard = self.layers[self.groups.bounded[0]].storage, self.memory.guard
        made = {"capacity": self.memory.capacity, "share": self.groups.share, "block": self.block, "storage": storage}
        made |= {"sinks": guard.sinks, "positions": "compact" if self.rotation else "kept"}
        if self.prompt is None:
            return made | {"policy": self.memory.policy, "recent": guard.recent}
        recent = None if self._settings.recent is None else guard.recent
        return made | {"policy": saved.preset_of_memories(self.memory, self.prompt.memory), "recent": recent}

    @classmethod
    def load(cls, path: str | PathLike[str], model: Any, tokenizer: Any = None, *, scorer: Any = None) -> VQMemCache:
        """A cache that goes on where the saved one stopped.

        Args:
            path: The file that `save` wrote.
            model: The model that filled it.
            tokenizer: Its tokenizer, where the cache has the packaged scorer.
            scorer: Its scorer, where it has another.

        Returns:
            The cache, with the tokens, arguments and state of the saved one.

        Raises:
            ValueError: The file is missing or damaged, or of another model or scorer.
        """
        about, tensors = saved.read(Path(path))
        if saved.fingerprint(unwrap(model)) != about["model"]:
            raise ValueError(f"{path} was saved with another model than this {type(model).__name__}")
        cache = cls(model, tokenizer, scorer=scorer, **about["arguments"])
        if about["scorer"] is not None and saved.fingerprint(cast(Any, cache.scorer)) != about["scorer"]:
            raise ValueError(f"{path} was saved with another scorer; give it, or the tokenizer for the packaged one")
        initial = cache._initial_state(tensors["seen"][:, None])
        cache._state = saved.restore(tensors, about["read"], about["slots"], initial, cache.layers, cache._decoder)
        return cache

    def reset(self) -> None:
        """Forget all tokens: the cache is as new."""
        super().reset()
        self._settle_capacity()
        self._state = None
        self.failed = self.drafting = False
        self._busy = threading.Lock()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` tokens.

        A positive number keeps the first so many tokens instead, as in transformers 5.2. The cache is then as if it had
        never read the tokens. Raises `ValueError` for more tokens than were read since the last eviction, and for
        policies that look at each pass.
        """
        self._require_intact()
        seen = self.get_seq_length()
        state = self._state
        tokens_to_remove = as_integer("tokens_to_remove", tokens_to_remove)
        count = max(0, seen + tokens_to_remove) if tokens_to_remove <= 0 else tokens_to_remove
        if state is None or count >= seen:
            return
        self._state = take_back(self, state, seen - count)

    def __deepcopy__(self, memo: dict[int, Any]) -> VQMemCache:
        """A copy for the same model, for a prompt that several texts begin with."""
        self._require_intact()
        clone = VQMemCache(self.model, scorer=self.scorer, **self._arguments())
        clone._settings, clone.memory = self._settings, self.memory
        clone.signals, clone.prompt = self.signals, self.prompt
        clone._state = copy.deepcopy(self._state, memo)
        clone.layers = copy.deepcopy(self.layers, memo)
        return clone

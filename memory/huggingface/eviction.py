"""Give pending tokens slots, and evict slots from the layers of a cache for `transformers`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from ..bank import Memory
from ..scorer import ScorerModel
from .groups import Groups
from .learned import LearnedSignals
from .positions import Rotation
from .scoring import score
from .signals import AttentionSignals
from .state import CacheState
from .supported_models import MASKED, text_config


class Evictor(NamedTuple):
    """What chooses the slots that stay."""

    memory: Memory
    signals: AttentionSignals | None
    """Computes the signals that the policy weighs."""


@runtime_checkable
class BoundedCache(Protocol):
    """What evicts and what a `ForwardPass` needs of the cache."""

    layers: Any
    memory: Memory
    scorer: ScorerModel | None
    groups: Groups
    block: int
    signals: AttentionSignals | None
    prompt: Evictor | None
    """What evicts at the end of a first pass that overflows the cache; None where that is as after all others."""
    rotation: Rotation | None

    @property
    def room(self) -> int:
        """The slots that are allocated for a row."""
        ...

    def get_seq_length(self) -> int:
        """Tokens read so far, padding included."""
        ...

    def end(self, state: CacheState | None) -> None:
        """Take over the state after a pass; None where it failed."""
        ...


def observes_pass(cache: BoundedCache) -> bool:
    """Whether the policy needs statistics of each pass, so that no token may stay pending."""
    return cache.memory.observes and cache.signals is None


def make_room(cache: BoundedCache, state: CacheState, new: int) -> CacheState:
    """Evict, and compact positions, where ``new`` tokens would not fit otherwise; return the new state."""
    can_wait = not (observes_pass(cache) and "layers" in cache.memory.requires)
    if can_wait and state.count > cache.memory.capacity and state.count + new >= cache.room:
        state = evict(cache, state, evictor_of(cache))
    rotation = cache.rotation
    if rotation is None or not state.count or int((state.seen + state.shift).max()) + new <= rotation.limit:
        return state
    state, distance = add_slots(cache, state).compact(cache.groups)
    for index in cache.groups.bounded:
        cache.layers[index].rotate(rotation, cache.groups.of_layer(distance, index), state.placement[0])
    return state


def fix_shapes(cache: BoundedCache, model: Any, count: int) -> bool:
    """Allocate all slots, so that no shape depends on the tokens read.

    Returns False where this is not possible: ``count`` slots do not fit, nothing was read yet, the attention of the
    model takes no mask, or the policy or a layer must not see unused slots.
    """
    layers = [cache.layers[index] for index in cache.groups.bounded]
    all_equal = len(layers) == len(cache.layers) and layers[0].storage == "full" and not observes_pass(cache)
    takes_mask = text_config(model)._attn_implementation in MASKED
    if not (all_equal and takes_mask and layers[0].is_initialized and count <= cache.room):
        return False
    for layer in layers:
        layer.reserve(count, fill=True)
    return True


def add_slots(cache: BoundedCache, state: CacheState) -> CacheState:
    """The state in which pending tokens are scored and have slots; no layer changes."""
    if not state.pending:
        return state
    (tokens, valid), positions = state.pending_tokens()
    scores, scorer = score(cache.scorer, tokens, valid, state.scorer)
    slots = state.memory.slots
    count = slots.count
    index = torch.arange(count + tokens.shape[1], device=tokens.device).expand(slots.batch_size, -1)
    memory = replace(state.memory, slots=replace(slots, payload=(index[:, :count], *slots.payload[1:])))
    new = (tokens, positions, scores, valid, positions + state.shift[:, None])
    *new, rotated = (cache.groups.expand(x) for x in new)
    unknown = tuple(x.new_full(rotated.shape, torch.nan) for x in slots.payload[2:])
    memory = cache.memory.append(memory, (index[:, count:], rotated, *unknown), *new)
    return replace(state, memory=memory, scorer=scorer, pending=())


def evictor_of(cache: BoundedCache, *, first: bool = False) -> Evictor:
    """What evicts at the end of the ``first`` pass or of a later one."""
    return cache.prompt if first and cache.prompt is not None else Evictor(cache.memory, cache.signals)


def evict(cache: BoundedCache, state: CacheState, evictor: Evictor) -> CacheState:
    """Evict slots down to the capacity, from the layers too."""
    state, keep = choose_slots(cache, compute_signals(cache, add_slots(cache, state), evictor), evictor)
    for index in cache.groups.bounded:
        cache.layers[index].keep(cache.groups.of_layer(keep, index))
    return state


def choose_slots(
    cache: BoundedCache, state: CacheState, evictor: Evictor
) -> tuple[CacheState, Int[Tensor, "rows kept"]]:
    """The state after an eviction, and the indices of the slots that stay."""
    now = cache.groups.expand(state.seen)
    memory = evictor.memory.evict_to_capacity(state.memory, now).state
    return replace(state, memory=memory), memory.slots.payload[0]


def keeps_predictions(groups: Groups, signals: AttentionSignals | None) -> bool:
    """Whether slots keep what a learned policy predicted for them.

    A set that serves all layers would need a prediction of each.
    """
    return isinstance(signals, LearnedSignals) and groups.share != "model"


def compute_signals(cache: BoundedCache, state: CacheState, evictor: Evictor) -> CacheState:
    """The state whose slots have the signals that the policy weighs; the pending queries are counted."""
    computed = evictor.signals
    if computed is None:
        return state
    groups, slots = cache.groups, state.memory.slots
    competing = slots.valid & ~evictor.memory.guard.protects(slots, groups.expand(state.seen))
    valid, now = groups.first(slots.valid), state.seen + state.shift
    rotations, *known = slots.payload[1:]
    start = slots.count - int(known[0][0].isnan().sum()) if known else 0
    new = groups.first(rotations)[:, None, start:]  # new slots have the same positions in every group
    # Slots that keep predictions get them at their first eviction, whatever evicts then.
    predictor = cache.signals if known else computed
    found: dict[str, list[Tensor]] = {}
    predictions, queries = [], []
    for module, before in zip(computed.modules, state.queries, strict=True):
        keys, values = cache.layers[module.layer_idx].read(state.placement[0])
        here, places, rotated = (groups.of_layer(x, module.layer_idx) for x in (competing, slots.positions, rotations))
        predicted = plain = None
        if isinstance(predictor, LearnedSignals):
            plain = predictor.unrotate(module, keys[:, :, start:], new)
            predicted = predictor.predict(module, plain, places[..., start:])
            earlier = [groups.of_layer(x, module.layer_idx)[..., :start].to(predicted.device) for x in known]
            predicted = torch.cat([*earlier, predicted], dim=-1)
            predictions.append(predicted)
        plain_of_all = None if start else plain
        signals, after = computed.compute(module, before, keys, values, valid, here, now, rotated, plain_of_all)
        if isinstance(computed, LearnedSignals):
            assert predicted is not None
            signals = computed.combine(module, signals, predicted, places, state.seen, here)
        queries.append(after)
        for name, signal in signals.items():
            found.setdefault(name, []).append(signal)
    together = {name: groups.combine(layers) for name, layers in found.items()}
    if known and predictions:
        known = [groups.combine(predictions)]
    slots = replace(slots, signals=together, payload=(slots.payload[0], rotations, *known))
    return replace(state, memory=replace(state.memory, slots=slots), queries=tuple(queries))


def take_back(cache: BoundedCache, state: CacheState, remove: int) -> CacheState:
    """Forget the last ``remove`` tokens. Raises `ValueError` where that is impossible, before anything has changed."""
    pending = state.count - state.memory.slots.count
    if observes_pass(cache):
        raise ValueError(
            f"crop by {remove} tokens cannot take back what the policy has seen of them; use a policy that does not "
            "look at each pass, such as auto, scored or fifo"
        )
    if remove > pending:
        raise ValueError(
            f"crop by {remove} tokens cannot go back: tokens were evicted when all but the last {pending} had been "
            f"read; raise block={cache.block} or capacity={cache.memory.capacity}"
        )
    for index, layer in enumerate(cache.layers):  # those that bound themselves first: one of them may refuse
        if index not in cache.groups.bounded:
            try:
                layer.crop(-remove)
            except (AttributeError, RuntimeError, ValueError) as error:
                raise ValueError(
                    f"crop by {remove} tokens does not work in a {type(layer).__name__}: {error}"
                ) from error
    for index in cache.groups.bounded:
        cache.layers[index].truncate(remove)
    return state.truncate(remove)

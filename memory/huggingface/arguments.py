"""Build policy and scorer from the arguments of a cache, and check that they fit each other and the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from ...default_scorer import load_default_scorer
from ...registry import build
from ...schema import shown
from ..bank import Memory
from ..fitted import FittedPolicy
from ..policy import Guard, Policy, as_integer, require_signals, variant_name
from ..scorer import ScorerModel, input_kind, load_scorer, policy_of, signals_of
from .capacity import Capacity, parse_capacity
from .eviction import Evictor, keeps_predictions
from .groups import SHARES, Groups
from .learned import LearnedSignals
from .packaged import policy_folder
from .presets import Preset, build_preset, preset_of
from .signals import AttentionSignals
from .supported_models import bounded, key_shape, layers_of, placement, text_config

_UNSETTLED = 1 << 40
"""The capacity before the prompt is known, whose share it is."""
_BOOKKEEPING, _BOOKKEEPING_OF_SIGNAL = 37, 8
"""Bytes of a slot of a group besides keys and values, and more for each signal: see `vqmem.memory.slots.Slots`."""
_PREDICTION = 4
"""Bytes of what a learned policy predicted for a slot of a group."""


def resolve(policy: Any, scorer: ScorerModel | None) -> Any:
    """Build the policy from its name or mapping; an object is returned unchanged.

    None is the default policy of ``scorer``. So is the bare name of that policy, because it does not give the weights
    of the signals, and the policy's defaults may not be those of the scorer.
    """
    default = policy_of(scorer)
    if policy is None or (isinstance(default, Mapping) and policy == default["name"]):
        policy = default
    return build("policies", policy) if isinstance(policy, str | Mapping) else policy


@dataclass(frozen=True)
class Choice:
    """A policy, and what belongs to it."""

    policy: Any
    signals: AttentionSignals | None
    recent_at_most: int | None
    """The limit of ``recent`` where that is half of the capacity by default."""


@dataclass(frozen=True)
class Settings:
    """The arguments of a cache, complete and checked against each other and the model."""

    capacity: Capacity
    usual: Choice
    prompt: Choice | None
    """What evicts after a first pass that overflows the cache, where that is not the usual one."""
    scorer: ScorerModel | None
    sinks: int
    recent: int | None
    groups: Groups
    block: int
    slot_bytes: int
    """Bytes of a slot of a row in all bounded layers, bookkeeping included; 0 if layers differ."""

    def evictors(self, prompt: int | None = None) -> tuple[Evictor, Evictor | None]:
        """What usually evicts and what does after a long prompt, for a prompt of so many tokens.

        Without the tokens, the memories have no end where the capacity waits for the prompt.
        """
        usual = Evictor(self._memory(self.usual, prompt), self.usual.signals)
        if self.prompt is None:
            return usual, None
        return usual, Evictor(self._memory(self.prompt, prompt), self.prompt.signals)

    def _memory(self, choice: Choice, prompt: int | None) -> Memory:
        capacity = self.capacity.tokens
        if self.capacity.bytes is not None:
            if not self.slot_bytes:
                raise ValueError("the layers of this model have different keys; give the capacity in tokens")
            capacity = self.capacity.bytes // self.slot_bytes - self.block
            if capacity < 1:
                raise ValueError(
                    f"capacity={self.capacity.bytes:,} bytes has no room for {self.block + 1} tokens of this "
                    f"model, which take {self.slot_bytes * (self.block + 1):,}; give more"
                )
        elif capacity is None:
            assert self.capacity.share is not None
            capacity = _UNSETTLED if prompt is None else max(1, round(self.capacity.share * prompt))
        sinks, half = self.sinks, max(0, capacity - self.sinks) // 2
        default = half if choice.recent_at_most is None else min(half, choice.recent_at_most)
        recent = default if self.recent is None else self.recent
        if self.capacity.share is not None:  # a short prompt has no room for the guards
            sinks, recent = min(sinks, capacity), min(recent, half)
        return Memory(capacity, choice.policy, guard=Guard(sinks, recent))


def settle(
    decoder: Any,
    tokenizer: Any,
    capacity: Any,
    *,
    policy: Any,
    scorer: Any,
    sinks: Any,
    recent: Any,
    share: Any,
    block: Any,
    positions: Any,
    storage: Any,
) -> Settings:
    """Complete the arguments of `VQMemCache`.

    Args:
        decoder: The model, unwrapped.
        tokenizer: As for `VQMemCache`, and so are the others.
        capacity: Tokens, a share of the prompt or bytes.
        policy: A preset, the folder of a fitted policy, a name, a mapping, a policy or None.
        scorer: A scorer, a folder or None.
        sinks: First tokens that stay.
        recent: Newest tokens that stay; None for the default.
        share: What keeps one set of tokens; None for the default.
        block: Tokens beyond the capacity at which some are evicted; None for the default.
        positions: Whether tokens keep their positions or are moved together.
        storage: How keys and values are stored.

    Returns:
        The settings of the cache, with every default filled in.

    Raises:
        ValueError: They do not fit each other or the model.
    """
    layers = layers_of(decoder)
    _check_storage(decoder, layers, positions, storage)
    preset = preset_of(policy, decoder)
    if preset is not None:
        share = share or (preset.share if key_shape(decoder) else "layer")
        block = preset.block if block is None else block
    groups = _groups_of(decoder, layers, share or "model")
    block = 1 if block is None else as_integer("block", block)
    if block < 1:
        raise ValueError(f"block={block}; evict after 1 token or more")
    size, sinks = parse_capacity(capacity), as_integer("sinks", sinks)
    recent = None if recent is None else as_integer("recent", recent)
    device = getattr(decoder, "device", "cpu")
    model = resolve_scorer(scorer, device)
    if model is None and tokenizer is not None and _needs_scores(policy, preset):
        model = load_default_scorer(tokenizer, device, vocab_size=text_config(decoder).vocab_size)
    require_vocabulary(model, decoder)
    chosen = resolve(policy, model) if preset is None else build_preset(preset, model)
    chosen = Memory(_UNSETTLED, chosen).policy  # refuses what is not a policy
    require_match(chosen, model)
    usual = _choice(chosen, preset, decoder, groups)
    prompt = None
    if preset is not None and preset.prompt is not None:
        prompt = _choice(build_preset(preset.prompt, model), preset.prompt, decoder, groups)
        _require_no_queries(usual, prompt)
    size_of_slot = slot_bytes(decoder, groups, storage, len(signals_of(model)))
    size_of_slot += keeps_predictions(groups, usual.signals) * groups.count * _PREDICTION
    return Settings(size, usual, prompt, model, sinks, recent, groups, block, size_of_slot)


def _check_storage(decoder: Any, layers: Sequence[Any], positions: Any, storage: Any) -> None:
    """Raise `ValueError` for what ``positions`` or ``storage`` cannot be."""
    if positions not in ("kept", "compact"):
        raise ValueError(f"positions={positions!r}; use kept or compact")
    if positions == "compact" and len(bounded(layers)) < len(layers):
        raise ValueError(f'{type(decoder).__name__} has layers that bound themselves; use positions="kept"')
    if storage not in ("full", "int8"):
        raise ValueError(f"storage={storage!r}; use full or int8")


def _groups_of(decoder: Any, layers: Sequence[Any], share: Any) -> Groups:
    """The groups of a model's layers and heads. Raises `ValueError` for a share that it cannot have."""
    if share not in SHARES:
        raise ValueError(f"share={share!r}; use {' or '.join(SHARES)}")
    shape = key_shape(decoder)
    if shape is None and share == "head":
        name = type(decoder).__name__
        raise ValueError(f'layers of {name} have different or latent heads of keys; use share="layer"')
    return Groups(share, bounded(layers), shape[0] if shape else 1)


def _require_no_queries(usual: Choice, prompt: Choice) -> None:
    """Raise `ValueError` for a prompt's policy that would have every later pass watched for its queries."""
    needs = [choice.signals is not None and choice.signals.needs_queries for choice in (usual, prompt)]
    if needs == [False, True]:
        raise ValueError(
            f"the policy for prompts {describe(prompt.policy)} weighs expected or observed, and the policy for later "
            "passes weighs neither; leave them out"
        )
    if (usual.signals is None) != (prompt.signals is None):
        raise ValueError(
            f"the policy for prompts {describe(prompt.policy)} and that for later passes {describe(usual.policy)} do "
            "not both weigh signals of the cache; give two that do"
        )


def _choice(policy: Any, preset: Preset | None, decoder: Any, groups: Groups) -> Choice:
    """The policy, of a preset where there is one, with what it needs."""
    policy, signals = _with_signals(policy, decoder, groups, may_drop=preset is not None)
    return Choice(policy, signals, None if preset is None else preset.recent)


def _with_signals(policy: Any, decoder: Any, groups: Groups, may_drop: bool) -> tuple[Any, AttentionSignals | None]:
    """The policy and what computes its signals; it ``may_drop`` those of queries that are not found."""
    if "signals" not in policy.requires:
        return policy, None
    if "learned" in policy.attention_signals:
        fitted = FittedPolicy.load(policy_folder(policy.folder, decoder), decoder)
        return policy, LearnedSignals(decoder, policy.attention_signals, groups, fitted)
    try:
        return policy, AttentionSignals(decoder, policy.attention_signals, groups)
    except ValueError:
        if not may_drop:
            raise
    policy = replace(policy, expected=0.0, observed=0.0)
    return policy, AttentionSignals(decoder, policy.attention_signals, groups)


def _needs_scores(policy: Any, preset: Preset | None) -> bool:
    """Whether a policy, in any form, or the preset that it names reads scores."""
    if preset is not None:
        return preset.needs_scores
    built = build("policies", policy) if isinstance(policy, str | Mapping) else policy
    return built is not None and "scores" in built.requires


def slot_bytes(decoder: Any, groups: Groups, storage: str, signals: int) -> int:
    """Compute the bytes of a slot of a row: keys and values of all bounded layers, and bookkeeping.

    Args:
        decoder: The model, unwrapped.
        groups: What keeps one set of tokens.
        storage: How keys and values are stored.
        signals: How many signals the scorer gives.

    Returns:
        The bytes; 0 where layers differ.
    """
    shape = key_shape(decoder)
    if shape is None:
        return 0
    heads, width = shape
    number = width + 8 if storage == "int8" else width * placement(decoder)[0].itemsize
    return 2 * groups.layers * heads * number + groups.count * (_BOOKKEEPING + signals * _BOOKKEEPING_OF_SIGNAL)


def describe(policy: Policy) -> str:
    """The policy's name and the fields that differ from their defaults, as in ``scored(gain=1.0)``."""
    values = [(field, shown(getattr(policy, field.name))) for field in (fields(policy) if is_dataclass(policy) else ())]
    changed = [f"{field.name}={value}" for field, value in values if value != shown(field.default)]
    return f"{variant_name(policy)}({', '.join(changed)})"


def describe_prompt(memory: Memory) -> str:
    """The policy for long prompts and its guard, as in ``weighted(leverage=1.0) with recent=8``."""
    return f"{describe(memory.policy)} with recent={memory.guard.recent}"


def resolve_scorer(scorer: Any, device: Any = "cpu") -> ScorerModel | None:
    """Load the scorer of a run's folder; an object is returned unchanged. Raises `ValueError` for no token scorer."""
    if isinstance(scorer, str | os.PathLike):
        scorer = load_scorer(Path(scorer), device)
    if scorer is None:
        return None
    if not isinstance(scorer, type) and hasattr(scorer, "score"):
        signals_of(scorer)  # raises where it does not name them
    if isinstance(scorer, type) or not isinstance(scorer, ScorerModel):
        kind = f"the class {scorer.__name__}" if isinstance(scorer, type) else f"of type {type(scorer).__name__}"
        raise ValueError(
            f"scorer={shown(scorer)} is not a scorer ({kind}); give the folder of a run of vqmem train-scorer, or "
            "vqmem.load_scorer(folder)"
        )
    if input_kind(scorer) != "tokens":
        raise ValueError(
            f"scorer={type(scorer).__name__} reads {input_kind(scorer)} of recordings, not token ids; "
            "give one that was trained on the model's tokens, as vqmem train-scorer does"
        )
    return scorer


def require_match(policy: Policy, scorer: ScorerModel | None) -> None:
    """Raise `ValueError` where ``policy`` lacks a scorer, a signal that it weighs, or its text."""
    if "scores" in policy.requires and scorer is None:
        raise ValueError(
            f"policy {variant_name(policy)} needs scores; give scorer=, trained on token ids of this model's "
            "tokenizer, or a policy without one, such as sink_recent"
        )
    if "decay" in policy.requires:
        raise ValueError(
            f"policy {variant_name(policy)} reads the decay of forget gates, which pretrained models do not have; use "
            "it in a memory transformer with shape.forget_gate=true, or another policy here, such as sink_recent"
        )
    if "future" in policy.requires and not getattr(policy, "text", True):
        raise ValueError(
            f"policy {variant_name(policy)} looks ahead and gives an upper bound for analyses: it needs the token ids "
            f"of all that will be read, as in {{'name': {variant_name(policy)!r}, 'text': ids}}; to "
            "generate, use another policy, such as sink_recent"
        )
    if scorer is not None:
        require_signals(policy, scorer)


def require_vocabulary(scorer: ScorerModel | None, model: Any) -> None:
    """Raise `ValueError` where ``scorer`` was trained on the ids of another tokenizer than that of ``model``.

    A model may have some more ids than its tokenizer: embeddings are padded to a round number and leave room for added
    tokens, in released models by 5 % at most, in small ones by fewer than 128 ids. A scorer that lacks more ids than
    that, or has ids that the model lacks, is of another tokenizer.
    """
    known = getattr(scorer, "vocab_size", None)
    ids = getattr(text_config(model), "vocab_size", None)
    if known is None or ids is None:
        return
    padding = min(max(128, ids // 20), ids // 4)
    if not ids - padding <= known <= ids:
        raise ValueError(
            f"the scorer knows {known:,} token ids and {type(model).__name__} has {ids:,}: it was trained with "
            "another tokenizer; train one with vqmem train-scorer --tokenizer and the name of this model"
        )

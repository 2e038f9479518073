"""Build policy and scorer from the arguments of a cache, and check that they fit each other and the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ...registry import build
from ...schema import shown
from ..policy import Policy, require_signals, variant_name
from ..scorer import ScorerModel, input_kind, load_scorer, policy_of
from .supported_models import text_config


def resolve(policy: Any, scorer: ScorerModel | None) -> Any:
    """Build the policy from its name or mapping; an object is returned unchanged.

    None is the default policy of ``scorer``. So is the bare name of that policy, because it does not give the weights
    of the signals, and the policy's defaults may not be those of the scorer.
    """
    default = policy_of(scorer)
    if policy is None or (isinstance(default, Mapping) and policy == default["name"]):
        policy = default
    return build("policies", policy) if isinstance(policy, str | Mapping) else policy


def describe(policy: Policy) -> str:
    """The policy's name and the fields that differ from their defaults, as in ``scored(gain=1.0)``."""
    values = [(field, shown(getattr(policy, field.name))) for field in (fields(policy) if is_dataclass(policy) else ())]
    changed = [f"{field.name}={value}" for field, value in values if value != shown(field.default)]
    return f"{variant_name(policy)}({', '.join(changed)})"


def resolve_scorer(scorer: Any, device: Any = "cpu") -> ScorerModel | None:
    """Load the scorer of a run's folder; an object is returned unchanged. Raises `ValueError` for no token scorer."""
    if isinstance(scorer, str | os.PathLike):
        scorer = load_scorer(Path(scorer), device)
    if scorer is None:
        return None
    if isinstance(scorer, type) or not isinstance(scorer, ScorerModel):
        kind = f"the class {scorer.__name__}" if isinstance(scorer, type) else f"of type {type(scorer).__name__}"
        raise ValueError(
            f"scorer={shown(scorer)} is no scorer ({kind}); give the folder of a run of vqmem train-scorer, or "
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

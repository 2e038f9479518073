"""Which policy and scorer the arguments of a cache stand for, and whether they suit each other and the model."""

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
    """The policy of that name, that mapping, or the object itself; None is the policy that suits ``scorer``.

    So is its bare name: the weights of its signals are then not given, and its defaults may not be those of the scorer.
    """
    suits = policy_of(scorer)
    if policy is None or (isinstance(suits, Mapping) and policy == suits["name"]):
        policy = suits
    return build("policies", policy) if isinstance(policy, str | Mapping) else policy


def describe(policy: Policy) -> str:
    """The policy's name and the fields that are not as by default, as in ``scored(gain=1.0)``."""
    own = fields(policy) if is_dataclass(policy) else ()
    changed = {field.name: shown(getattr(policy, field.name)) for field in own}
    told = [f"{field.name}={changed[field.name]}" for field in own if changed[field.name] != shown(field.default)]
    return f"{variant_name(policy)}({', '.join(told)})"


def resolve_scorer(scorer: Any, device: Any = "cpu") -> ScorerModel | None:
    """The scorer itself, or the one of the run in a folder. Raises `ValueError` for what cannot score token ids."""
    if isinstance(scorer, str | os.PathLike):
        scorer = load_scorer(Path(scorer), device)
    if scorer is None:
        return None
    if isinstance(scorer, type) or not isinstance(scorer, ScorerModel):
        kind = f"the class {scorer.__name__}" if isinstance(scorer, type) else f"of type {type(scorer).__name__}"
        raise ValueError(
            f"scorer={shown(scorer)} is no scorer ({kind}); give the folder of a run of vqmem train-scorer, or what "
            "vqmem.load_scorer made of it"
        )
    if input_kind(scorer) != "tokens":
        raise ValueError(
            f"scorer={type(scorer).__name__} reads {input_kind(scorer)} of recordings, not token ids; "
            "give one that was trained on the model's tokens, as vqmem train-scorer does"
        )
    return scorer


def require_match(policy: Policy, scorer: ScorerModel | None) -> None:
    """Raise `ValueError` where ``policy`` lacks what it needs: a scorer, one that gives its signals, or the future."""
    if "scores" in policy.requires and scorer is None:
        raise ValueError(
            f"policy {variant_name(policy)} needs scores; give scorer=, trained on token ids of this model's "
            "tokenizer, or a policy without one, such as sink_recent"
        )
    if "future" in policy.requires and not getattr(policy, "text", True):
        raise ValueError(
            f"policy {variant_name(policy)} looks ahead, to show in an analysis what no policy can do better: it needs "
            f"the token ids of all that will be read, as in {{'name': {variant_name(policy)!r}, 'text': ids}}; to "
            "generate, use another policy, such as sink_recent"
        )
    if scorer is not None:
        require_signals(policy, scorer)


def require_vocabulary(scorer: ScorerModel | None, model: Any) -> None:
    """Raise `ValueError` where ``scorer`` was trained on the ids of another tokenizer than that of ``model``.

    A model may have some more ids than its tokenizer: embeddings are padded to a round number and leave room for added
    tokens, in released models by 5 % at most, in small ones by fewer than 128 ids. What lacks more is of another
    tokenizer, and so is what has ids that the model does not have.
    """
    known, ids = getattr(scorer, "vocab_size", None), getattr(text_config(model), "vocab_size", None)
    if known is None or ids is None:
        return
    padding = min(max(128, ids // 20), ids // 4)
    if not ids - padding <= known <= ids:
        raise ValueError(
            f"the scorer knows {known:,} token ids and {type(model).__name__} has {ids:,}, so that it was trained with "
            "another tokenizer; train one with vqmem train-scorer --tokenizer and the name of this model"
        )

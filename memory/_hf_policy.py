"""Which policy a name, a mapping or an object stands for, and whether what it wants is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models.scorers.base import ScorerModel
from ..registry import build
from .policy import Policy


def resolve(policy: str | Mapping[str, Any] | Policy) -> Policy:
    """The policy of that name, that mapping, or the object itself."""
    if isinstance(policy, str | Mapping):
        return build("policies", policy if isinstance(policy, str) else dict(policy))
    return policy


def check_scorer(policy: Policy, scorer: ScorerModel | None) -> None:
    """Raise `ValueError` if ``policy`` wants scores and there is no scorer."""
    if "scores" in policy.requires and scorer is None:
        name = type(policy).__module__.split(".")[-1]
        raise ValueError(
            f"policy {name} needs scores; give scorer=, trained on token ids of this model's tokenizer, "
            "or a policy without one, such as sink_recent"
        )

"""Named settings of a cache: what works best, as measured, where nothing was trained for the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...registry import build
from ..fitted import ABOUT
from ..policy import Policy, variant_name
from ..scorer import SIGNALS, policy_of, signals_of
from .packaged import PACKAGED, packaged_policy


@dataclass(frozen=True)
class Preset:
    """Arguments of `VQMemCache` that belong together; those that are given replace them."""

    policy: Mapping[str, Any]
    recent: int = 32
    share: str = "head"
    block: int = 32
    prompt: Preset | None = None
    """What evicts instead after a first pass that alone overflows the cache, by its policy and ``recent``."""

    @property
    def needs_scores(self) -> bool:
        """Whether the score has a share."""
        return self.policy["score"] > 0 or (self.prompt is not None and self.prompt.needs_scores)


STREAM = Preset(
    {
        "name": "weighted",
        **{"expected": 0.75, "observed": 0.28, "keydiff": 0.23, "norm": 0.25, "log_age": 0.2},
        "score": 0.2,
    }
)
"""For many passes: a chat, a long book."""
DOCUMENT = Preset(
    {
        "name": "weighted",
        **{"leverage": 1.0, "leverage_window": 25, "own_leverage": 0.25},
        "score": 0.0,
    },
    recent=8,
)
"""For a text that is read in full before anything is asked."""
LEARNED_SCORE = 0.25
"""The share of the score beside a policy that was fitted for the model."""
LEARNED_IN_PROMPTS = 0.5
"""The weight of such a policy beside the leverage, for prompts."""
AUTO = "auto"
"""The packaged policy that was fitted for the model; without one `STREAM`, and after a long prompt `DOCUMENT`."""
PRESETS = {"stream": STREAM, "document": DOCUMENT}


def is_preset(policy: Any) -> bool:
    """Whether ``policy`` is or names a preset, or the folder of a fitted policy."""
    if isinstance(policy, str):
        return policy in (AUTO, *PRESETS) or _is_folder(policy)
    return isinstance(policy, Preset) or _is_folder(policy)


def preset_of(policy: Any, model: Any) -> Preset | None:
    """What ``policy`` names for ``model`` if it `is_preset`; None if it is something else."""
    if not is_preset(policy):
        return None
    if isinstance(policy, Preset):
        return policy
    if policy == AUTO:
        return replace(STREAM, prompt=DOCUMENT) if packaged_policy(model) is None else fitted_preset(PACKAGED)
    return fitted_preset(os.fspath(policy)) if _is_folder(policy) else PRESETS[policy]


def fitted_preset(folder: str) -> Preset:
    """The preset of a policy that was fitted for the model.

    After a long prompt it stands beside `DOCUMENT`, so that the text that follows loses no more.
    """
    prompt = Preset({**DOCUMENT.policy, "learned": LEARNED_IN_PROMPTS, "folder": folder})
    return Preset({"name": "weighted", "learned": 1.0, "folder": folder, "score": LEARNED_SCORE}, prompt=prompt)


def _is_folder(policy: Any) -> bool:
    is_text = isinstance(policy, str)
    return isinstance(policy, os.PathLike) or (is_text and (os.sep in policy or Path(policy, ABOUT).is_file()))


def build_preset(preset: Preset, scorer: Any) -> Policy:
    """The policy of a preset, with the signal that suits ``scorer``; without one, or a share for it, attention alone.

    Raises `ValueError` for a scorer whose signals are none of `SIGNALS`.
    """
    if scorer is None or not preset.policy["score"]:
        return build("policies", {**preset.policy, "score": 0.0})
    weighed = _signals(scorer)
    if not set(weighed) <= set(SIGNALS):
        raise ValueError(
            f"presets weigh {', '.join(SIGNALS)}, and the scorer {variant_name(scorer)} gives {', '.join(weighed)}; "
            "give policy= one that reads it"
        )
    return build("policies", {**preset.policy, "surprise": 0.0} | dict.fromkeys(weighed, 1.0))


def _signals(scorer: Any) -> list[str]:
    """The signals that the policy of the scorer weighs."""
    policy = policy_of(scorer)
    given = signals_of(scorer)
    if isinstance(policy, Mapping) and policy.get("name") == "scored":
        return [name for name in given if policy.get(name, name == "surprise")]
    return [given[0]]

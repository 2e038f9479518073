"""Named settings of a cache: what works best, as measured, where nothing was trained for the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...registry import build
from ..fitted import ABOUT
from ..policy import Policy, variant_name
from ..scorer import SIGNALS, policy_of, signals_of


@dataclass(frozen=True)
class Preset:
    """Arguments of `VQMemCache` that belong together; those that are given replace them."""

    policy: Mapping[str, Any]
    recent: int = 32
    share: str = "head"
    block: int = 32


STREAM = Preset(
    {
        "name": "weighted",
        **{"expected": 0.75, "observed": 0.28, "keydiff": 0.23, "norm": 0.25, "log_age": 0.2},
        "score": 0.2,
    }
)
"""For many passes: a chat, a long book."""
DOCUMENT = Preset({"name": "weighted", "keydiff": 1.0, "score": 0.5, "window": 25, "copies": 2.0})
"""For a text that is read in full before anything is asked."""
LEARNED_SCORE = 0.2
"""The share of the score beside a policy that was fitted for the model."""
PRESETS = {"auto": STREAM, "stream": STREAM, "document": DOCUMENT}


def preset_of(policy: Any) -> Preset | None:
    """The preset that ``policy`` names, or that of the folder of a fitted policy; None if it is something else."""
    is_text = isinstance(policy, str)
    if isinstance(policy, os.PathLike) or (is_text and (os.sep in policy or Path(policy, ABOUT).is_file())):
        return Preset({"name": "weighted", "learned": 1.0, "folder": os.fspath(policy), "score": LEARNED_SCORE})
    return PRESETS.get(policy) if is_text else None


def build_preset(preset: Preset, scorer: Any) -> Policy:
    """The policy of a preset, with the signal that suits ``scorer``; without one its attention part alone.

    Raises `ValueError` for a scorer whose signals are none of `SIGNALS`.
    """
    if scorer is None:
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

"""Ways to keep tokens that are compared, as a config gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...memory.huggingface.presets import AUTO, PRESETS, is_preset
from ...registry import build, names
from ...schema import PathText, UnknownNameError, coerce

FULL = "full cache"
"""The name of the row that evicts nothing."""
PACKAGED = "packaged"
"""The name of the scorer that policies use where no other is given."""


@dataclass(frozen=True)
class CacheSpec:
    """A policy and other arguments of `VQMemCache`; null is its default."""

    policy: str | dict[str, Any] | None = None
    """A preset, the folder of a fitted policy, the name of a policy, its mapping, or null for the policy that suits the
    scorer."""
    scorer: PathText | None = None
    """Folder of a run of `vqmem train-scorer` for this model's tokenizer; null is the scorer of the config."""
    sinks: int | None = None
    """First tokens that always stay."""
    recent: int | None = None
    """Newest tokens that always stay."""
    share: str | None = None
    """What keeps one set of tokens: model, layer or head."""
    block: int | None = None
    """Tokens beyond the capacity that are read before some are evicted."""
    positions: str | None = None
    """kept or compact."""
    storage: str | None = None
    """full or int8."""


@dataclass(frozen=True)
class Setting:
    """A way to keep tokens: a policy and the scorer that it uses, or one of kvpress's presses.

    Without either nothing is ever evicted.

    Args:
        name: of its row in tables.
        policy: a policy's YAML mapping, or a preset.
        scorer: the name of the scorer.
        press: the name of a press.
        options: other arguments of the cache.
    """

    name: str
    policy: str | Mapping[str, Any] | None = None
    scorer: str | None = None
    press: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether nothing is ever evicted."""
        return self.policy is None and self.press is None and self.scorer is None


def read_policies(policies: Mapping[str, Any], scorer: str) -> list[Setting]:
    """The settings that a config names.

    Args:
        policies: by name a preset, the name of a policy, its mapping, or a mapping with the keys of `CacheSpec`.
        scorer: the name of the scorer that policies use unless they give a folder.

    Returns:
        The settings in the same order.

    Raises:
        ValueError: in one line, for an unknown policy or key.
    """
    return [_read_policy(name, value, scorer) for name, value in policies.items()]


def _read_policy(name: str, value: Any, scorer: str) -> Setting:
    key = f"policies.{name}"
    given = value if isinstance(value, dict) and ("policy" in value or "scorer" in value) else {"policy": value}
    spec = coerce(CacheSpec, given, key)
    options = {
        item.name: getattr(spec, item.name)
        for item in fields(spec)
        if item.name not in ("policy", "scorer") and getattr(spec, item.name) is not None
    }
    needs = _needs_scores(spec.policy, f"{key}.policy" if given is value else key)
    return Setting(name, spec.policy, (spec.scorer or scorer) if needs else None, options=options)


def _needs_scores(policy: str | dict[str, Any] | None, key: str) -> bool:
    if policy is None:
        return True
    if isinstance(policy, str) and is_preset(policy):
        return policy not in PRESETS or PRESETS[policy].needs_scores
    if isinstance(policy, str) and policy not in names("policies"):
        raise UnknownNameError(f"{key}: policy", policy, [AUTO, *PRESETS, *names("policies")])
    return "scores" in build("policies", policy, key).requires

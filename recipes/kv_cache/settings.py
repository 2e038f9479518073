"""Ways to keep tokens that are compared, as a config gives them, and the caches that they describe."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn
from transformers import DynamicCache

from ..._version import __version__
from ...memory.huggingface.cache import VQMemCache
from ...memory.huggingface.presets import PRESETS
from ...registry import build, names
from ...schema import PathText, UnknownNameError, coerce
from . import presses
from .host import Host

FULL = "full cache"
"""The name of the row that evicts nothing."""
PACKAGED = "packaged"
"""The name of the scorer that policies use where no other is given."""


@dataclass(frozen=True)
class CacheSpec:
    """A policy and other arguments of `VQMemCache`; null is its default."""

    policy: str | dict[str, Any] | None = None
    """A preset, the name of a policy, its mapping, or null for the policy that suits the scorer."""
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
    if policy is None or (isinstance(policy, str) and policy in PRESETS):
        return True
    if isinstance(policy, str) and policy not in names("policies"):
        raise UnknownNameError(f"{key}: policy", policy, [*PRESETS, *names("policies")])
    return "scores" in build("policies", policy, key).requires


class Caches:
    """Makes empty caches for a model.

    Args:
        host: the pretrained language model.
        scorers: the scorers that settings may name.
        sinks: the number of first tokens that every setting keeps, unless its options say otherwise.
    """

    def __init__(self, host: Host, scorers: Mapping[str, Any], sinks: int = 4) -> None:
        self.host, self.scorers, self.sinks = host, scorers, sinks
        self._fingerprints = {name: _fingerprint(scorer) for name, scorer in scorers.items()}

    def make(self, setting: Setting, capacity: int | None, **options: Any) -> Any:
        """An empty cache; ``options`` replace those of the setting."""
        model = self.host.model
        if setting.is_full:
            return DynamicCache(config=model.config)
        assert capacity is not None
        options = {"sinks": self.sinks, **setting.options, **options}
        if setting.press is not None:
            streaming = options.pop("streaming", True)
            return presses.PressCache(model, presses.make(setting.press, streaming), capacity, **options)
        options.pop("streaming", None)
        scorer = None if setting.scorer is None else self.scorers[setting.scorer]
        return VQMemCache(model, capacity=capacity, policy=setting.policy, scorer=scorer, **options)

    def check(self, settings: list[Setting], capacity: int) -> None:
        """Raise `ValueError`, with the setting's name, for one that the model, its scorer or the capacity refuses."""
        for setting in settings:
            try:
                self.make(setting, capacity)
            except ValueError as error:
                raise ValueError(f"policies.{setting.name} with {capacity} slots: {error}") from None

    def key(self, setting: Setting, capacity: int | None) -> dict[str, Any]:
        """All that a measurement depends on besides the text."""
        return {
            "vqmem": __version__,
            "model": self.host.fingerprint,
            "press": setting.press and [setting.press, presses.arguments_of(setting.press)],
            "policy": dict(setting.policy) if isinstance(setting.policy, Mapping) else setting.policy,
            "options": dict(setting.options),
            "scorer": setting.scorer and self._fingerprints[setting.scorer],
            "capacity": None if setting.is_full else capacity,
            "sinks": self.sinks,
        }


def _fingerprint(scorer: nn.Module) -> str:
    """The hash of a scorer's tensors."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(scorer.state_dict().items()):
        hashed.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:12]


def held_bytes(cache: Any) -> int:
    """Bytes that a cache holds now: keys and values, and where the cache counts it, its bookkeeping."""
    if isinstance(cache, VQMemCache):
        return cache.nbytes
    layers = [layer for layer in cache.layers if layer.is_initialized]
    return sum(x.nbytes for layer in layers for x in (layer.keys, layer.values))

"""Empty caches of a model for the settings that are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn
from transformers import DynamicCache

from ..._version import __version__
from ...files import file_sha256
from ...memory.fitted import ABOUT
from ...memory.huggingface.cache import VQMemCache
from ...memory.huggingface.packaged import policy_folder
from ...memory.huggingface.presets import preset_of
from ...schema import expand
from . import presses
from .host import Host
from .settings import Setting


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

    def check(self, settings: Sequence[Setting], capacity: int) -> None:
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
            "press": setting.press and [setting.press, presses.arguments_of(setting.press), version("kvpress")],
            "policy": _identity(setting.policy, self.host.model),
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


def _identity(policy: str | Mapping[str, Any] | None, model: Any) -> Any:
    """All that a policy's name stands for: a preset's arguments, and the hash of the file of a fitted policy."""
    preset = None if policy is None else preset_of(policy, model)
    arguments = asdict(preset) if preset is not None else {"policy": policy}
    if not isinstance(arguments["policy"], Mapping):
        return policy
    if folder := arguments["policy"].get("folder"):
        folder = file_sha256(Path(expand(policy_folder(folder, model))) / ABOUT)
        arguments["policy"] = {**arguments["policy"], "folder": folder}
    return arguments if preset is not None else dict(arguments["policy"])

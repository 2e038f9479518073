"""What `transformers` calls the argument that takes a cache."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import LlamaForCausalLM

CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"
"""The latter before 5.24."""


def cache_argument(cache: Any) -> dict[str, Any]:
    """The argument by the name that this release knows: ``model(ids, **cache_argument(cache))``."""
    return {CACHE: cache}

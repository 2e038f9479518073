"""Generate with a bounded memory: what ``model.generate(custom_generate=...)`` runs."""

from __future__ import annotations

import inspect
from typing import Any

from vqmem import VQMemCache

CACHE_ARGUMENTS = ("capacity", "policy", "scorer", "sinks", "recent", "share", "block", "positions", "storage")


def generate(model: Any, **arguments: Any) -> Any:
    """Call ``model.generate`` with a `VQMemCache`.

    Args:
        model: The model, which `transformers` gives.
        arguments: Those of ``generate``. ``tokenizer`` and those of `VQMemCache` are for the cache; ``capacity`` is 256
            by default, and without a tokenizer or a scorer the policy looks at attention alone.

    Returns:
        What ``model.generate`` returns.
    """
    ours = {name: arguments.pop(name) for name in CACHE_ARGUMENTS if name in arguments}
    cache = VQMemCache(model, arguments.get("tokenizer"), ours.pop("capacity", 256), **ours)
    given = {name: value for name, value in arguments.items() if value is not None}
    # Releases before 5.24 call it past_key_values.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    if name in given:
        raise ValueError(f"custom_generate makes its own cache; leave out {name}=")
    try:
        return model.generate(**given, **{name: cache})
    finally:
        cache.close()

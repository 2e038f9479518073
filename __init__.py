"""vqmem: decide what a language model's memory keeps, for text and for speech."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Memory": ".memory.bank",
    "MemoryTransformer": ".models.memory_transformer",
    "Slots": ".memory.slots",
    "VQLM": ".models.vq_lm",
    "VQMemCache": ".memory.huggingface.cache",
    "load_scorer": ".memory.scorer",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that ``import vqmem`` and ``vqmem --help`` stay instant."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name], __name__), name)

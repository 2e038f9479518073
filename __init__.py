"""vqmem: decide what a language model's memory keeps, for text and for speech."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .data.base import Audio
    from .default_scorer import load_default_scorer
    from .memory.bank import Memory
    from .memory.huggingface.cache import VQMemCache
    from .memory.scorer import load_scorer
    from .memory.slots import Slots
    from .models.memory_transformer import MemoryTransformer
    from .models.vq_lm import VQLM
    from .recipes.lm.text_scorer import load_scoring
    from .recipes.scoring.audio import score_audio
    from .recipes.scoring.text import score_text
    from .recipes.speech.units import load_units
    from .recipes.text_lm.recipe import load_run
    from .registry import build

_PLACES = {
    "Audio": ".data.base",
    "Memory": ".memory.bank",
    "MemoryTransformer": ".models.memory_transformer",
    "Slots": ".memory.slots",
    "VQLM": ".models.vq_lm",
    "VQMemCache": ".memory.huggingface.cache",
    "build": ".registry",
    "load_default_scorer": ".default_scorer",
    "load_run": ".recipes.text_lm.recipe",
    "load_scorer": ".memory.scorer",
    "load_scoring": ".recipes.lm.text_scorer",
    "load_units": ".recipes.speech.units",
    "score_audio": ".recipes.scoring.audio",
    "score_text": ".recipes.scoring.text",
}
__all__ = [
    "VQLM",
    "Audio",
    "Memory",
    "MemoryTransformer",
    "Slots",
    "VQMemCache",
    "__version__",
    "build",
    "load_default_scorer",
    "load_run",
    "load_scorer",
    "load_scoring",
    "load_units",
    "score_audio",
    "score_text",
]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that ``import vqmem`` and ``vqmem --help`` stay instant."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

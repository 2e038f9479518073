"""The capacity of a cache: tokens, a share of the prompt, or bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...schema import shown
from ..policy import as_integer

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


@dataclass(frozen=True)
class Capacity:
    """One of the three is set: ``tokens``, a ``share`` of the prompt, or ``bytes`` a row."""

    tokens: int | None = None
    share: float | None = None
    bytes: int | None = None

    def __str__(self) -> str:
        """As the user wrote it, more or less."""
        if self.share is not None:
            return f"{self.share:g} of the prompt"
        return str(self.tokens) if self.tokens is not None else f"{self.bytes:,} bytes"


def parse_capacity(value: Any) -> Capacity:
    """Read a number of tokens (256), a share of the prompt (0.25) or bytes per row (``"64MB"``).

    Raises `ValueError` for anything else.
    """
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B\s*", value.upper())
        if not found:
            raise ValueError(
                f"capacity={shown(value)} is not a size; give tokens (256), a share of the prompt (0.25) "
                "or bytes ('64MB')"
            )
        return Capacity(bytes=int(float(found[1]) * _UNITS[found[2] or ""]))
    if isinstance(value, float) and 0 < value < 1:
        return Capacity(share=value)
    return Capacity(tokens=as_integer("capacity", value))

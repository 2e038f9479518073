"""Units of speech from a file, 50 a second, unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ..data.base import InputKind
from ..files import atomic_write
from ..schema import NonNegativeInt, Validated
from ._units import format_units, stream_of
from .base import Stream

_FILE = "units.json"


@dataclass(frozen=True)
class FrontEnd(Validated):
    """The id is the unit.

    Args:
        vocab_size: number of units; 0 = one more than the largest of the training documents.
        deduplicate: whether a run of one unit is one token, whose size is its length in frames.
    """

    vocab_size: NonNegativeInt = 0
    deduplicate: bool = False
    size_unit: ClassVar[str] = "frame"
    input_kind: ClassVar[InputKind] = "units"

    def fit(self, texts: Iterable[tuple[int, ...]]) -> GivenUnits:
        """Count the units if ``vocab_size`` is 0. Raises `ValueError` if there are none."""
        size = self.vocab_size or 1 + max((max(units) for units in texts if units), default=-1)
        if not size:
            raise ValueError("there are no units to count; give documents with units, or say `vocab_size`")
        return GivenUnits(size, self.deduplicate)

    def load(self, folder: Path) -> GivenUnits:
        """Read the number of units. Raises `ValueError` if the file is missing or damaged."""
        path = Path(folder) / _FILE
        try:
            return GivenUnits(int(json.loads(path.read_text(encoding="utf-8"))["vocab_size"]), self.deduplicate)
        except FileNotFoundError:
            raise ValueError(f"no {_FILE} in {str(folder)!r}; was the run saved with the units front-end?") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(path)!r} is damaged ({error}); train or copy it again") from error


class GivenUnits:
    """Units with times in seconds and sizes in frames of 20 ms."""

    input_kind: ClassVar[InputKind] = "units"
    size_unit = "frame"

    def __init__(self, vocab_size: int, deduplicate: bool) -> None:
        self.vocab_size, self.deduplicate = vocab_size, deduplicate

    def encode(self, text: tuple[int, ...]) -> Stream:
        """The units with their times. Raises `ValueError` for a unit outside the vocabulary."""
        if text and max(text) >= self.vocab_size:
            raise ValueError(f"unit {max(text)} is not among the {self.vocab_size} there are; say `vocab_size`")
        return stream_of(torch.tensor(text, dtype=torch.long), self.deduplicate)

    def decode(self, ids: list[int]) -> str:
        """The units' numbers with spaces between them."""
        return format_units(ids)

    def save(self, folder: Path) -> None:
        """Write the number of units."""
        atomic_write(Path(folder) / _FILE, json.dumps({"vocab_size": self.vocab_size}) + "\n")

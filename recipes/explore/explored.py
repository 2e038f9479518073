"""A passage that was read with each of the memories that the reader of `vqmem explore` chose."""

from __future__ import annotations

from dataclasses import dataclass

from ...console import one_line
from ...memory.bank import Memory
from .memories import memories_for
from .passage import Passage
from .readers import Reader, Reading
from .settings import Settings


@dataclass(frozen=True)
class Explored:
    """What came of reading a passage with each memory, by strategy."""

    reader: Reader
    passage: Passage
    settings: Settings
    memories: dict[str, Memory]
    readings: dict[str, Reading]

    @classmethod
    def read(cls, reader: Reader, passage: Passage, settings: Settings) -> Explored:
        """Read it. Raises `ValueError` in one line for settings that cannot be used, and too short a passage."""
        memories = memories_for(reader.policies(passage.names), settings)
        if reader.is_model and len(passage.ids) < 2:
            raise ValueError(f"{one_line(passage.name)} has one token, and a model needs two; give more text")
        readings = {name: reader.read(passage, memory, new=reader.new) for name, memory in memories.items()}
        return cls(reader, passage, settings, memories, readings)

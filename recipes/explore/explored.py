"""A passage that was read with each of the memories that the reader of `vqmem explore` chose."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...console import one_line
from ...memory.bank import Memory
from .memories import memories_for
from .passage import Passage
from .readers import Reader, Reading
from .settings import Settings


@dataclass(frozen=True)
class Explored:
    """What each memory keeps of a passage, and what came of reading the passage with it, by strategy."""

    reader: Reader
    passage: Passage
    settings: Settings
    memories: dict[str, Memory]
    followed: dict[str, Reading]
    _readings: dict[str, Reading] = field(default_factory=dict[str, Reading], init=False)

    @classmethod
    def follow(cls, reader: Reader, passage: Passage, settings: Settings) -> Explored:
        """Find what is kept. Raises `ValueError` in one line for impossible settings, and too short a passage."""
        memories = memories_for(reader.policies(passage.names), settings)
        if reader.is_model and len(passage.ids) < 2:
            raise ValueError(f"{one_line(passage.name)} has one token, and a model needs two; give more text")
        return cls(reader, passage, settings, memories, {n: reader.follow(passage, m) for n, m in memories.items()})

    def reading(self, strategy: str) -> Reading:
        """The reading with a memory; the first to ask waits for the model."""
        known = self.followed[strategy]
        if known.losses is not None or not self.reader.is_model:
            return known
        if strategy not in self._readings:
            self._readings[strategy] = self.reader.read(self.passage, self.memories[strategy], self.reader.new)
        return self._readings[strategy]

"""Units and letters as one sequence: a chunk of units, its letters, a switch, the next chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ....schema import NonNegativeInt, PositiveInt, Validated


class Interleaved(NamedTuple):
    """A sequence, and which of its tokens the model writes (letters and switches); it reads the others."""

    ids: Int[Tensor, " time"]
    written: Bool[Tensor, " time"]


@dataclass(frozen=True)
class Interleaving(Validated):
    """How units and letters alternate. Ids: units first, then letters, the switch and the end.

    The letters of a unit follow the first chunk that reaches ``lookahead`` units beyond it. The end token follows the
    last unit of a recording; the remaining letters follow it.

    Args:
        units: number of different units.
        letters: number of different letters.
        chunk: units in a chunk.
        lookahead: units to read after a letter's unit before the letter is written.
    """

    units: int
    letters: int
    chunk: PositiveInt = 8
    lookahead: NonNegativeInt = 4

    @property
    def switch(self) -> int:
        """The token after the letters of a chunk: continue reading."""
        return self.units + self.letters

    @property
    def end(self) -> int:
        """The token after the last unit."""
        return self.switch + 1

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.end + 1

    def interleave(
        self,
        units: Int[Tensor, " units"],
        letters: Int[Tensor, " letters"],
        places: Int[Tensor, " letters"],
        first: int,
    ) -> Interleaved:
        """Interleave the units and letters of a recording.

        Args:
            units: ids of units.
            letters: ids of letters.
            places: index of the unit of each letter, in non-decreasing order.
            first: units in the first chunk; the others have ``chunk``, the last one the rest.

        Returns:
            The ids of the stream, and which of them the recogniser writes.
        """
        ids: list[int] = []
        written: list[bool] = []
        done = 0
        for start, stop in self.chunks(len(units), first):
            last = stop == len(units)
            ready = len(letters) if last else int((places < stop - self.lookahead).sum())
            read = [*units[start:stop].tolist(), *([self.end] if last else [])]
            write = [*(self.units + letters[done:ready]).tolist(), self.switch]
            ids += read + write
            written += [False] * len(read) + [True] * len(write)
            done = max(done, ready)
        return Interleaved(torch.tensor(ids, dtype=torch.long), torch.tensor(written, dtype=torch.bool))

    def chunks(self, count: int, first: int) -> Iterator[tuple[int, int]]:
        """Start and stop of each chunk of ``count`` units; the first chunk has ``first``."""
        yield 0, min(first, count)
        for i in range(math.ceil(max(0, count - first) / self.chunk)):
            yield first + i * self.chunk, min(first + (i + 1) * self.chunk, count)

    def separate(self, ids: Int[Tensor, " time"]) -> tuple[Int[Tensor, " units"], Int[Tensor, " letters"]]:
        """The units and the letters of a sequence."""
        return ids[ids < self.units], ids[(ids >= self.units) & (ids < self.switch)] - self.units

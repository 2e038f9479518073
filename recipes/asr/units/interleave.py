"""Units and letters as one sequence: a chunk of units, the letters said in it, a switch, the next chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Woven(NamedTuple):
    """A sequence, and which of its tokens are written (letters and switches) rather than read."""

    ids: Int[Tensor, " time"]
    written: Bool[Tensor, " time"]


@dataclass(frozen=True)
class Interleaving:
    """How units and letters take turns. Ids: ``units`` units, then ``letters`` letters, the switch and the end.

    The letters of a unit are written behind the chunk in which, or at whose end, ``lookahead`` more units have been
    read. The end follows the last units of a recording, so that what is left is written then.
    """

    units: int
    letters: int
    chunk: int = 8
    lookahead: int = 4

    def __post_init__(self) -> None:
        """Raise `ValueError` for chunks that hold nothing."""
        if self.chunk < 1 or self.lookahead < 0:
            raise ValueError(f"chunk={self.chunk} must be at least 1, lookahead={self.lookahead} at least 0")

    @property
    def switch(self) -> int:
        """The token after the letters of a chunk: read on."""
        return self.units + self.letters

    @property
    def end(self) -> int:
        """The token after the last unit."""
        return self.switch + 1

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return self.end + 1

    def weave(
        self,
        units: Int[Tensor, " units"],
        letters: Int[Tensor, " letters"],
        places: Int[Tensor, " letters"],
        first: int,
    ) -> Woven:
        """The sequence of ``units`` and of ``letters``, whose ``places`` are their units' numbers and never fall.

        The first chunk has ``first`` units, the others ``chunk``, the last what is left.
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
        return Woven(torch.tensor(ids, dtype=torch.long), torch.tensor(written, dtype=torch.bool))

    def chunks(self, count: int, first: int) -> Iterator[tuple[int, int]]:
        """Where the chunks of ``count`` units start and stop."""
        yield 0, min(first, count)
        for i in range(math.ceil(max(0, count - first) / self.chunk)):
            yield first + i * self.chunk, min(first + (i + 1) * self.chunk, count)

    def unweave(self, ids: Int[Tensor, " time"]) -> tuple[Int[Tensor, " units"], Int[Tensor, " letters"]]:
        """The units and the letters of a sequence."""
        return ids[ids < self.units], ids[(ids >= self.units) & (ids < self.switch)] - self.units

"""Endless batches of utterances of about one length."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch

POOL = 16
"""Batches whose utterances are drawn together and then sorted by their lengths, so that little is padding."""


class Loader:
    """Batches of ``rows`` utterances; each epoch in another order, all utterances once but for a rest.

    ``collate`` makes a batch of utterance numbers and a generator. A batch depends on ``seed``, the process and how
    many came before, so that `state_dict` is one number. Raises `ValueError` where there is nothing to read.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        collate: Callable[[list[int], torch.Generator], Any],
        rows: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not lengths:
            raise ValueError("there is no utterance to train on; give data with recordings and their texts")
        self.lengths, self.collate, self.seed = lengths, collate, seed
        self.rows = min(rows, len(lengths))
        self.rank, self.world, self.drawn = rank, world, 0
        self._batches = lru_cache(maxsize=2)(self._batches_of)

    def next(self) -> Any:
        """The next batch."""
        number = self.drawn * self.world + self.rank
        self.drawn += 1
        epoch, index = divmod(number, len(self.lengths) // self.rows)
        draw = torch.Generator().manual_seed(random.Random(f"{self.seed}:{number}").getrandbits(62))
        return self.collate(self._batches(epoch)[index], draw)

    def state_dict(self) -> dict[str, Any]:
        """How many batches were drawn."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where ``state`` was taken."""
        self.drawn = state["drawn"]

    def _batches_of(self, epoch: int) -> list[list[int]]:
        draw, order = random.Random(f"{self.seed}:{epoch}"), list(range(len(self.lengths)))
        draw.shuffle(order)
        del order[len(order) // self.rows * self.rows :]
        pool = self.rows * POOL
        pools = [sorted(order[i : i + pool], key=self.lengths.__getitem__) for i in range(0, len(order), pool)]
        batches = [own[i : i + self.rows] for own in pools for i in range(0, len(own), self.rows)]
        draw.shuffle(batches)
        return batches

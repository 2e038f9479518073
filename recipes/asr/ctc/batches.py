"""Endless batches of utterances of similar length."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch

POOL = 16
"""Batches whose utterances are sampled together and then sorted by length, for little padding."""


class UtteranceLoader:
    """Batches of utterances, shuffled each epoch; an incomplete last batch is dropped.

    A batch depends only on ``seed``, ``rank`` and the number of batches before it, so `state_dict` is one number.

    Args:
        lengths: length of each utterance.
        collate: makes a batch from indices of utterances and a random generator.
        batch_size: utterances in a batch.
        seed: seed of order and ``collate``.
        rank: number of this process.
        world: number of processes.

    Raises:
        ValueError: There is no utterance.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        collate: Callable[[list[int], torch.Generator], Any],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not lengths:
            raise ValueError("there is no utterance to train on; give data with recordings and their texts")
        self.lengths, self.collate, self.seed = lengths, collate, seed
        self.batch_size = min(batch_size, len(lengths))
        self.rank, self.world, self.drawn = rank, world, 0
        self._batches = lru_cache(maxsize=2)(self._batches_of)

    def next(self) -> Any:
        """The next batch."""
        number = self.drawn * self.world + self.rank
        self.drawn += 1
        epoch, index = divmod(number, len(self.lengths) // self.batch_size)
        draw = torch.Generator().manual_seed(random.Random(f"{self.seed}:{number}").getrandbits(62))
        return self.collate(self._batches(epoch)[index], draw)

    def state_dict(self) -> dict[str, Any]:
        """The number of batches drawn so far."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.drawn = state["drawn"]

    def _batches_of(self, epoch: int) -> list[list[int]]:
        draw, order = random.Random(f"{self.seed}:{epoch}"), list(range(len(self.lengths)))
        draw.shuffle(order)
        del order[len(order) // self.batch_size * self.batch_size :]
        size = self.batch_size * POOL
        pools = [sorted(order[i : i + size], key=self.lengths.__getitem__) for i in range(0, len(order), size)]
        batches = [pool[i : i + self.batch_size] for pool in pools for i in range(0, len(pool), self.batch_size)]
        draw.shuffle(batches)
        return batches

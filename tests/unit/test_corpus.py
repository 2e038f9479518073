"""The order of passages in training: shuffled once an epoch, the same for the same seed, resumable."""

from __future__ import annotations

import random
import time

import pytest
import torch
from vqmem.recipes.engine.loader import BatchLoader, epoch_order
from vqmem.recipes.lm.corpus import Passage, segment_loader


def passages(count: int, length: int = 5) -> list[Passage]:
    ones = torch.ones(length, dtype=torch.long)
    return [Passage(str(i), ones * i, ones, ones.bool()) for i in range(count)]


def first_tokens(loader: BatchLoader, batches: int) -> list[int]:
    return [int(token) for _ in range(batches) for token in loader.next().tokens[:, 0]]


@pytest.mark.parametrize("world", [1, 2])
def test_the_order_is_that_of_a_shuffle_an_epoch(world):
    count, rows = 7, 3
    expected = []
    for epoch in range(20):
        order = list(range(count))
        random.Random(f"5:{epoch}").shuffle(order)
        expected += order
    for rank in range(world):
        loader = segment_loader(passages(count), rows, 4, 5, rank, world)
        assert first_tokens(loader, 10) == expected[rank::world][: 10 * rows]


def test_it_goes_on_where_it_was():
    loader = segment_loader(passages(7, 9), 3, 4, 0)
    first_tokens(loader, 5)
    state, expected = loader.state_dict(), first_tokens(loader, 20)
    epoch_order.cache_clear()
    again = segment_loader(passages(7, 9), 3, 4, 0)
    again.load_state_dict(state)
    assert first_tokens(again, 20) == expected


def test_half_a_million_passages_are_shuffled_once():
    items = passages(1) * 500_000
    epoch_order.cache_clear()
    began = time.process_time()
    first_tokens(segment_loader(items, 32, 4, 0), 20)
    assert epoch_order.cache_info().misses == 1
    assert time.process_time() - began < 5  # 640 shuffles would take minutes

"""Priorities from neighbours or copies: equal to lists for any slots, and computed in linear memory."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem import registry
from vqmem.memory import naive
from vqmem.memory.slots import Slots

WITH_NEIGHBOURS = [
    {"name": "scored", "window": 3},
    {"name": "scored", "window": 25, "scale": "raw", "gain": -2.0},
    {"name": "scored", "copies": 100.0, "window": 3},
    {"name": "scored", "copies": 1.5, "age": "linear"},
    {"name": "scored", "copies": 2.0, "window": 9, "admit": 0.2},
    {"name": "snapkv", "kernel": 5},
]
NAMES = ("surprise", "rarity", "gain")
SLOT = st.tuples(
    st.integers(-1, 4),  # tokens repeat; -1 is a pooled slot
    st.integers(0, 30),  # positions in any order, several slots at the same one too
    st.tuples(*[st.floats(-50, 50, width=32)] * 3),
    st.booleans(),
)
ROWS = st.integers(1, 14).flatmap(lambda count: st.lists(st.lists(SLOT, min_size=count, max_size=count), max_size=3))


def to_slots(rows: list[list[tuple]]) -> Slots:
    tokens, positions, scores, valid = (torch.tensor([[slot[i] for slot in row] for row in rows]) for i in range(4))
    return Slots((), tokens, positions, scores, scores.flip(2), scores[..., 0].abs(), valid, NAMES)


def by_lists(policy, row: list[tuple], now: int, name: str) -> list[float]:
    """The priorities of the valid slots of a row."""
    slots = [
        naive.Slot(
            token,
            position,
            dict(zip(NAMES, scores, strict=True)),
            dict(zip(NAMES, scores[::-1], strict=True)),
            abs(scores[0]),
        )
        for token, position, scores, valid in row
        if valid
    ]
    return naive.PRIORITIES[name](policy, slots, now)


@pytest.mark.parametrize("spec", WITH_NEIGHBOURS, ids=str)
@given(rows=ROWS.filter(bool))
@settings(max_examples=40)
def test_priorities_equal_those_of_lists(spec, rows):
    policy, now = registry.build("policies", spec), 999
    if "window" not in spec and "kernel" not in spec:  # each slot then has another position
        rows = [[(slot[0], 16 * slot[1] + i, *slot[2:]) for i, slot in enumerate(row)] for row in rows]
    slots = to_slots(rows)
    got = policy.priority(slots, torch.full((len(rows),), now))
    for row, valid, priority in zip(rows, slots.valid, got, strict=True):
        wanted = torch.tensor(by_lists(policy, row, now, spec["name"]), dtype=priority.dtype)
        torch.testing.assert_close(priority[valid], wanted, atol=1e-4, rtol=1e-5)


def test_a_large_value_far_away_does_not_blur_small_ones():
    """Running sums in single precision would lose 0.001 beside 100,000."""
    importance = torch.full((1, 100), 1e-3)
    importance[:, :5] = 1e5
    slots = Slots((), *[torch.arange(100)[None]] * 2, *[torch.zeros(1, 100, 0)] * 2, importance, importance > 0, ())
    policy = registry.build("policies", {"name": "snapkv", "kernel": 3})
    torch.testing.assert_close(policy.priority(slots, torch.tensor([100]))[:, 6:], importance[:, 6:], atol=0, rtol=1e-6)


def test_memory_does_not_grow_with_the_square_of_the_slots():
    """50,000 slots compared pairwise would take 2.5 gigabytes at a byte a pair; every policy stays far below."""
    code = """
import torch
from dataclasses import replace
from vqmem import registry
from vqmem.memory.slots import Slots
from vqmem.tests.peak import begin_anew, peak_mb
count = 50_000
tokens, scores = torch.arange(count)[None] % 999, torch.rand(1, count, 3)
names = ('surprise', 'rarity', 'gain')
slots = Slots((), tokens, torch.arange(count)[None], scores, scores, scores[..., 0], tokens >= 0, names)
slots = replace(slots, decay=-scores[..., None])
specs = [*registry.names("policies"), {"name": "scored", "window": 25, "copies": 2.0, "admit": 0.5}]
registry.build("policies", "scored").priority(slots, torch.tensor([count]))  # the first call loads modules
before = begin_anew()
for spec in specs:
    registry.build("policies", spec).priority(slots, torch.tensor([count]))
    assert peak_mb() - before < 100, (spec, peak_mb() - before)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

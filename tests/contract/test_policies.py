"""The contract of policies, for every policy in the folder, against the oracle in Python lists."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem import registry
from vqmem.memory import naive
from vqmem.memory.policy import Guard, select
from vqmem.memory.slots import Slots

POLICIES = registry.names("policies")
VARIANTS = [
    ({}),
    {"scale": "raw"},
    {"scale": "log", "surprise": 0.0, "gain": 1.0},
    {"rarity": 2.0, "window": 5},
    {"surprise": 0.0, "reuse": 1.0, "scale": "raw"},
]
VARIANTS += [
    {"age": "linear", "half_life": 7.0},
    {"age": "half_life", "age_weight": 4.0},
    {"copies": 100.0},
    {"copies": 1.5, "window": 5},
    {"admit": 0.3},
    {"usage": 1.0, "admit": -2.0, "copies": 1.5},
]
NAMES = ("surprise", "rarity", "gain", "reuse")
CASES = [(name, {}) for name in POLICIES] + [("scored", fields) for fields in VARIANTS[1:]]
CASES += [("weighted", {"rarity": 2.0, "window": 5, "copies": 1.5}), ("weighted", {"surprise": 0.0, "reuse": 1.0})]
CASES += [("forget_gate", {"usage": 0.5, "surprise": -1.0}), ("forget_gate", {"usage": 0.0})]
CASES += [("expire_span", {"surprise": -0.5, "gain": 2.0, "bias": -1.0, "max_span": 9.0})]


def random_slots(seed: int, batch: int, count: int, valid_share: float = 0.8) -> Slots:
    """Rows of differing positions and validity, in order of position."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.stack(
        [torch.randperm(4 * count + 1, generator=generator)[:count].sort().values for _ in range(batch)]
    )
    scores = torch.rand(batch, count, len(NAMES), generator=generator) * 5
    return Slots(
        (torch.randn(batch, count, 2, 4, generator=generator),),
        torch.randint(0, 6, (batch, count), generator=generator),
        positions,
        scores,
        torch.randn(batch, count, len(NAMES), generator=generator),
        torch.rand(batch, count, generator=generator),
        torch.rand(batch, count, generator=generator) < valid_share,
        NAMES,
        decay=-5 * torch.rand(batch, count, 2, 3, generator=generator),
    )


def as_rows(slots: Slots) -> list[list[naive.Slot]]:
    return [
        [
            naive.Slot(
                int(slots.tokens[b, i]),
                int(slots.positions[b, i]),
                dict(zip(NAMES, slots.scores[b, i].tolist(), strict=True)),
                dict(zip(NAMES, slots.standard[b, i].tolist(), strict=True)),
                float(slots.usage[b, i]),
                bool(slots.valid[b, i]),
                decay=slots.decay[b, i].flatten().tolist(),
            )
            for i in range(slots.count)
        ]
        for b in range(slots.batch_size)
    ]


def one_by_one(policy, row: list[naive.Slot], now: int) -> list[float]:
    """Priorities of a policy without an oracle, from the valid slots of one row alone."""
    if not row:
        return []
    slots = Slots(
        (torch.zeros(1, len(row), 2, 4),),
        *(torch.tensor([[getattr(slot, name) for slot in row]]) for name in ("token", "position")),
        *(torch.tensor([[list(getattr(slot, name).values()) for slot in row]]) for name in ("scores", "standard")),
        torch.tensor([[slot.usage for slot in row]]),
        torch.ones(1, len(row), dtype=torch.bool),
        NAMES,
    )
    return policy.priority(slots, torch.tensor([now]))[0].tolist()


@pytest.mark.parametrize(("name", "fields"), CASES)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 12),
    keep=st.integers(0, 12),
    sinks=st.integers(0, 3),
    recent=st.integers(0, 5),
)
@settings(max_examples=40)
def test_selection_agrees_with_the_oracle(name, fields, seed, count, keep, sinks, recent):
    policy = registry.build("policies", {"name": name, **fields})
    slots = random_slots(seed, 3, count)
    now = slots.positions[:, -1] + 1
    chosen = select(slots, policy, keep, now, Guard(sinks, recent))
    assert chosen.shape == (3, min(keep, count))
    priority = naive.PRIORITIES.get(name, one_by_one)
    for row, row_now, got in zip(as_rows(slots), now.tolist(), chosen.tolist(), strict=True):
        wanted = naive.select(row, policy, priority, keep, row_now, sinks, recent)
        assert [i for i in got if row[i].valid] == [i for i in wanted if row[i].valid]


@pytest.mark.parametrize(("name", "fields"), CASES)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 12))
@settings(max_examples=25)
def test_priorities_do_not_depend_on_other_rows_or_invalid_slots(name, fields, seed, count):
    policy = registry.build("policies", {"name": name, **fields})
    slots = random_slots(seed, 4, count)
    now = slots.positions[:, -1] + 1
    priority = policy.priority(slots, now)
    assert priority[slots.valid].isfinite().all()
    for row in range(4):
        alone = slots.state_dict()
        alone = {key: x[row : row + 1, slots.valid[row]] for key, x in alone.items()}
        alone = Slots.from_state_dict(alone, NAMES)
        if alone.count:
            torch.testing.assert_close(policy.priority(alone, now[row : row + 1])[0], priority[row, slots.valid[row]])


@pytest.mark.parametrize("name", POLICIES)
@given(seed=st.integers(0, 10_000), count=st.integers(3, 16), sinks=st.integers(0, 2), recent=st.integers(0, 4))
@settings(max_examples=25)
def test_guarded_slots_stay_and_order_is_by_position(name, seed, count, sinks, recent):
    policy = registry.build("policies", name)
    slots = random_slots(seed, 2, count)
    now = slots.positions[:, -1] + 1
    guarded = slots.valid & ((slots.positions < sinks) | (slots.positions >= now[:, None] - recent))
    keep = max(1, int(guarded.sum(1).max()))
    kept = slots.gather(select(slots, policy, keep, now, Guard(sinks, recent)))
    for row in range(2):
        positions = kept.positions[row][kept.valid[row]]
        assert positions.tolist() == sorted(positions.tolist())
        assert set(slots.positions[row][guarded[row]].tolist()) <= set(positions.tolist())
        if not kept.valid[row].all():  # nothing valid leaves while something invalid stays
            assert kept.valid[row].sum() == slots.valid[row].sum()


@pytest.mark.parametrize("name", POLICIES)
def test_it_is_a_frozen_dataclass_with_defaults(name):
    cls = registry.load("policies", name)
    assert cls.__dataclass_params__.frozen
    assert isinstance(cls().requires, tuple)
    assert registry.describe("policies", name)
    assert cls(**dataclasses.asdict(cls())) == cls()


@pytest.mark.parametrize(
    ("name", "fields", "named"),
    [
        ("scored", {"scale": "sqrt"}, "sqrt"),
        ("scored", {"age": "never"}, "never"),
        ("scored", {"window": 2}, "window=2"),
        ("scored", {"half_life": 0.0}, "half_life=0"),
        ("expire_span", {"max_span": 0.0}, "max_span=0"),
        ("sink_recent", {"sinks": -1}, "sinks=-1"),
        ("scored", {"suprise": 1.0}, "did you mean scored.surprise"),
    ],
)
def test_bad_values_are_named(name, fields, named):
    with pytest.raises(ValueError, match=named):
        registry.build("policies", {"name": name, **fields})


def test_scored_asks_for_attention_only_where_it_weighs_it() -> None:
    assert registry.build("policies", "scored").requires == ("scores",)
    assert registry.build("policies", {"name": "scored", "usage": 0.5}).requires == ("scores", "usage")

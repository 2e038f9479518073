"""The memory against Python lists, over random streams: one row and one slot at a time."""

import random
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.memory import naive
from vqmem.memory.bank import Memory, State
from vqmem.memory.compression.drop import Compression as Drop
from vqmem.memory.compression.pool import Compression as Pool
from vqmem.memory.policies.fifo import Policy as Fifo
from vqmem.memory.policies.random import Policy as Random
from vqmem.memory.policies.scored import Policy as Scored
from vqmem.memory.policies.sink_recent import Policy as SinkRecent
from vqmem.memory.policy import Guard

BATCH = 3
NAMES = ("surprise", "rarity", "gain")
POLICIES = {
    "fifo": Fifo(),
    "random": Random(),
    "sink_recent": SinkRecent(2),
    "scored": Scored(scale="standardised", gain=0.5, age_weight=0.3),
}


@dataclass(frozen=True)
class Entry:
    """A slot and its payload."""

    slot: naive.Slot
    payload: float


@dataclass
class Row:
    """The memory of one row."""

    uncompressed: list[Entry] = field(default_factory=list)
    pooled: list[Entry] = field(default_factory=list)
    seen: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})

    def write(self, memory: Memory, policy: str, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.slot.valid:
                for name, score in entry.slot.scores.items():
                    self.seen[name].append(score)
            standard = {name: standardised(self.seen[name], score) for name, score in entry.slot.scores.items()}
            self.uncompressed.append(Entry(replace(entry.slot, standard=standard), entry.payload))
        real = [entry for entry in entries if entry.slot.valid] or entries
        self.evict_to_capacity(memory, policy, real[-1].slot.position + 1)

    def evict_to_capacity(self, memory: Memory, policy: str, now: int) -> None:
        rate = memory.compression.rate
        leave = min(
            len(self.uncompressed), -(-max(0, len(self.uncompressed) - memory.uncompressed_capacity) // rate) * rate
        )
        slots = [entry.slot for entry in self.uncompressed]
        keep = naive.select(
            slots,
            memory.policy,
            naive.PRIORITIES[policy],
            len(slots) - leave,
            now,
            memory.guard.sinks,
            memory.guard.recent,
        )
        evicted = [entry for i, entry in enumerate(self.uncompressed) if i not in keep]
        self.uncompressed = [self.uncompressed[i] for i in keep] if leave else self.uncompressed
        pooled_capacity = memory.capacity - memory.uncompressed_capacity
        self.pooled += [mean(evicted[i : i + rate]) for i in range(0, len(evicted), rate)]
        if len(self.pooled) > pooled_capacity:  # the newest stay, by the position of their newest token
            slots = [entry.slot for entry in self.pooled]
            self.pooled = [self.pooled[i] for i in naive.select(slots, Fifo(), naive.fifo, pooled_capacity, now)]

    def forget(self) -> None:
        for part in (self.uncompressed, self.pooled):
            part[:] = [Entry(replace(entry.slot, valid=False), entry.payload) for entry in part]
        self.seen = {name: [] for name in NAMES}

    def add_attention(self, attention: list[float]) -> None:
        entries = self.pooled + self.uncompressed
        used = [
            Entry(replace(e.slot, usage=e.slot.usage + a), e.payload) for e, a in zip(entries, attention, strict=True)
        ]
        self.pooled, self.uncompressed = used[: len(self.pooled)], used[len(self.pooled) :]


def standardised(seen: list[float], score: float) -> float:
    """By the mean and the variance so far, the latter as if 16 tokens with variance 1 had come before."""
    average = sum(seen) / max(1, len(seen))
    deviations = sum((x - average) ** 2 for x in seen)
    return (score - average) / ((deviations + 16) / (len(seen) + 16)) ** 0.5


def mean(group: list[Entry]) -> Entry:
    def average(values: list[float]) -> float:
        return sum(values) / len(values)

    slots = [entry.slot for entry in group]
    scores, standard = (
        {name: average([getattr(slot, kind)[name] for slot in slots]) for name in NAMES}
        for kind in ("scores", "standard")
    )
    newest = max(slot.position for slot in slots)
    slot = naive.Slot(-1, newest, scores, standard, average([slot.usage for slot in slots]))
    return Entry(slot, average([entry.payload for entry in group]))


def compare(state: State, rows: list[Row]) -> None:
    """Valid slots are the same, in the same order; the number of slots is the same."""
    for part in ("slots", "pooled"):
        slots = getattr(state, part)
        for b, row in enumerate(rows):
            entries = row.uncompressed if part == "slots" else row.pooled
            assert slots.count == len(entries)
            entries = [entry for entry in entries if entry.slot.valid]
            here = slots.valid[b]
            assert slots.tokens[b][here].tolist() == [entry.slot.token for entry in entries]
            assert slots.positions[b][here].tolist() == [entry.slot.position for entry in entries]
            assert slots.score_names == NAMES
            for name in NAMES:
                for got, kind in ((slots.score(name), "scores"), (slots.standard_score(name), "standard")):
                    wanted = torch.tensor([getattr(entry.slot, kind)[name] for entry in entries])
                    torch.testing.assert_close(got[b][here], wanted, atol=1e-4, rtol=1e-4)
            wanted = torch.tensor([entry.slot.usage for entry in entries])
            torch.testing.assert_close(slots.usage[b][here], wanted, atol=1e-4, rtol=1e-4)
            payload = torch.tensor([entry.payload for entry in entries])
            torch.testing.assert_close(slots.payload[0][b][here], payload[:, None, None].expand(-1, 2, 3))


def empty(memory: Memory) -> State:
    return memory.empty((torch.zeros(BATCH, 0, 2, 3),), NAMES)


def segment(draw: random.Random, starts: list[int], time: int, padding: bool) -> list[list[Entry]]:
    """Each row's new entries: positions go on, tokens repeat often, some are padding where asked for."""
    return [
        [
            Entry(
                naive.Slot(
                    draw.randrange(6),
                    start + t,
                    {name: draw.uniform(0, 8) for name in NAMES},
                    valid=not padding or draw.random() < 0.8,
                ),
                payload=draw.uniform(-2, 2),
            )
            for t in range(time)
        ]
        for start in starts
    ]


def write(memory: Memory, state: State, rows: list[list[Entry]], learned=None):
    """The same segment as tensors."""

    def each(take, dtype=None):
        return torch.tensor([[take(entry) for entry in row] for row in rows], dtype=dtype)

    payload = each(lambda e: e.payload)[..., None, None].expand(-1, -1, 2, 3)
    tokens, positions = each(lambda e: e.slot.token), each(lambda e: e.slot.position)
    scores, valid = each(lambda e: list(e.slot.scores.values())), each(lambda e: e.slot.valid)
    return memory.write(state, (payload,), tokens, positions, scores, valid, learned)


def any_memory(draw: random.Random, policy: str, pooled: bool) -> Memory:
    capacity, guard = draw.randint(10, 14), Guard(draw.randint(0, 2), draw.randint(0, 2))
    compression = Pool("mean", draw.choice([2, 3]), 0.4) if pooled and draw.random() < 0.8 else Drop()
    return Memory(capacity, POLICIES[policy], compression, guard)


@pytest.mark.parametrize("policy", POLICIES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_dropping_agrees_with_lists(policy, seed):
    """With padding, documents that end in some rows, usage, and a memory of another size and policy halfway."""
    draw = random.Random(seed)
    memory = any_memory(draw, policy, pooled=False)
    state, rows, starts = empty(memory), [Row() for _ in range(BATCH)], [0] * BATCH
    for turn in range(6):
        is_start = [draw.random() < 0.2 for _ in rows]
        state = state.forget(torch.tensor(is_start))
        for b in range(BATCH):
            if is_start[b]:
                rows[b].forget()
                starts[b] = 0
        if turn == 3:
            policy = draw.choice(list(POLICIES))
            memory = any_memory(draw, policy, pooled=False)
            state = memory.evict_to_capacity(state, torch.tensor(starts)).state
            for row, start in zip(rows, starts, strict=True):
                row.evict_to_capacity(memory, policy, start)
        attention = torch.tensor([[draw.random() for _ in range(state.read().count)] for _ in rows])
        state = state.add_attention(attention.view(BATCH, -1))
        new = segment(draw, starts, draw.randint(1, 9), padding=True)
        state = write(memory, state, new).state
        for b, row in enumerate(rows):
            row.add_attention(attention[b].tolist() if attention.numel() else [])
            row.write(memory, policy, new[b])
            starts[b] += len(new[b])
        compare(state, rows)


@pytest.mark.parametrize("policy", POLICIES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_pooling_agrees_with_lists(policy, seed):
    """Uncompressed and pooled slots, and a memory of another size, policy and compression halfway."""
    draw = random.Random(seed)
    memory = any_memory(draw, policy, pooled=True)
    state, rows, starts = empty(memory), [Row() for _ in range(BATCH)], [0] * BATCH
    for turn in range(6):
        if turn == 3:
            policy = draw.choice(list(POLICIES))
            memory = any_memory(draw, policy, pooled=True)
            state = memory.evict_to_capacity(state, torch.tensor(starts)).state
            for row, start in zip(rows, starts, strict=True):
                row.evict_to_capacity(memory, policy, start)
            compare(state, rows)
        new = segment(draw, starts, draw.randint(1, 9), padding=False)
        state = write(memory, state, new).state
        for b, row in enumerate(rows):
            row.write(memory, policy, new[b])
            starts[b] += len(new[b])
        compare(state, rows)


@given(seed=st.integers(0, 10**6), policy=st.sampled_from(list(POLICIES)))
@settings(max_examples=20)
def test_capacity_and_guards_are_never_violated(seed, policy):
    """With padding, ends of documents and pooling, where grouping leaves no unique answer to compare with."""
    draw = random.Random(seed)
    memory = any_memory(draw, policy, pooled=True)
    state, starts = empty(memory), [0] * BATCH
    alive: list[dict[int, float]] = [{} for _ in range(BATCH)]
    for _ in range(8):
        is_start = [draw.random() < 0.2 for _ in range(BATCH)]
        state = state.forget(torch.tensor(is_start))
        starts = [0 if new else start for new, start in zip(is_start, starts, strict=True)]
        alive = [{} if new else old for new, old in zip(is_start, alive, strict=True)]
        new = segment(draw, starts, draw.randint(1, 9), padding=True)
        state = write(memory, state, new).state
        read = state.read()
        assert read.count <= memory.capacity
        assert state.slots.count <= memory.uncompressed_capacity
        for b in range(BATCH):
            alive[b] |= {e.slot.position: e.payload for e in new[b] if e.slot.valid}
            starts[b] += len(new[b])
            cached = state.slots.positions[b][state.slots.valid[b]].tolist()
            assert cached == sorted(set(cached))
            assert set(cached) <= set(alive[b])
            sinks, recent = memory.guard.sinks, memory.guard.recent
            assert {p for p in alive[b] if p < sinks or p >= starts[b] - recent} <= set(cached)
            assert set(read.positions[b][read.valid[b]].tolist()) <= set(alive[b])
            assert read.payload[0][b].isfinite().all()
            assert not state.pooled.valid[b].any() or state.pooled.payload[0][b].abs().max() <= 2

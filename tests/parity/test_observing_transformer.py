"""Policies that need attention, in the trained memory: their statistics and the slots they keep, against lists."""

from dataclasses import replace

import pytest
import torch
from vqmem import registry
from vqmem.memory import naive
from vqmem.memory.bank import Memory
from vqmem.memory.compression.drop import Compression as Drop
from vqmem.memory.policy import Guard
from vqmem.models.memory_transformer import MemoryTransformer, TransformerConfig
from vqmem.recipes.lm.corpus import SegmentBatch
from vqmem.recipes.lm.language_model import LanguageModel, write_segment
from vqmem.recipes.lm.strategies import Strategy

OBSERVERS = [name for name in naive.OBSERVATIONS if name in registry.names("policies")]
FIELDS = {"lru": {"top": 3}, "lfu": {"top": 3}, "snapkv": {"window": 5, "kernel": 3}}
ROWS, SEGMENT, CAPACITY, GUARD = 3, 6, 10, Guard(1, 2)


def make_model() -> MemoryTransformer:
    torch.manual_seed(0)
    model = MemoryTransformer(TransformerConfig(vocab_size=40, layers=2, dim=32, heads=4)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
    return model


def segment(ids: torch.Tensor, positions: torch.Tensor) -> SegmentBatch:
    """A batch without padding."""
    real = torch.ones_like(ids, dtype=torch.bool)
    return SegmentBatch(ids, ids, positions, real, real.long(), ~real, ids[:, :1], ~real[:, 0])


def test_weights_and_norms_are_those_of_the_heads_and_layers():
    model, memory = make_model(), Memory(CAPACITY)
    ids, positions = torch.randint(40, (ROWS, 8)), torch.arange(8).expand(ROWS, -1)
    first = model(ids, positions, remember="keys_values", need=("usage", "norms"))
    keys = first.payload[0].detach().unflatten(-1, (4, -1))  # rows, time, layers, heads, width
    torch.testing.assert_close(first.norms, keys.norm(dim=-1).mean((2, 3)))
    torch.testing.assert_close(first.weights.sum(2), torch.ones(ROWS, 8))
    assert not first.weights.triu(1).any()
    state = memory.write(
        memory.empty(model.empty_payload(ROWS, "keys_values")),
        first.payload,
        ids,
        positions,
        torch.zeros(ROWS, 8, 0),
        ids >= 0,
    ).state
    second = model(ids, positions + 8, state.read(), remember="keys_values", need=("usage",))
    torch.testing.assert_close(second.usage, second.weights[..., :8].sum(1))
    assert second.norms is None


@pytest.mark.parametrize("name", OBSERVERS)
@torch.no_grad()
def test_kept_slots_agree_with_lists(name):
    policy = registry.build("policies", {"name": name, **FIELDS.get(name, {})})
    model, strategy = make_model(), Strategy(name, policy, Drop())
    memory = strategy.memory(CAPACITY, GUARD)
    state, rows = memory.empty(model.empty_payload(ROWS)), [[] for _ in range(ROWS)]
    for turn in range(6):
        ids = torch.randint(40, (ROWS, SEGMENT), generator=torch.Generator().manual_seed(turn))
        positions = (turn * SEGMENT + torch.arange(SEGMENT)).expand(ROWS, -1)
        batch = segment(ids, positions)
        output = model(ids, positions, state.read(), need=memory.requires)
        cached = state.slots.count
        state = write_segment(memory, state, output, batch, torch.zeros(ROWS, SEGMENT, 0), None).state
        for row, slots in enumerate(rows):
            slots += [naive.Slot(int(ids[row, t]), turn * SEGMENT + t) for t in range(SEGMENT)]
            none = [0.0] * (cached + SEGMENT)
            queries = [
                naive.Query(
                    turn * SEGMENT + t,
                    none if output.weights is None else output.weights[row, t].tolist(),
                    0.0 if output.norms is None else float(output.norms[row, t]),
                )
                for t in range(SEGMENT)
            ]
            usage = naive.OBSERVATIONS[name](policy, [slot.usage for slot in slots], queries)
            slots[:] = [replace(slot, usage=u) for slot, u in zip(slots, usage, strict=True)]
            now = (turn + 1) * SEGMENT
            kept = naive.select(slots, policy, naive.PRIORITIES[name], CAPACITY, now, GUARD.sinks, GUARD.recent)
            slots[:] = [slots[i] for i in kept]
            assert state.slots.positions[row].tolist() == [slot.position for slot in slots]


def test_training_with_every_policy_that_observes_takes_a_step():
    for name in OBSERVERS:
        strategy = Strategy(name, registry.build("policies", name), Drop())
        model = LanguageModel(TransformerConfig(40, layers=1, dim=16, heads=2), [strategy])
        memory = strategy.memory(CAPACITY, GUARD)
        state = memory.empty(model.transformer.empty_payload(2))
        ids = torch.randint(40, (2, 12))
        batch = segment(ids, torch.arange(12).expand(2, -1))
        output = model.transformer(ids, batch.positions, state.read(), need=memory.requires)
        output.logits.sum().backward()
        written = write_segment(memory, state, output, batch, torch.zeros(2, 12, 0), None).state
        assert written.slots.count == CAPACITY
        assert not written.slots.usage.requires_grad
        assert written.slots.usage.any()

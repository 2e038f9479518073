"""The memory's edges: what it refuses, what it counts, and how its state is saved."""

import pytest
import torch
from vqmem.memory.bank import Memory, State
from vqmem.memory.compression.pool import Compression as Pool
from vqmem.memory.policies.scored import Policy as Scored
from vqmem.memory.policy import Guard
from vqmem.models.memory_transformer import MemoryTransformer, TransformerConfig

BATCH = 2


def filled(memory: Memory, time: int = 24, segment: int = 8, parts: int = 1) -> State:
    """A memory after ``time`` tokens, with payloads at random."""
    torch.manual_seed(0)
    state = memory.empty((torch.zeros(BATCH, 0, 2, 4),) * parts, ("surprise", "rarity", "gain"))
    for start in range(0, time, segment):
        ids = torch.randint(9, (BATCH, segment))
        positions = (start + torch.arange(segment)).expand(BATCH, -1)
        payload = tuple(torch.randn(BATCH, segment, 2, 4) for _ in range(parts))
        scores = torch.rand(BATCH, segment, 3)
        state = memory.write(state, payload, ids, positions, scores, torch.ones_like(ids, dtype=torch.bool)).state
    return state


@pytest.mark.parametrize("capacity", [0, -3])
def test_no_capacity_is_refused(capacity):
    with pytest.raises(ValueError, match=f"capacity={capacity}; a memory needs at least 1 slot"):
        Memory(capacity)


def test_guards_that_do_not_fit_are_refused():
    Memory(8, guard=Guard(4, 4))
    with pytest.raises(ValueError, match=r"sinks=5 \+ recent=4 = 9\) exceed the 8 slots that capacity=8 leaves"):
        Memory(8, guard=Guard(5, 4))
    # Half of 16 slots are pooled ones, and 4 leave at a time: 5 are sure to stay uncompressed.
    Memory(16, compression=Pool(rate=4), guard=Guard(1, 4))
    with pytest.raises(ValueError, match=r"= 6\) exceed the 5 slots"):
        Memory(16, compression=Pool(rate=4), guard=Guard(2, 4))
    with pytest.raises(ValueError, match="sinks=-1"):
        Guard(-1)


def test_a_memory_requires_what_its_policy_and_its_compression_require():
    assert Memory(8).requires == ()
    assert set(Memory(8, Scored(), Pool("most_used")).requires) == {"scores", "usage"}


@pytest.mark.parametrize("parts", [1, 2])
def test_the_state_round_trips_and_continues_the_same(parts):
    memory = Memory(12, compression=Pool("mean", 2, 0.5))
    state = filled(memory, parts=parts)
    tensors = {name: x.clone() for name, x in state.state_dict().items()}
    copy = State.from_state_dict(tensors, state.slots.score_names)
    assert state.pooled.count
    for name, x in state.state_dict().items():
        assert torch.equal(x, copy.state_dict()[name]), name
    assert len(copy.slots.payload) == parts
    smaller = Memory(5)
    now = torch.full((BATCH,), 24)
    ours, theirs = smaller.evict_to_capacity(state, now).state, smaller.evict_to_capacity(copy, now).state
    assert torch.equal(ours.slots.payload[0], theirs.slots.payload[0])


def test_attention_is_added_to_each_slot_that_was_read():
    state = filled(Memory(12, compression=Pool("mean", 2, 0.5)))
    attention = torch.rand(BATCH, state.read().count)
    used = state.add_attention(attention).add_attention(attention)
    torch.testing.assert_close(used.read().usage, state.read().usage + 2 * attention)
    assert torch.equal(used.pooled.usage, 2 * attention[:, : state.pooled.count])
    assert torch.equal(used.slots.positions, state.slots.positions)


def test_forgetting_empties_the_rows_named_and_their_moments():
    state = filled(Memory(12, compression=Pool("mean", 2, 0.5)))
    after = state.forget(torch.tensor([True, False]))
    assert not after.read().valid[0].any()
    assert torch.equal(after.read().valid[1], state.read().valid[1])
    assert not after.moments[0].any()
    assert torch.equal(after.moments[1], state.moments[1])


def test_bytes_count_every_tensor_and_are_bounded_by_the_capacity():
    memory = Memory(12, compression=Pool("mean", 2, 0.5))
    state, later = filled(memory), filled(memory, time=80)
    assert state.nbytes == sum(x.element_size() * x.numel() for x in state.state_dict().values())
    assert later.nbytes == state.nbytes  # full, and no more however long the stream
    a_slot = 2 * 4 * 4 + 8 + 8 + 3 * 4 + 3 * 4 + 4 + 1  # payload, token, position, scores, standard, usage, valid
    assert later.nbytes == BATCH * (12 * a_slot + 3 * 3 * 8)
    storage = sum(x.untyped_storage().nbytes() for x in later.slots.state_dict().values())
    assert storage == later.slots.nbytes  # nothing evicted is kept alive by a view


def test_guards_of_a_row_that_is_padded_count_from_its_last_token():
    memory = Memory(6, Scored(surprise=-1.0), guard=Guard(1, 3))
    state = filled(memory, time=16)
    valid = torch.arange(8) < torch.tensor([[8], [2]])
    at = (16 + torch.arange(8)).expand(BATCH, -1)
    payload, scores = (torch.randn(BATCH, 8, 2, 4),), torch.arange(8.0)[None, :, None].expand(BATCH, -1, 3)
    slots = memory.write(state, payload, torch.zeros_like(at), at, scores, valid).state.slots
    kept = [set(row[real].tolist()) for row, real in zip(slots.positions, slots.valid, strict=True)]
    assert {0, 21, 22, 23} <= kept[0]
    assert {0, 15, 16, 17} <= kept[1]


def test_slots_are_either_kept_or_evicted():
    memory = Memory(12, Scored(), Pool("mean", 2, 0.5))
    state = filled(memory, time=8)
    ids, positions = torch.zeros(BATCH, 6, dtype=torch.long), (8 + torch.arange(6)).expand(BATCH, -1)
    written = memory.write(state, (torch.randn(BATCH, 6, 2, 4),), ids, positions, torch.rand(BATCH, 6, 3), ids == 0)
    before = torch.cat([state.slots.positions, positions], dim=1)
    for row in range(BATCH):
        kept, gone = written.state.slots.positions[row].tolist(), written.evicted.positions[row].tolist()
        assert sorted(kept + gone) == before[row].tolist()
    assert written.compressed.count == written.evicted.count // 2


def test_gradients_go_through_slots_that_stay():
    """An unbounded memory that is not detached trains what wrote it."""
    model = MemoryTransformer(TransformerConfig(vocab_size=7, layers=2, dim=16, heads=2))
    ids, positions = torch.randint(7, (1, 4)), torch.arange(4)[None]
    memory = Memory(3)
    first = model(ids, positions)
    state = memory.write(
        memory.empty(model.empty_payload(1)), first.payload, ids, positions, torch.zeros(1, 4, 0), ids >= 0
    ).state
    (gradient,) = torch.autograd.grad(model(ids, positions + 4, state.read()).logits.sum(), first.payload[0])
    assert not gradient[:, 0].any()  # evicted
    assert gradient[:, 1:].any()

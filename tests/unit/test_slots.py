"""Slots that grow at their end: the same as putting them one behind the other, however they branch."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from vqmem.memory.slots import SlotBuffer, Slots, concatenate


def slots(count: int, seed: int) -> Slots:
    """Slots of two rows, at random."""
    draw = torch.Generator().manual_seed(seed)
    index, score = torch.randint(9, (2, count), generator=draw), torch.rand(2, count, 3, generator=draw)
    payload = (torch.rand(2, count, 2, 4, generator=draw),)
    return Slots(payload, index, index + 1, score, score + 1, score[..., 0], index > 4)


def read(count: int, seed: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Payload, tokens and positions of slots that were just read."""
    new = slots(count, seed)
    return new.payload, new.tokens, new.positions


def same(ours: Slots, theirs: Slots) -> bool:
    """Whether they hold the same."""
    return all(torch.equal(x, theirs.state_dict()[name]) for name, x in ours.state_dict().items())


@given(st.integers(0, 5), st.integers(0, 9), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99)), max_size=12))
def test_growing_from_any_of_those_before_is_putting_slots_behind(first, room, steps):
    """Each step grows from one that it names: often from one that others have grown from, and beyond the room."""
    start = slots(first, 0)
    grown, wanted = [SlotBuffer.from_slots(start, room)], [start]
    for seed, (count, parent) in enumerate(steps, 1):
        new, parent = read(count, seed), parent % len(grown)
        grown.append(grown[parent].append(*new))
        wanted.append(concatenate(wanted[parent], Slots.without_scores(*new)))
    assert all(same(ours.slots, theirs) for ours, theirs in zip(grown, wanted, strict=True))


def test_where_there_is_room_what_was_there_is_not_copied():
    begun = SlotBuffer.from_slots(slots(3, 0), 4)
    after = begun.append(*read(2, 1)).append(*read(2, 2))
    assert after.slots.payload[0].data_ptr() == begun.slots.payload[0].data_ptr()
    assert after.append(*read(1, 3)).slots.payload[0].data_ptr() != begun.slots.payload[0].data_ptr()

"""The buffer of slots: appending equals concatenation, however the buffers branch."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from vqmem.memory.slots import SlotBuffer, Slots, concatenate

NAMES = ("surprise", "rarity", "gain")


def slots(count: int, seed: int) -> Slots:
    """Slots of two rows, at random."""
    draw = torch.Generator().manual_seed(seed)
    index, score = torch.randint(9, (2, count), generator=draw), torch.rand(2, count, 3, generator=draw)
    payload = (torch.rand(2, count, 2, 4, generator=draw),)
    return Slots(payload, index, index + 1, score, score + 1, score[..., 0], index > 4, NAMES)


def read(count: int, seed: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Payload, tokens and positions of slots that were just read."""
    new = slots(count, seed)
    return new.payload, new.tokens, new.positions


def same(ours: Slots, theirs: Slots) -> bool:
    """Whether all tensors are equal."""
    return all(torch.equal(x, theirs.state_dict()[name]) for name, x in ours.state_dict().items())


@given(st.integers(0, 5), st.integers(0, 9), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99)), max_size=12))
def test_appending_to_any_earlier_buffer_equals_concatenation(first, spare, steps):
    """Each step appends to the buffer that it names: often to one that was appended to before, and beyond its room."""
    start = slots(first, 0)
    buffers, wanted = [SlotBuffer.from_slots(start, spare)], [start]
    for seed, (count, parent) in enumerate(steps, 1):
        new, parent = read(count, seed), parent % len(buffers)
        buffers.append(buffers[parent].append(*new))
        wanted.append(concatenate(wanted[parent], Slots.without_scores(*new, NAMES)))
    assert all(same(ours.slots, theirs) for ours, theirs in zip(buffers, wanted, strict=True))


def test_earlier_slots_are_not_copied_while_there_is_room():
    first = SlotBuffer.from_slots(slots(3, 0), 4)
    after = first.append(*read(2, 1)).append(*read(2, 2))
    assert after.slots.payload[0].data_ptr() == first.slots.payload[0].data_ptr()
    assert after.append(*read(1, 3)).slots.payload[0].data_ptr() != first.slots.payload[0].data_ptr()

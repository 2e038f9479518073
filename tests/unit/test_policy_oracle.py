"""The policy that looks ahead, against lists, and its refusal by recipes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.memory import naive
from vqmem.memory.policies.oracle import Policy
from vqmem.memory.policy import Guard, select
from vqmem.memory.slots import Slots
from vqmem.recipes.lm.strategies import strategies


@given(
    text=st.lists(st.integers(0, 6), min_size=2, max_size=40),
    read=st.integers(1, 40),
    keep=st.integers(0, 12),
    sinks=st.integers(0, 2),
    recent=st.integers(0, 3),
)
@settings(max_examples=150)
def test_it_keeps_the_tokens_that_come_again_soonest(text, read, keep, sinks, recent):
    read = min(read, len(text))
    policy, tokens = Policy(tuple(text)), torch.tensor(text[:read])[None]
    zeros = torch.zeros(1, read)
    slots = Slots(
        (), tokens, torch.arange(read)[None], zeros[..., None], zeros[..., None], zeros, tokens >= 0, ("rarity",)
    )
    got = select(slots, policy, min(keep, read), torch.tensor([read]), Guard(sinks, recent))[0].tolist()
    row = [naive.Slot(token, position) for position, token in enumerate(text[:read])]
    assert got == naive.select(row, policy, naive.oracle, min(keep, read), read, sinks, recent)


def test_recipes_refuse_it():
    with pytest.raises(ValueError, match="'cheat': policy 'oracle' looks ahead, which no model can"):
        strategies({"cheat": {"policy": "oracle"}})

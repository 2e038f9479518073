"""What every policy that looks at attention or keys must do, for all found by listing, against lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem import registry
from vqmem.memory import naive
from vqmem.memory.bank import Memory
from vqmem.memory.policy import ForwardStats, Observer, observe

OBSERVERS = [
    name for name in registry.names("policies") if set(registry.load("policies", name)().requires) - {"scores"}
]
TOLD = [name for name in OBSERVERS if name in naive.OBSERVATIONS]
VARIANTS = {"lru": {"top": 2}, "lfu": {"top": 2}, "snapkv": {"window": 4, "kernel": 3}}


def build(name: str):
    return registry.build("policies", {"name": name, **VARIANTS.get(name, {})})


def a_pass(seed: int, rows: int, held: int, new: int, last: int | None = None) -> tuple[torch.Tensor, Seen]:
    """Usage so far and a pass over ``new`` tokens, some of them padding, that saw themselves and those before."""
    generator = torch.Generator().manual_seed(seed)
    usage = torch.cat([torch.rand(rows, held, generator=generator) * 3, torch.zeros(rows, new)], dim=1)
    valid = torch.rand(rows, new, generator=generator) < 0.8
    visible = torch.ones(new, held + new, dtype=torch.bool).tril(held)
    visible = visible & torch.cat([torch.rand(rows, held, generator=generator) < 0.8, valid], dim=1)[:, None]
    weights = torch.randn(rows, new, held + new, generator=generator).exp() * visible
    weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-9)
    positions = (held + valid.cumsum(1) - 1).clamp(min=0)
    last = new if last is None else min(new, last)
    return usage, ForwardStats(
        positions, valid, weights[:, new - last :], torch.rand(rows, new, generator=generator) + 1
    )


@pytest.mark.parametrize("name", TOLD)
@given(seed=st.integers(0, 10_000), held=st.integers(0, 7), new=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_what_is_noted_agrees_with_lists(name, seed, held, new):
    policy = build(name)
    usage, seen = a_pass(seed, 3, held, new)
    _, shown = a_pass(seed, 3, held, new, policy.queries if isinstance(policy, Observer) else None)
    got = observe(policy, usage, shown)
    for row in range(3):
        queries = [
            naive.Query(int(p), w.tolist(), float(n), bool(v))
            for p, w, n, v in zip(seen.positions[row], seen.weights[row], seen.norms[row], seen.valid[row], strict=True)
        ]
        wanted = naive.OBSERVATIONS[name](policy, usage[row].tolist(), queries)
        torch.testing.assert_close(got[row], torch.tensor(wanted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", OBSERVERS)
@given(seed=st.integers(0, 10_000), held=st.integers(0, 7), new=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_rows_do_not_matter_to_others(name, seed, held, new):
    policy = build(name)
    usage, seen = a_pass(seed, 4, held, new)
    together = observe(policy, usage, seen)
    for row in range(4):
        alone = observe(policy, usage[row : row + 1], ForwardStats(*(x[row : row + 1] for x in seen)))
        torch.testing.assert_close(alone[0], together[row])


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_pass_over_padding_alone_changes_nothing_for_held_slots(name):
    usage, seen = a_pass(0, 2, 5, 3)
    nothing = seen._replace(valid=torch.zeros_like(seen.valid))
    torch.testing.assert_close(observe(build(name), usage, nothing)[:, :5], usage[:, :5])


@pytest.mark.parametrize("name", OBSERVERS)
def test_the_memory_shows_it_what_was_appended(name):
    memory = Memory(6, build(name))
    tokens = torch.randint(9, (2, 4))
    positions = torch.arange(4).expand(2, -1)
    state = memory.empty((torch.zeros(2, 0, 1),))
    state = memory.append(state, (torch.zeros(2, 4, 1),), tokens, positions, torch.zeros(2, 4, 3), tokens >= 0)
    _, seen = a_pass(3, 2, 0, 4)
    noted = memory.observe(state, seen)
    assert torch.equal(noted.slots.usage, observe(memory.policy, state.slots.usage, seen))
    assert torch.equal(noted.slots.positions, state.slots.positions)

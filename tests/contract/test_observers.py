"""The contract of policies that need attention or keys, for every one in the folder, against lists."""

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
WITH_ORACLE = [name for name in OBSERVERS if name in naive.OBSERVATIONS]
VARIANTS = {"lru": {"top": 2}, "lfu": {"top": 2}, "snapkv": {"window": 4, "kernel": 3}}


def build(name: str):
    return registry.build("policies", {"name": name, **VARIANTS.get(name, {})})


def random_pass(
    seed: int, rows: int, cached: int, new: int, last: int | None = None
) -> tuple[torch.Tensor, ForwardStats]:
    """Usage so far and the statistics of a causal pass over ``new`` tokens, some of them padding."""
    generator = torch.Generator().manual_seed(seed)
    usage = torch.cat([torch.rand(rows, cached, generator=generator) * 3, torch.zeros(rows, new)], dim=1)
    valid = torch.rand(rows, new, generator=generator) < 0.8
    visible = torch.ones(new, cached + new, dtype=torch.bool).tril(cached)
    visible = visible & torch.cat([torch.rand(rows, cached, generator=generator) < 0.8, valid], dim=1)[:, None]
    weights = torch.randn(rows, new, cached + new, generator=generator).exp() * visible
    weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-9)
    positions = (cached + valid.cumsum(1) - 1).clamp(min=0)
    last = new if last is None else min(new, last)
    return usage, ForwardStats(
        positions, valid, weights[:, new - last :], torch.rand(rows, new, generator=generator) + 1
    )


@pytest.mark.parametrize("name", WITH_ORACLE)
@given(seed=st.integers(0, 10_000), cached=st.integers(0, 7), new=st.integers(1, 9))
@settings(max_examples=40)
def test_the_usage_agrees_with_lists(name, seed, cached, new):
    policy = build(name)
    usage, stats = random_pass(seed, 3, cached, new)
    _, needed = random_pass(seed, 3, cached, new, policy.queries if isinstance(policy, Observer) else None)
    got = observe(policy, usage, needed)
    for row in range(3):
        queries = [
            naive.Query(int(p), w.tolist(), float(n), bool(v))
            for p, w, n, v in zip(
                stats.positions[row], stats.weights[row], stats.norms[row], stats.valid[row], strict=True
            )
        ]
        wanted = naive.OBSERVATIONS[name](policy, usage[row].tolist(), queries)
        torch.testing.assert_close(got[row], torch.tensor(wanted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", OBSERVERS)
@given(seed=st.integers(0, 10_000), cached=st.integers(0, 7), new=st.integers(1, 9))
@settings(max_examples=25)
def test_the_usage_does_not_depend_on_other_rows(name, seed, cached, new):
    policy = build(name)
    usage, stats = random_pass(seed, 4, cached, new)
    together = observe(policy, usage, stats)
    for row in range(4):
        alone = observe(policy, usage[row : row + 1], ForwardStats(*(x[row : row + 1] for x in stats)))
        torch.testing.assert_close(alone[0], together[row])


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_pass_over_padding_alone_does_not_change_cached_slots(name):
    usage, stats = random_pass(0, 2, 5, 3)
    nothing = stats._replace(valid=torch.zeros_like(stats.valid))
    torch.testing.assert_close(observe(build(name), usage, nothing)[:, :5], usage[:, :5])


@pytest.mark.parametrize("name", OBSERVERS)
def test_the_memory_lets_the_policy_observe_appended_tokens(name):
    memory = Memory(6, build(name))
    tokens = torch.randint(9, (2, 4))
    positions = torch.arange(4).expand(2, -1)
    state = memory.empty((torch.zeros(2, 0, 1),))
    state = memory.append(state, (torch.zeros(2, 4, 1),), tokens, positions, torch.zeros(2, 4, 0), tokens >= 0)
    _, stats = random_pass(3, 2, 0, 4)
    observed = memory.observe(state, stats)
    assert torch.equal(observed.slots.usage, observe(memory.policy, state.slots.usage, stats))
    assert torch.equal(observed.slots.positions, state.slots.positions)

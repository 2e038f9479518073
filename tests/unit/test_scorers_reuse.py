"""The reuse scorer: its inputs from the past and targets from the future, against slow loops; and that it learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vqmem.models.occurrences import State, comes_again, look_back
from vqmem.models.scorers.reuse import Scorer

VOCAB = 5
rows = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=12, max_size=12), min_size=1, max_size=3)


def empty(batch: int) -> State:
    none = torch.zeros(batch, 0)
    seen = torch.zeros(batch, VOCAB, dtype=torch.int32)
    return State(none, none, torch.zeros(batch, dtype=torch.long), seen, seen)


@given(rows, st.integers(0, 12))
def test_what_was_seen_is_what_a_loop_counts(tokens, cut):
    ids = torch.tensor(tokens)
    state, gaps, counts = empty(len(ids)), [], []
    for part in (ids[:, :cut], ids[:, cut:]):
        gap, count, seen = look_back(part, state)
        state = State(state.h, state.c, state.time + part.shape[1], *seen)
        gaps.append(gap)
        counts.append(count)
    for row, (gap, count) in enumerate(zip(torch.cat(gaps, 1).tolist(), torch.cat(counts, 1).tolist(), strict=True)):
        for place, token in enumerate(tokens[row]):
            before = [i for i in range(place) if tokens[row][i] == token]
            assert gap[place] == (place - before[-1] if before else 0)
            assert count[place] == len(before)


@given(rows, st.integers(1, 12), st.data())
def test_what_comes_again_is_what_a_loop_finds(tokens, horizon, data):
    mask = data.draw(st.lists(st.booleans(), min_size=12, max_size=12))
    found = comes_again(torch.tensor(tokens), torch.tensor([mask] * len(tokens)), horizon)
    for row, line in enumerate(tokens):
        for place in range(12):
            if mask[place]:
                ahead = range(place + 1, min(12, place + 1 + horizon))
                assert found[row, place] == any(mask[i] and line[i] == line[place] for i in ahead)


def test_it_learns_which_tokens_come_again():
    """Of tokens that are as frequent, those below 50 come in pairs 20 apart, the others are never the same twice."""
    torch.manual_seed(0)
    model = Scorer(dim=8, hidden=16, horizon=32, dropout=0.0).build(2000)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.stack([torch.randperm(50, generator=generator)[:20] for _ in range(8)])
        once = 50 + torch.stack([torch.randperm(1950, generator=generator)[:88] for _ in range(8)])
        return torch.cat([once[:, :44], pairs, pairs, once[:, 44:]], 1)

    for seed in range(60):
        tokens = draw(seed)
        loss, _ = model.training_step(tokens, model.initial_state(8), torch.ones_like(tokens).bool())
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
    tokens = draw(1000)
    surprise = model.unigram.rarity(tokens) - model.score(tokens, model.initial_state(8))[0][..., 0]
    assert surprise[:, 44:64].mean() < 0.5 * surprise[:, :44].mean()


def test_the_horizon_must_end_within_the_segment():
    torch.manual_seed(0)
    model = Scorer(horizon=4, dropout=0.0).build(VOCAB)
    tokens = torch.tensor([[0, 1, 0, 2, 3, 4, 1, 2]])
    loss, _ = model.training_step(tokens, model.initial_state(1), torch.ones_like(tokens).bool())
    # Of the first four tokens, whose four next are there, 0 comes again, and 2; 1 is five away.
    assert loss.metrics["share that comes again"] == 0.5


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_refuses_what_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Scorer(**wrong)


def test_its_report_says_how_good_it_is():
    """Cross-entropy below that of the share alone where there is something to know, and nothing where nothing ends."""
    torch.manual_seed(0)
    model = Scorer(dim=8, hidden=16, horizon=8, dropout=0.0).build(100)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    tokens = torch.cat([torch.arange(8).repeat(8, 4), 8 + torch.stack([torch.randperm(92)[:32] for _ in range(8)])], 1)
    mask = torch.ones_like(tokens).bool()
    for _ in range(40):
        loss, _ = model.training_step(tokens, model.initial_state(8), mask)
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
    report = model.report(tokens, mask)
    assert report["again"] == pytest.approx(24 / 56)
    assert report["base"] == pytest.approx(0.683, abs=1e-3)
    assert report["cross_entropy"] < 0.3 * report["base"]
    assert model.report(tokens[:, :1], mask[:, :1]) == {}

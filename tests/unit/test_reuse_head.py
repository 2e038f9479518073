"""The VQ-LM with the head that predicts which tokens come again: against a loop, beside one without it, in use."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from vqmem.memory.huggingface.presets import STREAM, build_preset
from vqmem.memory.policy import require_signals
from vqmem.memory.scorer import policy_of, signals_of
from vqmem.models.scorers.reuse import Scorer as Reuse
from vqmem.models.vq_lm import VQLM, VQLMConfig
from vqmem.registry import build

VOCAB = 20
PLAIN = VQLMConfig(vocab_size=VOCAB, dim=8, hidden=12, codes=6)
WITH_REUSE = dataclasses.replace(PLAIN, reuse=True, horizon=8)


def make(config: VQLMConfig) -> VQLM:
    torch.manual_seed(0)
    return VQLM(config)


@torch.no_grad()
def test_the_signal_is_that_of_a_loop_over_tokens():
    model, tokens = make(WITH_REUSE), torch.randint(6, (1, 40), generator=torch.Generator().manual_seed(0))
    assert model.reuse is not None
    model.reuse.unigram.counts += torch.arange(VOCAB)
    found, _ = model.score(tokens, model.initial_state(1))
    cell = nn.LSTMCell(8, 12)
    cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh = model.lstm.all_weights[0]
    state, read = (torch.zeros(1, 12), torch.zeros(1, 12)), []
    for t, token in enumerate(tokens[0].tolist()):
        embedded = model.embed(torch.tensor([token]))
        hidden, _ = cell(model.quantiser.look(embedded)[0], state)
        state = cell(embedded, state)
        gap = next((1 + (t - back).bit_length() - 1 for back in reversed(range(t)) if read[back] == token), 0)
        places = model.reuse.gaps(torch.tensor([gap])), model.reuse.counts(torch.tensor([min(7, read.count(token))]))
        odds = model.reuse.head(torch.cat([embedded, *places, hidden], 1)).item()
        frequency = (1 + token) / (VOCAB + sum(range(VOCAB)))
        wanted = torch.tensor(odds).sigmoid().log() - torch.tensor(frequency).log()
        assert found[0, t, 3].item() == pytest.approx(wanted.item(), abs=1e-5)
        read.append(token)


def test_without_the_head_nothing_changes():
    plain, other = make(PLAIN), make(WITH_REUSE)
    assert {name for name in other.state_dict() if name not in plain.state_dict()} == {
        name for name in other.state_dict() if name.startswith("reuse.")
    }
    other.load_state_dict(plain.state_dict(), strict=False)
    tokens = torch.randint(VOCAB, (2, 16))
    ours, theirs = (model.score(tokens, model.initial_state(2))[0] for model in (plain, other))
    assert torch.equal(ours, theirs[..., :3])
    assert (ours.shape[2], theirs.shape[2]) == (3, 4)
    assert len(plain.initial_state(2)) == 2


def test_it_learns_which_tokens_come_again_beside_reconstruction():
    """Of tokens that are as frequent, those below 10 come in pairs 4 apart, the others are never the same twice."""
    model = make(dataclasses.replace(WITH_REUSE, vocab_size=400))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.stack([torch.randperm(10, generator=generator)[:4] for _ in range(8)])
        once = 10 + torch.stack([torch.randperm(390, generator=generator)[:24] for _ in range(8)])
        return torch.cat([once[:, :8], pairs, pairs, once[:, 8:]], 1)

    mask = torch.ones(8, 32, dtype=torch.bool)
    for seed in range(80):
        loss, _ = model.training_step(draw(seed), model.initial_state(8), mask)
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
    assert {"again", "surprise"} < loss.metrics.keys()
    tokens = draw(1000)
    assert model.reuse is not None
    surprise = model.reuse.unigram.rarity(tokens) - model.score(tokens, model.initial_state(8))[0][..., 3]
    assert surprise[:, 8:12].mean() < 0.5 * surprise[:, :8].mean()
    report = model.report(tokens)
    assert report["cross_entropy"] < report["base"]
    assert {"surprise", "rarity", "gain", "reuse", "again"} < report.keys()


def test_the_report_is_the_cross_entropy_of_the_log_odds():
    model, tokens = make(WITH_REUSE), torch.randint(6, (2, 30))
    assert model.reuse is not None
    odds = torch.linspace(-4, 4, 60).view(2, 30)
    report = model.reuse.report(tokens, model.reuse.signal(tokens, odds), torch.ones_like(tokens, dtype=torch.bool))
    losses = [
        F.binary_cross_entropy_with_logits(odds[b, t], (tokens[b, t + 1 : t + 9] == tokens[b, t]).any().float())
        for b in range(2)
        for t in range(22)
    ]
    assert report["cross_entropy"] == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)


def test_policies_and_presets_weigh_its_signal():
    for spec in ({"name": "vq_lm"}, {"name": "vq_lm", "reuse": True}):
        scorer = build("scorers", spec)
        model = scorer.build(30)
        assert (signals_of(scorer), policy_of(scorer)) == (signals_of(model), policy_of(model))
        require_signals(build("policies", policy_of(scorer)), model)
    assert policy_of(scorer) == Reuse.policy
    assert build_preset(STREAM, model).reuse == 1.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("fields", "named"), [({"horizon": 0}, "horizon=0 is"), ({"frame_dim": 3}, "leave reuse or frame_dim out")]
)
def test_what_it_cannot_be_is_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(WITH_REUSE, **fields)

"""What the VQ-LM promises: the two ends of the rate, the codes, the codebook at rest, what it reports."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vqmem.models.quantiser import usage
from vqmem.models.vq_lm import VQLM, VQLMConfig

VOCAB = 20
KINDS = ("vq", "residual", "product", "fsq")


SMALL = VQLMConfig(vocab_size=VOCAB, dim=16, hidden=24, codes=6)


def make(**changes) -> VQLM:
    torch.manual_seed(0)
    return VQLM(dataclasses.replace(SMALL, **changes))


def train(model: VQLM, tokens: torch.Tensor, steps: int):
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    loss = None
    for _ in range(steps):
        loss, _ = model.training_step(tokens, model.initial_state(len(tokens)), torch.ones(tokens.shape[:2]).bool())
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
    assert loss is not None
    return loss


def test_one_code_is_plain_surprisal():
    # With one code the reconstruction is a function of the past alone: probabilities of all tokens sum to 1.
    model = make(codes=1)
    train(model, torch.randint(VOCAB, (4, 16)), 5)
    past, total = torch.randint(VOCAB, (1, 9)), 0.0
    for token in range(VOCAB):
        scores, _ = model.score(torch.cat([past, torch.tensor([[token]])], 1), model.initial_state(1))
        total += math.exp(-scores[0, -1, 0].item())
    assert total == pytest.approx(1, abs=1e-4)
    code = model.quantiser.look(model.embed.weight)[0][:1]
    cell = nn.LSTMCell(16, 24)
    cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh = model.lstm.all_weights[0]
    _, (h, c) = model.score(past, model.initial_state(1))
    logits = F.linear(model.head(cell(code, (h, c))[0]), model.embed.weight, model.bias)
    scores, _ = model.score(torch.cat([past, torch.tensor([[3]])], 1), model.initial_state(1))
    assert scores[0, -1, 0].item() == pytest.approx(-logits.log_softmax(-1)[0, 3].item(), abs=1e-5)


def test_residual_falls_to_nothing_with_as_many_codes_as_tokens():
    tokens = torch.randint(VOCAB, (8, 32), generator=torch.Generator().manual_seed(3))
    residuals = []
    for codes in (1, 5, VOCAB):
        model = make(codes=codes)
        train(model, tokens, 60)
        fresh = torch.randint(VOCAB, (8, 64), generator=torch.Generator().manual_seed(4))
        residuals.append(model.report(fresh)["residual"])
    assert residuals[0] > residuals[1] > residuals[2]
    assert residuals[0] > math.log2(VOCAB) - 0.5
    assert residuals[2] < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_token_of_a_document_gains_nothing(kind):
    scores, _ = make(quantiser=kind).score(torch.randint(VOCAB, (3, 5)), make().initial_state(3))
    torch.testing.assert_close(scores[:, 0, 2], torch.zeros(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_depend_on_the_token_alone(kind):
    model = make(quantiser=kind)
    tokens = torch.randint(VOCAB, (3, 11))
    codes = model.codes(tokens)
    assert codes.shape == ((3, 11, 2) if kind in ("residual", "product") else (3, 11))
    assert torch.equal(codes, model.codes(torch.arange(VOCAB).unsqueeze(0))[0][tokens])
    assert codes.min() >= 0
    assert codes.max() < max(model.quantiser.sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_the_codebook_and_looking_does_not(kind):
    model, tokens = make(quantiser=kind), torch.randint(VOCAB, (3, 11))

    def books():
        return {key: value.clone() for key, value in model.quantiser.state_dict().items()}

    start = books()
    model.train()
    model.score(tokens, model.initial_state(3))
    model.codes(tokens)
    model.report(tokens)
    assert all(torch.equal(value, start[key]) for key, value in books().items())
    assert model.quantiser.training
    model.training_step(tokens, model.initial_state(3), torch.ones_like(tokens).bool())
    moved = any(not torch.equal(value, start[key]) for key, value in books().items())
    assert moved == (kind != "fsq")  # whose grid is fixed


@pytest.mark.parametrize("kind", KINDS)
def test_more_codes_than_tokens_do_no_harm(kind):
    model = make(quantiser=kind, codes=3 * VOCAB, levels=(8, 8))
    loss = train(model, torch.randint(VOCAB, (2, 9)), 2)
    assert loss.value.isfinite()
    assert loss.metrics["dead_codes"] > 0


@pytest.mark.parametrize("on_cpu", [True, False])
def test_dead_codes_come_back_to_life(on_cpu, monkeypatch):
    monkeypatch.setattr(Tensor, "is_cpu", on_cpu, raising=False)  # elsewhere nothing may be counted
    model = make(codes=6, dead_below=0.5, decay=0.5)
    for name, buffer in model.quantiser.named_buffers():
        if name.endswith(("embed", "embed_avg")):
            buffer[:, 1:] = 100.0  # where no token is
    tokens = torch.arange(VOCAB).repeat(2, 1)
    assert model.report(tokens)["codes_used"] == 1
    train(model, tokens, 30)
    assert model.report(tokens)["codes_used"] >= 5


@pytest.mark.parametrize("on_cpu", [True, False])
def test_usage_counts_by_hand(on_cpu, monkeypatch):
    monkeypatch.setattr(Tensor, "is_cpu", on_cpu, raising=False)
    codes = torch.tensor([[0, 1], [0, 1], [2, 0], [2, 1]])
    figures = usage(codes, (4, 2))
    assert figures["rate"] == pytest.approx(1.5)
    assert figures["codes_used"] == 4
    assert figures["dead_codes"] == 2


def test_report_of_documents():
    model = make()
    tokens, mask = torch.randint(VOCAB, (2, 30)), torch.ones(2, 30).bool()
    mask[1, 10:] = False
    figures = model.report(tokens, mask)
    scores = torch.cat([model.score(tokens, model.initial_state(2))[0][mask]])
    assert figures["surprise"] == pytest.approx(scores[:, 0].mean().item(), abs=1e-5)
    assert figures["residual"] == pytest.approx(figures["surprise"] / math.log(2))
    assert figures["codes_used"] + figures["dead_codes"] == 6
    assert 0 <= figures["rate"] <= math.log2(6)
    with pytest.raises(ValueError, match="at least one"):
        model.report(tokens, mask & False)


@pytest.mark.parametrize("cutoffs", [(3,), (2, 5, 9)])
def test_probabilities_of_all_classes_sum_to_one(cutoffs):
    model = make(codes=1, cutoffs=cutoffs)
    model.rank_by(torch.tensor([3, 9, 9, 0] * 5))
    scores, _ = model.score(torch.arange(VOCAB).unsqueeze(1), model.initial_state(VOCAB))
    torch.testing.assert_close((-scores[:, 0]).exp().sum(0)[:2], torch.ones(2))


def test_ranks_are_by_count_and_the_rarest_stand_among_the_unseen():
    model = make(vocab_size=5, cutoffs=(2,))
    assert model.rank.tolist() == [0, 1, 2, 3, 4]
    model.rank_by(torch.tensor([0, 4, 1, 4, 9]))
    assert model.rank.tolist() == [3, 1, 4, 2, 0]


def test_cutoffs_past_the_vocabulary_leave_the_softmax_full():
    full, cut = make().state_dict(), make(cutoffs=(VOCAB, 5 * VOCAB)).state_dict()
    assert all(torch.equal(full[key], cut[key]) for key in full | cut)


@pytest.mark.parametrize("cutoffs", [(0, 3), (5, 5), (9, 2), (-1,)])
def test_bad_cutoffs_are_refused(cutoffs):
    with pytest.raises(ValueError, match=rf"cutoffs are ranks of 1 or more that rise.*{re.escape(str(cutoffs))}$"):
        make(cutoffs=cutoffs)
    with pytest.raises(ValueError, match="frames have none"):
        make(cutoffs=(3,), frame_dim=2)


def test_an_empty_mask_is_refused():
    tokens = torch.randint(VOCAB, (2, 5))
    with pytest.raises(ValueError, match="no token"):
        make().training_step(tokens, make().initial_state(2), torch.zeros(2, 5).bool())


def test_frames_are_scored_and_learnt():
    model = make(frame_dim=3, codes=4)
    means = torch.randn(4, 3) * 3
    frames = means[torch.randint(4, (8, 20))] + 0.1 * torch.randn(8, 20, 3)
    before = model.report(frames)
    train(model, frames, 80)
    after = model.report(frames)
    assert after["surprise"] < before["surprise"] - 1
    assert model.codes(frames).shape == (8, 20)
    scores, _ = model.score(frames, model.initial_state(8))
    assert scores.shape == (8, 20, 3)


def test_double_precision_state_and_empty_streams():
    model = make().double()
    scores, state = model.score(torch.zeros(2, 0, dtype=torch.long), model.initial_state(2))
    assert scores.shape == (2, 0, 3)
    assert scores.dtype == torch.float64
    assert state[0].shape == (2, 24)

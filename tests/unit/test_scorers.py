"""What single scorers promise beyond the contract: unigram, LSTM-LM, masked LM, random."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from vqmem.registry import build


def step(model, tokens):
    return model.training_step(tokens, model.initial_state(len(tokens)), torch.ones_like(tokens).bool())


def test_unigram_is_the_smoothed_frequency():
    model = build("scorers", "unigram").build(4)
    tokens = torch.tensor([[0, 0, 0, 1], [0, 2, 1, 0]])
    loss, _ = step(model, tokens)
    assert loss.value.item() == pytest.approx(math.log(4))
    scores, _ = model.score(torch.tensor([[0, 1, 2, 3]]), model.initial_state(1))
    wanted = -torch.tensor([6 / 12, 3 / 12, 2 / 12, 1 / 12]).log()
    torch.testing.assert_close(scores[0, :, 0], wanted)
    assert scores.shape[2] == 1, "no columns of zeros beside the rarity"


def test_lstm_lm_is_the_surprisal_of_a_plain_loop():
    torch.manual_seed(0)
    model = build("scorers", {"name": "lstm_lm", "dim": 8, "hidden": 12}).build(9)
    tokens = torch.randint(9, (2, 7))
    h = c = torch.zeros(1, 2, 12)
    wanted = []
    for t in range(7):
        logits = model.head(h[0]) @ model.embed.weight.t() + model.bias
        wanted.append(F.cross_entropy(logits, tokens[:, t], reduction="none"))
        h, c = model.lstm(model.embed(tokens[:, t : t + 1]), (h, c))[1]
    scores, _ = model.score(tokens, model.initial_state(2))
    torch.testing.assert_close(scores[..., 0], torch.stack(wanted, 1), rtol=0, atol=1e-5)


def test_masked_lm_hides_each_token_behind_the_mask():
    torch.manual_seed(0)
    model = build("scorers", {"name": "masked_lm", "dim": 8, "hidden": 12}).build(9)
    tokens = torch.randint(9, (2, 7))
    for t in range(7):
        read = tokens[:, : t + 1].clone()
        read[:, t] = 9
        hidden = model.lstm(model.embed(read.t()))[0][-1]
        logits = model.head(hidden) @ model.embed.weight[:9].t() + model.bias
        wanted = F.cross_entropy(logits, tokens[:, t], reduction="none")
        scores, _ = model.score(tokens, model.initial_state(2))
        torch.testing.assert_close(scores[:, t, 0], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm_lm", "masked_lm"])
def test_controls_take_rarity_from_counts(name):
    model = build("scorers", name).build(5)
    tokens = torch.tensor([[0, 0, 0, 1]])
    step(model, tokens)
    rarity = model.score(tokens, model.initial_state(1))[0][0, :, 1]
    torch.testing.assert_close(rarity, -torch.tensor([4 / 9, 4 / 9, 4 / 9, 2 / 9]).log())


def test_noise_is_exponential_and_its_signals_independent():
    model = build("scorers", "random").build(7)
    scores, _ = model.score(torch.randint(7, (4, 5000)), model.initial_state(4))
    surprise, rarity, _ = scores.flatten(0, 1).unbind(-1)
    for noise in (surprise, rarity):
        assert noise.mean().item() == pytest.approx(1, abs=0.03)
        assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert abs(torch.corrcoef(torch.stack([surprise, rarity]))[0, 1]) < 0.03
    assert abs(torch.corrcoef(torch.stack([surprise[1:], surprise[:-1]]))[0, 1]) < 0.03


def test_another_seed_is_other_noise():
    tokens = torch.zeros(1, 100, dtype=torch.long)
    a, b = (build("scorers", {"name": "random", "seed": seed}).build(7) for seed in (0, 1))
    assert not torch.allclose(*(m.score(tokens, m.initial_state(1))[0] for m in (a, b)))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"name": "unigram", "smoothing": 0}, "smoothing"),
        ({"name": "masked_lm", "corrupt": 0.0}, "corrupt"),
        ({"name": "masked_lm", "replace": 0.6}, "replace"),
        ({"name": "vq_lm", "quantiser": "kmeans"}, "vq, residual, product, fsq"),
        ({"name": "vq_lm", "codes": 0}, "codes = 0 must be at least 1"),
        ({"name": "vq_lm", "quantiser": "product", "groups": 3}, "3 slices"),
        ({"name": "vq_lm", "quantiser": "fsq", "levels": (2, 4)}, "levels"),
        ({"name": "vq_lm", "state_dropout": 1.0}, "state_dropout"),
        ({"name": "vq_lm", "hidden": 0}, "hidden"),
    ],
)
def test_bad_values_are_named(spec, said):
    with pytest.raises(ValueError, match=said):
        build("scorers", spec).build(16)

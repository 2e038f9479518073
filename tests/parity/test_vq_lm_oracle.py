"""The fast VQ-LM against a loop over `nn.LSTMCell` with the same weights, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from vqmem.models.lstm import FUSED_BELOW, run_twin_lstm
from vqmem.models.vq_lm import VQLM, VQLMConfig

VOCAB, DIM, HIDDEN = 23, 12, 16


def small(**changes) -> VQLM:
    torch.manual_seed(0)
    config = {"vocab_size": VOCAB, "dim": DIM, "hidden": HIDDEN, "codes": 5, "levels": (3, 3)}
    model = VQLM(VQLMConfig(**config | changes)).double()
    with torch.no_grad():  # off the small initial weights, so that gates saturate now and then
        for parameter in model.lstm.parameters():
            parameter.mul_(3)
        if not model.config.frame_dim:
            model.embed.weight.mul_(3)
        for log_variance in filter(lambda x: x is not None, (model.log_variance, model.blank_log_variance)):
            log_variance.normal_()
    model.rank_by(torch.arange(VOCAB) * 7 % VOCAB)  # an order other than that of the ids
    return model


def batch(model: VQLM, rows: int = 3, time: int = 50) -> torch.Tensor:
    shape = (rows, time)
    if model.config.frame_dim:
        return torch.randn(*shape, model.config.frame_dim, dtype=torch.float64)
    return torch.randint(VOCAB, shape)


def nll(model: VQLM, hidden: torch.Tensor, target: torch.Tensor, blank: bool = False) -> torch.Tensor:
    out = model.head(hidden)
    if model.log_variance is not None:
        log_variance = model.blank_log_variance if blank else model.log_variance
        normal = torch.distributions.Normal(out + model.bias, (log_variance / 2).exp())
        return -normal.log_prob(target).mean(-1)
    if model.softmax is not None:
        return torch.stack([class_nll(model.softmax, x, int(model.rank[i])) for x, i in zip(out, target, strict=True)])
    out = out @ model.embed.weight.t() + model.bias if model.tied else out + model.bias
    return F.cross_entropy(out, target, reduction="none")


def class_nll(softmax: nn.AdaptiveLogSoftmaxWithLoss, out: torch.Tensor, rank: int) -> torch.Tensor:
    """-log p of one token: of itself where it is frequent, else of its class and of itself in that."""
    first, head = softmax.cutoffs[0], softmax.head(out).log_softmax(-1)
    if rank < first:
        return -head[rank]
    number = sum(rank >= cutoff for cutoff in softmax.cutoffs) - 1
    narrow, wide = softmax.tail[number]
    return -head[first + number] - wide(narrow(out)).log_softmax(-1)[rank - softmax.cutoffs[number]]


def oracle(model: VQLM, tokens: torch.Tensor, state, straight_through: bool = False):
    """Section 5 of the design, read aloud: a cell step for the state, the reconstruction and the rarity."""
    cell = nn.LSTMCell(model.config.dim, model.config.hidden)
    cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh = model.lstm.all_weights[0]
    h, c = state
    scores = []
    for t in range(tokens.shape[1]):
        e = model.embed(tokens[:, t])
        if model.config.quantiser == "fsq":  # has no moving codebook, and trains its projections
            q = model.quantiser(e)[0]
        else:
            q = model.quantiser.look(e)[0]
            q = e + (q - e).detach() if straight_through else q
        with_state = nll(model, cell(q, (h, c))[0], tokens[:, t])
        without = nll(model, cell(q)[0], tokens[:, t], blank=True)
        scores.append(torch.stack([with_state, without, without - with_state], -1))
        h, c = cell(e, (h, c))
    return torch.stack(scores, 1), (h, c)


KINDS = [{"quantiser": kind} for kind in ("vq", "residual", "product", "fsq")]
CLASSES = {"cutoffs": (4, 11, VOCAB)}
"""Frequent tokens and two classes: the last cutoff is past the vocabulary, so it does not count."""
ROWS = [1, 3, FUSED_BELOW + 1]
"""A single stream; rows of several blocks of steps; more rows than go the fused way."""
VARIANTS = [*KINDS, {"tie": False}, {"frame_dim": 4}, {"hidden": DIM}, {"codes": 1}, CLASSES]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_scores_are_the_loops(changes, rows):
    model = small(**changes)
    tokens = batch(model, rows)
    h, c = torch.randn(2, rows, model.config.hidden, dtype=torch.float64)
    start = (h, c)
    fast, fast_state = model.score(tokens, start)
    slow, slow_state = oracle(model, tokens, start)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)
    torch.testing.assert_close(fast_state, slow_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_loss_and_gradients_are_the_loops(changes, rows):
    # Without commitment and dropout the loss is the mean surprise; the oracle reads the codebook before it moves.
    model = small(state_dropout=0.0, commitment=0.0, dead_below=0.0, **changes)
    tokens, start = batch(model, rows), model.initial_state(rows)
    mask = torch.rand(tokens.shape[:2]) < 0.8
    slow, _ = oracle(model, tokens, start, straight_through=True)
    loss = slow[..., 0][mask].mean()
    names, parameters = zip(*model.named_parameters(), strict=True)
    wanted = torch.autograd.grad(loss, parameters, materialize_grads=True)
    fast, _ = model.training_step(tokens, start, mask)
    torch.testing.assert_close(fast.value, loss, rtol=0, atol=1e-5)
    got = torch.autograd.grad(fast.value, parameters, materialize_grads=True)
    for name, a, b in zip(names, got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_dropped_state_trains_the_rarity():
    model = small(state_dropout=0.999999, commitment=0.0, dead_below=0.0)
    tokens = batch(model)
    rarity = oracle(model, tokens, model.initial_state(3))[0][..., 1].mean()
    loss, _ = model.training_step(tokens, model.initial_state(3), torch.ones_like(tokens).bool())
    torch.testing.assert_close(loss.value, rarity, rtol=0, atol=1e-5)
    assert loss.metrics["rarity"] == pytest.approx(rarity.item())


@given(
    cuts=st.sets(st.integers(1, 39), max_size=6),
    rows=st.integers(1, 2),
    changes=st.sampled_from([{}, {"frame_dim": 3}, CLASSES]),
)
@settings(max_examples=35)
def test_any_chunking_gives_the_same_scores(cuts, rows, changes):
    model = small(**changes)
    tokens, state = batch(model, rows, 40), model.initial_state(rows)
    full, last = model.score(tokens, state)
    parts = []
    for part in tokens.tensor_split(sorted(cuts), 1):
        scores, state = model.score(part, state)
        parts.append(scores)
    torch.testing.assert_close(torch.cat(parts, 1), full, rtol=0, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-5)


@given(place=st.integers(0, 19), token=st.integers(0, VOCAB - 1), changes=st.sampled_from([{}, CLASSES]))
@settings(max_examples=30)
def test_no_score_looks_ahead(place, token, changes):
    model = small(**changes)
    tokens = batch(model, 1, 20)
    changed = tokens.clone()
    changed[0, place] = token
    before, after = (model.score(x, model.initial_state(1))[0] for x in (tokens, changed))
    # Not bit for bit: how many distinct tokens a call sees decides the shape, so the rounding, of its products.
    torch.testing.assert_close(before[:, :place], after[:, :place], rtol=0, atol=1e-12)


def test_a_stream_longer_than_a_chunk_is_scored_in_bounded_pieces(monkeypatch):
    model = small()
    tokens = batch(model, 2, 50)
    full, _ = model.score(tokens, model.initial_state(2))
    monkeypatch.setattr("vqmem.models.vq_lm.CHUNK", 8)
    pieces, _ = model.score(tokens, model.initial_state(2))
    torch.testing.assert_close(pieces, full, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rows", [2, FUSED_BELOW + 1])
def test_gradients_of_weights_tables_and_state_are_the_slopes(rows, monkeypatch):
    monkeypatch.setattr("vqmem.models.lstm.BLOCK", 2 * rows)  # several blocks in few steps
    torch.manual_seed(0)
    lstm, index = nn.LSTM(2, 2).double(), torch.randint(3, (5, rows))
    shapes = [(3, 2), (3, 2), (rows, 2), (rows, 2)]
    start = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")

    def run(table, twins, h, c, *weights):
        lstm._parameters.update(zip(names, weights, strict=True))
        rebuilt, blank, state = run_twin_lstm(lstm, table, twins, index, (h, c))
        return rebuilt, blank, *state

    assert torch.autograd.gradcheck(run, (*start, *lstm.all_weights[0]), fast_mode=True)

"""Passages, segments and evaluation: nothing leaks between documents, and reading in any batch gives the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.data.base import Document, take_evenly
from vqmem.models.memory_transformer import TransformerConfig
from vqmem.recipes.lm.corpus import Passage, passages, segment_loader, sweep
from vqmem.recipes.lm.language_model import (
    LanguageModel,
    LanguageModelTask,
    Schedule,
    long_gap,
    read_passages,
    score_passages,
)
from vqmem.recipes.lm.strategies import strategies
from vqmem.registry import build

CHOICES = strategies(
    {
        "fifo": {"policy": "fifo"},
        "compressed": {"policy": "fifo", "compression": {"name": "pool", "rate": 2}},
        "used": {"policy": "fifo", "compression": {"name": "pool", "how": "most_used", "rate": 2}},
        "scored": {"policy": "scored"},
    }
)
CPU = torch.device("cpu")


def passage(length: int, seed: int) -> Passage:
    ids = torch.randint(0, 40, (length,), generator=torch.Generator().manual_seed(seed))
    return Passage(f"p{seed}", ids, torch.ones_like(ids), torch.zeros(length, dtype=torch.bool))


def models():
    torch.manual_seed(0)
    scorer = build("scorers", {"name": "vq_lm", "dim": 8, "hidden": 8, "codes": 4}).build(40)
    return LanguageModel(TransformerConfig(40, layers=2, dim=16, heads=2, shift=True), CHOICES), scorer


@given(st.lists(st.integers(2, 50), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=30)
def test_a_sweep_predicts_every_token_once(lengths, rows, segment):
    items = [passage(n, i) for i, n in enumerate(lengths)]
    seen = [[] for _ in items]
    for group, batch in sweep(items, rows, segment):
        for row, i in enumerate(group):
            seen[i] += batch.targets[row, batch.valid[row]].tolist()
    assert seen == [item.ids[1:].tolist() for item in items]


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=20)
def test_the_training_loader_resumes_and_shares_among_processes(seed, rows, world):
    items = [passage(3 + i, i) for i in range(9)]
    loaders = [segment_loader(items, rows, 4, seed, rank, world) for rank in range(world)]
    first = [{row[0] for row in loader.state_dict()["rows"]} for loader in loaders]
    if rows * world <= len(items):  # within an epoch no two rows of any process read the same passage
        assert sum(map(len, first)) == len(set().union(*first)) == rows * world
    loader = loaders[0]
    for _ in range(5):
        loader.next()
    state = loader.state_dict()
    wanted = [loader.next() for _ in range(4)]
    again = segment_loader(items, rows, 4, seed, 0, world)
    again.load_state_dict(state)
    for batch in wanted:
        assert all(torch.equal(a, b) for a, b in zip(batch, again.next(), strict=True))


@pytest.mark.parametrize("strategy", CHOICES, ids=lambda s: s.name)
def test_reading_side_by_side_is_reading_alone(strategy):
    """Other rows, their lengths and earlier documents change nothing: no memory leaks between documents."""
    model, scorer = models()
    items = [passage(n, i) for i, n in enumerate((37, 50, 12, 50))]
    memory = strategy.memory(8, Schedule(CHOICES, [8]).guard)
    scores = score_passages(scorer, items, 3, 8, CPU)
    together, most_bytes = read_passages(model, strategy, memory, items, scores, 3, 8)
    assert most_bytes > 0
    for i, item in enumerate(items):
        alone_scores = score_passages(scorer, [item], 1, 8, CPU)
        torch.testing.assert_close(alone_scores.values[0], scores.values[i], atol=1e-5, rtol=1e-5)
        here = scores._replace(values=scores.values[i : i + 1])
        alone, _ = read_passages(model, strategy, memory, [item], here, 1, 8)
        torch.testing.assert_close(alone[0].nll, together[i].nll, atol=1e-4, rtol=1e-4)
        assert alone[0].kept == together[i].kept
        assert len(alone[0].nll) == len(item.ids) - 1


def test_training_forgets_at_document_borders():
    """The loss of a row whose document begins does not depend on what the row read before."""
    model, scorer = models()
    task = LanguageModelTask(model, scorer, Schedule(CHOICES[3:], [8]), 1)
    fresh = passage(9, 5)
    losses = []
    for before in (1, 2):
        loader = segment_loader([passage(9, before)], 1, 8, 0)
        _, state = task.step(loader.next(), task.initial_state())
        loss, _ = task.step(segment_loader([fresh], 1, 8, 0).next(), state)
        losses.append(loss.value.item())
    assert losses[0] == losses[1]


def test_the_loss_outside_of_the_marks_has_its_weight():
    """The weighted mean of the losses: marks alone, with a weight of 0, and everything, with 1."""
    model, scorer = models()
    batch = segment_loader([passage(9, 5)], 1, 8, 0).next()
    batch = batch._replace(target_mask=torch.arange(8)[None] % 3 == 0)
    found = {}
    for weight in (0.0, 0.25, 1.0):
        task = LanguageModelTask(model, scorer, Schedule(CHOICES[:1], [8]), 1, off_target_weight=weight)
        found[weight] = task.step(batch, task.initial_state())[0].value.item()
    marked = batch.target_mask.sum().item()
    outside = (8 * found[1.0] - marked * found[0.0]) / (8 - marked)
    wanted = (marked * found[0.0] + 0.25 * (8 - marked) * outside) / (marked + 0.25 * (8 - marked))
    assert found[0.25] == pytest.approx(wanted, abs=1e-5)
    assert len(set(found.values())) == 3


def test_without_marks_the_weight_outside_of_them_changes_nothing():
    model, scorer = models()
    batch = segment_loader([passage(9, 5)], 1, 8, 0).next()
    tasks = [
        LanguageModelTask(model, scorer, Schedule(CHOICES[:1], [8]), 1, off_target_weight=weight)
        for weight in (0.05, 1.0)
    ]
    few, many = (task.step(batch, task.initial_state())[0].value.item() for task in tasks)
    assert few == pytest.approx(many, abs=1e-5)


def test_a_mixed_schedule_counts_attention_under_every_memory():
    """A memory that counts attention has the same sums after one that does not as after itself."""
    model, scorer = models()
    choices = strategies({"fifo": {"policy": "fifo"}, "h2o": {"policy": "h2o"}})
    usage = {}
    for seed in range(9):
        schedule, loader = Schedule(choices, [16], seed=seed), segment_loader([passage(17, 5)], 1, 8, 0)
        task = LanguageModelTask(model, scorer, schedule, 1)
        _, state = task.step(loader.next(), task.initial_state())
        usage[schedule.at(0)[0].name] = task.step(loader.next(), state)[1].memory.read().usage
    assert usage["fifo"].sum() > 0
    torch.testing.assert_close(usage["fifo"], usage["h2o"])


def test_a_mixed_schedule_draws_every_memory_and_holds_each():
    schedule = Schedule(CHOICES, [8, 16], resample_every=4, seed=3)
    drawn = [(strategy.name, memory.capacity) for strategy, memory in map(schedule.at, range(400))]
    assert len(set(drawn)) == 8
    assert all(drawn[i] == drawn[i - i % 4] for i in range(400))


def test_mixed_training_keeps_within_every_capacity():
    model, scorer = models()
    schedule = Schedule(CHOICES, [4, 12], resample_every=1, seed=1)
    task, state = LanguageModelTask(model, scorer, schedule, 2), None
    loader, state = segment_loader([passage(90, i) for i in range(3)], 2, 8, 0), task.initial_state()
    for step in range(12):
        loss, state = task.step(loader.next(), state)
        loss.value.backward()
        assert state.memory.read().count <= schedule.at(step)[1].capacity
        assert not state.memory.read().payload[0].requires_grad
    assert model.compressor(CHOICES[1]).weight.grad.abs().sum() > 0


def test_a_bias_on_scores_is_given_scores_under_any_policy():
    _, scorer = models()
    model = LanguageModel(TransformerConfig(40, layers=2, dim=16, heads=2, score_bias=True), CHOICES[:1])
    task = LanguageModelTask(model, scorer, Schedule(CHOICES[:1], [8]), 1)
    _, state = task.step(segment_loader([passage(9, 1)], 1, 8, 0).next(), task.initial_state())
    assert state.memory.slots.scores.abs().sum() > 0


def test_a_strategy_may_have_a_dot_in_its_name():
    compressed = strategies({"rate.2": {"policy": "fifo", "compression": {"name": "pool", "rate": 2}}})
    assert (
        LanguageModel(TransformerConfig(40, layers=2, dim=16, heads=2), compressed).compressor(compressed[0])
        is not None
    )


def test_long_gaps_are_rare_tokens_last_seen_out_of_reach():
    ids = torch.tensor([1, 2, 3, 1, 2, 9, 9, 9, 1])
    rare = torch.zeros(10, dtype=torch.bool)
    rare[1] = True
    assert long_gap(ids, rare, 2).nonzero()[:, 0].tolist() == [2, 7]  # predictions of ids[3] and ids[8]
    assert long_gap(ids, rare, 4).nonzero()[:, 0].tolist() == [7]


def test_passages_mark_answers_and_refuse_documents_without_anything_to_predict():
    tokenizer = build("front-ends", "bytes").fit([])
    cut = passages([Document("a", "abcdefg", ((2, 4),)), Document("b", "x")], tokenizer, 4)
    assert [item.name for item in cut] == ["a:0", "a:4"]
    assert cut[0].target_mask.tolist() == [False, False, True, True]
    assert not cut[1].target_mask.any()
    with pytest.raises(ValueError, match="two tokens"):
        passages([Document("b", "x")], tokenizer, 4)


def test_spread_takes_from_everywhere():
    items = [passage(3, i) for i in range(10)]
    assert [item.name for item in take_evenly(items, 5)] == ["p0", "p2", "p4", "p6", "p8"]
    assert len(take_evenly(items, None)) == len(take_evenly(items, 99)) == 10

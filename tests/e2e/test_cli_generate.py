"""Token by token is segment by segment: decoding reads as training did, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from vqmem.memory.policy import Guard
from vqmem.recipes._corpus import Passage
from vqmem.recipes._language_model import read_passages, score_passages
from vqmem.recipes.text_lm.generate import Sampling, generate, reader
from vqmem.recipes.text_lm.recipe import Run, load_run
from vqmem.registry import build

STRATEGIES = ["transformer_xl", "gain", "used"]


@pytest.fixture(scope="module")
def run(tiny_run) -> Run:
    run = load_run(tiny_run)
    torch.manual_seed(0)
    with torch.no_grad():  # large weights, so that what is in the memory matters
        for weights in run.model.transformer.parameters():
            weights.normal_(std=0.3)
    return run


@pytest.fixture
def ids(run) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(run.tokenizer.vocab_size, (90,), generator=generator)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("cut", [1, 5, 90])
def test_any_cut_gives_what_evaluation_gives(run, ids, strategy, cut):
    """The likelihoods of `read_passages`, which reads whole segments with hidden states, from a reader of pieces."""
    agrees_with_evaluation(run, ids, reader(run, strategy), cut)


@pytest.mark.parametrize("policy", ["h2o", "tova", "lru", "lfu", "knorm"])  # snapkv's window depends on the cut
@pytest.mark.parametrize("cut", [5, 90])
def test_what_a_policy_sees_of_attention_is_the_same_for_any_cut(run, ids, policy, cut):
    like = reader(run, "transformer_xl")
    strategy = replace(like.strategy, policy=build("policies", policy))
    agrees_with_evaluation(run, ids, replace(like, strategy=strategy, memory=strategy.memory(24, Guard(1, 4))), cut)


def agrees_with_evaluation(run, ids, ours, cut):
    item = Passage("x", ids, torch.ones_like(ids), torch.zeros_like(ids, dtype=torch.bool))
    scores = score_passages(run.scorer, [item], 1, run.config.segment, torch.device("cpu"))
    wanted, _ = read_passages(run.model, ours.strategy, ours.memory, [item], scores, 1, run.config.segment)
    reading, found = ours.start(), []
    for piece in ids[:-1].split(cut):
        logits, reading = ours.read(piece, reading)
        found.append(logits)
    ends = [min(end, 89) for end in range(cut, 89 + cut, cut)]
    nll = torch.stack([F.cross_entropy(x, ids[end]) for x, end in zip(found, ends, strict=True)])
    torch.testing.assert_close(nll, wanted[0].nll[[end - 1 for end in ends]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["transformer_xl", "gain"])
def test_both_kinds_of_memory_say_the_same(run, ids, strategy):
    greedy = Sampling(tokens=60, temperature=0.0)
    spoken = [list(generate(reader(run, strategy, remember=kind), ids, greedy)) for kind in ("hidden", "keys_values")]
    assert spoken[0] == spoken[1]
    assert len(set(spoken[0])) > 5, "a degenerate text tests nothing"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_does_not_grow(run, ids, strategy):
    ours = reader(run, strategy, capacity=24)
    sizes, reading = [], ours.start()
    for token in torch.cat([ids, ids]):
        _, reading = ours.read(token[None], reading)
        slots = reading.memory.read()
        assert slots.count <= 24
        assert reading.segment.count < run.config.segment
        sizes.append(reading.memory.nbytes + reading.segment.nbytes)
    assert max(sizes[90:]) <= max(sizes[:90])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda run: reader(run, "gian"), "unknown strategy 'gian'; did you mean gain?"),
        (lambda run: reader(run, capacity=0), "capacity=0; a memory needs at least 1 slot"),
        (
            lambda run: next(generate(reader(run), torch.zeros(0, dtype=torch.long), Sampling())),
            "the prompt has no token",
        ),
        (lambda run: Sampling(temperature=-1.0), "temperature = -1.0 must be 0 or more"),
        (lambda run: Sampling(tokens=-1), "tokens = -1 must be 0 or more"),
    ],
)
def test_refusals(run, make, told):
    with pytest.raises(ValueError, match="^" + told.replace("?", r"\?")):
        make(run)

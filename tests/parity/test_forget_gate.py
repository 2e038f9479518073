"""Forget gates in the memory transformer, against a plain loop over full documents in float64."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem import registry
from vqmem.memory.bank import Memory
from vqmem.memory.compression.pool import Compression as Pool
from vqmem.memory.huggingface.arguments import require_match
from vqmem.memory.policy import select
from vqmem.memory.slots import Slots, accrue_decay
from vqmem.models.attention import DECAY_TIMES
from vqmem.models.memory_transformer import MemoryTransformer, TransformerConfig
from vqmem.recipes.compare.recipe import Config as Comparison
from vqmem.recipes.engine import checkpoint
from vqmem.recipes.lm.corpus import Passage, SegmentBatch, segment_loader
from vqmem.recipes.lm.decoder import make_reader
from vqmem.recipes.lm.language_model import LanguageModel, LanguageModelTask, Schedule, write_segment
from vqmem.recipes.lm.strategies import strategies
from vqmem.recipes.text_lm.config import Config

CONFIG = TransformerConfig(vocab_size=19, layers=2, dim=16, heads=2, forget_gate=True)
ROWS, SEGMENT, SEGMENTS = 2, 5, 4
TIME = SEGMENT * SEGMENTS
CHOICES = strategies({name: {"policy": name} for name in ("fifo", "random", "forget_gate", "scored")})
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def make_model(config=CONFIG) -> LanguageModel:
    """Large weights, and gates that differ much from token to token."""
    torch.manual_seed(0)
    model = LanguageModel(config, CHOICES)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    for block in model.transformer.blocks:
        torch.nn.init.constant_(block.attention.forget_gate.bias, 1.5)
    return model


def make_scorer():
    torch.manual_seed(1)
    return registry.build("scorers", {"name": "vq_lm", "dim": 8, "hidden": 8, "codes": 4}).build(CONFIG.vocab_size)


def random_ids() -> torch.Tensor:
    return torch.randint(CONFIG.vocab_size, (ROWS, TIME), generator=torch.Generator().manual_seed(2))


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotate the heads of each token, ``[time, heads, width]``, by its position."""
    half = x.shape[2] // 2
    rates = CONFIG.rope_base ** (-torch.arange(half, dtype=x.dtype) / half)
    angles = torch.arange(len(x), dtype=x.dtype)[:, None, None] * rates
    a, b = x.split(half, dim=2)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], dim=2)


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt() * weight


def oracle(model: MemoryTransformer, document: torch.Tensor, sees, stopped: int = 0) -> torch.Tensor:
    """Logits of a full document, query by query; ``sees(t)`` are the positions that the query ``t`` attends to.

    No gradient flows into the hidden states and gates of the first ``stopped`` tokens, where they are attended to.
    """
    x, heads = model.embed.weight[document], CONFIG.heads
    for block in model.blocks:
        attention, gain = block.attention, block.attention_norm.weight
        states = torch.cat([x[:stopped].detach(), x[stopped:]])
        q = rotate((norm(x, gain) @ attention.query.weight.T).unflatten(1, (heads, -1)))
        k, v = (
            part.unflatten(1, (heads, -1)) for part in (norm(states, gain) @ attention.key_value.weight.T).chunk(2, 1)
        )
        k = rotate(k)
        gates = torch.sigmoid(norm(x, gain) @ attention.forget_gate.weight.T + attention.forget_gate.bias)
        log_gates = torch.cat([gates[:stopped].log().detach(), gates[stopped:].log()])
        mixed = []
        for t in range(len(document)):
            places = sees(t)
            decay = torch.stack([log_gates[s + 1 : t + 1].sum(0) for s in places])
            logits = (k[places] * q[t]).sum(2) / k.shape[2] ** 0.5 + decay
            mixed.append((logits.softmax(0)[..., None] * v[places]).sum(0).flatten())
        x = x + torch.stack(mixed) @ attention.out.weight.T
        first, last = block.feed_forward[0].weight, block.feed_forward[2].weight
        hidden = torch.nn.functional.gelu(norm(x, block.feed_forward_norm.weight) @ first.T, approximate="tanh")
        x = x + hidden @ last.T
    return norm(x, model.norm.weight) @ model.head.weight.T


def read(model, strategy, capacity, remember, starts=()):
    """Read `random_ids` in segments as training does; ``starts`` are the (row, segment) where a document begins.

    Returns the logits, the positions in memory of each row before each segment, and the final state.
    """
    ids, memory, scorer = random_ids(), Memory(capacity, strategy.policy), make_scorer()
    state = memory.empty(model.transformer.empty_payload(ROWS, remember), scorer.signals)
    positions, logits, kept, scored = torch.zeros(ROWS, dtype=torch.long), [], [], scorer.initial_state(ROWS)
    for i in range(SEGMENTS):
        is_start = torch.tensor([(row, i) in starts for row in range(ROWS)])
        positions, state = positions.masked_fill(is_start, 0), state.forget(is_start)
        slots, part = state.read(), ids[:, i * SEGMENT : (i + 1) * SEGMENT]
        kept.append([slots.positions[row][slots.valid[row]].tolist() for row in range(ROWS)])
        places = positions[:, None] + torch.arange(SEGMENT)
        real = torch.ones_like(part, dtype=torch.bool)
        batch = SegmentBatch(part, part, places, real, real.long(), ~real, part[:, :1], is_start)
        output = model.transformer(part, places, slots, remember=remember, need=memory.requires)
        scores, scored = scorer.score(part, scored)
        state = write_segment(memory, state, output, batch, scores, None).state
        logits.append(output.logits)
        positions = positions + SEGMENT
    return torch.cat(logits, dim=1), kept, state


def by_oracle(model, kept, starts=()) -> torch.Tensor:
    """The logits of `read`, document by document in float64, over exactly the tokens that were kept."""
    model, ids, rows = copy.deepcopy(model.transformer).double(), random_ids(), []
    for row in range(ROWS):
        borders = sorted({0, SEGMENTS, *(i for r, i in starts if r == row)})
        parts = []
        for first, stop in itertools.pairwise(borders):

            def sees(t: int, row=row, first=first) -> list[int]:
                start = t // SEGMENT * SEGMENT
                return [*kept[first + t // SEGMENT][row], *range(start, t + 1)]

            parts.append(oracle(model, ids[row, first * SEGMENT : stop * SEGMENT], sees))
        rows.append(torch.cat(parts))
    return torch.stack(rows).float()


@pytest.mark.parametrize("remember", ["hidden", "keys_values"])
@pytest.mark.parametrize("starts", [(), {(1, 2)}], ids=["one document", "a document begins"])
@pytest.mark.parametrize(("name", "capacity"), [("fifo", 7), ("random", 4), ("forget_gate", 4), ("fifo", 100)])
@torch.no_grad()
def test_segments_equal_a_loop_over_the_document(name, capacity, starts, remember):
    """Gates of tokens that were evicted between a slot and a query count."""
    model, strategy = make_model(), next(s for s in CHOICES if s.name == name)
    got, kept, state = read(model, strategy, capacity, remember, starts)
    torch.testing.assert_close(got, by_oracle(model, kept, starts), **CLOSE)
    if name == "random":  # it keeps tokens with gaps between them
        assert any(max(b - a for a, b in itertools.pairwise(row)) > 1 for row in kept[-1])
    assert not state.slots.decay.requires_grad


@pytest.mark.parametrize("remember", ["hidden", "keys_values"])
@pytest.mark.parametrize("name", ["random", "forget_gate"])
@pytest.mark.parametrize("chunks", [[1] * TIME, [3, 1, 9, 7]], ids=["tokens", "chunks"])
@torch.no_grad()
def test_decoding_equals_segments(name, chunks, remember):
    model, strategy = make_model(), next(s for s in CHOICES if s.name == name)
    wanted, kept, _ = read(model, strategy, 4, remember)
    reader = make_reader(model, make_scorer(), SEGMENT, strategy, Memory(4, strategy.policy), remember)
    state, start = reader.start(ROWS), 0
    for length in chunks:
        logits, state = reader.read(random_ids()[:, start : start + length], state)
        start += length
        torch.testing.assert_close(logits, wanted[:, start - 1], **CLOSE)
        if start % SEGMENT == 0 and start < TIME:
            slots = state.memory.read()
            assert slots.positions.tolist() == kept[start // SEGMENT]
            assert state.seen.slots.decay is None  # it would be a second copy


def test_gradients_reach_the_gates_of_the_segment_alone():
    """The decay of a slot takes no gradient, the gates between a slot and a query of the segment do."""
    model, strategy = make_model(), CHOICES[0]
    got, kept, _ = read(model, strategy, SEGMENT, "hidden")
    sees = [[*kept[t // SEGMENT][0], *range(t // SEGMENT * SEGMENT, t + 1)] for t in range(TIME)]
    last = TIME - SEGMENT
    weights = torch.randn(SEGMENT, CONFIG.vocab_size)
    exact = copy.deepcopy(model.transformer).double()
    wanted = oracle(exact, random_ids()[0], sees.__getitem__, stopped=last)
    ours = torch.autograd.grad((got[0, last:] * weights).sum(), model.transformer.parameters())
    theirs = torch.autograd.grad((wanted[last:] * weights).sum(), exact.parameters())
    names = [name for name, _ in model.transformer.named_parameters()]
    assert any("forget_gate" in name for name in names)
    for name, a, b in zip(names, ours, theirs, strict=True):
        limit = 2e-5 * float(b.abs().max().clamp(min=1))
        torch.testing.assert_close(a, b.float(), atol=limit, rtol=1e-3, msg=name)


def test_training_resumes_to_the_bit():
    """With pooled slots and other memories from step to step, from a checkpoint of the state."""
    choices = strategies(
        {
            "forget_gate": {"policy": "forget_gate"},
            "conv": {"policy": "fifo", "compression": {"name": "pool", "rate": 2}},
            "used": {"policy": "fifo", "compression": {"name": "pool", "how": "most_used", "rate": 2}},
        }
    )
    torch.manual_seed(0)
    model, scorer = LanguageModel(replace(CONFIG, shift=True), choices), make_scorer()
    task = LanguageModelTask(model, scorer, Schedule(choices, [4, 8], resample_every=1, seed=1), ROWS)
    items = []
    for i in range(3):
        ids = torch.randint(CONFIG.vocab_size, (30,), generator=torch.Generator().manual_seed(i))
        items.append(Passage.from_ids(ids, f"p{i}"))
    loader, state, batches = segment_loader(items, ROWS, SEGMENT, 0), task.initial_state(), []
    for _ in range(6):
        batches.append(loader.next())
        loss, state = task.step(batches[-1], state)
        loss.value.backward()
    assert all(block.attention.forget_gate.weight.grad.abs().sum() > 0 for block in model.transformer.blocks)
    assert state.memory.read().decay.shape == (ROWS, state.memory.read().count, CONFIG.layers, CONFIG.heads)
    again = checkpoint.decode(*checkpoint.encode(state), torch.device("cpu"))
    for _ in range(4):
        batch = loader.next()
        (loss, state), (other, again) = task.step(batch, state), task.step(batch, again)
        assert loss.value.item() == other.value.item()
        assert torch.equal(state.memory.read().decay, again.memory.read().decay)


def test_pooled_slots_have_the_mean_of_the_decays():
    index = torch.arange(4)[None]
    slots = Slots.without_scores((torch.randn(1, 4, 2, 8),), index, index)
    slots = replace(slots, decay=-torch.rand(1, 4, 2, 2), valid=torch.tensor([[True, True, False, True]]))
    pooled = Pool(how="mean", rate=2).pool(slots, torch.nn.Identity())
    assert torch.equal(pooled.decay[:, 0], slots.decay[:, :2].mean(1))
    assert torch.equal(pooled.decay[:, 1], slots.decay[:, 3])


def test_a_state_returns_from_its_tensors():
    _, _, state = read(make_model(), CHOICES[0], 4, "hidden")
    again = type(state).from_state_dict(state.state_dict(), state.slots.score_names)
    assert torch.equal(again.slots.decay, state.slots.decay)
    assert state.slots.nbytes >= state.slots.decay.nbytes + state.slots.payload[0].nbytes


def test_all_slots_of_a_memory_have_gates_or_none():
    _, _, state = read(make_model(), CHOICES[0], 4, "hidden")
    payload, index = state.slots.payload, state.slots.positions
    rest = (payload, index, index, state.slots.scores, state.slots.valid)
    plain = Memory(4).append(Memory(4).empty(payload, state.slots.score_names), *rest)
    for other, log_gates in ((state, None), (plain, torch.zeros_like(state.slots.decay))):
        with pytest.raises(ValueError, match=r"only some of the slots have the decay .* Output.log_gates"):
            Memory(4).append(other, *rest, log_gates=log_gates)


@pytest.mark.parametrize("how", ["mean", "most_used"])
def test_decay_of_pooled_and_single_slots(how):
    """In the order of `State.read`, also while nothing is pooled."""
    _, _, state = read(make_model(), CHOICES[0], 8, "hidden")
    memory = Memory(6, compression=Pool(how=how, rate=2))
    small = memory.evict_to_capacity(state, torch.full((ROWS,), TIME)).state
    assert small.pooled.count
    for one in (state, small):
        assert torch.equal(one.decay, one.read().decay)


def test_gates_start_near_one():
    block = MemoryTransformer(replace(CONFIG, heads=4)).blocks[0].attention
    log_gates = torch.nn.functional.logsigmoid(block.forget_gate.bias)
    times = -1 / log_gates
    torch.testing.assert_close(times[[0, -1]], torch.tensor(DECAY_TIMES), rtol=1e-3, atol=0)
    torch.testing.assert_close(times[1:] / times[:-1], torch.full((3,), 4.0), rtol=1e-3, atol=0)


def test_a_model_without_gates_has_no_weights_of_them():
    names = dict(MemoryTransformer(replace(CONFIG, forget_gate=False)).named_parameters())
    gated = dict(MemoryTransformer(CONFIG).named_parameters())
    assert not any("forget_gate" in name for name in names)
    assert set(gated) - set(names) == {
        f"blocks.{i}.attention.forget_gate.{part}" for i in range(CONFIG.layers) for part in ("weight", "bias")
    }


@given(seed=st.integers(0, 10_000), cut=st.integers(1, 8))
@settings(max_examples=20)
def test_decay_does_not_depend_on_how_tokens_are_chunked(seed, cut):
    log_gates = -torch.rand(2, 9, 2, 3, generator=torch.Generator().manual_seed(seed))
    in_parts = accrue_decay(accrue_decay(None, log_gates[:, :cut]), log_gates[:, cut:])
    torch.testing.assert_close(in_parts, accrue_decay(None, log_gates), atol=1e-5, rtol=1e-5)
    naive = torch.stack([log_gates[:, t + 1 :].sum(1) for t in range(9)], dim=1)
    torch.testing.assert_close(in_parts, naive, atol=1e-5, rtol=1e-5)


@given(seed=st.integers(0, 10_000), keep=st.integers(1, 8))
@settings(max_examples=20)
def test_decay_alone_keeps_the_newest(seed, keep):
    """The gates of every head decay an older slot at least as much, so that attention or scores have to decide."""
    generator = torch.Generator().manual_seed(seed)
    decay = accrue_decay(None, -torch.rand(2, 9, 2, 3, generator=generator).exp())
    index = torch.arange(9).expand(2, -1)
    slots = replace(Slots.without_scores((), index, index), decay=decay)
    policy = registry.build("policies", {"name": "forget_gate", "usage": 0.0})
    assert torch.equal(select(slots, policy, keep, torch.tensor([9, 9])), index[:, 9 - keep :])
    assert policy.requires == ("decay",)


def test_models_without_gates_are_refused_in_one_line():
    policy, plain = registry.build("policies", "forget_gate"), MemoryTransformer(replace(CONFIG, forget_gate=False))
    index = torch.arange(3)[None]
    slots = Slots.without_scores((torch.zeros(1, 3, 2, 16),), index, index)
    gated = {"forget_gate": {"policy": "forget_gate"}}
    everywhere = [
        (lambda: plain(index, index, need=policy.requires), "this model does not have.*forget_gate=true"),
        (lambda: policy.priority(slots, torch.tensor([3])), "this model does not have.*forget_gate=true"),
        (lambda: make_model().transformer(index, index, slots), "pass Output.log_gates to Memory.write"),
        (lambda: Config(strategies=gated), "'forget_gate': policy forget_gate reads.* shape.forget_gate=true"),
        (
            lambda: Comparison(strategies=gated, baseline="forget_gate"),
            "'forget_gate': policy forget_gate reads.*lm.shape.forget_gate=true",
        ),
        (lambda: require_match(policy, None), "pretrained models do not have.*sink_recent"),
    ]
    for call, message in everywhere:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)

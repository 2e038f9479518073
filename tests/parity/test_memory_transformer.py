"""The memory transformer against references written out plainly here: a causal transformer, and a Transformer-XL."""

import dataclasses
import math

import pytest
import torch
from vqmem.memory.bank import Memory
from vqmem.memory.policies.random import Policy as Random
from vqmem.models.memory_transformer import MemoryTransformer, TransformerConfig

CONFIG = TransformerConfig(vocab_size=29, layers=3, dim=32, heads=4)
BATCH, TIME = 3, 24


def make(config=CONFIG) -> MemoryTransformer:
    torch.manual_seed(0)
    model = MemoryTransformer(config)
    for parameter in model.parameters():  # large weights, so that a wrong mask or position cannot hide in the noise
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def tokens() -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, (BATCH, TIME), generator=torch.Generator().manual_seed(1))


def rotate(vector: torch.Tensor, position: int) -> torch.Tensor:
    """Rotary embedding of one head's vector at an absolute position, pair by pair."""
    half = len(vector) // 2
    out = [torch.zeros(())] * len(vector)
    for i in range(half):
        angle = position * CONFIG.rope_base ** (-i / half)
        a, b = vector[i], vector[i + half]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + half] = a * math.sin(angle) + b * math.cos(angle)
    return torch.stack(out)


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * weight


def reference(model: MemoryTransformer, row: torch.Tensor, sees, stopped: int = 0) -> torch.Tensor:
    """Logits of one row, token by token and head by head; ``sees(layer, t)`` gives the positions t attends to.

    No gradient flows into the hidden states of the first ``stopped`` tokens, where they are attended to.

    Transformer-XL is the same network under another ``sees``: what a segment attends to are the hidden states of the
    layer below, whenever they were computed, so values are shared and only the sets differ.
    """
    width = CONFIG.dim // CONFIG.heads
    x = model.embed.weight[row]
    for layer, block in enumerate(model.blocks):
        normed = norm(x, block.attention_norm.weight)
        q = normed @ block.attention.query.weight.T
        remembered = norm(torch.cat([x[:stopped].detach(), x[stopped:]]), block.attention_norm.weight)
        k, v = (remembered @ block.attention.key_value.weight.T).split(CONFIG.dim, dim=-1)
        rows = []
        for t in range(len(row)):
            heads = []
            for head in range(CONFIG.heads):
                part = slice(head * width, (head + 1) * width)
                places = sees(layer, t)
                keys = torch.stack([rotate(k[s, part], s) for s in places])
                weights = torch.softmax(keys @ rotate(q[t, part], t) / math.sqrt(width), dim=0)
                heads.append(weights @ torch.stack([v[s, part] for s in places]))
            rows.append(torch.cat(heads))
        x = x + torch.stack(rows) @ block.attention.out.weight.T
        first, last = block.feed_forward[0].weight, block.feed_forward[2].weight
        hidden = torch.nn.functional.gelu(norm(x, block.feed_forward_norm.weight) @ first.T, approximate="tanh")
        x = x + hidden @ last.T
    return norm(x, model.norm.weight) @ model.head.weight.T


def read(model, ids, lengths, memory, *, remember="hidden", detach=True):
    """Read ``ids`` in segments of the given lengths with ``memory``; all logits and the final state."""
    state = memory.empty(model.empty_payload(len(ids), remember), model.config.signals)
    logits, start = [], 0
    for length in lengths:
        part = ids[:, start : start + length]
        positions = (start + torch.arange(part.shape[1])).expand(len(ids), -1)
        output = model(part, positions, state.read(), remember=remember)
        payload = tuple(x.detach() for x in output.payload) if detach else output.payload
        scores = torch.zeros(*part.shape, 3)
        state = memory.write(state, payload, part, positions, scores, torch.ones_like(part, dtype=torch.bool)).state
        logits.append(output.logits)
        start += length
    return torch.cat(logits, dim=1), state


@pytest.mark.parametrize("lengths", [[24], [8, 8, 8], [5, 1, 11, 7], [1] * 24])
@pytest.mark.parametrize("remember", ["hidden", "keys_values"])
def test_unbounded_memory_is_a_plain_causal_transformer(lengths, remember):
    """Values and gradients (which flow through an unbounded memory that is not detached)."""
    model, ids = make(), tokens()
    got, _ = read(model, ids, lengths, Memory(1000), remember=remember, detach=False)
    wanted = torch.stack([reference(model, row, lambda layer, t: range(t + 1)) for row in ids])
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(got)
    names = [name for name, _ in model.named_parameters()]
    ours, theirs = (
        torch.autograd.grad((x * weights).sum(), model.parameters(), retain_graph=True) for x in (got, wanted)
    )
    for name, a, b in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max().clamp(min=1)), rtol=1e-4, msg=name)


@pytest.mark.parametrize(("segment", "capacity"), [(6, 6), (4, 10), (8, 3)])
@pytest.mark.parametrize("remember", ["hidden", "keys_values"])
def test_fifo_is_transformer_xl(segment, capacity, remember):
    """Each segment sees itself causally and the ``capacity`` hidden states before it, in every layer."""
    model, ids = make(), tokens()
    got, _ = read(model, ids, [segment] * (TIME // segment), Memory(capacity), remember=remember)

    def sees(layer: int, t: int) -> range:
        return range(max(0, t // segment * segment - capacity), t + 1)

    wanted = torch.stack([reference(model, row, sees) for row in ids])
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_fifo_gradients_are_transformer_xl_s():
    """Gradients go into the projections of what is remembered, and stop at the remembered states."""
    model, ids = make(), tokens()[:1, :12]
    got, _ = read(model, ids, [6, 6], Memory(6))
    wanted = reference(model, ids[0], lambda layer, t: range(t + 1), stopped=6)
    weights = torch.randn(6, CONFIG.vocab_size)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), model.parameters()) for x in (got[0, 6:], wanted[6:]))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max().clamp(min=1)), rtol=1e-4)


def test_positions_far_into_a_stream_are_exact():
    """The logits of a segment depend on distances alone, a hundred million tokens in as well."""
    model, ids = make(), tokens()
    here = torch.arange(TIME).expand(BATCH, -1)
    near, far = model(ids, here).logits, model(ids, here + 100_000_000).logits
    assert torch.equal(near, far)


def test_rows_do_not_see_each_other_and_forget_alone():
    model, ids = make(), tokens()
    memory = Memory(8, Random())
    _, state = read(model, ids, [12], memory)
    state = state.forget(torch.tensor([False, True, False]))
    positions = torch.stack([torch.arange(12, 18), torch.arange(6), torch.arange(12, 18)])
    together = model(ids[:, 12:18], positions, state.read()).logits
    alone = model(ids[1:2, 12:18], torch.arange(6)[None]).logits
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_usage_is_the_attention_received():
    model, ids = make(), tokens()
    _, state = read(model, ids, [16], Memory(8))
    here = torch.arange(16, 24).expand(BATCH, -1)
    plain, counted = model(ids[:, 16:], here, state.read()), model(ids[:, 16:], here, state.read(), need=("usage",))
    torch.testing.assert_close(plain.logits, counted.logits, atol=1e-5, rtol=1e-5)
    assert counted.usage.shape == (BATCH, 8)
    assert (counted.usage > 0).all()
    assert (counted.usage.sum(1) < 8).all()  # each of 8 queries gives less than all its attention to the memory


def test_the_score_bias_reaches_each_head():
    model = make(TransformerConfig(vocab_size=29, layers=1, dim=32, heads=4, score_bias=True))
    ids = tokens()
    _, state = read(model, ids, [16], Memory(8))
    here = torch.arange(16, 24).expand(BATCH, -1)
    slots = state.read()
    torch.nn.init.zeros_(model.score_weight)
    plain = model(ids[:, 16:], here, slots).logits
    model.score_weight.data[2, 0] = 50.0
    scored = type(slots).from_state_dict(
        slots.state_dict() | {"standard": torch.randn_like(slots.standard)}, slots.score_names
    )
    assert not torch.allclose(plain, model(ids[:, 16:], here, scored).logits)
    model(ids[:, 16:], here, scored).logits.sum().backward()
    assert model.score_weight.grad.abs().sum() > 0


@pytest.mark.parametrize("shift", [True, 1, 3, 8])
@pytest.mark.parametrize("lengths", [[8, 8, 8], [5, 1, 18]])
def test_the_shift_crosses_segments_but_not_documents(lengths, shift):
    model, ids = make(dataclasses.replace(CONFIG, shift=shift)), tokens()
    full = model(ids, torch.arange(TIME).expand(BATCH, -1)).logits
    memory, start = Memory(1000), 0
    state, parts = memory.empty(model.empty_payload(BATCH)), []
    for length in lengths:
        part, here = ids[:, start : start + length], (start + torch.arange(length)).expand(BATCH, -1)
        previous = torch.cat([torch.full((BATCH, 8), -1), ids[:, :start]], dim=1)[:, -8 - start % 2 :]
        output = model(part, here, state.read(), previous=previous)
        state = memory.write(state, output.payload, part, here, torch.zeros(*part.shape, 0), part >= 0).state
        parts.append(output.logits)
        start += length
    torch.testing.assert_close(torch.cat(parts, 1), full, atol=1e-5, rtol=1e-5)


def test_the_shift_adds_a_projection_of_each_of_the_previous_tokens():
    model, ids = make(dataclasses.replace(CONFIG, shift=3)), tokens()
    embedded, weights = model.embed.weight, model.shift.weight.split(CONFIG.dim, dim=1)
    for row in range(BATCH):
        for time in range(TIME):
            expected = embedded[ids[row, time]]
            for back in range(1, min(3, time) + 1):
                expected = expected + weights[back - 1] @ embedded[ids[row, time - back]]
            torch.testing.assert_close(model._embed(ids, None)[row, time], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [-1, 9])
def test_a_shift_of_too_many_tokens_is_refused(shift):
    with pytest.raises(ValueError, match="shift"):
        dataclasses.replace(CONFIG, shift=shift)


def test_frames_go_in_and_ids_come_out():
    model = MemoryTransformer(TransformerConfig(vocab_size=11, layers=1, dim=32, heads=4, frame_dim=5))
    assert model(torch.randn(2, 6, 5), torch.arange(6).expand(2, -1)).logits.shape == (2, 6, 11)


def test_heads_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"dim=30.*heads=4"):
        TransformerConfig(vocab_size=5, dim=30, heads=4)

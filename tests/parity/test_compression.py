"""Pooling and its attention-reconstruction loss against loops written from the Compressive Transformer's paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem import registry
from vqmem.memory.compression.pool import Compression
from vqmem.memory.slots import Slots
from vqmem.models.memory_transformer import MemoryTransformer, TransformerConfig, reconstruction_loss

BATCH, LAYERS, DIM, HEADS = 2, 2, 8, 2


def some_slots(seed: int, count: int, valid_share: float = 0.7) -> Slots:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(BATCH, count, *shape, generator=generator)

    positions = torch.arange(count).expand(BATCH, -1) * 2
    payload = draw(LAYERS, DIM) * 4 - 2
    tokens = (draw() * 9).long()
    return Slots(
        (payload,), tokens, positions, draw(3), draw(3), draw(), draw() < valid_share, ("surprise", "rarity", "gain")
    )


def groups(slots: Slots, rate: int):
    """(row, group, the indices of its valid slots)."""
    for b in range(BATCH):
        for g in range(slots.count // rate):
            members = range(g * rate, (g + 1) * rate)
            yield b, g, [i for i in members if slots.valid[b, i]]


@pytest.mark.parametrize("how", ["mean", "max"])
@given(seed=st.integers(0, 10**6), rate=st.integers(2, 4), count=st.integers(1, 4))
@settings(max_examples=15)
def test_mean_and_max(how, seed, rate, count):
    slots = some_slots(seed, rate * count)
    compression = Compression(how, rate)
    pooled = compression.pool(slots, compression.build(LAYERS, DIM))
    assert pooled.count == count
    assert (pooled.tokens == -1).all()
    for b, g, members in groups(slots, rate):
        assert bool(pooled.valid[b, g]) == bool(members)
        if not members:
            assert not pooled.payload[0][b, g].any()
            continue
        assert pooled.positions[b, g] == max(slots.positions[b, i] for i in members)
        for name in ("scores", "standard", "usage"):
            wanted = sum(getattr(slots, name)[b, i] for i in members) / len(members)
            torch.testing.assert_close(getattr(pooled, name)[b, g], wanted)
        for layer in range(LAYERS):
            for d in range(DIM):
                values = [float(slots.payload[0][b, i, layer, d]) for i in members]
                wanted = sum(values) / len(values) if how == "mean" else max(values)
                assert float(pooled.payload[0][b, g, layer, d]) == pytest.approx(wanted, abs=1e-6)


@given(seed=st.integers(0, 10**6), rate=st.integers(2, 4), count=st.integers(1, 3))
@settings(max_examples=15)
def test_conv(seed, rate, count):
    """A kernel for each layer, as wide as its stride; invalid slots are zeros."""
    slots = some_slots(seed, rate * count)
    compression = Compression("conv", rate)
    learned = compression.build(LAYERS, DIM)
    torch.manual_seed(seed)
    torch.nn.init.normal_(learned.weight)
    pooled = compression.pool(slots, learned)
    for b, g, members in groups(slots, rate):
        for layer in range(LAYERS):
            wanted = torch.zeros(DIM)
            for i in members:
                wanted = wanted + slots.payload[0][b, i, layer] @ learned.weight[layer, i - g * rate]
            torch.testing.assert_close(pooled.payload[0][b, g, layer], wanted, atol=1e-5, rtol=1e-5)


def test_conv_starts_as_the_mean():
    slots = some_slots(0, 12, valid_share=1.1)
    conv, mean = Compression("conv", 3), Compression("mean", 3)
    pooled = conv.pool(slots, conv.build(LAYERS, DIM))
    torch.testing.assert_close(pooled.payload[0], mean.pool(slots, mean.build(LAYERS, DIM)).payload[0])


@given(seed=st.integers(0, 10**6), rate=st.integers(2, 4), count=st.integers(1, 4))
@settings(max_examples=15)
def test_most_used(seed, rate, count):
    slots = some_slots(seed, rate * count)
    compression = Compression("most_used", rate)
    pooled = compression.pool(slots, compression.build(LAYERS, DIM))
    assert pooled.count == count
    for b in range(BATCH):
        valid = [i for i in range(slots.count) if slots.valid[b, i]]
        best = sorted(sorted(valid, key=lambda i: -float(slots.usage[b, i]))[:count])
        here = pooled.valid[b]
        assert pooled.positions[b][here].tolist() == slots.positions[b, best].tolist()
        assert torch.equal(pooled.payload[0][b][here], slots.payload[0][b, best])
        assert pooled.tokens[b][here].tolist() == slots.tokens[b, best].tolist()


@pytest.mark.parametrize(("capacity", "share", "pooled"), [(128, 0.5, 64), (10, 0.25, 2), (7, 0.9, 6), (1, 0.4, 0)])
def test_share_is_of_the_capacity(capacity, share, pooled):
    assert Compression(share=share).compressed_capacity(capacity) == pooled


@pytest.mark.parametrize("fields", [{"how": "median"}, {"rate": 1}, {"share": 0.0}, {"share": 1.0}])
def test_bad_values_are_named(fields):
    ((name, value),) = fields.items()
    with pytest.raises(ValueError, match=rf"{name}.*{value!r}"):
        registry.build("compressions", {"name": "pool", **fields})


# --- the attention-reconstruction loss -------------------------------------------------------------------------------


def make_model() -> MemoryTransformer:
    torch.manual_seed(0)
    model = MemoryTransformer(TransformerConfig(vocab_size=5, layers=LAYERS, dim=DIM, heads=HEADS))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def loop_loss(model: MemoryTransformer, hidden, evicted: Slots, compressed: Slots) -> torch.Tensor:
    """Algorithm 2 of arXiv:1911.05507: for each layer, the squared difference of the attention over both."""
    width, total = DIM // HEADS, torch.zeros(())
    for layer, block in enumerate(model.blocks):

        def norm(x, gain=block.attention_norm.weight):
            return x / (x.square().mean() + torch.finfo(x.dtype).eps).sqrt() * gain

        def attend(b, state, slots, block=block, layer=layer, norm=norm):
            query = block.attention.query.weight @ norm(state)
            members = [slots.payload[0][b, i, layer] for i in range(slots.count) if slots.valid[b, i]]
            both = [block.attention.key_value.weight @ norm(member) for member in members]
            heads = []
            for part in (slice(h * width, (h + 1) * width) for h in range(HEADS)):
                weights = torch.softmax(torch.stack([query[part] @ x[:DIM][part] for x in both]) / width**0.5, 0)
                heads.append(sum(w * x[DIM:][part] for w, x in zip(weights, both, strict=True)))
            return torch.cat(heads)

        squares = []
        for b in range(BATCH):
            for state in hidden[b, :, layer]:
                if evicted.valid[b].any() and compressed.valid[b].any():
                    squares.append((attend(b, state, evicted) - attend(b, state, compressed)).square().mean())
                else:
                    squares.append(torch.zeros(()))
        total = total + torch.stack(squares).mean()
    return total / LAYERS


@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.3, 0.8]))
@settings(max_examples=10)
def test_the_loss_is_the_paper_s(seed, share):
    model, evicted = make_model(), some_slots(seed, 6, share)
    compression = Compression("mean", 3)
    compressed = compression.pool(evicted, compression.build(LAYERS, DIM))
    hidden = torch.randn(BATCH, 5, LAYERS, DIM, generator=torch.Generator().manual_seed(seed))
    got = reconstruction_loss(model, hidden, evicted, compressed)
    torch.testing.assert_close(got, loop_loss(model, hidden, evicted, compressed), atol=1e-5, rtol=1e-4)


def test_its_gradients_are_the_paper_s_and_reach_the_compression_alone():
    model, evicted = make_model(), some_slots(3, 8, 0.8)
    compression = Compression("conv", 4)
    learned = compression.build(LAYERS, DIM)
    hidden = torch.randn(BATCH, 5, LAYERS, DIM, requires_grad=True)
    evicted.payload[0].requires_grad_()
    compressed = compression.pool(evicted.detach(), learned)
    (wanted,) = torch.autograd.grad(loop_loss(model, hidden, evicted, compressed), learned.weight, retain_graph=True)
    reconstruction_loss(model, hidden, evicted, compressed).backward()
    torch.testing.assert_close(learned.weight.grad, wanted, atol=1e-6, rtol=1e-4)
    assert wanted.any()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hidden.grad is None
    assert evicted.payload[0].grad is None


def test_the_loss_is_zero_where_nothing_is_lost():
    model, evicted = make_model(), some_slots(5, 6)
    hidden = torch.randn(BATCH, 5, LAYERS, DIM)
    assert float(reconstruction_loss(model, hidden, evicted, evicted)) == 0.0
    nothing = evicted.invalidate(torch.ones(BATCH, dtype=torch.bool))
    assert float(reconstruction_loss(model, hidden, nothing, nothing.head(2))) == 0.0

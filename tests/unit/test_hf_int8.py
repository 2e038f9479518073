"""Slots in 8 bits: within the stated bound however long they are cached, and cut, moved and copied like others."""

import copy

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.memory.huggingface.int8 import pack, unpack
from vqmem.models.scorers.random import Noise

HEADS, WIDTH, BOUND = 2, 8, 1 / 510


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = transformers.LlamaConfig(
        **shape, num_attention_heads=4, num_key_value_heads=HEADS, max_position_embeddings=40
    )
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def ids(rows: int = 2, length: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 50, (rows, length), generator=torch.Generator().manual_seed(seed))


def make_cache(model, policy="scored", storage="int8", **kwargs):
    return VQMemCache(model, 12, policy=policy, scorer=Noise(3), sinks=2, recent=3, storage=storage, **kwargs)


@torch.no_grad()
def read(model, cache, seeds, rows: int = 2) -> torch.Tensor:
    return torch.cat([model(ids(rows, seed=seed), **{CACHE: cache}).logits for seed in seeds], dim=1)


def reach(x: torch.Tensor) -> torch.Tensor:
    """The largest error that each slot and head may have."""
    low, high = x.float().aminmax(dim=-1, keepdim=True)
    return (high - low) * BOUND + 1e-6 * x.float().abs().amax(-1, keepdim=True) + 1e-30


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e6), shift=st.floats(-10, 10), half=st.booleans())
@settings(max_examples=60)
def test_values_come_back_within_the_bound(seed, scale, shift, half):
    x = (torch.randn(2, 3, 4, WIDTH, generator=torch.Generator().manual_seed(seed)) + shift) * scale
    x[0, 0, 0] = shift  # no range at all
    x = x.bfloat16() if half else x
    back = unpack(pack(x), x.dtype)
    rounding = torch.finfo(x.dtype).eps * x.float().abs() if half else 0
    assert ((back.float() - x.float()).abs() <= reach(x) + rounding).all()
    assert back.dtype == x.dtype
    assert pack(x).shape == (2, 3, 4, WIDTH + 8)


@pytest.mark.parametrize("policy", ["scored", "fifo", "knorm"])
def test_keys_do_not_drift_however_long_they_are_cached(model, policy):
    """In layer 0, whose keys depend on the tokens alone, against a cache in full precision."""
    cache, full = make_cache(model, policy), make_cache(model, policy, "full")
    for seed in range(6):
        torch.testing.assert_close(read(model, cache, [seed]), read(model, full, [seed]), atol=0.05, rtol=0)
        if policy != "knorm":  # sees the keys of layer 1 too, which what was read has changed
            assert cache.positions == full.positions
            stored, exact = cache.layers[0].read(torch.float32), (full.layers[0].keys, full.layers[0].values)
            assert all(((x - y).abs() <= reach(y)).all() for x, y in zip(stored, exact, strict=True))


def test_new_tokens_see_each_other_in_full_precision(model):
    assert torch.equal(read(model, make_cache(model), [0]), read(model, make_cache(model, storage="full"), [0]))


def test_bytes_are_a_byte_a_number_and_eight_a_slot_and_head(model):
    cache = make_cache(model)
    read(model, cache, range(4))
    assert sum(cache.stats()["layers"]) == 2 * 2 * 2 * HEADS * 12 * (WIDTH + 8)
    storages = [x.untyped_storage().nbytes() for layer in cache.layers for x in (layer.keys, layer.values)]
    assert sum(storages) == 2 * 2 * 2 * HEADS * 12 * (WIDTH + 8)


@pytest.mark.parametrize("policy", ["scored", "h2o"])
def test_rows_are_moved_and_copied_with_their_state(model, policy):
    cache = make_cache(model, policy)
    read(model, cache, range(3))
    twin = copy.deepcopy(cache)
    wanted = read(model, copy.deepcopy(cache), [7])
    twin.batch_repeat_interleave(2)
    twin.batch_select_indices(torch.tensor([0, 2]))
    twin.reorder_cache(torch.tensor([1, 0]))
    with torch.no_grad():
        logits = model(ids(seed=7).flip(0), **{CACHE: twin}).logits
    torch.testing.assert_close(logits.flip(0), wanted, atol=1e-5, rtol=0)
    cache.reset()
    assert torch.equal(read(model, cache, [0]), read(model, make_cache(model, policy), [0]))


def test_crop_and_compact_positions_work(model):
    cache, short = make_cache(model), make_cache(model)
    read(model, cache, [0])
    cache.crop(-2)
    with torch.no_grad():
        model(ids()[:, :4], **{CACHE: short})
    torch.testing.assert_close(read(model, cache, [1]), read(model, short, [1]), atol=1e-5, rtol=0)
    compact, full = (make_cache(model, "fifo", storage, positions="compact") for storage in ("int8", "full"))
    near = read(model, compact, range(12)) - read(model, full, range(12))  # 72 tokens, past the limit of 40
    assert near.abs().max() < 0.05
    assert compact.positions == full.positions


def test_other_storages_are_named(model):
    with pytest.raises(ValueError, match="storage='int4'; use full or int8"):
        make_cache(model, storage="int4")

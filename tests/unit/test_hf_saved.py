"""Caches that are saved and loaded go on as those that stayed."""

import pytest
import torch
import transformers
from safetensors.torch import save_file
from vqmem import registry
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE

TOKENIZER = registry.build("front-ends", "bytes").fit([])
IDS = torch.randint(1, 256, (2, 60), generator=torch.Generator().manual_seed(0))


def make_model(seed: int = 0, dtype: torch.dtype = torch.float32):
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=256, num_key_value_heads=2, max_position_embeddings=48, **shape)
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


@pytest.fixture(scope="module")
def model():
    return make_model()


CASES = {
    "preset": {"capacity": 24},
    "recent": {"capacity": 24, "sinks": 2, "recent": 18},
    "document": {"capacity": 24, "policy": "document", "block": 3},
    "h2o": {"capacity": 20, "policy": "h2o", "share": "layer"},
    "int8": {"capacity": 20, "policy": "knorm", "storage": "int8"},
    "compact": {"capacity": 20, "policy": "fifo", "positions": "compact"},
    "not full": {"capacity": 200, "policy": "fifo"},
}


@torch.no_grad()
@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_a_loaded_cache_goes_on_as_the_saved_one(model, tmp_path, arguments):
    mask = torch.ones_like(IDS[:, :40])
    mask[1, :9] = 0
    cache = VQMemCache(model, TOKENIZER, **arguments)
    for start, stop in ((0, 30), (30, 37), (37, 38), (38, 40)):
        model(IDS[:, start:stop], attention_mask=mask[:, :stop], **{CACHE: cache})
    file = tmp_path / "prefix.safetensors"
    cache.save(file)
    loaded = [VQMemCache.load(file, model, TOKENIZER) for _ in range(2)]
    for other in loaded:
        assert repr(other) == repr(cache)
        assert other.positions == cache.positions
    for start, stop in ((40, 41), (41, 55), (55, 60)):
        whole = torch.cat([mask, torch.ones_like(IDS[:, 40:stop])], dim=1)
        passes = [model(IDS[:, start:stop], attention_mask=whole, **{CACHE: one}).logits for one in (cache, *loaded)]
        assert all(torch.equal(logits, passes[0]) for logits in passes[1:])
    assert loaded[0].positions == loaded[1].positions == cache.positions


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as refused:
        call(*args, **kwargs)
    return str(refused.value)


@torch.no_grad()
def test_what_cannot_go_on_is_refused(model, tmp_path):
    file = tmp_path / "prefix.safetensors"
    cache = VQMemCache(model, 16, policy="scored", scorer=registry.build("scorers", "unigram").build(256))
    assert "the cache is empty" in refusal(cache.save, file)
    model(IDS, **{CACHE: cache})
    cache.save(file)
    assert "another model than this Llama" in refusal(VQMemCache.load, file, make_model(1))
    other = registry.build("scorers", {"name": "vq_lm", "dim": 4, "hidden": 4, "codes": 4}).build(256)
    assert "another scorer; give it" in refusal(VQMemCache.load, file, model, scorer=other)
    assert "needs scores" in refusal(VQMemCache.load, file, model)
    assert "not found" in refusal(VQMemCache.load, tmp_path / "none.safetensors", model)
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:1000])
    assert "is damaged" in refusal(VQMemCache.load, tmp_path / "cut.safetensors", model)
    save_file({"x": torch.zeros(1)}, tmp_path / "old.safetensors", {"format": "vqmem cache 1"})
    message = "saved by an earlier version, whose scores had no names; read the text again and save that cache"
    assert message in refusal(VQMemCache.load, tmp_path / "old.safetensors", model)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert "has no cache" in refusal(VQMemCache.load, tmp_path / "other.safetensors", model)

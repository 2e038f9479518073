"""The cache against a dense pass: the same model over all tokens at once, under a mask that says who saw whom."""

import pytest
import torch
from vqmem import registry
from vqmem.models.scorers.random import Noise

transformers = pytest.importorskip("transformers")

from vqmem.memory.hf_cache import VQMemCache  # noqa: E402

VOCAB, ROWS, LENGTH, PROMPT, CAPACITY = 50, 8, 40, 26, 12
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, num_attention_heads=4),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE, num_attention_heads=4, num_key_value_heads=2),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SHAPE, num_attention_heads=4),
}
POLICIES = registry.names("policies")
CHUNKS = {
    "whole": [PROMPT, 2] + [1] * (LENGTH - PROMPT - 2),
    "chunks": [7] * 5 + [5],
    "decode": [1] * LENGTH,
}


def make_model(name: str, seed: int = 0, attention: str = "sdpa"):
    """A tiny random model whose attention is sharp enough to tell tokens apart."""
    torch.manual_seed(seed)
    config = CONFIGS[name]()
    config._attn_implementation = attention
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return make_model(request.param)


def ragged(seed: int = 1, rows: int = ROWS, length: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask; row i begins with 3 i columns of padding, the last row of 8 with 21."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCAB, (rows, length), generator=generator)
    mask = (torch.arange(length) >= 3 * torch.arange(rows)[:, None]).long()
    return ids * mask, mask


def make_cache(model, policy: str, **kwargs) -> VQMemCache:
    return VQMemCache(
        model, **{"capacity": CAPACITY, "policy": policy, "scorer": Noise(3), "sinks": 2, "recent": 3} | kwargs
    )


@torch.no_grad()
def read(model, cache, ids, mask, chunks):
    """Logits of reading piece by piece, and ``[row, query, key]``: which columns each query could see."""
    first = mask.long().argmax(1)
    logits, visible, start = [], torch.zeros(*ids.shape, ids.shape[1], dtype=torch.bool), 0
    for size in chunks:
        end = start + size
        for row, held in enumerate(cache.positions):
            visible[row, start:end, torch.tensor(held, dtype=torch.long) + first[row]] = True
        visible[:, start:end, start:end] |= (
            torch.ones(size, size, dtype=torch.bool).tril() & mask[:, None, start:end].bool()
        )
        logits.append(model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=cache).logits)
        start = end
    return torch.cat(logits, dim=1), visible


def dense(model, ids, mask, visible, **kwargs):
    """One pass over everything; padding sees itself, so that no softmax is empty."""
    allowed = visible | torch.eye(ids.shape[1], dtype=torch.bool)
    bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return model(ids, attention_mask=bias, position_ids=positions, use_cache=False, **kwargs)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("policy", POLICIES)
def test_logits_equal_a_dense_pass_under_the_same_mask(model, policy, chunks):
    ids, mask = ragged()
    cache = make_cache(model, policy)
    logits, visible = read(model, cache, ids, mask, CHUNKS[chunks])
    real = mask.bool()
    assert max(map(len, cache.positions)) == CAPACITY
    assert not visible[:, -1].all()  # something was forgotten
    torch.testing.assert_close(logits[real], dense(model, ids, mask, visible).logits[real], atol=1e-5, rtol=0)

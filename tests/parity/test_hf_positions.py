"""Compact positions past the trained length: keys are as if written there, and nothing else changes."""

import pytest
import torch
import transformers
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.models.scorers.random import Noise

LIMIT, LENGTH, CHUNK = 32, 96, 6
SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"intermediate_size": 48, "max_position_embeddings": LIMIT}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE, num_key_value_heads=2),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SHAPE),
}


def make_model(config):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    return model


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return make_model(CONFIGS[request.param]())


def text() -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(LENGTH) >= 4 * torch.arange(3)[:, None]).long()
    return torch.randint(1, 50, (3, LENGTH), generator=torch.Generator().manual_seed(1)) * mask, mask


@torch.no_grad()
def read(model, cache) -> torch.Tensor:
    ids, mask = text()
    logits = []
    for end in range(CHUNK, LENGTH + 1, CHUNK):
        logits.append(model(ids[:, end - CHUNK : end], attention_mask=mask[:, :end], **{CACHE: cache}).logits)
    return torch.cat(logits, dim=1)


def make_cache(model, policy: str, positions: str, sinks: int = 2) -> VQMemCache:
    return VQMemCache(model, 12, policy=policy, scorer=Noise(3), sinks=sinks, recent=3, positions=positions)


@pytest.mark.parametrize("policy", ["fifo", "h2o"])
def test_moving_without_gaps_changes_nothing(model, policy):
    """The newest tokens have no gaps between them, and rotary attention knows distances alone."""
    real = text()[1].bool()
    kept, compact = (read(model, make_cache(model, "fifo", kind, sinks=0)) for kind in ("kept", "compact"))
    torch.testing.assert_close(compact[real], kept[real], atol=1e-4, rtol=0)
    kept, compact = (read(model, make_cache(model, policy, kind)) for kind in ("kept", "compact"))
    early = LIMIT // CHUNK * CHUNK  # before the limit nothing moves, gaps or not
    assert torch.equal(compact[:, :early], kept[:, :early])
    assert not torch.allclose(compact[:, LIMIT:], kept[:, LIMIT:], atol=1e-2)


@pytest.mark.parametrize("policy", ["scored", "h2o", "random"])
def test_no_position_passes_the_limit_and_keys_are_as_if_written_there(model, policy):
    """Each key, rotated back by the position in the cache, is the key that its layer computed before rotation."""
    cache, used, raw = make_cache(model, policy, "compact"), [], []
    rotary = next(module for module in model.modules() if hasattr(module, "inv_freq"))

    def record(_, args, kwargs):
        if args[0].ndim == 3:  # hidden states of a pass; the cache gives keys
            used.append(kwargs["position_ids"] if len(args) == 1 else args[1])

    handle = rotary.register_forward_pre_hook(record, with_kwargs=True)
    update = cache.layers[1].update
    cache.layers[1].update = lambda k, v, *args, **kwargs: (
        raw.append(unrotated(k, used)) or update(k, v, *args, **kwargs)
    )

    def unrotated(keys, used):
        return rotate(model, rotary, keys, -used[-1].expand(len(keys), -1))

    read(model, cache)
    handle.remove()
    assert len(used) == LENGTH // CHUNK
    assert max(int(ids.max()) for ids in used) < LIMIT
    raw, slots = torch.cat(raw, dim=2), cache._state.memory.slots
    for row in range(3):
        columns = slots.positions[row] + 4 * row
        wanted = rotate(model, rotary, raw[row : row + 1, :, columns], slots.payload[1][row : row + 1])
        torch.testing.assert_close(cache.layers[1].keys[row : row + 1], wanted, atol=1e-4, rtol=1e-4)
        places = slots.payload[1][row].tolist()
        assert places == sorted(set(places))  # in order, no two at one place


def rotate(model, rotary, keys, by):
    """Keys rotated by the model's angles, written out: halves against each other, the rest unchanged."""
    angles = by[:, None, :, None].float() * rotary.inv_freq
    cos, sin, half = angles.cos(), angles.sin(), rotary.inv_freq.numel()
    a, b, rest = keys[..., :half], keys[..., half : 2 * half], keys[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


def test_models_whose_keys_cannot_be_rotated_are_refused():
    absolute = make_model(
        transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
    )
    with pytest.raises(ValueError, match="cannot rotate the keys of GPT2LMHeadModel"):
        make_cache(absolute, "fifo", "compact")
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(ValueError, match="cannot rotate the keys of LlamaForCausalLM"):
        make_cache(make_model(transformers.LlamaConfig(**SHAPE, rope_parameters=rope)), "fifo", "compact")
    with pytest.raises(ValueError, match="positions='moved'; use kept or compact"):
        make_cache(absolute, "fifo", "moved")


def test_generation_continues_past_the_limit(model):
    ids = text()[0][:1, :10]
    out = model.generate(ids, **{CACHE: make_cache(model, "scored", "compact")}, max_new_tokens=60, do_sample=False)
    assert out.shape[1] >= 11

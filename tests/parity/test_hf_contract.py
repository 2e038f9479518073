"""What `transformers` requires of its caches, as far as it applies to one that evicts; see docs/kv-cache.md."""

import copy

import pytest
import torch
import transformers
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.models.scorers.random import Noise

POLICIES = ["fifo", "scored", "h2o", "knorm"]
ROOMY, TIGHT = 64, 10
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    ),
    "gptj": lambda: transformers.GPTJConfig(vocab_size=50, n_embd=32, n_layer=2, n_head=4, rotary_dim=4),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4),
    "phi3": lambda: transformers.Phi3Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0
    ),
}


def make_model(name: str):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()  # gptj is eager in 5.2
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    return model


@pytest.fixture(scope="module")
def model():
    return make_model("llama")


def make_cache(model, policy: str = "fifo", capacity: int = ROOMY) -> VQMemCache:
    return VQMemCache(model, capacity, policy=policy, scorer=Noise(3), sinks=1, recent=3)


def prompt(rows: int = 1, length: int = 7) -> torch.Tensor:
    return torch.randint(1, 50, (rows, length), generator=torch.Generator().manual_seed(2))


def generate(model, cache, ids, tokens: int = 8, **kwargs):
    return model.generate(ids, **{CACHE: cache}, max_new_tokens=tokens, do_sample=False, **kwargs)


@pytest.mark.parametrize("name", CONFIGS)
def test_generation_with_the_cache_is_generation_without_one(name):
    model = make_model(name)
    plain = model.generate(prompt(2), max_new_tokens=8, do_sample=False, use_cache=False)
    assert torch.equal(generate(model, make_cache(model), prompt(2)), plain)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("capacity", [ROOMY, TIGHT])
def test_more_padding_on_the_left_changes_nothing(model, policy, capacity):
    ids = prompt(2)
    wanted = generate(model, make_cache(model, policy, capacity), ids)
    wide = torch.cat([torch.zeros(2, 9, dtype=torch.long), ids], dim=1)
    got = generate(model, make_cache(model, policy, capacity), wide, attention_mask=(wide > 0).long())
    assert torch.equal(got[:, 9:], wanted)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("capacity", [ROOMY, TIGHT])
def test_generation_continues_from_the_cache_it_returned(model, policy, capacity):
    wanted = generate(model, make_cache(model, policy, capacity), prompt(2), 12)
    first = generate(model, make_cache(model, policy, capacity), prompt(2), 5, return_dict_in_generate=True)
    assert isinstance(getattr(first, CACHE), VQMemCache)
    assert torch.equal(generate(model, getattr(first, CACHE), first.sequences, 7), wanted)


@pytest.mark.parametrize("policy", POLICIES)
def test_copies_of_a_prompt_serve_several_questions(model, policy):
    cache = make_cache(model, policy)
    with torch.no_grad():
        model(prompt(), **{CACHE: cache})
    for seed in range(2):
        question = torch.randint(1, 50, (1, 4), generator=torch.Generator().manual_seed(seed))
        ids = torch.cat([prompt(), question], dim=1)
        wanted = generate(model, transformers.DynamicCache(), ids)
        assert torch.equal(generate(model, copy.deepcopy(cache), ids), wanted)
    assert cache.get_seq_length() == prompt().shape[1]


@pytest.mark.parametrize("policy", POLICIES)
def test_beams_are_reordered(model, policy):
    out = generate(
        model, make_cache(model, policy), prompt(2), num_beams=3, num_return_sequences=2, return_dict_in_generate=True
    )
    wanted = generate(model, transformers.DynamicCache(), prompt(2), num_beams=3, num_return_sequences=2)
    assert any(len(set(row)) > 1 for row in (out.beam_indices[:, :8] % 3).tolist())
    assert torch.equal(out.sequences, wanted)


def test_lengths_and_sizes_of_the_cache(model):
    """Lengths count all tokens read, without a bound; `positions` and `nbytes` are of the cached tokens."""
    cache = make_cache(model, "fifo", TIGHT)
    assert not cache.is_initialized
    assert not cache.is_compileable
    assert len(cache) == 2
    assert cache.is_sliding == [False, False]
    for end in (6, 12, 13):
        with torch.no_grad():
            model(prompt(2, 13)[:, cache.get_seq_length() : end], **{CACHE: cache})
        assert [cache.get_seq_length(layer) for layer in range(2)] == [end, end]
        slots = min(end, TIGHT)
        assert [layer.keys.shape[-2] for layer in cache.layers] == [slots, slots]
        sizes = {layer.get_mask_sizes(4) for layer in cache.layers} | {cache.layers[0].get_mask_sizes(torch.arange(4))}
        assert sizes == {(slots + 4, end - slots)}
    bound = "get_max_cache_shape" if hasattr(cache, "get_max_cache_shape") else "get_max_length"
    assert getattr(cache, bound)() == getattr(transformers.DynamicCache(config=model.config), bound)()
    assert cache.is_initialized

"""`generate` through the cache: equal to `DynamicCache` while there is room, and rows keep their state when moved."""

import copy

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem import registry
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.models.scorers.random import Noise

POLICIES = [name for name in registry.names("policies") if "decay" not in registry.build("policies", name).requires]
SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, intermediate_size=48),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE, intermediate_size=48, num_key_value_heads=2),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SHAPE, intermediate_size=48),
}
MODES = {
    "greedy": {},
    "sampling": {"do_sample": True, "temperature": 1.5, "top_k": 20},
    "beam": {"num_beams": 3},
    "beam sampling": {"num_beams": 3, "do_sample": True, "num_return_sequences": 2},
    "chunked prefill": {"prefill_chunk_size": 4},
}


def make_model(name: str):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation="sdpa").eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture(scope="module")
def llama():
    return make_model("llama")


def prompt(rows: int = 3, length: int = 11) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    mask = (torch.arange(length) >= 4 * torch.arange(rows)[:, None]).long()
    return {"input_ids": torch.randint(1, 50, (rows, length), generator=generator) * mask, "attention_mask": mask}


def make_cache(model, policy="scored", capacity: int = 10, **kwargs) -> VQMemCache:
    policy = {"name": "oracle", "text": [*range(1, 50)]} if policy == "oracle" else policy
    return VQMemCache(model, capacity, policy=policy, scorer=Noise(3), **{"sinks": 1, "recent": 3} | kwargs)


def generate(model, cache, inputs, tokens: int = 12, **kwargs) -> torch.Tensor:
    torch.manual_seed(5)
    return model.generate(**inputs, **{CACHE: cache}, max_new_tokens=tokens, **kwargs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", ["scored", "h2o", "knorm"])
@pytest.mark.parametrize("name", CONFIGS)
def test_within_its_capacity_the_cache_gives_the_tokens_of_dynamic_cache(name, policy, mode):
    model, inputs = make_model(name), prompt()
    wanted = generate(model, transformers.DynamicCache(), inputs, **MODES[mode])
    assert torch.equal(generate(model, make_cache(model, policy, capacity=64), inputs, **MODES[mode]), wanted)


@pytest.mark.parametrize("policy", POLICIES)
def test_generation_that_evicts_equals_single_passes(llama, policy):
    inputs = prompt()
    got = generate(llama, make_cache(llama, policy), inputs)
    ids, mask, cache = inputs["input_ids"], inputs["attention_mask"], make_cache(llama, policy)
    new = ids
    with torch.no_grad():
        for _ in range(12):
            new = llama(new, attention_mask=mask, **{CACHE: cache}).logits[:, -1:].argmax(-1)
            ids, mask = torch.cat([ids, new], 1), torch.cat([mask, torch.ones_like(new)], 1)
    assert torch.equal(got, ids)


@pytest.mark.parametrize("policy", ["scored", "h2o"])
def test_beams_that_evict_have_their_log_likelihood(llama, policy):
    """Reading the tokens of a beam, pass by pass as they were generated, gives its log-likelihood."""
    inputs = prompt()
    out = generate(
        llama,
        make_cache(llama, policy),
        inputs,
        num_beams=3,
        length_penalty=0.0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    length, cache, total = inputs["input_ids"].shape[1], make_cache(llama, policy), torch.zeros(3)
    mask = torch.cat([inputs["attention_mask"], torch.ones(3, 12, dtype=torch.long)], dim=1)
    with torch.no_grad():
        logits = llama(inputs["input_ids"], attention_mask=inputs["attention_mask"], **{CACHE: cache}).logits
        for t in range(length, length + 12):
            new = out.sequences[:, t : t + 1]
            total += logits[:, -1].log_softmax(-1).gather(1, new)[:, 0]
            logits = llama(new, attention_mask=mask[:, : t + 1], **{CACHE: cache}).logits
    torch.testing.assert_close(out.sequences_scores, total, atol=1e-4, rtol=0)


MOVES = {
    "reorder_cache": lambda cache, rows: cache.reorder_cache(torch.tensor(rows)),
    "batch_select_indices": lambda cache, rows: cache.batch_select_indices(torch.tensor(rows)),
}


@torch.no_grad()
def continue_with(model, cache, rows: list[int], seed: int) -> tuple[torch.Tensor, list[list[int]]]:
    """Logits of twelve more tokens, which are the same for any rows."""
    ids = torch.randint(1, 50, (1, 12), generator=torch.Generator().manual_seed(seed)).expand(len(rows), -1)
    logits = [model(ids[:, i : i + 4], **{CACHE: cache}).logits for i in range(0, 12, 4)]
    return torch.cat(logits, 1), cache.positions


@torch.no_grad()
def after_prompt(model, policy: str, rows: list[int]) -> VQMemCache:
    cache = make_cache(model, policy)
    model(**{name: x[rows] for name, x in prompt().items()}, **{CACHE: cache})
    return cache


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("move", MOVES)
@given(rows=st.lists(st.integers(0, 2), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=6)
def test_moved_rows_continue_as_if_they_had_started_there(llama, policy, move, rows, seed):
    cache = after_prompt(llama, policy, [0, 1, 2])
    MOVES[move](cache, rows)
    logits, cached = continue_with(llama, cache, rows, seed)
    wanted, kept = continue_with(llama, after_prompt(llama, policy, rows), rows, seed)
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)
    assert cached == kept


@pytest.mark.parametrize("policy", POLICIES)
def test_repeated_rows_and_copies_continue_alike_and_reset_starts_again(llama, policy):
    cache = after_prompt(llama, policy, [0, 1, 2])
    twin = copy.deepcopy(cache)
    cache.batch_repeat_interleave(2)
    rows = [0, 0, 1, 1, 2, 2]
    logits, cached = continue_with(llama, cache, rows, 1)
    plain, kept = continue_with(llama, twin, [0, 1, 2], 1)
    torch.testing.assert_close(logits, plain[rows], atol=1e-5, rtol=0)
    assert cached == [kept[row] for row in rows]
    cache.reset()
    assert cache.get_seq_length() == 0
    assert cache.nbytes == 0
    reset, new = continue_with(llama, cache, [0], 2), continue_with(llama, make_cache(llama, policy), [0], 2)
    assert torch.equal(reset[0], new[0])
    assert reset[1] == new[1]

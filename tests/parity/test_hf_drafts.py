"""Tokens that are taken back: a cache goes on as if it had never read them, and drafts change no text."""

import copy

import pytest
import torch
import transformers
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.models.scorers.random import Noise

VOCAB, CAPACITY, BLOCK = 50, 24, 8
POLICIES = {name: name for name in ("fifo", "scored", "auto", "document")}
POLICIES["attention"] = {"name": "weighted", "expected": 1.0, "observed": 0.5, "norm": 0.2, "score": 0.0}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=VOCAB, num_key_value_heads=2, **shape)
    # In float32, passes of one token and of several differ by roundings that can decide which slot goes.
    model = transformers.LlamaForCausalLM(config).eval().double()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(3)
    # No text ends: 5.2 drafts only where there is an id that ends it.
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, VOCAB
    return model


def make(model, policy: str, **options) -> VQMemCache:
    settings = {"sinks": 2, "recent": 6, "block": BLOCK, "scorer": Noise(3)}
    return VQMemCache(model, CAPACITY, policy=POLICIES[policy], **settings | options)


@torch.no_grad()
@pytest.mark.parametrize("share", ["model", "layer", "head"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_cropped_cache_is_as_if_it_had_not_read_the_tokens(model, policy, share):
    ids = torch.randint(1, VOCAB, (2, 120), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    drafted, plain = (make(model, policy, share=share) for _ in range(2))
    start, crops = 0, 0
    for turn, size in enumerate([10, 40, *[1, 3, 2, 1, 1, 5] * 5]):
        stop = start + size
        passes = []
        for cache in (drafted, plain):
            given = {"attention_mask": mask[:, :stop], CACHE: cache}
            passes.append(model(ids[:, start:stop], **given).logits)
        torch.testing.assert_close(*passes, atol=1e-5, rtol=0)
        assert drafted.positions == plain.positions
        start = stop
        drafts = min(turn % 4, CAPACITY + BLOCK - 1 - len(drafted.layers[0].keys[0, 0]))
        if drafts > 0:
            others = ids[:, start : start + drafts].flip(0)
            longer = torch.cat([mask[:, :start], torch.ones_like(others)], dim=1)
            model(others, attention_mask=longer, **{CACHE: drafted})
            drafted.crop(-drafts)
            crops += 1
            assert drafted.stats()["read"] == plain.stats()["read"]
    assert crops > 10
    assert plain.stats()["evicted"][0] > 20


def assert_same(texts: list[torch.Tensor], kept: list) -> None:
    """Equal texts and kept tokens. A last draft may pass ``max_new_tokens`` in transformers 5.2."""
    length = texts[0].shape[1]
    assert torch.equal(texts[0], texts[1][:, :length])
    assert texts[1].shape[1] > length or kept[0] == kept[1]


@pytest.mark.parametrize("policy", POLICIES)
def test_prompt_lookup_generates_what_plain_decoding_does(model, policy):
    passes: list[int] = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        length = int(torch.randint(8, 60, (1,), generator=generator))
        ids = torch.randint(1, VOCAB, (1, 6), generator=generator).repeat(1, 10)[:, :length]
        texts, kept, counts = [], [], []
        for drafts in (None, 5):
            cache = make(model, policy)
            passes.clear()
            arguments = {"max_new_tokens": 60, "do_sample": False, "prompt_lookup_num_tokens": drafts}
            texts.append(model.generate(ids, **{CACHE: cache}, **arguments))
            kept.append(cache.positions)
            counts.append(len(passes))
        assert_same(texts, kept)
        assert counts[1] < counts[0], "some drafts were accepted"
    handle.remove()
    assert "_get_candidate_generator" in vars(model)
    del cache
    assert "_get_candidate_generator" not in vars(model)


def test_drafts_that_could_not_be_taken_back_are_refused(model):
    ids = torch.arange(1, 9).repeat(1, 3)
    arguments = {"max_new_tokens": 9, "prompt_lookup_num_tokens": 3}
    for options, reason in (
        (
            {"policy": "h2o", "block": 8},
            r"\Apolicy .*h2o.* looks at each pass and cannot take back rejected drafts; use",
        ),
        ({"policy": "fifo"}, r"\Ablock=1 leaves no room for drafts once the cache is full; give block=32\Z"),
    ):
        with pytest.raises(ValueError, match=reason):
            model.generate(ids, **{CACHE: VQMemCache(model, 16, **options)}, **arguments)


@torch.no_grad()
def test_slots_are_allocated_once_and_written_in_place(model):
    model = copy.deepcopy(model).float()
    cache = make(model, "auto")
    ids = torch.randint(1, VOCAB, (1, 400), generator=torch.Generator().manual_seed(2))
    model(ids[:, :200], **{CACHE: cache})
    places = set()
    for token in ids[:, 200:].split(1, dim=1):
        model(token, **{CACHE: cache})
        places.add(tuple(layer.keys.data_ptr() for layer in cache.layers))
    assert len(places) == 1
    assert {layer.keys.untyped_storage().nbytes() for layer in cache.layers} == {2 * 8 * 4 * (CAPACITY + BLOCK)}


@torch.no_grad()
@pytest.mark.parametrize("policy", ["fifo", "auto"])
@pytest.mark.parametrize("capacity", [CAPACITY, 200, 0.25, 0.9])
def test_drafts_continue_a_cache_that_has_read_a_prefix(model, policy, capacity):
    generator = torch.Generator().manual_seed(3)
    start = torch.randint(1, VOCAB, (1, 6), generator=generator)
    prompt = torch.cat([start.repeat(1, 8)[:, :44], start], dim=1)
    for prefix in (0, 40):
        texts, kept = [], []
        for drafts in (None, 5):
            options = {"sinks": 2, "recent": 3, "block": BLOCK, "scorer": Noise(3)}
            cache = VQMemCache(model, capacity, policy=policy, **options)
            if prefix:
                model(prompt[:, :prefix], **{CACHE: cache})
            arguments = {"max_new_tokens": 30, "do_sample": False, "prompt_lookup_num_tokens": drafts}
            texts.append(model.generate(prompt, **{CACHE: cache}, **arguments))
            kept.append(cache.positions)
            assert cache.stats()["read"] == [texts[-1].shape[1] - 1]
        assert_same(texts, kept)


def test_an_assistant_that_samples_drafts_too(model):
    cache = make(model, "fifo")
    ids = torch.arange(1, 31)[None]
    text = model.generate(ids, **{CACHE: cache}, max_new_tokens=60, do_sample=True, assistant_model=model)
    assert text.shape[1] == 90


@pytest.mark.parametrize("policy", ["fifo", "auto"])
@pytest.mark.parametrize("length", [10, 28, 60])
def test_a_prompt_may_be_read_in_inference_mode(model, policy, length):
    ids = torch.randint(1, VOCAB, (1, length + 40), generator=torch.Generator().manual_seed(4))
    mixed, plain = make(model, policy), make(model, policy)
    with torch.inference_mode():
        model(ids[:, :length], **{CACHE: mixed})
    with torch.no_grad():
        model(ids[:, :length], **{CACHE: plain})
        for token in ids[:, length:].split(1, dim=1):
            logits = [model(token, **{CACHE: cache}).logits for cache in (mixed, plain)]
            torch.testing.assert_close(*logits, atol=1e-6, rtol=0)


def test_gradients_are_those_of_keys_that_are_copied(model):
    ids = torch.randint(1, VOCAB, (1, 40), generator=torch.Generator().manual_seed(5))
    gradients = []
    weight = model.model.layers[0].self_attn.q_proj.weight
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("q_proj" in name)
    for cache in (make(model, "fifo", block=1), transformers.DynamicCache()):
        logits = [model(part, **{CACHE: cache}).logits for part in ids[:, :20].split(10, dim=1)]
        torch.cat(logits, dim=1).logsumexp(-1).sum().backward()
        gradients.append(weight.grad.clone())
        weight.grad = None
    model.requires_grad_(False)
    torch.testing.assert_close(*gradients)


@torch.no_grad()
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_cache_whose_pass_did_not_end_is_not_saved_copied_or_cropped(model, tmp_path, error):
    def stop(*_):
        raise error

    cache, ids = make(model, "fifo"), torch.ones(1, 40, dtype=torch.long)
    model(ids, **{CACHE: cache})
    handle = model.lm_head.register_forward_pre_hook(stop)
    with pytest.raises(error):
        model(ids, **{CACHE: cache})
    handle.remove()
    for action in (
        lambda: cache.save(tmp_path / "x.safetensors"),
        lambda: copy.deepcopy(cache),
        lambda: cache.crop(-1),
    ):
        with pytest.raises(ValueError, match="the last pass of the model through this cache did not end; call reset"):
            action()
    cache.reset()
    model(ids, **{CACHE: cache})

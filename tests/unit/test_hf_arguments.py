"""The arguments of a cache, its representation, and the names by which a model takes it."""

import inspect
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from vqmem import registry
from vqmem.artifacts import save_model
from vqmem.memory.bank import Memory
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.policies.oracle import Policy as Oracle
from vqmem.memory.policy import Guard
from vqmem.models.scorers.random import Noise
from vqmem.models.scorers.reuse import Scorer as ReuseScorer
from vqmem.models.speech.frame_scorer import FrameScorer
from vqmem.models.vq_lm import VQLM, VQLMConfig
from vqmem.recipes.engine.config import dump
from vqmem.recipes.frame_scorer.recipe import Config as FrameConfig

NAMES = inspect.signature(transformers.LlamaForCausalLM.forward).parameters.keys() & {"cache", "past_key_values"}
FRAMES = VQLMConfig(frame_dim=4, dim=8, hidden=8, codes=4)


def llama(vocab_size: int = 50):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=vocab_size, **shape)).eval()


@pytest.fixture(scope="module")
def model():
    return llama()


def scorer(name: str = "unigram", vocab_size: int = 50, **kwargs):
    return registry.build("scorers", {"name": name, **kwargs}).build(vocab_size)


def refusal(make, *args, **kwargs) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as refused:  # a single line
        make(*args, **kwargs)
    return str(refused.value)


NOT_INTEGERS = {
    "0.25": 0.25,
    "300.7": 300.7,
    "'256'": "256",
    "None": None,
    "True": True,
    "nan": float("nan"),
    "inf": float("inf"),
    "[8]": [8],
    "np.True_": np.True_,
    "tensor(True)": torch.tensor(True),
    "tensor(2.5000)": torch.tensor(2.5),
    str(2**63): 2**63,
}


@pytest.mark.parametrize("value", NOT_INTEGERS.values(), ids=NOT_INTEGERS)
def test_sizes_that_are_no_integers_are_refused(model, value):
    message = " is not an integer number of tokens; give one, such as 256"
    if not isinstance(value, str) and value != 0.25:  # the capacity may be a share of the prompt
        assert refusal(VQMemCache, model, value, policy="fifo").endswith(message)
    assert refusal(Memory, value).startswith("capacity=")
    if value is not None:
        assert refusal(VQMemCache, model, 64, policy="fifo", block=value).startswith("block=")
    for name in ("sinks", "recent"):
        if value is not None or name == "sinks":  # the others have defaults that depend on the rest
            assert refusal(VQMemCache, model, 64, policy="fifo", **{name: value}).startswith(f"{name}=")
        assert refusal(Guard, **{name: value}).endswith(message)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"capacity": 0}, "capacity=0; a memory needs at least 1 slot"),
        ({"capacity": -5}, "capacity=-5; a memory needs at least 1 slot"),
        ({"capacity": 64, "sinks": -1}, "guards cannot be negative: sinks=-1"),
        ({"capacity": 64, "recent": -1}, "guards cannot be negative: sinks=4, recent=-1"),
        ({"capacity": 64, "sinks": 100}, "guards (sinks=100 + recent=0 = 100) exceed the 64 slots"),
        ({"capacity": 64, "recent": 100}, "guards (sinks=4 + recent=100 = 104) exceed the 64 slots"),
    ],
)
def test_sizes_out_of_range_are_refused(model, kwargs, named):
    assert refusal(VQMemCache, model, policy="fifo", **kwargs).startswith(named)


@pytest.mark.parametrize("value", [16, 16.0, np.int64(16), np.uint8(16), np.float64(16), torch.tensor(16)])
def test_integers_of_any_library_are_taken(model, value):
    memory = VQMemCache(model, value, policy="fifo", sinks=value / 4 if isinstance(value, float) else 4).memory
    assert (memory.capacity, memory.guard) == (16, Guard(4, 6))
    assert type(memory.capacity) is type(memory.guard.sinks) is int


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        (3, "policy=3 is not a policy"),
        (["fifo"], "policy=['fifo'] is not a policy"),
        (torch.ones(30, 30), "policy=tensor([[1., 1."),
        (Noise(0), "policy=Noise() is not a policy"),
        (Oracle, "policy=<class 'vqmem.memory.policies.oracle.Policy'> is not a policy"),
        ("", "unknown policy ''"),
        ("fivo", "unknown policy 'fivo'; did you mean fifo?"),
        ({}, "policy {} has no name"),
        ({"name": 3}, "policy {'name': 3} has no name"),
        ({"name": "scored", "weigth": 1}, "unknown key 'scored.weigth'"),
        ({"name": "scored", "window": "a"}, "scored.window = 'a' is not an integer"),
        ("oracle", "policy oracle looks ahead and gives an upper bound for analyses"),
        (Oracle(), "policy oracle looks ahead"),
        ("forget_gate", "policy forget_gate reads the decay of forget gates, which pretrained models do not have"),
    ],
)
def test_what_is_no_policy_is_refused(model, policy, named):
    assert refusal(VQMemCache, model, 64, policy=policy, scorer=Noise(0)).startswith(named)


def test_a_memory_refuses_parts_that_are_something_else():
    assert refusal(Memory, 8, policy="fifo").startswith("policy='fifo' is not a policy; give what vqmem.registry.build")
    assert refusal(Memory, 8, compression="drop").startswith("compression='drop' is not a compression")
    assert refusal(Memory, 8, guard=(4, 2)).startswith("guard=(4, 2) is not a guard; give a Guard")
    assert refusal(registry.build, "policies", 3).startswith("policy 3 has no name")


def test_the_oracle_takes_its_text_as_it_comes(model):
    text = [3, 1, 2]
    policy = VQMemCache(model, 8, policy={"name": "oracle", "text": text}).memory.policy
    for given in (text, np.array(text), torch.tensor(text)):
        made = Oracle()
        object.__setattr__(made, "text", given)  # as it comes where types are not checked
        made.__post_init__()
        assert made == policy
        assert hash(made) == hash(policy)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (3, "scorer=3 is not a scorer (of type int)"),
        ([Noise(0)], "scorer=[Noise()] is not a scorer (of type list)"),
        ({"name": "vq_lm"}, "scorer={'name': 'vq_lm'} is not a scorer (of type dict)"),
        (Noise, "scorer=<class 'vqmem.models.scorers.random.Noise'> is not a scorer (the class Noise)"),
        (registry.build("scorers", "unigram"), "scorer=Scorer(smoothing=1.0) is not a scorer (of type Scorer)"),
        (torch.nn.Linear(2, 2), "scorer=Linear("),
        (VQLM(FRAMES), "scorer=VQLM reads frames of recordings, not token ids"),
        (FrameScorer("log_mel", FRAMES), "scorer=FrameScorer reads frames of recordings, not token ids"),
    ],
)
def test_what_is_no_scorer_of_tokens_is_refused(model, given, named):
    assert refusal(VQMemCache, model, 64, scorer=given).startswith(named)


@pytest.mark.parametrize(
    ("known", "ids", "fits"),
    [
        (1_024, 49_152, False),  # of another tokenizer
        (32_000, 49_152, False),
        (100_277, 128_256, False),
        (50_257, 49_152, False),  # has ids that the model does not have
        (49_153, 49_152, False),
        (49_152, 49_152, True),
        (50_257, 50_304, True),  # GPT-2's tokenizer with GPT-NeoX's padding
        (50_295, 51_200, True),  # phi-2
        (151_665, 152_064, True),  # Qwen 2.5
        (300, 384, True),
        (40, 50, True),
        (10, 50, False),
    ],
)
def test_a_scorer_of_another_vocabulary_is_refused(model, monkeypatch, known, ids, fits):
    monkeypatch.setattr(model.config, "vocab_size", ids)
    if fits:
        assert VQMemCache(model, 64, scorer=scorer(vocab_size=known)).scorer.vocab_size == known
    else:
        message = f"the scorer knows {known:,} token ids and LlamaForCausalLM has {ids:,}"
        assert refusal(VQMemCache, model, 64, scorer=scorer(vocab_size=known)).startswith(message)


def test_the_folder_of_a_run_is_its_scorer(model, tmp_path, monkeypatch):
    run = tmp_path / "reuse"
    made = scorer("reuse", dim=4, hidden=8)
    fields = {"scorer": {"name": "reuse", "dim": 4, "hidden": 8}, "vocab_size": 50}
    save_model(run / "scorer", "scorers/reuse", fields, made)
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (run, str(run), "~/reuse"):
        cache = VQMemCache(model, 64, policy=None, scorer=folder)
        assert torch.equal(cache.scorer.head[0].weight, made.head[0].weight)
        assert cache.memory.policy == registry.build("policies", ReuseScorer.policy)
        mixed = VQMemCache(model, 64, scorer=folder).memory.policy
        assert (mixed.reuse, mixed.surprise, mixed.score) == (1.0, 0.0, 0.2), "the signal that suits the scorer"
    assert "did you mean" in refusal(VQMemCache, model, 64, scorer=tmp_path / "reuze")
    assert "not found; " in refusal(VQMemCache, model, 64, scorer="vq_lm")
    config = json.loads((run / "scorer" / "config.json").read_text())
    (run / "scorer" / "config.json").write_text(json.dumps(config | {"kind": "other"}))
    assert "is damaged or was edited" in refusal(VQMemCache, model, 64, scorer=run)


@pytest.mark.parametrize("value", ["256", "64", "MB", "-5MB", "64 bytes", ""])
def test_texts_that_are_no_size_are_refused(model, value):
    assert refusal(VQMemCache, model, value, policy="fifo").startswith(
        f"capacity={value!r} is not a size; give tokens (256)"
    )


@torch.no_grad()
@pytest.mark.parametrize("share", ["model", "layer", "head"])
@pytest.mark.parametrize("storage", ["full", "int8"])
def test_a_capacity_in_bytes_bounds_the_bytes(model, share, storage):
    cache = VQMemCache(model, "24kB", policy="knorm", share=share, storage=storage)
    name = min(NAMES)
    for part in torch.arange(400).remainder(50)[None].split(20, 1):
        model(part, **{name: cache})
    slot = cache.nbytes / (cache.memory.capacity + 1)
    assert 24_000 - 3 * slot < cache.nbytes - cache._state.memory.moments.nbytes <= 24_000
    assert "has no room for 2 tokens of this model" in refusal(VQMemCache, model, "10B", policy="knorm")
    assert VQMemCache(model, "24kB", block=1).memory.guard.recent < 32, "guards of a preset give way"
    assert VQMemCache(model, "0.5 MiB", policy="fifo").memory.capacity == 2**19 // (2 * 2 * 4 * 8 * 4 + 37) - 1


@torch.no_grad()
def test_a_capacity_that_is_a_share_waits_for_the_prompt(model):
    ids = torch.arange(80).remainder(50)[None]
    name = min(NAMES)
    cache = VQMemCache(model, 0.25, policy="knorm")
    assert "capacity=0.25 of the prompt, " in repr(cache)
    model(ids, **{name: cache})
    assert cache.stats()["kept"] == [20]
    cache.reset()
    model(ids[:, :40], **{name: cache})
    assert cache.stats()["kept"] == [10]
    cache = VQMemCache(model, 0.25, policy="knorm")
    model.generate(ids, **{name: cache}, max_new_tokens=3, do_sample=False, prefill_chunk_size=16, pad_token_id=0)
    assert cache.stats()["kept"] == [20], "of the full prompt, although it came in parts"
    cache = VQMemCache(model, 0.25)
    model(ids[:, :8], **{name: cache})
    assert cache.memory.capacity == 2, "guards give way in a short prompt"


@torch.no_grad()
def test_statistics_say_what_was_read_and_is_kept(model):
    cache, mask = VQMemCache(model, 8, policy="fifo"), torch.tensor([[1] * 20, [0] * 15 + [1] * 5])
    assert cache.stats() == {"read": [], "kept": [], "evicted": [], "bytes": 0, "layers": [0, 0]}
    model(torch.ones(2, 20, dtype=torch.long), attention_mask=mask, **{min(NAMES): cache})
    stats = cache.stats()
    assert (stats["read"], stats["kept"], stats["evicted"]) == ([20, 5], [8, 5], [12, 0])
    assert stats["bytes"] == cache.nbytes > sum(stats["layers"]) > 0


@torch.no_grad()
@pytest.mark.parametrize("policy", ["auto", "stream", "document"])
def test_presets_work_at_once(policy):
    """With the packaged scorer where the tokenizer is given, without it where it is not."""
    model, text = llama(300), "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail."
    tokenizer = registry.build("front-ends", "bytes").fit([])
    ids = tokenizer.encode(text).ids[None]
    for given in ((tokenizer,), ()):
        cache = VQMemCache(model, *given, 40, policy=policy)
        scored = bool(given) and policy != "document"
        assert (cache.scorer is not None) == scored
        assert (cache.memory.policy.score > 0) == scored
        text = model.generate(ids, **{min(NAMES): cache}, max_new_tokens=60, do_sample=False, pad_token_id=0)
        assert text.shape[1] == ids.shape[1] + 60
        assert 40 <= cache.stats()["kept"][0] < 40 + cache.block
        assert (cache.groups.share, cache.block) == ("head", 32)
    mine = VQMemCache(model, tokenizer, capacity=40, policy=policy, share="layer", block=1, recent=7)
    assert (mine.groups.share, mine.block, mine.memory.guard.recent) == ("layer", 1, 7)


def test_a_preset_does_without_queries_that_are_not_found(model):
    other = llama()
    for layer in other.model.layers:
        layer.self_attn.query = layer.self_attn.q_proj
        del layer.self_attn.q_proj
    assert VQMemCache(other, 64).memory.policy.attention_signals == ("keydiff", "norm")
    assert VQMemCache(model, 64).memory.policy.attention_signals == ("expected", "observed", "keydiff", "norm")


def test_the_run_of_a_frame_scorer_is_refused(model, tmp_path):
    frames = FrameScorer("log_mel", FRAMES)
    save_model(tmp_path / "model", "frame_scorer", frames.fields(), frames)
    (tmp_path / "config.yaml").write_text(dump(FrameConfig()))
    (tmp_path / "evaluation.json").write_text("{}")
    assert "is not a scorer, but " in refusal(VQMemCache, model, 64, scorer=tmp_path)


def test_the_representation_has_policy_sizes_and_tokens(model):
    cache = VQMemCache(model, 16, policy=None, scorer=scorer("reuse"))
    policy = "scored(surprise=0.0, reuse=1.0, scale='raw')"
    settings = f"policy={policy}, capacity=16, sinks=4, recent=6, share=model, block=1"
    assert repr(cache) == f"VQMemCache(LlamaForCausalLM, {settings}: 0 tokens read, 0 kept, 0 bytes)"
    with torch.no_grad():
        model(torch.arange(40)[None], **{min(NAMES): cache})
    assert repr(cache).endswith(f"block=1: 40 tokens read, 16 kept, {cache.nbytes:,} bytes)")
    assert repr(VQMemCache(model, 1_000, policy="fifo")).startswith(
        "VQMemCache(LlamaForCausalLM, policy=fifo(), capacity=1000"
    )


@torch.no_grad()
@pytest.mark.parametrize("policy", ["fifo", "h2o"])
def test_a_model_takes_it_by_the_old_name_by_the_new_one_and_by_position(model, policy):
    """The new name without a warning; the old one works wherever `transformers` knows it."""
    ids, logits, texts = torch.arange(1, 25)[None], [], []
    for name in ("past_key_values", *NAMES):
        with warnings.catch_warnings():
            warnings.simplefilter("error" if name in NAMES else "ignore", FutureWarning)
            cache = VQMemCache(model, 8, policy=policy)
            logits.append([model(part, **{name: cache}).logits for part in ids.split(12, 1)])
            assert cache.get_seq_length() == 24
            cache = VQMemCache(model, 8, policy=policy)
            texts.append(model.generate(ids, **{name: cache}, max_new_tokens=9, do_sample=False, pad_token_id=0))
            assert max(map(len, cache.positions)) == 8
    cache = VQMemCache(model, 8, policy=policy)
    logits.append([model(part, None, None, cache).logits for part in ids.split(12, 1)])
    for parts in logits[1:]:
        torch.testing.assert_close(parts, logits[0])
    assert all(torch.equal(text, texts[0]) for text in texts)


def test_pages_teach_the_new_name_and_mention_the_old_one():
    root = Path(__file__).parents[2]
    for page in (root / "README.md", root / "docs" / "kv-cache.md"):
        text = page.read_text(encoding="utf-8")
        assert "cache=cache" in text
        assert text.count("past_key_values") == 1


@torch.no_grad()
def test_a_share_of_a_prompt_in_passes_is_of_all_of_them(model):
    cache = VQMemCache(model, 0.5, policy="fifo", sinks=1, recent=1, block=32)
    for part in torch.arange(320).remainder(50)[None].split(32, dim=1):
        model(part, **{min(NAMES): cache})
    assert cache.memory.capacity == 160

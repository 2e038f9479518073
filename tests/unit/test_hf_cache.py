"""The cache's edges: what it refuses, what it stores, and what it leaves on the model."""

import copy
import dataclasses
import gc
import subprocess
import sys
from typing import ClassVar

import pytest
import torch
import transformers
from vqmem import registry
from vqmem.memory.bank import Memory
from vqmem.memory.compression.drop import Compression as Drop
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.memory.huggingface.eviction import add_slots
from vqmem.memory.policies.h2o import Policy as H2O
from vqmem.models.memory_transformer import MemoryTransformer, TransformerConfig
from vqmem.models.scorers.random import Noise
from vqmem.recipes.lm.strategies import Strategy

SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def llama(**kwargs):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SHAPE, intermediate_size=48, num_key_value_heads=2)
    return transformers.AutoModelForCausalLM.from_config(config, **{"attn_implementation": "sdpa"} | kwargs).eval()


@pytest.fixture(scope="module")
def model():
    return llama()


def ids(rows: int = 2, length: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 50, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def read(model, cache, tokens, **kwargs):
    return model(tokens, **{CACHE: cache}, **kwargs).logits


def small(kind: str, **kwargs):
    """A model of another architecture, as small as it goes."""
    config = getattr(transformers, f"{kind}Config")(**kwargs)
    cls = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    return cls.from_config(config)


LOCAL = [[["global", "local"], 1]]
REFUSED = {
    "ALiBi": lambda: small("Bloom", vocab_size=50, hidden_size=32, n_layer=1, n_head=2),
    "MPT's ALiBi": lambda: small("Mpt", vocab_size=50, d_model=32, n_layers=1, n_heads=2),
    "Falcon with ALiBi": lambda: small(
        "Falcon", vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, alibi=True
    ),
    "sliding windows": lambda: small("Mistral", **SHAPE, intermediate_size=48, num_key_value_heads=2, sliding_window=8),
    "local attention": lambda: small("GPTNeo", hidden_size=32, num_layers=2, num_heads=2, attention_types=LOCAL),
    "an encoder": lambda: small("T5", vocab_size=50, d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=2),
    "recurrent state": lambda: small("Mamba", vocab_size=50, hidden_size=32, num_hidden_layers=1, state_size=4),
    "attention and recurrent layers": lambda: small(
        "Jamba", **SHAPE, intermediate_size=48, num_key_value_heads=2, num_experts=2, use_mamba_kernels=False
    ),
}
REASONS = {
    "ALiBi": "ALiBi",
    "MPT's ALiBi": "ALiBi",
    "Falcon with ALiBi": "ALiBi",
    "sliding windows": "SlidingWindow",
    "local attention": "local attention",
    "an encoder": "encoder-decoder",
    "recurrent state": "recurrent state|Linear",
    "attention and recurrent layers": "recurrent state|Linear",
}


@pytest.mark.parametrize("what", REFUSED)
def test_models_that_cannot_work_are_refused_with_the_reason(what):
    with pytest.raises(ValueError, match=REASONS[what]) as error:
        VQMemCache(REFUSED[what](), 8, policy="fifo")
    assert "\n" not in str(error.value)


def test_what_is_no_model_is_refused(model):
    with pytest.raises(ValueError, match="model=str is not a transformers model"):
        VQMemCache("gpt2", 8, policy="fifo")
    with pytest.raises(ValueError, match="LlamaModel cannot generate"):
        VQMemCache(model.model, 8, policy="fifo")


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"capacity": 0}, "capacity=0"),
        ({"capacity": 4, "sinks": 3, "recent": 2}, r"sinks=3 \+ recent=2 = 5\) exceed the 4 slots"),
        ({"capacity": 8, "policy": "scored"}, "policy scored needs scores; give scorer="),
        ({"capacity": 8, "policy": "fivo"}, "did you mean fifo"),
        ({"capacity": 8, "policy": {"name": "lru", "top": 0}}, "top=0"),
        ({"capacity": 8, "policy": {"name": "snapkv", "kernel": 4}}, "kernel=4"),
    ],
)
def test_bad_arguments_are_named(model, kwargs, named):
    with pytest.raises(ValueError, match=named):
        VQMemCache(model, **kwargs)


def test_by_default_half_of_what_the_sinks_leave_is_recent(model):
    cache = VQMemCache(model, 64, policy=H2O())
    assert (cache.memory.guard.sinks, cache.memory.guard.recent) == (4, 30)
    assert VQMemCache(model, 64, policy={"name": "lru", "top": 3}).memory.policy.top == 3


@pytest.mark.parametrize("policy", ["fifo", "scored", "h2o", "knorm"])
def test_bytes_stay_within_the_capacity_and_one_chunk(model, policy):
    """At every moment: storages are counted inside the pass too, after each layer."""
    cache, most = VQMemCache(model, 16, policy=policy, scorer=Noise(0)), []
    handles = [layer.register_forward_hook(lambda *_: most.append(stored(cache))) for layer in model.model.layers]
    a_token = 2 * 2 * 2 * 8 * 4 * 3  # layers, keys and values, heads, width, bytes, rows
    for start in range(20):
        read(model, cache, ids(3, 5, start))
        assert stored(cache) <= (16 + 1) * a_token
    assert max(most) <= (16 + 5) * a_token
    bookkeeping = cache.nbytes - stored(cache)
    assert bookkeeping < 3 * 16 * 64 + 300  # of each slot, and the moments
    for handle in handles:
        handle.remove()


def stored(cache) -> int:
    """Bytes of the storages behind keys and values."""
    layers = [layer for layer in cache.layers if layer.is_initialized]
    return sum(x.untyped_storage().nbytes() for layer in layers for x in (layer.keys, layer.values))


def test_a_long_prompt_is_evicted_layer_by_layer_where_the_policy_allows(model):
    peaks = {}
    for policy in ("scored", "h2o"):
        cache, most = VQMemCache(model, 16, policy=policy, scorer=Noise(0)), []
        handle = model.model.layers[-1].register_forward_pre_hook(lambda *_, c=cache, m=most: m.append(stored(c)))
        read(model, cache, ids(1, 100))
        handle.remove()
        peaks[policy] = most[0]
    assert peaks["scored"] * 6 < peaks["h2o"]  # the first layer has 16 slots or 100 when the second begins


def test_crop_goes_back_until_something_is_evicted(model):
    tokens = ids(2, 9)
    cache, short = (VQMemCache(model, 10, policy="scored", scorer=Noise(0)) for _ in range(2))
    read(model, cache, tokens)
    cache.crop(-3)
    assert cache.get_seq_length() == 6
    cache.crop(0)
    cache.crop(6)
    read(model, short, tokens[:, :6])
    more = ids(2, 8, 1)
    torch.testing.assert_close(read(model, cache, more), read(model, short, more), atol=1e-5, rtol=0)
    assert cache.positions == short.positions
    with pytest.raises(
        ValueError, match=r"crop by 1 tokens cannot go back: tokens were evicted when all but the last 0 had"
    ):
        cache.crop(-1)
    observed = VQMemCache(model, 10, policy="h2o")
    read(model, observed, tokens)
    with pytest.raises(ValueError, match="cannot take back what the policy has seen of them"):
        observed.crop(-1)


def test_other_models_and_other_rows_are_refused(model):
    cache = VQMemCache(model, 10, policy="fifo")
    with pytest.raises(ValueError, match="belongs to another model"):
        read(llama(), cache, ids())
    read(model, cache, ids(2))
    with pytest.raises(ValueError, match="batch size of 2 but the model was given one of 3"):
        read(model, cache, ids(3))


@pytest.mark.parametrize("shape", [(2, 7), (3, 9), (2, 1, 9, 9)])
def test_masks_that_do_not_fit_are_refused(model, shape):
    with pytest.raises(ValueError, match="attention_mask has the shape"):
        read(model, VQMemCache(model, 10, policy="fifo"), ids(), attention_mask=torch.ones(shape))


def test_embeddings_are_taken_unless_the_policy_needs_scores(model):
    tokens = ids()
    embeds = model.get_input_embeddings()(tokens).detach()
    plain, given = VQMemCache(model, 10, policy="fifo"), VQMemCache(model, 10, policy="fifo")
    read(model, plain, tokens)
    with torch.no_grad():
        model(inputs_embeds=embeds, **{CACHE: given})
    assert plain.positions == given.positions
    with pytest.raises(ValueError, match="scores need token ids"):
        model(inputs_embeds=embeds, **{CACHE: VQMemCache(model, 10, policy="scored", scorer=Noise(0))})


def test_a_failed_pass_is_an_error_until_reset(model):
    cache = VQMemCache(model, 10, policy="h2o")
    read(model, cache, ids())
    implementation = model.config._attn_implementation

    def fail(*_):
        raise RuntimeError("out of memory")

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        read(model, cache, ids())
    handle.remove()
    assert model.config._attn_implementation == implementation
    with pytest.raises(ValueError, match="did not end; call reset"):
        read(model, cache, ids())
    cache.reset()
    read(model, cache, ids())


def test_nothing_is_left_on_the_model():
    model = llama()
    cache = VQMemCache(model, 10, policy="h2o")
    read(model, cache, ids())
    assert model.config._attn_implementation == "sdpa"
    assert model._forward_pre_hooks
    del cache
    gc.collect()
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    cache = VQMemCache(model, 10, policy="fifo")
    cache.close()
    assert not model._forward_pre_hooks


def test_passes_without_the_cache_are_left_alone(model):
    tokens = ids()
    plain = model(tokens).logits
    cache = VQMemCache(model, 10, policy="h2o")
    assert torch.equal(model(tokens).logits, plain)
    assert cache.get_seq_length() == 0


def test_two_caches_of_one_model_do_not_disturb_each_other(model):
    first, second, alone = (VQMemCache(model, 10, policy="h2o") for _ in range(3))
    for seed in range(3):
        read(model, first, ids(2, 6, seed))
        read(model, second, ids(1, 4, seed + 9))
        read(model, alone, ids(2, 6, seed))
    assert first.positions == alone.positions


@pytest.mark.parametrize("policy", ["fifo", "h2o"])
def test_eager_attention_gives_the_same(policy):
    plain, eager = llama(), llama(attn_implementation="eager")
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :5] = 0
    caches = [VQMemCache(x, 10, policy=policy) for x in (plain, eager)]
    for start in range(0, 20, 5):
        chunk = {"tokens": ids(2, 5, start), "attention_mask": mask[:, : start + 5]}
        logits = [read(x, c, **chunk) for x, c in zip((plain, eager), caches, strict=True)]
        real = mask[:, start : start + 5].bool()
        torch.testing.assert_close(logits[0][real], logits[1][real], atol=1e-5, rtol=0)
    assert caches[0].positions == caches[1].positions


@dataclasses.dataclass(frozen=True)
class ShortKeys:
    """`knorm` as a policy that scores each layer itself."""

    requires: ClassVar = ("layers",)

    def layers(self, model):
        return [layer.self_attn for layer in model.model.layers]

    def score_layer(self, layer, inputs, keys, values, attention):
        assert inputs["hidden_states"].shape[1] <= keys.shape[2]
        return -keys.norm(dim=-1)

    def priority(self, slots, now):
        return slots.usage


@pytest.mark.parametrize("name", registry.names("scorers"))
def test_ids_that_the_scorer_does_not_know_are_kept_from_it(model, name):
    """As with a padded embedding: they get zeros, and the tokens after them are scored as if they were not there."""
    torch.manual_seed(0)
    scorer, tokens = registry.build("scorers", name).build(40), ids() % 40
    known = VQMemCache(model, 20, policy=None, scorer=scorer)
    read(model, known, tokens)
    odd = VQMemCache(model, 20, policy=None, scorer=scorer)
    read(model, odd, torch.cat([tokens[:, :4], torch.tensor([[40], [49]]), tokens[:, 4:]], dim=1))
    scores, others = (add_slots(cache, cache._state).memory.slots.scores for cache in (known, odd))
    if hasattr(scorer, "vocab_size"):
        assert (others[:, 4] == 0).all()
        torch.testing.assert_close(torch.cat([others[:, :4], others[:, 5:]], dim=1), scores, atol=1e-5, rtol=0)
    assert scores.any()


def test_a_policy_may_score_layers(model):
    inside, outside = VQMemCache(model, 10, policy=ShortKeys()), VQMemCache(model, 10, policy="knorm")
    for start in range(4):
        torch.testing.assert_close(read(model, inside, ids(2, 6, start)), read(model, outside, ids(2, 6, start)))
        assert inside.positions == outside.positions
    twin = copy.deepcopy(inside)
    read(model, inside, ids(2, 6, 9))
    read(model, twin, ids(2, 6, 9))
    assert twin.positions == inside.positions
    hooks = [layer.self_attn._forward_hooks for layer in model.model.layers]
    assert all(hooks)
    inside.close()
    twin.close()
    assert not any(hooks)


def test_the_trained_memory_refuses_a_policy_that_looks_into_layers():
    with pytest.raises(ValueError, match=r"strategy 'mine': its policy looks into the layers .*VQMemCache"):
        Strategy("mine", ShortKeys(), Drop())
    transformer = MemoryTransformer(TransformerConfig(50, layers=1, dim=16, heads=2))
    with pytest.raises(ValueError, match=r"requires 'layers'.*VQMemCache"):
        transformer(ids(), torch.arange(9).expand(2, 9), need=Memory(4, ShortKeys()).requires)


def test_only_the_cache_imports_transformers():
    code = "import sys, vqmem.memory.bank, vqmem.registry as r; [r.load('policies', n) for n in r.names('policies')]"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'transformers' not in sys.modules"], check=True)


def test_without_transformers_the_extra_is_named():
    code = "import sys; sys.modules['transformers'] = None; import vqmem.memory.huggingface.cache"
    message = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stderr
    assert "vqmem.memory.huggingface.cache needs transformers; run `pip install 'vqmem[hf]'`" in message

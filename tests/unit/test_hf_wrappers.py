"""The cache with wrappers, copies and presses of a model, and a cache that was used before."""

import copy
import io
import pickle
import subprocess
import sys
import types

import pytest
import torch
import transformers
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.models.scorers.random import Noise

SHAPE = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, num_attention_heads=4, num_key_value_heads=2),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4),
    "opt": lambda: transformers.OPTConfig(**SHAPE, ffn_dim=48, num_attention_heads=4, word_embed_proj_dim=32),
    "gptj": lambda: transformers.GPTJConfig(vocab_size=50, n_embd=32, n_layer=2, n_head=4, rotary_dim=4),
}
OBSERVERS = ["h2o", "tova", "snapkv", "lru"]


def make_model(name: str = "llama", attention: str = "sdpa"):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model


@pytest.fixture
def model():
    return make_model()


def ids(rows: int = 1, length: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 50, (rows, length), generator=torch.Generator().manual_seed(seed))


def make_cache(model, policy="fifo", **kwargs) -> VQMemCache:
    return VQMemCache(model, 12, policy=policy, **kwargs)


@torch.no_grad()
def read(model, cache, tokens, **kwargs):
    return model(tokens, **{CACHE: cache}, **kwargs)


def generate(model, cache, tokens, **kwargs):
    return model.generate(tokens, **{CACHE: cache}, **{"max_new_tokens": 8, "do_sample": False} | kwargs)


@torch.no_grad()
def loop(model, policy) -> torch.Tensor:
    """Greedy tokens pass by pass, calling ``model`` itself."""
    cache, new, tokens = make_cache(model, policy), ids(), ids()
    for _ in range(8):
        output = model(new, **{CACHE: cache})
        assert output.past_key_values is cache
        new = output.logits[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, new], dim=1)
    return tokens


def lora(model):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).eval()


def dispatched(model):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    return accelerate.cpu_offload(model, execution_device=torch.device("cpu"))


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


WRAPPERS = {"peft": lora, "peft, OPT": lambda model: lora(make_model("opt")), "accelerate": dispatched}
COMPILED = {
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "model.compile": compiled_in_place,
}


def check_wrapped(wrap, name: str, policy: str) -> None:
    """A wrapped model gives the same as without the wrapper, in ``generate`` and when it is called."""
    plain = make_model(name)
    wanted = generate(plain, make_cache(plain, policy), ids())
    wrapped = wrap(make_model())
    assert torch.equal(generate(wrapped, make_cache(wrapped, policy), ids()), wanted)
    assert torch.equal(loop(wrapped, policy), wanted)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("policy", ["fifo", "h2o"])
def test_wrapped_models_give_the_same_as_unwrapped(wrapper, policy):
    check_wrapped(WRAPPERS[wrapper], "opt" if "OPT" in wrapper else "llama", policy)


def test_compiled_models_give_the_same_as_uncompiled():
    """In another process, where shapes are not checked: the compiler would trace the checks, for minutes.

    Once slots are full, decoding recompiles nothing.
    """
    cases = [("torch.compile", "fifo"), ("torch.compile", "h2o"), ("model.compile", "h2o")]
    code = f"import runpy; m = runpy.run_path({__file__!r})\n"
    code += "\n".join(f"m['check_wrapped'](m['COMPILED'][{wrap!r}], 'llama', {policy!r})" for wrap, policy in cases)
    code += "\nmodel = m['make_model']('llama')"
    for policy in ("fifo", "auto", "auto", "fifo"):
        code += f"\nm['check_recompiles'](model, {policy!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@torch.no_grad()
def check_recompiles(model, policy: str, tokens: int = 120) -> None:
    """Decode with a compiled model, which raises an error if it recompiles after the first evictions."""
    text = torch.randint(1, 50, (1, 40 + tokens), generator=torch.Generator().manual_seed(0))
    logits = []
    for wrapped in (torch.compile(model, backend="eager"), model):
        cache = VQMemCache(wrapped, 24, policy=policy, scorer=Noise(3), sinks=2, recent=6, block=8)
        wrapped(text[:, :40], **{CACHE: cache})
        for place in range(40, 40 + tokens):
            torch._dynamo.config.error_on_recompile = place > 60
            last = wrapped(text[:, place : place + 1], **{CACHE: cache}).logits
        torch._dynamo.config.error_on_recompile = False
        logits.append(last)
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["PrefixTuning", "PromptTuning", "PTuning"])
def test_prompt_learning_is_refused_by_name(model, kind):
    """It removes the checks within ``generate``, or adds another cache."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = {"PTuning": "PromptEncoder"}.get(kind, kind)
    settings = getattr(peft, f"{config}Config")(num_virtual_tokens=3, task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(model, settings)
    with pytest.raises(ValueError, match=f"with {settings.peft_type.name} adds tokens or another cache to"):
        make_cache(tuned)


def saved(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("copied", [saved, lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy])
@pytest.mark.parametrize("policy", ["fifo", "h2o"])
def test_copies_of_a_model_with_a_live_cache_work_and_carry_none(model, copied, policy):
    cache = make_cache(model, policy)
    wanted, before = generate(model, cache, ids()), cache.positions
    twin = copied(model)
    assert torch.equal(generate(twin, transformers.DynamicCache(), ids(length=5)), generate(model, None, ids(length=5)))
    assert torch.equal(generate(twin, make_cache(twin, policy), ids()), wanted)
    assert cache.positions == before
    with pytest.raises(ValueError, match="belongs to another model"):
        read(twin, make_cache(model, policy), ids())
    assert b"vqmem" not in pickle.dumps(twin)  # it also loads without this package


def test_a_closed_cache_is_an_error_and_leaves_generation_to_the_model(model):
    cache, other = make_cache(model), make_cache(model)
    cache.close()
    with pytest.raises(ValueError, match="or was closed"):
        read(model, cache, ids())
    assert "prepare_inputs_for_generation" in vars(model)  # for the other
    other.close()
    assert "prepare_inputs_for_generation" not in vars(model)


class Press:
    """As kvpress's presses: a bound method is the hook."""

    def forward_hook(self, *_):
        return None


def hook(*_):
    return None


@pytest.mark.parametrize("kind", ["press", "subclass", "function"])
def test_a_press_of_kvpress_on_the_model_is_refused(model, kind):
    press = type("KnormPress", (Press,), {"__module__": "kvpress.presses.knorm_press"})
    mine = type("Mine", (press,), {"__module__": "__main__"})
    function = types.FunctionType(hook.__code__, {"__name__": "kvpress.utils"})
    hooks = {"press": press().forward_hook, "subclass": mine().forward_hook, "function": function}
    cache = make_cache(model)
    handle = model.model.layers[1].self_attn.register_forward_hook(hooks[kind])
    with pytest.raises(ValueError, match="a press of kvpress is on the model") as error:
        generate(model, cache, ids())
    assert "\n" not in str(error.value)
    handle.remove()
    assert torch.equal(generate(model, cache, ids()), generate(model, make_cache(model), ids()))


def test_other_hooks_that_evict_are_detected(model):
    cache = make_cache(model)

    def evict(layer, args, kwargs, output):
        cache.layers[1].keys, cache.layers[1].values = cache.layers[1].keys[:, :, :5], cache.layers[1].values[:, :, :5]

    handle = model.model.layers[1].self_attn.register_forward_hook(evict, with_kwargs=True)
    with pytest.raises(ValueError, match="something else changed them within the pass"):
        read(model, cache, ids())
    handle.remove()


@pytest.mark.parametrize("length", [1, 8, 20, 27])
def test_a_prompt_no_longer_than_what_was_read_is_refused(model, length):
    """20 tokens and 7 of the answer are read."""
    cache = make_cache(model)
    generate(model, cache, ids())
    with pytest.raises(ValueError, match=rf"has {length} tokens in all, but the cache has read 27 already.*call reset"):
        generate(model, cache, ids(length=length, seed=1))
    cache.reset()
    assert torch.equal(generate(model, cache, ids()), generate(model, make_cache(model), ids()))


def test_another_batch_size_is_named(model):
    cache = make_cache(model)
    read(model, cache, ids(2))
    for call in (read, generate):
        with pytest.raises(ValueError, match="batch size of 2 but the model was given one of 3"):
            call(model, cache, ids(3, 24), attention_mask=torch.ones(3, 24, dtype=torch.long))
    assert read(model, cache, ids(2, 3)).logits.shape == (2, 3, 50)


def test_a_model_moved_to_another_type_or_device_is_refused_until_it_is_back(model):
    cache = make_cache(model)
    read(model, cache, ids())
    with pytest.raises(
        ValueError, match=r"was in torch.float32 on cpu when it filled the cache and is in torch.float64"
    ):
        read(model.double(), cache, ids(length=2))
    read(model.float(), cache, ids(length=2))
    with pytest.raises(ValueError, match=r"and is in torch.float32 on meta now; move it back, or call reset\(\)"):
        read(model.to("meta"), cache, ids(length=2))


def test_a_cache_that_nothing_is_written_into_is_an_error(model):
    """Gradient checkpointing takes it from the layers, `use_cache=False` from the later passes of generate."""
    model.train()
    model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="LlamaForCausalLM read 20 tokens and wrote none of them into the cache"):
        model(ids(), **{CACHE: make_cache(model)})
    model.eval()
    with pytest.raises(ValueError, match="use_cache=False reads all tokens again"):
        generate(model, make_cache(model), ids(), use_cache=False)
    with pytest.raises(ValueError, match="given no tokens beyond the 0"):
        read(model, make_cache(model), ids(length=0))


def longrope(kind: str):
    """Rotary factors for texts of up to 32 tokens, and others beyond."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "short_mscale": 1.0, "long_mscale": 1.0}
    shape = SHAPE | {"num_attention_heads": 4, "num_key_value_heads": 4, "bos_token_id": None, "eos_token_id": None}
    shape |= {"max_position_embeddings": 128, "original_max_position_embeddings": 32, "rope_parameters": rope}
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{kind}Config")(**shape)).eval()


@pytest.mark.parametrize("kind", ["Phi3", "Phimoe"])
@pytest.mark.parametrize("length", [40, 28])
def test_generation_that_drops_the_cache_is_an_error(kind, length):
    """At once, or where the answer passes the length that the first factors are for."""
    model = longrope(kind)
    with pytest.raises(ValueError, match="generate leaves the cache out of a pass over") as error:
        generate(model, make_cache(model), ids(length=length))
    assert "\n" not in str(error.value)
    assert generate(model, make_cache(model), ids(length=20)).shape == (1, 28)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gptj"])
@pytest.mark.parametrize("policy", ["fifo", "knorm", *OBSERVERS])
def test_eager_attention_is_returned_under_every_policy(name, policy):
    model = make_model(name, "eager")
    plain = model(ids(), **{CACHE: transformers.DynamicCache()}, output_attentions=True).attentions
    cached = model(ids(), **{CACHE: make_cache(model, policy)}, output_attentions=True).attentions
    assert len(cached) == 2
    for got, wanted in zip(cached, plain, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)
        assert type(got) is torch.Tensor


@pytest.mark.parametrize("policy", ["fifo", "h2o"])
def test_with_sdpa_attention_is_returned_as_without_the_cache(model, policy):
    plain = model(ids(), **{CACHE: transformers.DynamicCache()}, output_attentions=True).attentions
    cached = model(ids(), **{CACHE: make_cache(model, policy)}, output_attentions=True).attentions
    assert [type(x) for x in cached or ()] == [type(x) for x in plain or ()]


@pytest.mark.parametrize("policy", ["fifo", "sink_recent", "random", "knorm", *OBSERVERS])
@pytest.mark.parametrize("beams", [{"num_beams": 3}, {"num_beams": 2, "do_sample": True, "num_return_sequences": 2}])
def test_beams_need_no_scorer(model, policy, beams):
    torch.manual_seed(1)
    roomy = generate(model, VQMemCache(model, 64, policy=policy), ids(2), **beams)
    torch.manual_seed(1)
    assert torch.equal(roomy, generate(model, transformers.DynamicCache(), ids(2), **beams))
    assert generate(model, make_cache(model, policy), ids(2), **beams).shape == roomy.shape


class Nested(Noise):
    """A scorer whose state has parts that may be missing."""

    def initial_state(self, batch):
        return {"noise": super().initial_state(batch), "more": (None, [None])}

    def score(self, tokens, state):
        scores, noise = super().score(tokens, state["noise"])
        return scores, state | {"noise": noise}


def test_parts_of_a_scorers_state_may_be_missing(model):
    """Rows that move, are repeated and copied, and padding, whose rows keep their state."""
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :6] = 0
    caches = [make_cache(model, "scored", scorer=scorer(3)) for scorer in (Noise, Nested)]
    for cache in caches:
        read(model, cache, ids(2), attention_mask=mask)
        cache.reorder_cache(torch.tensor([1, 0]))
        cache.batch_repeat_interleave(2)
        cache.batch_select_indices(torch.tensor([0, 2, 3]))
    plain, nested = (read(model, copy.deepcopy(cache), ids(3, 4, 1)).logits for cache in caches)
    assert torch.equal(plain, nested)
    short = [make_cache(model, "scored", scorer=scorer(3)) for scorer in (Noise, Nested)]
    for cache in short:
        read(model, cache, ids(length=8))
        cache.crop(-3)
    plain, nested = (read(model, cache, ids(1, 9, 1)).logits for cache in short)
    assert torch.equal(plain, nested)
    assert short[0].positions == short[1].positions

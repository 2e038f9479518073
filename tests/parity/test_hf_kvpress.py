"""kvpress and this cache with each other's scores: both keep the same tokens, and the logits are the same."""

import gc

import pytest
import torch
import transformers
from vqmem.memory import naive
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.models.scorers.random import Noise

kvpress = pytest.importorskip("kvpress", reason="kvpress is not installed (extra 'kvpress', transformers below 5.3)")

from vqmem.memory.huggingface.kvpress_adapters import PressPolicy, VQMemPress  # noqa: E402 - only where the line above did not skip

SHAPE = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8}
LENGTH, RATIO, KEPT = 24, 0.5, 12
SCORED = {"name": "scored", "surprise": 0.5, "gain": 1.0, "age_weight": 0.3}


def llama(layers: int = 2, heads: int = 4, groups: int = 2, **kwargs):
    torch.manual_seed(0)
    counts = {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": groups}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, **counts, **kwargs)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    return model


@pytest.fixture(scope="module")
def model():
    return llama()


def ids(length: int = LENGTH, rows: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 300, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def pressed(model, press, tokens, **kwargs):
    """kvpress's cache of a prompt, and the logits of three more tokens at their true positions."""
    cache = transformers.DynamicCache()
    with press(model):
        model(tokens, **{CACHE: cache}, **kwargs)
    after = torch.arange(tokens.shape[1], tokens.shape[1] + 3)[None]
    keys = [layer.keys.clone() for layer in cache.layers]
    return keys, model(ids(3, len(tokens), 9), **{CACHE: cache}, position_ids=after).logits


@torch.no_grad()
def importance(model, press, tokens, **kwargs) -> torch.Tensor:
    with press(model):
        model(tokens, **{CACHE: transformers.DynamicCache()}, **kwargs)
    return press._importance


@torch.no_grad()
def read(model, cache, tokens):
    model(tokens, **{CACHE: cache})
    positions = cache.positions
    return positions, model(ids(3, len(tokens), 9), **{CACHE: cache}).logits


def places(model, keys, tokens) -> list[list[list[int]]]:
    """The tokens that the keys of each layer and head belong to, by comparison with an unpressed cache."""
    full = transformers.DynamicCache()
    with torch.no_grad():
        model(tokens, **{CACHE: full})
    found = [torch.cdist(k[0], layer.keys[0]).argmin(-1) for k, layer in zip(keys, full.layers, strict=True)]
    return [[sorted(head) for head in layer.tolist()] for layer in found]


@pytest.mark.parametrize("policy", [SCORED, {**SCORED, "copies": 2.0, "window": 3}, "fifo", "random"])
def test_our_press_keeps_what_our_cache_keeps(model, policy):
    press = VQMemPress(RATIO, policy=policy, scorer=Noise(3), sinks=2, recent=3)
    keys, logits = pressed(model, press, ids())
    kept, wanted = read(model, VQMemCache(model, KEPT, policy=policy, scorer=Noise(3), sinks=2, recent=3), ids())
    assert places(model, keys, ids()) == [[kept[0]] * 2] * 2
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)


def test_our_press_keeps_the_highest_priorities(model):
    """By the oracle in lists, on raw scores."""
    press = VQMemPress(RATIO, policy={**SCORED, "scale": "raw"}, scorer=Noise(3), sinks=0)
    keys, _ = pressed(model, press, ids())
    scores = Noise(3).score(ids(), torch.zeros(1, dtype=torch.long))[0][0].tolist()
    slots = [
        naive.Slot(t, i, dict(zip(Noise.signals, s, strict=True)))
        for i, (t, s) in enumerate(zip(ids()[0].tolist(), scores, strict=True))
    ]
    wanted = naive.scored(press._memory.policy, slots, LENGTH)
    assert places(model, keys, ids())[0][0] == sorted(sorted(range(LENGTH), key=lambda i: -wanted[i])[:KEPT])


def test_padding_goes_first_and_rows_are_scored_alone(model):
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, :5] = 0
    press = VQMemPress(RATIO, policy=SCORED, scorer=Noise(3), sinks=2, recent=3)
    together = importance(model, press, ids(rows=2), attention_mask=mask)
    assert (together[0, :5] == -1).all()
    assert (together[mask.bool()] >= 0).all()
    torch.testing.assert_close(importance(model, press, ids(rows=2)[:1, 5:])[0], together[0, 5:])


WRAPPERS = {
    "KeyRerotationPress": lambda press: kvpress.KeyRerotationPress(press),
    "AdaKVPress": lambda press: kvpress.AdaKVPress(press),
    "ChunkKVPress": lambda press: kvpress.ChunkKVPress(press, chunk_length=4),
    "CriticalKVPress": lambda press: kvpress.CriticalKVPress(press),
    "PerLayerCompressionPress": lambda press: kvpress.PerLayerCompressionPress(press, [0.5, 0.5]),
    "ComposedPress": lambda press: kvpress.ComposedPress([press, kvpress.KnormPress(0.5)]),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_of_kvpress_take_our_press(model, wrapper):
    inner = VQMemPress(RATIO, policy=SCORED, scorer=Noise(3))
    inner.post_init_from_model(model)  # which PerLayerCompressionPress does not do
    _, logits = pressed(model, WRAPPERS[wrapper](inner), ids())
    assert logits.isfinite().all()


def test_a_press_that_does_not_know_the_model_is_an_error(model):
    with pytest.raises(ValueError, match=r"call its post_init_from_model\(model\) first"):
        pressed(model, kvpress.PerLayerCompressionPress(VQMemPress(RATIO, policy="fifo"), [0.5, 0.5]), ids())


def test_pieces_of_a_prompt_get_different_scores(model):
    press = VQMemPress(RATIO, policy=SCORED, scorer=Noise(3), sinks=0)
    keys, _ = pressed(model, kvpress.ChunkPress(press, chunk_length=8), ids())
    scores = importance(model, press, ids())[0]
    best = [start + scores[start : start + 8].topk(4).indices for start in (0, 8, 16)]
    assert places(model, keys, ids()) == [[torch.cat(best).sort().values.tolist()] * 2] * 2


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda press: kvpress.BlockPress(press, block_size=4),
        lambda press: kvpress.ComposedPress([kvpress.KnormPress(0.5), press]),
    ],
)
def test_tokens_that_are_not_known_are_refused(model, wrapper):
    with pytest.raises(ValueError, match="not which of them the"):
        pressed(model, wrapper(VQMemPress(RATIO, policy="fifo")), ids())


@torch.no_grad()
def test_decoding_is_refused(model):
    press, cache = VQMemPress(policy="fifo"), transformers.DynamicCache()
    with kvpress.DecodingPress(press, compression_interval=1, target_size=8)(model):
        model(ids(), **{CACHE: cache})
        with pytest.raises(ValueError, match="not which of them the"):
            model(ids(1), **{CACHE: cache})


def test_the_pipeline_of_kvpress_takes_our_press(model, tokenizer_folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder, bos_token="a")
    pipeline = kvpress.KVPressTextGenerationPipeline(model=model, tokenizer=tokenizer)
    text, question = "the name of a function is bound in the class", {"question": "what", "max_new_tokens": 4}
    press = VQMemPress(RATIO, policy=SCORED, scorer=Noise(3))
    scores, plain = [], pipeline(text, **question)["answer"]
    handle = model.model.register_forward_hook(lambda *_: scores.append(press._importance))
    assert pipeline(text, **question, press=press)["answer"] != plain
    handle.remove()
    assert scores[0].shape == (1, tokenizer(f"a{text}", return_tensors="pt").input_ids.shape[1])


def test_our_press_leaves_nothing_on_the_model_when_it_goes():
    model = llama()
    press = VQMemPress(RATIO, policy="fifo")
    for _ in range(2):
        pressed(model, press, ids())
    assert len(model.model._forward_pre_hooks) == 1
    del press
    gc.collect()
    assert not model.model._forward_pre_hooks


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({}, "policy scored needs scores"),
        ({"policy": "h2o"}, "use one of kvpress's presses"),
        ({"policy": "fifo", "sinks": -1}, "sinks=-1"),
    ],
)
def test_bad_arguments_are_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        VQMemPress(RATIO, **kwargs)


PRESSES = {
    "knorm": lambda: kvpress.KnormPress(RATIO),
    "random": lambda: kvpress.RandomPress(RATIO, seed=5),
    "expected attention": lambda: kvpress.ExpectedAttentionPress(RATIO, n_sink=2),
    "snapkv": lambda: kvpress.SnapKVPress(RATIO, window_size=2),
    "tova": lambda: kvpress.TOVAPress(RATIO),
    "keydiff": lambda: kvpress.KeyDiffPress(RATIO),
}


@pytest.mark.parametrize("press", PRESSES)
def test_their_press_in_our_cache_keeps_what_kvpress_keeps(press):
    """With one layer and one key head, where there is nothing to average."""
    model = llama(layers=1, heads=2, groups=1)
    keys, wanted = pressed(model, PRESSES[press](), ids())
    cache = VQMemCache(model, KEPT, policy=PressPolicy(PRESSES[press]()), sinks=0, recent=0)
    kept, logits = read(model, cache, ids())
    assert places(model, keys, ids()) == [kept]
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)


def test_heads_and_layers_are_averaged(model):
    """By hand, from the keys of an unpressed cache; in chunks, slots are scored beside new tokens."""
    cache, tokens = VQMemCache(model, KEPT, policy=PressPolicy(kvpress.KnormPress()), sinks=2, recent=3), ids(rows=2)
    full = transformers.DynamicCache()
    with torch.no_grad():
        for chunk in tokens.split(8, dim=1):
            model(chunk, **{CACHE: cache})
        model(tokens, **{CACHE: full})
    first = full.layers[0].keys.norm(dim=-1).mean(1)  # of layer 0, whose keys do not depend on what was kept
    cached = torch.tensor(cache.positions)
    torch.testing.assert_close(cache.layers[0].keys.norm(dim=-1).mean(1), first.gather(1, cached))
    both = torch.stack([layer.keys.norm(dim=-1).mean(1) for layer in cache.layers]).mean(0)
    torch.testing.assert_close(cache._state.memory.slots.usage, -both)
    assert (cached[:, :2] == torch.arange(2)).all()
    assert (cached[:, -3:] == torch.arange(LENGTH - 3, LENGTH)).all()


def test_a_press_that_cannot_score_is_an_error_and_other_attention_is_refused(model):
    cache = VQMemCache(model, KEPT, policy=PressPolicy(kvpress.SnapKVPress(window_size=4)))
    with pytest.raises(ValueError, match="SnapKVPress cannot score a pass over 3 tokens"):
        read(model, cache, ids())
    shape = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    other = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**shape, num_attention_heads=2))
    with pytest.raises(ValueError, match="no way into the attention of GPTNeoXForCausalLM"):
        VQMemCache(other, KEPT, policy=PressPolicy(kvpress.KnormPress()))


def test_attention_can_be_recorded_where_kvpress_has_wrapped_it(model):
    """kvpress passes dropout by position; it wraps what is registered when it is imported."""
    from kvpress.attention_patch import attention_patch

    plain, wrapped = (VQMemCache(model, KEPT, policy="h2o") for _ in range(2))
    kept, logits = read(model, plain, ids())
    functions, name = transformers.AttentionInterface._global_mapping, "sdpa"
    original = functions[name]
    functions[name] = attention_patch(original)
    try:
        again, same = read(model, wrapped, ids())
    finally:
        functions[name] = original
    assert again == kept
    torch.testing.assert_close(same, logits)

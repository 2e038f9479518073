"""Concurrent passes: caches of one model in several threads, passes without a cache, and passes within others."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.models.scorers.random import Noise

GENERATIONS, THREADS = 200, 4
KINDS = ["fifo", "scored", "h2o", "knorm", "snapkv", None]
"""Policies in turn; None generates without a cache of ours."""


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return make_model(request.param)


def make_model(attention: str = "sdpa"):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
    )
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    model.generation_config.eos_token_id = None
    return model


def ids(length: int = 14, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 50, (1, length), generator=torch.Generator().manual_seed(seed))


def make_cache(model, policy) -> VQMemCache:
    return VQMemCache(model, 8, policy=policy, scorer=Noise(3), sinks=1, recent=2)


def generated(model, number: int) -> torch.Tensor:
    """The ``number``th text, through a new cache."""
    kind = KINDS[number % len(KINDS)]
    cache = transformers.DynamicCache() if kind is None else make_cache(model, kind)
    return model.generate(ids(8 + number % 7, number), **{CACHE: cache}, max_new_tokens=4, do_sample=False)


def test_generations_in_threads_are_those_of_one_thread(model):
    count = GENERATIONS if model.config._attn_implementation == "sdpa" else 24
    wanted = [generated(model, number) for number in range(count)]
    with ThreadPoolExecutor(THREADS) as pool:
        got = list(pool.map(lambda number: generated(model, number), range(count)))
    assert all(torch.equal(x, y) for x, y in zip(got, wanted, strict=True))


@torch.no_grad()
def read(model, cache, *chunks: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(chunk, **{CACHE: cache}).logits for chunk in chunks], dim=1)


@pytest.mark.parametrize("outer", ["fifo", "h2o"])
@pytest.mark.parametrize("inner", [*KINDS, "no cache"])
def test_a_pass_within_another_gives_the_logits_of_each_alone(model, outer, inner):
    """The inner pass starts and ends while the outer one is between two layers."""

    def other():
        return (
            None if inner == "no cache" else transformers.DynamicCache() if inner is None else make_cache(model, inner)
        )

    first, second = ids(12), ids(12, 1)
    alone, within = make_cache(model, outer), make_cache(model, outer)
    wanted = read(model, alone, first, second)
    nested = other()
    expected, got, depth = read(model, other(), second), [], []

    def between(*_):
        if not depth:
            depth.append(1)
            got.append(read(model, nested, second))

    handle = model.model.layers[0].register_forward_hook(between)
    logits = read(model, within, first)
    handle.remove()
    assert torch.equal(torch.cat([logits, read(model, within, second)], dim=1), wanted)
    assert torch.equal(got[0], expected)
    assert within.positions == alone.positions


def test_a_pass_within_another_may_fail(model):
    """The failure is that of the inner cache alone."""
    alone, outer, inner = (make_cache(model, "h2o") for _ in range(3))
    wanted, depth = read(model, alone, ids(12)), []

    def between(*_):
        if len(depth) == 1:
            raise RuntimeError("out of memory")
        depth.append(1)
        with pytest.raises(RuntimeError, match="out of memory"):
            read(model, inner, ids(12, 1))

    handle = model.model.layers[0].register_forward_hook(between)
    try:
        assert torch.equal(read(model, outer, ids(12)), wanted)
    finally:
        handle.remove()
    assert outer.positions == alone.positions
    with pytest.raises(ValueError, match="did not end; call reset"):
        read(model, inner, ids(3))


def test_a_pass_through_a_cache_within_a_pass_through_it_is_refused(model):
    cache = make_cache(model, "fifo")

    def again(*_):
        with pytest.raises(ValueError, match=r"under way or was interrupted; give each thread another cache"):
            read(model, cache, ids(3))

    handle = model.model.layers[0].register_forward_pre_hook(again)
    logits = read(model, cache, ids(12))
    handle.remove()
    assert torch.equal(logits, read(model, make_cache(model, "fifo"), ids(12)))


def test_one_cache_in_two_threads_at_once_is_an_error_in_one_of_them(model):
    cache, messages = make_cache(model, "fifo"), []
    begun, refused = threading.Event(), threading.Event()

    def second():
        begun.wait(20)
        try:
            read(model, cache, ids(12, 1))
        except ValueError as error:
            messages.append(str(error))
        refused.set()

    def wait(*_):
        begun.set()
        refused.wait(20)

    handle = model.model.layers[0].register_forward_pre_hook(wait)
    thread = threading.Thread(target=second)
    thread.start()
    logits = read(model, cache, ids(12))
    thread.join()
    handle.remove()
    assert torch.equal(logits, read(model, make_cache(model, "fifo"), ids(12)))
    assert len(messages) == 1
    assert "give each thread another cache" in messages[0]


def test_texts_of_two_threads_are_not_mixed_between_passes(model):
    """The second prompt is longer than what was read and would continue the first text."""
    cache = make_cache(model, "fifo")

    class Between(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            if input_ids.shape[1] == 10:
                thread = threading.Thread(target=lambda: generate(ids(20, 1), 1))
                thread.start()
                thread.join()
            return torch.zeros(len(input_ids), dtype=torch.bool)

    def generate(prompt, tokens, **kwargs):
        model.generate(prompt, **{CACHE: cache}, max_new_tokens=tokens, do_sample=False, **kwargs)

    with pytest.raises(ValueError, match="two threads generate with one cache at once"):
        generate(ids(8), 9, stopping_criteria=[Between()])
    with pytest.raises(ValueError, match="call reset"):
        read(model, cache, ids(3))


def test_an_interrupted_pass_is_an_error_until_reset(model):
    """Torch calls no hook after a `KeyboardInterrupt`, as when a user stops a notebook."""
    cache = make_cache(model, "h2o")

    def stop(*_):
        raise KeyboardInterrupt

    handle = model.model.layers[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        read(model, cache, ids())
    handle.remove()
    with pytest.raises(ValueError, match="was interrupted"):
        read(model, cache, ids())
    cache.reset()
    assert torch.equal(read(model, cache, ids()), read(model, make_cache(model, "h2o"), ids()))


def test_nothing_of_the_model_is_switched_within_a_pass(model):
    seen = []
    handle = model.model.layers[0].register_forward_hook(lambda *_: seen.append(model.config._attn_implementation))
    read(model, make_cache(model, "h2o"), ids())
    handle.remove()
    assert seen == [model.config._attn_implementation]

"""kvpress's presses in streams and on prompts, against our policies and what kvpress says of them."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.recipes.kv_cache import presses
from vqmem.recipes.kv_cache.hidden import hiding
from vqmem.recipes.kv_cache.kvzip import zip_text
from vqmem.recipes.kv_cache.reading import read_text
from vqmem.recipes.kv_cache.streams import CHUNK
from vqmem.tests.unit.tiny_host import read_nats, tiny_host, tiny_model

PEERS = importlib.util.find_spec("kvpress") is not None
needs_kvpress = pytest.mark.skipif(not PEERS, reason="kvpress is not installed (extra 'kvpress')")


class Newest:
    """A press by position alone: what the guards leave goes to the newest."""

    def post_init_from_model(self, model: Any) -> None:
        """Nothing to do."""

    def score(self, module: Any, hidden: Any, keys: torch.Tensor, *args: Any) -> torch.Tensor:
        """The place of each slot."""
        return torch.arange(keys.shape[2]).expand(keys.shape[:3])


class Shortest(Newest):
    """By the norm of the keys, for each head."""

    def score(self, module: Any, hidden: Any, keys: torch.Tensor, *args: Any) -> torch.Tensor:
        """Shorter is higher."""
        return -keys.norm(dim=-1)


def test_a_press_by_position_is_our_policy_by_position() -> None:
    model, ids = tiny_model(), torch.randint(1, 30, (2, 5 * CHUNK))
    ours = read_nats(model, VQMemCache(model, 96, policy="sink_recent", sinks=4), ids)
    theirs, unbounded = (presses.PressCache(model, Newest(), slots, 4) for slots in (96, 400))
    torch.testing.assert_close(read_nats(model, theirs, ids), ours, atol=1e-6, rtol=0)
    assert {layer.keys.shape[2] for layer in theirs.layers} == {96}
    torch.testing.assert_close(read_nats(model, unbounded, ids), read_nats(model, DynamicCache(), ids))
    assert (read_nats(model, DynamicCache(), ids) - ours).abs().max() > 1e-3
    for cache in (theirs, unbounded):
        cache._detach()
    assert not any(layer.self_attn._forward_hooks for layer in model.model.layers)


def test_each_layer_and_head_keeps_different_slots() -> None:
    model, ids = tiny_model(), torch.randint(1, 30, (1, 2 * CHUNK))
    full, few = DynamicCache(), presses.PressCache(model, Shortest(), 40, 4)
    with torch.no_grad():
        model(ids, **{CACHE: full})
        model(ids, **{CACHE: few})
    sets = []
    for every, part in zip(full.layers, few.layers, strict=True):
        for keys, kept in zip(every.keys[0], part.keys[0], strict=True):
            places = torch.cdist(kept, keys).argmin(-1).tolist()
            free = sorted(range(4, len(keys) - 18), key=lambda i, keys=keys: keys[i].norm().item())[:18]
            assert places == sorted({*range(4), *range(len(keys) - 18, len(keys)), *free})
            sets.append(tuple(places))
    assert len(set(sets)) > 1


@needs_kvpress
def test_presses_go_on_with_slots_missing() -> None:
    model, ids = tiny_model(), torch.randint(1, 30, (2, 4 * CHUNK))
    for parameter in model.parameters():  # so that attention is not flat
        if parameter.ndim == 2:
            parameter.data.mul_(20)
    ours = read_nats(model, VQMemCache(model, 96, policy="sink_recent", sinks=4), ids)
    for name in presses.STREAMING:
        cache = presses.PressCache(model, presses.make(name), 96, 4)
        nats = presses.seeded(lambda cache=cache: read_nats(model, cache, ids))
        assert nats.isfinite().all(), name
        assert torch.allclose(nats, ours, atol=1e-5) == (name == "kvpress StreamingLLM"), name
        assert model.config._attn_implementation == "sdpa"
    for name in {*presses.ONE_PASS} - {*presses.WRAPPERS}:
        with pytest.raises(AssertionError, match="prefill"):
            read_nats(model, presses.PressCache(model, presses.make(f"kvpress {name}"), 96, 4), ids)


@needs_kvpress
def test_every_scorer_press_of_kvpress_is_measured_or_its_absence_explained() -> None:
    import kvpress

    every = {
        name.removesuffix("Press")
        for name, kind in vars(kvpress).items()
        if isinstance(kind, type) and issubclass(kind, kvpress.ScorerPress) and kind is not kvpress.ScorerPress
    }
    assert every == {*presses.MADE, *presses.REFUSED, "CriticalKV"}


@needs_kvpress
def test_presses_that_look_ahead_get_the_true_positions() -> None:
    model, positions = tiny_model(), []
    cache = presses.PressCache(model, presses.make("kvpress ExpectedAttention"), 96, 4)
    rotary = model.model.rotary_emb
    rotary.register_forward_pre_hook(
        lambda module, args, kwargs: positions.append(int((args[1:] or [kwargs["position_ids"]])[0].min())),
        with_kwargs=True,
    )
    read_nats(model, cache, torch.randint(1, 30, (1, 3 * CHUNK)))
    assert positions == [0, 64, *[128] * len(model.model.layers), 128, *[192] * len(model.model.layers)]


def test_a_press_evicts_at_the_end_of_a_block() -> None:
    model = tiny_model()
    cache = presses.PressCache(model, Shortest(), 40, 4, block=20)
    kept = []
    with torch.no_grad():
        for count in (59, 1, 19, 1):
            model(torch.ones(1, count, dtype=torch.long), **{CACHE: cache})
            kept.append(cache.layers[0].keys.shape[2])
    assert kept == [59, 40, 59, 40]


@needs_kvpress
def test_kvzip_hides_its_share_of_all_slots(tokenizer_folder: Path) -> None:
    host = tiny_host(tokenizer_folder)
    text = torch.randint(1, 300, (1, 80))
    name = host.model.config.name_or_path
    reading = read_text(host.model, text)
    hidden = zip_text(host.model, host.tokenizer.wrapped, reading, [0.25, 0.5])
    assert reading.full.get_seq_length() == 80
    assert host.model.config.name_or_path == name
    assert [sum(len(layer[0]) for layer in row) for row in hidden] == [4 * 80 * 3 // 4, 4 * 80 // 2]
    assert all(layer[2].min() >= 4 for row in hidden for layer in row)
    layers = host.model.model.layers
    with hiding(host.model, hidden[0]):
        assert all(layer.self_attn.masked_key_indices is not None for layer in layers)
    assert all(layer.self_attn.masked_key_indices is None for layer in layers)

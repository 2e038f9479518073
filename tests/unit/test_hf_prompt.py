"""`auto` keeps the tokens of a long prompt by one preset and those of streams by another."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import cache_argument
from vqmem.memory.huggingface.presets import DOCUMENT, STREAM, Preset
from vqmem.models.scorers.random import Noise

from .test_fit_policy import VOCAB, make_model

CAPACITY, BLOCK = 24, 8
ROOM = CAPACITY + BLOCK
IDS = torch.randint(1, VOCAB, (2, 200), generator=torch.Generator().manual_seed(3))
KEYDIFF = Preset({"name": "weighted", "keydiff": 1.0, "log_age": -0.2, "score": 0.0}, recent=5)
PAIR = Preset(KEYDIFF.policy, KEYDIFF.recent, prompt=DOCUMENT)
"""A pair without queries, whose parts can take over each other's slots."""


@pytest.fixture(scope="module")
def model():
    return make_model()


def make(model, policy, capacity: float = CAPACITY, **options) -> VQMemCache:
    return VQMemCache(model, capacity, policy=policy, **{"block": BLOCK, **options})


@torch.no_grad()
def read(cache, start, stop, mask=None):
    mask = {} if mask is None else {"attention_mask": mask[:, :stop]}
    return cache.model(IDS[:, start:stop], **mask, **cache_argument(cache)).logits


def handed_over(model, cuts, **options) -> VQMemCache:
    """A slow oracle: the explicit policies, of which the first hands its slots over after the first pass."""
    cache, later = make(model, DOCUMENT if cuts[0] >= ROOM else KEYDIFF, **options), make(model, KEYDIFF, **options)
    read(cache, 0, cuts[0])
    cache.memory, cache.signals = later.memory, later.signals
    return cache


def test_auto_reads_a_long_prompt_as_document_and_chunks_as_stream(model):
    kept = {}
    for policy in ("auto", "document", "stream"):
        full, chunks = make(model, policy), make(model, policy)
        read(full, 0, 120)
        for start in range(0, 120, 15):
            read(chunks, start, start + 15)
        kept[policy] = full.positions, chunks.positions
    assert kept["auto"] == (kept["document"][0], kept["stream"][1])
    assert kept["document"][0] != kept["stream"][0]
    assert kept["document"][1] != kept["stream"][1]


def test_a_prompt_that_fits_is_a_part_of_the_stream(model):
    auto, stream = make(model, "auto"), make(model, "stream")
    for cache in (auto, stream):
        read(cache, 0, ROOM - 1)
        read(cache, ROOM - 1, ROOM + 30)
    assert auto.positions == stream.positions


@pytest.mark.parametrize(
    "options",
    [
        {"share": "layer"},
        {"share": "model"},
        {"storage": "int8"},
        {"positions": "compact"},
        {"block": 1},
        {"recent": 3},
    ],
    ids=str,
)
def test_every_option_applies_to_both(model, options):
    mask = torch.ones_like(IDS)
    mask[1, :9] = 0
    cache, explicit = make(model, PAIR, **options), make(model, DOCUMENT, **options)
    later = make(model, KEYDIFF, **options)
    assert torch.equal(read(cache, 0, 60, mask), read(explicit, 0, 60, mask))
    assert cache.positions == explicit.positions
    explicit.memory, explicit.signals = later.memory, later.signals
    for start in range(60, 160, 20):
        assert torch.equal(read(cache, start, start + 20, mask), read(explicit, start, start + 20, mask))
        assert cache.positions == explicit.positions
    assert cache.memory.guard.recent == options.get("recent", KEYDIFF.recent)
    assert cache.prompt is not None
    assert cache.prompt.memory.guard.recent == options.get("recent", DOCUMENT.recent)


@settings(max_examples=12)
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=6),
    st.integers(0, 5),
    st.sampled_from(["save", "copy", "rows", "none"]),
)
def test_any_passes_keep_what_the_explicit_policies_keep(tmp_path_factory, cuts, when, how):
    model = make_model()
    ends = [min(sum(cuts[: n + 1]), 200) for n in range(len(cuts))]
    cache, explicit = make(model, PAIR), handed_over(model, ends)
    for turn, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        if start == stop:
            break
        logits = read(cache, start, stop)
        if turn:
            assert torch.equal(logits, read(explicit, start, stop))
        if turn == when and how == "save":
            path = tmp_path_factory.mktemp("saved") / "cache.safetensors"
            cache.save(path)
            cache = VQMemCache.load(path, model)
        elif turn == when and how == "copy":
            cache = copy.deepcopy(cache)
        elif turn == when and how == "rows":
            cache.reorder_cache(torch.tensor([1, 0]))
            cache.reorder_cache(torch.tensor([1, 0]))
        assert cache.positions == explicit.positions


@pytest.mark.parametrize("start_again", ["reset", "crop", "loaded and reset", "copied and cropped"])
def test_a_cache_that_forgot_all_reads_a_prompt_again(model, tmp_path, start_again):
    cache, document = make(model, "auto"), make(model, "document")
    read(document, 0, 90)
    read(cache, 0, 20)
    if start_again == "loaded and reset":
        cache.save(tmp_path / "cache.safetensors")
        cache = VQMemCache.load(tmp_path / "cache.safetensors", model)
    elif start_again == "copied and cropped":
        cache = copy.deepcopy(cache)
    cache.reset() if "reset" in start_again else cache.crop(-20)
    read(cache, 0, 90)
    assert cache.positions == document.positions


def test_a_share_of_the_prompt_bounds_both(model):
    cache, document = make(model, "auto", 0.25), make(model, "document", 0.25)
    for one in (cache, document):
        read(one, 0, 120)
    assert cache.positions == document.positions
    assert cache.prompt is not None
    assert cache.memory.capacity == cache.prompt.memory.capacity == 30
    assert (cache.memory.guard.recent, cache.prompt.memory.guard.recent) == (13, 8)


def test_what_is_shown_and_what_other_presets_are(model):
    cache = make(model, "auto")
    assert "policy=weighted(expected=0.75" in repr(cache)
    assert "prompt=weighted(leverage=1.0, leverage_window=25, own_leverage=0.25, score=0.0) with recent=8" in repr(
        cache
    )
    for policy in ("stream", "document", "fifo"):
        assert make(model, policy).prompt is None
        assert "prompt=" not in repr(make(model, policy))
    assert STREAM.prompt is None


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (
            {"observed": 1.0, "score": 0.0},
            "weighs expected or observed, and the policy for later passes weighs neither",
        ),
        ({"score": 1.0}, "do not both weigh signals of the cache"),
    ],
)
def test_pairs_that_do_not_work_together_are_refused(model, prompt, why):
    pair = Preset(KEYDIFF.policy, prompt=Preset({"name": "weighted", **prompt}))
    with pytest.raises(ValueError, match=rf"\A.*{why}.*\Z"):
        make(model, pair, scorer=Noise(3))

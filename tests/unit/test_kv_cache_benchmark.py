"""Long-gap tokens, shares of the gap and the choice of a setting are what they are called."""

import importlib
import importlib.util
import random
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.memory.huggingface.cache_argument import CACHE
from vqmem.recipes.lm.corpus import Passage
from vqmem.registry import build


@pytest.fixture
def streams() -> ModuleType:
    return importlib.import_module("vqmem.benchmarks.kv._streams")


@pytest.fixture
def tables(streams: ModuleType) -> ModuleType:
    return importlib.import_module("vqmem.benchmarks.kv._tables")


def test_a_gap_is_the_distance_to_the_last_time(streams: ModuleType) -> None:
    ids = np.array([5, 7, 5, 5, 9, 7])
    assert streams.gaps(ids).tolist() == [0, 0, 2, 1, 0, 4]
    rarity = np.zeros(10)
    rarity[7] = 9.5
    assert streams.long_gap(ids, rarity, 9.0, 3).tolist() == [False] * 5 + [True]
    assert not streams.long_gap(ids, rarity, 9.0, 4).any()


def test_more_passages_include_the_fewer_and_come_from_every_book(streams: ModuleType) -> None:
    items = [_passage(f"{book}:{start}", [start] * 4) for book in "ab" for start in range(0, 40, 4)]
    few, many = (streams.sample([*items, _passage("a:40", [1])], 4, count) for count in (4, 9))
    assert [item.name for item in many[:4]] == [item.name for item in few]
    assert {item.name[0] for item in few[:2]} == {"a", "b"}
    assert len({item.name for item in many}) == 9
    with pytest.raises(ValueError, match="fewer than 21"):
        streams.sample(items, 4, 21)


def test_the_share_of_a_gap_is_of_sums(streams: ModuleType) -> None:
    worst, best = np.array([4.0, 10, 7, 8, 3, 5]), np.array([2.0, 6, 5, 5, 2, 3])
    share, low, high = streams.share_closed(worst - 0.25 * (worst - best), worst, best, 200)
    assert (share, low, high) == pytest.approx((0.25, 0.25, 0.25))


def test_few_passages_give_no_verdict_on_the_others(tables: ModuleType) -> None:
    nats = {name: np.full(3, loss) for name, loss in (("ours", 2.0), ("fifo", 3.0), (tables.EVERYTHING, 1.0))}
    found = tables.beaten(tables.Sums(nats, nats, np.ones(3), np.ones(3)), "ours")
    assert found == {"too few passages": ["fifo"]}


def test_chunks_through_a_cache_lose_what_the_text_at_once_does(streams: ModuleType, tmp_path: Path) -> None:
    model = _tiny()
    ids = torch.randint(1, 30, (3, 160))
    nats = streams.read(model, DynamicCache(), ids)
    with torch.no_grad():
        logits = model(torch.cat([torch.full_like(ids[:, :1], streams.SEPARATOR), ids[:, :-1]], 1)).logits
    expected = -logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
    torch.testing.assert_close(nats, expected, atol=1e-5, rtol=0)
    reader = streams.Streams(model, {"unigram": build("scorers", "unigram").build(30)}, tmp_path, 2)
    items = [_passage(str(i), row) for i, row in enumerate(ids.tolist())]
    for setting in (streams.Setting("all", None), streams.Setting("few", {"name": "scored"}, "unigram")):
        found = reader.nats(setting, 200, items)  # more slots than tokens: nothing is evicted
        np.testing.assert_allclose(np.stack(found), expected.numpy(), atol=1e-5)
        model.forward = None  # what was kept is not made again
        assert [x.tolist() for x in reader.nats(setting, 200, items)] == [x.tolist() for x in found]
        del model.forward


def test_the_best_closes_most_of_the_gap_at_no_loss(tables: ModuleType) -> None:
    level = np.full(6, 10.0)
    nats = {"everything": level - 2, "sink_recent": level, "dear": level + 1, "good": level - 1, "fair": level}
    far = {"everything": level - 8, "sink_recent": level, "dear": level - 7, "good": level - 5, "fair": level - 2}
    sums = tables.Sums(nats, far, level, level)
    assert tables.best(sums, ["dear", "good", "fair"]) == "good"
    assert tables.best(sums, ["dear"]) == "dear"
    values, intervals = tables.table(sums)
    assert values["good"]["gap closed, %"] == pytest.approx(62.5)
    assert intervals["good"]["NLL - sink_recent"] == pytest.approx([-0.1, -0.1])
    assert tables.beaten(sums, "good") == {"worse": ["sink_recent", "fair"], "better": ["dear"]}


@pytest.mark.parametrize("task", ["number in noise", "number in prose", "uuid in prose"])
def test_a_quiz_hides_one_value_and_asks_for_its_key(streams: ModuleType, task: str) -> None:
    needle = importlib.import_module("vqmem.benchmarks.kv._needle")
    prose = " ".join(f"word{i}{'.' * (i % 9 == 0)}" for i in range(2000))
    one, same, other = (needle.quiz(task, prose, 300, random.Random(seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert one.text.count(one.value) == 1
    assert one.value not in one.question + one.answer
    key = one.question.split(" for ")[1].split()[0]
    assert f"for {key} is: {one.value}." in one.text
    assert 250 < len(one.text.split()) < 400


def test_hits_are_listed_by_task_and_against_ours(streams: ModuleType) -> None:
    quizzes = importlib.import_module("vqmem.benchmarks.kv._quizzes")
    none, half = np.zeros(8), np.repeat([0.0, 100.0], 4)
    hits = {("a", 9): {"ours": none + 100, "other": none}, ("a", 5): {"ours": half, "other": none}}
    hits[("b", 9)] = {"ours": half, "other": half - half}
    values, intervals = quizzes.table(hits, "ours")
    assert values["ours"] == {
        **{"a": 75.0, "b": 50.0, "9 tokens": 75.0, "5 tokens": 50.0},
        **{"all": 66.7, "all - ours": 0.0},
    }
    assert values["other"]["all - ours"] == -66.7
    low, high = intervals["other"]["all - ours"]
    assert low < -66.7 < high < 0


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


def test_a_press_by_position_is_our_policy_by_position(streams: ModuleType) -> None:
    presses = importlib.import_module("vqmem.benchmarks.kv._presses")
    model, ids = _tiny(), torch.randint(1, 30, (2, 5 * streams.CHUNK))
    ours = streams.read(model, VQMemCache(model, 96, policy="sink_recent", sinks=4), ids)
    theirs, unbounded = (presses.PressCache(model, Newest(), slots, 4) for slots in (96, 400))
    torch.testing.assert_close(streams.read(model, theirs, ids), ours, atol=1e-6, rtol=0)
    assert {layer.keys.shape[2] for layer in theirs.layers} == {96}
    torch.testing.assert_close(streams.read(model, unbounded, ids), streams.read(model, DynamicCache(), ids))
    assert (streams.read(model, DynamicCache(), ids) - ours).abs().max() > 1e-3
    for cache in (theirs, unbounded):
        cache._detach()
    assert not any(layer.self_attn._forward_hooks for layer in model.model.layers)


def test_each_layer_and_head_keeps_different_slots(streams: ModuleType) -> None:
    presses = importlib.import_module("vqmem.benchmarks.kv._presses")
    model, ids = _tiny(), torch.randint(1, 30, (1, 2 * streams.CHUNK))
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
def test_presses_go_on_with_slots_missing(streams: ModuleType) -> None:
    presses = importlib.import_module("vqmem.benchmarks.kv._presses")
    model, ids = _tiny(), torch.randint(1, 30, (2, 4 * streams.CHUNK))
    for parameter in model.parameters():  # so that attention is not flat
        if parameter.ndim == 2:
            parameter.data.mul_(20)
    ours = streams.read(model, VQMemCache(model, 96, policy="sink_recent", sinks=4), ids)
    for name in presses.STREAMING:
        cache = presses.PressCache(model, presses.make(name), 96, 4)
        nats = presses.seeded(lambda cache=cache: streams.read(model, cache, ids))
        assert nats.isfinite().all(), name
        assert torch.allclose(nats, ours, atol=1e-5) == (name == "kvpress StreamingLLM"), name
        assert model.config._attn_implementation == "sdpa"
    for name in presses.ONE_PASS:
        with pytest.raises(AssertionError, match="prefill"):
            streams.read(model, presses.PressCache(model, presses.make(f"kvpress {name}"), 96, 4), ids)


@needs_kvpress
def test_every_scorer_press_of_kvpress_is_measured_or_its_absence_explained(streams: ModuleType) -> None:
    import kvpress

    presses = importlib.import_module("vqmem.benchmarks.kv._presses")
    every = {
        name.removesuffix("Press")
        for name, kind in vars(kvpress).items()
        if isinstance(kind, type) and issubclass(kind, kvpress.ScorerPress) and kind is not kvpress.ScorerPress
    }
    assert every == {*presses.MADE, *presses.REFUSED}


@needs_kvpress
def test_presses_that_look_ahead_get_the_true_positions(streams: ModuleType) -> None:
    presses = importlib.import_module("vqmem.benchmarks.kv._presses")
    model, positions = _tiny(), []
    cache = presses.PressCache(model, presses.make("kvpress ExpectedAttention"), 96, 4)
    rotary = model.model.rotary_emb
    rotary.register_forward_pre_hook(
        lambda module, args, kwargs: positions.append(int((args[1:] or [kwargs["position_ids"]])[0].min())),
        with_kwargs=True,
    )
    streams.read(model, cache, torch.randint(1, 30, (1, 3 * streams.CHUNK)))
    assert positions == [0, 64, *[128] * len(model.model.layers), 128, *[192] * len(model.model.layers)]


POLICIES: list[tuple[Any, str | None]] = [
    ("sink_recent", None),
    ("random", None),
    ("knorm", None),
    ("tova", None),
    ("snapkv", None),
    ({"name": "scored", "rarity": 2.0, "surprise": 0.0}, "unigram"),
]


@pytest.mark.parametrize(("policy", "scorer"), POLICIES, ids=str)
def test_a_text_reduced_afterwards_is_what_the_cache_keeps(
    streams: ModuleType, policy: Any, scorer: str | None
) -> None:
    full_text = importlib.import_module("vqmem.benchmarks.kv._full_text")
    model, text, question = _tiny(), torch.randint(1, 30, (1, 90)), torch.randint(1, 30, (1, 5))
    unigram = None
    if scorer:
        unigram = build("scorers", scorer).build(30)
        unigram.counts += torch.arange(30)
    reading = full_text.FullTextCache(model, text, [], [], 4)
    cache = VQMemCache(model, 24, policy=policy, scorer=unigram, sinks=4)
    with torch.no_grad():
        model(text, **{CACHE: cache})
    kept = reading.by_policy(policy, unigram, 24)
    assert [row.tolist() for row in kept[0]] == [cache.positions[0]] * 2
    said = full_text.answer(model, reading.cut([kept, kept]), question, 90, 2, 6, lambda tokens: False)
    first: list[list[int]] = []

    def over(tokens: list[int]) -> bool:
        first.append(tokens)
        return tokens is not first[0] and len(tokens) == 2

    fewer = full_text.answer(model, reading.cut([kept, kept]), question, 90, 2, 6, over)
    new, expected = question, []
    for _ in range(6):
        with torch.no_grad():
            new = model(new, **{CACHE: cache}).logits[:, -1:].argmax(-1)
        expected.append(int(new))
    assert said == [expected, expected]
    assert fewer == [expected, expected[:2]]


@needs_kvpress
def test_kvzip_hides_its_share_of_all_slots(streams: ModuleType, tokenizer_folder: Path) -> None:
    full_text = importlib.import_module("vqmem.benchmarks.kv._full_text")
    model, text, question = _tiny(300), torch.randint(1, 300, (1, 80)), torch.randint(1, 300, (1, 5))
    model.config.name_or_path = str(tokenizer_folder)
    reading = full_text.FullTextCache(model, text, ["kvpress Knorm"], [20], 4)
    before = [layer.keys.clone() for layer in reading.layers]
    hidden = full_text.zipped(model, reading, [0.25, 0.5])
    assert [sum(len(layer[0]) for layer in row) for row in hidden] == [4 * 80 * 3 // 4, 4 * 80 // 2]
    assert all(layer[2].min() >= 4 for row in hidden for layer in row)
    how: dict[str, Any] = {"most": 6, "over": lambda tokens: False}
    first, *_ = full_text.answer_hidden(model, reading, hidden, question, **how)
    assert first == full_text.answer(model, reading.cut([_all(80)] * 1), question, 80, 1, **how)[0]
    assert all(layer.self_attn.masked_key_indices is None for layer in model.model.layers)
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(reading.layers, before, strict=True))
    assert {tuple(layer.shape) for layer in reading.kept["kvpress Knorm", 20]} == {(2, 20)}


def test_an_answer_is_over_when_it_is_right_or_cannot_become_so(streams: ModuleType) -> None:
    full_text = importlib.import_module("vqmem.benchmarks.kv._full_text")
    over = full_text.hopeless(_Digits(), "407", 6)
    done = {said: over([int(x) for x in said]) for said in ("", "407", "1407", "9", "1235", "12345", "12344", "122240")}
    assert [said for said, ended in done.items() if ended] == ["407", "1407", "12345"]


class _Digits:
    """A tokenizer whose tokens are digits."""

    eos_token_id = 99

    def __call__(self, text: str, add_special_tokens: bool) -> Any:
        return SimpleNamespace(input_ids=[int(x) for x in text])

    def decode(self, said: list[int]) -> str:
        return "".join(map(str, said))


def test_bytes_are_all_slots_and_what_attention_is_given(streams: ModuleType) -> None:
    costs = importlib.import_module("vqmem.benchmarks.kv._cost")
    model = _tiny()
    most, slot, known = costs.measure_bytes(
        model, VQMemCache(model, costs.CAPACITY, policy="sink_recent"), torch.ones(1, 2 * costs.CHUNK, dtype=torch.long)
    )
    assert slot == 2 * 2 * 16 * 4  # keys and values of two layers, float32
    assert most == slot * costs.CAPACITY + slot // 2 * (costs.CAPACITY + costs.CHUNK)
    assert 0 < known < 100 * costs.CAPACITY
    assert costs.filled(model, 7).get_seq_length() == 7


def test_caches_are_copied_on_the_way_and_decode_in_turns(streams: ModuleType) -> None:
    costs = importlib.import_module("vqmem.benchmarks.kv._cost")
    model, lengths = _tiny(), [costs.CHUNK, 2 * costs.CHUNK]
    ids = torch.ones(1, 2 * costs.CHUNK, dtype=torch.long)
    copies = costs.after(model, VQMemCache(model, costs.CAPACITY, policy="sink_recent"), ids, lengths)
    assert {length: cache.get_seq_length() for length, cache in copies.items()} == {n: n for n in lengths}
    assert list(costs.decoding(model, copies, 1)) == lengths
    assert copies[lengths[0]].get_seq_length() == lengths[0] + 3


def _all(slots: int) -> list[torch.Tensor]:
    return [torch.arange(slots).expand(2, -1)] * 2


def _tiny(vocab: int = 30) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab, num_hidden_layers=2, **shape)).eval()


def _passage(name: str, ids: list[int]) -> Passage:
    return Passage(name, torch.tensor(ids), torch.ones(len(ids), dtype=torch.long), torch.zeros(len(ids)).bool())

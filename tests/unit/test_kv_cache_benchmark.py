"""Long-gap tokens, shares of the gap and the choice of a setting are what they are called."""

import importlib
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from vqmem.memory.hf_cache import VQMemCache
from vqmem.recipes._corpus import Passage
from vqmem.registry import build


@pytest.fixture
def streams(benchmark_module: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_module("_kv_streams")


@pytest.fixture
def tables(streams: ModuleType) -> ModuleType:
    return importlib.import_module("_kv_tables")


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


def test_chunks_through_a_cache_lose_what_the_whole_text_does(streams: ModuleType, tmp_path: Path) -> None:
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
    needle = importlib.import_module("_kv_needle")
    prose = " ".join(f"word{i}{'.' * (i % 9 == 0)}" for i in range(2000))
    one, same, other = (needle.quiz(task, prose, 300, random.Random(seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert one.text.count(one.value) == 1
    assert one.value not in one.question + one.answer
    key = one.question.split(" for ")[1].split()[0]
    assert f"for {key} is: {one.value}." in one.text
    assert 250 < len(one.text.split()) < 400


def test_hits_are_told_by_task_and_against_ours(streams: ModuleType) -> None:
    quizzes = importlib.import_module("_kv_quizzes")
    hits = {"ours": {"a": np.full(8, 100.0), "b": np.zeros(8)}, "other": {"a": np.zeros(8), "b": np.zeros(8)}}
    values, intervals = quizzes.table(hits, "ours")
    assert values["ours"] == {"a": 100.0, "b": 0.0, "all": 50.0, "all - ours": 0.0}
    assert values["other"]["all - ours"] == -50.0
    low, high = intervals["other"]["all - ours"]
    assert low < -50 < high < 0


def test_bytes_are_all_slots_and_what_attention_is_given(streams: ModuleType) -> None:
    costs = importlib.import_module("_kv_cost")
    model = _tiny()
    most, slot, known = costs.bytes_held(
        model, VQMemCache(model, costs.CAPACITY, "sink_recent"), torch.ones(1, 2 * costs.CHUNK, dtype=torch.long)
    )
    assert slot == 2 * 2 * 16 * 4  # keys and values of two layers, float32
    assert most == slot * costs.CAPACITY + slot // 2 * (costs.CAPACITY + costs.CHUNK)
    assert 0 < known < 100 * costs.CAPACITY
    assert costs.filled(model, 7).get_seq_length() == 7


def test_caches_are_copied_on_the_way_and_decode_in_turns(streams: ModuleType) -> None:
    costs = importlib.import_module("_kv_cost")
    model, lengths = _tiny(), [costs.CHUNK, 2 * costs.CHUNK]
    ids = torch.ones(1, 2 * costs.CHUNK, dtype=torch.long)
    copies = costs.after(model, VQMemCache(model, costs.CAPACITY, "sink_recent"), ids, lengths)
    assert {length: cache.get_seq_length() for length, cache in copies.items()} == {n: n for n in lengths}
    assert list(costs.decoding(model, copies, 1)) == lengths
    assert copies[lengths[0]].get_seq_length() == lengths[0] + 3


def _tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=30, num_hidden_layers=2, **shape)).eval()


def _passage(name: str, ids: list[int]) -> Passage:
    return Passage(name, torch.tensor(ids), torch.ones(len(ids), dtype=torch.long), torch.zeros(len(ids)).bool())

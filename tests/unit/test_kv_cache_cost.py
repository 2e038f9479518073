"""Bytes and times of caches: those of the recipe, and those of the published figures."""

import pytest
import torch
from transformers import DynamicCache
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.recipes.kv_cache import cost
from vqmem.recipes.kv_cache.caches import held_bytes
from vqmem.tests.unit.tiny_host import tiny_model

costs = pytest.importorskip("vqmem.benchmarks.kv._cost", reason="needs transformers (extra 'bench')")


def test_a_request_holds_bytes_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, now = tiny_model(), [0.0]

    def clock(device: torch.device) -> float:
        now[0] += 0.5  # every pass takes half a second
        return now[0]

    monkeypatch.setattr(cost, "clock", clock)
    caches = {"all": DynamicCache(), "few": VQMemCache(model, capacity=10, policy="fifo")}
    found = cost.measure_costs(model, caches, torch.ones(1, 48, dtype=torch.long), 16, 3)
    token = 2 * 2 * 16 * 4  # keys and values of two layers, float32
    read = [16, 32, 48, 49, 50, 51, 52, 53]
    assert found["all"].bytes == 48 * token
    assert found["all"].byte_seconds == 0.5 * token * sum(read)
    assert (found["all"].prefill_seconds, found["all"].decode_seconds) == (1.5, 0.5)
    assert 10 * token <= found["few"].bytes == held_bytes(caches["few"]) < 20 * token
    assert found["few"].byte_seconds == 0.5 * len(read) * found["few"].bytes


def test_bytes_are_all_slots_and_what_attention_is_given() -> None:
    model = tiny_model()
    most, slot, known = costs.measure_bytes(
        model, VQMemCache(model, costs.CAPACITY, policy="sink_recent"), torch.ones(1, 2 * costs.CHUNK, dtype=torch.long)
    )
    assert slot == 2 * 2 * 16 * 4  # keys and values of two layers, float32
    assert most == slot * costs.CAPACITY + slot // 2 * (costs.CAPACITY + costs.CHUNK)
    assert 0 < known < 100 * costs.CAPACITY
    assert costs.filled(model, 7).get_seq_length() == 7


def test_caches_are_copied_on_the_way_and_decode_in_turns() -> None:
    model, lengths = tiny_model(), [costs.CHUNK, 2 * costs.CHUNK]
    ids = torch.ones(1, 2 * costs.CHUNK, dtype=torch.long)
    copies = costs.after(model, VQMemCache(model, costs.CAPACITY, policy="sink_recent"), ids, lengths)
    assert {length: cache.get_seq_length() for length, cache in copies.items()} == {n: n for n in lengths}
    assert list(costs.decoding(model, copies, 1)) == lengths
    assert copies[lengths[0]].get_seq_length() == lengths[0] + 3

"""Comparisons with full memory: ratios of perplexities, differences of losses, and a verdict from them."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
from vqmem.recipes.compare.table import summarise

NATS = {"transformer_xl": 2.2, "random": 2.3, "surprise": 2.01, "rarity": 2.2, "gain": 2.15}
PASSAGES = 8


@pytest.fixture(scope="module")
def memories() -> ModuleType:
    return importlib.import_module("vqmem.benchmarks.speech.memories")


def comparison(folder: Path, passages: int = PASSAGES, largest: int = 64) -> Path:
    """A folder as `vqmem compare` leaves it: full memory costs 2 nats per token, others `NATS` at 16 slots."""
    cells = [
        {
            **{"strategy": strategy, "capacity": capacity, "seed": seed, "train": "mixed"},
            **{"documents": [str(i) for i in range(passages)], "tokens": 100 * passages, "memory_bytes": 1},
            "tokens_per_second": 1.0,
            "figures": {
                "bpb": [[3.0] * passages, [100.0] * passages],
                "nll": [[100 * (nats + 0.01 * seed) + (i % 3) for i in range(passages)], [100.0] * passages],
                "recall_nll": [[10 * nats] * passages, [10.0] * passages],
                "recall": [[5.0] * passages, [10.0] * passages],
                "long_gap_nll": [[0.0] * passages, [0.0] * passages],
            },
        }
        for seed in (0, 1)
        for strategy, capacity, nats in [
            *((name, 16, nats) for name, nats in NATS.items()),
            ("transformer_xl", 64, 2.0),
        ]
    ]
    shape = {"layers": 1}
    lm = {"passage": 64, "segment": 8, "batch_size": 2, "shape": shape, "train": {"steps": 3}, "resample_every": 4}
    summary = summarise(cells, "transformer_xl") | {"seeds": [0, 1], "split": "test", "title": "t", "command": "c"}
    summary |= {"seconds": 1.0, "config": {"capacities": [16, largest], "lm": lm, "trained": [], "strategies": NATS}}
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, cells)), encoding="utf-8")
    return folder


def test_figures_are_ratios_to_full_memory_and_the_verdict_follows(memories, tmp_path):
    result = memories.result(*memories.read(comparison(tmp_path / "run")), [])
    perplexity, phrases = result.values.values()
    assert perplexity["surprise @ 16"]["against full memory"] == pytest.approx(math.exp(0.01))
    assert perplexity["surprise @ 16"]["against random"] == pytest.approx(math.exp(-0.29))
    assert perplexity["random @ 16"].keys() == {"value", "against full memory", "against transformer_xl", "by seed"}
    assert perplexity["transformer_xl @ 64"].keys() == {"value", "by seed"}
    assert phrases["gain @ 16"]["against full memory"] == pytest.approx(0.15)
    assert result.intervals[next(iter(result.values))]["rarity @ 16"]["against transformer_xl"] == pytest.approx([1, 1])
    first, second = result.answer.split(" At 16 slots, against full memory: ", 1)[1].split(" At 16 slots, ")
    assert result.answer.startswith("Reached by surprise. At 16 slots")
    assert "surprise +1.01% perplexity, better than transformer_xl, better than random" in first
    assert "rarity +22.14% perplexity, no different from transformer_xl, better than random" in first
    assert "gain +0.150 nats on phrases said again, better than transformer_xl" in second
    assert [series.name for series in result.charts[0].series] == list(NATS)


def test_refused(memories, tmp_path):
    for name, keys, message in [
        ("short", {"largest": 32}, "the largest capacity 32 is less than a passage of 64"),
        ("few", {"passages": 3}, "3 passages are too few"),
    ]:
        with pytest.raises(ValueError, match=message):
            memories.result(*memories.read(comparison(tmp_path / name, **keys)), [])

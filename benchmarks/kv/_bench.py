"""What all parts of `kv_cache` share: the settings, how much is read, the model and scorers, the choice on dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from vqmem.benchmarks.kv._scorers import Scorers, scorers
from vqmem.benchmarks.kv.smollm2 import load_smollm2
from vqmem.recipes.kv_cache.caches import Caches
from vqmem.recipes.kv_cache.figures import Sums, best, sum_losses
from vqmem.recipes.kv_cache.presses import STREAMING
from vqmem.recipes.kv_cache.settings import FULL, Setting
from vqmem.recipes.kv_cache.streams import Streams, sample
from vqmem.recipes.lm.corpus import Passage
from vqmem.recipes.text_lm.recipe import fit_front_end, read_split

NEWEST = "sink_recent"
"""The setting from which the gap to the full cache is measured."""
RARE = 9.0
"""Nats of unigram surprisal above which a token is rare."""
BATCH_SIZE = 8
"""Passages read in parallel."""
SINKS = 4
SCORED = {"name": "scored", "surprise": 0.0, "scale": "log"}
RATIO = SCORED | {"rarity": 2.0, "surprise": -0.25}
REUSE = {"name": "scored", "surprise": 0.0, "reuse": 1.0, "scale": "raw"}
BASELINES = [
    Setting(FULL),
    *(Setting(name, {"name": name}) for name in (NEWEST, "random", "h2o", "tova", "knorm", "snapkv", "lru", "lfu")),
]
PEERS = [Setting(name, press=name) for name in STREAMING]
"""kvpress's presses, where it is installed."""
SURPRISE = Setting("surprise (the default)", {"name": "scored"}, "vq_lm")
SPANS = Setting("reuse, spans", REUSE | {"copies": 2.0, "window": 25, "age_weight": 0.0}, "reuse")
"""For texts that are read in full before the question: spans are kept together, and age does not count."""
CANDIDATES = [
    SURPRISE,
    Setting("count²", SCORED | {"rarity": 2.0}, "unigram"),
    Setting("count⁴", SCORED | {"rarity": 4.0}, "unigram"),
    Setting("count⁸", SCORED | {"rarity": 8.0}, "unigram"),
    Setting("copies first", SCORED | {"copies": 100.0}, "unigram"),
    Setting("count², copies first", SCORED | {"rarity": 2.0, "copies": 100.0}, "unigram"),
    Setting("count⁴, copies first", SCORED | {"rarity": 4.0, "copies": 100.0}, "unigram"),
    Setting("rarity² / surprise^¼", RATIO, "vq_lm"),
    Setting("rarity² / surprise^¼, copies first", RATIO | {"copies": 100.0}, "vq_lm"),
    Setting("rarity⁴ / surprise^¼", SCORED | {"rarity": 4.0, "surprise": -0.25}, "vq_lm"),
    Setting("gain", SCORED | {"gain": 1.0}, "vq_lm"),
    Setting("reuse", REUSE, "reuse"),
    Setting("reuse, copies first", REUSE | {"copies": 100.0}, "reuse"),
    Setting("reuse / √age", REUSE | {"age_weight": 0.5}, "reuse"),
    SPANS,
]
"""Settings of ``scored``, over log age: `count` is the unigram's rarity, `reuse` the signal of the scorer reuse (how
much likelier than its frequency a token is to come again), the other signals are the VQ-LM's."""


@dataclass(frozen=True)
class Size:
    """How much is read."""

    dev: int = 12
    """Passages to choose on."""
    test: int = 21
    length: int = 2048
    """Tokens of a passage."""
    capacities: tuple[int, ...] = (128, 256, 512)
    """Slots; every policy is read at the first, those that matter at the others."""
    everywhere: bool = False
    """Whether every policy is read at the others too."""
    baselines: int = len(BASELINES)
    peers: int = len(PEERS)
    candidates: int = len(CANDIDATES)
    dev_quizzes: int = 2
    """Of each task and of the shorter texts, to choose on."""
    quizzes: int = 7
    """Of each task and length."""
    texts: tuple[int, ...] = (1024, 2048, 4096)
    """About how many tokens the text of a quiz has."""


QUICK = Size(
    dev=6,
    test=6,
    length=448,
    capacities=(32,),
    baselines=3,
    candidates=3,
    peers=4,
    dev_quizzes=1,
    quizzes=1,
    texts=(300,),
)


class Bench:
    """The model, the scorers, and the folder where all is kept."""

    def __init__(self, flags: Any) -> None:
        folder = Path(f"{flags.run}{'-quick' if flags.quick else ''}")
        self.scorers: Scorers = scorers(folder, Path(flags.data) / "text", 10 if flags.quick else flags.steps)
        self.peer = load_smollm2(getattr(torch, flags.dtype))
        self.model, self.folder = self.peer.model, folder
        self.named = {name: getattr(self.scorers, name) for name in ("unigram", "vq_lm", "reuse")}
        self.caches = Caches(self.peer.host, self.named, SINKS)
        self.streams = Streams(self.caches, folder / "streams", BATCH_SIZE)

    def passages(self, split: Any, length: int, count: int) -> list[Passage]:
        """Of the books of a split."""
        config = self.scorers.config
        return sample(read_split(replace(config, passage=length), fit_front_end(config), split), length, count)

    def read(self, settings: Sequence[Setting], capacity: int, items: list[Passage]) -> Sums:
        """The sums of each setting."""
        found = self.streams.read(settings, [capacity], items)[capacity]
        rarity = self.scorers.unigram.rarity().double().numpy()
        return sum_losses(found, items, rarity, rare=RARE, capacity=capacity, baseline=NEWEST)


def choose(bench: Bench, size: Size) -> tuple[Setting, Setting, Sums]:
    """The best candidate on dev at the first capacity, the best of the VQ-LM's, and the sums by which they are."""
    candidates = {setting.name: setting for setting in CANDIDATES[: size.candidates]}
    items = bench.passages("dev", size.length, size.dev)
    dev = bench.read([*BASELINES[:2], *candidates.values()], size.capacities[0], items)
    learned = [name for name, setting in candidates.items() if setting.scorer == "vq_lm"]
    return candidates[best(dev, list(candidates))], candidates[best(dev, learned)], dev

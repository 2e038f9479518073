"""A pretrained model's cache in a fixed budget: what is lost by each policy, and what a bounded cache costs.

    python benchmarks/kv_cache.py [stream] [cost] [--data FOLDER] [--run FOLDER] [--quick] [--json] [--save]

SmolLM2-135M reads novels. ``stream`` chooses the setting of ``scored`` on the dev books at the first capacity, then
reads the test books with it and with the other policies. What each token cost is kept in the run folder, so that a run
that was stopped goes on and more passages add to those that were read. ``cost`` measures bytes and time. The scorers
are made on first use: a count of the train books, and a VQ-LM trained on them (minutes). Needs the packages that
`smollm2.py` names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _kv_scorers import Scorers, scorers
from _kv_streams import CHUNK, SINKS, Setting, Streams, sample
from _kv_tables import EVERYTHING, NEWEST, Sums, beaten, best, sums, table
from _results import Result, figure, options, write_result
from smollm2 import load_smollm2
from vqmem.recipes._corpus import Passage
from vqmem.recipes.text_lm.recipe import fit_front_end, read_split

LENGTH, RARE, ROWS = 2048, 9.0, 8
"""Tokens of a passage; nats of unigram surprisal above which a token is rare; passages read side by side."""
SCORED = {"name": "scored", "surprise": 0.0, "scale": "log"}
BASELINES = [
    Setting(EVERYTHING, None),
    *(Setting(name, {"name": name}) for name in (NEWEST, "random", "h2o", "tova", "knorm", "snapkv", "lru", "lfu")),
]
SURPRISE = Setting("surprise (the default)", {"name": "scored"}, "vq_lm")
CANDIDATES = [
    SURPRISE,
    Setting("count²", SCORED | {"rarity": 2.0}, "unigram"),
    Setting("count⁴", SCORED | {"rarity": 4.0}, "unigram"),
    Setting("copies first", SCORED | {"copies": True}, "unigram"),
    Setting("count², copies first", SCORED | {"rarity": 2.0, "copies": True}, "unigram"),
    Setting("count⁴, copies first", SCORED | {"rarity": 4.0, "copies": True}, "unigram"),
    Setting("rarity² / surprise^¼", SCORED | {"rarity": 2.0, "surprise": -0.25}, "vq_lm"),
    Setting("rarity² / surprise^¼, copies first", SCORED | {"rarity": 2.0, "surprise": -0.25, "copies": True}, "vq_lm"),
    Setting("gain", SCORED | {"gain": 1.0}, "vq_lm"),
]
"""Settings of ``scored``, all over log age: `count` is the unigram's rarity, the signals are the VQ-LM's."""


class Bench:
    """The model, the scorers and the folder, loaded when first needed."""

    def __init__(self, flags: Any) -> None:
        self.flags = flags
        self.folder = Path(f"{flags.run}{'-quick' if flags.quick else ''}")
        self.scorers: Scorers = scorers(self.folder, Path(flags.data) / "text", 10 if flags.quick else flags.steps)
        self.model = load_smollm2(getattr(torch, flags.dtype)).model
        named = {"unigram": self.scorers.unigram, "vq_lm": self.scorers.vq_lm}
        self.streams = Streams(self.model, named, self.folder / "streams", ROWS)

    def passages(self, split: Any, count: int) -> list[Passage]:
        """Of the books of a split."""
        config = self.scorers.config
        return sample(read_split(config, fit_front_end(config), split), LENGTH, count)

    def read(self, settings: Sequence[Setting], capacity: int, items: list[Passage]) -> Sums:
        """The sums of each setting."""
        found = {setting.name: self.streams.nats(setting, capacity, items) for setting in settings}
        return sums(found, items, self.scorers.unigram.rarity().numpy(), RARE, capacity)

"""A pretrained model's cache in a fixed budget: what is lost by each policy, and what a bounded cache costs.

    python benchmarks/kv_cache.py [stream|cost] [--data FOLDER] [--run FOLDER] [--quick] [--json] [--save]

SmolLM2-135M reads novels. ``stream`` chooses the setting of ``scored`` on the dev books at the first capacity, then
reads the test books with it and with the other policies. What each token cost is kept in the run folder, so that a run
that was stopped goes on and more passages add to those that were read. ``cost`` measures bytes and time. The scorers
are made on first use: a count of the train books, and a VQ-LM trained on them (minutes). Needs the packages that
`smollm2.py` names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _kv_cost import CAPACITY, LENGTHS, cost
from _kv_cost import CHUNK as COST_CHUNK
from _kv_scorers import Scorers, scorers
from _kv_streams import CHUNK, SINKS, Setting, Streams, sample
from _kv_tables import EVERYTHING, NEWEST, Sums, beaten, best, sums, table
from _results import Result, figure, options, present, show, write_result
from smollm2 import load_smollm2
from vqmem.memory.hf_cache import VQMemCache
from vqmem.recipes._corpus import Passage
from vqmem.recipes.text_lm.recipe import fit_front_end, read_split

RARE, ROWS = 9.0, 8
"""Nats of unigram surprisal above which a token is rare; passages read side by side."""
SCORED = {"name": "scored", "surprise": 0.0, "scale": "log"}
BASELINES = [
    Setting(EVERYTHING, None),
    *(Setting(name, {"name": name}) for name in (NEWEST, "random", "h2o", "tova", "knorm", "snapkv", "lru", "lfu")),
]
LOOKING = ("h2o", "tova", "knorm", "snapkv", "lru", "lfu")
"""Those that look at attention or keys."""
SURPRISE = Setting("surprise (the default)", {"name": "scored"}, "vq_lm")
CANDIDATES = [
    SURPRISE,
    Setting("count²", SCORED | {"rarity": 2.0}, "unigram"),
    Setting("count⁴", SCORED | {"rarity": 4.0}, "unigram"),
    Setting("count⁸", SCORED | {"rarity": 8.0}, "unigram"),
    Setting("copies first", SCORED | {"copies": True}, "unigram"),
    Setting("count², copies first", SCORED | {"rarity": 2.0, "copies": True}, "unigram"),
    Setting("count⁴, copies first", SCORED | {"rarity": 4.0, "copies": True}, "unigram"),
    Setting("rarity² / surprise^¼", SCORED | {"rarity": 2.0, "surprise": -0.25}, "vq_lm"),
    Setting("rarity² / surprise^¼, copies first", SCORED | {"rarity": 2.0, "surprise": -0.25, "copies": True}, "vq_lm"),
    Setting("rarity⁴ / surprise^¼", SCORED | {"rarity": 4.0, "surprise": -0.25}, "vq_lm"),
    Setting("gain", SCORED | {"gain": 1.0}, "vq_lm"),
]
"""Settings of ``scored``, all over log age: `count` is the unigram's rarity, the signals are the VQ-LM's."""


@dataclass(frozen=True)
class Size:
    """How much is read."""

    dev: int = 6
    """Passages to choose on."""
    test: int = 21
    length: int = 2048
    """Tokens of a passage."""
    capacities: tuple[int, ...] = (128, 256, 512)
    """Slots; every policy is read at the first, those that matter at the others."""
    baselines: int = len(BASELINES)
    candidates: int = len(CANDIDATES)


QUICK = Size(dev=6, test=6, length=448, capacities=(32,), baselines=3, candidates=3)


class Bench:
    """The model, the scorers, and the folder where all is kept."""

    def __init__(self, flags: Any) -> None:
        folder = Path(f"{flags.run}{'-quick' if flags.quick else ''}")
        self.scorers: Scorers = scorers(folder, Path(flags.data) / "text", 10 if flags.quick else flags.steps)
        self.model = load_smollm2(getattr(torch, flags.dtype)).model
        self.named = {"unigram": self.scorers.unigram, "vq_lm": self.scorers.vq_lm}
        self.streams = Streams(self.model, self.named, folder / "streams", ROWS)

    def passages(self, split: Any, length: int, count: int) -> list[Passage]:
        """Of the books of a split."""
        config = self.scorers.config
        return sample(read_split(replace(config, passage=length), fit_front_end(config), split), length, count)

    def read(self, settings: Sequence[Setting], capacity: int, items: list[Passage]) -> Sums:
        """The sums of each setting."""
        found = {setting.name: self.streams.nats(setting, capacity, items) for setting in settings}
        return sums(found, items, self.scorers.unigram.rarity().numpy(), RARE, capacity)


def stream(bench: Bench, size: Size) -> tuple[dict[str, Any], Result]:
    """Choose on dev, read test; figures and what they say."""
    first, candidates = size.capacities[0], CANDIDATES[: size.candidates]
    dev = bench.read([*BASELINES[:2], *candidates], first, bench.passages("dev", size.length, size.dev))
    ours = best(dev, [setting.name for setting in candidates])
    chosen = next(setting for setting in candidates if setting.name == ours)
    items = bench.passages("test", size.length, size.test)
    own = list(dict.fromkeys([SURPRISE, chosen]))
    tables = {f"Dev, {first} slots, to choose by": table(dev)}
    read: dict[int, Sums] = {}
    for capacity in size.capacities:
        others = BASELINES[: size.baselines] if capacity == first else BASELINES[:2]
        read[capacity] = bench.read([*others, *own], capacity, items)
        tables[f"Test, {capacity} slots"] = table(read[capacity])
    figures = judge(read, ours)
    return figures, describe(bench, size, tables, read, ours, figures)


def judge(read: dict[int, Sums], ours: str) -> dict[str, Any]:
    """The goals, at the first capacity."""
    capacity, found = next(iter(read.items()))
    share, low, high = (round(100 * x, 1) for x in found.closed(ours))
    worse = found.mean(ours) - found.mean(NEWEST)
    equal = [name for verdict, names in beaten(found, ours).items() if verdict != "worse" for name in names]
    return {
        f"gap closed at {capacity}": figure(share, "% of newest to everything", 50.0, low=low, high=high),
        f"NLL at {capacity}": figure(round(worse, 4), "nats more than the newest", 0.0, least=False),
        f"not beaten at {capacity}": figure(len(equal), "other settings", 0, least=False, names=", ".join(equal)),
    }


def describe(
    bench: Bench,
    size: Size,
    tables: dict[str, Any],
    read: dict[int, Sums],
    ours: str,
    figures: dict[str, Any],
) -> Result:
    """The result with its findings, which follow from the figures."""
    first = size.capacities[0]
    found = read[first]
    missed = [f"{key} ({one['value']:g}, goal {one['goal']:g})" for key, one in figures.items() if not one["ok"]]
    against = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in beaten(found, ours).items())
    config = bench.scorers.config
    return Result(
        title="What a pretrained model's cache should keep",
        claim="`scored` makes up for half of what long-gap tokens lose to a small cache, and beats every other policy.",
        verdict=f"Chosen on dev: {ours}. {len(figures) - len(missed)} of {len(figures)} goals reached"
        + f"; missed: {', '.join(missed)}" * bool(missed)
        + ".",
        measured=(
            f"SmolLM2-135M-Instruct (4-bit weights, computed in {str(bench.model.dtype).removeprefix('torch.')}) reads "
            f"passages of {size.length} tokens, {CHUNK} at a time, through `VQMemCache` with {SINKS} sinks and the "
            "newest half guarded, the same for all. NLL in nats over the tokens after the first that fill the slots. "
            f"Long-gap tokens have a unigram surprisal above {RARE:g} nats on the train books and were last seen "
            "further back than there are slots. `everything` evicts nothing; `sink_recent` (fifo with sinks) keeps "
            "the newest; gap closed is the share of the way from the latter's long-gap NLL to the former's. All "
            "settings of `scored` divide by the age: `count` is the unigram's rarity; surprise, rarity and gain are "
            f"the VQ-LM's (64 codes, {config.scorer_train.steps} steps of {config.rows * config.segment} tokens of the "
            "train books), to powers as written, but the default is standardised; `copies first` evicts older copies "
            "of a token before all else."
        ),
        values={name: values for name, (values, _) in tables.items()},
        intervals={name: intervals for name, (_, intervals) in tables.items()},
        interval_kind="95 %, paired bootstrap over passages, which stand for other passages of these books",
        split=f"test: {size.test} passages of 3 novels, {found.tokens.sum():.0f} scored tokens at {first} slots, "
        f"{found.far_tokens.sum():.0f} of them long-gap; dev: {size.dev} passages of 3 novels",
        seeds=[config.seed],
        notes=[
            f"On long-gap tokens of test, against {ours}, {against}.",
            f"{size.candidates} settings of `scored` were compared on dev, none on test.",
            "The time below is that of the last run, without what earlier runs had read and kept.",
            f"Every policy keeps one set of tokens for all layers and heads; for {', '.join(LOOKING)} that is not what "
            "their papers do, and is no measurement of kvpress, which is yet to be run.",
        ],
    )


def costs(bench: Bench, quick: bool) -> dict[str, Any]:
    """The figures of `cost`, on a dev book: without a scorer, and with each."""
    config = bench.scorers.config
    text = read_split(replace(config, passage=1 << 30), fit_front_end(config), "dev")[0].ids[None]
    policies: dict[str | None, Any] = {
        None: NEWEST,
        "unigram": SCORED | {"rarity": 4.0},
        "vq_lm": SCORED | {"rarity": 2.0, "surprise": -0.25},
    }

    def make(name: str | None) -> VQMemCache:
        scorer = None if name is None else bench.named[name]
        return VQMemCache(bench.model, CAPACITY, policies[name], scorer, SINKS)

    return cost(bench.model, bench.named, make, text[:, : LENGTHS[-1] + 1], quick)


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument("part", nargs="?", choices=["stream", "cost"], default="stream", help="what to measure")
    parser.add_argument(
        "--data", default=default, help="folder that holds text/ (default $VQMEM_DATA or ../shared/data)"
    )
    parser.add_argument("--run", default="runs/kv_cache", help="folder that keeps scorers and what tokens cost")
    parser.add_argument("--steps", type=int, default=400, help="training steps of the VQ-LM")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"], help="of the model")
    parser.add_argument("--passages", type=int, default=Size.test, help="of the test books (default %(default)s)")
    parser.add_argument("--capacity", type=int, nargs="+", default=Size.capacities, help="slots")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if flags.quick else Size(test=flags.passages, capacities=tuple(flags.capacity))
    bench = Bench(flags)
    if flags.part == "stream":
        figures, result = stream(bench, size)
        show(figures, flags)
        if flags.save:
            write_result("kv_stream_nll", result)
        return
    present(
        "kv_cost",
        costs(bench, flags.quick),
        flags,
        title="What a bounded cache costs",
        claim="Bytes stay within the budget and one chunk, time a token does not grow, and the scorer costs little.",
        measured=(
            f"SmolLM2-135M in {flags.dtype} with {CAPACITY} slots kept by `scored` with the VQ-LM; a prompt is read "
            f"{COST_CHUNK} tokens at a time. Seconds are those of the processor on one thread, for other programs ran "
            "beside it. Bytes are those of the storages behind keys and values, at their most at any layer. Time a "
            "token is the median of 32 greedily decoded after so many were read; `DynamicCache` holds random keys and "
            f"values. Prefill is of {4 * COST_CHUNK} tokens, the median of 5, against `sink_recent` without scores. "
            "Bytes and decoding are measured with the VQ-LM; `unigram` is a table of counts."
        ),
    )


if __name__ == "__main__":
    main()

"""The published figures of `VQMemCache` on SmolLM2-135M; `vqmem kv_cache` measures a model of your own.

    python benchmarks/kv/kv_cache.py [stream|cost|needle] [--data FOLDER] [--run FOLDER] [--quick] [--json] [--save]

SmolLM2-135M reads novels. ``stream`` chooses the setting of ``scored`` on the dev books at the first capacity, then
reads the test books with it and with the other policies. What each token cost is kept in the run folder, so that a run
that was stopped goes on and more passages add to those that were read. ``cost`` measures bytes and time. ``needle``
asks for a number when most of the text with it is gone, and chooses on dev likewise. Where kvpress is
installed (it needs `transformers` below 5.3), both read its presses too, each head with different slots. The
scorers are made on first use: a count of the train books, and a VQ-LM trained on them (minutes). Needs the packages
that `smollm2.py` names.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
from vqmem.benchmarks._results import Chart, Result, Series, figure, options, present, show, write_result
from vqmem.benchmarks.kv._bench import (
    BASELINES,
    NEWEST,
    PEERS,
    QUICK,
    RARE,
    RATIO,
    REUSE,
    SCORED,
    SINKS,
    SURPRISE,
    Bench,
    Size,
    choose,
)
from vqmem.benchmarks.kv._cost import CAPACITY, LENGTHS, cost
from vqmem.benchmarks.kv._cost import CHUNK as COST_CHUNK
from vqmem.benchmarks.kv._needles import needles
from vqmem.memory.huggingface.cache import VQMemCache
from vqmem.recipes.kv_cache.figures import Sums, table, verdicts
from vqmem.recipes.kv_cache.presses import ONE_PASS, notes
from vqmem.recipes.kv_cache.settings import FULL
from vqmem.recipes.kv_cache.streams import CHUNK
from vqmem.recipes.text_lm.recipe import fit_front_end, read_split

HISTORY = (
    "The candidates grew while dev was read: higher powers of the count after the fourth had done well there, then the "
    "scorer `reuse`, which was made on train and chosen on dev. These test passages were read by the settings of the "
    "VQ-LM and of the count before `reuse` was there, and by `reuse` once."
)
"""How dev and test were used over time."""
LOOKING = ("h2o", "tova", "knorm", "snapkv", "lru", "lfu")
"""Those that look at attention or keys."""


def stream(bench: Bench, size: Size) -> tuple[dict[str, Any], Result]:
    """Choose on dev, read test; figures and what they say."""
    first = size.capacities[0]
    chosen, learned, dev = choose(bench, size)
    ours = chosen.name
    items = bench.passages("test", size.length, size.test)
    scored = list({setting.name: setting for setting in (SURPRISE, learned, chosen)}.values())
    tables = {f"Dev, {first} slots, to choose by": table(dev)}
    read: dict[int, Sums] = {}
    for capacity in size.capacities:
        all_of_them = [*BASELINES[: size.baselines], *PEERS[: size.peers]]
        others = all_of_them if size.everywhere or capacity == first else BASELINES[:2]
        read[capacity] = bench.read([*others, *scored], capacity, items)
        tables[f"Test, {capacity} slots"] = table(read[capacity])
    figures = compare_with_goals(read, ours)
    return figures, describe(bench, size, tables, read, ours, figures)


def compare_with_goals(read: dict[int, Sums], ours: str) -> dict[str, Any]:
    """The figures at the first capacity, with their goals."""
    capacity, found = next(iter(read.items()))
    share, low, high = (round(100 * x, 1) for x in found.closed(ours))
    worse = found.mean(ours) - found.mean(NEWEST)
    figures = {
        f"gap closed at {capacity}": figure(share, "% of newest to everything", 50.0, low=low, high=high),
        f"NLL at {capacity}": figure(round(worse, 4), "nats more than the newest", 0.0, least=False),
    }
    equal = [name for verdict, names in verdicts(found, ours).items() if verdict != "worse" for name in names]
    for unit, others in (("other policies", BASELINES), ("presses of kvpress", PEERS)):
        names = [setting.name for setting in others if setting.name in equal]
        if any(setting.name in found.far for setting in others):
            key = f"{unit} as good at {capacity}"
            figures[key] = figure(len(names), unit, 0, least=False, names=", ".join(names))
    return figures


def describe(
    bench: Bench,
    size: Size,
    tables: dict[str, Any],
    read: dict[int, Sums],
    ours: str,
    figures: dict[str, Any],
) -> Result:
    """Write the result; its findings follow from the figures.

    Args:
        bench: the model and the scorers.
        size: how much was read.
        tables: values and intervals of each table, by heading.
        read: the summed losses on test, by capacity.
        ours: the setting of ``scored`` that was chosen on dev.
        figures: the figures with their goals; see `compare_with_goals`.

    Returns:
        The result for the page.
    """
    first = size.capacities[0]
    found = read[first]
    missed = [f"{key} ({one['value']:g}, goal {one['goal']:g})" for key, one in figures.items() if not one["ok"]]
    against = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in verdicts(found, ours).items())
    config, others = bench.scorers.config, {setting.name for setting in (*BASELINES, *PEERS)}
    one_pass = f"{', '.join(ONE_PASS)} of kvpress want a prompt in one pass, and are not in this setting."
    scored = [(name, row) for name, row in tables[f"Test, {first} slots"][0].items() if name not in others]
    return Result(
        title="What a pretrained model's cache should keep",
        question=(
            "Does `scored` make up for half of what long-gap tokens lose to a small cache, and beat every other policy?"
        ),
        answer=f"Chosen on dev: {ours}. {len(figures) - len(missed)} of {len(figures)} goals reached"
        + (f"; missed: {', '.join(missed)}" if missed else "")
        + ".",
        measured=(
            f"SmolLM2-135M-Instruct (4-bit weights, computed in {str(bench.model.dtype).removeprefix('torch.')}) reads "
            f"passages of {size.length} tokens, {CHUNK} at a time, through `VQMemCache` with {SINKS} sinks and the "
            "newest half guarded, the same for all. NLL in nats over the tokens after the first that fill the slots. "
            f"Long-gap tokens have a unigram surprisal above {RARE:g} nats on the train books and were last seen "
            "further back than there are slots. `full cache` evicts nothing; `sink_recent` (fifo with sinks) keeps "
            "the newest; gap closed is the share of the way from the long-gap NLL of `sink_recent` to that of "
            "`full cache`. All settings of `scored` divide by the age: `count` is the unigram's rarity; surprise, "
            f"rarity and gain are the VQ-LM's (64 codes, {config.scorer_train.steps} steps of "
            f"{config.batch_size * config.segment} tokens of the train books), to powers as written, but the default "
            "is standardised; `reuse` is how much likelier a token is to come again within 1,024 tokens than its "
            "frequency says, by the scorer of that name (`vqmem train-scorer --config reuse` on the train books); "
            "`copies first` evicts older copies of a token before all else."
        ),
        values={name: values for name, (values, _) in tables.items()},
        intervals={name: intervals for name, (_, intervals) in tables.items()},
        charts=charts(read, ours),
        interval_kind="95 %, paired bootstrap over passages, which stand for other passages of these books",
        split=f"test: {size.test} passages of 3 novels, {found.tokens.sum():.0f} scored tokens at {first} slots, "
        f"{found.far_tokens.sum():.0f} of them long-gap; dev: {size.dev} passages of 3 novels",
        seeds=[config.seed],
        effect=[f"Test, {first} slots", ours, "gap closed, %"],
        notes=[
            f"On long-gap tokens of test, against {ours}, {against}.",
            f"Every policy of ours keeps one set of tokens for all layers and heads; for {', '.join(LOOKING)} that is "
            "not what their papers do.",
            *notes(),
            *([one_pass] if PEERS else []),
        ],
        history=[
            f"{size.candidates} settings of `scored` were compared on dev; on test are the best of them, the best of "
            "the VQ-LM's, and the default: "
            + "; ".join(
                f"{name} closes {row['gap closed, %']:g} % at {row[f'NLL - {NEWEST}']:+.4f} nats"
                for name, row in scored
            )
            + ". The goals apply to the best alone.",
            HISTORY,
            "The time is that of the last run, without what earlier runs had read and kept.",
        ],
    )


def charts(read: dict[int, Sums], ours: str) -> list[Chart]:
    """How long-gap tokens fare by the slots, if there are several capacities."""
    if len(read) < 2:
        return []
    names = [name for name in next(reversed(read.values())).far if name in (FULL, NEWEST, SURPRISE.name, ours)]
    lines = [
        Series(name, [[slots, float(found.far[name].sum() / found.far_tokens.sum())] for slots, found in read.items()])
        for name in names
    ]
    return [Chart("Long-gap tokens of test, by slots (chosen for each capacity)", "slots", "nats", lines, log_x=True)]


def costs(bench: Bench, quick: bool) -> dict[str, Any]:
    """The figures of `cost`, on a dev book: without a scorer, and with each."""
    config = bench.scorers.config
    text = read_split(replace(config, passage=1 << 30), fit_front_end(config), "dev")[0].ids[None]
    policies: dict[str | None, Any] = {
        None: NEWEST,
        "unigram": SCORED | {"rarity": 4.0},
        "vq_lm": RATIO,
        "reuse": REUSE,
    }

    def make(name: str | None) -> VQMemCache:
        scorer = None if name is None else bench.named[name]
        return VQMemCache(bench.model, CAPACITY, policy=policies[name], scorer=scorer, sinks=SINKS)

    return cost(bench.model, bench.named, make, text[:, : LENGTHS[-1] + 1], quick)


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    default = os.environ.get("VQMEM_DATA", "../shared/data")
    parser.add_argument(
        "part", nargs="?", choices=["stream", "cost", "needle"], default="stream", help="what to measure"
    )
    parser.add_argument(
        "--data", default=default, help="folder that holds text/ (default $VQMEM_DATA or ../shared/data)"
    )
    parser.add_argument("--run", default="runs/kv_cache", help="folder that keeps scorers and what tokens cost")
    parser.add_argument("--steps", type=int, default=400, help="training steps of the VQ-LM")
    parser.add_argument(
        "--dtype", choices=["bfloat16", "float32"], help="of the model (default float32 for cost, else bfloat16)"
    )
    parser.add_argument("--passages", type=int, default=Size.test, help="of the test books (default %(default)s)")
    parser.add_argument("--quizzes", type=int, default=Size.quizzes, help="of each task and length (%(default)s)")
    parser.add_argument("--everywhere", action="store_true", help="read every policy at every capacity")
    parser.add_argument("--capacity", type=int, nargs="+", default=Size.capacities, help="slots")
    flags = parser.parse_args()
    # On a processor bfloat16 reads many rows faster, and decodes a single token slower.
    flags.dtype = flags.dtype or ("float32" if flags.part == "cost" else "bfloat16")
    torch.set_num_threads(1)
    size = QUICK
    if not flags.quick:
        size = Size(
            test=flags.passages,
            quizzes=flags.quizzes,
            capacities=tuple(flags.capacity),
            everywhere=flags.everywhere,
        )
    bench = Bench(flags)
    if flags.part != "cost":
        figures, result = stream(bench, size) if flags.part == "stream" else needles(bench, size)
        show(figures, flags)
        if flags.save:
            write_result("kv_stream_nll" if flags.part == "stream" else "kv_needle", result)
        return
    present(
        "kv_cost",
        costs(bench, flags.quick),
        flags,
        title="What a bounded cache costs",
        question=(
            "Do bytes stay within the capacity and one chunk, is the time a token constant, and does the scorer cost "
            "little?"
        ),
        measured=(
            f"SmolLM2-135M in {flags.dtype}, {CAPACITY} slots kept by `scored`; prompts are read {COST_CHUNK} tokens "
            "at a time. Seconds are those of the processor on one thread, for other programs ran beside it. Bytes are "
            "the storages behind keys and values and, besides, what attention is given, at their most. Time a token is "
            "the median of 32 decoded by caches that had read so many, and one that is a `DynamicCache` of random keys "
            "and values, in turns; its figure is the farthest of the lengths from their median. Prefill is of "
            f"{4 * COST_CHUNK} tokens, three times, in turns with `sink_recent` without scores; seconds are a chunk's. "
            "Bytes and decoding are measured with the scorer `reuse`; `unigram` is a table of counts."
        ),
    )


if __name__ == "__main__":
    main()

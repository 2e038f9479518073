"""Train a model for one memory or for all: what either gains, by the model's size, the memory's, and the steps.

    python benchmarks/text/native_or_mixed.py [--quick] [--json] [--save] [--data FOLDER] [--run FOLDER]
        [--split dev|test] [--strategies NAME ...] [--seeds N ...]

Memory transformers of three sizes read passages of 2,048 tokens of novels with memories of a quarter to a 32nd of
that. `mixed` is one model for all strategies and capacities; `native` is a model for each. No model is trained with
`learned`, which is fitted to the mixed model or to the native one of the newest tokens. Every model gets the same
number of steps. A further table trains the middle size with a quarter and a half of the steps; another compares every
strategy with the newest tokens at twice the slots. Everything is kept in the run's folder, as `vqmem compare` keeps it,
so that a stopped run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from vqmem.benchmarks._results import ROOT, Chart, Series, data_option, options, present
from vqmem.recipes.compare.recipe import Config, measured, run
from vqmem.recipes.compare.statistics import Comparison, paired_bootstrap
from vqmem.recipes.engine.config import load

BASELINE, METRIC = "transformer_xl", "bpb"


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    sizes: Mapping[str, str]
    """The shapes of the models by name, the smallest first."""
    capacities: tuple[int, ...]
    steps: int
    passages: int
    passage: int = 2048
    """Tokens."""
    overrides: tuple[str, ...] = ()


FULL = Scale(
    sizes={
        "1 x 64": "{layers: 1, dim: 64, heads: 4, shift: true}",
        "2 x 128": "{layers: 2, dim: 128, heads: 4, shift: true}",
        "4 x 192": "{layers: 4, dim: 192, heads: 4, shift: true}",
    },
    capacities=(64, 128, 256, 512),
    steps=400,
    passages=16,
    overrides=("lm.scorer_train={steps: 400, lr: 0.003, warmup: 50}",),
)
QUICK = Scale(
    sizes={"1 x 16": "{layers: 1, dim: 16, heads: 2}", "2 x 16": "{layers: 2, dim: 16, heads: 2}"},
    capacities=(16, 32),
    steps=4,
    passages=8,
    passage=128,
    overrides=(
        "lm.data=builtin_text",
        "lm.front_end={name: bpe, vocab_size: 300, train_bytes: 20000}",
        "lm.train_tokens=6000",
        "lm.batch_size=4",
        "lm.segment=16",
        "lm.scorer={name: vq_lm, dim: 8, hidden: 8, codes: 8}",
        "lm.scorer_train={steps: 3}",
    ),
)


def main() -> None:
    """Train, measure, print, save."""
    parser = options(__doc__)
    data_option(parser)
    parser.add_argument("--run", type=Path, default="runs/native_or_mixed", help="folder of models and results")
    parser.add_argument("--split", choices=["dev", "test"], default="dev", help="of the novels (default dev)")
    parser.add_argument(
        "--strategies", nargs="+", default=["surprise", "learned"], help="of the config novels, or policies"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a training of each (default 0)")
    flags = parser.parse_args()
    scale = QUICK if flags.quick else FULL
    tables: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    series: dict[str, list[list[float]]] = {}
    for size in scale.sizes:
        for row in read(scale, flags, size, scale.steps):
            note(row, f"{size}, {row['train']}", f"{row['strategy']} @ {row['capacity']}", tables, intervals)
            if row["strategy"] != BASELINE and (point := point_of(row, scale)):
                series.setdefault(f"{row['strategy']}, {size}, {row['train']}", []).append(point)
        for how in ("native", "mixed"):
            table = f"{size}, {how}, beside {BASELINE} at twice the slots"
            for name, found in beside_twice(scale, flags, size, how).items():
                tables.setdefault(table, {})[name] = {"bits per byte": found.value, "difference": found.difference}
                ends = [found.difference_low, found.difference_high]
                intervals.setdefault(table, {})[name] = {} if None in ends else {"difference": ends}
    middle = [*scale.sizes][len(scale.sizes) // 2]
    for steps in (scale.steps // 4, scale.steps // 2):
        for row in read(scale, flags, middle, steps):
            name = f"{row['strategy']} @ {row['capacity']}, {steps} steps"
            note(row, f"{middle}, {row['train']}, fewer steps", name, tables, intervals)
    present(
        "native_or_mixed",
        {},
        flags,
        title="A model for one memory, or one for all",
        question="When does it pay to train a model with the one memory that it will have?",
        measured=(
            f"Memory transformers ({', '.join(scale.sizes)}: layers x width) read {scale.passages} passages, segments "
            f"of 64 tokens, with {', '.join(map(str, scale.capacities))} slots. `mixed`: one model, strategy and "
            f"capacity drawn anew every few updates; `native`: a model for each. {scale.steps} updates each."
        ),
        charts=[
            Chart(
                f"Bits per byte, less those of {BASELINE} trained likewise",
                "tokens of a passage for each slot",
                "difference (lower is better)",
                [Series(name, points) for name, points in series.items()],
                log_x=True,
            )
        ],
        split=f"{flags.split}, {scale.passages} passages",
        seeds=flags.seeds,
        tables=tables,
        intervals=intervals,
        interval_kind="95 %, paired bootstrap over passages; figures are averaged over the seeds first",
    )


def read(scale: Scale, flags: Any, size: str, steps: int) -> Iterator[dict[str, Any]]:
    """Train and measure the models of one size.

    Args:
        scale: how large everything is.
        flags: of the command line.
        size: the name of the size.
        steps: of each training.

    Yields:
        The rows of the summaries of `vqmem compare`, natively trained ones first at each capacity.
    """
    for number, capacity in enumerate(scale.capacities):
        for row in run(config(scale, flags, size, capacity, steps))["rows"]:
            if row["train"] == "native" or (number == 0 and row["capacity"] in scale.capacities):
                yield row


def beside_twice(scale: Scale, flags: Any, size: str, how: str) -> dict[str, Comparison]:
    """Compare every strategy with the newest tokens at twice its slots, where that was measured.

    Args:
        scale: how large everything is.
        flags: of the command line.
        size: the name of the size, whose models are trained and measured.
        how: the training, ``native`` or ``mixed``.

    Returns:
        The bits per byte of each strategy and capacity, and how many more they are.
    """
    bits: dict[tuple[str, int], list[Any]] = {}
    for capacity in scale.capacities if how == "native" else scale.capacities[:1]:
        for cell in measured(config(scale, flags, size, capacity, scale.steps)):
            if cell["train"] == how:
                bits.setdefault((cell["strategy"], cell["capacity"]), []).append(cell["figures"][METRIC])
    found = {}
    for (strategy, capacity), ours in bits.items():
        twice = bits.get((BASELINE, 2 * capacity))
        if strategy != BASELINE and twice is not None:
            numerators = np.array([cell[0] for cell in ours])
            beside = np.array([cell[0] for cell in twice])
            found[f"{strategy} @ {capacity}"] = paired_bootstrap(numerators, beside, np.array(ours[0][1]))
    return found


def config(scale: Scale, flags: Any, size: str, capacity: int, steps: int) -> Config:
    """The comparison of models of one size, natively trained at one capacity.

    Args:
        scale: how large everything is.
        flags: of the command line.
        size: the name of the size.
        capacity: of the natively trained models.
        steps: of each training.

    Returns:
        The config ``novels`` of `vqmem compare` at this scale. Capacities share the mixed model and the results.
    """
    train = f"{{steps: {steps}, lr: 0.003, warmup: {min(100, steps // 4)}, save_every: 200, log_every: 25}}"
    out = flags.run / f"{size.replace(' ', '')}-{steps}"
    data = [] if flags.quick else [f"lm.data.path={json.dumps(str(flags.data / 'text'))}"]
    more = [
        f"out={json.dumps(str(out))}",
        f"seeds={flags.seeds}",
        f"split={flags.split}",
        f"passages={scale.passages}",
        f"lm.passage={scale.passage}",
        f"capacities={[*scale.capacities]}",
        f"native.capacity={capacity}",
        f"native.train={train}",
        f"lm.train={train}",
        f"lm.shape={scale.sizes[size]}",
    ]
    configs = ROOT / "recipes" / "compare" / "configs"
    made = load(Config, "novels", [*scale.overrides, *data, "native.strategies=[]", *more], folder=configs)
    names = (BASELINE, *flags.strategies)
    strategies = {name: made.strategies.get(name, {"policy": name}) for name in names}
    return replace(made, strategies=strategies, native=replace(made.native, strategies=names))


def note(row: dict[str, Any], table: str, name: str, tables: dict[str, Any], intervals: dict[str, Any]) -> None:
    """Add a row to its table.

    Args:
        row: of the summary of a comparison.
        table: the heading.
        name: of the row.
        tables: values by heading, row and column.
        intervals: ends of intervals at the same places.

    Returns:
        Nothing; the tables grow.
    """
    found = row["metrics"][METRIC]
    tables.setdefault(table, {})[name] = {"bits per byte": found["value"], f"- {BASELINE}": found["difference"]}
    ends = {}
    if found["low"] is not None:
        ends = {
            "bits per byte": [found["low"], found["high"]],
            f"- {BASELINE}": [found["difference_low"], found["difference_high"]],
        }
    intervals.setdefault(table, {})[name] = ends


def point_of(row: dict[str, Any], scale: Scale) -> list[float]:
    """The tokens for each slot, and the difference from the baseline with its interval; none without one."""
    found = row["metrics"][METRIC]
    if found["difference_low"] is None:
        return []
    return [scale.passage / row["capacity"], found["difference"], found["difference_low"], found["difference_high"]]


if __name__ == "__main__":
    main()

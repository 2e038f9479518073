"""Train a model for one memory or for all: what either gains, by the model's size, the memory's, and the steps.

    python benchmarks/text/native_or_mixed.py [--quick] [--json] [--save] [--data FOLDER] [--run FOLDER]
        [--split dev|test] [--strategies NAME ...] [--seeds N ...]

Memory transformers of three sizes read passages of 2,048 tokens of novels with memories of a quarter to a 32nd of
that. `mixed` is one model for all strategies and capacities; `native` is a model for each. No model is trained with
`learned`, which is fitted to the mixed model or to the native one of the newest tokens. Every model gets the same
number of steps. Tables compare native training with mixed, and every strategy with the newest tokens at twice the
slots. The middle size is also trained with a quarter of the steps and with four times as many. With several seeds the
middle size is trained with each of them, all else with the first. Everything is kept in the run's folder, as
`vqmem compare` keeps it, so that a stopped run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from vqmem.benchmarks._results import ROOT, Chart, Series, data_option, options, present
from vqmem.recipes.compare.recipe import Config, measured, run
from vqmem.recipes.compare.statistics import Comparison, paired_bootstrap
from vqmem.recipes.engine.config import load

BASELINE, METRIC = "transformer_xl", "bpb"


class Bits(NamedTuple):
    """What one memory needs, by seed and passage, and the bytes of each passage."""

    bits: np.ndarray
    bytes: np.ndarray


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

    @property
    def middle(self) -> str:
        """The name of the middle size."""
        return [*self.sizes][len(self.sizes) // 2]


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
        "fit={passages: 4, stream_passages: 2}",
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
    seeds = "the middle size is trained with each, all else with the first (default 0)"
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help=seeds)
    flags = parser.parse_args()
    scale = QUICK if flags.quick else FULL
    tables: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    beside_baseline: dict[str, list[list[float]]] = {}
    beside_mixed: dict[str, list[list[float]]] = {}
    for size in scale.sizes:
        for row in read(scale, flags, size, scale.steps, scale.capacities):
            found, name = row["metrics"][METRIC], f"{row['strategy']} @ {row['capacity']}"
            note(found, f"{size}, {row['train']}", name, tables, intervals, BASELINE)
            if row["strategy"] != BASELINE:
                add_point(beside_baseline, f"{row['strategy']}, {size}, {row['train']}", scale, row["capacity"], found)
        bits = bits_of(scale, flags, size, scale.steps, scale.capacities)
        for (train, strategy, capacity), ours in bits.items():
            name = f"{strategy} @ {capacity}"
            if strategy != BASELINE and (twice := bits.get((train, BASELINE, 2 * capacity))):
                found = asdict(compare(ours, twice))
                note(found, f"{size}, {train}, beside {BASELINE} at twice the slots", name, tables, intervals)
            if train == "native":
                found = asdict(compare(ours, bits["mixed", strategy, capacity]))
                note(found, f"{size}, native beside mixed", name, tables, intervals)
                add_point(beside_mixed, f"{strategy}, {size}", scale, capacity, found)
    for steps in (scale.steps // 4, scale.steps * 4):
        for row in read(scale, flags, scale.middle, steps, scale.capacities[:1]):
            name = f"{row['strategy']} @ {row['capacity']}, {steps} steps"
            table = f"{scale.middle}, {row['train']}, other steps"
            note(row["metrics"][METRIC], table, name, tables, intervals, BASELINE)
        bits = bits_of(scale, flags, scale.middle, steps, scale.capacities[:1])
        for (train, strategy, capacity), ours in bits.items():
            if train == "native":
                found = asdict(compare(ours, bits["mixed", strategy, capacity]))
                name = f"{strategy} @ {capacity}, {steps} steps"
                note(found, f"{scale.middle}, native beside mixed, other steps", name, tables, intervals)
    present(
        "native_or_mixed",
        {},
        flags,
        title="A model for one memory, or one for all",
        question="When does it pay to train a model with the one memory that it will have?",
        measured=(
            f"Memory transformers ({', '.join(scale.sizes)}: layers x width) read {scale.passages} passages, segments "
            f"of 64 tokens, with {', '.join(map(str, scale.capacities))} slots. `mixed`: one model, strategy and "
            f"capacity drawn anew every few updates; `native`: a model for each. {scale.steps} updates each. "
            f"{scale.middle} was trained with every seed, all else with the first."
        ),
        charts=[
            Chart(
                f"Bits per byte, less those of {what}",
                "tokens of a passage for each slot",
                "difference (lower is better)",
                [Series(name, points) for name, points in series.items()],
                log_x=True,
            )
            for what, series in (
                (f"{BASELINE} trained likewise", beside_baseline),
                ("the same strategy with the mixed model", beside_mixed),
            )
        ],
        split=f"{flags.split}, {scale.passages} passages",
        seeds=flags.seeds,
        tables=tables,
        intervals=intervals,
        interval_kind="95 %, paired bootstrap over passages; figures are averaged over the seeds first",
    )


def read(scale: Scale, flags: Any, size: str, steps: int, capacities: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Train and measure the models of one size.

    Args:
        scale: how large everything is.
        flags: of the command line.
        size: the name of the size.
        steps: of each training.
        capacities: of the natively trained models.

    Yields:
        The rows of the summaries of `vqmem compare`, natively trained ones first at each capacity.
    """
    for capacity in capacities:
        for row in run(config(scale, flags, size, capacity, steps))["rows"]:
            if row["train"] == "native" or (capacity == capacities[0] and row["capacity"] in scale.capacities):
                yield row


def bits_of(
    scale: Scale, flags: Any, size: str, steps: int, capacities: Sequence[int]
) -> dict[tuple[str, str, int], Bits]:
    """What the models of one size, which are trained and measured, need.

    Args:
        scale: how large everything is.
        flags: of the command line.
        size: the name of the size.
        steps: of each training.
        capacities: of the natively trained models.

    Returns:
        The bits by training, strategy and capacity.
    """
    found: dict[tuple[str, str, int], list[Any]] = {}
    for capacity in capacities:
        for cell in measured(config(scale, flags, size, capacity, steps)):
            if cell["train"] == "native" or capacity == capacities[0]:
                found.setdefault((cell["train"], cell["strategy"], cell["capacity"]), []).append(
                    cell["figures"][METRIC]
                )
    return {key: Bits(np.array([bits for bits, _ in cells]), np.array(cells[0][1])) for key, cells in found.items()}


def compare(ours: Bits, beside: Bits) -> Comparison:
    """The bits per byte of one, and how many more they are than the other's."""
    return paired_bootstrap(ours.bits, beside.bits, ours.bytes)


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
        f"seeds={flags.seeds if (size, steps) == (scale.middle, scale.steps) else flags.seeds[:1]}",
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


def note(
    found: Mapping[str, Any], table: str, name: str, tables: dict[str, Any], intervals: dict[str, Any], beside: str = ""
) -> None:
    """Add a comparison to its table.

    Args:
        found: the fields of a `Comparison`.
        table: the heading.
        name: of the row.
        tables: values by heading, row and column.
        intervals: ends of intervals at the same places.
        beside: what a figure is compared with, where the heading does not say it; its own interval is then shown too.

    Returns:
        Nothing; the tables grow.
    """
    column = f"- {beside}" if beside else "difference"
    tables.setdefault(table, {})[name] = {"bits per byte": found["value"], column: found["difference"]}
    ends = {}
    if found["low"] is not None:
        ends = {"bits per byte": [found["low"], found["high"]]} if beside else {}
        ends[column] = [found["difference_low"], found["difference_high"]]
    intervals.setdefault(table, {})[name] = ends


def add_point(
    series: dict[str, list[list[float]]], name: str, scale: Scale, capacity: int, found: Mapping[str, Any]
) -> None:
    """Add a difference with its interval to a series, over the tokens for each slot; nothing without an interval.

    Args:
        series: points by name; it grows.
        name: of the series.
        scale: how large everything is.
        capacity: slots.
        found: the fields of a `Comparison`.
    """
    if found["difference_low"] is not None:
        ends = (found["difference_low"], found["difference_high"])
        series.setdefault(name, []).append([scale.passage / capacity, found["difference"], *ends])


if __name__ == "__main__":
    main()

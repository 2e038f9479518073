"""How many more cells of a grid two workers of Ray do than one, each on a core.

    python benchmarks/speed/grid.py [--quick] [--json] [--save] [--seeds N]

The comparison of `vqmem compare demo` with several seeds: a model to train and points to measure for each. Ray starts
before; its workers start within the time, and load each model that they measure. An idle machine with two cores is
needed.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import ray
from vqmem.benchmarks._results import ROOT, options, present
from vqmem.benchmarks.speed._workers import cluster, two_against_one
from vqmem.recipes.compare.recipe import Config, cells
from vqmem.recipes.engine.config import load
from vqmem.recipes.engine.grid import run_grid

GOAL = 1.7
TINY = ["lm.train.steps=2", "lm.scorer_train.steps=2", "lm.shape.layers=1", "passages=2", "lm.train_tokens=3000"]


def main() -> None:
    """Measure, print, save."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="seeds of the comparison (default 4)")
    flags = parser.parse_args()
    seeds = 2 if flags.quick else flags.seeds
    done: dict[int, float] = {}
    with TemporaryDirectory() as folder:
        for workers in (1, 2):
            out = f"{folder}/{workers}"
            overrides = [*(TINY if flags.quick else []), f"seeds={list(range(seeds))}", f"out={out}"]
            path = ROOT / "recipes" / "compare" / "configs"
            done[workers] = cells_per_hour(load(Config, "demo", [*overrides, "executor=ray"], folder=path), workers)
    present(
        "grid_speed",
        two_against_one(done, "cells an hour", GOAL),
        flags,
        title="A grid with two workers",
        question="Do two workers do 1.7 times as many cells an hour as one?",
        measured=(
            f"`vqmem compare demo` with {seeds} seeds, on Ray {ray.__version__}: trainings, "
            "policies fitted and points measured, one thread a worker. The last cells of a grid leave a worker idle."
        ),
    )


def cells_per_hour(config: Config, workers: int) -> float:
    """Run the grid of a comparison on as many workers of Ray, and return the cells done in an hour."""
    Path(config.out).mkdir()
    with cluster(workers):
        made = cells(config)
        began = time.perf_counter()
        failures = run_grid(made, config)
        seconds = time.perf_counter() - began
    for error in failures.values():
        raise error
    return 3600 * len(made) / seconds


if __name__ == "__main__":
    main()

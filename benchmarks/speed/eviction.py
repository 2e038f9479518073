"""What share of a training step the memory takes to write a segment and to evict down to its capacity.

    python benchmarks/speed/eviction.py [--quick] [--json] [--save] [--threads N]

Measured within full training steps (forward, backward, AdamW) with a full memory: the time of `Memory.write`, which
standardises the scores, gives priorities, selects, and gathers the payload of all layers. A figure is the median over
the steps of write time by step time; neither includes the scorer's time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

from vqmem.benchmarks._results import Chart, Series, figure, present
from vqmem.benchmarks.speed._training import Shape, Trainer, parse, take_turns
from vqmem.memory.bank import Memory
from vqmem.registry import build

GOAL = 5.0
"""Percent of the step."""
SHAPE = Shape(dim=256, layers=4, heads=4, batch=16, segment=64)
POLICIES = {
    "fifo": {"name": "fifo"},
    "random": {"name": "random"},
    "scored": {"name": "scored"},
    "scored, copies": {"name": "scored", "copies": 100.0},
    "scored, copies, window 5": {"name": "scored", "copies": 100.0, "window": 5},
}
CAPACITIES = (128, 256)


def timed_step(trainer: Trainer, clock: Callable[[], float], writing: list[float]) -> None:
    """Take a step and append to ``writing`` the seconds that its writes took."""
    trainer.step(clock)
    writing.append(trainer.writing)


def main() -> None:
    """Measure, print, save."""
    flags, clock = parse(__doc__)
    rounds, figures = 2 if flags.quick else 15, {}
    for capacity in CAPACITIES[: 1 if flags.quick else None]:
        trainers = {name: Trainer(SHAPE, Memory(capacity, build("policies", spec))) for name, spec in POLICIES.items()}
        writing: dict[str, list[float]] = {name: [] for name in trainers}
        sides = {name: partial(timed_step, trainer, clock, writing[name]) for name, trainer in trainers.items()}
        full = capacity // SHAPE.segment + 1
        seconds = take_turns(sides, full + rounds, clock)
        for name in trainers:
            pairs = list(zip(writing[name], seconds[name], strict=True))[full:]
            share = 100 * statistics.median(written / total for written, total in pairs)
            write_ms, step_ms = (round(1e3 * statistics.median(x), 2) for x in zip(*pairs, strict=True))
            more = {"write_ms": write_ms, "step_ms": step_ms, "threads": flags.threads}
            figures[f"{name}, {capacity} slots"] = figure(round(share, 2), "%", GOAL, least=False, **more)
    series: dict[str, list[list[float]]] = {}
    for key, one in figures.items():
        name, _, slots = key.rpartition(", ")
        series.setdefault(name, []).append([int(slots.split()[0]), one["value"]])
    present(
        "eviction",
        figures,
        flags,
        title="Eviction's share of the training step",
        question=(
            "Does writing to the memory and evicting from it, in all layers, take less than 5 % of a training step?"
        ),
        measured=f"{SHAPE}, fp32, {flags.threads} threads, random tokens and scores; medians over {rounds} steps each.",
        charts=[
            Chart(
                "Writing and evicting, share of a training step",
                "capacity, slots",
                "%",
                [Series(*item) for item in series.items()],
                log_x=True,
            )
        ],
    )


if __name__ == "__main__":
    main()

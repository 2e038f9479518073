"""What ``dtype=bfloat16`` and ``compile=true`` gain in training, beside float32 without the compiler.

    python benchmarks/speed/mixed_precision.py [--quick] [--json] [--save] [--threads N]

Training steps of the memory transformer (forward, backward, AdamW) with a full fifo memory, all sides in turns in one
run. A figure is the median over the rounds of the float32 step's time by that of the side, for the same tokens. What is
compiled are the blocks, as by ``compile=true``, which takes most of the seconds of the first steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from vqmem.benchmarks._results import figure, present
from vqmem.benchmarks.speed._training import Shape, Trainer, parse, take_turns
from vqmem.memory.bank import Memory

SHAPES = {
    "width 128": (Shape(dim=128, layers=2, heads=4, batch=16, segment=64), 128),
    "width 512": (Shape(dim=512, layers=4, heads=8, batch=16, segment=64), 128),
}
"""Shape and slots: that of the configs for text, and a larger one."""
SIDES = {
    "float32": (torch.float32, False),
    "float32, compiled": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
    "bfloat16, compiled": (torch.bfloat16, True),
}
"""The type of autocast, and whether blocks are compiled."""


def main() -> None:
    """Measure, print, save."""
    flags, clock = parse(__doc__)
    torch._dynamo.config.recompile_limit = 64  # beyond it, what is compiled would silently run uncompiled
    rounds, figures = 2 if flags.quick else 15, {}
    for name in list(SHAPES)[: 1 if flags.quick else None]:
        figures |= compared(name, rounds, flags.threads, clock)
    present(
        "mixed_precision",
        figures,
        flags,
        title="Training with bfloat16 and the compiler",
        question="Do `dtype=bfloat16` and `compile=true` make training on a CPU faster?",
        measured=(
            f"Forward, backward and AdamW on {flags.threads} thread(s); medians over {rounds} rounds in turns, beside "
            f"float32 without the compiler: {SHAPES} (shape, slots, fifo). Above 1 is faster. The first steps are "
            "those that fill the memory, and compile."
        ),
    )


def compared(name: str, rounds: int, threads: int, clock: Callable[[], float]) -> dict[str, dict[str, Any]]:
    """Time a shape with each side.

    Args:
        name: one of `SHAPES`.
        rounds: timed steps of each side.
        threads: threads of torch, for the report.
        clock: returns the time in seconds.

    Returns:
        The ratio of the float32 step's time to that of each other side; see `figure`.
    """
    shape, slots = SHAPES[name]
    sides, first = {}, {}
    for side, (dtype, compiled) in SIDES.items():
        trainer = Trainer(shape, Memory(slots), dtype)
        if compiled:
            trainer.model.compile_blocks()
        sides[side] = trainer.step
        began = time.perf_counter()
        for _ in range(slots // shape.segment + 2):
            sides[side]()
        first[side] = time.perf_counter() - began
    seconds = take_turns(sides, rounds, clock)
    base = seconds.pop("float32")
    figures = {}
    for side, times in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(times, base, strict=True))
        more: dict[str, Any] = {
            "tokens_per_second": round(shape.batch * shape.segment / statistics.median(times)),
            "first_steps_seconds": round(first[side], 1),
            "threads": threads,
        }
        figures[f"{name}, {side}"] = figure(round(ratio, 2), "x", 1.0, **more)
    return figures


if __name__ == "__main__":
    main()

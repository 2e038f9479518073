"""The summary that `vqmem frame_scorer` prints at its end."""

from __future__ import annotations

import math
from typing import Any

from ...models.speech.frame_scorer import FrameScorer
from .recipe import Config

GAUSSIAN_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy of a standard Gaussian in nats per dimension: the baseline for standardised frames."""


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """The figures of ``evaluation.json`` in a few lines, and how to use the run."""
    scorer = figures["scorer"]
    nats = ", ".join(f"{name} {scorer[name]:.3f}" for name in FrameScorer.signals)
    return (
        f"on {figures['frames']:,} frames of the {figures['split']} split, nats per dimension: {nats}\n"
        f"  (a Gaussian with the mean and variance of the frames: {GAUSSIAN_ENTROPY:.3f})\n"
        f"  rate {scorer['rate']:.2f} bits per frame; codes used {scorer['codes_used']:.0f}, "
        f"dead {scorer['dead_codes']:.0f}\n"
        f"saved in {config.out}/; now try\n  vqmem score FILE --model {config.out}"
    )

"""What `vqmem frame_scorer` prints at its end."""

from __future__ import annotations

import math
from typing import Any

from ...memory.scorer import SIGNALS
from .recipe import Config

KNOWS_NOTHING = 0.5 * math.log(2 * math.pi * math.e)
"""Nats a dimension of standardised frames under a Gaussian that knows their mean and variance."""


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """The figures of ``evaluation.json`` in a few lines, and what to do with the run."""
    scorer = figures["scorer"]
    nats = ", ".join(f"{name} {scorer[name]:.3f}" for name in SIGNALS)
    return (
        f"on {figures['frames']:,} frames of the {figures['split']} split, nats a dimension: {nats}\n"
        f"  (a Gaussian that knows nothing but mean and variance: {KNOWS_NOTHING:.3f})\n"
        f"  rate {scorer['rate']:.2f} bits a frame; codes used {scorer['codes_used']:.0f}, "
        f"dead {scorer['dead_codes']:.0f}\n"
        f"saved in {config.out}/; now try\n  vqmem score FILE --model {config.out}"
    )

"""The summary that `vqmem fit_units` prints at its end."""

from __future__ import annotations

from typing import Any

from .recipe import Config


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """The figures of ``evaluation.json`` in a line, and how to use the units."""
    return (
        f"on the {figures['split']} split: {figures['units_used']} of {config.clusters} units used, perplexity "
        f"{figures['perplexity']:.1f}, {figures['frames_a_run']:.2f} frames per run\n"
        f"saved in {config.out}/; now try\n  vqmem units FILE --model {config.out}"
    )

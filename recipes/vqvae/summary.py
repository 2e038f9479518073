"""The summary that `vqmem vqvae` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .recipe import Config


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """The figures of ``evaluation.json`` in a few lines, and where the report is."""
    lines = [f"on {figures['clips']} recordings of the {figures['split']} split:"]
    for name, level in figures["levels"].items():
        lines.append(
            f"  {name:7}  STFT error {level['stft_error']:.3f}, squared error {level['mse']:.3f} of the variance, "
            f"{level['codes_used']:.0f} of {config.model.codes} codes used, perplexity {level['perplexity']:.0f}"
        )
    return "\n".join([*lines, f"report: {Path(config.out) / 'report.html'}"])

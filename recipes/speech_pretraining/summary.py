"""The summary that `vqmem speech_pretraining` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .recipe import Config


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """The figures of ``evaluation.json`` in a few lines, and where the model is."""
    lines = [
        f"on the {figures['split']} split:",
        f"  accuracy: {figures['masked_accuracy']:.1%} of masked frames, {figures['unmasked_accuracy']:.1%} of others",
        f"  {figures['units_used']:.0f} units predicted (perplexity {figures['unit_perplexity']:.1f}), "
        f"{figures['target_units_used']:.0f} in the targets (perplexity {figures['target_unit_perplexity']:.1f})",
    ]
    lines += [
        f"  {layer}: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in quality.items())
        for layer, quality in figures.get("layers", {}).items()
    ]
    if figures["skipped"]:
        lines.append(f"  {len(figures['skipped'])} recordings left out; evaluation.json lists them")
    return "\n".join([*lines, f"saved in {Path(config.out)}/model"])

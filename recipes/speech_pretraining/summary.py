"""What `vqmem speech_pretraining` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .recipe import Config


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """The figures of ``evaluation.json`` in a few lines, and what to do with the run."""
    lines = [
        f"on the {figures['split']} split:",
        f"  right: {figures['masked_accuracy']:.1%} of hidden frames, {figures['unmasked_accuracy']:.1%} of shown",
        f"  {figures['units_used']:.0f} units predicted (perplexity {figures['unit_perplexity']:.1f}), "
        f"{figures['target_units_used']:.0f} there (perplexity {figures['target_unit_perplexity']:.1f})",
    ]
    lines += [
        f"  {layer}: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in of.items())
        for layer, of in figures.get("layers", {}).items()
    ]
    if figures["skipped"]:
        lines.append(f"  {len(figures['skipped'])} recordings left out; evaluation.json says which")
    return "\n".join([*lines, f"saved in {Path(config.out)}/model"])

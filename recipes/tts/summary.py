"""The summary that `vqmem tts` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .recipe import Config


def format_summary(config: Config, figures: dict[str, Any]) -> str:
    """The figures of ``evaluation.json`` in a few lines, and how to use the run."""
    vocoder, speaker = figures["vocoder"], figures["speaker"]
    lines = [
        f"on {figures['clips']} recordings of the {figures['split']} split:",
        f"  copies from units: log mel error {vocoder['harmonic_mel_error']:.3f}, by Griffin-Lim "
        f"{vocoder['griffin_lim_mel_error']:.3f} (mean spectrum: {vocoder['mean_mel_error']:.3f})",
    ]
    if "rvq_mel_error" in vocoder:
        lines.append(f"  copies from units and RVQ codes: log mel error {vocoder['rvq_mel_error']:.3f}")
    if speaker:
        lines.append(
            f"  text to units: perplexity {speaker['perplexity']:.2f}, accuracy {100 * speaker['accuracy']:.0f} %, "
            f"mean error of durations {speaker['duration_error']:.2f} frames"
        )
    lines.append(f"to speak: vqmem speak TEXT -o speech.wav --run {config.out}")
    return "\n".join([*lines, f"report: {Path(config.out) / 'report.html'}"])

"""How much higher the error rate of one transcription is than that of another, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jiwer
import numpy as np
from vqmem.recipes.asr.error_rates import TranscriptPair
from vqmem.recipes.compare.statistics import paired_bootstrap


def added(
    before: Sequence[Sequence[TranscriptPair]],
    after: Sequence[Sequence[TranscriptPair]],
    process: Callable[..., Any] = jiwer.process_words,
) -> dict[str, float]:
    """The error rate of ``after`` minus that of ``before``, in points, and its interval if there are enough documents.

    Documents are resampled; each is any number of pairs. ``process`` of jiwer counts words or characters.
    """
    theirs, ours = (np.array([_count(document, process) for document in side]).T for side in (before, after))
    found = paired_bootstrap(ours[:1], theirs[:1], theirs[1])
    points = {"points": found.difference, "low": found.difference_low, "high": found.difference_high}
    return {name: 100 * value for name, value in points.items() if value is not None}


def _count(document: Sequence[TranscriptPair], process: Callable[..., Any]) -> tuple[int, int]:
    """Errors, and words or characters of the reference."""
    found = process([pair.reference for pair in document], [pair.hypothesis for pair in document])
    missed = found.substitutions + found.deletions
    return missed + found.insertions, found.hits + missed

"""Boundaries from peaks of a curve: how they are picked, counted, and compared with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from vqmem.benchmarks.speech._phones import FRAME
from vqmem.recipes.compare.statistics import bootstrap_interval
from vqmem.recipes.speech.unit_metrics import matches

PROMINENCES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
"""Standard deviations of the clip's curve."""
DISTANCES = (1, 2, 3, 4)
"""Frames between peaks, at least."""
LAGS = (-2, -1, 0, 1, 2)
"""Frames from the start of the frame of a peak to its boundary."""


class Picking(NamedTuple):
    """Which peaks count, and where their boundaries lie."""

    prominence: float
    distance: int
    lag: int


GRID = [Picking(*values) for values in product(PROMINENCES, DISTANCES, LAGS)]


def pick(curve: Float[np.ndarray, " frames"], picking: Picking) -> list[float]:
    """The boundaries in rising seconds, at the starts of frames; none outside the clip."""
    from scipy.signal import find_peaks

    standard = (curve - curve.mean()) / (curve.std() or 1.0)
    peaks, _ = find_peaks(standard, prominence=picking.prominence, distance=picking.distance)
    return [frame * FRAME for frame in (peaks + picking.lag).tolist() if 0 < frame < len(curve)]


def even(seconds: float, rate: float) -> list[float]:
    """Boundaries at equal distances, ``rate`` a second."""
    return [(number + 0.5) / rate for number in range(int(seconds * rate))]


def counts(truths: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> Int[np.ndarray, "clip 3"]:
    """Matched within 20 ms one to one, true and found boundaries of each clip."""
    return np.array([[matches(true, finds), len(true), len(finds)] for true, finds in zip(truths, found, strict=True)])


def choose(truths: Sequence[Sequence[float]], curves: Sequence[Sequence[np.ndarray]]) -> Picking:
    """The picking of the grid with the best F1 over clips, whose curves are given for every seed."""

    def f1(picking: Picking) -> float:
        by_seed = [counts(truths, [pick(curve, picking) for curve in seed]).sum(0) for seed in curves]
        return figures(np.sum(by_seed, axis=0))["F1"]

    return max(GRID, key=f1)


def figures(total: Sequence[float] | Int[np.ndarray, " 3"]) -> dict[str, float]:
    """Precision, recall, F1 and the R-value (Räsänen et al., 2009), which too many boundaries do not raise."""
    hits, truths, finds = map(float, total)
    precision, recall = hits / max(1.0, finds), hits / max(1.0, truths)
    more = finds / max(1.0, truths) - 1
    first, second = math.hypot(1 - recall, more), (recall - 1 - more) / math.sqrt(2)
    return {
        "precision": precision,
        "recall": recall,
        "F1": 2 * hits / max(1.0, truths + finds),
        "R-value": 1 - (abs(first) + abs(second)) / 2,
    }


def intervals(
    methods: Mapping[str, Int[np.ndarray, "seed clip 3"]], rivals: Sequence[str], resamples: int = 10_000
) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]:
    """95 % intervals of each method's F1, and of its differences from ``rivals``; all are of the same draws of clips.

    Counts are summed over seeds.
    """
    summed = [counted.sum(0) for counted in methods.values()]
    ratios = [(2 * hits, truths + finds) for hits, truths, finds in (counted.T for counted in summed)]
    names = list(methods)
    others = [names.index(rival) for rival in rivals]

    def f1(drawn: Int[np.ndarray, "resample clip"]) -> Float[np.ndarray, "method figure resample"]:
        found = np.stack([numerator[drawn].sum(1) / denominator[drawn].sum(1) for numerator, denominator in ratios])
        return np.concatenate([found[:, None], found[:, None] - found[others]], 1)

    clips = len(summed[0])
    ends = np.moveaxis(bootstrap_interval(f1, clips, resamples=resamples), 0, -1).round(4)
    of_f1 = {name: ends[method, 0].tolist() for method, name in enumerate(names)}
    of_differences = {
        name: {rival: ends[method, 1 + place].tolist() for place, rival in enumerate(rivals) if rival != name}
        for method, name in enumerate(names)
    }
    return of_f1, of_differences

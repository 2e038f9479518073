"""Bootstrap intervals over documents, paired if two strategies are compared."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int, Real

FEWEST_PASSAGES = 6
"""With fewer, documents that all differ in one direction by chance (2^(1-n) > 5%) would count as a difference."""

_BATCH = 500_000
"""Resampled documents in memory at once. More are not faster, as they exceed the processor's cache."""


@dataclass(frozen=True)
class Comparison:
    """One figure of one strategy and its difference from the baseline, in the figure's unit.

    Interval ends are ``None`` if there are too few passages. ``difference`` is strategy minus baseline.
    ``verdict`` is ``better``, ``worse``, ``no difference``, ``baseline`` or ``too few passages``.
    """

    value: float
    low: float | None
    high: float | None
    difference: float
    difference_low: float | None
    difference_high: float | None
    verdict: str

    def to_json(self) -> dict[str, float | str | None]:
        """The fields as the ``metrics`` entry of a row in ``summary.json``."""
        return asdict(self)


def paired_bootstrap(
    strategy: Real[np.ndarray, "seed document"],
    baseline: Real[np.ndarray, "seed document"] | None,
    sizes: Real[np.ndarray, " document"],
    *,
    better: str = "lower",
    level: float = 0.95,
    resamples: int = 10_000,
    resample_seeds: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare a ratio of sums, ``Σ numerator / Σ size`` over documents, between a strategy and the baseline.

    The documents are resampled with replacement, as many as there are; each drawn document brings its numerator under
    both strategies, averaged over all seeds, and its size. The interval therefore covers *other documents for these
    trained models*. Blocks of one long document may count as documents only if they are independent of each other.
    The verdict is ``no difference`` unless the interval of the difference excludes 0.

    Args:
        strategy: the numerator of each document by seed: its bits, nats or correct answers.
        baseline: the same for the baseline, with the same seeds and documents; ``None`` for the baseline itself.
        sizes: the denominator of each document, the same for both: its bytes, tokens or questions.
        better: ``lower`` or ``higher``.
        level: coverage of the intervals.
        resamples: number of bootstrap samples.
        resample_seeds: resample the seeds as well, independently of the documents and again paired, so that the
            interval covers other training runs too; with three seeds this is only a rough estimate.
        seed: of the resampling.

    Returns:
        The figure and its difference from the baseline, with intervals as `bootstrap_interval` gives them.

    Raises:
        ValueError: for shapes that do not match, sizes that are negative or sum to 0, values that are not finite.
    """
    ours, sizes = np.asarray(strategy, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    theirs = ours if baseline is None else np.asarray(baseline, dtype=np.float64)
    _check(ours, theirs, sizes, better)
    figures = np.stack([ours, ours - theirs])
    value, difference = (figures.mean(1).sum(-1) / sizes.sum()).tolist()
    seeds, documents = ours.shape
    if documents < FEWEST_PASSAGES:
        verdict = "baseline" if baseline is None else "too few passages"
        return Comparison(value, None, None, difference, None, None, verdict)

    def ratios(
        drawn: Int[np.ndarray, "resample document"], drawn_seeds: Int[np.ndarray, "resample seed"] | None = None
    ) -> Float[np.ndarray, "2 resample"]:
        sums = np.array([[row[drawn].sum(-1) for row in rows] for rows in figures])
        if drawn_seeds is not None:
            sums = np.take_along_axis(sums, drawn_seeds.T[None], axis=1)
        total = sizes[drawn].sum(-1)
        return sums.mean(1) / np.where(total > 0, total, math.nan)

    counts = (documents, seeds) if resample_seeds and seeds > 1 else (documents,)
    ends = bootstrap_interval(ratios, *counts, level=level, resamples=resamples, seed=seed)
    (low, difference_low), (high, difference_high) = ends.tolist()
    verdict = "baseline" if baseline is None else _verdict(difference_low, difference_high, better)
    return Comparison(value, low, high, difference, difference_low, difference_high, verdict)


def bootstrap_interval(
    statistic: Callable[..., Float[np.ndarray, "... resample"]],
    documents: int,
    *others: int,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Float[np.ndarray, "2 ..."]:
    """The bootstrap interval of figures over documents.

    It is the expanded percentile interval (Hesterberg, 1411.5279): its percentiles correct for the narrowness of the
    bootstrap with few documents; with many it approaches the percentile interval.

    Args:
        statistic: takes the indices of the resampled documents, (resample, document), and returns the figures of each
            resample, on the last axis; ``nan`` (undefined) is left out. All figures use the same resamples, so that the
            interval of a difference is paired.
        documents: their number, at least 2.
        others: sizes of other populations that are resampled independently; their indices are further arguments of
            ``statistic``.
        level: coverage of the interval.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        The lower and upper ends; ``nan`` for a figure that is undefined in every resample.
    """
    from scipy import stats  # takes a second to import

    with warnings.catch_warnings():
        # SciPy mistakes undefined figures for a failure of its BCa interval; NumPy warns if all are undefined.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", "All-NaN slice encountered")
        found = stats.bootstrap(
            [np.arange(count) for count in (documents, *others)],
            lambda *drawn, axis: statistic(*drawn),
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, _BATCH // documents),
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        tail = expanded_tail(documents, level)
        return np.nanquantile(found.bootstrap_distribution, [tail, 1 - tail], axis=-1)


def expanded_tail(documents: int, level: float = 0.95) -> float:
    """The tail probability whose percentiles cover ``level`` with this many documents (Hesterberg, 1411.5279)."""
    from scipy import stats

    quantile = stats.t.ppf((1 + level) / 2, documents - 1)
    return float(stats.norm.cdf(-math.sqrt(documents / (documents - 1)) * quantile))


def _check(ours: np.ndarray, theirs: np.ndarray, sizes: np.ndarray, better: str) -> None:
    if ours.ndim != 2 or ours.shape != theirs.shape or ours.shape[1:] != sizes.shape or not ours.size:
        raise ValueError(
            f"shapes {ours.shape}, {theirs.shape} and {sizes.shape} do not match; "
            "give (seeds, documents) twice and (documents,)"
        )
    if better not in ("lower", "higher"):
        raise ValueError(f"better={better!r} is unknown; use 'lower' or 'higher'")
    if not all(np.isfinite(array).all() for array in (ours, theirs, sizes)):
        raise ValueError("a document's figure is not finite; leave out documents that were not measured")
    if (sizes < 0).any() or sizes.sum() <= 0:
        raise ValueError(f"sizes sum to {sizes.sum():g} with least {sizes.min():g}; give positive denominators")


def _verdict(low: float, high: float, better: str) -> str:
    if low <= 0 <= high:
        return "no difference"
    return "better" if (high < 0) == (better == "lower") else "worse"

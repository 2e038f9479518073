"""Whether one memory really differs from another: paired bootstrap intervals over documents, and Kendall's tau."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int, Real

FEWEST_PASSAGES = 6
"""With fewer, documents that all happen to lean one way (chance 2^(1-n) > 5%) would count as a difference."""

_BATCH = 2_000_000
"""Most resampled documents held in memory at once."""


@dataclass(frozen=True)
class Comparison:
    """One figure of one strategy and its difference from the baseline, in the figure's own unit.

    Interval ends are ``None`` when there are too few passages to give any. ``difference`` is strategy minus baseline.
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

    ``strategy`` and ``baseline`` hold each document's numerator (its summed bits or nats, its correct answers) for the
    same seeds and documents; ``sizes`` its denominator (bytes, tokens, questions), the same for both. ``baseline=None``
    marks the baseline's own row. ``better`` is ``lower`` or ``higher``.

    What is resampled: the documents, with replacement, as many as there are; each drawn document brings its numerator
    under both strategies, averaged over all seeds, and its size. The interval therefore speaks of *other documents for
    these trained models*. With ``resample_seeds`` the seeds are drawn with replacement as well, independently and again
    paired, so that it speaks of other training runs too; three seeds support such a claim only roughly. Blocks of one
    long document count as documents only so far as they are independent of each other.

    The interval is the expanded percentile interval (Hesterberg, 1411.5279): percentiles at levels that make up
    for the narrowness of the bootstrap with few documents; with many it is the plain percentile interval. A verdict
    other than ``no difference`` is given when the interval of the difference excludes 0.

    Raises `ValueError` for shapes that do not match, sizes that are negative or sum to 0, values that are not finite.
    """
    ours, sizes = np.asarray(strategy, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    theirs = ours if baseline is None else np.asarray(baseline, dtype=np.float64)
    _check(ours, theirs, sizes, better)
    total = sizes.sum()
    value = ours.mean(0).sum() / total
    difference = value - theirs.mean(0).sum() / total
    documents = len(sizes)
    if documents < FEWEST_PASSAGES:
        verdict = "baseline" if baseline is None else "too few passages"
        return Comparison(float(value), None, None, float(difference), None, None, verdict)
    draws = _resample(ours, theirs, sizes, resamples, resample_seeds, np.random.default_rng(seed))
    tail = expanded_tail(documents, level)
    (low, difference_low), (high, difference_high) = np.quantile(draws, [tail, 1 - tail], axis=0)
    verdict = "baseline" if baseline is None else _verdict(difference_low, difference_high, better)
    return Comparison(
        float(value), float(low), float(high), float(difference), float(difference_low), float(difference_high), verdict
    )


def expanded_tail(documents: int, level: float = 0.95) -> float:
    """The tail probability whose percentiles cover ``level`` with this many documents (Hesterberg, 1411.5279)."""
    quantile = _student_quantile((1 + level) / 2, documents - 1)
    return NormalDist().cdf(-math.sqrt(documents / (documents - 1)) * quantile)


def kendall_tau(first: Real[np.ndarray, " item"], second: Real[np.ndarray, " item"]) -> float:
    """Kendall's τ-b between two rankings given by their values: 1 the same order, -1 the reverse; ties count as ties.

    ``nan`` where either ranking ties everything. Raises `ValueError` for unequal lengths.
    Source: Kendall (1945), "The treatment of ties in ranking problems".
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"rankings of shapes {first.shape} and {second.shape} do not match; rank the same items")
    upper = np.triu_indices(len(first), 1)
    a = np.sign(first[:, None] - first)[upper]
    b = np.sign(second[:, None] - second)[upper]
    untied = math.sqrt(float((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / untied if untied else math.nan


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


def _resample(
    ours: Float[np.ndarray, "seed document"],
    theirs: Float[np.ndarray, "seed document"],
    sizes: Float[np.ndarray, " document"],
    resamples: int,
    resample_seeds: bool,
    rng: np.random.Generator,
) -> Float[np.ndarray, "resample 2"]:
    """Values and differences of bootstrap resamples; a draw whose sizes sum to 0 says nothing and is left out."""
    seeds, documents = ours.shape
    batches = []
    for start in range(0, resamples, step := max(1, _BATCH // documents)):
        count = min(step, resamples - start)
        picked = rng.integers(documents, size=(count, documents))
        weights = _seed_weights(seeds, count, rng) if resample_seeds else np.full((count, seeds), 1 / seeds)
        total = sizes[picked].sum(1)
        mine, other = (_drawn_sum(numerators, weights, picked) for numerators in (ours, theirs))
        keep = total > 0
        batches.append(np.stack([mine[keep], mine[keep] - other[keep]], 1) / total[keep, None])
    return np.concatenate(batches)


def _seed_weights(seeds: int, count: int, rng: np.random.Generator) -> Float[np.ndarray, "resample seed"]:
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds


def _drawn_sum(
    numerators: Float[np.ndarray, "seed document"],
    weights: Float[np.ndarray, "resample seed"],
    picked: Int[np.ndarray, "resample document"],
) -> Float[np.ndarray, " resample"]:
    """Sum of the drawn documents' numerators, a seed at a time so that no (resample, seed, document) array is made."""
    return sum((row[picked].sum(1) * weight for row, weight in zip(numerators, weights.T, strict=True)), np.zeros(1))


def _verdict(low: float, high: float, better: str) -> str:
    if low <= 0 <= high:
        return "no difference"
    return "better" if (high < 0) == (better == "lower") else "worse"


def _student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t: with t = √f·tan θ its density is cos^(f-1) θ, summed over a grid of θ."""
    if freedom > 2000:
        return NormalDist().inv_cdf(probability)
    angles = np.linspace(0, math.pi / 2, 40_001)
    mass = np.cos(angles[:-1] + angles[1] / 2) ** (freedom - 1)
    above_half = np.concatenate([[0.0], np.cumsum(mass) / mass.sum() / 2])
    return math.sqrt(freedom) * math.tan(float(np.interp(probability - 0.5, above_half, angles)))

"""Do domains rank strategies alike? Kendall's τ with bootstrap intervals, for domains in which strategies differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..compare.statistics import FEWEST_PASSAGES, bootstrap_interval

LEVEL = 0.05
"""The p-value below which strategies differ."""
FEWEST_STRATEGIES = 3
RESAMPLES = 2000


@dataclass(frozen=True)
class DocumentFigures:
    """One figure of several strategies by document, for the same documents and at the same capacity.

    The figure of a strategy is ``numerators.sum() / sizes.sum()``; lower is better, or higher where ``sign`` is -1.
    """

    strategies: tuple[str, ...]
    numerators: Float[np.ndarray, "strategy document"]
    sizes: Float[np.ndarray, " document"]
    sign: int

    def of(self, strategies: Sequence[str]) -> DocumentFigures:
        """The same for some strategies, in this order."""
        rows = [self.strategies.index(name) for name in strategies]
        return DocumentFigures(tuple(strategies), self.numerators[rows], self.sizes, self.sign)

    def ranked(self, drawn: Int[np.ndarray, "resample document"]) -> Float[np.ndarray, "resample strategy"]:
        """The figures over the drawn documents, where lower is better."""
        sizes = self.sizes[drawn].sum(-1)
        sums = np.stack([row[drawn].sum(-1) for row in self.numerators], axis=-1)
        return self.sign * sums / np.where(sizes > 0, sizes, math.nan)[:, None]


def friedman_p(figures: DocumentFigures) -> float:
    """The p-value of Friedman's test, over documents, that no strategy differs from another (Demšar, 2006).

    1 for fewer than three strategies or six documents, and where all strategies have equal figures everywhere.
    """
    from scipy import stats  # takes a second to import

    used = figures.numerators[:, figures.sizes > 0]
    ratios = used / figures.sizes[figures.sizes > 0]
    if len(ratios) < FEWEST_STRATEGIES or ratios.shape[1] < FEWEST_PASSAGES or (ratios == ratios[0]).all():
        return 1.0
    return float(stats.friedmanchisquare(*ratios).pvalue)


def kendall_tau(
    first: Float[np.ndarray, "resample strategy"], second: Float[np.ndarray, "resample strategy"]
) -> Float[np.ndarray, " resample"]:
    """Kendall's τ-b of each row; ``nan`` where one side has no order."""
    left, right = np.triu_indices(first.shape[-1], 1)
    ours, theirs = (np.sign(x[:, left] - x[:, right]) for x in (first, second))
    scale = np.sqrt(np.square(ours).sum(-1) * np.square(theirs).sum(-1))
    return (ours * theirs).sum(-1) / np.where(scale > 0, scale, math.nan)


def compare_rankings(first: DocumentFigures, second: DocumentFigures) -> dict[str, Any] | None:
    """Kendall's τ between the rankings of two domains, with its interval over the documents of both.

    Returns:
        ``tau``, ``low``, ``high`` and the number of ``strategies`` in both domains; None if these are fewer than three.
    """
    shared = [name for name in first.strategies if name in second.strategies]
    if len(shared) < FEWEST_STRATEGIES:
        return None
    ours, theirs = first.of(shared), second.of(shared)
    everything = [np.arange(len(figures.sizes))[None] for figures in (ours, theirs)]

    def tau(
        mine: Int[np.ndarray, "resample document"], other: Int[np.ndarray, "resample other_document"]
    ) -> Float[np.ndarray, " resample"]:
        return kendall_tau(ours.ranked(mine), theirs.ranked(other))

    sizes = (len(ours.sizes), len(theirs.sizes))
    low, high = bootstrap_interval(tau, *sizes, resamples=RESAMPLES).tolist()
    return {"tau": float(tau(*everything)[0]), "low": low, "high": high, "strategies": len(shared)}


def agreement(figures: dict[str, DocumentFigures]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Compare the rankings of all pairs of domains in which strategies differ.

    Args:
        figures: domain -> its figures.

    Returns:
        The pairs with their τ, and domain -> `friedman_p`; domains with `LEVEL` or more are in no pair.
    """
    tests = {name: friedman_p(found) for name, found in figures.items()}
    differing = [name for name, p in tests.items() if p < LEVEL]
    pairs = []
    for first, second in combinations(differing, 2):
        if found := compare_rankings(figures[first], figures[second]):
            pairs.append({"domains": [first, second], **found})
    return pairs, tests

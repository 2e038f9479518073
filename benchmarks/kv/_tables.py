"""What the streams of `kv_cache` amount to: which setting to use, tables with intervals, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from vqmem.benchmarks.kv._streams import long_gap, share_closed
from vqmem.recipes.compare.statistics import paired_bootstrap
from vqmem.recipes.lm.corpus import Passage

EVERYTHING, NEWEST = "everything", "sink_recent"
"""The rows between which the gap is, named as the settings are."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Sums:
    """Summed nats of each passage, over all scored tokens and over the long-gap ones, by setting; and how many."""

    nats: dict[str, Float[np.ndarray, " passage"]]
    far: dict[str, Float[np.ndarray, " passage"]]
    tokens: Float[np.ndarray, " passage"]
    far_tokens: Float[np.ndarray, " passage"]

    def closed(self, name: str) -> tuple[float, float, float]:
        """The share of the long-gap loss between `NEWEST` and `EVERYTHING` that a setting closes, and its interval."""
        return share_closed(self.far[name], self.far[NEWEST], self.far[EVERYTHING], RESAMPLES)

    def mean(self, name: str) -> float:
        """Nats a token."""
        return float(self.nats[name].sum() / self.tokens.sum())


def sums(
    found: Mapping[str, Sequence[Float[np.ndarray, " time"]]],
    items: Sequence[Passage],
    rarity: Float[np.ndarray, " vocab"],
    rare: float,
    capacity: int,
) -> Sums:
    """Sum the losses of each passage.

    The first ``capacity`` tokens of a passage are left out: nothing can have been evicted before them.

    Args:
        found: by setting the loss of each token of every passage, in nats.
        items: the passages.
        rarity: the unigram surprisal of each token, in nats.
        rare: the surprisal above which a token is rare, in nats; see `long_gap`.
        capacity: slots of the caches.

    Returns:
        The loss of each passage by setting, in nats, over all tokens and over long-gap tokens, and the counts of both.
    """
    masks = [long_gap(item.ids.numpy(), rarity, rare, capacity) for item in items]
    nats = {name: np.array([x[capacity:].sum(dtype=np.float64) for x in rows]) for name, rows in found.items()}
    far = {
        name: np.array([x[mask].sum(dtype=np.float64) for x, mask in zip(rows, masks, strict=True)])
        for name, rows in found.items()
    }
    sizes = np.array([float(len(item.ids) - capacity) for item in items])
    return Sums(nats, far, sizes, np.array([float(mask.sum()) for mask in masks]))


def best(sums: Sums, candidates: Sequence[str]) -> str:
    """The candidate that closes most of the gap, of those whose loss over all tokens is no worse than the newest's.

    Where all are worse, the one with the least loss.
    """
    fair = [name for name in candidates if sums.mean(name) <= sums.mean(NEWEST)]
    if not fair:
        return min(candidates, key=sums.mean)
    return max(fair, key=lambda name: sums.closed(name)[0])


def table(sums: Sums, against: str = NEWEST) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows by setting, and the intervals of their cells."""
    values: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    for name in sums.nats:
        row, ends = values.setdefault(name, {}), intervals.setdefault(name, {})
        for label, nats, sizes in (("NLL", sums.nats, sums.tokens), ("long-gap NLL", sums.far, sums.far_tokens)):
            found = paired_bootstrap(nats[name][None], nats[against][None], sizes, resamples=RESAMPLES)
            row[label] = round(found.value, 4)
            if name != against:
                row[f"{label} - {against}"] = round(found.difference, 4)
                if found.difference_low is not None and found.difference_high is not None:
                    ends[f"{label} - {against}"] = [round(found.difference_low, 4), round(found.difference_high, 4)]
        if name not in (EVERYTHING, NEWEST):
            value, low, high = (round(100 * x, 1) for x in sums.closed(name))
            row["gap closed, %"], ends["gap closed, %"] = value, [low, high]
    return values, intervals


def beaten(sums: Sums, ours: str) -> dict[str, list[str]]:
    """The other settings by how they do on long-gap tokens against ``ours``: worse, better or no difference."""
    names: dict[str, list[str]] = {"worse": [], "better": [], "no difference": [], "too few passages": []}
    for name in sums.far:
        if name not in (ours, EVERYTHING):
            found = paired_bootstrap(sums.far[name][None], sums.far[ours][None], sums.far_tokens, resamples=RESAMPLES)
            names[found.verdict].append(name)
    return {verdict: some for verdict, some in names.items() if some}

"""What the losses in streams amount to: sums by passage, the share of the long-gap loss recovered, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..compare.statistics import bootstrap_interval, paired_bootstrap
from ..lm.corpus import Passage
from .settings import FULL
from .streams import Losses

RESAMPLES = 10_000


def gaps(ids: Int[np.ndarray, " time"]) -> Int[np.ndarray, " time"]:
    """How many tokens ago each token was last seen; 0 where it was not."""
    last: dict[int, int] = {}
    found = np.zeros(len(ids), dtype=np.int64)
    for place, token in enumerate(ids.tolist()):
        found[place] = place - last.get(token, place)
        last[token] = place
    return found


def long_gap(
    ids: Int[np.ndarray, " time"], rarity: Float[np.ndarray, " vocab"], rare: float, capacity: int
) -> Bool[np.ndarray, " time"]:
    """Find the tokens that need memory: rare tokens whose last occurrence a cache of the newest tokens has evicted.

    Args:
        ids: the tokens of a passage.
        rarity: the unigram surprisal of each token, in nats.
        rare: the lowest surprisal of a rare token, in nats.
        capacity: the distance to the last occurrence, in tokens, that a gap must exceed.

    Returns:
        Whether each token is rare and last occurred more than ``capacity`` tokens before.
    """
    return (rarity[ids] >= rare) & (gaps(ids) > capacity)


def share_closed(
    ours: Float[np.ndarray, " passage"],
    worst: Float[np.ndarray, " passage"],
    best: Float[np.ndarray, " passage"],
) -> tuple[float, float, float]:
    """How much of the gap between ``worst`` and ``best`` is closed, and its 95 % interval over passages.

    Args:
        ours: summed nats of each passage.
        worst: the same where nothing of the gap is closed.
        best: the same where all of it is closed.

    Returns:
        The share, and the low and the high end of its interval.
    """
    closed, gap = worst - ours, worst - best

    def share(drawn: Int[np.ndarray, "resample passage"]) -> Float[np.ndarray, " resample"]:
        total = gap[drawn].sum(-1)
        return closed[drawn].sum(-1) / np.where(total == 0, np.nan, total)

    low, high = bootstrap_interval(share, len(ours), resamples=RESAMPLES).tolist()
    return float(closed.sum() / gap.sum()), low, high


@dataclass(frozen=True)
class Sums:
    """Sums over the tokens of each passage by setting, and how many tokens there are."""

    nats: dict[str, Float[np.ndarray, " passage"]]
    """-log p of all scored tokens."""
    far: dict[str, Float[np.ndarray, " passage"]]
    """-log p of the long-gap tokens."""
    kl: dict[str, Float[np.ndarray, " passage"]]
    """Divergence from the full cache over all scored tokens."""
    tokens: Float[np.ndarray, " passage"]
    far_tokens: Float[np.ndarray, " passage"]
    baseline: str
    """The setting of which the gap is measured."""

    def closed(self, name: str) -> tuple[float, float, float]:
        """The share of the long-gap loss between the baseline and the full cache that a setting closes.

        Returns:
            The share and its interval.
        """
        return share_closed(self.far[name], self.far[self.baseline], self.far[FULL])

    def mean(self, name: str) -> float:
        """Nats a token."""
        return float(self.nats[name].sum() / self.tokens.sum())


def sum_losses(
    found: Mapping[str, Sequence[Losses]],
    items: Sequence[Passage],
    rarity: Float[np.ndarray, " vocab"],
    *,
    rare: float,
    capacity: int,
    baseline: str,
) -> Sums:
    """Sum the losses of each passage.

    The first ``capacity`` tokens of a passage are left out: nothing can have been evicted before them.

    Args:
        found: by setting the losses of every passage.
        items: the passages.
        rarity: the unigram surprisal of each token, in nats.
        rare: the surprisal above which a token is rare, in nats; see `long_gap`.
        capacity: slots of the caches.
        baseline: the setting of which the gap is measured.

    Returns:
        The sums of each passage by setting.
    """
    masks = [long_gap(item.ids.numpy(), rarity, rare, capacity) for item in items]
    nats, far, kl = {}, {}, {}
    for name, rows in found.items():
        nats[name] = np.array([row.nats[capacity:].sum(dtype=np.float64) for row in rows])
        kl[name] = np.array([row.kl[capacity:].sum(dtype=np.float64) for row in rows])
        pairs = zip(rows, masks, strict=True)
        far[name] = np.array([row.nats[mask].sum(dtype=np.float64) for row, mask in pairs])
    sizes = np.array([float(len(item.ids) - capacity) for item in items])
    return Sums(nats, far, kl, sizes, np.array([float(mask.sum()) for mask in masks]), baseline)


def best(sums: Sums, candidates: Sequence[str]) -> str:
    """The candidate that closes most of the gap, of those whose loss over all tokens is no worse than the baseline's.

    Where all are worse, the one with the least loss.
    """
    fair = [name for name in candidates if sums.mean(name) <= sums.mean(sums.baseline)]
    if not fair:
        return min(candidates, key=sums.mean)
    return max(fair, key=lambda name: sums.closed(name)[0])


def table(sums: Sums) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rows by setting, and the intervals of their cells."""
    against = sums.baseline
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
        if name not in (FULL, against):
            value, low, high = (round(100 * x, 1) for x in sums.closed(name))
            row["gap closed, %"], ends["gap closed, %"] = value, [low, high]
    return values, intervals


def verdicts(sums: Sums, ours: str) -> dict[str, list[str]]:
    """The other settings by how they do on long-gap tokens against ``ours``: worse, better or no difference."""
    found: dict[str, list[str]] = {"worse": [], "better": [], "no difference": [], "too few passages": []}
    for name in sums.far:
        if name not in (ours, FULL):
            one = paired_bootstrap(sums.far[name][None], sums.far[ours][None], sums.far_tokens, resamples=RESAMPLES)
            found[one.verdict].append(name)
    return {verdict: some for verdict, some in found.items() if some}

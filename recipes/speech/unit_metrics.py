"""How well units agree with phones: PNMI, purities, boundaries; and how many units are used.

PNMI and the purities are defined by Hsu et al. (2106.07447, section IV-E), over frames that have both a unit and a
phone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from torch import Tensor


class Boundaries(NamedTuple):
    """Precision, recall and F1 of boundaries, each matched at most once; 0 if there is nothing to match."""

    precision: float
    recall: float
    f1: float


def pnmi(phones: Int[Tensor, " frames"], units: Int[Tensor, " frames"]) -> float:
    """Phone-normalised mutual information ``I(phone; unit) / H(phone)``, from 0 to 1 (a unit determines the phone).

    scikit-learn calls it homogeneity. It is 1 if there is a single phone.
    """
    from sklearn.metrics import homogeneity_score

    return float(homogeneity_score(phones.numpy(), units.numpy()))


def purities(phones: Int[Tensor, " frames"], units: Int[Tensor, " frames"]) -> tuple[float, float]:
    """Phone purity and cluster purity.

    Phone purity is the share of frames whose phone is the most frequent one of their unit. Cluster purity is the share
    of frames whose unit is the most frequent one of their phone; it falls with the number of units.
    """
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(phones.numpy(), units.numpy())
    return float(table.max(0).sum() / table.sum()), float(table.max(1).sum() / table.sum())


def usage(units: Int[Tensor, " frames"], count: int) -> dict[str, float]:
    """How many of ``count`` units occur, and the perplexity of their frequencies, which is at most ``count``."""
    shares = np.bincount(units.numpy(), minlength=count) / max(1, len(units))
    used = shares[shares > 0]
    return {"units_used": float(len(used)), "unit_perplexity": float(np.exp(-(used * np.log(used)).sum()))}


def changes(labels: Int[Tensor, " frames"], hop: float, first: float = 0.0) -> list[float]:
    """The times in seconds at which ``labels`` change; each lasts ``hop`` seconds, the first starts at ``first``."""
    return [first + float(frame) * hop for frame in (labels[1:] != labels[:-1]).nonzero().flatten() + 1]


def boundaries(clips: Iterable[tuple[Sequence[float], Sequence[float]]], tolerance: float = 0.02) -> Boundaries:
    """Precision, recall and F1 of found boundaries within ``tolerance`` of true ones, over all ``clips``.

    A clip is its true and its found boundaries in seconds, each sorted; see `matches`.
    """
    hits = truths = finds = 0
    for true, found in clips:
        truths, finds, hits = truths + len(true), finds + len(found), hits + matches(true, found, tolerance)
    precision, recall = hits / max(1, finds), hits / max(1, truths)
    return Boundaries(precision, recall, 2 * hits / max(1, truths + finds))


def matches(true: Sequence[float], found: Sequence[float], tolerance: float = 0.02) -> int:
    """The number of found boundaries that match a true one within ``tolerance``, one to one; both are sorted.

    Greedy matching is optimal here, because the tolerance is the same for all.
    """
    slack = tolerance + 1e-9  # a distance equal to the tolerance counts, despite rounding
    hits = i = j = 0
    while i < len(true) and j < len(found):
        match = abs(true[i] - found[j]) <= slack
        hits += match
        i, j = i + (match or true[i] < found[j]), j + (match or true[i] >= found[j])
    return hits

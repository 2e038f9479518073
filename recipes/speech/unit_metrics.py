"""How well units of speech tell its phones: PNMI, purities, boundaries, and how many units are in use.

PNMI and the purities are those of Hsu et al. (2106.07447, section IV-E), over frames that have both a unit and a phone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from torch import Tensor


class Boundaries(NamedTuple):
    """Found boundaries against true ones, each matched once at most; all are 0 where there is nothing to match."""

    precision: float
    recall: float
    f1: float


def pnmi(phones: Int[Tensor, " frames"], units: Int[Tensor, " frames"]) -> float:
    """Phone-normalised mutual information ``I(phone; unit) / H(phone)``: 0 tells nothing, 1 tells the phone.

    It is what scikit-learn calls homogeneity, and 1 where there is a single phone.
    """
    from sklearn.metrics import homogeneity_score

    return float(homogeneity_score(phones.numpy(), units.numpy()))


def purities(phones: Int[Tensor, " frames"], units: Int[Tensor, " frames"]) -> tuple[float, float]:
    """Phone purity and cluster purity.

    The first is the share of frames whose phone is the most frequent one of their unit; the second the share whose unit
    is the most frequent one of their phone, which falls as there are more units.
    """
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(phones.numpy(), units.numpy())
    return float(table.max(0).sum() / table.sum()), float(table.max(1).sum() / table.sum())


def usage(units: Int[Tensor, " frames"], count: int) -> dict[str, float]:
    """How many of ``count`` units occur, and the perplexity of their frequencies: ``count`` where all are even."""
    shares = np.bincount(units.numpy(), minlength=count) / max(1, len(units))
    used = shares[shares > 0]
    return {"units_used": float(len(used)), "unit_perplexity": float(np.exp(-(used * np.log(used)).sum()))}


def changes(labels: Int[Tensor, " frames"], hop: float, first: float = 0.0) -> list[float]:
    """The times in seconds at which ``labels`` change; they stand for ``hop`` seconds each, from ``first`` on."""
    return [first + float(frame) * hop for frame in (labels[1:] != labels[:-1]).nonzero().flatten() + 1]


def boundaries(clips: Iterable[tuple[Sequence[float], Sequence[float]]], tolerance: float = 0.02) -> Boundaries:
    """Precision, recall and F1 of found boundaries within ``tolerance`` of true ones, over all ``clips``.

    A clip is its true and its found boundaries, each in rising seconds; see `matches`.
    """
    hits = truths = finds = 0
    for true, found in clips:
        truths, finds, hits = truths + len(true), finds + len(found), hits + matches(true, found, tolerance)
    precision, recall = hits / max(1, finds), hits / max(1, truths)
    return Boundaries(precision, recall, 2 * hits / max(1, truths + finds))


def matches(true: Sequence[float], found: Sequence[float], tolerance: float = 0.02) -> int:
    """How many found boundaries can be matched one to one with true ones within ``tolerance``; both rise.

    With one tolerance for all, taking the earliest that fit loses none.
    """
    slack = tolerance + 1e-9  # a distance of just the tolerance counts, whatever floats make of it
    hits = i = j = 0
    while i < len(true) and j < len(found):
        match = abs(true[i] - found[j]) <= slack
        hits += match
        i, j = i + (match or true[i] < found[j]), j + (match or true[i] >= found[j])
    return hits

"""How many words the memories of text and of speech both keep, beside what chance and age alone would give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..compare.statistics import FEWEST_PASSAGES, bootstrap_interval

CRITERIA: dict[str, float] = {"half": 0.5, "any": 1e-9}
"""When a memory keeps a word: with at least this share of its tokens."""

FIGURES = ("share", "chance", "same_age", "over_chance", "over_same_age")
"""What is reported of every strategy; see `agreement`."""

Drawn = Int[np.ndarray, "resample passage"]


@dataclass(frozen=True)
class KeptWords:
    """The words of a passage that each memory keeps, moment by moment, and the seconds since each was spoken.

    Words whose age is negative were not read by then and do not count.
    """

    text: Bool[np.ndarray, "moment word"]
    speech: Bool[np.ndarray, "moment word"]
    ages: Float[np.ndarray, "moment word"]


@dataclass(frozen=True)
class Overlap:
    """Numbers of words of a passage, averaged over its moments.

    Args:
        kept_text: words that the memory of the text keeps.
        kept_speech: words that the memory of the speech keeps.
        both: words that both keep.
        by_chance: words that both would keep if each kept as many at random (a hypergeometric mean).
        by_age: words that both would keep if they agreed only in the ages of what they keep; see `overlaps`.
    """

    kept_text: float
    kept_speech: float
    both: float
    by_chance: float
    by_age: float


def overlaps(passages: Sequence[KeptWords]) -> list[Overlap]:
    """Count the words that both memories keep.

    ``by_age`` compares the memory of one modality with the memories of the other modality in all other passages: the
    content differs there, and a word is compared with the word of the same age. The mean over both directions and all
    other passages is taken.

    Args:
        passages: what was kept, with equally many moments; at least two.

    Returns:
        The numbers of each passage.
    """
    sums = np.zeros((len(passages), 5))
    for moment in range(len(passages[0].ages)):
        newest_first = [_newest_first(one, moment) for one in passages]
        for number, (text, speech, ages) in enumerate(newest_first):
            by_age = 0.0
            for other_text, other_speech, other_ages in newest_first[:number] + newest_first[number + 1 :]:
                same_age = np.minimum(np.searchsorted(other_ages, ages), len(other_ages) - 1)
                by_age += (text @ other_speech[same_age] + speech @ other_text[same_age]) / 2
            by_chance = text.sum() * speech.sum() / max(1, len(text))
            sums[number] += [text.sum(), speech.sum(), text @ speech, by_chance, by_age / (len(passages) - 1)]
    return [Overlap(*row) for row in (sums / len(passages[0].ages)).tolist()]


def agreement(counts: Sequence[Overlap], shuffled: Sequence[Overlap] | None = None, seed: int = 0) -> dict[str, Any]:
    """The share of words that both memories keep, with 95 % intervals over passages.

    ``share`` is the number of words that both keep, divided by the mean of the numbers that each keeps: 1 if they keep
    the same words, 0 if they have none in common. ``chance`` and ``same_age`` are the shares to expect of memories that
    keep as many words at random, or words of the same ages. ``over_chance`` and ``over_same_age`` are the differences
    of the share from them. ``over_shuffled`` is the difference of ``over_same_age`` from that of memories that rank by
    shuffled scores: long words have more tokens in both modalities, which those have in common too.

    Args:
        counts: of each passage.
        shuffled: of each passage, with shuffled scores; None where there is no such control.
        seed: of the bootstrap.

    Returns:
        Each of `FIGURES` and ``over_shuffled`` as ``value``, ``low`` and ``high``, which are None where they are
        undefined; and ``kept_text`` and ``kept_speech``, the mean numbers of words that are kept.
    """
    control = counts if shuffled is None else shuffled
    parts, control_parts = (
        np.array([[one.both, one.by_chance, one.by_age] for one in side]).T for side in (counts, control)
    )

    def statistic(drawn: Drawn) -> Float[np.ndarray, "figure resample"]:
        share, chance, same_age = (_ratio(part, _sizes(counts), drawn) for part in parts)
        other_share, _, other_same_age = (_ratio(part, _sizes(control), drawn) for part in control_parts)
        over_shuffled = share - same_age - (other_share - other_same_age)
        return np.stack([share, chance, same_age, share - chance, share - same_age, over_shuffled])

    names = (*FIGURES, "over_shuffled")
    entries = dict(zip(names, intervals(statistic, len(counts), seed), strict=True))
    if shuffled is None:
        del entries["over_shuffled"]
    kept = {name: float(np.mean([getattr(one, name) for one in counts])) for name in ("kept_text", "kept_speech")}
    return entries | kept


def intervals(
    statistic: Callable[[Drawn], Float[np.ndarray, "figure resample"]], passages: int, seed: int = 0
) -> list[dict[str, float | None]]:
    """Figures with 95 % bootstrap intervals over passages.

    Args:
        statistic: the figures of resampled passages; NaN where one is undefined.
        passages: the number of passages.
        seed: of the bootstrap.

    Returns:
        ``value``, ``low`` and ``high`` of each figure; None where it is undefined, and ends with too few passages.
    """
    values = statistic(np.arange(passages)[None])[:, 0]
    ends = np.full((2, len(values)), np.nan)
    if passages >= FEWEST_PASSAGES and not np.isnan(values).all():
        ends = bootstrap_interval(statistic, passages, seed=seed)
    rows = np.stack([values, *ends], axis=1).tolist()
    return [{name: _defined(x) for name, x in zip(("value", "low", "high"), row, strict=True)} for row in rows]


def mean_interval(
    values: Float[np.ndarray, " passage"], weights: Float[np.ndarray, " passage"], seed: int = 0
) -> dict[str, float | None]:
    """The weighted mean of the passages whose value is not NaN, as `intervals` gives it."""
    sizes = np.where(np.isnan(values), 0, weights)
    sums = np.where(np.isnan(values), 0, values) * sizes
    return intervals(lambda drawn: _ratio(sums, sizes, drawn)[None], len(values), seed)[0]


def _newest_first(one: KeptWords, moment: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each memory keeps each word that was read, and the ages of the words; the newest word first."""
    ages = one.ages[moment]
    order = np.flatnonzero(ages >= 0)[::-1]
    return one.text[moment, order].astype(float), one.speech[moment, order].astype(float), ages[order]


def _sizes(counts: Sequence[Overlap]) -> Float[np.ndarray, " passage"]:
    return np.array([(one.kept_text + one.kept_speech) / 2 for one in counts])


def _ratio(sums: Float[np.ndarray, " passage"], sizes: Float[np.ndarray, " passage"], drawn: Drawn) -> np.ndarray:
    total = sizes[drawn].sum(-1)
    return sums[drawn].sum(-1) / np.where(total > 0, total, np.nan)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value

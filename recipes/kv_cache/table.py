"""The rows of the report: figures of each policy and capacity with intervals, as `vqmem compare` has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..compare.statistics import FEWEST_PASSAGES, Comparison, bootstrap_interval, paired_bootstrap
from .figures import Sums
from .needles import Asked, compare_scores, hits_at, join_hits, quiz_columns
from .settings import FULL
from .streams import Losses

METRICS = {
    "nll": {"label": "loss on all tokens", "unit": "nats", "better": "lower"},
    "perplexity": {"label": "perplexity", "unit": "", "better": "lower"},
    "long_gap_nll": {"label": "loss on long-gap tokens", "unit": "nats", "better": "lower"},
    "gap_closed": {"label": "long-gap loss recovered", "unit": "%", "better": "higher"},
    "kl": {"label": "divergence from the full cache (KL)", "unit": "nats", "better": "lower"},
}


def stream_rows(sums: Sums, losses: Mapping[str, Sequence[Losses]], capacity: int) -> list[dict[str, Any]]:
    """The rows of one capacity.

    Besides what `vqmem compare` has, a row has ``over_full``, its loss compared with the full cache's, and
    ``against_best``, the verdict on its loss beside that of the policy with the least, and ``by_document``, nats and
    tokens of each passage.

    Args:
        sums: of the losses at this capacity.
        losses: the losses themselves, for bytes and speed.
        capacity: slots of the caches.

    Returns:
        A row for each setting but the full cache.
    """
    names = [name for name in sums.nats if name != FULL]
    least = min(names, key=sums.mean)
    return [
        {
            "strategy": name,
            "capacity": capacity,
            "train": "pretrained",
            "memory_bytes": max(one.bytes for one in losses[name]),
            "metrics": _metrics(sums, name),
            "over_full": paired_bootstrap(sums.nats[name][None], sums.nats[FULL][None], sums.tokens).to_json(),
            "against_best": _verdict_beside(sums, name, least),
            "by_document": {"nll": [sums.nats[name].tolist(), sums.tokens.tolist()]},
            "tokens_per_second": sum(len(one.nats) for one in losses[name]) / sum(one.seconds for one in losses[name]),
        }
        for name in names
    ]


def full_perplexities(rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The perplexity of the full cache by capacity: on the tokens after the first ones that fit."""
    return {row["capacity"]: math.exp(row["metrics"]["nll"]["value"] - row["over_full"]["difference"]) for row in rows}


def _metrics(sums: Sums, name: str) -> dict[str, Any]:
    found = {
        "nll": _compare(sums.nats, sums.tokens, name, sums.baseline),
        "perplexity": _perplexity(sums, name).to_json(),
    }
    if sums.far_tokens.sum():
        found["long_gap_nll"] = _compare(sums.far, sums.far_tokens, name, sums.baseline)
        if sums.far[FULL].sum() < sums.far[sums.baseline].sum():
            found["gap_closed"] = _gap_closed(sums, name).to_json()
    return found | {"kl": _compare(sums.kl, sums.tokens, name, sums.baseline)}


def _compare(
    numerators: Mapping[str, Float[np.ndarray, " passage"]],
    sizes: Float[np.ndarray, " passage"],
    name: str,
    baseline: str,
) -> dict[str, Any]:
    theirs = None if name == baseline else numerators[baseline][None]
    return paired_bootstrap(numerators[name][None], theirs, sizes).to_json()


def _perplexity(sums: Sums, name: str) -> Comparison:
    """The exponential of the loss; its verdict is that of the loss."""
    ours, theirs = (sums.nats[key] for key in (name, sums.baseline))
    loss = paired_bootstrap(ours[None], None if name == sums.baseline else theirs[None], sums.tokens)

    def both(drawn: Int[np.ndarray, "resample passage"]) -> Float[np.ndarray, "2 resample"]:
        tokens = sums.tokens[drawn].sum(-1)
        mine, base = (np.exp(nats[drawn].sum(-1) / tokens) for nats in (ours, theirs))
        return np.stack([mine, mine - base])

    value, base = math.exp(sums.mean(name)), math.exp(sums.mean(sums.baseline))
    if loss.low is None:
        return Comparison(value, None, None, value - base, None, None, loss.verdict)
    (low, difference_low), (high, difference_high) = bootstrap_interval(both, len(ours)).tolist()
    return Comparison(value, low, high, value - base, difference_low, difference_high, loss.verdict)


def _gap_closed(sums: Sums, name: str) -> Comparison:
    """The share of the gap that is closed, in %, which for the baseline is 0."""
    if name == sums.baseline:
        return Comparison(0.0, None, None, 0.0, None, None, "baseline")
    enough = len(sums.tokens) >= FEWEST_PASSAGES
    if not enough:
        share = (sums.far[sums.baseline] - sums.far[name]).sum() / (sums.far[sums.baseline] - sums.far[FULL]).sum()
        return Comparison(100 * float(share), None, None, 100 * float(share), None, None, "too few passages")
    value, low, high = (100 * x for x in sums.closed(name))
    if not math.isfinite(low + high):
        return Comparison(value, None, None, value, None, None, "too few passages")
    verdict = "no difference" if low <= 0 <= high else "better" if low > 0 else "worse"
    return Comparison(value, low, high, value, low, high, verdict)


def _verdict_beside(sums: Sums, name: str, least: str) -> str:
    if name == least:
        return "best"
    return paired_bootstrap(sums.nats[name][None], sums.nats[least][None], sums.tokens).verdict


def quiz_rows(
    asked: Sequence[Asked], shares: Sequence[float], baseline: str, presses: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The scores of each setting, in %, at each share kept, by task and length and of all.

    Args:
        asked: the quizzes with their answers.
        shares: the shares of a text that were kept.
        baseline: the setting to compare with.
        presses: the settings that are presses of kvpress, with which policies are compared.

    Returns:
        A row for each share and setting: ``values`` by column, the ``difference`` from the baseline and its
        ``interval`` if there is one, and by name of another setting the comparison with it, paired over quizzes, in
        ``against``: the full cache and the baseline, and for a policy each of ``presses``.
    """
    rows = []
    for place, share in enumerate(shares):
        hits = hits_at(asked, place)
        scores = join_hits(hits)
        for name, columns in quiz_columns(hits).items():
            others = [FULL, baseline, *([] if name in (FULL, *presses) else presses)]
            against = {other: compare_scores(scores[name], scores[other]) for other in others if other != name}
            one = against.get(baseline, {"difference": 0.0, "low": None})
            ends = None if one["low"] is None else [one["low"], one["high"]]
            rows.append(
                {
                    "strategy": name,
                    "share": share,
                    "values": columns,
                    "difference": one["difference"],
                    "interval": ends,
                    "against": against,
                }
            )
    return rows

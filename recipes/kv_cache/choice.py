"""What to choose, in sentences that follow from the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..compare.statistics import FEWEST_PASSAGES
from .settings import FULL

CEILING = "kvpress KVzip"
"""A row that no cache can be: it reads the text twice."""
Row = Mapping[str, Any]


def choose(summary: Mapping[str, Any]) -> list[str]:
    """The sentences that the report begins with: policy and capacity for streams, policy for prompts, what it costs."""
    by_capacity = {capacity: _at(summary["rows"], capacity) for capacity in _capacities(summary)}
    sentences = [_streams(capacity, rows, summary["baseline"]) for capacity, rows in by_capacity.items()]
    sentences.append(_capacity(by_capacity, summary["tolerance"]))
    sentences += [_quizzes(rows, summary["baseline"], summary["asked"]) for rows in _by_share(summary["quizzes"])]
    if summary["left_out"] and not summary["quizzes"]:
        sentences.append(f"Prompts: nothing to compare. {left_out(summary)}")
    sentences += _costs(by_capacity, summary["costs"])
    return sentences


def best_of(rows: Sequence[Row]) -> Row:
    """The row with the least loss."""
    return next(row for row in rows if row["against_best"] == "best")


def left_out(summary: Mapping[str, Any]) -> str:
    """Name the tasks that are left out of the comparison, with the full cache's scores; empty if there are none."""
    if not summary["left_out"]:
        return ""
    tasks = ", ".join(f"{task} ({score:.0f}%)" for task, score in summary["left_out"].items())
    least = summary["config"]["needles"]["threshold"]
    return f"Left out, because even the full cache scores below {least:g}%: {tasks}."


def _capacities(summary: Mapping[str, Any]) -> list[int]:
    return sorted({row["capacity"] for row in summary["rows"]})


def _at(rows: Sequence[Row], capacity: int) -> list[Row]:
    return [row for row in rows if row["capacity"] == capacity]


def _streams(capacity: int, rows: Sequence[Row], baseline: str) -> str:
    """Which policy loses least at a capacity, and which ones do no worse."""
    best = best_of(rows)
    text = (
        f"Streams, {capacity:,} tokens kept: {best['strategy']} loses {_over_full(best)} nats a token to the full cache"
    )
    if best["strategy"] != baseline:
        theirs = next(row for row in rows if row["strategy"] == baseline)
        text += f", {baseline} {_over_full(theirs)}"
    if "gap_closed" in best["metrics"] and best["strategy"] != baseline:
        gap = best["metrics"]["gap_closed"]
        text += f"; on rare tokens last seen further back it recovers {gap['value']:.0f}% of what {baseline} loses"
    groups = {verdict: [row["strategy"] for row in rows if row["against_best"] == verdict] for verdict in _VERDICTS}
    more = [f"{words}: {', '.join(groups[verdict])}" for verdict, words in _VERDICTS.items() if groups[verdict]]
    return f"{text}." + (f" Beside it, {'; '.join(more)}." if more else "")


_VERDICTS = {"no difference": "no different", "worse": "worse", "too few passages": "undecided for want of passages"}


def _over_full(row: Row) -> str:
    entry = row["over_full"]
    text = f"{entry['difference']:.3f}"
    return (
        text
        if entry["difference_low"] is None
        else f"{text} [{entry['difference_low']:.3f}, {entry['difference_high']:.3f}]"
    )


def _capacity(by_capacity: Mapping[int, Sequence[Row]], tolerance: float) -> str:
    """The smallest capacity that is good enough."""
    losses = {capacity: best_of(rows)["over_full"]["difference"] for capacity, rows in by_capacity.items()}
    fine = [capacity for capacity, loss in losses.items() if loss <= tolerance]
    if fine:
        return (
            f"Capacity: {min(fine):,} is the smallest measured that stays within {tolerance:g} nats of the full cache."
        )
    largest = max(losses)
    return (
        f"Capacity: none stays within {tolerance:g} nats of the full cache; {largest:,} loses {losses[largest]:.3f}. "
        "Measure larger ones."
    )


def _by_share(rows: Sequence[Row]) -> list[list[Row]]:
    shares = dict.fromkeys(row["share"] for row in rows)
    return [[row for row in rows if row["share"] == share] for share in shares]


def _quizzes(rows: Sequence[Row], baseline: str, asked: int) -> str:
    """Which policy answers best with a share kept."""
    found = {row["strategy"]: row["values"]["all"] for row in rows}
    ours = {name: value for name, value in found.items() if name not in (FULL, CEILING)}
    most = max(ours.values())
    names = [name for name, value in ours.items() if value == most]
    others = {FULL: found[FULL], baseline: found[baseline]}
    beside = ", ".join(f"{name} {value:.0f}%" for name, value in others.items() if name not in names)
    kept = f"Prompts, {100 * rows[0]['share']:g}% kept"
    if not most:
        return f"{kept}: no policy answers a quiz (full cache {found[FULL]:.0f}%)."
    verb = "score" if len(names) > 1 else "scores"
    few = f" These are {asked} quizzes, too few to decide." if asked < FEWEST_PASSAGES else ""
    return f"{kept}: {' and '.join(names)} {verb} {most:.0f}% at the tasks of RULER ({beside}).{few}"


def _costs(by_capacity: Mapping[int, Sequence[Row]], costs: Sequence[Row]) -> list[str]:
    """What the policy with the least loss costs at each capacity, beside the full cache."""
    full = next((row for row in costs if row["strategy"] == FULL), None)
    if full is None:
        return []
    sentences = []
    for capacity, rows in by_capacity.items():
        timed = {row["strategy"]: row for row in costs if row["capacity"] == capacity}
        found = [row for row in rows if row["strategy"] in timed]  # presses are not
        name = min(found, key=lambda row: row["over_full"]["difference"])["strategy"]
        ours = timed[name]
        share = {key: ours[key] / full[key] for key in ("bytes", "byte_seconds", "decode_seconds", "prefill_seconds")}
        sentences.append(
            f"Cost, {capacity:,} tokens kept by {name}: {share['bytes']:.1%} of the full cache's bytes and "
            f"{share['byte_seconds']:.1%} of its byte-seconds for one request; a token takes "
            f"{share['decode_seconds']:.2f} times as long, the prompt {share['prefill_seconds']:.2f} times."
        )
    return sentences

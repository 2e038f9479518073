"""The findings of a comparison as text: the strategies that beat the baseline, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .statistics import FEWEST_PASSAGES

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """The outcome of one figure at one capacity: the verdict, the winner as the title, and a few sentences."""

    metric: str
    setting: str
    verdict: str
    title: str
    difference: str
    text: str


def findings(summary: Mapping[str, Any]) -> list[Finding]:
    """One finding per metric, ``train`` and capacity, in this order; settings without a comparison are left out."""
    found = []
    for metric in summary["metrics"]:
        for train, capacity in _settings(summary, metric):
            rows = [row for row in _rows(summary, metric) if (row["train"], row["capacity"]) == (train, capacity)]
            if any(_verdict(row, metric) != "baseline" for row in rows):
                found.append(_finding(summary, metric, train, capacity, rows))
    return found


def headline(summary: Mapping[str, Any]) -> list[str]:
    """Summarise the comparison in one sentence per metric, including null results. The report begins with them."""
    baseline = summary["baseline"]
    return [text for metric in summary["metrics"] if (text := _overall(summary, metric, baseline))]


def digits(summary: Mapping[str, Any], metric: str) -> int:
    """Decimals that show two significant digits of the median interval of a difference."""
    widths = [
        entry["difference_high"] - entry["difference_low"]
        for row in _rows(summary, metric)
        if (entry := row["metrics"][metric]).get("difference_high") is not None
        and entry.get("difference_low") is not None
    ]
    return decimals(widths)


def decimals(widths: Sequence[float]) -> int:
    """Decimals that show two significant digits of the median of these widths of intervals; zeros do not count."""
    wide = [width for width in widths if width > 0]
    return min(6, max(1, 1 - math.floor(math.log10(median(wide) / 2)))) if wide else 3


def _overall(summary: Mapping[str, Any], metric: str, baseline: str) -> str:
    rows = [row for row in _rows(summary, metric) if _verdict(row, metric) != "baseline"]
    verdicts = [_verdict(row, metric) for row in rows]
    if not rows:
        return ""
    label = summary["metrics"][metric]["label"]
    if set(verdicts) == {"too few passages"}:
        return f"On {label}, there are too few passages for a verdict; give at least {FEWEST_PASSAGES}."
    wins = {
        name: sum(_is(row, name, metric, "better") for row in rows)
        for name in dict.fromkeys(row["strategy"] for row in rows)
    }
    sign = -1 if summary["metrics"][metric]["better"] == "lower" else 1

    def rank(name: str) -> tuple[int, int, float]:
        """Wins, then few losses, then by how much."""
        differences = [row["metrics"][metric]["difference"] for row in rows if row["strategy"] == name]
        losses = sum(_is(row, name, metric, "worse") for row in rows)
        return wins[name], -losses, sign * sum(difference or 0.0 for difference in differences)

    champion = max(wins, key=rank)
    differences = [row["metrics"][metric]["difference"] for row in rows]
    if not wins[champion]:
        lead = (
            f"On {label}, no memory beats {baseline} anywhere: differences of {_range(summary, metric, differences)}."
        )
    else:
        tried = sum(row["strategy"] == champion for row in rows)
        lost = sum(_is(row, champion, metric, "worse") for row in rows)
        times = f" in {wins[champion]} of {tried} settings" if tried > 1 else ""
        won = (row for row in rows if _is(row, champion, metric, "better"))
        most = _gain(summary, metric, max(won, key=lambda row: abs(row["metrics"][metric]["difference"])))
        also = f" and loses in {lost}" if lost else ""
        lead = f"On {label}, {champion} beats {baseline}{times}{also}{', most' if times else ''} with {most}."
    lead += _ceiling(summary, metric, rows)
    counts = ", ".join(
        f"{verdicts.count(verdict)} {words}"
        for verdict, words in (
            ("better", "better"),
            ("worse", "worse"),
            ("no difference", "no difference"),
            ("too few passages", "with too few passages"),
        )
        if verdict in verdicts
    )
    return f"{lead} All {len(rows)} comparisons: {counts}." if len(rows) > 1 else lead


def _gain(summary: Mapping[str, Any], metric: str, row: Row) -> str:
    """The capacity of a row, its value and the baseline's, and the interval of their difference."""
    entry, places = row["metrics"][metric], digits(summary, metric)
    values = f"{entry['value']:.{places}f} against {entry['value'] - entry['difference']:.{places}f}"
    interval = f", {_interval(summary, metric, row)}" if entry.get("difference_low") is not None else ""
    return f"{row['capacity']} slots: {values}{interval}"


def _range(summary: Mapping[str, Any], metric: str, differences: Sequence[float]) -> str:
    least, most = (_signed(end, digits(summary, metric)) for end in (min(differences), max(differences)))
    return least if least == most else f"{least} to {most}"


def _ceiling(summary: Mapping[str, Any], metric: str, compared: Sequence[Row]) -> str:
    """What the baseline reaches where everything is kept, if that was measured: at a capacity without comparisons."""
    tried, places = {(row["train"], row["capacity"]) for row in compared}, digits(summary, metric)
    passage = summary.get("config", {}).get("lm", {}).get("passage", math.inf)
    baseline = [row for row in _rows(summary, metric) if row["strategy"] == summary["baseline"]]
    full = [row for row in baseline if (row["train"], row["capacity"]) not in tried and row["capacity"] >= passage]
    if not full:
        return ""
    least = min((row for row in baseline if row["train"] == full[0]["train"]), key=lambda row: row["capacity"])
    kept, all_kept = (f"{row['metrics'][metric]['value']:.{places}f}" for row in (least, full[0]))
    return f" {summary['baseline']} has {kept} with {least['capacity']} slots and {all_kept} with everything kept."


def _finding(summary: Mapping[str, Any], metric: str, train: str, capacity: int, rows: Sequence[Row]) -> Finding:
    baseline = summary["baseline"]
    spec = summary["metrics"][metric]
    groups = {
        verdict: sorted(
            (row for row in rows if _verdict(row, metric) == verdict),
            key=lambda row: row["metrics"][metric]["value"] * (1 if spec["better"] == "lower" else -1),
        )
        for verdict in ("better", "worse", "no difference", "too few passages")
    }
    setting = f"{capacity} slots" + (f", trained {train}" if len({row["train"] for row in summary["rows"]}) > 1 else "")
    listed = [
        f"{words}: {', '.join(row['strategy'] for row in some)}."
        for verdict, words in (
            ("better", "Also better"),
            ("worse", "Worse"),
            ("no difference", "No difference"),
            ("too few passages", "Too few passages"),
        )
        if (some := groups[verdict][1 if verdict == "better" else 0 :])
    ]
    if groups["better"]:
        best = groups["better"][0]
        words = [_size(summary, metric, best)]
        return Finding(
            metric, setting, "better", best["strategy"], _interval(summary, metric, best), " ".join(words + listed)
        )
    if groups["too few passages"]:
        return Finding(metric, setting, "too few passages", "undecided", "", " ".join(listed))
    if not groups["no difference"]:
        return Finding(metric, setting, "worse", f"{baseline} stays best", "", " ".join(listed))
    note = f"Every interval of the difference from {baseline} includes 0 or lies on the worse side."
    return Finding(metric, setting, "no difference", "no winner", "", " ".join([note, *listed]))


def _size(summary: Mapping[str, Any], metric: str, row: Row) -> str:
    """The size of a gain: as a percentage of the baseline, and of the baseline's gain from a larger capacity."""
    entry = row["metrics"][metric]
    base = entry["value"] - entry["difference"]
    side = "lower" if entry["difference"] < 0 else "higher"
    words = f"{abs(entry['difference'] / base):.2%} {side} than {summary['baseline']}" if base else ""
    larger = [
        other
        for other in _rows(summary, metric)
        if other["strategy"] == summary["baseline"]
        and other["train"] == row["train"]
        and other["capacity"] > row["capacity"]
    ]
    if larger:
        upper = min(larger, key=lambda other: other["capacity"])
        step = upper["metrics"][metric]["value"] - base
        # A share of a gain close to 0 is meaningless.
        if 0 < entry["difference"] / (step or math.inf) <= 10:
            share = (
                f"{entry['difference'] / step:.0%} of what it gains from {row['capacity']} to {upper['capacity']} slots"
            )
            words += f"; {share}" if words else share
    return f"{words}." if words else ""


def _interval(summary: Mapping[str, Any], metric: str, row: Row) -> str:
    entry, places = row["metrics"][metric], digits(summary, metric)
    keys = ("difference", "difference_low", "difference_high")
    difference, low, high = (_signed(entry[key], places) for key in keys)
    return f"{difference} [{low}, {high}]"


def _signed(value: float, places: int) -> str:
    return f"{value:+.{places}f}".replace("-", "\N{MINUS SIGN}")


def _settings(summary: Mapping[str, Any], metric: str) -> list[tuple[str, int]]:
    trains = list(dict.fromkeys(row["train"] for row in summary["rows"]))
    settings = {(row["train"], row["capacity"]) for row in _rows(summary, metric)}
    return sorted(settings, key=lambda setting: (trains.index(setting[0]), setting[1]))


def _rows(summary: Mapping[str, Any], metric: str) -> list[Row]:
    return [row for row in summary["rows"] if row["metrics"].get(metric, {}).get("value") is not None]


def _is(row: Row, name: str, metric: str, verdict: str) -> bool:
    return row["strategy"] == name and _verdict(row, metric) == verdict


def _verdict(row: Row, metric: str) -> str:
    return row["metrics"][metric].get("verdict", "too few passages")

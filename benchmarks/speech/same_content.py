"""Make a result of a comparison of the same content as text and as speech.

    python benchmarks/speech/same_content.py runs/same_content_novel/summary.json [--note ...]

The comparison itself is ``vqmem same_content``; this turns the summary that it wrote into
``docs/results/same_content.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqmem.benchmarks._results import Result, convert_summary
from vqmem.recipes.same_content.findings import CRITERIA_IN_WORDS

FIGURES = {
    "share": "share, %",
    "chance": "at random",
    "same_age": "of the same ages",
    "over_same_age": "more than of the same ages",
    "over_shuffled": "more than with shuffled scores",
}
"""Key of the summary -> column of the page."""


def result(summary: Mapping[str, Any], notes: list[str]) -> Result:
    """Make the result: words that both memories keep, in %, and rank correlations of the scores of words.

    Args:
        summary: the ``summary.json`` of `vqmem same_content`.
        notes: remarks on the result.

    Returns:
        The result for the page.
    """
    values: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    for row in summary["memories"]:
        table = f"Words that both keep, where {CRITERIA_IN_WORDS[row['criterion']]} kept"
        name = f"{row['strategy']}, {row['capacity']:g} s"
        for key, column in FIGURES.items():
            _put(values, intervals, (table, name, column), row.get(key), 100.0)
    for row in summary["across"]:
        name = f"{row['pair']}: {row['signal']}, {row['statistic']} over tokens"
        _put(values, intervals, ("Rank correlation of a word's score", name, f"removed: {row['controls']}"), row)
    criterion = f"Words that both keep, where {CRITERIA_IN_WORDS['any']} kept"
    column = FIGURES["over_shuffled"]
    beyond = {name: row[column] for name, row in values[criterion].items() if row.get(column) is not None}
    return Result(
        title="The same content as text and as speech",
        question="Do memories of a text and of its reading keep the same words, and are a word's scores alike?",
        answer=" ".join(summary["answer"]),
        measured=f"eSpeak NG ({summary['config']['voice']}) reads {summary['passages']} passages, {summary['words']:,} "
        f"words in {summary['seconds_of_content'] / 60:.0f} minutes; packaged scorers. Both memories have slots for as "
        "many seconds of content. Shares are of the words that they keep; what is expected of the same ages, and with "
        "the scores of other tokens (shuffled), is beside it.",
        values=values,
        split=f"{summary['split']}: {summary['passages']} passages, {summary['words']} words",
        intervals=intervals,
        interval_kind="95 %, bootstrap over passages",
        effect=[criterion, max(beyond, key=lambda name: beyond[name]), column] if beyond else [],
        notes=notes,
        command=summary["command"],
        seconds=round(summary["seconds"]),
    )


def _put(
    values: dict[str, Any], intervals: dict[str, Any], place: tuple[str, str, str], found: Any, scale: float = 1.0
) -> None:
    """Put a figure at a place of the tables, and its interval at the same; nothing where there is no figure."""
    if found is None:
        return
    table, row, column = place
    values.setdefault(table, {}).setdefault(row, {})[column] = (
        None if found["value"] is None else scale * found["value"]
    )
    if found["low"] is not None:
        ends = [scale * found["low"], scale * found["high"]]
        intervals.setdefault(table, {}).setdefault(row, {})[column] = ends


if __name__ == "__main__":
    convert_summary(__doc__, "same_content", result)

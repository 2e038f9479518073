"""The headline of a comparison: who wins where, by how much, and what keeping everything reaches."""

from __future__ import annotations

from typing import Any

import pytest
from vqmem.recipes.compare.findings import headline


def row(strategy: str, capacity: int, value: float, by: float | None = None) -> dict[str, Any]:
    """A row, with its difference from the baseline and an interval of ±0.05; None is the baseline itself."""
    verdict = "baseline" if by is None else "better" if by > 0.05 else "worse" if by < -0.05 else "no difference"
    difference = by or 0.0
    entry = {"value": value, "difference": difference, "verdict": verdict}
    entry |= {"difference_low": difference - 0.05, "difference_high": difference + 0.05}
    return {"strategy": strategy, "capacity": capacity, "train": "mixed", "metrics": {"recall": entry}}


def found(*rows: dict[str, Any]) -> str:
    metrics = {"recall": {"label": "answers recalled", "better": "higher"}}
    config = {"lm": {"passage": 512}}
    (sentence,) = headline({"baseline": "fifo", "metrics": metrics, "rows": rows, "config": config})
    return sentence


FULL = row("fifo", 512, 0.9)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (
            [row("fifo", 8, 0.3), row("ours", 8, 0.8, 0.5), FULL],
            "On answers recalled, ours beats fifo with 8 slots: 0.800 against 0.300, +0.500 [+0.450, +0.550]. fifo has "
            "0.300 with 8 slots and 0.900 with everything kept.",
        ),
        (
            [row("fifo", 8, 0.3), row("fifo", 16, 0.4), row("ours", 8, 0.8, 0.5), row("ours", 16, 0.3, -0.1)],
            "On answers recalled, ours beats fifo in 1 of 2 settings and loses in 1, most with 8 slots: 0.800 against "
            "0.300, +0.500 [+0.450, +0.550]. All 2 comparisons: 1 better, 1 worse.",
        ),
        (
            [row("fifo", 8, 0.89), row("ours", 8, 0.88, -0.01), row("theirs", 8, 0.79, -0.1), FULL],
            "On answers recalled, no memory beats fifo anywhere: differences of \N{MINUS SIGN}0.100 to "
            "\N{MINUS SIGN}0.010. fifo has 0.890 with 8 slots and 0.900 with everything kept. All 2 comparisons: 1 "
            "worse, 1 no difference.",
        ),
        (
            [row("fifo", 8, 0.3), row("ours", 8, 0.8, 0.5), row("fifo", 16, 0.4)],
            "On answers recalled, ours beats fifo with 8 slots: 0.800 against 0.300, +0.500 [+0.450, +0.550].",
        ),
    ],
    ids=["win", "mixed", "null", "all others failed"],
)
def test_the_headline_gives_the_size_and_the_ceiling(rows, wanted):
    assert found(*rows) == wanted

"""Report a comparison against full memory: python benchmarks/speech/memories.py FOLDER --name NAME [--note ...].

FOLDER is the ``out`` of `vqmem compare`, whose largest capacity is as long as a passage. Figures are perplexities a
token and, where phrases are repeated, the loss on them; this writes them to ``docs/results/NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from vqmem.benchmarks._results import Chart, Result, Series, write_result
from vqmem.recipes.compare.statistics import FEWEST_PASSAGES, Comparison, paired_bootstrap

CLOSE = 1.02
"""The goal: at most so many times the perplexity of full memory ..."""
QUARTER = 4
"""... with its slots divided by this."""
SCORED = ("surprise", "rarity", "gain")
RIVALS = ("transformer_xl", "random")
HEADINGS = {
    "nll": "Perplexity a token (lower is better)",
    "recall_nll": "Loss on phrases said again, nats a token (lower is better)",
}


class Sums(NamedTuple):
    """One figure of one memory: nats by seed and passage, and tokens by passage."""

    nats: np.ndarray
    tokens: np.ndarray

    def against(self, other: Sums | None) -> Comparison:
        """The loss, in nats a token, and its difference from another memory's."""
        return paired_bootstrap(self.nats, None if other is None else other.nats, self.tokens)


Memories = dict[tuple[str, int], Sums]
"""By strategy and slots."""


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Memories]]:
    """The summary of a comparison, and the figures that some token has."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    cells = [cell for cell in map(json.loads, lines) if cell["train"] == "mixed"]
    last = {(cell["strategy"], cell["capacity"], cell["seed"]): cell["figures"] for cell in cells}
    found: dict[str, Memories] = {}
    for row in summary["rows"]:
        if row["train"] != "mixed":
            continue
        key = row["strategy"], row["capacity"]
        cells = [last[*key, seed] for seed in summary["seeds"]]
        for name in HEADINGS:
            if sum(cells[0][name][1]):
                sums = Sums(np.array([cell[name][0] for cell in cells]), np.array(cells[0][name][1]))
                found.setdefault(name, {})[key] = sums
    return summary, found


def table(memories: Memories, full: int, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and intervals of a figure: itself, against full memory, and against each rival at the same slots.

    Perplexities are compared by their ratios, losses on phrases by their differences.
    """
    shown = math.exp if name == "nll" else float
    values: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    full_memory = memories[RIVALS[0], full]
    for (strategy, slots), sums in memories.items():
        others = {"full memory": full_memory} | {rival: memories.get((rival, slots)) for rival in RIVALS}
        if (strategy, slots) == (RIVALS[0], full):
            others = {}
        row, label = {}, f"{strategy} @ {slots}"
        alone = sums.against(None)
        row["value"], ends = shown(alone.value), {"value": _ends(alone.low, alone.high, shown)}
        for other, theirs in others.items():
            if theirs is not None and other != strategy:
                found = sums.against(theirs)
                row[f"against {other}"] = shown(found.difference)
                ends[f"against {other}"] = _ends(found.difference_low, found.difference_high, shown)
        row["by seed"] = ", ".join(f"{shown(seed.sum() / sums.tokens.sum()):.3f}" for seed in sums.nats)
        values[label], intervals[label] = row, {key: pair for key, pair in ends.items() if pair}
    return values, intervals


def _ends(low: float | None, high: float | None, shown: Any) -> list[float] | None:
    return None if low is None or high is None else [shown(low), shown(high)]


def answer(values: Mapping[str, Any], intervals: Mapping[str, Any], name: str, quarter: int) -> str:
    """Say what scored eviction costs at a quarter of the slots, and whether it beats its rivals there.

    Args:
        values: the rows of `table`, by strategy and slots.
        intervals: their intervals.
        name: the figure: ``nll``, which is reported as perplexity, or ``recall_nll``.
        quarter: the number of slots to report.

    Returns:
        The answer, in a sentence or two.
    """
    even = 1.0 if name == "nll" else 0.0
    said, reached = [], []
    for strategy in SCORED:
        label = f"{strategy} @ {quarter}"
        cost, ends = values[label]["against full memory"], intervals[label]
        parts = [f"{cost - 1:+.2%} perplexity" if name == "nll" else f"{cost:+.3f} nats on phrases said again"]
        for rival in RIVALS:
            low, high = ends[f"against {rival}"]
            how = "better than" if high < even else "worse than" if low > even else "no different from"
            parts.append(f"{how} {rival}")
        said.append(f"{strategy} {', '.join(parts)}")
        reached += [strategy] * (cost <= CLOSE and all(ends[f"against {rival}"][1] < even for rival in RIVALS))
    lead = "" if name != "nll" else f"Reached by {', '.join(reached)}. " if reached else "Not reached. "
    return f"{lead}At {quarter} slots, against full memory: {'; '.join(said)}."


def chart(values: Mapping[str, Any], intervals: Mapping[str, Any], title: str, y: str) -> Chart:
    """Draw the loss against full memory by slots, one line per strategy.

    Args:
        values: the rows of `table`, by strategy and slots.
        intervals: their intervals; rows without one are left out.
        title: the title of the chart.
        y: the title of its y axis, with the unit.

    Returns:
        The chart, with a logarithmic x axis.
    """
    series: dict[str, list[list[float]]] = {}
    for label, row in values.items():
        strategy, _, slots = label.rpartition(" @ ")
        if pair := intervals[label].get("against full memory"):
            series.setdefault(strategy, []).append([int(slots), row["against full memory"], *pair])
    return Chart(title, "slots", y, [Series(*item) for item in series.items()], log_x=True)


def result(summary: Mapping[str, Any], figures: Mapping[str, Memories], notes: Sequence[str]) -> Result:
    """The tables, their intervals and a chart for each figure.

    Raises `ValueError` where no capacity is full memory, and for too few passages.
    """
    config = summary["config"]
    full, lm = max(config["capacities"]), config["lm"]
    if full < (passage := lm["passage"]):
        raise ValueError(
            f"the largest capacity {full} is less than a passage of {passage}; compare with one that is not"
        )
    if (passages := summary["documents"]) < FEWEST_PASSAGES:
        raise ValueError(f"{passages} passages are too few for intervals; give {FEWEST_PASSAGES} or more")
    tables = {HEADINGS[name]: table(memories, full, name) for name, memories in figures.items()}
    values, intervals = ({heading: pair[part] for heading, pair in tables.items()} for part in (0, 1))
    shape = ", ".join(f"{key} {value}" for key, value in lm["shape"].items())
    drawn = ", ".join(config["trained"] or config["strategies"])
    return Result(
        title=summary["title"],
        question=(
            f"{summary['title'].rpartition('? ')[2]}: does scored eviction at a quarter of the slots stay within "
            f"{CLOSE - 1:.0%} perplexity of full memory, and is it better than fifo and random memory with intervals "
            "clear of 1?"
        ),
        answer=" ".join(
            answer(values[HEADINGS[name]], intervals[HEADINGS[name]], name, full // QUARTER) for name in figures
        ),
        measured=(
            f"Transformers ({shape}) read passages of at most {lm['passage']} tokens in segments of {lm['segment']}; "
            f"with {full} slots nothing is forgotten: full memory. One model a seed, {lm['train']['steps']} updates of "
            f"{lm['batch_size'] * lm['segment']} tokens, memory drawn anew every {lm['resample_every']} updates from "
            f"all capacities and {drawn}; the others are measured with the same models. Perplexities are compared "
            "by their ratio, losses on phrases by their difference."
        ),
        values=values,
        split="{split}: {documents} passages, {tokens} tokens".format(**summary),
        seeds=summary["seeds"],
        intervals=intervals,
        interval_kind="95 %, paired bootstrap over passages, 10,000 times; figures are averaged over the seeds first",
        charts=[
            chart(values[HEADINGS[name]], intervals[HEADINGS[name]], title, y)
            for name, title, y in (
                ("nll", "Perplexity against full memory", "ratio (lower is better)"),
                ("recall_nll", "Loss on phrases said again against full memory", "nats (lower is better)"),
            )
            if name in figures
        ],
        effect=[HEADINGS["nll"], f"{SCORED[0]} @ {full // QUARTER}", "against full memory"],
        notes=list(notes),
        command=summary["command"],
        seconds=round(summary["seconds"]),
    )


def main() -> None:
    """Read the comparison, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="out of a comparison")
    parser.add_argument("--name", required=True, help="of the file in docs/results/")
    parser.add_argument("--note", action="append", default=[], help="a finding that the figures do not show")
    flags = parser.parse_args()
    print(write_result(flags.name, result(*read(flags.folder), flags.note)))


if __name__ == "__main__":
    main()

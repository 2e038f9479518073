"""Make a result of a comparison across domains.

    python benchmarks/text/cross_domain.py runs/cross_domain/summary.json [--note ...]

The comparison itself is ``vqmem cross_domain``; this turns the summary that it wrote into
``docs/results/cross_domain.json``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from vqmem.benchmarks._results import Result, convert_summary
from vqmem.recipes.cross_domain.table import answer

WINNERS, AGREEMENT = "What wins, with the fewest slots", "Kendall's τ between domains"


def result(summary: Mapping[str, Any], notes: list[str]) -> Result:
    """Make the result: what wins, how rankings agree, and a table a domain, with intervals.

    Args:
        summary: the ``summary.json`` of `vqmem cross_domain`.
        notes: remarks on the result.

    Returns:
        The result for the page.
    """
    values: dict[str, Any] = {WINNERS: {}, AGREEMENT: {}}
    intervals: dict[str, Any] = {WINNERS: {}, AGREEMENT: {}}
    for name, domain in summary["domains"].items():
        values[WINNERS][name], intervals[WINNERS][name] = _winner(domain)
        table = f"{name}: {domain['metric']['label']} ({domain['metric']['better']} is better), {domain['split']}"
        values[table], intervals[table] = _table(domain)
    for pair in summary["agreement"]:
        name = " and ".join(pair["domains"])
        values[AGREEMENT][name] = {"τ": pair["tau"], "strategies": pair["strategies"]}
        intervals[AGREEMENT][name] = {"τ": [pair["low"], pair["high"]]}
    indifferent = ", ".join(summary["indifferent"]) or "none"
    wins = {name: domain["winner"]["strategy"] for name, domain in summary["domains"].items() if domain["winner"]}
    most = Counter(wins.values()).most_common(1)
    shown = [name for name, strategy in wins.items() if strategy == most[0][0]] or [*summary["domains"]]
    return Result(
        title="What a memory keeps, across domains",
        question="Given as many slots, what should a memory keep, and is that the same for text and for speech?",
        answer=" ".join(answer(summary)),
        measured="Each domain has a model of its own, trained with several strategies in turn, and a policy fitted to "
        "it; see the page of `vqmem compare` for each. Cells are differences from the baseline, whose value is in its "
        "row. Rankings are those with the fewest slots.",
        values=values,
        split=f"{len(summary['domains'])} domains; {sum(x['documents'] for x in summary['domains'].values())} passages",
        seeds=max((domain["seeds"] for domain in summary["domains"].values()), key=len),
        intervals=intervals,
        interval_kind="95 %, bootstrap over passages; figures are averaged over the seeds first; τ: over the passages "
        "of both domains",
        effect=[WINNERS, shown[0], "difference"],
        notes=[f"In no pair, since Friedman's test finds no difference of strategies: {indifferent}.", *notes],
        command=summary["command"],
        seconds=round(summary["seconds"]),
    )


def _winner(domain: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    row = domain["winner"]
    named = {"slots": domain["capacities"][0], "figure": domain["metric"]["label"], "passages": domain["documents"]}
    if row is None:
        return {"winner": "none", "difference": None, **named}, {}
    interval = {"difference": [row["difference_low"], row["difference_high"]]}
    return {"winner": row["strategy"], "difference": row["difference"], **named}, interval


def _table(domain: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row a strategy, a column a capacity."""
    values: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    for row in domain["rows"]:
        column = f"{row['capacity']} slots"
        is_baseline = row["strategy"] == domain["baseline"]
        values.setdefault(row["strategy"], {})[column] = row["value"] if is_baseline else row["difference"]
        ends = ("low", "high") if is_baseline else ("difference_low", "difference_high")
        if row[ends[0]] is not None:
            intervals.setdefault(row["strategy"], {})[column] = [row[end] for end in ends]
    return values, intervals


if __name__ == "__main__":
    convert_summary(__doc__, "cross_domain", result)

"""The table of a grid: the answer of each domain, its rows, and the agreement of the rankings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..compare.findings import decimals
from .agreement import LEVEL, DocumentFigures, agreement
from .domains import Domain

TRAINS = ("mixed", "pretrained")
"""Models that read with every strategy."""


def summarise(found: Sequence[tuple[Domain, Mapping[str, Any]]], out: Path) -> dict[str, Any]:
    """Put the summaries of the domains together.

    Args:
        found: domains, each with the summary of its recipe.
        out: the folder of the grid, to which links are relative.

    Returns:
        ``domains`` by name (see `_domain`), ``strategies`` in order, ``agreement`` of pairs of domains, and the domains
        without differences, ``indifferent``.
    """
    domains = {domain.name: _domain(domain, summary, out) for domain, summary in found}
    figures: dict[str, DocumentFigures] = {}
    for domain, summary in found:
        if made := domain.figures(summary, domains[domain.name]["capacities"][0]):
            figures[domain.name] = made
    pairs, tests = agreement(figures)
    for name, p in tests.items():
        domains[name]["friedman_p"] = p
    strategies = dict.fromkeys(row["strategy"] for domain in domains.values() for row in domain["rows"])
    indifferent = [name for name, p in tests.items() if p >= LEVEL]
    return {"domains": domains, "strategies": list(strategies), "agreement": pairs, "indifferent": indifferent}


def _domain(domain: Domain, summary: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """What the report shows of a domain: its first metric, its rows and its winner at the smallest capacity."""
    metric, spec = next(iter(summary["metrics"].items()))
    rows = [row for row in summary["rows"] if row["train"] in TRAINS and metric in row["metrics"]]
    shown = [
        {key: row[key] for key in ("strategy", "capacity", "memory_bytes", "tokens_per_second")}
        | row["metrics"][metric]
        | {"kept": row.get("kept", {})}
        for row in rows
    ]
    baseline = summary["baseline"]
    compared = {row["capacity"] for row in shown if row["strategy"] != baseline}
    return {
        "title": summary["title"],
        "recipe": domain.recipe,
        "metric": spec | {"name": metric},
        "baseline": baseline,
        "documents": summary["documents"],
        "seeds": summary["seeds"],
        "split": summary["split"],
        "capacities": sorted(compared) or sorted({row["capacity"] for row in shown}),
        "rows": shown,
        "winner": winner(shown, spec["better"], min(compared, default=0)),
        "report": Path(os.path.relpath(Path(domain.config.out) / "report.html", out)).as_posix(),
    }


def winner(rows: list[dict[str, Any]], better: str, capacity: int) -> dict[str, Any] | None:
    """The row of the strategy that beats the baseline by most at ``capacity``; None if none does."""
    sign = 1 if better == "higher" else -1
    better_rows = [row for row in rows if row["capacity"] == capacity and row["verdict"] == "better"]
    return max(better_rows, key=lambda row: sign * row["difference"], default=None)


def decimals_of(domain: Mapping[str, Any]) -> int:
    """Decimals for the figures of a domain, as `decimals` gives them for the intervals of its differences."""
    widths = [
        row["difference_high"] - row["difference_low"]
        for row in domain["rows"]
        if None not in (row["difference_low"], row["difference_high"])
    ]
    return decimals(widths)


def answer(summary: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences: who wins where, and where no strategy does."""
    wins: dict[str, list[str]] = {}
    none = []
    for name, domain in summary["domains"].items():
        if domain["winner"]:
            wins.setdefault(domain["winner"]["strategy"], []).append(name)
        else:
            none.append(name)
    ranked = sorted(wins.items(), key=lambda item: -len(item[1]))
    count = len(summary["domains"])
    lines = [f"{strategy} wins in {len(names)} of {count} domains: {', '.join(names)}." for strategy, names in ranked]
    if none:
        lines.append(f"No strategy beats the baseline in {', '.join(none)}.")
    if pairs := summary["agreement"]:
        mean = sum(pair["tau"] for pair in pairs) / len(pairs)
        clear = sum(pair["low"] > 0 for pair in pairs)
        count = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
        lines.append(
            f"Rankings agree with a mean Kendall's τ of {mean:.2f} over {count} of domains, "
            f"clearly (interval above 0) in {clear}."
        )
    return lines

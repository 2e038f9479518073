"""The summary that `vqmem cross_domain` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .recipe import Config
from .table import answer, decimals_of


def format_summary(config: Config, summary: dict[str, Any]) -> str:
    """A line per domain, what was found, and what is missing."""
    width = max(map(len, summary["domains"]))
    lines = [f"{name:{width}}  {_line(domain)}" for name, domain in summary["domains"].items()]
    lines += ["", *answer(summary), *(f"left out: {domain}: {why}" for domain, why in summary["left_out"].items())]
    lines += [f"failed: {cell}: {why}" for cell, why in summary["failed"].items()]
    return "\n".join([*lines, f"report: {(Path(config.out) / 'report.html').resolve()}"])


def what_failed(summary: dict[str, Any]) -> str:
    """One line about the cells that failed; empty if none did."""
    count = len(summary["failed"])
    cells = "a cell" if count == 1 else f"{count} cells"
    return f"{cells} of the grid failed, see above; the same command tries again what failed" if count else ""


def _line(domain: dict[str, Any]) -> str:
    metric, capacity = domain["metric"], domain["capacities"][0]
    row = domain["winner"]
    if row is None:
        return f"{metric['label']} with {capacity} slots: nothing beats {domain['baseline']}"
    places = decimals_of(domain)
    difference, low, high = (f"{row[key]:+.{places}f}" for key in ("difference", "difference_low", "difference_high"))
    value = f"{row['strategy']} {row['value']:.{places}f}"
    return f"{metric['label']} with {capacity} slots: {value}, {difference} [{low}, {high}]"

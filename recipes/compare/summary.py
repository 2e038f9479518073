"""The summary that `vqmem compare` prints at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .findings import headline
from .recipe import Config


def format_summary(config: Config, summary: dict[str, Any]) -> str:
    """Format a table per metric, and what was found here and in ``beside``, with the paths of the reports."""
    lines = [line for metric in summary["metrics"] for line in _table(summary, metric)]
    report = str((Path(config.out) / "report.html").resolve())
    here: dict[str, Any] = {"title": summary["title"], "headline": headline(summary), "report": report}
    for found in filter(None, (here, summary["beside"])):
        lines += ["", found["title"], *(f"  {one}" for one in found["headline"]), f"  report: {found['report']}"]
    return "\n".join(lines)


def _table(summary: dict[str, Any], metric: str) -> Iterator[str]:
    rows = [row for row in summary["rows"] if metric in row["metrics"]]
    if not rows:
        return
    yield f"{summary['metrics'][metric]['label']} on {summary['documents']} passages of the {summary['split']} split:"
    width = max(len(row["strategy"]) for row in rows)
    for row in rows:
        entry = row["metrics"][metric]
        outcome = entry["verdict"]
        if None not in (low := entry.get("difference_low"), high := entry.get("difference_high")):
            outcome = f"{entry['difference']:+.4f} [{low:+.4f}, {high:+.4f}]  {outcome}"
        memory = f"{row['strategy']:{width}} {row['capacity']:4d} slots {row['train']:6}"
        yield f"  {memory}  {entry['value']:.4f}  {outcome}"

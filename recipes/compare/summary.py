"""What `vqmem compare` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .findings import headline
from .recipe import Config


def format_summary(config: Config, summary: dict[str, Any]) -> str:
    """The table on the first metric, the headline, and where the report is."""
    metric, spec = next(iter(summary["metrics"].items()))
    rows = [row for row in summary["rows"] if metric in row["metrics"]]
    width = max(len(row["strategy"]) for row in rows)
    lines = [f"{spec['label']} on {summary['documents']} passages of the {summary['split']} split:"]
    for row in rows:
        entry = row["metrics"][metric]
        told = entry["verdict"]
        if None not in (low := entry.get("difference_low"), high := entry.get("difference_high")):
            told = f"{entry['difference']:+.4f} [{low:+.4f}, {high:+.4f}]  {told}"
        lines.append(
            f"  {row['strategy']:{width}} {row['budget']:4d} slots {row['train']:6}  {entry['value']:.4f}  {told}"
        )
    return "\n".join([*lines, *headline(summary), f"report: {(Path(config.out) / 'report.html').resolve()}"])

"""The summary that `vqmem same_content` prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import Config


def format_summary(config: Config, summary: dict[str, Any]) -> str:
    """The size of the comparison, its answer in sentences, and the path of the report."""
    about = (
        f"{summary['passages']} passages of the {summary['split']} split, {summary['words']:,} words in "
        f"{summary['seconds_of_content'] / 60:.0f} minutes"
    )
    return "\n".join([about, *summary["answer"], f"report: {(Path(config.out) / 'report.html').resolve()}"])

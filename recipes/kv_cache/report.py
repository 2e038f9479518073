"""The report of a comparison of caches: that of `vqmem compare`, with what to choose, the quizzes and the costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import atomic_write
from ..compare import report as comparison
from ..reporting.page import to_bytes
from .choice import left_out

HERE = Path(__file__).parent


def write_report(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write ``summary`` as one self-contained HTML file, atomically."""
    atomic_write(Path(path), to_bytes(report_page(summary)))


def report_page(summary: Mapping[str, Any]) -> str:
    """Render the page as text."""
    return comparison.report_page(
        summary,
        HERE / "report.html",
        [HERE / "report.css"],
        choice=summary["choice"],
        model=summary["model"],
        quizzes=summary["quizzes"],
        asked=summary["asked"],
        left_out=left_out(summary),
        columns=list(summary["quizzes"][0]["values"]) if summary["quizzes"] else [],
        costs=summary["costs"],
        request=summary["config"]["costs"],
        rows=summary["rows"],
        notes=summary["notes"],
    )

"""The report of a comparison of caches: that of `vqmem compare`, with what to choose, the quizzes and the costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import atomic_write
from ..compare import report as comparison
from ..reporting.page import to_bytes
from .choice import left_out
from .settings import FULL

HERE = Path(__file__).parent


def write_report(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write ``summary`` as one self-contained HTML file, atomically."""
    atomic_write(Path(path), to_bytes(report_page(summary)))


def report_page(summary: Mapping[str, Any]) -> str:
    """Render the page as text."""
    return comparison.report_page(
        summary,
        HERE / "report.html",
        choice=summary["choice"],
        model=summary["model"],
        quizzes=summary["quizzes"],
        asked=summary["asked"],
        left_out=left_out(summary),
        columns=list(summary["quizzes"][0]["values"]) if summary["quizzes"] else [],
        presses=beside_presses(summary["quizzes"], summary["baseline"]),
        costs=summary["costs"],
        request=summary["config"]["costs"],
        rows=summary["rows"],
        notes=summary["notes"],
    )


def beside_presses(quizzes: Sequence[Mapping[str, Any]], baseline: str) -> list[dict[str, Any]]:
    """For each share and press the comparison of every policy with it (``differences``), by the policy's name."""
    found: dict[tuple[float, str], dict[str, Any]] = {}
    for row in quizzes:
        for name, one in row["against"].items():
            if name not in (FULL, baseline):
                found.setdefault((row["share"], name), {})[row["strategy"]] = one
    return [{"share": share, "press": press, "differences": rows} for (share, press), rows in found.items()]

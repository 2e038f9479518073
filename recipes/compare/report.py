"""The report of a comparison: one HTML file that shows the best strategies and the intervals of the differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import atomic_write
from ..reporting import kept
from ..reporting.page import render, to_bytes
from .findings import digits, findings, headline

HERE = Path(__file__).parent
_BADGES = {
    "better": "▲ better",
    "worse": "▼ all others worse",
    "no difference": "= no difference",
    "too few passages": "? too few passages",
}


def write_report(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write ``summary`` as one self-contained HTML file, atomically.

    Parts marked with ? may be missing or null, as may any figure that could not be measured::

        {"title", "created": iso time, "command", "machine", "seconds": float, "config": {...},
         "corpus", "split", "seeds": [int], "baseline": strategy, "documents": n, "tokens": n, "bytes": n,
         "metrics": {metric: {"label", "unit"?, "better": "lower" | "higher"}},           the first one leads
         "rows": [{"strategy", "capacity": slots, "train": "mixed" | "native", "memory_bytes": bytes per row,
                   "metrics": {metric: Comparison.to_json()},                              see statistics.py
                   "per_seed"?: {metric: [float]}, "kept"?: {kind: float},
                   "tokens_per_second"?: float}],
         "scorer"?: {"rate": bits per token, "residual": bits per token, "codes": n, "codes_used": n, "dead_codes": n,
                     ...},
         "passage"?: {"name", "tokens": [str], "signals"?: {signal: [nats]},
                      "memories"?: {strategy: {"capacity": slots, "segment": tokens,
                                               "kept": [[indices of tokens kept after segment 0], ...]}}}}
    """
    atomic_write(Path(path), to_bytes(report_page(summary)))


def report_page(summary: Mapping[str, Any], template: Path = HERE / "report.html", **context: Any) -> str:
    """Render the page as text.

    Args:
        summary: what to show; see `write_report`.
        template: ``report.html``, or one that extends it.
        **context: variables of that template.

    Returns:
        The HTML of the page.
    """
    from .charts import charts, library, points  # imports Altair, which is slow

    metrics = {name: {**spec, "digits": digits(summary, name)} for name, spec in summary["metrics"].items()}
    found = findings(summary)
    return render(
        template,
        title=summary["title"],
        data={
            **summary,
            "metrics": metrics,
            "charts": charts(summary),
            "points": points(summary),
            "strategies": _strategies(summary),
        },
        styles=kept.STYLES,
        scripts=[
            library(),
            *kept.SCRIPTS,
            *(HERE / name for name in ("results.js", "charts.js", "report.js")),
        ],
        headline=headline(summary),
        findings={_heading(metrics[name]): [one for one in found if one.metric == name] for name in metrics},
        badges=_BADGES,
        baseline=summary["baseline"],
        **context,
    )


def _strategies(summary: Mapping[str, Any]) -> list[str]:
    passage = summary.get("passage") or {}
    return list(dict.fromkeys([*(row["strategy"] for row in summary["rows"]), *passage.get("memories", {})]))


def _heading(spec: Mapping[str, Any]) -> str:
    unit = f", {spec['unit']}" if spec.get("unit") else ""
    return f"{spec['label']}{unit} ({spec['better']} is better)"

"""The summary that `vqmem kv_cache` prints at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .choice import left_out
from .config import Config
from .settings import FULL
from .table import full_perplexities


def format_summary(config: Config, summary: dict[str, Any]) -> str:
    """Format a table of streams, needles and costs, what to choose, and the path of the report."""
    lines = [*_streams(summary), *_quizzes(summary), *_costs(summary), "", *summary["choice"]]
    return "\n".join([*lines, f"report: {(Path(config.out) / 'report.html').resolve()}"])


def _streams(summary: Mapping[str, Any]) -> Iterator[str]:
    about = f"{summary['documents']} passages, {summary['tokens']:,} tokens, nats a token"
    yield f"streams: {about}; long-gap loss recovered of what {summary['baseline']} loses"
    headings = f"{'over full cache':>26} {'recovered':>20} {'perplexity':>10} {'KL':>8} {'bytes a row':>13}"
    yield f"  {'policy':24} {'capacity':>8} {headings}"
    for row in summary["rows"]:
        over, gap = row["over_full"], row["metrics"].get("gap_closed")
        cells = [
            f"{row['capacity']:>8}",
            f"{_with_interval(over['difference'], over['difference_low'], over['difference_high'], '+.4f'):>26}",
            f"{_with_interval(gap['value'], gap['low'], gap['high'], '.0f') + ' %' if gap else '':>20}",
            f"{row['metrics']['perplexity']['value']:>10.2f}",
            f"{row['metrics']['kl']['value']:>8.4f}",
            f"{row['memory_bytes']:>13,.0f}",
        ]
        yield f"  {row['strategy']:24} {' '.join(cells)}"
    for capacity, perplexity in full_perplexities(summary["rows"]).items():
        yield f"  {FULL:24} {'all':>8} {'':>26} {f'from token {capacity:,}':>20} {perplexity:>10.2f}"


def _with_interval(value: float, low: float | None, high: float | None, form: str) -> str:
    ends = "" if low is None else f" [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}{ends}"


def _quizzes(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["quizzes"]:
        yield f"needles: {summary['asked']} quizzes, scores in %"
    for row in summary["quizzes"]:
        columns = "  ".join(f"{name} {value:.0f}" for name, value in row["values"].items())
        yield f"  {row['strategy']:24} {row['share']:>7.1%} kept  {columns}{_minus_full(row)}"
    if summary["quizzes"] and summary["left_out"]:
        yield f"  {left_out(summary)}"


def _minus_full(row: Mapping[str, Any]) -> str:
    """How much more or less than the full cache scores."""
    one = row["against"].get(FULL)
    return f"  minus {FULL} {_with_interval(one['difference'], one['low'], one['high'], '+.0f')}" if one else ""


def _costs(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["costs"]:
        request = summary["config"]["costs"]
        yield f"one request: a prompt of {request['prompt']} tokens and an answer of {request['answer']}"
    for row in summary["costs"]:
        yield (
            f"  {row['strategy']:24} {row['capacity'] or 'all':>8} {row['bytes']:>14,.0f} bytes "
            f"{row['byte_seconds'] / 1e6:>10.1f} MB·s  prompt {row['prefill_seconds']:.2f} s  "
            f"token {1000 * row['decode_seconds']:.1f} ms"
        )

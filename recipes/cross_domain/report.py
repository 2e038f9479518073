"""The report of a grid: the answer of each domain, strategies by domain, agreement, quality against bytes, and cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from ...files import atomic_write
from ..reporting import kept as slider
from ..reporting.page import HERE as SHARED
from ..reporting.page import render, to_bytes
from .table import answer, decimals_of

HERE = Path(__file__).parent
MARKS = {"better": "▲", "worse": "▼", "no difference": "=", "baseline": "●", "too few passages": "?"}
SIZES = ("smallest", "middle", "largest")
"""Capacities of a domain that the matrix shows."""
LISTED = 3
"""Memories of a passage that the page opens with."""


def write_report(summary: Mapping[str, Any], path: Path) -> None:
    """Write one self-contained HTML file; ``summary`` is as in ``summary.json``."""
    domains = summary["domains"]
    page = render(
        HERE / "report.html",
        title=summary["title"],
        data={
            "strategies": summary["strategies"],
            "baseline": next(iter(domains.values()))["baseline"],
            "passages": passages(domains, path.parent),
        },
        styles=[*slider.STYLES, HERE / "report.css"],
        scripts=[*slider.SCRIPTS, SHARED / "export.js", HERE / "passages.js"],
        answer=answer(summary),
        answers=[_answer(name, domain) for name, domain in domains.items()],
        matrices={size: matrix(summary, size) for size in SIZES},
        strategies=summary["strategies"],
        names=list(domains),
        tau=_tau(summary),
        indifferent=summary["indifferent"],
        quality=_svg(quality(domains)),
        kept=kept(summary),
        costs=[_cost(name, summary) for name in summary["strategies"]],
        missing=summary["left_out"] | summary["failed"],
        made={"Created": summary["created"], "Machine": summary["machine"], "Seconds": f"{summary['seconds']:.0f}"},
        command=summary["command"],
        config=json.dumps(summary["config"], indent=2),
    )
    atomic_write(path, to_bytes(page))


def passages(domains: Mapping[str, Any], out: Path) -> dict[str, dict[str, Any]]:
    """Domain -> the passage that its own report shows, where it shows one, and the strategies ``listed`` at first.

    These are the baseline, the winner and the last ones; with all memories of a grid open the page would be long.
    """
    found = {}
    for name, domain in domains.items():
        path = (out / domain["report"]).with_name("summary.json")
        summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if passage := summary.get("passage"):
            winner = [domain["winner"]["strategy"]] if domain["winner"] else []
            listed = list(dict.fromkeys([domain["baseline"], *winner, *reversed(passage.get("memories", {}))]))[:LISTED]
            found[name] = {**passage, "listed": listed}
    return found


def capacity_of(domain: Mapping[str, Any], size: str) -> int:
    """The smallest, middle or largest capacity at which strategies of a domain were compared."""
    capacities = domain["capacities"]
    return {"smallest": capacities[0], "middle": capacities[len(capacities) // 2], "largest": capacities[-1]}[size]


def matrix(summary: Mapping[str, Any], size: str) -> dict[str, list[dict[str, str] | None]]:
    """Strategy -> a cell for each domain: the difference from the baseline with its interval; None if not measured."""
    columns = []
    for domain in summary["domains"].values():
        rows = {row["strategy"]: row for row in domain["rows"] if row["capacity"] == capacity_of(domain, size)}
        places = decimals_of(domain)
        columns.append({name: _cell(row, places) for name, row in rows.items()})
    return {name: [column.get(name) for column in columns] for name in summary["strategies"]}


def _cell(row: Mapping[str, Any], places: int) -> dict[str, str]:
    verdict = row["verdict"]
    text = f"{row['value']:.{places}f}" if verdict == "baseline" else _signed(row["difference"], places)
    ends = (row["difference_low"], row["difference_high"])
    shown = verdict != "baseline" and None not in ends
    interval = f"{_signed(ends[0], places)} … {_signed(ends[1], places)}" if shown else ""
    return {"kind": verdict.split()[0], "mark": MARKS[verdict], "text": text, "interval": interval, "verdict": verdict}


def _answer(name: str, domain: Mapping[str, Any]) -> dict[str, Any]:
    row, places, metric = domain["winner"], decimals_of(domain), domain["metric"]
    capacity = capacity_of(domain, "smallest")
    base = next(r for r in domain["rows"] if r["strategy"] == domain["baseline"] and r["capacity"] == capacity)
    unit = f", {metric['unit']}" if metric.get("unit") else ""
    return {
        "name": name,
        "report": domain["report"],
        "metric": f"{metric['label']}{unit}",
        "better": metric["better"],
        "capacity": capacity,
        "baseline": f"{domain['baseline']} {base['value']:.{places}f}",
        "winner": row and row["strategy"],
        "value": row and f"{row['value']:.{places}f}",
        "difference": row and _cell(row, places),
    }


def _tau(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The matrix of τ: domain -> domain -> text."""
    found: dict[str, dict[str, str]] = {}
    for pair in summary["agreement"]:
        first, second = pair["domains"]
        text = f"{_signed(pair['tau'], 2)} [{_signed(pair['low'], 2)}, {_signed(pair['high'], 2)}]"
        found.setdefault(first, {})[second] = found.setdefault(second, {})[first] = text
    return found


def kept(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What strategies keep at the smallest capacity: domain -> ``kinds``, the columns, and ``rows``, the cells."""
    tables = {}
    for name, domain in summary["domains"].items():
        capacity = capacity_of(domain, "smallest")
        rows = {row["strategy"]: row["kept"] for row in domain["rows"] if row["capacity"] == capacity and row["kept"]}
        kinds = list(dict.fromkeys(kind for found in rows.values() for kind in found))
        if kinds:
            cells = {
                strategy: [_kind_text(kind, found.get(kind)) for kind in kinds] for strategy, found in rows.items()
            }
            tables[name] = {"kinds": kinds, "rows": cells}
    return tables


def _kind_text(kind: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if kind == "age" else _signed(value, 2) if kind == "rarity" else f"{value:.2f}"


def _cost(strategy: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Speed of a strategy beside the baseline, and bytes, at the smallest capacity of each domain."""
    cells = []
    for domain in summary["domains"].values():
        capacity = capacity_of(domain, "smallest")
        rows = {row["strategy"]: row for row in domain["rows"] if row["capacity"] == capacity}
        row, base = rows.get(strategy), rows[domain["baseline"]]
        cells.append(row and _cost_text(row, base))
    return {"strategy": strategy, "cells": cells}


def _cost_text(row: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    ratio = row["tokens_per_second"] / base["tokens_per_second"]
    return f"{ratio:.2f} times, {row['memory_bytes'] / 1024:,.0f} KiB"


def quality(domains: Mapping[str, Any]) -> dict[str, Any]:
    """A Vega-Lite chart of quality against bytes, a small multiple for each domain."""
    rows = [
        {
            "domain": f"{name}: {domain['metric']['label']}",
            "strategy": row["strategy"],
            "bytes": row["memory_bytes"],
            "value": row["value"],
            "low": row["low"],
            "high": row["high"],
        }
        for name, domain in domains.items()
        for row in domain["rows"]
    ]
    base = alt.Chart(width=250, height=170).encode(
        x=alt.X(
            "bytes:Q",
            title="bytes of memory a row",
            scale=alt.Scale(type="log", nice=False, padding=12),
            axis=alt.Axis(format="~s", grid=False),
        ),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(format="~g")),
        color=alt.Color("strategy:N", title=None, scale=alt.Scale(scheme="tableau20")),
        shape=alt.Shape("strategy:N", title=None),
    )
    layers = alt.layer(base.mark_line(strokeWidth=1.2, opacity=0.5), base.mark_point(filled=True, opacity=1, size=40))
    chart = layers.facet(alt.Facet("domain:N", title=None, sort=None), columns=3, data=alt.InlineData(values=rows))
    return chart.resolve_scale(x="independent", y="independent").configure(background="#ffffff").to_dict()


def _signed(value: float, places: int) -> str:
    return f"{value:+.{places}f}".replace("-", "\N{MINUS SIGN}")


def _svg(chart: dict[str, Any]) -> Markup:
    return Markup(vl_convert.vegalite_to_svg(chart))

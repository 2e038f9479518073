"""The report of a comparison of text and speech: its answer, a chart and tables, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...files import atomic_write
from ..reporting.page import REPORT_STYLE, render, to_bytes
from .correlation import CONFOUNDS, CONTROLS
from .findings import CRITERIA_IN_WORDS, with_interval

HERE = Path(__file__).parent
COLUMNS = {
    "share": "the same words, %",
    "chance": "at random, %",
    "same_age": "of the same ages, %",
    "over_same_age": "more than of the same ages, points",
    "over_shuffled": "this, more than with shuffled scores",
}
"""The figures of the table of memories and their headings."""


def write_report(summary: Mapping[str, Any], path: str | Path) -> None:
    """Write ``summary`` as one self-contained HTML file, atomically."""
    import vl_convert  # slow

    page = render(
        HERE / "report.html",
        title=summary["title"],
        data={"config": summary["config"]},
        styles=[REPORT_STYLE],
        scripts=[],
        summary=summary,
        criteria=CRITERIA_IN_WORDS,
        columns=COLUMNS,
        controls=list(CONTROLS),
        confounds=CONFOUNDS,
        memories={name: _memory_rows(summary, name) for name in CRITERIA_IN_WORDS},
        across=_by_column(summary["across"], ("pair", "signal", "statistic"), "controls"),
        known=_by_column(summary["confounds"], ("modality", "signal", "statistic"), "confound"),
        chart=Markup(vl_convert.vegalite_to_svg(chart(summary))),
    )
    atomic_write(Path(path), to_bytes(page))


def chart(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A Vega-Lite chart of the share of each strategy with its interval, beside the share of words of the same ages."""
    import altair as alt  # slow

    values: list[dict[str, Any]] = [
        {
            "strategy": row["strategy"],
            "capacity": f"{row['capacity']:g} s of content",
            "kept": f"{row['criterion']} of a word",
            **{key: _percent(row["share"][key]) for key in ("value", "low", "high")},
            "same_age": _percent(row["same_age"]["value"]),
        }
        for row in summary["memories"]
        if row["share"]["value"] is not None
    ]
    names = list(dict.fromkeys(row["strategy"] for row in summary["memories"]))
    base = alt.Chart().encode(y=alt.Y("strategy:N", sort=names, title=None))
    x = alt.X("value:Q", title="the same words, %", scale=alt.Scale(domain=[0, 100]))
    layers = alt.layer(
        base.mark_tick(thickness=2, color="gray").encode(x="same_age:Q"),
        base.transform_filter("isValid(datum.low)").mark_rule().encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, opacity=1).encode(x=x),
        data=alt.InlineData(values=values),
        width=190,
    )
    capacities = list(dict.fromkeys(value["capacity"] for value in values))
    kept = list(dict.fromkeys(value["kept"] for value in values))
    return layers.facet(
        column=alt.Column("capacity:N", sort=capacities, title=None), row=alt.Row("kept:N", sort=kept, title=None)
    ).to_dict()


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def _memory_rows(summary: Mapping[str, Any], criterion: str) -> list[dict[str, Any]]:
    """The rows of the table of memories, with their figures as text."""
    return [
        {
            **{key: row[key] for key in ("strategy", "capacity", "kept_text", "kept_speech")},
            "figures": [
                with_interval(row[name], 100.0, "+.1f" if name.startswith("over") else ".1f") if name in row else ""
                for name in COLUMNS
            ],
        }
        for row in summary["memories"]
        if row["criterion"] == criterion
    ]


def _by_column(
    rows: list[dict[str, Any]], keys: tuple[str, ...], column: str
) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Rows of figures as a table: for each combination of ``keys``, the figures of all values of ``column``."""
    table: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        table.setdefault(tuple(row[key] for key in keys), {})[row[column]] = with_interval(row)
    return list(table.items())

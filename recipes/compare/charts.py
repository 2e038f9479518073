"""The charts of the report as Vega-Lite specifications: a figure by capacity and by bytes of memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt
import vl_convert

_OCTAVES_APART = 0.03
"""Horizontal offset between strategies, so that no point hides another."""
_BYTES = (
    "datum.value < 1024 ? format(datum.value, ',') + ' B' : datum.value < 1048576 ? "
    "format(datum.value / 1024, ',') + ' KiB' : format(datum.value / 1048576, ',') + ' MiB'"
)
_COMPARISON = ("value", "low", "high", "difference", "difference_low", "difference_high", "verdict")


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, in a block that limits the scope of its names."""
    return f"{{\n{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}\n}}"


def points(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The data set ``points`` of the charts: one point for each row and metric."""
    names = _strategies(summary)
    return [
        {
            "strategy": row["strategy"],
            "capacity": row["capacity"],
            "bytes": row["memory_bytes"],
            "train": row["train"],
            "metric": metric,
            **{key: entry.get(key) for key in _COMPARISON},
            "row": number,
            "shift": 2 ** (_OCTAVES_APART * (names.index(row["strategy"]) - (len(names) - 1) / 2)),
        }
        for number, row in enumerate(summary["rows"])
        for metric, entry in row["metrics"].items()
    ]


def charts(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Specifications by the id of their element.

    The page provides the data set and sets the parameters: ``metric``, ``train``, ``difference`` (whether to show the
    difference from the baseline), ``hidden`` (strategies) and ``y_title``.
    """
    names = _strategies(summary)
    capacities = sorted({row["capacity"] for row in summary["rows"]})
    powers = _powers_of_two(row["memory_bytes"] for row in summary["rows"])
    by_capacity = alt.Axis(title="capacity, slots", values=capacities, format=",", grid=False)
    by_bytes = alt.Axis(title="memory of a row", values=powers, labelExpr=_BYTES, grid=False)
    return {"by-slots": _chart("capacity", by_capacity, names), "by-bytes": _chart("bytes", by_bytes, names)}


def _chart(x: str, axis: alt.Axis, names: list[str]) -> dict[str, Any]:
    params = {"metric": "", "train": "", "difference": False, "hidden": [], "y_title": ""}
    strategy: dict[str, Any] = {"field": "strategy", "type": "nominal", "scale": alt.Scale(domain=names), "title": None}
    base = (
        alt.Chart(alt.NamedData("points"))
        .transform_filter("datum.metric == metric && datum.train == train && indexof(hidden, datum.strategy) < 0")
        .transform_calculate(
            x=f"datum.{x} * datum.shift",
            y="difference ? datum.difference : datum.value",
            # Always the interval of the paired difference, which separates strategies, shifted to the point.
            bottom="datum.y + datum.difference_low - datum.difference",
            top="datum.y + datum.difference_high - datum.difference",
            zero="0",
        )
        .transform_filter("isValid(datum.y) && datum.x > 0")
        .encode(
            x=alt.X("x:Q", axis=axis, scale=alt.Scale(type="log", base=2, nice=False, padding=24)),
            y=alt.Y("y:Q", axis=alt.Axis(title=None, format="~g"), scale=alt.Scale(zero=False)),
            color=alt.Color(**strategy),
        )
    )
    zero = (
        base.transform_filter("difference").mark_rule(strokeDash=[4, 3], aria=False).encode(y="zero:Q", x=alt.value(0))
    )
    intervals = base.transform_filter("isValid(datum.difference_low) && datum.verdict != 'baseline'")
    marks = base.mark_point(filled=True, opacity=1).encode(
        shape=alt.Shape(**strategy), tooltip="strategy:N", description="strategy:N"
    )
    chart = alt.layer(
        zero.encode(x2=alt.value("width"), color=alt.value("gray")),
        base.mark_line(strokeWidth=1.5, opacity=0.6, aria=False),
        intervals.mark_rule(strokeWidth=1.5, aria=False).encode(y="bottom:Q", y2="top:Q"),
        marks.add_params(alt.selection_interval(bind="scales", zoom="wheel![event.ctrlKey || event.metaKey]")),
        width="container",
        height=280,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding", resize=True),
        # Above the axis, where it is horizontal and easy to read.
        title=alt.Title(alt.expr("y_title"), anchor="start", fontSize=12, fontWeight="normal"),
    )
    return chart.add_params(*(alt.param(name=name, value=value) for name, value in params.items())).to_dict()


def _strategies(summary: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["strategy"] for row in summary["rows"]))


def _powers_of_two(sizes: Iterable[float | None]) -> list[int]:
    """At most five powers of two over the range of the known sizes."""
    logs = [math.log2(size) for size in sizes if size]
    if not logs:
        return []
    low, high = math.ceil(min(logs) - 0.3), math.floor(max(logs) + 0.3)
    return [2**power for power in range(low, high + 1, max(1, math.ceil((high - low + 1) / 5)))]

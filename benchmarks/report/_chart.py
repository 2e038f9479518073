"""A line chart as SVG, legible on light and dark pages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import altair as alt
import vl_convert
from vqmem.benchmarks._results import Chart

WIDTH, HEIGHT = 460, 300
"""Of the plot itself, without its axes and legend."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#000000")
"""Okabe and Ito's, which colour-blind readers can distinguish."""


FEW = 10
"""Different x up to which each has a tick, and the intervals at it stand side by side."""
GAP = 5
"""Pixels between two intervals that stand side by side."""
PADDING = 10
"""Pixels to the left of the first point and to the right of the last."""


def draw(chart: Chart) -> str:
    """The chart as SVG text. Raises `ValueError` where it has no point, or a logarithm of none."""
    xs = sorted({point[0] for series in chart.series for point in series.points})
    if not xs:
        raise ValueError(f"chart {chart.title!r} has no points")
    if chart.log_x and xs[0] <= 0:
        raise ValueError(f"chart {chart.title!r} has x = {xs[0]:g}, which a logarithmic axis cannot show")
    return vl_convert.vegalite_to_svg(line_chart(chart, xs)) + "\n"


def line_chart(chart: Chart, ticks: list[float]) -> dict[str, Any]:
    """The Vega-Lite specification: points joined by lines, each with its interval as a bar.

    Args:
        chart: What is drawn.
        ticks: Where a logarithmic x axis has its ticks, if there are `FEW` at most.

    Returns:
        The specification, ready for JSON.
    """
    apart = side_by_side(chart, ticks)
    rows: list[dict[str, Any]] = [
        {"series": series.name, **dict(zip(("x", "y", "low", "high"), (apart(number, x), *rest), strict=False))}
        for number, series in enumerate(chart.series)
        for x, *rest in series.points
    ]
    scale = alt.Scale(type="log" if chart.log_x else "linear", zero=False, nice=not chart.log_x, padding=PADDING)
    axis = alt.Axis(format=",~g", grid=False)
    if chart.log_x and len(ticks) <= FEW:
        axis.values = ticks
    dashes = [dash for dash in ([1, 0], [5, 3]) for _ in COLOURS]
    names = list(dict.fromkeys(series.name for series in chart.series))
    base = alt.Chart(alt.Data(values=rows), title=chart.title, width=WIDTH, height=HEIGHT).encode(
        x=alt.X("x:Q", title=chart.x, scale=scale, axis=axis),
        y=alt.Y("y:Q", title=chart.y, scale=alt.Scale(zero=False), axis=alt.Axis(format="~g")),
        color=alt.Color("series:N", title=None, scale=alt.Scale(domain=names, range=COLOURS)),
        strokeDash=alt.StrokeDash("series:N", title=None, scale=alt.Scale(domain=names, range=dashes)),
    )
    solid = alt.value([1, 0])
    intervals = base.transform_filter("isValid(datum.low)").mark_rule().encode(y="low:Q", y2="high:Q", strokeDash=solid)
    points = base.mark_circle(opacity=1, size=35).encode(strokeDash=solid)
    layers = alt.layer(base.mark_line(), intervals, points)
    # The pictures stand in Markdown, whose text describes them.
    return (
        layers.configure(background="#ffffff", aria=False, padding=10)
        .configure_title(anchor="start", fontSize=15)
        .configure_legend(symbolType="stroke", symbolSize=300, symbolStrokeWidth=2.5)
        .to_dict()
    )


def side_by_side(chart: Chart, xs: list[float]) -> Callable[[int, float], float]:
    """Where a series, by its number, has its point at x: intervals at the same x would hide each other.

    Charts without intervals, and those with more than `FEW` different ``xs``, are left as they are.
    """
    if not 1 < len(xs) <= FEW or not any(len(point) > 2 for series in chart.series for point in series.points):
        return lambda number, x: x
    to_axis, from_axis = (math.log, math.exp) if chart.log_x else (float, float)
    places = [to_axis(x) for x in xs]
    # All intervals of an x take at most half of the space to the next x.
    nearest = min(right - left for left, right in itertools.pairwise(places))
    gap = min(GAP * (places[-1] - places[0]) / WIDTH, nearest / 2 / len(chart.series))
    middle = (len(chart.series) - 1) / 2
    # Rounded, as the last digits of a logarithm differ between machines, and pictures are compared by their bytes.
    return lambda number, x: float(f"{from_axis(to_axis(x) + (number - middle) * gap):.6g}")

"""A line chart as an SVG of a few kilobytes, legible on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from vqmem.benchmarks._results import Chart
from vqmem.recipes.reporting.ticks import ticks

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 44, 56
"""Margins; the legend stands in the right one."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart."""

Place = Callable[[float], float]


def draw(chart: Chart) -> str:
    """The chart as SVG text. Raises `ValueError` where it has no point, or a logarithm of none."""
    points = [point for series in chart.series for point in series.points]
    if not points:
        raise ValueError(f"chart {chart.title!r} has no points")
    xs = sorted({point[0] for point in points})
    if chart.log_x and xs[0] <= 0:
        raise ValueError(f"chart {chart.title!r} has x = {xs[0]:g}, which a logarithmic axis cannot show")
    ys = [y for point in points for y in point[1:]]
    y_ticks = ticks(min(ys), max(ys))
    across = _scale(xs[0], xs[-1], LEFT, WIDTH - RIGHT, math.log if chart.log_x else float)
    up = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP, float)
    x_ticks = xs if chart.log_x and len(xs) <= 10 else ticks(xs[0], xs[-1], inside=True)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{escape(chart.title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 24, chart.title, size=15),
        *_axes(chart, x_ticks, y_ticks, across, up),
    ]
    for number, series in enumerate(chart.series):
        colour = COLOURS[number % len(COLOURS)]
        parts += _line(series.points, colour, across, up)
        y = TOP + 10 + 20 * number
        parts.append(f'<path d="M{WIDTH - RIGHT + 16} {y - 4}h18" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(_text(WIDTH - RIGHT + 40, y, series.name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _scale(low: float, high: float, start: float, stop: float, transform: Place) -> Place:
    base, span = transform(low), (transform(high) - transform(low)) or 1.0
    return lambda value: start + (transform(value) - base) / span * (stop - start)


def _axes(chart: Chart, x_ticks: list[float], y_ticks: list[float], across: Place, up: Place) -> list[str]:
    parts = []
    for tick in y_ticks:
        y = f"{up(tick):.1f}"
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, up(tick) + 4, f"{tick:g}", anchor="end"))
    for tick in x_ticks:
        parts.append(f'<path d="M{across(tick):.1f} {HEIGHT - BOTTOM}v5" stroke="#555555"/>')
        parts.append(_text(across(tick), HEIGHT - BOTTOM + 19, f"{tick:,g}", anchor="middle"))
    parts.append(f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="#555555"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, chart.x, anchor="middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return [*parts, _text(18, middle, chart.y, anchor="middle", more=f' transform="rotate(-90 18 {middle})"')]


def _line(points: list[list[float]], colour: str, across: Place, up: Place) -> list[str]:
    """Points joined, each with its interval as a bar."""
    points = sorted(points)
    places = " ".join(f"{across(point[0]):.1f},{up(point[1]):.1f}" for point in points)
    parts = [f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for point in points:
        x = f"{across(point[0]):.1f}"
        if len(point) == 4:
            parts.append(f'<path d="M{x} {up(point[2]):.1f}V{up(point[3]):.1f}" stroke="{colour}" stroke-width="1.2"/>')
        parts.append(f'<circle cx="{x}" cy="{up(point[1]):.1f}" r="3" fill="{colour}"/>')
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222222"{more}>'
        f"{escape(text)}</text>"
    )

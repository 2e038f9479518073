"""Round numbers for the axes of pictures."""

from __future__ import annotations

import math


def ticks(low: float | int, high: float | int, inside: bool = False) -> list[float]:
    """About five round numbers that enclose low and high, or lie between them."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= span / 5)
    first, last = (math.ceil, math.floor) if inside else (math.floor, math.ceil)
    slack = -1e-9 if inside else 1e-9  # so that rounding does not cost or add a tick
    start, stop = first(low / step + slack), last(high / step - slack)
    return [round(i * step, 10) for i in range(start, max(stop, start + (not inside)) + 1)]

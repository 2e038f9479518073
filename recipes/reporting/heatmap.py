"""Text coloured by its scores, on a page for `vqmem score --html` and in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.color import Color
from rich.style import Style
from rich.text import Text

from ...console import visible
from .page import HERE, render

SCRIPT = HERE / "heatmap.js"
STYLE = HERE / "heatmap.css"

# Equal lightness and growing saturation, so that high scores stand out on dark and on light terminals alike;
# orange and blue are distinguishable with every kind of colour blindness.
_NEUTRAL, _HIGH, _LOW = np.array([150, 145, 138]), np.array([255, 145, 20]), np.array([95, 175, 255])
_FAINT = 0.15
_SYMBOLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}

_DETAILS = ("start", "end", "code")
"""The keys of a token that are no signals, besides its text."""

LINE_END = "⏎"
"""Shown before each line break."""


def heatmap_page(tokens: Sequence[Mapping[str, Any]], title: str) -> str:
    """Render a self-contained page that shows a scored text as a heat map.

    ``tokens`` are the objects of ``vqmem score --json``: ``text``, ``start`` and ``end`` (offsets), ``code``, and
    the scorer's signals in nats (``score`` is the surprise). The reader chooses the signal, and sees the numbers of a
    token by pointing at it or with the arrow keys.
    """
    keys = [key for key in (tokens[0] if tokens else ()) if key not in ("text", *_DETAILS)]
    data = {
        "tokens": [token["text"] for token in tokens],
        "signals": {
            "surprise" if key == "score" else key: [round(float(token[key]), 4) for token in tokens] for key in keys
        },
        "details": {
            key: [token[key] for token in tokens]
            for key in _DETAILS
            if tokens and all(token.get(key) is not None for token in tokens)
        },
    }
    return render(HERE / "heatmap.html", title=title, data=data, styles=[STYLE], scripts=[SCRIPT, HERE / "score.js"])


def heatmap_terminal(tokens: Sequence[Mapping[str, Any]], signal: str = "surprise") -> Text:
    """Colour the background of each token by its ``signal``: orange above 0, blue below.

    Between the 2nd and the 98th percentile the scale is linear. Control characters are shown as symbols or escapes, so
    that a file cannot control the terminal. Raises `ValueError` for a signal that the tokens do not have.
    """
    key = "score" if signal == "surprise" else signal
    if tokens and key not in tokens[0]:
        raise ValueError(f"tokens have no signal {signal!r}; they have the keys {', '.join(tokens[0])}")
    values = np.array([token[key] for token in tokens], dtype=np.float64)
    text = Text()
    for token, strength in zip(tokens, strengths(values), strict=True):
        text.append(_visible(token["text"]), style(strength))
    return text


def strengths(values: np.ndarray) -> np.ndarray:
    """Scale values to -1 … 1; 0 is the 2nd percentile or, if that is negative, the value 0."""
    if not values.size:
        return values
    low, high = np.nanquantile(values, [0.02, 0.98])
    zero, span = (0.0, max(-low, high)) if low < 0 else (low, high - low)
    return np.nan_to_num(np.clip((values - zero) / (span or 1.0), -1, 1))


def style(strength: float) -> Style:
    """The background for a value on the scale of `strengths`; none for a faint value."""
    if abs(strength) < _FAINT:
        return Style.null()
    end = _HIGH if strength > 0 else _LOW
    red, green, blue = _NEUTRAL + (end - _NEUTRAL) * abs(strength)
    return Style(color="#000000", bgcolor=Color.from_rgb(red, green, blue))


def _visible(text: str) -> str:
    shown = text.replace("\r\n", "\n").replace("\n", f"{LINE_END}\n")
    return visible(shown.translate(_SYMBOLS))

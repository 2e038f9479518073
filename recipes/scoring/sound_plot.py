"""A recording as a picture: the curve of its scores above spectrogram and pitch, on a common time axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ...console import one_line
from ..reporting.sound import PITCH, PITCHES, mel, mel_place, pauses, picture, pitch
from .audio import AudioScores

LEFT, RIGHT, CURVE, SPECTRUM = 58.0, 52.0, (30.0, 150.0), (168.0, 398.0)
"""Margins, and the vertical range of the curve and of the spectrogram, in pixels."""
HEIGHT, NARROWEST, A_SECOND = 448, 1000.0, 90.0
"""Height of the picture, width of the shortest recording, and width per second of longer ones, in pixels."""
STYLE = Path(__file__).with_suffix(".css")

_LIGHT = ":root { --page: #ffffff; --ink: #16191d; --soft: #565f6b; --line: #dfe3e8; --accent: #0b62c4; }\n"
_KILOHERTZ = (0.5, 1.0, 2.0, 4.0, 8.0)
_HERTZ = (75.0, 100.0, 150.0, 200.0, 300.0, 400.0)


@dataclass(frozen=True)
class ScoredClip:
    """A part of a recording and its scores; the first sample is at the second ``start`` of the recording."""

    name: str
    waveform: Float[Tensor, " _"]
    rate: int
    start: float
    scores: AudioScores

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return len(self.waveform) / self.rate

    @property
    def width(self) -> float:
        """The width of the time axis in pixels."""
        return max(NARROWEST, A_SECOND * self.seconds)

    def x(self, second: float) -> float:
        """The horizontal position of a second of the recording, in pixels."""
        return LEFT + (second - self.start) / self.seconds * self.width


def draw(clip: ScoredClip, signals: Sequence[str]) -> str:
    """Draw the picture as an ``svg`` element with a group for each of ``signals``; a page shows one at a time.

    The page needs `STYLE`; see `still` for a self-contained picture.
    """
    top, bottom = SPECTRUM
    power = mel(clip.waveform, clip.rate)
    box = f'x="{LEFT:g}" y="{top:g}" width="{clip.width:.0f}" height="{bottom - top:g}"'
    width = LEFT + clip.width + RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sound" viewBox="0 0 {width:.0f} {HEIGHT}" '
        f'width="{width:.0f}" height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        f'<image {box} preserveAspectRatio="none" href="{picture(power, float(power.max()))}"/>',
        *_pauses(clip),
        *_seconds(clip),
        *_frequencies(clip),
        *_pitch(clip),
        *(part for name in signals for part in _signal(clip, name)),
    ]
    return "\n".join([*parts, "</svg>"])


def still(clip: ScoredClip, signal: str) -> str:
    """Draw a self-contained picture with the curve of one signal, on white."""
    first, rest = draw(clip, [signal]).split("\n", 1)
    style = f"<style>\n{_LIGHT}{STYLE.read_text(encoding='utf-8')}</style>"
    title = f"<title>{escape(one_line(clip.name))}</title>"
    return f'{first}\n{title}\n{style}\n<rect class="paper" width="100%" height="100%"/>\n{rest}\n'


def ticks(low: float | int, high: float | int, inside: bool = False) -> list[float]:
    """About five round numbers that enclose ``low`` and ``high``, or with ``inside`` lie between them."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= span / 5)
    first, last = (math.ceil, math.floor) if inside else (math.floor, math.ceil)
    slack = -1e-9 if inside else 1e-9  # rounding must not remove or add a tick
    start, stop = first(low / step + slack), last(high / step - slack)
    return [round(i * step, 10) for i in range(start, max(stop, start + (not inside)) + 1)]


def _signal(clip: ScoredClip, name: str) -> list[str]:
    """The curve of a signal and its axis, between the 0.5th and the 99.5th percentile."""
    values = clip.scores.signal(name).double().numpy()
    low, high = np.quantile(values, [0.005, 0.995]).tolist()
    marks = ticks(min(low, 0.0), high)
    (top, bottom), span = CURVE, marks[-1] - marks[0]
    places = bottom - (np.clip(values, marks[0], marks[-1]) - marks[0]) / span * (bottom - top)
    parts = [f'<g class="signal" data-signal="{name}">']
    for mark in marks:
        y = bottom - (mark - marks[0]) / span * (bottom - top)
        parts.append(f'<path class="grid" d="M{LEFT:g} {y:.1f}h{clip.width:.0f}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{mark:g}", "end"))
    unit = "nats" if clip.scores.ids is not None else "nats per dimension"
    parts.append(_text(LEFT, top - 12, f"{name}, {unit}", "start", "name"))
    steps = [f"V{place:.1f}H{clip.x(end):.1f}" for place, end in zip(places, clip.scores.ends.tolist(), strict=True)]
    start = f"M{clip.x(float(clip.scores.starts[0])):.1f} {places[0]:.1f}"
    return [*parts, f'<path class="curve" d="{start}{"".join(steps)}"/>', "</g>"]


def _pauses(clip: ScoredClip) -> list[str]:
    """Shades over both panels in the pauses."""
    top, height = CURVE[0], SPECTRUM[1] - CURVE[0]
    return [
        f'<rect class="pause" x="{clip.x(clip.start + start):.1f}" y="{top:g}" '
        f'width="{(end - start) / clip.seconds * clip.width:.1f}" height="{height:g}"/>'
        for start, end in pauses(clip.waveform, clip.rate)
    ]


def _seconds(clip: ScoredClip) -> list[str]:
    """The time axis."""
    bottom, end, parts = SPECTRUM[1], clip.start + clip.seconds, []
    seconds = map(float, range(math.ceil(clip.start), int(end) + 1))
    marks = ticks(clip.start, end, inside=True) if clip.seconds < 10 else seconds
    for mark in marks:
        parts.append(f'<path class="axis" d="M{clip.x(mark):.1f} {bottom:g}v5"/>')
        parts.append(_text(clip.x(mark), bottom + 19, f"{mark:g}", "middle"))
    return [*parts, _text(LEFT + clip.width / 2, bottom + 40, "seconds", "middle")]


def _frequencies(clip: ScoredClip) -> list[str]:
    """The frequency axis of the spectrogram, on the mel scale."""
    (top, bottom), parts = SPECTRUM, []
    for mark in (mark for mark in _KILOHERTZ if 2000 * mark <= clip.rate):
        y = bottom - mel_place(1000 * mark, clip.rate) * (bottom - top)
        parts.append(f'<path class="axis" d="M{LEFT:g} {y:.1f}h-5"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{mark:g} kHz", "end"))
    return parts


def _pitch(clip: ScoredClip) -> list[str]:
    """The pitch curve on the spectrogram, and its logarithmic axis on the right."""
    right, parts, line, joined = LEFT + clip.width, [], "", False
    for mark in _HERTZ:
        y = _pitch_place(mark)
        parts.append(f'<path class="axis" d="M{right:.0f} {y:.1f}h5"/>')
        parts.append(_text(right + 8, y + 4, f"{mark:g} Hz", "start"))
    for number, hz in enumerate(pitch(clip.waveform, clip.rate).tolist()):
        if voiced := math.isfinite(hz):
            second = clip.start + min(number / PITCHES, clip.seconds)
            line += f"{'L' if joined else 'M'}{clip.x(second):.1f} {_pitch_place(hz):.1f}"
        joined = voiced
    return [*parts, *(f'<path class="pitch {kind}" d="{line}"/>' for kind in ("under", "over") if line)]


def _pitch_place(hz: float) -> float:
    (top, bottom), (low, high) = SPECTRUM, PITCH
    return bottom - math.log(hz / low) / math.log(high / low) * (bottom - top)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'

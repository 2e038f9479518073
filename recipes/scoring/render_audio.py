"""Show a scored recording: coloured in the terminal, as JSON lines, as a page with a player, or as a picture."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from ...console import one_line
from ...data.reading.audio import RATE, Audio
from ...files import atomic_write
from ..engine.progress import Bar
from ..reporting.heatmap import strengths, style
from ..reporting.page import HERE, render, to_bytes
from ..reporting.sound import sound
from .audio import AudioScores, load_audio_scorer
from .sound_plot import CURVE, LEFT, RIGHT, SPECTRUM, STYLE, ScoredClip, draw, still
from .text import choose_signal, json_key, rounded

DRAWN = 120
"""The most seconds that a page or a picture shows, since it is drawn, and on a page played, in one piece."""
_LINE = 25  # units per line of the terminal: half a second at 50 units per second


class Span(NamedTuple):
    """A stretch of a recording, in seconds."""

    start: float
    end: float


def parse_span(text: str) -> Span:
    """Parse ``30:90``, ``30:`` or ``:90``. Raises `ValueError` for anything else, and for empty spans."""
    first, colon, last = text.partition(":")
    try:
        start, end = float(first or 0), float(last or math.inf)
    except ValueError:
        colon, start, end = "", 0.0, 0.0
    if not colon:
        raise ValueError(f"--span {text} is not START:END in seconds; give such as 30:90, 30: or :90")
    if not 0 <= start < end:
        raise ValueError(f"--span {text} is empty; START must be 0 or more, and END after it")
    return Span(start, end)


def show_recording(
    file: str,
    model: Path | None,
    signal: str | None,
    device: torch.device,
    *,
    span: Span,
    as_json: bool,
    html: Path | None,
    image: Path | None,
) -> None:
    """Score a recording and show it on standard output, or write a page or a picture.

    Args:
        file: the recording.
        model: the folder of a run; None takes the packaged model.
        signal: to colour by; None takes the first that the scorer gives.
        device: of the model.
        span: the part to show; everything before it is scored as well, since scores depend on it.
        as_json: write one JSON object per unit or frame.
        html: the page to write.
        image: the picture to write.

    Raises:
        ValueError: in one line, for an invalid recording or model, a span past the end, and more than `DRAWN` seconds
            to draw.
    """
    audio, name = Audio(file), "the packaged model" if model is None else str(model)
    total = audio.seconds()
    if span.start and span.start >= total:
        raise ValueError(f"--span begins at {span.start:g} s, and {file!r} ends at {total:.2f} s; give an earlier one")
    span = Span(span.start, min(span.end, total))
    shown = span.end - span.start
    if shown > DRAWN and (html or image):
        raise ValueError(
            f"{file!r} is {shown:.0f} s long, and at most {DRAWN} s can be drawn; give a part of it, such as "
            f"--span {span.start:g}:{span.start + DRAWN:g}, or use --json"
        )
    scorer = load_audio_scorer(model, device)
    with Bar("score", int(total), transient=True) as bar:
        scores = scorer(replace(audio, on_progress=lambda second: bar.update(int(second))))
    first, scores = _cut(scores, span)
    signal = choose_signal(signal, scores.given)
    if html is not None:
        clip = _clip(audio, span, scores)
        atomic_write(html, to_bytes(_page(clip, first, signal, name)))
        print(f"{shown:.1f} s in {one_line(str(html))}", file=sys.stderr)
    elif image is not None:
        atomic_write(image, to_bytes(still(_clip(audio, span, scores), signal)))
        print(f"{shown:.1f} s in {one_line(str(image))}", file=sys.stderr)
    elif as_json:
        sys.stdout.write("".join(f"{json.dumps(row)}\n" for row in _objects(scores, first)))
    else:
        _print_colours(scores, signal)


def _cut(scores: AudioScores, span: Span) -> tuple[int, AudioScores]:
    """The index of the first unit or frame that overlaps the span, and the scores of all that do."""
    inside = ((scores.ends > span.start) & (scores.starts < span.end)).nonzero().flatten()
    if not len(inside):
        raise ValueError(f"--span {span.start:g}:{span.end:g} contains no unit or frame; give a longer one")
    first, last = int(inside[0]), int(inside[-1])
    return first, scores.slice(first, last + 1)


def _objects(scores: AudioScores, first: int) -> Iterator[dict[str, Any]]:
    codes = [None] * len(scores.signals) if scores.codes is None else scores.codes.tolist()
    rows = zip(scores.starts.tolist(), scores.ends.tolist(), scores.signals.tolist(), codes, strict=True)
    for number, (start, end, values, code) in enumerate(rows):
        what = {"frame": first + number} if scores.ids is None else {"unit": int(scores.ids[number])}
        times = {"start": round(start, 5), "end": round(end, 5)}
        named = {json_key(name): rounded(x) for name, x in zip(scores.given, values, strict=True)}
        yield {**what, **times, **named, "code": code}


def _print_colours(scores: AudioScores, signal: str) -> None:
    """Print lines of half a second, each with its start time. Colours are written to a pipe as well, as for text."""
    strong = strengths(scores.signal(signal).double().numpy())
    names, gap = (["  "] * len(strong), "") if scores.ids is None else (list(map(str, scores.ids.tolist())), " ")
    width, console = max(map(len, names)), Console(force_terminal=True, highlight=False)
    for first in range(0, len(strong), _LINE):
        line = Text(f"{float(scores.starts[first]):8.2f} s ")
        for name, strength in zip(names[first : first + _LINE], strong[first : first + _LINE], strict=True):
            line.append(f"{name:>{width}}", style(strength)).append(gap)
        with console.capture() as coloured:
            console.print(line, soft_wrap=True)
        sys.stdout.write(coloured.get())
    sys.stdout.flush()  # a broken pipe must be noticed before the summary is printed
    means = ", ".join(f"{name} {scores.signal(name).mean():.2f}" for name in scores.given)
    kind, unit = ("frames", "nats per dimension") if scores.ids is None else ("units", "nats per unit")
    print(f"{len(strong):,} {kind}; {unit}: {means}; orange = high {signal}", file=sys.stderr)


def _clip(audio: Audio, span: Span, scores: AudioScores) -> ScoredClip:
    parts, position = [], 0
    for chunk in audio.stream():
        start, end = (min(max(0, round(edge * RATE) - position), len(chunk)) for edge in span)
        parts.append(chunk[start:end])
        position += len(chunk)
    return ScoredClip(Path(audio.name).name, torch.cat(parts), RATE, span.start, scores)


def _page(clip: ScoredClip, first: int, signal: str, model: str) -> str:
    scores = clip.scores
    columns = {name: [rounded(value) for value in scores.signal(name).tolist()] for name in scores.given}
    geometry = {"left": LEFT, "width": clip.width, "across": LEFT + clip.width + RIGHT, "top": CURVE[0]}
    data = {
        "sound": sound(clip.waveform, clip.rate),
        "plot": {**geometry, "bottom": SPECTRUM[1], "start": clip.start, "seconds": clip.seconds},
        "signals": columns,
        "chosen": signal,
        "starts": scores.starts.tolist(),
        "ends": scores.ends.tolist(),
        "units": None if scores.ids is None else scores.ids.tolist(),
        "codes": None if scores.codes is None else scores.codes.tolist(),
        "first": first,
        "unit": "nats per dimension" if scores.ids is None else "nats",
        "model": model,
    }
    styles, scripts = [STYLE, HERE / "sound.css"], [HERE / "sound.js"]
    plot = Markup(draw(clip, list(columns)))
    return render(HERE / "sound.html", title=clip.name, data=data, styles=styles, scripts=scripts, plot=plot)

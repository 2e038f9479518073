"""Show a scored text: coloured in the terminal, as JSON lines, or as a page. `render_audio` shows recordings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...console import one_line
from ...data.reading.audio import is_recording
from ...data.reading.files import read_text
from ...files import atomic_write, refuse_folder
from ...memory.scorer import SIGNALS, signals_of
from ...models.device import resolve_device
from ...models.speech.frame_scorer import is_frame_scorer
from ...registry import UnknownNameError
from ..engine.progress import Bar
from ..lm.text_scorer import Scoring, load_scoring, require_text
from ..reporting.heatmap import LINE_END, heatmap_page, heatmap_terminal
from .language import unlike_english
from .render_audio import parse_span, show_recording
from .text import choose_signal, json_key, score_text

_ABOUT = (
    "as {}. The packaged scorer learnt from English prose, and what it has rarely seen scores high; "
    "`vqmem text_lm english data.path=MY_FOLDER out=runs/mine` trains one on yours in minutes, for --model runs/mine"
)
PAGE_TOKENS = 200_000
"""Tokens that a browser can lay out at an acceptable speed."""


def show(
    file: str,
    encoding: str,
    model: Path | None,
    signal: str | None,
    device: str,
    *,
    tokenizer: str | None,
    as_json: bool,
    html: Path | None,
    image: Path | None = None,
    span: str | None = None,
) -> None:
    """Score a file and show it on standard output, or write a page atomically. Recordings go to `show_recording`.

    Args:
        file: a text or a recording; ``-`` is text from standard input.
        encoding: of the text.
        model: the folder of a run; None takes the packaged scorer.
        signal: to colour by; None takes the first that the scorer gives.
        device: such as ``cpu``.
        tokenizer: score the tokens of this tokenizer; see `load_scoring_for`.
        as_json: write one JSON object per token.
        html: the page to write.
        image: the picture of a recording to write.
        span: the seconds of a recording to show; see `parse_span`.

    Raises:
        ValueError: in one line, for an invalid file, encoding, model, signal or device, and for a text without tokens.
    """
    if model is None and signal is not None and signal not in SIGNALS:  # the scorer of a run may give others
        raise UnknownNameError("signal", signal, list(SIGNALS))
    for option, path in (("--html", html), ("--image", image)):
        if path is not None:
            refuse_folder(option, path)
    if is_recording(file):
        if tokenizer is not None:
            raise ValueError(f"--tokenizer {tokenizer} makes tokens of text, and {file!r} is a recording; leave it out")
        stretch = parse_span(span or ":")
        show_recording(
            file, model, signal, resolve_device(device), span=stretch, as_json=as_json, html=html, image=image
        )
        return
    for option, value in (("--image", image), ("--span", span)):
        if value is not None:
            raise ValueError(f"{option} {value} is for recordings, and {file!r} is taken for text; leave it out")
    if model is not None and is_frame_scorer(model):
        raise ValueError(f"the run {str(model)!r} reads recordings, not text; give one that was trained on text")
    text = read_text(file, encoding, "--encoding")
    scoring = _load(model, tokenizer, resolve_device(device))
    require_text(scoring.tokenizer)
    signal = choose_signal(signal, signals_of(scoring.scorer))
    chunks = score_text(text, scoring)
    first = next(chunks, None)
    if first is None:
        raise ValueError(f"{file!r} has no token: the model's front-end skips white space; give a file with words")
    if model is None and tokenizer is None and (reason := unlike_english(text)):
        print(f"vqmem: {one_line(file)} may not be English, {_ABOUT.format(reason)}", file=sys.stderr)
    chunks = _watched(chain([first], chunks), len(text), quiet=html is None and sys.stdout.isatty())
    if as_json:
        _print_json(chunks)
    elif html is not None:
        _write_page(chunks, Path(file).name if file != "-" else "standard input", html)
    else:
        _print_colours(chunks, signal, signals_of(scoring.scorer))


def _load(model: Path | None, tokenizer: str | None, device: torch.device) -> Scoring:
    if tokenizer is None:
        return load_scoring(model, device)
    from ..text_lm.for_tokenizer import load_scoring_for  # imports the training code, which is slow

    return load_scoring_for(tokenizer, model, device)


def _watched(chunks: Iterator[list[dict[str, Any]]], total: int, *, quiet: bool) -> Iterator[list[dict[str, Any]]]:
    with Bar("score", total, quiet=quiet, transient=True) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(chunk[-1]["end"])


def _print_json(chunks: Iterator[list[dict[str, Any]]]) -> None:
    for chunk in chunks:
        sys.stdout.write("".join(one_line(json.dumps(token, ensure_ascii=False)) + "\n" for token in chunk))


def _write_page(chunks: Iterator[list[dict[str, Any]]], title: str, path: Path) -> None:
    tokens: list[dict[str, Any]] = []
    for chunk in chunks:
        tokens += chunk
        if len(tokens) > PAGE_TOKENS:
            raise ValueError(
                f"{title} has more than {PAGE_TOKENS:,} tokens, too many for a page; use --json, or a part"
            )
    atomic_write(path, heatmap_page(tokens, title).encode("utf-8", "replace"))
    print(f"{len(tokens):,} tokens in {one_line(str(path))}", file=sys.stderr)


def _print_colours(chunks: Iterator[list[dict[str, Any]]], signal: str, given: Sequence[str]) -> None:
    """Colours are written to a pipe as well, since they are the result; NO_COLOR removes them."""
    console = Console(force_terminal=True, highlight=False)
    line_end = LINE_END if _writable(LINE_END) else "$"  # as `cat -E` marks it
    count, totals = 0, dict.fromkeys(given, 0.0)
    for chunk in chunks:
        # rich itself would end the process with an error if the reader of a pipe has closed it.
        with console.capture() as coloured:
            console.print(heatmap_terminal(chunk, signal), end="", soft_wrap=True)
        sys.stdout.write(coloured.get().replace(LINE_END, line_end))
        count += len(chunk)
        totals = {name: total + sum(token[json_key(name)] for token in chunk) for name, total in totals.items()}
    sys.stdout.write("\n")
    sys.stdout.flush()  # a broken pipe must be noticed before the summary is printed
    means = ", ".join(f"{name} {total / count:.2f}" for name, total in totals.items())
    print(f"{count:,} tokens; nats per token: {means}; orange = high {signal}", file=sys.stderr)


def _writable(sign: str) -> bool:
    """Whether standard output can encode ``sign``."""
    try:
        sign.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True

"""Score a text token by token, in bounded memory: what `vqmem score` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...memory.scorer import SIGNALS, signals_of
from ...tokenizers_._text import cut
from ...tokenizers_.base import Stream
from ..lm.text_scorer import Scoring, load_scoring

CHUNK = 4096
"""Tokens scored at once."""

KEYS: dict[str, str] = {"surprise": "score", "rarity": "rarity", "gain": "gain"}
"""What signals are called in JSON."""


def choose_signal(signal: str | None, given: Sequence[str]) -> str:
    """The signal to show: the first of those that the scorer gives, if none is asked for. Raises `ValueError`."""
    if signal is not None and signal not in given:
        raise ValueError(f"signal {signal!r} is none that this scorer gives; use {' or '.join(given)}")
    return signal or given[0]


def score_text(text: str, scoring: Scoring | None = None, chunk: int = CHUNK) -> Iterator[list[dict[str, Any]]]:
    """The tokens of ``text`` with their scores, at most ``chunk`` of them at a time.

    Keys: ``text``, ``start`` and ``end`` (characters), ``score`` (the surprise), ``rarity`` and ``gain`` in nats where
    the scorer gives them, and ``code`` (a number, or a list where the quantiser has several codebooks; None for scorers
    without one). The texts concatenate to the source: of tokens that share a character, the first has it. The values do
    not depend on ``chunk``; memory stays bounded because text is tokenized and scored piece by piece, with the state
    carried along.

    Args:
        text: of any length.
        scoring: what `load_scoring` gives; the packaged scorer by default.
        chunk: tokens that are scored at once.
    """
    scoring = load_scoring() if scoring is None else scoring
    state, offset, end = scoring.scorer.initial_state(1), 0, 0
    for piece in _pieces(text):
        stream = scoring.tokenizer.encode(piece)
        for begin in range(0, len(stream), chunk):
            part = stream.slice(begin, min(begin + chunk, len(stream)))
            made, state = _score(part, piece, offset, end, scoring, state)
            end = made[-1]["end"]
            yield made
        offset += len(piece)


def _score(
    stream: Stream, piece: str, offset: int, end: int, scoring: Scoring, state: Any
) -> tuple[list[dict[str, Any]], Any]:
    """One chunk: ``offset`` is where ``piece`` starts in the source, ``end`` where the token before ended."""
    tokens, scorer = stream.ids[None].to(scoring.device), scoring.scorer
    given = signals_of(scorer)
    signals, state = scorer.score(tokens, state)
    codes = scorer.codes(tokens)[0].tolist() if hasattr(scorer, "codes") else [None] * len(stream)
    made = []
    spans = zip(stream.starts.tolist(), stream.ends.tolist(), signals[0].tolist(), codes, strict=True)
    for start, stop, values, code in spans:
        whose = piece[max(start, end - offset) : stop]
        end = offset + stop
        scores = {KEYS[name]: rounded(x) for name, x in zip(SIGNALS, values, strict=True) if name in given}
        made.append({"text": whose, "start": offset + start, "end": end, **scores, "code": code})
    return made, state


def rounded(value: float) -> float:
    """A score as JSON shows it. Adding 0 takes the sign from a rounded -0."""
    return round(value, 5) + 0.0


def _pieces(text: str) -> Iterator[str]:
    """``text`` in pieces that each have a character to tokenize: a front-end may find no token in white space."""
    held: list[str] = []
    blank = True
    for piece in cut(text):
        if not blank and not piece.isspace():
            yield "".join(held)
            held, blank = [], True
        held.append(piece)
        blank = blank and piece.isspace()
    yield "".join(held)

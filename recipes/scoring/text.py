"""Score a text token by token, in bounded memory, for `vqmem score`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...memory.scorer import signals_of
from ...tokenizers_._text import cut
from ...tokenizers_.base import Stream
from ..lm.text_scorer import Scoring, load_scoring

CHUNK = 4096
"""Tokens scored at once."""


def json_key(signal: str) -> str:
    """The key of a signal in JSON: its name, or ``score`` for the surprise."""
    return "score" if signal == "surprise" else signal


def choose_signal(signal: str | None, given: Sequence[str]) -> str:
    """The signal to show; by default the first that the scorer gives. Raises `ValueError` for one that is missing."""
    if signal is not None and signal not in given:
        raise ValueError(f"this scorer does not give the signal {signal!r}; use {' or '.join(given)}")
    return signal or given[0]


def score_text(text: str, scoring: Scoring | None = None, chunk: int = CHUNK) -> Iterator[list[dict[str, Any]]]:
    """Yield the tokens of ``text`` with their scores, at most ``chunk`` at a time.

    Keys: ``text``, ``start`` and ``end`` (characters), the scorer's signals in nats under their names (the surprise is
    ``score``), and ``code`` (a number, or a list where the quantiser has several codebooks; None for scorers
    without one). The texts concatenate to the source; a character that several tokens share belongs to the first. The
    values do not depend on ``chunk``. Memory is bounded because the text is tokenized and scored in pieces, with the
    state passed on.

    Args:
        text: of any length.
        scoring: the result of `load_scoring`; by default the packaged scorer.
        chunk: tokens that are scored at once.

    Yields:
        The tokens of a chunk in order, a mapping of the keys above per token.
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
    """Score one chunk; ``offset`` is the start of ``piece`` in the source, ``end`` the end of the previous token."""
    tokens, scorer = stream.ids[None].to(scoring.device), scoring.scorer
    keys = [json_key(name) for name in signals_of(scorer)]
    signals, state = scorer.score(tokens, state)
    codes = scorer.codes(tokens)[0].tolist() if hasattr(scorer, "codes") else [None] * len(stream)
    made = []
    spans = zip(stream.starts.tolist(), stream.ends.tolist(), signals[0].tolist(), codes, strict=True)
    for start, stop, values, code in spans:
        shown = piece[max(start, end - offset) : stop]
        end = offset + stop
        scores = {key: rounded(x) for key, x in zip(keys, values, strict=True)}
        made.append({"text": shown, "start": offset + start, "end": end, **scores, "code": code})
    return made, state


def rounded(value: float) -> float:
    """Round a score for JSON. Adding 0 removes the sign of a rounded -0."""
    return round(value, 5) + 0.0


def _pieces(text: str) -> Iterator[str]:
    """Split ``text`` into pieces that are not only white space, in which a front-end may find no token."""
    buffer: list[str] = []
    blank = True
    for piece in cut(text):
        if not blank and not piece.isspace():
            yield "".join(buffer)
            buffer, blank = [], True
        buffer.append(piece)
        blank = blank and piece.isspace()
    yield "".join(buffer)

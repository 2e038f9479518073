"""Score a text token by token, in bounded memory, for `vqmem score`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from ...memory.scorer import signals_of
from ...tokenizers_._text import cut
from ..lm.text_scorer import CHUNK, Scoring, load_scoring


def json_key(signal: str) -> str:
    """The key of a signal in JSON: its name, or ``score`` for the surprise."""
    return "score" if signal == "surprise" else signal


def choose_signal(signal: str | None, given: Sequence[str]) -> str:
    """The signal to show; by default the first that the scorer gives. Raises `ValueError` for one that is missing."""
    if signal is not None and signal not in given:
        raise ValueError(f"this scorer does not give the signal {signal!r}; use {' or '.join(given)}")
    return signal or given[0]


class TextScores(NamedTuple):
    """The scores of some consecutive tokens of a text.

    ``texts`` are the characters of each token, of which ``starts`` and ``ends`` are the offsets in the source; a
    character that several tokens share belongs to the first. ``signals`` are those of the scorer, in nats.
    """

    ids: Int[Tensor, " time"]
    texts: list[str]
    starts: list[int]
    ends: list[int]
    signals: Float[Tensor, "time signal"]


def score_tokens(text: str, scoring: Scoring, chunk: int = CHUNK) -> Iterator[TextScores]:
    """Score the tokens of a text of any length, at most ``chunk`` at a time; the values do not depend on ``chunk``.

    Memory is bounded because the text is tokenized and scored in pieces, with the state passed on.
    """
    state, offset, end = scoring.scorer.initial_state(1), 0, 0
    for piece in _pieces(text):
        stream = scoring.tokenizer.encode(piece)
        for begin in range(0, len(stream), chunk):
            part = stream.slice(begin, min(begin + chunk, len(stream)))
            signals, state = scoring.scorer.score(part.ids[None].to(scoring.device), state)
            made = TextScores(part.ids, [], [], [], signals[0].cpu())
            for start, stop in zip(part.starts.tolist(), part.ends.tolist(), strict=True):
                made.texts.append(piece[max(start, end - offset) : stop])
                made.starts.append(offset + start)
                end = offset + stop
                made.ends.append(end)
            yield made
        offset += len(piece)


def score_text(text: str, scoring: Scoring | None = None, chunk: int = CHUNK) -> Iterator[list[dict[str, Any]]]:
    """Yield the tokens of ``text`` with their scores, at most ``chunk`` at a time.

    Keys: ``text``, ``start`` and ``end`` (characters), the scorer's signals in nats under their names (the surprise is
    ``score``), and ``code`` (a number, or a list where the quantiser has several codebooks; None for scorers
    without one). The texts concatenate to the source; a character that several tokens share belongs to the first. The
    values do not depend on ``chunk``. Memory is bounded as for `score_tokens`.

    Args:
        text: of any length.
        scoring: the result of `load_scoring`; by default the packaged scorer.
        chunk: tokens that are scored at once.

    Yields:
        The tokens of a chunk in order, a mapping of the keys above per token.
    """
    scoring = load_scoring() if scoring is None else scoring
    scorer = scoring.scorer
    keys = [json_key(name) for name in signals_of(scorer)]
    for made in score_tokens(text, scoring, chunk):
        ids = made.ids[None].to(scoring.device)
        codes = scorer.codes(ids)[0].tolist() if hasattr(scorer, "codes") else [None] * len(made.texts)
        rows = zip(made.texts, made.starts, made.ends, made.signals.tolist(), codes, strict=True)
        yield [
            {
                **{"text": shown, "start": start, "end": end},
                **{key: rounded(x) for key, x in zip(keys, values, strict=True)},
                "code": code,
            }
            for shown, start, end, values, code in rows
        ]


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
